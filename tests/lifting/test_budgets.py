# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""What is kept per keyframe stays within its budget over a long stream, and what goes first is what is stated."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seg3d_core.errors import MapFileError
from seg3d_core.lifting.keyframe_log import KeyframeLog
from seg3d_core.lifting.keyframe_poses import POSE_BYTES, KeyframePoses
from seg3d_core.lifting.object_queries import ObjectQueryBank
from seg3d_core.perception.topic import PushedMasks
from seg3d_core.runtime.recent_frames import RecentFrames
from seg3d_core.types import Camera, Frame, Masks2D, ObjectQueries2D, Visible


def log_keyframe(log: KeyframeLog, number: int, rows: np.ndarray) -> None:
    log.append(number, rows, np.ones((1, len(rows)), int), np.zeros((len(rows), 2)), [1])


@given(st.integers(0, 1000), st.integers(2000, 20_000))
@settings(max_examples=20, deadline=None)
def test_a_log_within_bytes_keeps_the_newest_and_drops_as_its_slow_twin(seed: int, budget: int) -> None:
    rng = np.random.default_rng(seed)
    log, twin = KeyframeLog(1000, budget), []
    for number in range(40):
        rows = np.unique(rng.integers(0, 60, rng.integers(1, 60)) + 3 * number)
        log_keyframe(log, number, rows)
        assert log.memory_bytes <= budget or len(log) == 1
        twin = slow_drop([*twin, (number, set(rows.tolist()))], log._cover.nbytes, budget)
        assert [k.number for k in log] == [n for n, _ in twin]
    assert log.evicted == 40 - len(log)
    cover = np.bincount(np.concatenate([k.rows for k in log]), minlength=len(log._cover))
    np.testing.assert_array_equal(cover, log._cover)
    assert log.memory_bytes == log._cover.nbytes + sum(k.memory_bytes for k in log)


def slow_drop(keyframes: list[tuple[int, set[int]]], cover_bytes: int, budget: int) -> list[tuple[int, set[int]]]:
    """The oldest with 90 % of their points in two others, else those with most, until 5 % is free."""

    def size(kept) -> int:
        return cover_bytes + sum(10 * len(rows) for _, rows in kept)

    def share(rows: set[int], kept) -> float:
        return sum(sum(r in other for _, other in kept) >= 3 for r in rows) / len(rows) if rows else 1.0

    if size(keyframes) <= budget:
        return keyframes
    kept, limit = list(keyframes), budget - budget // 20
    shares = {}
    for keyframe in keyframes[:-1]:
        if size(kept) <= limit:
            break
        shares[keyframe[0]] = share(keyframe[1], kept)
        if shares[keyframe[0]] >= 0.9:
            kept.remove(keyframe)
    for number in sorted(shares, key=lambda n: (-shares[n], n)):
        if size(kept) <= limit:
            break
        kept = [k for k in kept if k[0] != number]
    return kept


def test_keyframes_whose_points_left_the_map_are_the_first_to_go() -> None:
    log = KeyframeLog(100, 1 << 40)
    for number in range(6):
        log_keyframe(log, number, np.arange(100 * number, 100 * number + 100))
    new_rows = np.arange(600)
    new_rows[200:300] = -1
    log.remap(new_rows)
    log.budget_bytes = log.memory_bytes - 1
    log.make_room()
    assert 2 not in [k.number for k in log]


@given(st.integers(0, 1000), st.integers(0, 4000))
@settings(max_examples=20, deadline=None)
def test_the_bank_keeps_the_best_objects_within_its_budget(seed: int, budget: int) -> None:
    rng = np.random.default_rng(seed)
    bank = ObjectQueryBank(0.0, 1000, budget_bytes=budget)
    depth = np.ones((4, 8), np.float32)
    frame = Frame(0, 0.0, np.zeros((4, 8, 3), np.uint8), depth, Camera(8, 4, 8.0, 8.0, 3.5, 1.5), np.eye(4))
    scores: list[float] = []
    for keyframe in range(12):
        masks = Masks2D.from_labels(np.arange(32).reshape(4, 8) // 4 + 1)
        new = rng.random(8).astype(np.float32) + np.float32(1e-3)
        bank.add(keyframe, frame, ObjectQueries2D(rng.random((8, 16)), np.zeros((8, 4)), new, "detector", masks=masks))
        assert bank.memory_bytes <= budget
        scores += new.tolist()
    held = sorted(bank.queries().scores.tolist())
    assert held == sorted(scores)[len(scores) - len(held) :]
    assert len(held) == min(len(scores), budget // (2 * 16 + 24)) and bank.evicted == len(scores) - len(held)


def test_poses_are_bounded_ordered_and_saved() -> None:
    poses = KeyframePoses(5 * POSE_BYTES)
    for number in range(12):
        poses.add(number, np.eye(4) * number)
        assert poses.memory_bytes <= poses.budget_bytes
    assert [int(p[0, 0]) for p in poses.in_order()] == [7, 8, 9, 10, 11] and poses.evicted == 7
    other = KeyframePoses(3 * POSE_BYTES)
    other.restore(poses.state())
    assert other.state()["numbers"].tolist() == [9, 10, 11]
    poses.budget_bytes = 0
    poses.make_room()
    assert len(poses) == 1
    with pytest.raises(MapFileError):
        other.restore({**poses.state(), "poses": np.zeros((2, 4, 4))})


def small_frame(stamp: float) -> Frame:
    return Frame(
        0, stamp, np.zeros((10, 10, 3), np.uint8), np.ones((10, 10), np.float32), Camera(10, 10, 9, 9, 5, 5), np.eye(4)
    )


def test_frames_that_wait_for_masks_are_bounded_in_bytes_and_found_by_stamp() -> None:
    sees_nothing = Visible(np.empty(0, int), np.empty((0, 2)), np.empty(0), np.empty(0, int))
    recent = RecentFrames(4 * 700)
    for index in range(10):
        recent.add(small_frame(float(index)), sees_nothing)
        assert recent.memory_bytes <= recent.budget_bytes
    assert len(recent) == 4 and recent.evicted == 6
    found = recent.nearest(8.01, 0.02)
    assert found is not None and found[0].stamp == 8.0
    assert recent.nearest(8.1, 0.02) is None and recent.nearest(3.0, 0.02) is None
    assert recent.nearest(float("nan"), 0.02) is None
    recent.clear()
    assert recent.memory_bytes == len(recent) == 0


def test_masks_that_wait_for_frames_are_bounded_in_bytes() -> None:
    one = Masks2D.from_labels(np.ones((10, 10), np.int32))
    pushed = PushedMasks(capacity=100, budget_bytes=5 * one.memory_bytes)
    for k in range(9):
        pushed.push(float(k), one)
        pushed.push(float(k), one)
        assert pushed.memory_bytes == len(pushed) * one.memory_bytes <= pushed.budget_bytes
    assert len(pushed) == 5 and pushed.evicted == 4
    assert pushed.masks(small_frame(8.0)) is one
    assert pushed.memory_bytes == 4 * one.memory_bytes
    pushed.clear()
    assert pushed.memory_bytes == 0
