# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""The pixel decoder: deformable attention over three levels, then mask features at stride 4 (Deformable DETR)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from .layers import resize
from .positions import plane_code, reference_points

HEADS = 8
_POINTS = 4
_LEVELS = 3
_GROUPS = 32


class DeformableAttention(nn.Module):
    """Each token looks at a few places of each level that it chooses itself; bilinear, zeros outside."""

    def __init__(self, width: int, heads: int = HEADS, levels: int = _LEVELS, points: int = _POINTS):
        super().__init__()
        self.sampling_offsets = nn.Linear(width, heads * levels * points * 2)
        self.attention_weights = nn.Linear(width, heads * levels * points)
        self.value_proj = nn.Linear(width, width)
        self.output_proj = nn.Linear(width, width)
        self._heads, self._levels, self._points = heads, levels, points

    def forward(self, query: Tensor, value: Tensor, sizes: tuple[tuple[int, int], ...]) -> Tensor:
        """`query`, `value` (B, N, C) of the levels of `sizes` (h, w), one after the other, row-major."""
        batch, count, width = query.shape
        heads, levels, points = self._heads, self._levels, self._points
        # (B, head, ...): each head is one picture for grid_sample.
        offsets = self.sampling_offsets(query).view(batch, count, heads, levels, points, 2).transpose(1, 2)
        weights = self.attention_weights(query).view(batch, count, heads, levels * points).softmax(-1)
        weights = weights.view(batch, count, heads, levels, points).transpose(1, 2)
        values = self.value_proj(value).view(batch, count, heads, width // heads).permute(0, 2, 3, 1)
        reference = 2 * reference_points(sizes, query.device)[:, None] - 1
        total = torch.zeros((), device=query.device)
        for level, (part, (h, w)) in enumerate(zip(values.split([h * w for h, w in sizes], dim=3), sizes, strict=True)):
            grid = reference + offsets[:, :, :, level] * offsets.new_tensor([2 / w, 2 / h])
            sampled = functional.grid_sample(
                part.reshape(batch * heads, width // heads, h, w),
                grid.flatten(0, 1),
                mode="bilinear",
                padding_mode="zeros",
                align_corners=False,
            )
            total = total + (sampled * weights[:, :, :, level].flatten(0, 1)[:, None]).sum(-1)
        return self.output_proj(total.view(batch, width, count).transpose(1, 2))


class EncoderLayer(nn.Module):
    """Deformable self-attention and a perceptron, each followed by a norm."""

    def __init__(self, width: int, inner: int):
        super().__init__()
        self.self_attn = DeformableAttention(width)
        self.norm1 = nn.LayerNorm(width)
        self.linear1 = nn.Linear(width, inner)
        self.linear2 = nn.Linear(inner, width)
        self.norm2 = nn.LayerNorm(width)

    def forward(self, x: Tensor, position: Tensor, sizes: tuple[tuple[int, int], ...]) -> Tensor:
        x = self.norm1(x + self.self_attn(x + position, x, sizes))
        return self.norm2(x + self.linear2(functional.relu(self.linear1(x))))


class _Encoder(nn.Module):
    def __init__(self, width: int, inner: int, depth: int):
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(width, inner) for _ in range(depth))


class LevelTransformer(nn.Module):
    """The encoder and the levels' embeddings, under the checkpoint's names."""

    def __init__(self, width: int, inner: int, depth: int):
        super().__init__()
        self.level_embed = nn.Parameter(torch.empty(_LEVELS, width))
        self.encoder = _Encoder(width, inner, depth)

    def forward(self, levels: list[Tensor]) -> list[Tensor]:
        """Maps (B, C, h, w), coarse to fine, to maps of the same sizes."""
        sizes = tuple((int(m.shape[2]), int(m.shape[3])) for m in levels)
        width = levels[0].shape[1]
        codes = (plane_code(h, w, width, levels[0].device) for h, w in sizes)
        position = torch.cat([code + e for code, e in zip(codes, self.level_embed, strict=True)])
        x = torch.cat([m.flatten(2).transpose(1, 2) for m in levels], dim=1)
        for layer in self.encoder.layers:
            x = layer(x, position, sizes)
        parts = x.split([h * w for h, w in sizes], dim=1)
        return [p.transpose(1, 2).unflatten(2, size) for p, size in zip(parts, sizes, strict=True)]


class NormedConvolution(nn.Conv2d):
    """A convolution without bias, then GroupNorm."""

    def __init__(self, channels: int, out: int, size: int):
        super().__init__(channels, out, size, padding=size // 2, bias=False)
        self.norm = nn.GroupNorm(_GROUPS, out)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(super().forward(x))


class PixelDecoder(nn.Module):
    """Backbone maps of strides 4 to 32 to (mask features at stride 4, [maps at strides 32, 16, 8])."""

    def __init__(self, channels: tuple[int, ...], width: int, mask_width: int, inner: int, depth: int):
        super().__init__()
        self.input_proj = nn.ModuleList(
            nn.Sequential(nn.Conv2d(c, width, 1), nn.GroupNorm(_GROUPS, width)) for c in reversed(channels[1:])
        )
        self.transformer = LevelTransformer(width, inner, depth)
        self.mask_features = nn.Conv2d(width, mask_width, 1)
        self.adapter_1 = NormedConvolution(channels[0], width, 1)
        self.layer_1 = NormedConvolution(width, width, 3)

    def forward(self, maps: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        # The release keeps float32 here, whatever surrounds it.
        with torch.autocast(maps[0].device.type, enabled=False):
            maps = [m.float() for m in maps]
            levels = [project(m) for project, m in zip(self.input_proj, reversed(maps[1:]), strict=True)]
            levels = self.transformer(levels)
            y = self.adapter_1(maps[0])
            y = y + resize(levels[-1], (y.shape[2], y.shape[3]))
            return self.mask_features(functional.relu(self.layer_1(y))), levels
