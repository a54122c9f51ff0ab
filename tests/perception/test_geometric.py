# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Geometric masks on scenes whose answer is known, and on input that is no scene."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seg3d_core.config import PerceptionConfig
from seg3d_core.errors import FrameError
from seg3d_core.perception.colour_regions import join_by_colour, split_by_colour
from seg3d_core.perception.geometric import GeometricMasks, fit_surfaces
from seg3d_core.types import Camera, Frame

CAMERA = Camera(160, 120, 140.0, 140.0, 79.5, 59.5)


def rays(camera: Camera = CAMERA) -> np.ndarray:
    u, v = np.meshgrid(np.arange(camera.width), np.arange(camera.height))
    return np.stack([(u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy, np.ones(u.shape)], -1)


def plane_depth(normal: tuple[float, float, float], distance: float, camera: Camera = CAMERA) -> np.ndarray:
    """Depth of the plane n.X = distance; infinite where the ray misses it."""
    along = rays(camera) @ np.asarray(normal, float)
    return np.where(along > 1e-6, distance / np.maximum(along, 1e-6), np.inf)


def box_depth(low: tuple[float, ...], high: tuple[float, ...], camera: Camera = CAMERA) -> np.ndarray:
    """Depth of an axis-aligned box in camera coordinates; infinite where the ray misses it."""
    r = rays(camera)
    with np.errstate(divide="ignore", invalid="ignore"):
        t1, t2 = np.asarray(low) / r, np.asarray(high) / r
    enter, leave = np.minimum(t1, t2).max(-1), np.maximum(t1, t2).min(-1)
    return np.where((enter < leave) & (enter > 0), enter, np.inf)


def room(camera: Camera = CAMERA) -> tuple[np.ndarray, np.ndarray]:
    """Floor 0.9 m below, wall 3 m ahead, a box standing on the floor; depth and truth (1 floor, 2 wall, 3 box)."""
    surfaces = np.stack(
        [
            plane_depth((0, 1, 0), 0.9, camera),
            plane_depth((0, 0, 1), 3.0, camera),
            box_depth((-0.3, 0.4, 2.5), (0.3, 0.9, 2.8), camera),
        ]
    )
    return surfaces.min(0).astype(np.float32), surfaces.argmin(0) + 1


def frame_of(depth: np.ndarray, camera: Camera = CAMERA, rgb: np.ndarray | None = None) -> Frame:
    colour = np.full((*depth.shape, 3), 128, np.uint8) if rgb is None else rgb
    return Frame(0, 0.0, colour, depth.astype(np.float32), camera, np.eye(4))


def best_iou(labels: np.ndarray, truth: np.ndarray) -> float:
    ids = [k for k in np.unique(labels) if k > 0]
    return max((np.sum((labels == k) & truth) / np.sum((labels == k) | truth) for k in ids), default=0.0)


def kinect(depth: np.ndarray, camera: Camera, rng: np.random.Generator) -> np.ndarray:
    disparity = np.round((camera.fx * 0.075 / depth + rng.normal(0, 0.05, depth.shape)) * 8) / 8
    return (camera.fx * 0.075 / disparity).astype(np.float32)


def test_floor_wall_and_box_come_apart():
    depth, truth = room()
    masks = GeometricMasks().masks(frame_of(depth))
    assert [best_iou(masks.labels, truth == k) > 0.9 for k in (1, 2, 3)] == [True] * 3


def test_the_same_settings_serve_a_noisy_camera_of_twice_the_size():
    camera = Camera(640, 480, 560.0, 560.0, 319.5, 239.5)
    depth, truth = room(camera)
    masks = GeometricMasks().masks(frame_of(kinect(depth, camera, np.random.default_rng(3)), camera))
    assert [best_iou(masks.labels, truth == k) > 0.85 for k in (1, 2, 3)] == [True] * 3
    assert len(masks) < 12


def test_a_convex_box_stays_whole():
    camera = CAMERA
    turned = np.minimum(plane_depth((0.8, 0, 0.6), 1.2), 9.0)
    other = np.minimum(plane_depth((-0.8, 0, 0.6), 1.2), 9.0)
    convex, concave = np.maximum(turned, other), np.minimum(turned, other)
    assert len(GeometricMasks().masks(frame_of(convex, camera))) == 1
    assert len(GeometricMasks().masks(frame_of(concave, camera))) == 2


def test_a_slat_too_thin_for_the_cuts_is_a_mask():
    depth = np.full((120, 160), 3.0, np.float32)
    depth[:, 78:82] = 1.5
    masks = GeometricMasks().masks(frame_of(depth))
    slat = np.zeros(depth.shape, bool)
    slat[:, 78:82] = True
    assert best_iou(masks.labels, slat) > 0.95


def test_masks_promise_their_types():
    depth, _ = room()
    masks = GeometricMasks().masks(frame_of(depth))
    assert masks.labels.dtype == np.int32
    assert masks.labels.shape == depth.shape
    assert masks.scores.dtype == np.float32
    assert set(np.unique(masks.labels)) - {0} == set(range(1, len(masks) + 1))


def test_a_frame_gives_the_same_masks_again():
    depth, _ = room()
    generator = GeometricMasks()
    first = generator.masks(frame_of(depth)).labels
    assert np.array_equal(first, generator.masks(frame_of(depth)).labels)


def test_surfaces_have_the_normal_and_depth_of_a_plane():
    normal = np.array([0.36, 0.48, 0.8])
    depth = plane_depth(tuple(normal), 1.5).astype(np.float32)
    z, normals, noise = fit_surfaces(depth, (140.0, 140.0, 79.5, 59.5), 3)
    np.testing.assert_allclose(z, depth, rtol=1e-4)
    np.testing.assert_allclose(normals, np.broadcast_to(-normal, normals.shape), atol=2e-3)
    assert noise.max() < 1e-4


def test_a_picture_on_a_wall_is_split_off_by_colour_only():
    depth = np.full((120, 160), 2.0, np.float32)
    rgb = np.full((120, 160, 3), 200, np.uint8)
    rgb[30:70, 50:110] = (180, 30, 30)
    picture = np.zeros(depth.shape, bool)
    picture[30:70, 50:110] = True
    with_colour = GeometricMasks().masks(frame_of(depth, rgb=rgb))
    without = GeometricMasks(PerceptionConfig(colour=False)).masks(frame_of(depth, rgb=rgb))
    assert best_iou(with_colour.labels, picture) > 0.85
    assert len(without) == 1


def two_pieces() -> tuple[np.ndarray, np.ndarray]:
    """Two small labels side by side, and colours that differ by less than the eye minds."""
    labels = np.zeros((120, 160), np.int32)
    labels[40:60, 40:60], labels[40:60, 60:80] = 1, 2
    rgb = np.full((120, 160, 3), 60, np.uint8)
    rgb[labels == 2] = 66
    return labels, rgb


def test_small_touching_pieces_of_one_colour_are_one_thing():
    labels, rgb = two_pieces()
    assert len(np.unique(join_by_colour(labels, rgb, np.ones((120, 160), np.float32)))) == 2


@pytest.mark.parametrize("why", ["another colour", "a step in depth", "not touching", "large"])
def test_pieces_that_are_no_one_thing_stay_apart(why: str):
    labels, rgb = two_pieces()
    depth = np.ones(labels.shape, np.float32)
    if why == "another colour":
        rgb[labels == 2] = (200, 60, 60)
    elif why == "a step in depth":
        depth[labels == 2] = 1.2
    elif why == "not touching":
        labels[:, 58:62] = 0
    else:
        labels[0:100, 60:160] = 2
        rgb[labels == 2] = 66
    assert len(np.unique(join_by_colour(labels, rgb, depth))) == 3


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32 - 1))
def test_colour_only_refines_regions(seed: int):
    rng = np.random.default_rng(seed)
    labels = np.kron(rng.integers(0, 4, (4, 5)), np.ones((12, 13), int)).astype(np.int32)
    rgb = np.kron(rng.integers(0, 255, (6, 5, 1)), np.ones((8, 13, 3), int)).astype(np.uint8)
    pieces = split_by_colour(labels, rgb, 20.0, 1)
    assert np.array_equal(pieces > 0, labels > 0)
    for piece in np.unique(pieces):
        assert len(np.unique(labels[pieces == piece])) == 1


