# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Sine codes of pixels and views, and the reference points of deformable attention; cached by size."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

_EPS = 1e-6


def _waves(count: int, channels: int, device: torch.device) -> Tensor:
    """Codes (count, channels) of the places 1..count: sines of even, cosines of odd channels."""
    places = 2 * math.pi * torch.arange(1, count + 1, dtype=torch.float32, device=device) / (count + _EPS)
    exponents = 2 * torch.div(torch.arange(channels, device=device), 2, rounding_mode="floor") / channels
    angles = places[:, None] / 10000**exponents
    return torch.stack([angles[:, 0::2].sin(), angles[:, 1::2].cos()], dim=2).flatten(1)


@lru_cache(maxsize=8)
def plane_code(height: int, width: int, channels: int, device: torch.device) -> Tensor:
    """(height * width, channels), row-major: the first half of the channels from the row, the other from the column."""
    rows = _waves(height, channels // 2, device)[:, None].expand(-1, width, -1)
    columns = _waves(width, channels // 2, device)[None].expand(height, -1, -1)
    return torch.cat([rows, columns], dim=2).flatten(0, 1)


@lru_cache(maxsize=8)
def view_code(views: int, height: int, width: int, channels: int, device: torch.device) -> Tensor:
    """(views * height * width, channels), views first: the plane's code plus the view's."""
    plane = plane_code(height, width, channels, device)
    return (_waves(views, channels, device)[:, None] + plane[None]).flatten(0, 1)


@lru_cache(maxsize=8)
def reference_points(sizes: tuple[tuple[int, int], ...], device: torch.device) -> Tensor:
    """(sum of h * w, 2): the pixels' centres of every level, (x, y) in shares of the image."""
    points = []
    for height, width in sizes:
        y, x = torch.meshgrid(
            (torch.arange(height, device=device) + 0.5) / height,
            (torch.arange(width, device=device) + 0.5) / width,
            indexing="ij",
        )
        points.append(torch.stack([x, y], dim=-1).reshape(-1, 2))
    return torch.cat(points)
