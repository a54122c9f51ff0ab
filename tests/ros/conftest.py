# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Real processes, an isolated domain per test run, loopback only."""

from __future__ import annotations

import importlib.util
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# The core is tested where no ROS is installed, too.
WITH_ROS = all(importlib.util.find_spec(m) for m in ("rclpy", "seg3d_interfaces", "seg3d_ros", "tf2_msgs"))
collect_ignore_glob = [] if WITH_ROS else ["test_*.py"]


def _free_domain() -> int:
    """One whose discovery port nobody holds; above 101 the ports collide with Linux's ephemeral range."""
    # Workers of one run choose from different ones: nobody holds a port yet while they do.
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 8
    domains = range(1 + worker, 102, 8)
    for domain in random.SystemRandom().sample(domains, len(domains)):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind(("", 7410 + 250 * domain))
            except OSError:
                continue
            return domain
    return 0


# Before rclpy is imported anywhere: DDS reads these once.
os.environ["ROS_DOMAIN_ID"] = str(_free_domain())


@pytest.fixture
def empty_domain() -> int:
    """A domain in which no node of an earlier test lingers."""
    return next(domain for domain in iter(_free_domain, None) if domain != int(os.environ["ROS_DOMAIN_ID"]))


os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
os.environ["ROS_LOG_DIR"] = tempfile.mkdtemp(prefix="seg3d_ros_log_")
PROFILE = ROOT / "ros2_ws" / "src" / "seg3d_ros" / "config" / "fastdds_shm.xml"
for _name in ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE"):  # Jazzy, newer
    os.environ.setdefault(_name, str(PROFILE))

if WITH_ROS:
    import rclpy
    from rclpy.executors import SingleThreadedExecutor


class Process:
    """A module of ours in its own process; what it says is kept in a file."""

    def __init__(self, folder: Path, module: str, *parameters: str):
        ros = [a for p in parameters for a in ("-p", p)]
        command = [sys.executable, "-m", module, "--ros-args", *ros]
        self.log = folder / f"{module}.{time.monotonic_ns()}.log"
        with self.log.open("w") as file:
            self.child = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, cwd=folder)

    @property
    def said(self) -> str:
        return self.log.read_text()

    def handles_signals(self) -> bool:
        """Whether it has installed its handlers: what comes earlier meets the bare interpreter."""
        try:
            status = Path(f"/proc/{self.child.pid}/status").read_text()
        except OSError:
            return False
        (caught,) = [int(line.split()[1], 16) for line in status.splitlines() if line.startswith("SigCgt:")]
        return bool(caught & 1 << (signal.SIGTERM - 1))

    def wait(self, limit: float = 60.0) -> int:
        try:
            return self.child.wait(limit)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()
            raise AssertionError(f"did not end within {limit:.0f} s:\n{self.said}") from None

    def stop(self, number: int = signal.SIGINT, limit: float = 15.0) -> int:
        self.child.send_signal(number)
        return self.wait(limit)


@pytest.fixture
def start(tmp_path):
    running = []

    def run(module: str, *parameters: str) -> Process:
        running.append(Process(tmp_path, f"seg3d_ros.{module}", *parameters))
        return running[-1]

    yield run
    for process in running:
        if process.child.poll() is None:
            process.child.kill()
            process.child.wait()


@pytest.fixture
def ros():
    """A node with its own context, and `ros.until(condition, seconds)` that spins meanwhile."""
    context = rclpy.Context()
    context.init()
    node = rclpy.create_node("test_client", context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)

    def until(condition, limit: float = 60.0) -> bool:
        end = time.monotonic() + limit
        while time.monotonic() < end:
            if condition():
                return True
            executor.spin_once(timeout_sec=0.05)
        return bool(condition())

    def call(kind, name, **request):
        client = node.create_client(kind, name)
        assert until(client.service_is_ready), f"{name} did not appear"
        future = client.call_async(kind.Request(**request))
        assert until(future.done), f"{name} did not answer"
        node.destroy_client(client)
        return future.result()

    def receive(kind, topic, profile, accept=lambda message: True):
        got = []
        subscription = node.create_subscription(kind, topic, got.append, profile)
        assert until(lambda: any(map(accept, got))), f"nothing that fits on {topic}, {len(got)} messages"
        node.destroy_subscription(subscription)
        return next(filter(accept, got))

    node.until, node.call, node.receive = until, call, receive
    yield node
    executor.shutdown()
    node.destroy_node()
    context.try_shutdown()
