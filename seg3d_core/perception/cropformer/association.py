# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""CropFormer's association: the full image's queries gather what the same and other queries saw in every view."""

from __future__ import annotations

from torch import Tensor, nn

from .layers import CrossAttentionLayer, FeedForwardLayer, SelfAttentionLayer


class Association(nn.Module):
    """Cross-attention to the queries of all views, self-attention without position, a perceptron."""

    def __init__(self, width: int, heads: int, inner: int):
        super().__init__()
        self.enc_crosattn_3d = nn.ModuleList([CrossAttentionLayer(width, heads)])
        self.enc_selfattn_3d = nn.ModuleList([SelfAttentionLayer(width, heads)])
        self.enc_ffn_3d = nn.ModuleList([FeedForwardLayer(width, inner)])

    def forward(self, x: Tensor, position: Tensor) -> Tensor:
        """Queries (V, Q, C) of the views, the full image first, to (1, Q, C); `position` (Q, C)."""
        keys, values = (x + position).flatten(0, 1)[None], x.flatten(0, 1)[None]
        z = self.enc_crosattn_3d[0](x[:1], position, keys, values)
        return self.enc_ffn_3d[0](self.enc_selfattn_3d[0](z))
