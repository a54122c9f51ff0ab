# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""From an image to the network's views: the full image and CropFormer's crops, resized, normalised and padded."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ...errors import FrameError
from ...types import Array

PIXEL_MEAN = (123.675, 116.28, 103.53)
PIXEL_STD = (58.395, 57.12, 57.375)
SHORT_SIDE = 800
_LONG_SIDE = 1333
_MULTIPLE = 32
_SMALLEST = 4
_CROP_SHARE = 0.7
_CROP_STEP = 0.6

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class View:
    """A part of the image: `box` x0, y0, x1, y1 in its pixels, `size` (h, w) as the network sees it, padding apart."""

    box: Box
    size: tuple[int, int]


def resized_size(height: int, width: int, short_side: int = SHORT_SIDE) -> tuple[int, int]:
    """(h, w) with the short side as given, unless the long one would exceed 1333 for 800."""
    long_side = _LONG_SIDE * short_side / SHORT_SIDE
    scale = short_side / min(height, width)
    h, w = (short_side, scale * width) if height < width else (scale * height, short_side)
    if max(h, w) > long_side:
        scale = long_side / max(h, w)
        h, w = h * scale, w * scale
    return max(int(h + 0.5), 1), max(int(w + 0.5), 1)


def crop_boxes(height: int, width: int) -> list[Box]:
    """The four corners, each 0.7 of the image: upper left, upper right, lower left, lower right."""
    ch, cw = int(_CROP_SHARE * height), int(_CROP_SHARE * width)
    tops = [min(top, height - ch) for top in range(0, height, int(_CROP_STEP * height))]
    lefts = [min(left, width - cw) for left in range(0, width, int(_CROP_STEP * width))]
    return [(x, y, x + cw, y + ch) for y in tops for x in lefts]


def views_of(rgb: Array, crops: bool, short_side: int = SHORT_SIDE) -> list[View]:
    """Of an image (H, W, 3): the whole, and with `crops` its four corners. FrameError `image_size` under 4 pixels."""
    height, width = rgb.shape[:2]
    if min(height, width) < _SMALLEST:
        raise FrameError("image_size", f"an image of {width}x{height} pixels: at least {_SMALLEST} each way are wanted")
    boxes = [(0, 0, width, height), *(crop_boxes(height, width) if crops else ())]
    return [View(b, resized_size(b[3] - b[1], b[2] - b[0], short_side)) for b in boxes]


def resize_image(rgb: Array, size: tuple[int, int]) -> Array:
    """uint8 (h, w, 3), bilinear and antialiased on 8 bit, as the models were trained."""
    picture = Image.fromarray(np.ascontiguousarray(rgb))
    return np.asarray(picture.resize((size[1], size[0]), Image.Resampling.BILINEAR))


def network_input(rgb: Array, views: list[View]) -> Tensor:
    """float32 (V, 3, H, W): each view normalised, then zeros right and below to one multiple of 32."""
    height, width = (-(-max(v.size[k] for v in views) // _MULTIPLE) * _MULTIPLE for k in (0, 1))
    out = torch.zeros(len(views), 3, height, width)
    mean, deviation = (torch.tensor(c)[:, None, None] for c in (PIXEL_MEAN, PIXEL_STD))
    for row, view in zip(out, views, strict=True):
        x0, y0, x1, y1 = view.box
        pixels = torch.from_numpy(resize_image(rgb[y0:y1, x0:x1], view.size).transpose(2, 0, 1).copy())
        row[:, : view.size[0], : view.size[1]] = (pixels.float() - mean) / deviation
    return out
