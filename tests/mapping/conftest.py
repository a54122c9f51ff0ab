# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Fixtures of the map's tests."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from seg3d_core.types import Camera, Frame


@pytest.fixture(scope="session")
def random_pose() -> Callable[..., np.ndarray]:
    """`random_pose(seed, spread)`: T_world_camera, about `spread` m and rad from the origin's."""
    return _pose


@pytest.fixture(scope="session")
def random_frame() -> Callable[..., Frame]:
    """`random_frame(seed, spread)`: a tilted wall with a box before it, holes, and depth out of range, seen from
    `random_pose(seed, spread)`."""
    return _random_frame


def _pose(seed: int, spread: float = 0.2) -> np.ndarray:
    rng = np.random.default_rng(seed)
    out = np.eye(4)
    out[:3, :3] = Rotation.from_rotvec(rng.normal(0, spread, 3)).as_matrix()
    out[:3, 3] = rng.normal(0, spread, 3)
    return out


def _random_frame(seed: int, spread: float = 0.2) -> Frame:
    rng = np.random.default_rng(seed)
    camera = Camera(24, 18, 20.0, 21.0, 11.3, 8.9)
    v, u = np.mgrid[: camera.height, : camera.width]
    depth = 1.4 + 0.02 * u + 0.01 * v + rng.normal(0, 0.004, u.shape)
    top, left = rng.integers(0, 10, 2)
    depth[top : top + 7, left : left + 8] = rng.uniform(0.5, 1.1)
    depth[rng.random(u.shape) < 0.08] = 0
    depth[rng.random(u.shape) < 0.02] = rng.choice([np.nan, np.inf, -1.0, 0.1, 9.0])
    rgb = rng.integers(0, 256, (*u.shape, 3), dtype=np.uint8)
    return Frame(seed, float(seed), rgb, depth.astype(np.float32), camera, _pose(seed, spread))
