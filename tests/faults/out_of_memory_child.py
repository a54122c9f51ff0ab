# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Maps more than its address space holds, and tells what came of it as JSON. Run by `test_out_of_memory.py`.

Arguments: a folder for maps, and the megabytes that are left once everything is loaded.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from seg3d_core.config import build
from seg3d_core.errors import BusyError
from seg3d_core.runtime import LiveRuntime
from seg3d_core.storage import read_scene
from seg3d_core.types import Camera, Frame, Snapshot

CAMERA = Camera(320, 240, 260.0, 260.0, 159.5, 119.5)
SETTINGS = {
    "map.voxel_size": 0.006,
    "memory.map_mb": 600,
    "perception.masks": "ground_truth",
    "query.encoder": "none",
    "runtime.segment_every": 20,
    "keyframes.pose_jump": 100.0,
}


def frame(index: int) -> Frame:
    """Two boxes before a wall, 2 m further along than those of the frame before."""
    u = np.arange(CAMERA.width) + np.zeros((CAMERA.height, 1), int)
    instance = np.zeros(u.shape, np.int32)
    instance[60:180, 40:120], instance[60:180, 200:280] = 2 * index + 1, 2 * index + 2
    depth = np.where(instance > 0, 1.5, 2.0) + 0.001 * (u % 7)
    T = np.eye(4)
    T[0, 3] = 2.0 * index
    rgb = np.full((*u.shape, 3), 90, np.uint8)
    return Frame(index, 0.1 * index, rgb, depth.astype(np.float32), CAMERA, T, str(index), instance)


def feed(runtime: LiveRuntime, one: Frame) -> None:
    """Hands a frame over and waits until it is in the map or was dropped."""

    def taken() -> int:
        statistics = runtime.statistics()
        counted = ("frames", "out of memory", "scene errors")
        return sum(statistics.counters.get(name, 0) for name in counted) + sum(statistics.drops.values())

    before = taken()
    runtime.submit(one)
    end = time.monotonic() + 20
    while taken() == before and time.monotonic() < end:
        time.sleep(0.002)


def again(request: Callable[[], Snapshot]) -> Snapshot:
    """Asks until there is memory for it: each refusal has made the map smaller, and what is running ends meanwhile."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        with suppress(BusyError):
            return request()
        time.sleep(0.2)
    raise SystemExit("the budgets did not shrink far enough")


def limit_to(more_mb: float) -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + int(more_mb * 1e6)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def main(folder: Path, more_mb: float) -> None:
    events: list[tuple[str, str]] = []
    runtime = LiveRuntime(build(SETTINGS), on_event=lambda level, text: events.append((level, text)))
    runtime.start()
    for index in range(5):
        feed(runtime, frame(index))
    runtime.segment_now()
    runtime.save(folder / "before.seg3d")
    points_before = runtime.statistics().points
    limit_to(more_mb)
    index = 5
    while runtime.statistics().counters.get("out of memory", 0) < 2 and index < 3000:
        feed(runtime, frame(index))
        index += 1
    told = runtime.statistics()
    for _ in range(12):
        feed(runtime, frame(index))
        index += 1
    statistics = runtime.statistics()
    # A keyframe that found no memory is lost with what it showed: the next ones count.
    near, end = 0, time.monotonic() + 60
    while near < 2 and time.monotonic() < end:
        index += 1
        last = frame(index)
        for k in range(3):
            feed(runtime, replace(last, stamp=last.stamp + 0.01 * k))
        alive = again(runtime.segment_now)
        near = int((np.abs(alive.centres[:, 0] - 2.0 * index) < 2).sum())
    again(lambda: runtime.save(folder / "after.seg3d", overwrite=True))
    saved = {name: len(read_scene(folder / f"{name}.seg3d").arrays["map/ids"]) for name in ("before", "after")}
    print(
        json.dumps(
            {
                "fed": index,
                "out_of_memory": told.counters.get("out of memory", 0),
                "frames_when_it_ran_out": told.counters["frames"],
                "frames_at_the_end": statistics.counters["frames"],
                "limit_mb": {n: u.limit_mb for n, u in statistics.memory.items() if u.limit_mb is not None},
                "scene_errors": statistics.counters.get("scene errors", 0),
                "points_before": points_before,
                "points": len(alive.cloud),
                "near": near,
                "saved": saved,
                "events": events,
            }
        )
    )
    runtime.stop()


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]))
