# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Who leaves a full map, beside a slow twin; and that a map within a budget stays whole over a long stream."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seg3d_core.config import MapConfig
from seg3d_core.errors import SourceError
from seg3d_core.mapping import FixedMap, PointMap
from seg3d_core.mapping import base as base_module
from seg3d_core.mapping.block_index import BlockIndex
from seg3d_core.mapping.eviction import BLOCK_BYTES, ROW_BYTES, evict
from seg3d_core.types import Camera, Frame, Visible

CAMERA = Camera(64, 48, 60.0, 60.0, 31.5, 23.5)
CONFIG = MapConfig(voxel_size=0.02, depth_min=0.2, depth_max=5.0)


def corridor_frame(index: int, step: float = 0.25, seed: int = 0) -> Frame:
    """A rough wall at 1.5 m that passes a camera which walks along it and sees 1.6 m of it."""
    rng = np.random.default_rng((seed, index))
    depth = (1.5 + rng.normal(0, 0.01, (CAMERA.height, CAMERA.width))).astype(np.float32)
    T = np.eye(4)
    T[0, 3] = step * index
    return Frame(index, float(index), np.full((*depth.shape, 3), 90, np.uint8), depth, CAMERA, T)


def walk(fused: PointMap, count: int, **options: float) -> list[Visible]:
    seen = []
    for index in range(count):
        fused.compact()
        seen.append(fused.integrate(corridor_frame(index, **options)))
    return seen


def check_whole(fused: PointMap) -> None:
    """Rows, blocks, slots and counts tell the same points; `restore` checks voxels, ids and places besides."""
    state = fused.state()
    alive = state["points"][:, 9] > 0
    assert len(fused) == alive.sum()
    blocks, count = fused._index.blocks, fused._index.count
    chained = []
    for block in range(count):
        row, length = blocks.first[block], 0
        while row >= 0:
            chained.append(row)
            length += 1
            row = blocks.following[row]
        assert length == blocks.points[block] == (blocks.slots[block] >= 0).sum()
    assert sorted(chained) == np.flatnonzero(alive).tolist()
    other = PointMap(fused.config, fused.budget_bytes / 1e6)
    other.restore(state)
    np.testing.assert_array_equal(other.snapshot()[0].ids, fused.snapshot()[0].ids)


# --- the choice ----------------------------------------------------------------------------------


def step(point: np.ndarray, camera: np.ndarray) -> int:
    """16 steps to each power of two of sightings over squared distance."""
    squared = sum(np.float32(point[i] - np.float32(camera[i])) ** 2 for i in range(3))
    merit = np.float32(point[9] / max(squared, np.float32(1e-6)))
    mantissa, exponent = np.frexp(merit)
    return 16 * (int(exponent) + 126) + int(np.floor((2 * mantissa - 1) * 16))


def slow_leaving(points, block_of, seen, camera, surplus_points, surplus_bytes) -> set[int]:
    """Step after step, in the last one block after block, until enough has left."""
    here = {row: (bool(seen[row]), step(points[row], camera)) for row in range(len(points)) if block_of[row] >= 0}
    gone: set[int] = set()

    def is_enough(gone: set[int]) -> bool:
        left = [block_of[row] for row in here if row not in gone]
        emptied = len({block_of[row] for row in gone} - set(left))
        return len(gone) >= surplus_points and ROW_BYTES * len(gone) + BLOCK_BYTES * emptied >= surplus_bytes

    for rank in sorted(set(here.values())):
        whole = {row for row in here if here[row] == rank}
        if not is_enough(gone | whole):
            gone |= whole
            continue
        for block in sorted({block_of[row] for row in whole}):
            if not is_enough(gone):
                gone |= {row for row in whole if block_of[row] == block}
        break
    return gone


