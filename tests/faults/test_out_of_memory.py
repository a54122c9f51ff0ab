# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Fault 13: memory runs out. Budgets shrink, that is counted and told, mapping goes on, and saved maps are whole."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from seg3d_core.build import rebuild_scene
from seg3d_core.storage import read_scene

CHILD = Path(__file__).with_name("out_of_memory_child.py")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits its own address space, as Linux allows")
def test_a_process_whose_address_space_is_full_goes_on_with_smaller_budgets(tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}
    done = subprocess.run(
        [sys.executable, str(CHILD), str(tmp_path), "150"],
        capture_output=True, text=True, timeout=300, env=environment, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["out_of_memory"] >= 1, "memory ran out"
    assert told["scene_errors"] == 0, "and that is no bug"
    assert told["limit_mb"]["map"] < 600, "the budgets have shrunk"
    assert any(level == "error" and "memory ran out" in text for level, text in told["events"])
    assert told["frames_at_the_end"] >= told["frames_when_it_ran_out"] + 8, "mapping went on"
    assert told["near"] >= 2, "and what is before the camera is found"
    assert told["saved"] == {"before": told["saved"]["before"], "after": told["saved"]["after"]}
    assert told["saved"]["before"] >= told["points_before"] > 0
    for name in ("before", "after"):
        assert len(rebuild_scene(read_scene(tmp_path / f"{name}.seg3d")).map)


@pytest.mark.parametrize("who", ["mapping", "masks", "segmentation"])
def test_where_memory_runs_out_once_the_event_is_named_and_the_map_goes_on(live, box_room, monkeypatch, who) -> None:
    running = live()
    runtime = running.runtime
    target, name = {
        "mapping": (runtime._scene.map, "integrate"),
        "masks": (runtime._masks.generator, "masks"),
        "segmentation": (runtime._scene.segmenter, "prepare"),
    }[who]
    real, failed = getattr(target, name), []

    def out_of_memory():
        raise MemoryError

    def failing(*arguments):
        if failed:
            return real(*arguments)
        failed.append(who)
        # A segmentation's memory is taken by the function that is prepared, in a thread of its own.
        return out_of_memory if who == "segmentation" else out_of_memory()

    monkeypatch.setattr(target, name, failing)
    shrunk = []
    real_shrink = runtime._scene.shrink
    monkeypatch.setattr(runtime._scene, "shrink", lambda: shrunk.append(who) or real_shrink())
    for frame in box_room(12):
        seen = runtime.statistics()
        runtime.submit(frame)
        assert running.until(
            lambda seen=seen: (
                runtime.statistics().counters.get("frames", 0) > seen.counters.get("frames", 0)
                or runtime.statistics().counters.get("out of memory", 0) > seen.counters.get("out of memory", 0)
            )
        )
        assert running.until(lambda: not runtime.statistics().queues["perception"].length)
    assert running.until(lambda: runtime.statistics().counters.get("out of memory") == 1)
    assert shrunk == [who]
    assert runtime.statistics().counters["frames"] >= 11
    assert len(runtime.segment_now().instances) == 3
    assert [f"memory ran out ({who})" in text for level, text in running.events if "memory ran out" in text] == [True]
