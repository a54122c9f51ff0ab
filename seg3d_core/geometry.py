# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Projection, back-projection and rigid transforms: pure functions of numpy arrays.

Camera frame: x right, y down, z forward. Pixel centres are at integer (u, v).
"""

from __future__ import annotations

import numpy as np

from .errors import FrameError
from .types import Array, Camera

# Tracked poses in the wild are orthonormal to a few 1e-4 (measured on Kinect data); beyond this it is no rotation.
ROTATION_TOLERANCE = 0.02


def transform(matrix: Array, points: Array) -> Array:
    """Rigid transform (4, 4) applied to points (N, 3)."""
    return points @ matrix[:3, :3].T + matrix[:3, 3]


def invert(matrix: Array) -> Array:
    """Inverse of a rigid transform (4, 4), without a general solve."""
    out = np.eye(4)
    out[:3, :3] = matrix[:3, :3].T
    out[:3, 3] = -matrix[:3, :3].T @ matrix[:3, 3]
    return out


def project(points: Array, camera: Camera) -> tuple[Array, Array]:
    """Camera points (N, 3) to pixels (N, 2) as (u, v) and depths (N,). RE0 eq. 1 with zero offsets.

    Points with z <= 0 give meaningless pixels; test the depth.
    """
    z = points[:, 2]
    with np.errstate(divide="ignore", invalid="ignore"):
        u = points[:, 0] * camera.fx / z + camera.cx
        v = points[:, 1] * camera.fy / z + camera.cy
    return np.stack([u, v], axis=1), z


def back_project(depth: Array, camera: Camera) -> Array:
    """Depth image (H, W) in metres to camera points (H, W, 3); pixels without depth give (0, 0, 0)."""
    h, w = depth.shape
    x = (np.arange(w) - camera.cx) / camera.fx
    y = (np.arange(h) - camera.cy) / camera.fy
    return np.stack([depth * x, depth * y[:, None], depth], axis=-1)


def rotation_error(matrix: Array) -> float:
    """Largest absolute entry of R R^T - I of a pose (4, 4); a reflection counts as 2."""
    r = np.asarray(matrix, float)[:3, :3]
    if not np.isfinite(r).all():
        return float("inf")
    if np.linalg.det(r) < 0:
        return 2.0
    return float(np.abs(r @ r.T - np.eye(3)).max())


def nearest_rotation(matrix: Array) -> Array:
    """The pose (4, 4) with its rotation replaced by the nearest proper one (polar decomposition)."""
    out = np.array(matrix, float)
    u, _, vt = np.linalg.svd(out[:3, :3])
    out[:3, :3] = u @ np.diag([1.0, 1.0, np.linalg.det(u @ vt)]) @ vt
    out[3] = (0.0, 0.0, 0.0, 1.0)
    return out


def checked_pose(matrix: Array) -> Array:
    """A frame's pose, float64 (4, 4), its rotation made exact. Raises FrameError (`pose`, `rotation`)."""
    pose = np.asarray(matrix, float)
    if pose.shape != (4, 4) or not np.isfinite(pose).all():
        raise FrameError("pose", "the pose is no finite 4x4 matrix")
    error = rotation_error(pose)
    if error > ROTATION_TOLERANCE:
        raise FrameError("rotation", f"the pose holds no rotation: R R^T is off by {error:.3f}")
    if np.abs(pose[3] - (0.0, 0.0, 0.0, 1.0)).max() > 1e-3:
        raise FrameError("pose", f"the pose's last row is {pose[3].tolist()}, not 0 0 0 1: is it transposed?")
    return pose if error < 1e-9 else nearest_rotation(pose)


def quaternion_to_matrix(translation: Array, quaternion: Array) -> Array:
    """(4, 4) from a translation (3,) and a quaternion (x, y, z, w) of any length above 0."""
    q = np.asarray(quaternion, float)
    norm = float(np.linalg.norm(q))
    if not np.isfinite(norm) or norm < 1e-9:
        raise ValueError(f"quaternion {q.tolist()} has no direction")
    x, y, z, w = q / norm
    out = np.eye(4)
    out[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    out[:3, 3] = translation
    return out


def matrix_to_quaternion(matrix: Array) -> Array:
    """Unit quaternion (x, y, z, w), w >= 0, of the rotation of a pose (3, 3) or (4, 4)."""
    r = np.asarray(matrix, float)[:3, :3]
    # Bar-Itzhack: the largest eigenvector of this symmetric matrix is the quaternion, free of branches.
    k = np.array(
        [
            [r[0, 0] - r[1, 1] - r[2, 2], 0, 0, 0],
            [r[1, 0] + r[0, 1], r[1, 1] - r[0, 0] - r[2, 2], 0, 0],
            [r[2, 0] + r[0, 2], r[2, 1] + r[1, 2], r[2, 2] - r[0, 0] - r[1, 1], 0],
            [r[2, 1] - r[1, 2], r[0, 2] - r[2, 0], r[1, 0] - r[0, 1], r[0, 0] + r[1, 1] + r[2, 2]],
        ]
    )
    _, vectors = np.linalg.eigh(k, UPLO="L")
    q = vectors[:, -1]
    return q if q[3] >= 0 else -q


def rotation_angle(a: Array, b: Array) -> float:
    """Angle in radians between the rotations of two poses (4, 4)."""
    cosine = (np.trace(a[:3, :3].T @ b[:3, :3]) - 1) / 2
    return float(np.arccos(np.clip(cosine, -1.0, 1.0)))
