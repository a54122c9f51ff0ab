# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""What the node's sensor callbacks and queries cost when everything comes at once.

    python benchmarks/load.py [--seconds 10] [--scene examples/studio] [--encoder none]

The real node in a process of its own, a camera, listeners and queries: 30 and 200 frames a second, bursts of a hundred,
five listeners of which one is slow, a hundred queries at once, a 2D model that hangs, and all of it together. Aim: the
95th percentile of sensor callbacks under 5 ms, every query answered or refused within its deadline. Needs the ROS
packages; writes docs/results/load.md. About three minutes.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import RESULTS, ROOT, about, table, write_page

TEXTS = ("sofa", "", "the chair", "x" * 10_000, "沙发", "something to sit on", "1", "unicorn", "lamp", "bed")


@dataclass(frozen=True)
class Case:
    """`rate` frames a second; with `burst`, that many at once every two seconds instead."""

    name: str
    rate: float = 30.0
    burst: int = 0
    listeners: int = 0
    queries: int = 0
    hangs: bool = False


CASES = (
    Case("30 Hz"),
    Case("200 Hz", 200.0),
    Case("bursts of 100", burst=100),
    Case("30 Hz, five listeners", listeners=5),
    Case("30 Hz, a hundred queries at once", queries=100),
    Case("30 Hz, a model that hangs", hangs=True),
    Case("200 Hz and all of it", 200.0, listeners=5, queries=100, hangs=True),
)


# --- the processes that this file is beside the benchmark -------------------------------------------


def run_node(words: list[str]) -> int:
    """The node whose 2D model hangs from its third image on."""
    from seg3d_ros.node import main

    from seg3d_core.runtime import mask_worker

    build = mask_worker.build_masks

    def hanging(config: Any) -> Any:
        model = build(config)
        find, calls = model.masks, iter(range(1, 1_000_000))

        def masks(frame: Any) -> Any:
            # The warm-up takes the first two.
            return find(frame) if next(calls) <= 4 else threading.Event().wait()

        model.masks = masks
        return model

    mask_worker.build_masks = hanging
    return main(words)


