# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""The 34-layer residual U-Net of Minkowski's family (SegDINO3D on ScanNet200); parameters have the published names."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from ..sparse import (
    BatchNorm,
    SparseConvolution,
    SparseTensor,
    StridedConvolution,
    SubmanifoldConvolution,
    TransposedConvolution,
    concatenate,
)

_MOMENTUM = 0.02
# Inside blocks the published training kept torch's default.
_MOMENTUM_IN_BLOCKS = 0.1
_STEM = 32
_CHANNELS = (32, 64, 128, 256, 256, 128, 96, 96)
_BLOCKS = (2, 3, 4, 6, 2, 2, 2, 2)


class Norm(nn.Module):
    """A batch norm under the name `bn`."""

    def __init__(self, channels: int, momentum: float = _MOMENTUM):
        super().__init__()
        self.bn = BatchNorm(channels, momentum=momentum)


class ResidualBlock(nn.Module):
    """ReLU(norm(conv(ReLU(norm(conv(x))))) + x), with a 1x1 convolution on x where the width changes."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv1 = SubmanifoldConvolution(in_channels, out_channels, 3)
        self.norm1 = Norm(out_channels, _MOMENTUM_IN_BLOCKS)
        self.conv2 = SubmanifoldConvolution(out_channels, out_channels, 3)
        self.norm2 = Norm(out_channels, _MOMENTUM_IN_BLOCKS)
        self.downsample: nn.ModuleList | None = None
        if in_channels != out_channels:
            projection = SubmanifoldConvolution(in_channels, out_channels, 1)
            self.downsample = nn.ModuleList([projection, Norm(out_channels)])

    def forward(self, x: SparseTensor) -> SparseTensor:
        skip = x
        if self.downsample is not None:
            projection, norm = self.downsample
            skip = projection(x, norm.bn)
        y = relu(self.conv1(x, self.norm1.bn))
        y = self.conv2(y, self.norm2.bn)
        return relu(y.replace(y.features.add_(skip.features)))


class MinkUNet(nn.Module):
    """Features (V, in_channels) on voxels to (V, 96) on the same voxels.

    Args:
        in_channels: 259 (colour and image features) or 3 (colour alone) in the published networks.
    """

    convention = "minkowski"
    out_channels = _CHANNELS[-1]

    def __init__(self, in_channels: int):
        super().__init__()
        self.in_channels = in_channels
        self.conv0p1s1 = SubmanifoldConvolution(in_channels, _STEM, 5)
        self.bn0 = Norm(_STEM)
        width, skips = _STEM, [_STEM]
        for level in range(4):
            stride = 2**level
            setattr(self, f"conv{level + 1}p{stride}s2", StridedConvolution(width, width, 2))
            setattr(self, f"bn{level + 1}", Norm(width))
            setattr(self, f"block{level + 1}", _stage(width, _CHANNELS[level], _BLOCKS[level]))
            width = _CHANNELS[level]
            skips.append(width)
        for level in range(4, 8):
            stride = 2 ** (8 - level)
            setattr(self, f"convtr{level}p{stride}s2", TransposedConvolution(width, _CHANNELS[level], 2))
            setattr(self, f"bntr{level}", Norm(_CHANNELS[level]))
            joined = _CHANNELS[level] + skips[7 - level]
            setattr(self, f"block{level + 1}", _stage(joined, _CHANNELS[level], _BLOCKS[level]))
            width = _CHANNELS[level]

    def forward(self, x: SparseTensor) -> SparseTensor:
        x = relu(self.conv0p1s1(x, self.bn0.bn))
        skips = [x]
        for level in range(4):
            down: SparseConvolution = getattr(self, f"conv{level + 1}p{2**level}s2")
            x = relu(down(x, getattr(self, f"bn{level + 1}").bn))
            x = getattr(self, f"block{level + 1}")(x)
            skips.append(x)
        skips.pop()
        for level in range(4, 8):
            skip = skips.pop()
            up: SparseConvolution = getattr(self, f"convtr{level}p{2 ** (8 - level)}s2")
            x = relu(up(x, skip, getattr(self, f"bntr{level}").bn))
            x = getattr(self, f"block{level + 1}")(concatenate(x, skip))
        return x


def _stage(in_channels: int, out_channels: int, blocks: int) -> nn.Sequential:
    widths: Sequence[int] = [in_channels] + [out_channels] * (blocks - 1)
    return nn.Sequential(*(ResidualBlock(width, out_channels) for width in widths))


def relu(x: SparseTensor) -> SparseTensor:
    """In place: every caller's features are its own."""
    return x.replace(nn.functional.relu_(x.features))
