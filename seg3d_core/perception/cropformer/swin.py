# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Swin Transformer (Liu et al., ICCV 2021), the backbone of the smaller published models."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional

from .layers import ChannelNorm

_EPS = 1e-5
_BLOCKED = -100.0


@dataclass(frozen=True)
class SwinShape:
    """Sizes of a Swin Transformer; `window` in tokens."""

    width: int = 96
    depths: tuple[int, ...] = (2, 2, 6, 2)
    heads: tuple[int, ...] = (3, 6, 12, 24)
    window: int = 7

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each stage's output."""
        return tuple(self.width * 2**stage for stage in range(len(self.depths)))


@lru_cache(maxsize=4)
def _relative_rows(window: int, device: torch.device) -> Tensor:
    """int64 (window^4,): the bias table's row for every pair of a window's tokens."""
    y, x = torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")
    places = torch.stack([y.flatten(), x.flatten()])
    apart = places[:, :, None] - places[:, None] + window - 1
    return (apart[0] * (2 * window - 1) + apart[1]).flatten().to(device)


@lru_cache(maxsize=8)
def _shift_mask(height: int, width: int, window: int, device: torch.device) -> Tensor:
    """(windows, 1, window^2, window^2): what a shift brought together from far apart does not attend to each other."""
    shift = window // 2

    def parts(size: int) -> Tensor:
        place = torch.arange(size, device=device)
        return (place >= size - window).long() + (place >= size - shift).long()

    region = 3 * parts(height)[:, None] + parts(width)[None]
    region = _to_windows(region[None, :, :, None], window)[0, :, :, 0]
    apart = region[:, :, None] != region[:, None]
    return torch.where(apart, _BLOCKED, 0.0)[:, None]


def _to_windows(x: Tensor, window: int) -> Tensor:
    """(B, H, W, C) to (B, windows, window^2, C)."""
    x = x.unflatten(1, (-1, window)).unflatten(3, (-1, window)).transpose(2, 3)
    return x.flatten(3, 4).flatten(1, 2)


def _from_windows(x: Tensor, height: int, width: int, window: int) -> Tensor:
    x = x.unflatten(1, (height // window, width // window)).unflatten(3, (window, window))
    return x.transpose(2, 3).flatten(3, 4).flatten(1, 2)


class WindowAttention(nn.Module):
    """Attention among the tokens of a window, with a learned bias for their relative places."""

    def __init__(self, channels: int, heads: int, window: int):
        super().__init__()
        self.relative_position_bias_table = nn.Parameter(torch.empty((2 * window - 1) ** 2, heads))
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)
        self._heads, self._window = heads, window

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """(B, windows, window^2, C); `mask` (windows, 1, window^2, window^2) is added to the bias."""
        count = x.shape[2]
        q, k, v = self.qkv(x).unflatten(-1, (3, self._heads, -1)).permute(3, 0, 1, 4, 2, 5)
        bias = self.relative_position_bias_table[_relative_rows(self._window, x.device)]
        bias = bias.view(count, count, -1).permute(2, 0, 1)[None]
        bias = bias if mask is None else bias + mask
        y = functional.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype)[None])
        return self.proj(y.transpose(2, 3).flatten(3))


class _Mlp(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.fc1 = nn.Linear(channels, 4 * channels)
        self.fc2 = nn.Linear(4 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(functional.gelu(self.fc1(x)))


class Block(nn.Module):
    """Window attention and a perceptron; every other block's windows are shifted by half a window."""

    def __init__(self, channels: int, heads: int, window: int, shifted: bool):
        super().__init__()
        self.norm1 = nn.LayerNorm(channels, _EPS)
        self.attn = WindowAttention(channels, heads, window)
        self.norm2 = nn.LayerNorm(channels, _EPS)
        self.mlp = _Mlp(channels)
        self._window, self._shift = window, window // 2 if shifted else 0

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) of any size: padded with zeros to whole windows inside."""
        height, width = x.shape[1:3]
        window, shift = self._window, self._shift
        y = functional.pad(self.norm1(x), (0, 0, 0, -width % window, 0, -height % window))
        full = (int(y.shape[1]), int(y.shape[2]))
        mask = _shift_mask(*full, window, x.device) if shift else None
        y = y.roll((-shift, -shift), (1, 2)) if shift else y
        y = _from_windows(self.attn(_to_windows(y, window), mask), *full, window)
        y = y.roll((shift, shift), (1, 2)) if shift else y
        x = x + y[:, :height, :width]
        return x + self.mlp(self.norm2(x))


class PatchMerging(nn.Module):
    """Four neighbours become one token of twice the width."""

    def __init__(self, channels: int):
        super().__init__()
        self.reduction = nn.Linear(4 * channels, 2 * channels, bias=False)
        self.norm = nn.LayerNorm(4 * channels, _EPS)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))
        neighbours = [x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)]
        return self.reduction(self.norm(torch.cat(neighbours, dim=-1)))


class Stage(nn.Module):
    """Blocks, then the step to the next stage where there is one."""

    def __init__(self, channels: int, depth: int, heads: int, window: int, is_last: bool):
        super().__init__()
        self.blocks = nn.ModuleList(Block(channels, heads, window, i % 2 == 1) for i in range(depth))
        self.downsample = None if is_last else PatchMerging(channels)


class _PatchEmbedding(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.proj = nn.Conv2d(3, width, 4, stride=4)
        self.norm = nn.LayerNorm(width, _EPS)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.proj(x).permute(0, 2, 3, 1))


class Swin(nn.Module):
    """Images (B, 3, H, W) to normed maps of strides 4, 8, 16, 32. H and W are multiples of 4."""

    def __init__(self, shape: SwinShape):
        super().__init__()
        self.patch_embed = _PatchEmbedding(shape.width)
        last = len(shape.depths) - 1
        self.layers = nn.ModuleList(
            Stage(width, depth, heads, shape.window, i == last)
            for i, (width, depth, heads) in enumerate(zip(shape.widths, shape.depths, shape.heads, strict=True))
        )
        for stage, width in enumerate(shape.widths):
            self.add_module(f"norm{stage}", ChannelNorm(width, _EPS))

    def forward(self, x: Tensor) -> list[Tensor]:
        x, outputs = self.patch_embed(x), []
        for i, stage in enumerate(self.layers):
            for block in stage.blocks:
                x = block(x)
            outputs.append(self.get_submodule(f"norm{i}")(x.permute(0, 3, 1, 2)))
            x = x if stage.downsample is None else stage.downsample(x)
        return outputs
