# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Faults of processes: publishers that are killed and come back, listeners that are many, late or stand still."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from diagnostic_msgs.msg import DiagnosticArray
from seg3d_interfaces.msg import InstanceArray
from seg3d_interfaces.srv import Segment
from seg3d_ros import qos

ROOT = Path(__file__).resolve().parents[2]
STUDIO = ROOT / "examples" / "studio"
CAMERA = (f"source:={STUDIO}", "loop:=true", "step:=3", "wait_for_subscribers:=60.0")


def mapping(ros, accept=lambda values: True):
    """What /diagnostics says of the mapping, as soon as `accept(values)`."""

    def read(message):
        (values,) = [{v.key: v.value for v in s.values} for s in message.status if s.name.endswith("mapping")]
        return values

    return read(ros.receive(DiagnosticArray, "/diagnostics", qos.DIAGNOSTICS, lambda m: accept(read(m))))


def frames(ros, more_than=0):
    return int(mapping(ros, lambda values: int(values.get("frames", 0)) > more_than)["frames"])


def test_a_camera_that_is_killed_and_comes_back_with_another_qos_needs_no_restart_of_the_node(start, ros) -> None:
    node = start("node", "query.encoder:=none")
    seen = 0
    for best_effort in ("false", "true", "false"):
        camera = start("player", *CAMERA, "rate:=10.0", f"best_effort:={best_effort}")
        seen = frames(ros, more_than=seen + 5)
        camera.child.send_signal(signal.SIGKILL)
        camera.child.wait()
    assert node.child.poll() is None
    assert node.stop() == 0, node.said
    assert "Traceback" not in node.said, node.said


@pytest.fixture
def listeners(tmp_path):
    running = []

    def run(count):
        log = (tmp_path / f"listeners{len(running)}.log").open("w+")
        command = [sys.executable, str(Path(__file__).with_name("subscribers.py")), str(count)]
        running.append(subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT))
        running[-1].said = lambda: Path(log.name).read_text().split()
        return running[-1]

    yield run
    for process in running:
        process.kill()
        process.wait()


def test_fifty_listeners_of_which_half_stand_still_hold_no_frame_up_and_get_the_newest_afterwards(
    start, ros, listeners
) -> None:
    node = start(
        "node", "query.encoder:=none", "perception.masks:=topic", "runtime.segment_every:=2", "cloud_points:=20000"
    )
    still, quick = listeners(25), listeners(25)
    assert ros.until(lambda: "ready" in still.said() and "ready" in quick.said())
    start("player", *CAMERA, "rate:=3.0", "masks:=true")
    assert ros.until(lambda: len(still.said()) > 1 and len(quick.said()) > 1)
    still.send_signal(signal.SIGSTOP)
    heard, last = len(still.said()), int(quick.said()[-1])
    # Frames, snapshots and answers go on past 25 readers that take nothing out of their queues.
    seen = frames(ros)
    seen = frames(ros, more_than=seen + 10)
    assert ros.until(lambda: int(quick.said()[-1]) > last + 3)
    done = ros.call(Segment, "/seg3d/segment_now")
    assert done.success and done.num_instances > 0, f"{done.message}:\n{node.said}"
    late = ros.receive(InstanceArray, "/seg3d/instance_array", qos.LATCHED, lambda m: m.sequence >= done.sequence)
    assert late.instances, "a late one gets what is known"
    assert len(still.said()) == heard
    still.send_signal(signal.SIGCONT)
    assert ros.until(lambda: int(still.said()[-1]) >= done.sequence)
    values = mapping(ros)
    assert not any(name in values for name in ("callback errors", "scene errors"))
    assert node.stop() == 0, node.said
    assert "Traceback" not in node.said, node.said
