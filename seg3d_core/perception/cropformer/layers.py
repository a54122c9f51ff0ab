# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Layers that the parts of the network share. Parameter names are those of the published checkpoints."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional


class ChannelNorm(nn.Module):
    """LayerNorm over the channels of each pixel of (B, C, H, W)."""

    def __init__(self, channels: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self._eps = eps

    def forward(self, x: Tensor) -> Tensor:
        y = functional.layer_norm(x.permute(0, 2, 3, 1), self.weight.shape, self.weight, self.bias, self._eps)
        return y.permute(0, 3, 1, 2)


class Attention(nn.Module):
    """Multi-head attention with the packed parameters of `nn.MultiheadAttention`, batch first.

    `blocked` bool (B, Q, K) or (1, Q, K) holds for all heads, True where a query may not look; it stays one plane
    per batch entry, which `nn.MultiheadAttention` would copy for every head.
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.empty(3 * width))
        self.out_proj = nn.Linear(width, width)
        self._heads = heads

    def forward(self, query: Tensor, key: Tensor, value: Tensor, blocked: Tensor | None = None) -> Tensor:
        weights, biases = self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)
        q, k, v = (
            functional.linear(x, w, b).unflatten(-1, (self._heads, -1)).transpose(1, 2)
            for x, w, b in zip((query, key, value), weights, biases, strict=True)
        )
        allowed = None if blocked is None else ~blocked[:, None]
        y = functional.scaled_dot_product_attention(q, k, v, attn_mask=allowed)
        return self.out_proj(y.transpose(1, 2).flatten(2))


class CrossAttentionLayer(nn.Module):
    """x <- norm(x + attention(x + position, key, value))."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.multihead_attn = Attention(width, heads)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, position: Tensor, key: Tensor, value: Tensor, blocked: Tensor | None = None) -> Tensor:
        return self.norm(x + self.multihead_attn(x + position, key, value, blocked))


class SelfAttentionLayer(nn.Module):
    """x <- norm(x + attention of x + position on itself)."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.self_attn = Attention(width, heads)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, position: Tensor | None = None) -> Tensor:
        q = x if position is None else x + position
        return self.norm(x + self.self_attn(q, q, x))


class FeedForwardLayer(nn.Module):
    """x <- norm(x + linear2(relu(linear1(x))))."""

    def __init__(self, width: int, inner: int):
        super().__init__()
        self.linear1 = nn.Linear(width, inner)
        self.linear2 = nn.Linear(inner, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x + self.linear2(functional.relu(self.linear1(x))))


class Perceptron(nn.Module):
    """Linear layers with ReLU between them."""

    def __init__(self, widths: tuple[int, ...]):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = functional.relu(layer(x))
        return self.layers[-1](x)


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear, pixel edges aligned, no antialiasing: (B, C, H, W) to (B, C, *size)."""
    return functional.interpolate(x, size=size, mode="bilinear", align_corners=False)
