# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""The whole thing over ROS 2: node and camera player in processes of their own, frames, three questions, a table.

`python -m seg3d_ros.demo [SCENE] [--out DIR]`, which is what `make demo` calls.
"""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from seg3d_core import readiness
from seg3d_core.budgets import Use
from seg3d_core.cli.console import console, progress, working
from seg3d_core.cli.demo import arguments, choose_profile, leave_results, tell
from seg3d_core.config import build
from seg3d_core.errors import Seg3DError
from seg3d_core.runtime import Queue, Stage, Statistics
from seg3d_core.sources.guess import open_source
from seg3d_core.types import Answer, QueryResult

PROFILE = Path(__file__).resolve().parents[1] / "config" / "fastdds_shm.xml"
QUIET = 45.0  # seconds without any progress after which something is wrong


def isolate() -> None:
    """An own domain on this machine, and shared memory that holds images. Before rclpy is imported."""
    os.environ.setdefault("ROS_DOMAIN_ID", str(random.SystemRandom().randrange(1, 102)))
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    if PROFILE.is_file():
        for name in ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE"):  # Jazzy, newer
            os.environ.setdefault(name, str(PROFILE))


class Child:
    """A process of ours whose output goes to a file in the results' folder."""

    def __init__(self, module: str, out: Path, **parameters: Any):
        self.log = out / f"{module.rpartition('.')[2]}.log"
        words = [w for name, value in parameters.items() for w in ("-p", f"{name.replace('__', '.')}:={value}")]
        with self.log.open("w") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", module, "--ros-args", *words], stdout=file, stderr=subprocess.STDOUT
            )

    def check(self) -> None:
        """Raises Seg3DError with the end of its log when it died."""
        if self.process.poll() not in (None, 0):
            raise Seg3DError(f"{self.log.stem} ended with {self.process.returncode}:\n{self.log.read_text()[-2000:]}")

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def stop(self) -> int:
        if self.running:
            self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


