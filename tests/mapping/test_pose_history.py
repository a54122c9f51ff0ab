# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Where the camera was: what is remembered of a long way within a small budget."""

from __future__ import annotations

import numpy as np
import pytest

from seg3d_core.mapping.pose_history import LEAST_POSES, POSE_BYTES, STEP, TURN, PoseHistory, blended


def pose_at(x: float, turn: float = 0.0) -> np.ndarray:
    """(3, 4): `x` metres along, turned about the vertical."""
    c, s = np.cos(turn), np.sin(turn)
    return np.array([[c, -s, 0, x], [s, c, 0, 0], [0, 0, 1, 0]])


@pytest.mark.parametrize("capacity", [LEAST_POSES, 11, 20])
def test_a_long_way_keeps_its_newer_half_and_each_point_the_pose_at_or_before_its_own(capacity: int) -> None:
    history = PoseHistory(capacity * POSE_BYTES)
    owners = np.empty(0, np.int64)
    for i in range(70):
        number = history.add(float(i), pose_at(i))
        if history.renumbered is not None:
            owners = history.renumbered[owners].astype(np.int64)
        owners = np.append(owners, number)
        assert len(history) <= capacity and len(history) + history.evicted == i + 1
        stamps = history.stamps
        assert stamps[0] == 0 and stamps[-1] == i and (np.diff(stamps) > 0).all()
        # Nothing was forgotten between the pose that speaks for a point and the point's own.
        assert np.array_equal(owners, np.searchsorted(stamps, np.arange(i + 1), "right") - 1)
        newer = stamps[len(stamps) // 2 + 1 :]
        assert np.array_equal(newer, np.arange(i + 1)[-len(newer) :] if len(newer) else newer)
    assert np.array_equal(history.poses[:, 0, 3], history.stamps)


def test_where_a_stretch_begins_is_never_forgotten() -> None:
    history = PoseHistory(LEAST_POSES * POSE_BYTES)
    for i in range(7):
        history.add(100.0 + i, pose_at(i))
    for i in range(40):
        history.add(float(i), pose_at(50 + i))
        assert history.stamps[history.stretch][0] == 0
    assert history.stretch.start == np.flatnonzero(history.stamps == 0)[0]
    assert history.up_to(-1.0) == slice(history.stretch.start, history.stretch.start)


@pytest.mark.parametrize(
    ("step", "turn", "remembered"),
    [(0.9 * STEP, 0, 2), (0, 0.9 * TURN, 2), (1.1 * STEP, 0, 3), (0, 1.1 * TURN, 3), (0, 0, 2)],
)
def test_a_camera_is_remembered_anew_where_it_moved_or_turned(step: float, turn: float, remembered: int) -> None:
    history = PoseHistory(100 * POSE_BYTES)
    numbers = [history.add(float(i), pose_at(*at)) for i, at in enumerate([(0, 0), (0, 0), (step, turn)])]
    assert len(history) == remembered
    # What was made while it stood belongs to where it stood.
    assert numbers == [0, 0, remembered - 1 if remembered == 3 else 0]
    assert np.allclose(history.poses[-1, :3], pose_at(step, turn))


def test_no_stamp_is_one_that_nobody_corrects() -> None:
    history = PoseHistory(100 * POSE_BYTES)
    assert history.add(np.nan, pose_at(0)) == 0
    assert np.isfinite(history.stamps).all()
    # The next such frame is another stretch.
    assert history.add(np.nan, pose_at(0)) == 1 and history.stretch == slice(1, 2)


def test_after_a_split_nothing_is_shared_with_the_poses_before() -> None:
    history = PoseHistory(100 * POSE_BYTES)
    history.add(0.0, pose_at(0))
    history.split_after(0.5)
    assert [history.add(stamp, pose_at(0)) for stamp in (0.4, 0.6, 0.7)] == [0, 2, 2]


def test_a_restored_history_goes_on_as_the_one_that_was_saved() -> None:
    history, other = PoseHistory(12 * POSE_BYTES), PoseHistory(12 * POSE_BYTES)
    for i in range(9):
        history.add(float(i), pose_at(0.5 * STEP * (i // 2)))
    other.restore(*history.state().values())
    for i in range(9, 40):
        for each in (history, other):
            each.add(float(i), pose_at(STEP * i))
        for name, array in history.state().items():
            assert np.array_equal(array, other.state()[name]), name


def test_between_two_poses_a_camera_is_on_the_straight_way_and_turns_the_shorter_one() -> None:
    a, b = (np.vstack([pose_at(*at), [0, 0, 0, 1]])[None] for at in ((1.0, -3.0), (3.0, 3.0)))
    for share in (0.0, 0.25, 1.0):
        # From -3 to 3 rad by way of pi.
        turn = -3.0 + share * (6.0 - 2 * np.pi)
        assert np.allclose(blended(a, b, np.array([share]))[0, :3], pose_at(1 + 2 * share, turn))