@given(st.integers(0, 10_000), st.integers(1, 60), st.integers(-2, 12), st.booleans())
@settings(max_examples=150, deadline=None)
def test_who_leaves_agrees_with_the_literal_twin(seed: int, count: int, surplus_blocks: int, sees: bool) -> None:
    rng = np.random.default_rng(seed)
    voxels = np.unique(rng.integers(-12, 12, (60, 3)), axis=0).astype(np.int32)
    points = np.zeros((len(voxels), 10), np.float32)
    points[:, :3], points[:, 9] = voxels, rng.integers(0, 4, len(voxels))
    alive = points[:, 9] > 0
    index = BlockIndex()
    index.insert(voxels, alive)
    coordinates = {tuple(c): k for k, c in enumerate(index.blocks.coordinates[: index.count].tolist())}
    block_of = [coordinates[tuple(v >> 3)] if a else -1 for v, a in zip(voxels, alive, strict=True)]
    seen = rng.random(len(voxels)) < 0.3
    camera = rng.integers(-9, 9, 3).astype(float)
    surplus = int(rng.integers(-5, count)), surplus_blocks * BLOCK_BYTES - 100
    expected = slow_leaving(points, block_of, seen if sees else 0 * seen, camera, *surplus)
    found = evict(index.blocks, index.count, points, seen if sees else seen[:0], camera, *surplus)
    assert set(found.tolist()) == expected and len(found) == len(expected)
    assert (points[:, 9] > 0).tolist() == [bool(a) and row not in expected for row, a in enumerate(alive)]


def test_far_points_leave_before_near_ones_and_seldom_seen_before_often_seen() -> None:
    def leaving(seen: list[int]) -> list[int]:
        points = np.zeros((4, 10), np.float32)
        points[:, 2] = [4, 1, 1.1, 4.1]
        points[:, 9] = [20, 1, 3, 1]
        index, order = BlockIndex(), []
        index.insert((points[:, :3] * 10).astype(np.int32), np.ones(4, bool))
        mask = np.isin(np.arange(4), seen)
        for _ in range(4):
            order += evict(index.blocks, index.count, points, mask, np.zeros(3), 1, 0).tolist()
        return order

    assert leaving([]) == [3, 1, 0, 2]
    assert leaving([3]) == [1, 0, 2, 3]


# --- the map -------------------------------------------------------------------------------------


def test_a_map_larger_than_its_budget_goes_on_and_keeps_what_is_near(caplog: pytest.LogCaptureFixture) -> None:
    fused = PointMap(CONFIG, budget_mb=3)
    with caplog.at_level(logging.WARNING):
        seen = walk(fused, 120)
    assert fused.evicted > 5000
    assert caplog.text.count("memory.map_mb") == 1
    assert (fused.rows_of(seen[-1]) >= 0).all(), "what the newest frame sees is in the map"
    assert (fused.rows_of(seen[0]) < 0).all(), "what is 30 m behind has left"
    cloud = fused.snapshot()[0]
    assert np.abs(cloud.xyz[:, 0] - 0.25 * 119).max() < 15


@given(st.integers(0, 1000), st.floats(0.0, 1.5))
@settings(max_examples=6, deadline=None)
def test_the_use_never_exceeds_the_budget_and_the_map_stays_whole(seed: int, step: float) -> None:
    fused = PointMap(CONFIG, budget_mb=2)
    before, largest = fused.snapshot()[0], 0
    for index in range(40):
        fused.compact()
        assert fused.memory_bytes <= fused.budget_bytes
        fused.integrate(corridor_frame(index, step, seed))
        assert fused.memory_bytes <= fused.budget_bytes
        cloud = fused.snapshot()[0]
        assert np.isin(cloud.ids[cloud.ids <= largest], before.ids).all(), "no id comes back"
        _, now, then = np.intersect1d(cloud.ids, before.ids, assume_unique=True, return_indices=True)
        moved = np.abs(cloud.xyz[now] - before.xyz[then]).max(initial=0)
        assert moved <= CONFIG.voxel_size * 1.001, "an id stays in its voxel"
        before, largest = cloud, max(largest, int(cloud.ids.max(initial=0)))
    check_whole(fused)


