# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""A scene in less memory than it needs: it goes on, counts what left, and finds what is near the camera."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from seg3d_core.budgets import is_out_of_memory
from seg3d_core.build import build_scene, rebuild_scene
from seg3d_core.cli.run import memory_text
from seg3d_core.config import build
from seg3d_core.perception.ground_truth import GroundTruthMasks
from seg3d_core.runtime.offline import run_offline
from seg3d_core.storage import copy_scene, read_scene, write_scene
from seg3d_core.types import Frame

ROOMS, APART = 7, 8.0
SETTINGS = {
    "map.voxel_size": 0.02,
    "re0.min_points": 20,
    "runtime.segment_every": 12,
    "keyframes.translation": 0.1,
    "perception.masks": "ground_truth",
}


class Frames(list):
    """A list of frames as a source."""

    name, kind = "frames", "list"

    def __init__(self, frames):
        super().__init__(frames)
        self.drops = {}


@pytest.fixture(scope="module")
def house(box_room) -> list[Frame]:
    """Seven rooms in a row, 8 m apart, of 12 frames each; the camera jumps to the next one after a rest."""
    room = box_room(12)
    frames = []
    for number in range(ROOMS):
        for frame in room:
            T = frame.T_world_camera.copy()
            T[0, 3] += APART * number
            index = len(frames)
            instance = np.where(frame.instance > 0, frame.instance + 3 * number, 0)
            frames.append(
                replace(frame, index=index, stamp=5.0 * number + frame.stamp, T_world_camera=T, instance=instance)
            )
    return frames


@pytest.fixture(scope="module")
def whole(house):
    scene = build_scene(build(SETTINGS))
    return scene, run_offline(scene, Frames(house), GroundTruthMasks())


def fifth(scene) -> dict[str, float]:
    """The settings that leave each part a fifth of what it took."""
    used = {name: use.used_mb for name, use in scene.memory.items()}
    return {
        **SETTINGS,
        "memory.map_mb": max(used["map"] / 5, 2.0),
        "memory.keyframes_mb": max(used["votes and log"] / 5, 1.0),
        "memory.views_mb": used["views"] / 5,
        "memory.poses_mb": used["keyframe poses"] / 5,
    }


def near(snapshot, room: int) -> list[int]:
    """Ids of the instances whose centre lies in a room."""
    return snapshot.instances.ids[np.abs(snapshot.centres[:, 0] - APART * room) < 3].tolist()


def boxes_of(snapshot, room: int) -> list[int]:
    """The id of the instance at each of a room's three boxes, 0 = none."""
    centres = np.array([(-0.6, 0.7, 0.35), (0.55, 0.95, 0.25), (0.8, -0.25, 0.45)])
    centres[:, 0] += APART * room
    if not len(snapshot.instances):
        return [0, 0, 0]
    distances = np.linalg.norm(snapshot.centres[None] - centres[:, None], axis=-1)
    nearest = snapshot.instances.ids[distances.argmin(axis=1)]
    return np.where(distances.min(axis=1) < 0.3, nearest, 0).tolist()


def boxes_found(snapshot, room: int) -> int:
    """How many of a room's three boxes have an instance where they are."""
    return int(np.count_nonzero(boxes_of(snapshot, room)))