def test_planes_are_dropped_only_when_asked():
    depth, truth = room()
    kept = GeometricMasks().masks(frame_of(depth)).labels
    dropped = GeometricMasks(PerceptionConfig(drop_planes=0.8)).masks(frame_of(depth)).labels
    assert (kept[truth != 3] > 0).mean() > 0.95
    assert (dropped[truth != 3] > 0).mean() < 0.05
    assert best_iou(dropped, truth == 3) > 0.9


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf, -np.inf, -1.0, 1e-30, 50.0])
def test_depth_that_says_nothing_gives_no_masks(value: float):
    masks = GeometricMasks(PerceptionConfig(drop_planes=1.0)).masks(frame_of(np.full((60, 80), value)))
    assert len(masks) == 0
    assert not masks.labels.any()


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (5, 1), (2, 2), (3, 5), (7, 11), (61, 83), (121, 159)])
def test_any_size_of_constant_depth_is_at_most_one_mask(shape: tuple[int, int]):
    camera = Camera(shape[1], shape[0], 100.0, 100.0, shape[1] / 2, shape[0] / 2)
    masks = GeometricMasks(PerceptionConfig(drop_planes=100.0)).masks(frame_of(np.ones(shape), camera))
    assert masks.labels.shape == shape
    assert len(masks) <= 1
    if min(shape) > 50:
        assert (masks.labels == 1).all()


def test_a_single_valid_pixel_is_no_mask():
    depth = np.zeros((60, 80), np.float32)
    depth[30, 40] = 1.0
    assert len(GeometricMasks().masks(frame_of(depth))) == 0


def test_spoiled_pixels_do_not_spoil_the_rest():
    depth, truth = room()
    rng = np.random.default_rng(5)
    bad = rng.random(depth.shape) < 0.05
    depth[bad] = rng.choice([np.nan, np.inf, -np.inf, 0.0, -3.0, 1e9], bad.sum()).astype(np.float32)
    masks = GeometricMasks().masks(frame_of(depth))
    assert not masks.labels[bad].any()
    assert [best_iou(masks.labels, (truth == k) & ~bad) > 0.85 for k in (1, 2, 3)] == [True] * 3


def test_white_noise_is_bounded():
    depth = np.random.default_rng(0).uniform(0.2, 8, (240, 320)).astype(np.float32)
    assert len(GeometricMasks().masks(frame_of(depth, Camera(320, 240, 277.0, 277.0, 159.5, 119.5)))) < 500


def test_grey_and_16_bit_images_are_taken_as_colour():
    depth, _ = room()
    grey = np.where(np.arange(160) < 60, 60, 200).astype(np.uint8)[None].repeat(120, 0)
    expected = GeometricMasks().masks(frame_of(depth, rgb=np.repeat(grey[:, :, None], 3, 2))).labels
    for image in (grey, grey[:, :, None], grey.astype(np.uint16) * 257):
        assert np.array_equal(GeometricMasks().masks(frame_of(depth, rgb=image)).labels, expected)
    with pytest.raises(FrameError, match="8 or 16 bit"):
        GeometricMasks().masks(frame_of(depth, rgb=grey.astype(np.float32)))
