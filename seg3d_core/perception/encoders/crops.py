# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Image crops of any size to network input."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image

from ...types import Array

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def pad_square(crop: Array) -> Array:
    """(h, w, 3) to (n, n, 3), n = max(h, w), by repeating the border: a centre crop would cut long objects off."""
    h, w = crop.shape[:2]
    n = max(h, w)
    top, left = (n - h) // 2, (n - w) // 2
    return cv2.copyMakeBorder(crop, top, n - h - top, left, n - w - left, cv2.BORDER_REPLICATE)


def crop_batch(
    crops: Sequence[Array],
    size: int,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    interpolation: str = "bicubic",
) -> Array:
    """uint8 RGB crops (h, w, 3) of any size to a normalised batch float32 (n, 3, size, size).

    Each is padded to a square first; `interpolation` is the name of one of Pillow's, which widen their kernels where
    they shrink. Raises ValueError for a crop that is empty or no uint8 RGB image.
    """
    method = Image.Resampling[interpolation.upper()]
    batch = np.empty((len(crops), 3, size, size), np.float32)
    for crop, out in zip(crops, batch, strict=True):
        if crop.ndim != 3 or crop.shape[2] != 3 or crop.dtype != np.uint8 or not crop.size:
            raise ValueError(f"a crop must be uint8 (h, w, 3) and not empty, not {crop.dtype} {crop.shape}")
        square = pad_square(np.ascontiguousarray(crop)).astype(np.float32)
        # Channel by channel in float: rounded to bytes, the steps of plain surfaces would speak in the features.
        for channel, target in enumerate(out):
            target[:] = Image.fromarray(square[:, :, channel]).resize((size, size), method)
    np.clip(batch, 0, 255, out=batch)
    offset, scale = (np.array(v, np.float32)[:, None, None] for v in (mean, std))
    batch /= 255
    batch -= offset
    batch /= scale
    return batch
