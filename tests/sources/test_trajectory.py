# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Interpolation of poses, association of stamps, trees of transforms; against literal twins."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from seg3d_core.geometry import matrix_to_quaternion, quaternion_to_matrix
from seg3d_core.sources.tf_tree import TransformTree
from seg3d_core.sources.trajectory import Trajectory, associate

STAMPS = st.lists(st.floats(0, 10, allow_nan=False), min_size=0, max_size=20)


def turning(count: int = 5) -> Trajectory:
    """One radian about z and one metre along x per second."""
    t = np.arange(count, dtype=float)
    return Trajectory(t, np.outer(t, [1, 0, 0]), Rotation.from_rotvec(np.outer(t, [0, 0, 1])).as_quat())


def test_poses_in_between_are_interpolated() -> None:
    poses, known = turning().at(np.array([0.0, 1.25, 4.0]))
    assert known.all()
    np.testing.assert_allclose(poses[1], quaternion_to_matrix([1.25, 0, 0], Rotation.from_euler("z", 1.25).as_quat()))


def test_nothing_is_extrapolated() -> None:
    _, known = turning().at(np.array([-0.01, 4.01]))
    assert not known.any()
    _, known = turning().at(np.array([-0.01, 4.01]), tolerance=0.02)
    assert known.all()


def test_wide_gaps_are_not_bridged() -> None:
    track = Trajectory([0.0, 5.0], np.zeros((2, 3)), np.tile([0, 0, 0, 1.0], (2, 1)))
    assert track.at([2.0], max_gap=1.0)[1].tolist() == [False]
    assert track.at([2.0], max_gap=5.0)[1].tolist() == [True]
    assert track.at([0.0, 5.0], max_gap=1.0)[1].tolist() == [True, True]


def test_senseless_poses_and_repeated_stamps_are_left_out() -> None:
    stamps = [0.0, 1.0, 1.0, 2.0, 3.0]
    moves = np.array([[0, 0, 0], [9, 9, 9], [1, 0, 0], [np.nan, 0, 0], [3, 0, 0]], float)
    turns = np.tile([0, 0, 0, 1.0], (5, 1))
    track = Trajectory(stamps, moves, turns)
    assert track.stamps.tolist() == [0, 1, 3]
    np.testing.assert_allclose(track.at([1.0])[0][0, :3, 3], [1, 0, 0])
    turns[0] = 0
    assert len(Trajectory(stamps, moves, turns)) == 2


def test_an_empty_trajectory_knows_nothing() -> None:
    assert not Trajectory([], np.empty((0, 3)), np.empty((0, 4))).at([1.0])[1].any()


def slow_associate(stamps: list[float], others: list[float], slop: float) -> list[int]:
    wishes: dict[int, list[tuple[float, int]]] = {}
    for i, stamp in enumerate(stamps):
        if others:
            j = min(range(len(others)), key=lambda j: (abs(others[j] - stamp), j))
            if abs(others[j] - stamp) <= slop:
                wishes.setdefault(j, []).append((abs(others[j] - stamp), i))
    out = [-1] * len(stamps)
    for j, wanting in wishes.items():
        out[min(wanting)[1]] = j
    return out


@settings(deadline=None)
@given(STAMPS, STAMPS, st.floats(0, 3))
def test_association_agrees_with_its_slow_twin(stamps: list[float], others: list[float], slop: float) -> None:
    stamps, others = sorted(set(stamps)), sorted(set(others))
    found = associate(np.array(stamps), np.array(others), slop)
    expected = slow_associate(stamps, others, slop)
    distance = [None if j < 0 else abs(others[j] - stamps[i]) for i, j in enumerate(found)]
    wanted = [None if j < 0 else abs(others[j] - stamps[i]) for i, j in enumerate(expected)]
    used = [j for j in found if j >= 0]
    assert len(used) == len(set(used))
    assert sum(d is None for d in distance) <= sum(d is None for d in wanted) + _ties(stamps, others)
    if not _ties(stamps, others):
        assert found.tolist() == expected


def _ties(stamps: list[float], others: list[float]) -> int:
    """Stamps that are as near to two others as makes no difference."""
    gaps = [sorted(abs(o - s) for o in others)[:2] for s in stamps]
    return len(stamps) * any(len(g) == 2 and g[1] - g[0] < 1e-9 for g in gaps) + len(stamps) * _equal_wishes(
        stamps, others
    )


def _equal_wishes(stamps: list[float], others: list[float]) -> bool:
    distances = [sorted(abs(o - s) for s in stamps)[:2] for o in others]
    return any(len(d) == 2 and d[1] - d[0] < 1e-9 for d in distances)


def sample(stamp: float, matrix: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    return stamp, matrix[:3, 3], matrix_to_quaternion(matrix)


def random_pose(seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    return quaternion_to_matrix(random.normal(size=3), random.normal(size=4))


@pytest.fixture
def tree() -> TransformTree:
    """map > odom > base > camera > optical, the last two static."""
    out = TransformTree()
    for stamp in (0.0, 1.0):
        out.add("map", "odom", sample(stamp, random_pose(1)), False)
        out.add("/odom", "/base", sample(stamp, random_pose(2)), False)
    out.add("base", "camera", sample(0.0, random_pose(3)), True)
    out.add("camera", "optical", sample(0.0, random_pose(4)), True)
    return out


def test_chains_are_multiplied(tree: TransformTree) -> None:
    assert tree.ancestors("optical") == ["optical", "camera", "base", "odom", "map"]
    found = tree.poses("map", "optical", np.array([0.5, 1.5]), 2.0)
    assert found is not None
    expected = random_pose(1) @ random_pose(2) @ random_pose(3) @ random_pose(4)
    np.testing.assert_allclose(found[0][0], expected, atol=1e-9)
    assert found[1].tolist() == [True, False]
    assert tree.poses("elsewhere", "optical", np.array([0.5]), 2.0) is None


def test_static_transforms_lead_both_ways(tree: TransformTree) -> None:
    mount = random_pose(3) @ random_pose(4)
    np.testing.assert_allclose(tree.static_between("base", "optical"), mount, atol=1e-9)
    np.testing.assert_allclose(tree.static_between("optical", "base"), np.linalg.inv(mount), atol=1e-9)
    assert tree.static_between("map", "optical") is None
    assert tree.static_between("nowhere", "optical") is None


def test_a_loop_of_frames_ends(tree: TransformTree) -> None:
    tree.add("optical", "map", sample(0.0, np.eye(4)), True)
    assert len(tree.ancestors("optical")) == 5
