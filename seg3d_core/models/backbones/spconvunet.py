# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""The pre-activation U-Net of spconv's family (SegDINO3D on ScanNet v2); parameters have the published names."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import nn

from ..sparse import (
    BatchNorm,
    SparseTensor,
    StridedConvolution,
    SubmanifoldConvolution,
    TransposedConvolution,
    concatenate,
)

_EPSILON = 1e-4
_WIDTH = 32
_LEVELS = 5
_BLOCKS = 2


class ResidualBlock(nn.Module):
    """conv(ReLU(norm(conv(ReLU(norm(x)))))) + x, with a 1x1 convolution on x where the width changes."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv_branch = nn.Sequential(
            _norm(in_channels),
            nn.ReLU(),
            SubmanifoldConvolution(in_channels, out_channels, 3, "spconv"),
            _norm(out_channels),
            nn.ReLU(),
            SubmanifoldConvolution(out_channels, out_channels, 3, "spconv"),
        )
        is_same = in_channels == out_channels
        skip = nn.Identity() if is_same else SubmanifoldConvolution(in_channels, out_channels, 1, "spconv")
        self.i_branch = nn.Sequential(skip)

    def forward(self, x: SparseTensor) -> SparseTensor:
        norm1, _, conv1, norm2, _, conv2 = self.conv_branch
        y = conv1(_activate(norm1, x), norm2)
        y = conv2(y.replace(nn.functional.relu_(y.features)))
        return y.replace(y.features.add_(self.i_branch(x).features))


class Level(nn.Module):
    """One resolution, and inside it (`u`) all coarser ones."""

    def __init__(self, widths: Sequence[int], blocks: int):
        super().__init__()
        width = widths[0]
        self.blocks = _blocks([width] * blocks, width)
        self.is_last = len(widths) == 1
        if self.is_last:
            return
        below = widths[1]
        self.conv = nn.Sequential(_norm(width), nn.ReLU(), StridedConvolution(width, below, 2, "spconv"))
        self.u = Level(widths[1:], blocks)
        self.deconv = nn.Sequential(_norm(below), nn.ReLU(), TransposedConvolution(below, width, 2, "spconv"))
        self.blocks_tail = _blocks([2 * width] + [width] * (blocks - 1), width)

    def forward(self, x: SparseTensor) -> SparseTensor:
        x = self.blocks(x)
        if self.is_last:
            return x
        below = self.u(self.conv[2](_activate(self.conv[0], x)))
        up = self.deconv[2](_activate(self.deconv[0], below), x)
        return self.blocks_tail(concatenate(x, up))


class SpConvUNet(Level):
    """Features (V, in_channels) on voxels to (V, width) on the same voxels.

    Args:
        in_channels: 262 (colour, centred position, image features) in the published network.
        width: of the finest level, 32 in the published network; level l has l + 1 times as many channels.
        levels, blocks: resolutions, and residual blocks of each on either side; 5 and 2 in the published network.
    """

    convention = "spconv"

    def __init__(self, in_channels: int, width: int = _WIDTH, levels: int = _LEVELS, blocks: int = _BLOCKS):
        super().__init__([width * (level + 1) for level in range(levels)], blocks)
        self.in_channels, self.out_channels = in_channels, width
        self.input_conv = nn.Sequential(SubmanifoldConvolution(in_channels, width, 3, "spconv"))
        self.output_layer = nn.Sequential(_norm(width), nn.ReLU())

    def forward(self, x: SparseTensor) -> SparseTensor:
        return _activate(self.output_layer[0], super().forward(self.input_conv(x)))


def _norm(channels: int) -> BatchNorm:
    return BatchNorm(channels, eps=_EPSILON)


def _blocks(in_channels: Sequence[int], out_channels: int) -> nn.Sequential:
    named = {f"block{i}": ResidualBlock(width, out_channels) for i, width in enumerate(in_channels)}
    return nn.Sequential(OrderedDict(named))


def _activate(norm: nn.Module, x: SparseTensor) -> SparseTensor:
    """ReLU(norm(x)); x itself stays as it is."""
    features: torch.Tensor = norm(x.features)
    return x.replace(nn.functional.relu_(features))
