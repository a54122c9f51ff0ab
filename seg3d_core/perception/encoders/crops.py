"""Image crops of any size to network input, and the threads that networks may use."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from torch.nn import functional

from ...types import Array

MAX_THREADS = 2

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def limit_threads() -> None:
    """Never more than two torch threads: mapping and other workers need the rest of the machine."""
    torch.set_num_threads(min(MAX_THREADS, torch.get_num_threads()))


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
) -> torch.Tensor:
    """uint8 RGB crops (h, w, 3) of any size to a normalised batch (n, 3, size, size), channels last in memory.

    Each is padded to a square first. Raises ValueError for a crop that is empty or no uint8 RGB image.
    """
    squares = []
    for crop in crops:
        if crop.ndim != 3 or crop.shape[2] != 3 or crop.dtype != np.uint8 or not crop.size:
            raise ValueError(f"a crop must be uint8 (h, w, 3) and not empty, not {crop.dtype} {crop.shape}")
        pixels = torch.from_numpy(pad_square(np.ascontiguousarray(crop))).permute(2, 0, 1)[None].float()
        resized = functional.interpolate(pixels, (size, size), mode=interpolation, antialias=True, align_corners=False)
        squares.append(resized.clamp_(0, 255))
    batch = torch.cat(squares) / 255
    offset, scale = (torch.tensor(list(v), dtype=torch.float32).view(1, 3, 1, 1) for v in (mean, std))
    return ((batch - offset) / scale).contiguous(memory_format=torch.channels_last)
