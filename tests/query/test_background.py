# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""What is not the instance is dimmed in its crops, where a view knows the instance's shape."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from seg3d_core.query.features import InstanceFeatures, dimmed
from seg3d_core.types import Cloud, Instances, Snapshot, View

LEFT_HALF = np.packbits(np.arange(256).reshape(16, 16) % 16 < 8).tobytes()
EVERYTHING = np.packbits(np.ones((16, 16), bool)).tobytes()


def test_the_instance_keeps_its_light_and_the_rest_is_dimmed() -> None:
    image = np.full((60, 80, 3), 200, np.uint8)
    out = dimmed(image, (20.0, 10.0, 52.0, 42.0), LEFT_HALF, 0.25)
    assert (out[10:42, 20:34] == 200).all(), "the covered half"
    assert (out[10:42, 38:52] == 50).all(), "the half of the box that shows something else"
    assert (out[:10] == 50).all() and (out[42:] == 50).all() and (out[:, :20] == 50).all()
    between = out[20, 34:38, 0].astype(int)
    assert (np.diff(between) <= 0).all() and 50 <= between.min() <= between.max() <= 200, "a soft border"
    assert (image == 200).all(), "the picture itself stays"


@pytest.mark.parametrize(("shape", "background"), [(b"", 0.2), (b"xx", 0.2), (LEFT_HALF, 1.0)])
def test_unknown_shapes_and_full_light_change_nothing(shape: bytes, background: float) -> None:
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    assert np.array_equal(dimmed(image, (2.0, 3.0, 12.0, 15.0), shape, background), image)


@pytest.mark.parametrize("box", [(-5.0, -5.0, 6.0, 6.0), (25.0, 15.0, 60.0, 60.0), (3.2, 4.7, 3.4, 4.9)])
def test_boxes_at_the_border_and_tiny_ones(box: tuple[float, ...]) -> None:
    image = np.full((20, 30, 3), 100, np.uint8)
    out = dimmed(image, box, EVERYTHING, 0.5)
    assert out.shape == image.shape and out.min() == 50 and out.max() == 100


class BrightnessEncoder:
    """Bright against dark."""

    id, dim, approximate = "brightness", 2, False

    def encode_text(self, texts):
        return np.tile(np.float32([1, 0]), (len(texts), 1))

    def encode_images(self, crops):
        light = np.array([c.mean() / 255 for c in crops], np.float32)
        pairs = np.stack([light, 1 - light], 1)
        return pairs / np.linalg.norm(pairs, axis=1, keepdims=True)


def test_features_see_the_dimmed_crop_and_another_shape_is_another_crop() -> None:
    jpeg = cv2.imencode(".jpg", np.full((60, 80, 3), 255, np.uint8))[1].tobytes()
    instances = Instances(np.array([3], np.int32), np.array([0.9]), np.zeros(2, int), np.empty(0, int))
    none = np.zeros((1, 3), np.float32)
    view = View(0, (10.0, 10.0, 42.0, 42.0), 1.0, EVERYTHING)
    snapshot = Snapshot(1, 0.0, Cloud.empty(), instances, np.empty(0, np.int32), none, none, {3: (view,)}, {0: jpeg})
    features = InstanceFeatures(BrightnessEncoder(), 2, (0.0,), background=0.0)
    whole = features.of(snapshot)[0]
    half = features.of(replace(snapshot, views={3: (replace(view, shape=LEFT_HALF),)}))[0]
    assert whole[0] == pytest.approx(1, abs=0.02) and half[0] == pytest.approx(2**-0.5, abs=0.05)
