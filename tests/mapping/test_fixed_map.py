# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""FixedMap: a given cloud that frames look at and never change."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from seg3d_core.config import MapConfig
from seg3d_core.errors import MapFileError, SourceError
from seg3d_core.geometry import invert, project, transform
from seg3d_core.mapping import FixedMap
from seg3d_core.types import Camera, Frame

CONFIG = MapConfig(voxel_size=0.05, slope_tolerance=0.0)
CAMERA = Camera(64, 48, 50.0, 50.0, 31.5, 23.5)


def look(depth: float = 2.0, seed: int | None = None) -> Frame:
    T = np.eye(4)
    if seed is not None:
        rng = np.random.default_rng(seed)
        T[:3, :3] = Rotation.from_rotvec(rng.normal(0, 1, 3)).as_matrix()
        T[:3, 3] = rng.normal(0, 1, 3)
    size = (CAMERA.height, CAMERA.width)
    return Frame(0, 0.0, np.zeros((*size, 3), np.uint8), np.full(size, depth, np.float32), CAMERA, T)


def expected_ids(xyz: np.ndarray, frame: Frame, config: MapConfig) -> np.ndarray:
    """Every point projected, none culled."""
    pixels, z = project(transform(invert(frame.T_world_camera), xyz.astype(float)), frame.camera)
    u, v = np.rint(pixels.astype(np.float32)).T
    inside = (z > 0) & (u >= 0) & (u < frame.camera.width) & (v >= 0) & (v < frame.camera.height)
    near = (z >= config.depth_min) & (z <= config.depth_max)
    allowed = config.depth_tolerance + config.depth_tolerance_relative * z
    agrees = np.abs(z - frame.depth[0, 0]) <= allowed
    return np.flatnonzero(inside & near & agrees) + 1


@pytest.mark.parametrize("extent", [0.3, 3.0, 30.0])
@pytest.mark.parametrize("seed", range(6))
def test_sees_what_an_unculled_projection_sees(extent: float, seed: int) -> None:
    """Points far closer together than voxels and far wider apart, from any direction."""
    rng = np.random.default_rng(seed)
    frame = look(2.0, seed)
    centre = transform(frame.T_world_camera, np.array([[0.0, 0.0, 2.0]]))
    xyz = (centre + rng.uniform(-extent, extent, (20_000, 3))).astype(np.float32)
    visible = FixedMap(CONFIG, xyz).integrate(frame)
    np.testing.assert_array_equal(visible.ids, expected_ids(xyz, frame, CONFIG))
    np.testing.assert_array_equal(visible.rows, visible.ids - 1)
    assert len(visible) > 0 or extent > 3


def test_frames_change_nothing() -> None:
    rng = np.random.default_rng(0)
    xyz = rng.uniform((-1, -1, 1), (1, 1, 3), (500, 3))
    rgb = rng.integers(0, 256, (500, 3), dtype=np.uint8)
    normals = rng.normal(size=(500, 3))
    fixed = FixedMap(CONFIG, xyz, rgb, normals)
    for depth in (1.0, 2.0, 5.0):
        fixed.integrate(look(depth))
        assert len(fixed.removed_ids) == 0
    fixed.reset()
    assert fixed.compact() is None
    assert not fixed.saturated
    cloud, rows = fixed.snapshot()
    np.testing.assert_array_equal(cloud.ids, np.arange(1, 501))
    np.testing.assert_array_equal(rows, np.arange(500))
    np.testing.assert_array_equal(cloud.xyz, xyz.astype(np.float32))
    np.testing.assert_array_equal(cloud.rgb, rgb)
    np.testing.assert_allclose(cloud.normals, normals / np.linalg.norm(normals, axis=1, keepdims=True), atol=1e-5)
    assert fixed.rows == len(fixed) == 500


def test_state_and_restore() -> None:
    rng = np.random.default_rng(0)
    xyz = rng.uniform((-1, -1, 1), (1, 1, 3), (300, 3))
    fixed = FixedMap(CONFIG, xyz)
    other = FixedMap(CONFIG, np.empty((0, 3)))
    assert len(other.integrate(look())) == 0
    other.restore(fixed.state())
    a, b = fixed.integrate(look()), other.integrate(look())
    assert len(a) > 0
    np.testing.assert_array_equal(a.ids, b.ids)
    assert (other.rows_of(a) == a.rows).all()
    for bad in ({}, {"fixed_points": xyz}, {"fixed_points": np.full((3, 10), np.nan, np.float32)}):
        with pytest.raises(MapFileError) as caught:
            other.restore(bad)
        assert caught.value.code == "damaged"
    assert len(other) == 300


@pytest.mark.parametrize(
    "arguments",
    [
        (np.zeros((5, 2)),),
        (np.zeros(3),),
        (np.full((5, 3), np.nan),),
        (np.full((5, 3), 1e12),),
        (np.zeros((2000, 3)),),
        (np.zeros((5, 3)), np.zeros((4, 3), np.uint8)),
        (np.zeros((5, 3)), None, np.zeros((5, 2))),
    ],
)
def test_clouds_that_cannot_be_used_are_refused(arguments: tuple) -> None:
    with pytest.raises(SourceError):
        FixedMap(MapConfig(max_points=1000), *arguments)


def test_an_empty_cloud_is_looked_at_and_shows_nothing() -> None:
    empty = FixedMap(MapConfig(), np.empty((0, 3), np.float32))
    camera = Camera(8, 6, 8.0, 8.0, 3.5, 2.5)
    frame = Frame(0, 0.0, np.zeros((6, 8, 3), np.uint8), np.ones((6, 8), np.float32), camera, np.eye(4))
    visible = empty.integrate(frame)
    assert len(visible) == 0 and len(empty.rows_of(visible)) == 0
    assert len(empty.snapshot()[0]) == 0
    empty.restore(empty.state())
    assert len(empty) == 0