def test_a_fifth_of_what_it_needs_is_enough_for_what_is_near(house, whole) -> None:
    full, _ = whole
    scene = build_scene(build(fifth(full)))
    held = dict.fromkeys(scene.holders, 0.0)
    for begin in range(0, len(house), 12):
        result = run_offline(scene, Frames(house[begin : begin + 12]), GroundTruthMasks())
        assert not result.statistics.drops
        assert boxes_found(result.snapshot, begin // 12) == 3
        for name, use in scene.memory.items():
            if use.limit_mb is not None:
                assert use.used_mb <= use.limit_mb, name
                held[name] = max(held[name], use.used_mb)
    memory = result.statistics.memory
    assert memory["map"].evicted > 1000 and memory["views"].evicted > 0 and memory["keyframe poses"].evicted > 0
    assert held["map"] > 0.5 * memory["map"].limit_mb, "the budget is used"
    report = result.statistics.as_dict()["budgets"]
    assert report["map"]["evicted"] == memory["map"].evicted
    assert f"map {report['map']['used_mb']:.1f} of" in memory_text(report) and "evicted)" in memory_text(report)


def test_who_comes_back_to_an_evicted_room_finds_its_instances_under_their_ids(house, whole) -> None:
    scene = build_scene(build(fifth(whole[0])))
    first = run_offline(scene, Frames(house[:12]), GroundTruthMasks()).snapshot
    assert boxes_found(first, 0) == 3
    away = run_offline(scene, Frames(house[12:]), GroundTruthMasks()).snapshot
    assert not near(away, 0), "the first room has left the map"
    again = [replace(f, stamp=f.stamp + 100) for f in house[:12]]
    back = run_offline(scene, Frames(again), GroundTruthMasks()).snapshot
    assert boxes_of(back, 0) == boxes_of(first, 0)
    assert min(back.cloud.ids) > max(first.cloud.ids), "though all its points are new"


def test_what_is_kept_after_evictions_belongs_together(house, whole, tmp_path) -> None:
    scene = build_scene(build(fifth(whole[0])))
    snapshot = run_offline(scene, Frames(house[:60]), GroundTruthMasks()).snapshot
    assert scene.map.evicted
    assert np.isin(snapshot.instances.point_ids, snapshot.cloud.ids).all()
    assert set(snapshot.views) == set(snapshot.instances.ids.tolist())
    log = scene.segmenter._log
    _, rows = scene.map.snapshot()
    alive = np.zeros(scene.map.rows, bool)
    alive[rows] = True
    newest = list(log)[-1]
    assert alive[newest.rows].mean() > 0.95, "the log speaks of rows of the map"
    write_scene(tmp_path / "map.seg3d", copy_scene(scene, {}, ""))
    loaded = rebuild_scene(read_scene(tmp_path / "map.seg3d"))
    same = loaded.segment()
    assert same.instances.ids.tolist() == scene.segment().instances.ids.tolist()
    more = run_offline(loaded, Frames(house[60:]), GroundTruthMasks()).snapshot
    assert boxes_found(more, ROOMS - 1) == 3


def test_the_same_frames_give_the_same_bytes_at_the_budget(house, whole) -> None:
    states = []
    for _ in range(2):
        scene = build_scene(build(fifth(whole[0])))
        run_offline(scene, Frames(house[:48]), GroundTruthMasks())
        assert scene.map.evicted
        states.append(scene.state())
    assert states[0][2] == states[1][2]
    for name, array in states[0][1].items():
        assert array.tobytes() == states[1][1][name].tobytes(), name


# --- memory runs out -------------------------------------------------------------------------------


def test_a_shrunk_scene_holds_less_and_goes_on(house, whole) -> None:
    scene = build_scene(build({**SETTINGS, "memory.map_mb": 60, "memory.keyframes_mb": 20}))
    run_offline(scene, Frames(house[:48]), GroundTruthMasks())
    before, kept = scene.memory, scene.map.snapshot()[0].ids
    scene.shrink()
    after = scene.memory
    for name in ("map", "votes and log"):
        least = before[name].limit_mb / 16
        assert after[name].used_mb <= after[name].limit_mb <= max(0.7 * before[name].used_mb, least) + 1e-6
        assert least < 0.7 * before[name].used_mb, "the room before was large enough to tell"
    assert np.isin(scene.map.snapshot()[0].ids, kept).all()
    found = run_offline(scene, Frames(house[48:60]), GroundTruthMasks()).snapshot
    assert boxes_found(found, 4) == 3


def test_budgets_never_shrink_below_a_sixteenth_of_what_was_asked_for() -> None:
    scene = build_scene(build(SETTINGS))
    before = {name: holder.budget_bytes for name, holder in scene.holders.items()}
    for _ in range(20):
        scene.shrink()
    assert all(holder.budget_bytes == before[name] // 16 for name, holder in scene.holders.items())


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried to"),
        Exception("OpenCV(5.0.0) alloc.cpp:73: error: (-4:Insufficient memory) Failed to allocate 10 bytes"),
    ],
)
def test_the_words_for_no_memory_are_known(error) -> None:
    assert is_out_of_memory(error) and not is_out_of_memory(ValueError("shape"))


def test_what_cannot_follow_the_maps_rows_is_forgotten_and_comes_anew(house, whole, monkeypatch) -> None:
    scene = build_scene(build(fifth(whole[0])))
    real, failed = scene.segmenter._votes.remap, []

    def remap(new_rows):
        if not failed:
            failed.append(1)
            raise MemoryError
        real(new_rows)

    monkeypatch.setattr(scene.segmenter._votes, "remap", remap)
    resets = []
    real_reset = scene.segmenter.reset
    monkeypatch.setattr(scene.segmenter, "reset", lambda: resets.append(1) or real_reset())
    result = run_offline(scene, Frames(house), GroundTruthMasks())
    assert failed and resets == [1]
    assert result.statistics.counters["out of memory"] == 1
    assert boxes_found(result.snapshot, ROOMS - 1) >= 2


@pytest.mark.parametrize("where", ["map", "segmenter", "segmentation"])
def test_an_offline_run_in_which_memory_runs_out_goes_on_and_counts(house, where, monkeypatch) -> None:
    scene = build_scene(build({**SETTINGS, "runtime.segment_every": 4}))
    target, name = {
        "map": (scene.map, "integrate"),
        "segmenter": (scene.segmenter, "observe"),
        "segmentation": (scene.segmenter, "prepare"),
    }[where]
    real, calls = getattr(target, name), 0

    def failing(*arguments):
        nonlocal calls
        calls += 1
        if calls in (2, 3):
            raise MemoryError
        return real(*arguments)

    monkeypatch.setattr(target, name, failing)
    result = run_offline(scene, Frames(house[:24]), GroundTruthMasks())
    assert result.statistics.counters["out of memory"] == 2
    assert result.statistics.drops.get("out_of_memory", 0) == (0 if where == "segmentation" else 2)
    assert boxes_found(result.snapshot, 1) == 3
