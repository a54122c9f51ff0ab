# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""One colour per instance id, the same in every picture, marker and recording."""

from __future__ import annotations

import cv2
import numpy as np

from ..types import Array

NONE_COLOUR = (205, 205, 208)
# Steps of the plane's most even sequence of points (Roberts' R2): neighbours in id are far apart in both.
_HUE_STEP, _LIGHTNESS_STEP = 0.7548776662466927, 0.5698402909980532


def id_colours(ids: Array) -> Array:
    """RGB uint8 (n, 3) of instance ids (n,); id 0, none, is light grey. Depends on nothing but the id."""
    ids = np.asarray(ids).astype(np.int64).reshape(-1)
    hue = 2 * np.pi * ((ids * _HUE_STEP + 0.05) % 1.0)
    lightness = 0.58 + 0.24 * ((ids * _LIGHTNESS_STEP) % 1.0)
    chroma = 0.16
    rgb = _oklab_to_srgb(lightness, chroma * np.cos(hue), chroma * np.sin(hue))
    rgb[ids == 0] = NONE_COLOUR
    return rgb


def draw_masks(rgb: Array, labels: Array, opacity: float = 0.55) -> Array:
    """The image uint8 (H, W, 3) with every mask of `labels` int (H, W), 0 = none, tinted and outlined."""
    colours = id_colours(np.arange(int(labels.max(initial=0)) + 1))
    tint = colours[labels].astype(np.float32)
    masked = (labels > 0)[..., None]
    out = np.where(masked, (1 - opacity) * rgb + opacity * tint, 0.75 * rgb.astype(np.float32))
    kernel = np.ones((3, 3), np.uint8)
    numbers = labels.astype(np.float32)
    edge = cv2.dilate(numbers, kernel) != cv2.erode(numbers, kernel)
    out[edge] = np.where(masked[edge], tint[edge] * 0.55, out[edge])
    return np.clip(np.rint(out), 0, 255).astype(np.uint8)


def _oklab_to_srgb(lightness: Array, a: Array, b: Array) -> Array:
    """Oklab, where equal steps look equal, to sRGB uint8 (n, 3); colours that no screen has are clipped."""
    cone = np.stack(
        [
            lightness + 0.3963377774 * a + 0.2158037573 * b,
            lightness - 0.1055613458 * a - 0.0638541728 * b,
            lightness - 0.0894841775 * a - 1.2914855480 * b,
        ],
        axis=1,
    )
    linear = (cone**3) @ np.array(
        [
            [4.0767416621, -1.2684380046, -0.0041960863],
            [-3.3077115913, 2.6097574011, -0.7034186147],
            [0.2309699292, -0.3413193965, 1.7076147010],
        ]
    )
    linear = np.clip(linear, 0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.rint(255 * encoded).astype(np.uint8)
