# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""What a structured-light camera and an odometry make of exact depth and poses.

The depth model is that of a Kinect: disparities of a 640-pixel-wide camera with f = 580 pixels and a baseline of
7.5 cm carry noise and come in steps of 1/8 pixel (Khoshelham and Elberink 2012, sec. 3), pixels near edges take
their neighbours' depth (Barron and Malik 2013, sec. 5), and edges and grazing surfaces drop out.
"""

from __future__ import annotations

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from ...types import Array

_FOCAL_TIMES_BASE = 580.0 * 0.075
_STEP = 1 / 8
_SIGMA = 0.07
_NEAREST, _FARTHEST = 0.4, 6.0
_JITTER = 0.45
_DRIFT = 0.035
_TURN = np.deg2rad(1.3)


def kinect_depth(depth: Array, cosine: Array, rng: np.random.Generator) -> Array:
    """Noisy depth float32 (H, W) in metres, 0 = none, from exact depth and the surfaces' cosine, both (H, W)."""
    h, w = depth.shape
    v, u = np.mgrid[:h, :w].astype(np.float32)
    jitter = rng.normal(0, _JITTER, (2, h, w)).astype(np.float32)
    moved = cv2.remap(depth, u + jitter[0], v + jitter[1], cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)
    with np.errstate(divide="ignore", invalid="ignore"):
        # Matching windows are wide, so the noise of neighbours is alike.
        error = cv2.GaussianBlur(rng.normal(0, 1, (h, w)).astype(np.float32), (0, 0), 0.8)
        error *= _SIGMA / max(float(error.std()), 1e-6)
        disparity = _FOCAL_TIMES_BASE / moved + error
        disparity = np.round(disparity / _STEP) * _STEP
        out = np.where(disparity > 0, _FOCAL_TIMES_BASE / disparity, 0)
    kernel = np.ones((3, 3), np.uint8)
    jump = cv2.dilate(depth, kernel) - cv2.erode(depth, kernel) > 0.05 * np.maximum(depth, 0.2)
    lost = (jump & (rng.random((h, w)) < 0.55)) | (rng.random((h, w)) < np.clip(1.15 - cosine / 0.17, 0, 1))
    out[lost | (depth <= 0) | (out < _NEAREST) | (out > _FARTHEST)] = 0
    return out.astype(np.float32)


def drifting_poses(poses: Array, rng: np.random.Generator) -> Array:
    """Poses (n, 4, 4) that wander from the exact ones: a random walk pulled back, at most 3.5 cm and 1.3 degrees."""
    count = len(poses)
    shift = _bounded_walk(rng.normal(0, 1, (count, 3)), _DRIFT)
    turn = _bounded_walk(rng.normal(0, 1, (count, 3)), float(_TURN))
    out = poses.copy()
    out[:, :3, :3] = Rotation.from_rotvec(turn).as_matrix() @ poses[:, :3, :3]
    out[:, :3, 3] += shift
    return out


def _bounded_walk(steps: Array, bound: float) -> Array:
    """Random walks (n, 3) that start at 0 and stay in a ball of radius `bound`."""
    out, here = np.zeros_like(steps), np.zeros(3)
    for i in range(1, len(steps)):
        here = 0.97 * here + 0.13 * bound * steps[i]
        here = here * min(1.0, bound / max(float(np.linalg.norm(here)), 1e-12))
        out[i] = here
    return out
