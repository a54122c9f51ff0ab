# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from seg3d_core.geometry import (
    back_project,
    invert,
    matrix_to_quaternion,
    nearest_rotation,
    project,
    quaternion_to_matrix,
    rotation_angle,
    rotation_error,
    transform,
)
from seg3d_core.types import Camera, Instances, Masks2D, places_among

angles = st.tuples(*[st.floats(-3, 3)] * 3)


def pose_of(vector, translation=(1.0, -2.0, 0.5)):
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_rotvec(vector).as_matrix()
    pose[:3, 3] = translation
    return pose


@given(angles)
def test_quaternions_round_trip_and_agree_with_scipy(vector):
    pose = pose_of(vector)
    q = matrix_to_quaternion(pose)
    reference = Rotation.from_matrix(pose[:3, :3]).as_quat(canonical=True)
    assert np.allclose(q, reference, atol=1e-6) or np.allclose(q, -reference, atol=1e-6)
    assert np.allclose(quaternion_to_matrix(pose[:3, 3], q), pose, atol=1e-9)


@given(angles)
def test_the_inverse_undoes(vector):
    pose, points = pose_of(vector), np.random.default_rng(0).normal(size=(10, 3))
    assert np.allclose(transform(invert(pose), transform(pose, points)), points)
    assert rotation_error(pose) < 1e-9
    assert rotation_angle(pose, pose) < 1e-6


def test_projection_undoes_back_projection():
    camera = Camera(40, 30, 33.0, 35.0, 19.0, 14.0)
    depth = np.random.default_rng(0).uniform(0.5, 4, (30, 40)).astype(np.float32)
    pixels, z = project(back_project(depth, camera).reshape(-1, 3), camera)
    v, u = np.mgrid[:30, :40]
    assert np.allclose(pixels, np.stack([u, v], -1).reshape(-1, 2), atol=1e-3) and np.allclose(z, depth.ravel())


def test_a_scaled_camera_sees_the_same_rays_at_pixel_edges():
    camera = Camera(640, 480, 525.0, 525.0, 319.5, 239.5)
    half = camera.scaled(320, 240)
    for edge in (-0.5, 100.0, 639.5):
        assert (edge - camera.cx) / camera.fx == pytest.approx(((edge + 0.5) / 2 - 0.5 - half.cx) / half.fx)


def test_no_rotations():
    assert rotation_error(np.diag([1.0, 1.0, -1.0, 1.0])) == 2.0
    assert rotation_error(np.full((4, 4), np.nan)) == np.inf
    assert rotation_error(nearest_rotation(pose_of((0.1, 0.2, 0.3)) * 1.01)) < 1e-9
    with pytest.raises(ValueError, match="no direction"):
        quaternion_to_matrix(np.zeros(3), np.zeros(4))


def test_labels_become_masks_in_ascending_order():
    masks = Masks2D.from_labels(np.array([[0, 7, 7], [3, 0, 90]]))
    assert masks.labels.tolist() == [[0, 2, 2], [1, 0, 3]] and len(masks) == 3
    full = Masks2D.from_labels(np.array([[5, 7]]))
    assert full.labels.tolist() == [[1, 2]]
    assert len(Masks2D.from_labels(np.zeros((2, 2), int))) == 0


def test_instances_from_labels_select_and_exclusive():
    ids = np.array([10, 11, 20, 21, 30])
    instances = Instances.from_labels(np.array([2, 0, 1, 2, 2]), ids, np.array([0.5, 0.9]))
    assert instances.members(0).tolist() == [20] and instances.members(1).tolist() == [10, 21, 30]
    assert instances.exclusive(ids).tolist() == [2, 0, 1, 2, 2]
    assert instances.select(np.array([1])).members(0).tolist() == [10, 21, 30]


@given(st.sets(st.integers(0, 60)), st.lists(st.integers(-5, 70)), st.sampled_from([1, 10**9]))
def test_ids_are_found_among_others_near_and_far_apart(known, wanted, apart):
    ids = np.array(sorted(known), np.int64) * apart
    places = places_among(ids, np.array(wanted, np.int64) * apart)
    assert places.tolist() == [sorted(known).index(i) if i in known else -1 for i in wanted]


def test_the_higher_score_owns_a_shared_point():
    both = Instances(
        np.array([1, 2], np.int32), np.array([0.3, 0.6], np.float32), np.array([0, 2, 4]), np.array([1, 2, 2, 3])
    )
    assert both.exclusive(np.array([1, 2, 3, 4])).tolist() == [1, 2, 2, 0]
    assert both.exclusive(np.array([2])).tolist() == [2]
    assert Instances.empty().exclusive(np.array([1])).tolist() == [0]
