# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""The masked decoder: queries look where their own mask is, in one view (Mask2Former) or in all (CropFormer)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .association import Association
from .layers import CrossAttentionLayer, FeedForwardLayer, Perceptron, SelfAttentionLayer, resize
from .positions import plane_code, view_code

HEADS = 8
_LEVELS = 3
_CLASSES = 2


@dataclass(frozen=True)
class Predictions:
    """What the network says of one image in V views.

    class_logits (Q, 2): entity, none. queries (Q, C): the last normed query features. vectors (Q, M) and
    features (V, M, h, w), whose products are the mask logits at stride 4.
    """

    class_logits: Tensor
    queries: Tensor
    vectors: Tensor
    features: Tensor

    def mask_logits(self, rows: Tensor | slice = slice(None)) -> Tensor:
        """(n, V, h, w) of the queries of these rows."""
        return torch.einsum("qc,vchw->qvhw", self.vectors[rows], self.features)


class MaskedDecoder(nn.Module):
    """Maps of V views to predictions; with several views their queries are associated and refined over all views."""

    def __init__(self, width: int, mask_width: int, queries: int, inner: int, depth: int, associates: bool):
        super().__init__()
        self.transformer_self_attention_layers = nn.ModuleList(SelfAttentionLayer(width, HEADS) for _ in range(depth))
        self.transformer_cross_attention_layers = nn.ModuleList(CrossAttentionLayer(width, HEADS) for _ in range(depth))
        self.transformer_ffn_layers = nn.ModuleList(FeedForwardLayer(width, inner) for _ in range(depth))
        if associates:
            self.make_3d = Association(width, HEADS, inner)
        self.associates = associates
        self.decoder_norm = nn.LayerNorm(width)
        self.query_feat = nn.Embedding(queries, width)
        self.query_embed = nn.Embedding(queries, width)
        self.level_embed = nn.Embedding(_LEVELS, width)
        self.class_embed = nn.Linear(width, _CLASSES)
        self.mask_embed = Perceptron((width, width, width, mask_width))

    def forward(self, features: Tensor, levels: list[Tensor]) -> Predictions:
        """`features` (V, M, h, w), `levels` (V, C, h, w) coarse to fine. V > 1 needs an association."""
        views, width = len(features), levels[0].shape[1]
        sizes = [(int(m.shape[2]), int(m.shape[3])) for m in levels]
        memories = [m.flatten(2).transpose(1, 2) + e for m, e in zip(levels, self.level_embed.weight, strict=True)]
        # A resized product is the product of resized features: masks between layers need no full-size plane.
        small = [resize(features, size).flatten(2) for size in sizes]
        codes = [plane_code(h, w, width, features.device) for h, w in sizes]
        x = self._refine(self.query_feat.weight.expand(views, -1, -1), memories, small, codes)
        if views > 1:
            x = self.make_3d(x, self.query_embed.weight)
            memories = [m.flatten(0, 1)[None] for m in memories]
            small = [s.transpose(0, 1).flatten(1)[None] for s in small]
            codes = [view_code(views, h, w, width, features.device) for h, w in sizes]
            x = self._refine(x, memories, small, codes)
        y = self.decoder_norm(x[0])
        return Predictions(self.class_embed(y).float(), y.float(), self.mask_embed(y).float(), features)

    def _refine(self, x: Tensor, memories: list[Tensor], small: list[Tensor], codes: list[Tensor]) -> Tensor:
        """All layers on queries (B, Q, C) with, per level, memories (B, K, C), features (B, M, K), codes (K, C)."""
        keys = [m + code for m, code in zip(memories, codes, strict=True)]
        position = self.query_embed.weight
        layers = zip(
            self.transformer_cross_attention_layers,
            self.transformer_self_attention_layers,
            self.transformer_ffn_layers,
            strict=True,
        )
        for i, (cross, own, feed) in enumerate(layers):
            level = i % len(memories)
            blocked = self._blocked(x, small[level])
            x = feed(own(cross(x, position, keys[level], memories[level], blocked), position))
        return x

    def _blocked(self, x: Tensor, features: Tensor) -> Tensor:
        """bool (B, Q, K): outside the query's latest mask. A query without any mask sees everything."""
        blocked = self.mask_embed(self.decoder_norm(x)) @ features < 0
        return blocked & ~blocked.all(-1, keepdim=True)
