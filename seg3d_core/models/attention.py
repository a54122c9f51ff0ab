# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""The attentions of the SegDINO3D decoder. Each takes content (M, D) and gives the content after residual and norm.

All of one scene, without padding; `allowed` is boolean, (M, keys), and no row of it is empty.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


def attend(query: Tensor, key: Tensor, value: Tensor, heads: int, allowed: Tensor | None = None) -> Tensor:
    """Soft-max attention of (M, heads * d) to (S, heads * d) with values (S, heads * e) -> (M, heads * e).

    The scale is 1 / sqrt(d). Zero keys give zeros.
    """
    if not len(key):
        return query.new_zeros(len(query), value.shape[1])
    q, k, v = (x.unflatten(1, (heads, -1)).transpose(0, 1)[None] for x in (query, key, value))
    width = v.shape[-1]
    # The CPU's fused kernel, which never holds the (heads, M, S) weights, wants values as wide as the keys.
    if q.device.type == "cpu" and width < q.shape[-1]:
        v = functional.pad(v, (0, q.shape[-1] - width))
    out = functional.scaled_dot_product_attention(q, k, v, attn_mask=allowed, scale=q.shape[-1] ** -0.5)
    return out[0, :, :, :width].transpose(0, 1).flatten(1)


def join_heads(first: Tensor, second: Tensor, heads: int) -> Tensor:
    """(n, D) and (n, D) -> (n, 2 D), where each head holds its share of both, the first one's before the second's."""
    return torch.cat((first.unflatten(1, (heads, -1)), second.unflatten(1, (heads, -1))), dim=2).flatten(1)


class BoxModulatedCrossAttention(nn.Module):
    """3D queries attend to the superpoints of their masks, by content and by place (SegDINO3D sec. 3.3, eqs. 7, 8).

    The query's encoding is modulated by its box, so that large boxes look far along their long axes. As in the
    release, both encodings pass learned projections and are joined with the content per head; the first layer alone
    adds the encodings to the content as well.
    """

    def __init__(self, width: int, heads: int, is_first: bool):
        super().__init__()
        self.heads = heads
        self.query_content = nn.Linear(width, width)
        self.query_encoding = nn.Linear(width, width)
        self.query_position = nn.Linear(width, width) if is_first else None
        self.key_content = nn.Linear(width, width)
        self.key_position = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        nn.init.zeros_(self.out_proj.bias)

    def forward(
        self,
        content: Tensor,
        query_encoding: Tensor,
        query_position: Tensor,
        memory: Tensor,
        memory_encoding: Tensor,
        allowed: Tensor,
    ) -> Tensor:
        """Content, encodings (M, D) and positions (M, D) of queries; memory and its encodings (S, D)."""
        query, key = self.query_content(content), self.key_content(memory)
        place = self.key_position(memory_encoding)
        if self.query_position is not None:
            query, key = query + self.query_position(query_position), key + place
        query = join_heads(query, self.query_encoding(query_encoding), self.heads)
        key = join_heads(key, place, self.heads)
        found = attend(query, key, self.value(memory), self.heads, allowed)
        return self.norm(content + self.out_proj(found))


class PositionedSelfAttention(nn.Module):
    """3D queries attend to each other; the embedded reference point is added to query and key, not to the value."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.query_content = nn.Linear(width, width)
        self.query_position = nn.Linear(width, width)
        self.key_content = nn.Linear(width, width)
        self.key_position = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, content: Tensor, query_position: Tensor) -> Tensor:
        query = self.query_content(content) + self.query_position(query_position)
        key = self.key_content(content) + self.key_position(query_position)
        return self.norm(content + self.out_proj(attend(query, key, self.value(content), self.heads)))


class PackedAttention(nn.Module):
    """Standard multi-head attention whose three input projections lie in one matrix (3 D, D)."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, query: Tensor, memory: Tensor, allowed: Tensor | None = None) -> Tensor:
        parts = zip(self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3), (query, memory, memory), strict=True)
        q, k, v = (functional.linear(x, weight, bias) for weight, bias, x in parts)
        return self.out_proj(attend(q, k, v, self.heads, allowed))


class MaskedCrossAttention(nn.Module):
    """Standard attention to the superpoints of a query's mask: the decoder without positions."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.attn = PackedAttention(width, heads)
        self.norm = nn.LayerNorm(width)
        _xavier(self.attn)

    def forward(self, content: Tensor, memory: Tensor, allowed: Tensor) -> Tensor:
        return self.norm(content + self.attn(content, memory, allowed))


class SelfAttention(nn.Module):
    """Standard attention among the queries: the decoder without positions."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.attn = PackedAttention(width, heads)
        self.norm = nn.LayerNorm(width)

    def forward(self, content: Tensor) -> Tensor:
        return self.norm(content + self.attn(content, content))


class DistanceAwareCrossAttention(nn.Module):
    """3D queries attend to the 2D object queries near the superpoints of their masks (SegDINO3D sec. 3.3)."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.attn = PackedAttention(width, heads)
        self.norm = nn.LayerNorm(width)
        _xavier(self.attn)

    def forward(self, content: Tensor, queries_2d: Tensor, visible: Tensor | None) -> Tensor:
        """2D queries (O', D) as `reachability.with_dummy` gives them; `visible` bool (M, O'), none: all."""
        return self.norm(content + self.attn(content, queries_2d, visible))


class FeedForward(nn.Module):
    """Two linear layers about an exact GELU, residual, norm."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        # The fourth is the second linear layer in published weights: a dropout of rate 0 stands between.
        self.net = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Identity(), nn.Linear(hidden, width))
        self.norm = nn.LayerNorm(width)

    def forward(self, content: Tensor) -> Tensor:
        return self.norm(content + self.net(content))


def _xavier(module: Any) -> None:
    for parameter in module.parameters():
        if parameter.dim() > 1:
            nn.init.xavier_uniform_(parameter)
