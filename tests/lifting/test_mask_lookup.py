# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""The mask under each pixel, and what is no image of masks."""

from __future__ import annotations

import numpy as np
import pytest

from seg3d_core.errors import FrameError
from seg3d_core.lifting.mask_lookup import MOST_MASKS, masks_at
from seg3d_core.types import Masks2D

WIDTH, HEIGHT = 7, 5


def masks(labels: np.ndarray, count: int) -> Masks2D:
    return Masks2D(labels.astype(np.int32), np.ones(count, np.float32))


def refused(reason: str, pixels: np.ndarray, given: Masks2D) -> None:
    with pytest.raises(FrameError) as caught:
        masks_at(pixels, given)
    assert caught.value.reason == reason


def test_each_pixel_has_the_mask_of_the_nearest_whole_one() -> None:
    labels = np.random.default_rng(0).integers(0, 9, (HEIGHT, WIDTH))
    u, v = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
    whole = np.stack([u.ravel(), v.ravel()], axis=1)
    offsets = np.random.default_rng(1).uniform(-0.49, 0.49, whole.shape)
    found, at = masks_at(whole + offsets, masks(labels, 8))
    assert np.array_equal(at, whole) and found.dtype == np.int16
    assert found.tolist() == labels[whole[:, 1], whole[:, 0]].tolist()


def test_a_rounding_beyond_the_border_is_the_pixel_at_the_border() -> None:
    labels = np.arange(WIDTH * HEIGHT).reshape(HEIGHT, WIDTH)
    corners = np.array([[-0.5005, -0.5005], [WIDTH - 0.4995, HEIGHT - 0.4995]])
    found, at = masks_at(corners, masks(labels, WIDTH * HEIGHT))
    assert at.tolist() == [[0, 0], [WIDTH - 1, HEIGHT - 1]] and found.tolist() == [0, WIDTH * HEIGHT - 1]


@pytest.mark.parametrize("pixel", [(-0.6, 0), (0, -0.6), (WIDTH - 0.4, 0), (0, HEIGHT - 0.4), (np.nan, 0)])
def test_a_pixel_outside_of_the_image_is_refused(pixel) -> None:
    refused("mask_size", np.array([(1.0, 1.0), pixel]), masks(np.zeros((HEIGHT, WIDTH)), 0))


def test_numbers_of_masks_that_are_not_there_are_refused() -> None:
    labels, pixels = np.zeros((HEIGHT, WIDTH)), np.zeros((1, 2))
    for wrong in (-1, 4):
        labels[2, 3] = wrong
        refused("mask_numbers", pixels, masks(labels, 3))
    # All numbers, some, or none.
    for count, most in ((3, 3), (3, 2), (3, 0), (0, 0)):
        labels[2, 3] = most
        assert masks_at(pixels, masks(labels, count))[0].tolist() == [0]


def test_too_many_masks_are_refused() -> None:
    labels, pixels = np.zeros((HEIGHT, WIDTH)), np.zeros((1, 2))
    refused("too_many_masks", pixels, masks(labels, MOST_MASKS + 1))
    assert len(masks_at(pixels, masks(labels, MOST_MASKS))[0]) == 1


def test_no_pixels_have_no_masks() -> None:
    for shape in ((HEIGHT, WIDTH), (0, 0)):
        found, at = masks_at(np.empty((0, 2)), masks(np.zeros(shape), 0))
        assert found.shape == (0,) and at.shape == (0, 2)
