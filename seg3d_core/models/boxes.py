# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""The box that each query carries: how it modulates attention, and how a layer moves and resizes it."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from .positional import scene_extent

SizeKind = Literal["normalised", "metric"]
INITIAL_SIZE = 0.5
"""Metres, on every axis."""
_SMALLEST = 1e-6


class Mlp(nn.Module):
    """Linear layers of the given widths with ReLU between them."""

    def __init__(self, *widths: int):
        super().__init__()
        pairs = itertools.pairwise(widths)
        self.layers = nn.ModuleList(nn.Linear(before, after) for before, after in pairs)

    def forward(self, x: Tensor) -> Tensor:
        for number, layer in enumerate(self.layers):
            x = layer(x if number == 0 else functional.relu(x))
        return x


@dataclass(frozen=True, eq=False)
class Boxes:
    """Centres (M, 3) in metres and sizes (M, 3): shares of the scene's extent where the network thinks in them, or
    metres."""

    centres: Tensor
    sizes: Tensor

    def detach(self) -> Boxes:
        return Boxes(self.centres.detach(), self.sizes.detach())


def initial_boxes(centres: Tensor, low: Tensor, high: Tensor, kind: SizeKind) -> Boxes:
    """Half a metre about each centre (M, 3), in a scene of the range `low` to `high` (3,)."""
    size = torch.full_like(low, INITIAL_SIZE)
    if kind == "normalised":
        size = size / scene_extent(low, high)
    return Boxes(centres, size.expand_as(centres))


def logit(share: Tensor, smallest: float = 1e-5) -> Tensor:
    """The inverse of the sigmoid, for shares clamped to [0, 1] and then kept `smallest` away from both ends."""
    share = share.clamp(0, 1)
    return torch.log(share.clamp(min=smallest) / (1 - share).clamp(min=smallest))


class BoxModulation(nn.Module):
    """The reference size that the content asks for over the size of the box, per axis (SegDINO3D eq. 7)."""

    def __init__(self, width: int):
        super().__init__()
        self.head = Mlp(width, width, 3)

    def forward(self, content: Tensor, sizes: Tensor) -> Tensor:
        """(M, D) and (M, 3) -> (M, 3)."""
        # Metric sizes are unbounded below: one of exactly 0 would turn the encoding into NaN.
        return self.head(content).sigmoid() / torch.where(sizes == 0, _SMALLEST, sizes)


class BoxUpdate(nn.Module):
    """What one layer adds to its boxes. Sizes that are shares of the extent move in logit space."""

    def __init__(self, width: int, kind: SizeKind, has_size: bool):
        super().__init__()
        self.kind = kind
        self.centre = Mlp(width, width, width, 3)
        self.size = Mlp(width, width, width, 3) if has_size else None
        for head in (self.centre, self.size):
            if head is not None:
                nn.init.zeros_(head.layers[-1].weight)
                nn.init.zeros_(head.layers[-1].bias)

    def forward(self, content: Tensor, boxes: Boxes) -> Boxes:
        centres = boxes.centres + self.centre(content)
        if self.size is None:
            return Boxes(centres, boxes.sizes)
        return Boxes(centres, self.resize(boxes.sizes, self.size(content)))

    def resize(self, sizes: Tensor, change: Tensor) -> Tensor:
        return (logit(sizes) + change).sigmoid() if self.kind == "normalised" else sizes + change


def size_in_metres(sizes: Tensor, low: Tensor, high: Tensor, kind: SizeKind) -> Tensor:
    """(M, 3) as the network thinks of them -> (M, 3) in metres."""
    return sizes * scene_extent(low, high) if kind == "normalised" else sizes