def test_removed_ids_name_what_left_for_the_budget() -> None:
    fused = PointMap(CONFIG.model_copy(update={"max_points": 4000}), budget_mb=100)
    before: set[int] = set()
    for index in range(40):
        fused.compact()
        fused.integrate(corridor_frame(index))
        now = set(fused.snapshot()[0].ids.tolist())
        assert before - now <= set(fused.removed_ids.tolist())
        assert not now & set(fused.removed_ids.tolist())
        before = now
    assert 0 < len(fused) <= 4000 and fused.evicted
    check_whole(fused)


def test_the_same_frames_give_the_same_bytes() -> None:
    first, second = PointMap(CONFIG, budget_mb=2), PointMap(CONFIG, budget_mb=2)
    walk(first, 60)
    walk(second, 60)
    assert first.evicted == second.evicted > 0
    for name, array in first.state().items():
        assert array.tobytes() == second.state()[name].tobytes(), name


def test_a_restored_map_goes_on_within_its_budget() -> None:
    whole, saved = PointMap(CONFIG, budget_mb=2), PointMap(CONFIG, budget_mb=2)
    walk(whole, 30)
    saved.restore(whole.state())
    assert saved.memory_bytes <= saved.budget_bytes
    for index in range(30, 60):
        saved.compact()
        seen = saved.integrate(corridor_frame(index))
        assert saved.memory_bytes <= saved.budget_bytes
    assert (saved.rows_of(seen) >= 0).all()
    check_whole(saved)


def test_what_a_frame_had_no_room_for_comes_with_the_next() -> None:
    fused = PointMap(CONFIG.model_copy(update={"max_points": 2000}), budget_mb=100)
    frame = corridor_frame(0)
    fused.integrate(corridor_frame(40))
    fused.integrate(frame)
    assert fused.saturated and fused.dropped_pixels > 0
    share = []
    for _ in range(8):
        fused.compact()
        share.append(len(fused.integrate(frame)))
    assert share == sorted(share) and share[-1] >= 1500


def test_a_lowered_budget_is_kept_once_there_was_room_made() -> None:
    fused = PointMap(CONFIG, budget_mb=50)
    walk(fused, 60)
    kept = fused.snapshot()[0]
    fused.budget_bytes = fused.memory_bytes // 3
    fused.make_room()
    new_rows = fused.compact()
    assert new_rows is not None and fused.memory_bytes <= fused.budget_bytes
    left = fused.snapshot()[0]
    assert 0 < len(left) < len(kept) and np.isin(left.ids, kept.ids).all()
    # The camera stood at the corridor's end.
    assert left.xyz[:, 0].mean() > kept.xyz[:, 0].mean()
    check_whole(fused)


@pytest.mark.parametrize("failing", range(1, 4))
def test_where_memory_runs_out_the_map_stays_whole(failing: int, monkeypatch: pytest.MonkeyPatch) -> None:
    fused = PointMap(CONFIG, budget_mb=100)
    fused.integrate(corridor_frame(0))
    real, calls = base_module.grown, 0

    def grown(*arguments, **options):
        nonlocal calls
        calls += 1
        if calls == failing:
            raise MemoryError
        return real(*arguments, **options)

    monkeypatch.setattr(base_module, "grown", grown)
    raised = 0
    for index in range(1, 40):
        try:
            fused.integrate(corridor_frame(index))
        except MemoryError:
            raised += 1
    assert raised == 1
    check_whole(fused)
    monkeypatch.setattr(base_module, "grown", real)
    seen = fused.integrate(corridor_frame(40))
    assert (fused.rows_of(seen) >= 0).all()
    check_whole(fused)


def test_a_given_cloud_above_the_budget_is_refused() -> None:
    xyz = np.random.default_rng(0).random((100_000, 3))
    with pytest.raises(SourceError, match=r"memory\.map_mb"):
        FixedMap(CONFIG, xyz, budget_mb=2)
