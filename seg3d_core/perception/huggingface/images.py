# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Images to network input as a folder's preprocessor settings ask, and what comes out back to the image's pixels.

transformers' own image processors want torchvision, which the default registry builds for CUDA only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from ...errors import WeightsError
from ...types import Array, FeatureMap
from ..encoders.crops import IMAGENET_MEAN, IMAGENET_STD
from ..pixels import as_rgb8
from . import folder

# Cells of a feature map may be off by this share of a cell at the far border before it is resampled.
_OFF_GRID = 0.25

Size = tuple[int, int]


@dataclass(frozen=True)
class Prepared:
    """One image as a network sees it.

    pixels float32 (1, 3, H, W), zeros right of and below `size` (h, w), the resized image; `image` (H, W) of the
    original.
    """

    pixels: Tensor
    size: Size
    image: Size

    @property
    def scale(self) -> tuple[float, float]:
        """Network pixels per image pixel, (vertical, horizontal)."""
        return self.size[0] / self.image[0], self.size[1] / self.image[1]

    @property
    def valid(self) -> Tensor:
        """bool (1, H, W): not padding."""
        mask = torch.zeros(1, *self.pixels.shape[2:], dtype=torch.bool)
        mask[:, : self.size[0], : self.size[1]] = True
        return mask


@dataclass(frozen=True)
class Preprocessing:
    """How images are resized and normalised; exactly one of `short_side`, `long_side` alone and `exact` decides.

    `short_side` with `long_side` as its limit, `long_side` alone, or `exact` (h, w), which stretches. `pad_to` (h, w)
    and `multiple` add zeros right and below.
    """

    short_side: int | None = None
    long_side: int | None = None
    exact: Size | None = None
    pad_to: Size | None = None
    multiple: int = 1
    scale: float = 1 / 255
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    resample: int = Image.Resampling.BILINEAR

    @classmethod
    def read(cls, path: Path, defaults: Mapping[str, Any], always: Mapping[str, Any] | None = None) -> Preprocessing:
        """From the folder's settings; `defaults` are the family's, and `always` wins. Raises WeightsError."""
        settings = {**defaults, **folder.preprocessor_settings(path), **(always or {})}
        try:
            return cls._from_settings(settings)
        except (TypeError, ValueError, KeyError) as error:
            raise WeightsError(f"{path}: its preprocessor settings are not understood ({error!r})") from None

    @classmethod
    def _from_settings(cls, settings: Mapping[str, Any]) -> Preprocessing:
        size = settings["size"]
        if isinstance(size, int):
            size = {"shortest_edge": size, "longest_edge": settings.get("max_size")}
        exact = (int(size["height"]), int(size["width"])) if "height" in size else None
        pad = settings.get("pad_size") or {}
        normalised = settings.get("do_normalize", True)
        return cls(
            size.get("shortest_edge"),
            size.get("longest_edge"),
            exact,
            (int(pad["height"]), int(pad["width"])) if pad and settings.get("do_pad", True) else None,
            int(settings.get("size_divisor") or 1),
            float(settings.get("rescale_factor", 1 / 255)) if settings.get("do_rescale", True) else 1.0,
            tuple(settings.get("image_mean") or IMAGENET_MEAN) if normalised else (0.0, 0.0, 0.0),
            tuple(settings.get("image_std") or IMAGENET_STD) if normalised else (1.0, 1.0, 1.0),
            int(settings.get("resample", Image.Resampling.BILINEAR)),
        )

    def resized(self, height: int, width: int) -> Size:
        """(h, w) that an image of (height, width) is resized to."""
        if self.exact is not None:
            return self.exact
        if self.short_side is None:
            factor = (self.long_side or max(height, width)) / max(height, width)
            return max(int(height * factor + 0.5), 1), max(int(width * factor + 0.5), 1)
        short, long = min(height, width), max(height, width)
        side: float = self.short_side
        if self.long_side is not None and long / short * side > self.long_side:
            side = self.long_side * short / long
        new_short, new_long = max(round(side), 1), max(int(side * long / short), 1)
        return (new_short, new_long) if height <= width else (new_long, new_short)

    def __call__(self, image: Array) -> Prepared:
        """An image as `as_rgb8` takes it. Raises FrameError."""
        rgb = as_rgb8(image)
        size = self.resized(*rgb.shape[:2])
        picture = Image.fromarray(rgb).resize((size[1], size[0]), Image.Resampling(self.resample))
        mean, std = (np.array(v, np.float32) for v in (self.mean, self.std))
        values: Array = (np.asarray(picture, np.float32) * np.float32(self.scale) - mean) / std
        full = self.pad_to or (
            -(-size[0] // self.multiple) * self.multiple,
            -(-size[1] // self.multiple) * self.multiple,
        )
        pixels = torch.zeros(1, 3, *full)
        pixels[0, :, : size[0], : size[1]] = torch.from_numpy(values.transpose(2, 0, 1).copy())
        return Prepared(pixels, size, (rgb.shape[0], rgb.shape[1]))


def feature_map(values: Tensor, stride: int, prepared: Prepared, encoder_id: str) -> FeatureMap:
    """Cells (C, h, w) of `stride` network pixels as `FeatureMap`: padding cropped, stride in image pixels.

    Where the image was stretched, cells become square by resampling to the coarser of the two strides.
    """
    rows, columns = (-(-side // stride) for side in prepared.size)
    values = values[:, :rows, :columns]
    cell = tuple(stride / scale for scale in prepared.scale)
    square = max(cell)
    off = max(n * (square / c - 1) for n, c in zip(values.shape[1:], cell, strict=True))
    if off > _OFF_GRID:
        rows, columns = (-int(-side // square) for side in prepared.image)
        values = resample(values, cell, square, (rows, columns))
    return FeatureMap(values.float().cpu().numpy(), float(square), encoder_id)


def resample(values: Tensor, cell: tuple[float, ...], new_cell: float, size: Size) -> Tensor:
    """Bilinear values (C, h, w) at the centres of `size` (h', w') square cells.

    `cell` (vertical, horizontal) and `new_cell` are in one unit; both grids begin at the same corner.
    """
    y, x = (
        2 * (torch.arange(n, device=values.device) + 0.5) * new_cell / (c * old) - 1
        for n, c, old in zip(size, cell, values.shape[1:], strict=True)
    )
    grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)[None]
    return functional.grid_sample(values[None].float(), grid, padding_mode="border", align_corners=False)[0]


def to_image(logits: Tensor, stride: int, prepared: Prepared) -> Tensor:
    """Mask logits (n, h, w) of `stride` network pixels at every pixel of the image, float32 (n, H, W)."""
    cell = tuple(stride / scale for scale in prepared.scale)
    rows, columns = (-(-side // stride) for side in prepared.size)
    return resample(logits[:, :rows, :columns], cell, 1.0, prepared.image)
