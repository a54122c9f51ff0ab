# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""HorNet with global-local filters (Rao et al., NeurIPS 2022), the backbone of both published models."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from .layers import ChannelNorm

_EPS = 1e-6
_SCALE = 1 / 3


@dataclass(frozen=True)
class HorNetShape:
    """Sizes of a HorNet. `filters`: stored (h, w) of each stage's global filter, None for a 7 x 7 convolution."""

    width: int = 192
    depths: tuple[int, ...] = (2, 3, 18, 2)
    orders: tuple[int, ...] = (2, 3, 4, 5)
    filters: tuple[tuple[int, int] | None, ...] = (None, None, (24, 13), (12, 7))

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each stage's output."""
        return tuple(self.width * 2**stage for stage in range(len(self.depths)))


class GlobalLocalFilter(nn.Module):
    """Half the channels through a 3 x 3 convolution, half through a filter in the frequency domain, interleaved."""

    def __init__(self, channels: int, size: tuple[int, int]):
        super().__init__()
        self.dw = nn.Conv2d(channels // 2, channels // 2, 3, padding=1, groups=channels // 2, bias=False)
        self.complex_weight = nn.Parameter(torch.empty(channels // 2, *size, 2))
        self.pre_norm = ChannelNorm(channels, _EPS)
        self.post_norm = ChannelNorm(channels, _EPS)
        self._resized: tuple[tuple[int, ...], Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        local, spread = self.pre_norm(x).chunk(2, dim=1)
        # Half precision would lose the small frequencies beside the large mean.
        with torch.autocast(x.device.type, enabled=False):
            spectrum = torch.fft.rfft2(spread.float(), norm="ortho")
            spectrum = spectrum * self._filter(spectrum.shape[-2], spectrum.shape[-1])
            spread = torch.fft.irfft2(spectrum, s=x.shape[-2:], norm="ortho")
        return self.post_norm(torch.stack([self.dw(local), spread.to(local.dtype)], dim=2).flatten(1, 2))

    def _filter(self, height: int, width: int) -> Tensor:
        """The complex filter at the spectrum's size; the last size is kept, as a camera's images have one."""
        weight = self.complex_weight
        if weight.requires_grad:
            return self._resize(height, width)
        # Weights made in inference mode count no versions.
        key = (height, width, weight.data_ptr(), 0 if weight.is_inference() else weight._version)
        if self._resized is None or self._resized[0] != key:
            self._resized = (key, self._resize(height, width))
        return self._resized[1]

    def _resize(self, height: int, width: int) -> Tensor:
        weight = self.complex_weight.float()
        if weight.shape[1:3] != (height, width):
            parts = weight.permute(3, 0, 1, 2)
            parts = functional.interpolate(parts, size=(height, width), mode="bilinear", align_corners=True)
            weight = parts.permute(1, 2, 3, 0).contiguous()
        return torch.view_as_complex(weight)


class GatedConvolution(nn.Module):
    """gnConv of a given order: products of 1 x 1 convolutions with ever wider parts of one depthwise filter's output.

    The parts' widths are d / 2^(n-1), ..., d / 2, d for order n.
    """

    def __init__(self, channels: int, order: int, size: tuple[int, int] | None):
        super().__init__()
        self._widths = [channels // 2 ** (order - 1 - k) for k in range(order)]
        total = sum(self._widths)
        self.proj_in = nn.Conv2d(channels, 2 * channels, 1)
        if size is None:
            self.dwconv: nn.Module = nn.Conv2d(total, total, 7, padding=3, groups=total)
        else:
            self.dwconv = GlobalLocalFilter(total, size)
        self.proj_out = nn.Conv2d(channels, channels, 1)
        self.pws = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in zip(self._widths[:-1], self._widths[1:], strict=True))

    def forward(self, x: Tensor) -> Tensor:
        y, rest = self.proj_in(x).split([self._widths[0], sum(self._widths)], dim=1)
        gates = (self.dwconv(rest) * _SCALE).split(self._widths, dim=1)
        y = y * gates[0]
        for widen, gate in zip(self.pws, gates[1:], strict=True):
            y = widen(y) * gate
        return self.proj_out(y)


class Block(nn.Module):
    """x + gamma1 gnConv(norm1(x)), then + gamma2 of a perceptron of four times the width."""

    def __init__(self, channels: int, order: int, size: tuple[int, int] | None):
        super().__init__()
        self.norm1 = ChannelNorm(channels, _EPS)
        self.gnconv = GatedConvolution(channels, order, size)
        self.norm2 = nn.LayerNorm(channels, _EPS)
        self.pwconv1 = nn.Linear(channels, 4 * channels)
        self.pwconv2 = nn.Linear(4 * channels, channels)
        self.gamma1 = nn.Parameter(torch.ones(channels))
        self.gamma2 = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.gamma1[:, None, None] * self.gnconv(self.norm1(x))
        y = self.norm2(x.permute(0, 2, 3, 1))
        y = self.gamma2 * self.pwconv2(functional.gelu(self.pwconv1(y)))
        return x + y.permute(0, 3, 1, 2)


class HorNet(nn.Module):
    """Images (B, 3, H, W) to normed maps of strides 4, 8, 16, 32. H and W are multiples of 32."""

    def __init__(self, shape: HorNetShape):
        super().__init__()
        widths = shape.widths
        stem = nn.Sequential(nn.Conv2d(3, widths[0], 4, stride=4), ChannelNorm(widths[0], _EPS))
        steps = (
            nn.Sequential(ChannelNorm(a, _EPS), nn.Conv2d(a, b, 2, stride=2)) for a, b in itertools.pairwise(widths)
        )
        self.downsample_layers = nn.ModuleList([stem, *steps])
        self.stages = nn.ModuleList(
            nn.Sequential(*(Block(width, order, size) for _ in range(depth)))
            for width, depth, order, size in zip(widths, shape.depths, shape.orders, shape.filters, strict=True)
        )
        for stage, width in enumerate(widths):
            self.add_module(f"norm{stage}", ChannelNorm(width, _EPS))

    def forward(self, x: Tensor) -> list[Tensor]:
        outputs = []
        for i, (reduce, stage) in enumerate(zip(self.downsample_layers, self.stages, strict=True)):
            x = stage(reduce(x))
            outputs.append(self.get_submodule(f"norm{i}")(x))
        return outputs