def run_listener(slow: bool) -> None:
    import ros_processes
    from rclpy.executors import ExternalShutdownException
    from seg3d_interfaces.msg import InstanceArray
    from seg3d_ros import qos
    from sensor_msgs.msg import PointCloud2
    from visualization_msgs.msg import MarkerArray

    rclpy = ros_processes.rclpy
    rclpy.init()
    node = rclpy.create_node("listener")
    for kind, topic in ((InstanceArray, "instance_array"), (MarkerArray, "instances"), (PointCloud2, "points")):
        node.create_subscription(kind, f"/seg3d/{topic}", lambda _: time.sleep(1.0 if slow else 0.0), qos.LATCHED)
    try:
        rclpy.spin(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        return


# --- one case ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    case: Case
    offered: float
    taken: float
    callback_median: float
    callback_p95: float
    integrate_p95: float
    drops: dict[str, int]
    queries: str


def run_case(case: Case, frames: list[Any], seconds: float, encoder: str) -> Row:
    from ros_processes import Node, milliseconds

    # Frames a third of a metre apart make a camera of 60 m/s here, which is not what is tried.
    settings = {"query.encoder": encoder if case.queries else "none", "keyframes.pose_jump": 50.0}
    command = (str(Path(__file__).resolve()), "--role", "node") if case.hangs else ("-m", "seg3d_ros.node")
    node = Node(settings, command)
    listeners = [
        subprocess.Popen([sys.executable, __file__, "--role", "slow" if k == 0 else "listener"])
        for k in range(case.listeners)
    ]
    try:
        # There and back: the first one after the last would be a camera that jumps.
        messages = [node.camera.messages(frame) for frame in (*frames, *frames[-2:0:-1])]
        drive(node, case, messages, 3.0)  # a map, so that there is something to ask for
        if case.listeners:
            wanted = case.listeners + 1
            node.wait(lambda: listeners_of(node) >= wanted, 60.0, "the listeners did not start")
        before, answers = counted(node), Answers(node, case.queries)
        begin = time.monotonic()
        sent = drive(node, case, messages, seconds, answers.ask)
        span = time.monotonic() - begin
        answers.wait()
        # Until what is said of the last second has come.
        time.sleep(1.5)
        after = counted(node)
        callbacks = node.status["input"]["sensor callbacks"]
        drops = {name: after[1].get(name, 0) - before[1].get(name, 0) for name in after[1]}
        return Row(
            case,
            sent / span,
            (after[0] - before[0]) / span,
            milliseconds(callbacks, "median"),
            milliseconds(callbacks, "p95"),
            milliseconds(node.status["mapping"].get("stage integrate", ""), "p95"),
            {name: n for name, n in drops.items() if n},
            answers.text,
        )
    finally:
        for listener in listeners:
            listener.terminate()
        node.close()


def listeners_of(node: Any) -> int:
    return node.client.count_subscribers("/seg3d/instance_array")


def counted(node: Any) -> tuple[int, dict[str, int]]:
    """Frames in the map, and drops by reason."""
    status = node.status
    return int(status["mapping"].get("frames", 0)), {name: int(n) for name, n in status["drops"].items()}


def drive(node: Any, case: Case, messages: list[Any], seconds: float, midway: Any = lambda: None) -> int:
    """Publishes for so long, in wall time's stamps; `midway` is called once. Returns how many frames were sent."""
    sent, start = 0, time.monotonic()
    period = 2.0 if case.burst else 1 / case.rate
    due, asked = start, False
    while (now := time.monotonic()) < start + seconds:
        if not asked and now > start + seconds / 3:
            asked = True
            midway()
        for _ in range(case.burst or 1):
            node.camera.publish(messages[sent % len(messages)], time.time())
            sent += 1
        due = max(due + period, time.monotonic())
        time.sleep(max(0.0, due - time.monotonic()))
    return sent


class Answers:
    """Queries that are asked all at once, and what became of them."""

    def __init__(self, node: Any, count: int):
        from rclpy.qos import QoSProfile
        from seg3d_interfaces.srv import QueryText

        self._node, self._count, self._kind = node, count, QueryText
        # A client loses the answers that its own queue has no room for.
        profile = QoSProfile(depth=max(2 * count, 10))
        self._client = node.client.create_client(QueryText, "/seg3d/query_text", qos_profile=profile)
        self._futures: list[Any] = []
        self._seconds: list[float] = []

    def ask(self) -> None:
        for k in range(self._count):
            start = time.monotonic()
            future = self._client.call_async(self._kind.Request(text=TEXTS[k % len(TEXTS)]))
            future.add_done_callback(lambda _, start=start: self._seconds.append(time.monotonic() - start))
            self._futures.append(future)

    def wait(self, limit: float = 60.0) -> None:
        end = time.monotonic() + limit
        while len(self._seconds) < self._count and time.monotonic() < end:
            time.sleep(0.05)

    @property
    def text(self) -> str:
        if not self._count:
            return ""
        kind = self._kind.Response
        names = {getattr(kind, name): name for name in dir(type(kind)) if name.isupper() and not name.startswith("_")}
        codes = Counter(names.get(f.result().code, str(f.result().code)) for f in self._futures if f.done())
        lost = self._count - len(self._seconds)
        said = ", ".join(f"{n} {name}" for name, n in codes.most_common())
        longest = f"; slowest {max(self._seconds, default=float('nan')):.2f} s"
        return said + longest + (f"; {lost} without any answer" if lost else "")


HEAD = (
    "case", "offered Hz", "in the map Hz", "callback median ms", "p95 ms", "fusion p95 ms", "dropped", "queries",
)  # fmt: skip


def cells(row: Row) -> list[str]:
    rates = [f"{row.offered:.0f}", f"{row.taken:.0f}"]
    times = [f"{row.callback_median:.2f}", f"{row.callback_p95:.2f}", f"{row.integrate_p95:.1f}"]
    drops = ", ".join(f"{n} {name}" for name, n in row.drops.items())
    return [row.case.name, *rates, *times, drops or "-", row.queries or "-"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each case")
    parser.add_argument("--scene", type=Path, default=ROOT / "examples" / "studio", help="any source of frames")
    parser.add_argument("--frames", type=int, default=60, help="so many of them, over and over")
    parser.add_argument("--encoder", default="auto", help="query.encoder of the cases with queries")
    parser.add_argument("--cases", default="", help="only those whose name holds this")
    parser.add_argument("--out", type=Path, default=RESULTS / "load.md")
    parser.add_argument("--role", choices=["node", "listener", "slow"], help=argparse.SUPPRESS)
    options, rest = parser.parse_known_args()
    if options.role == "node":
        return run_node(rest)
    if options.role:
        run_listener(options.role == "slow")
        return 0
    if rest:
        parser.error(f"unknown: {' '.join(rest)}")
    from seg3d_core.sources.guess import open_source

    frames = list(open_source(options.scene, max_frames=options.frames))
    rows = [run_case(case, frames, options.seconds, options.encoder) for case in CASES if options.cases in case.name]
    size = "x".join(map(str, frames[0].camera.size))
    text = f"""# Load

{about(with_load=True)}
The node, a camera of {size} ({options.scene.name}), listeners and queries in processes of their own on one machine,
{options.seconds:g} s a case. Aim: sensor callbacks under 5 ms (p95), whatever
goes on beside them; every frame in the map or counted; every query answered or refused.

{table(HEAD, map(cells, rows))}
"""
    write_page(options.out, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