class Client:
    """Watches the node's topics and calls its services."""

    def __init__(self) -> None:
        import rclpy
        from diagnostic_msgs.msg import DiagnosticArray
        from rclpy.executors import SingleThreadedExecutor
        from seg3d_interfaces.msg import InstanceArray

        from . import qos

        rclpy.init()
        self.rclpy = rclpy
        self.node = rclpy.create_node("seg3d_demo")
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.node)
        self.statistics = Statistics()
        self.instances: Any = None
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, qos.DIAGNOSTICS)
        self.node.create_subscription(InstanceArray, "/seg3d/instance_array", self._on_instances, qos.LATCHED)

    def _on_diagnostics(self, message: Any) -> None:
        self.statistics = read_statistics({s.name.rpartition(": ")[2]: s for s in message.status})

    def _on_instances(self, message: Any) -> None:
        self.instances = message

    def spin(self, seconds: float = 0.1) -> None:
        self.executor.spin_once(timeout_sec=seconds)

    def spin_for(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.spin()

    def call(self, kind: Any, name: str, timeout: float = 60.0, **request: Any) -> Any:
        """Raises Seg3DError when nobody answers, or the answer is a refusal."""
        client = self.node.create_client(kind, name)
        end = time.monotonic() + timeout
        while not client.service_is_ready() and time.monotonic() < end:
            self.spin()
        future = client.call_async(kind.Request(**request))
        while not future.done() and time.monotonic() < end:
            self.spin()
        self.node.destroy_client(client)
        if not future.done():
            raise Seg3DError(f"{name} did not answer within {timeout:.0f} s")
        response = future.result()
        if not response.success:
            raise Seg3DError(f"{name}: {response.message}")
        return response

    def close(self) -> None:
        self.executor.shutdown()
        self.node.destroy_node()
        self.rclpy.try_shutdown()


def read_statistics(statuses: dict[str, Any]) -> Statistics:
    """The node's numbers from its diagnostic statuses."""
    values = {kv.key: kv.value for kv in statuses["mapping"].values}
    drops = {kv.key: int(kv.value) for kv in statuses["drops"].values}

    def numbers(prefix: str) -> dict[str, list[float]]:
        found = {k.removeprefix(prefix): re.findall(r"[\d.]+", v) for k, v in values.items() if k.startswith(prefix)}
        # "p95" holds a number that is none.
        return {k: [float(x) for x in v if x != "95"] for k, v in found.items()}

    stages = {k: Stage(v[0], v[1], int(v[2])) for k, v in numbers("stage ").items()}
    queues = {k: Queue(*map(int, v)) for k, v in numbers("queue ").items()}
    memory = {kv.key: use_in(kv.value) for kv in statuses["memory"].values}
    counters = {k: int(v) for k, v in values.items() if v.isdigit()}
    points, instances = counters.pop("points", 0), counters.pop("instances", 0)
    return Statistics(counters, drops, stages, queues, memory, points, instances)


def use_in(text: str) -> Use:
    """From `412.3 of 500.0 MB, 12 evicted` or `3.0 MB`."""
    used, *rest = (float(number) for number in re.findall(r"[\d.]+", text))
    return Use(used, rest[0], int(rest[1])) if len(rest) == 2 else Use(used)


def stream(client: Client, node: Child, player: Child, total: int) -> None:
    """Shows progress until the player has played and the node has worked it off. Raises Seg3DError."""
    moved, before = time.monotonic(), -1
    with progress() as bar:
        task = bar.add_task("streaming over ROS 2", total=total, note="")
        while player.running or time.monotonic() - moved < 1.5:
            client.spin()
            node.check()
            player.check()
            now = client.statistics
            frames = now.counters.get("frames", 0)
            if frames != before:
                moved, before = time.monotonic(), frames
            elif time.monotonic() - moved > QUIET:
                raise Seg3DError(f"nothing moves for {QUIET:.0f} s; the node says:\n{node.log.read_text()[-2000:]}")
            bar.update(task, completed=frames, note=f"{now.points:,} points, {now.instances} instances")


def ask(client: Client, texts: Sequence[str]) -> list[QueryResult]:
    """One service call per text."""
    from seg3d_interfaces.srv import QueryText

    results = []
    for text in texts:
        response = client.call(QueryText, "/seg3d/query_text", text=text, top_k=3)
        answers = tuple(
            Answer(
                i.id,
                float(score),
                (i.pose.position.x, i.pose.position.y, i.pose.position.z),
                (i.size.x, i.size.y, i.size.z),
                i.label,
            )
            for i, score in zip(response.instances, response.scores, strict=True)
        )
        encoder = "" if response.encoder == "none" else response.encoder
        results.append(
            QueryResult(
                text, answers, bool(answers), response.message, encoder, response.approximate, response.calibrated
            )
        )
    return results


def main(words: Sequence[str] | None = None) -> int:
    """The demo."""
    options = arguments(words, main.__doc__ or "")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was started is ended on the way out
    out: Path = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    source = open_source(options.scene)
    profile, chosen = choose_profile(options)
    console.print(readiness.opening(profile, build(chosen, profile)), highlight=False, soft_wrap=True)
    isolate()
    os.environ.setdefault("ROS_LOG_DIR", str(out / "ros_log"))
    start = time.monotonic()
    client = Client()
    settings: dict[str, Any] = {name.replace(".", "__"): value for name, value in chosen.items()}
    if find_spec("rerun"):
        settings["recording"] = out / "recording.rrd"
    node = Child("seg3d_ros.node", out, maps_folder=out, profile=profile, **settings)
    player = Child("seg3d_ros.player", out, source=options.scene, rate=options.rate, wait_for_subscribers=30.0)
    try:
        snapshot, answers = _drive(client, node, player, source, options, out, start)
    finally:
        player.stop()
        node.stop()
        client.close()
    tell(options.out, snapshot, answers)
    return 0


def _drive(client: Client, node: Child, player: Child, source: Any, options: Any, out: Path, start: float) -> Any:
    from seg3d_interfaces.srv import SaveMap, Segment

    stream(client, node, player, len(source))
    client.call(Segment, "/seg3d/segment_now")
    with working("comparing instances with words"):
        ask(client, options.ask[:1])  # comes back when every instance has been compared; labels follow in a moment
        client.spin_for(1.0)
    answers = ask(client, options.ask)
    client.call(SaveMap, "/seg3d/save_map", path="map.seg3d", overwrite=True)
    client.spin_for(2.0)  # one more reading of the diagnostics, with the last stages in it
    statistics = client.statistics
    codes = {"camera player": player.stop(), "node": node.stop()}
    if any(codes.values()):
        raise Seg3DError(f"exit codes {codes}; the logs are in {out}")
    origin = {"path": str(options.scene), "kind": source.kind, "name": source.name, "frames": len(source)}
    seconds = round(time.monotonic() - start, 1)
    with working("drawing"):
        snapshot = leave_results(out, origin, statistics, answers, seconds=seconds, ros_distro=_distribution())
    return snapshot, answers


def _distribution() -> str:
    return os.environ.get("ROS_DISTRO", "wheels (Jazzy)")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Seg3DError as error:
        sys.exit(f"seg3d: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
