# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""The prompt encoder and mask decoder of SAM, as MobileSAM has them; module names are those of the checkpoint."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from .tiny_vit import LayerNorm2d

DIM = 256
NEGATIVE, POSITIVE = 0, 1


class PositionEmbeddingRandom(nn.Module):
    """Random Fourier features of points in the unit square, (..., 2) x first to (..., 256)."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("positional_encoding_gaussian_matrix", torch.zeros(2, DIM // 2))

    def forward(self, xy: Tensor) -> Tensor:
        phase = 2 * math.pi * ((2 * xy - 1) @ self.positional_encoding_gaussian_matrix)
        return torch.cat([phase.sin(), phase.cos()], -1)


class PromptEncoder(nn.Module):
    """Clicks and boxes as tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.pe_layer = PositionEmbeddingRandom()
        # Negative click, positive click, upper left and lower right corner of a box.
        self.point_embeddings = nn.ModuleList([nn.Embedding(1, DIM) for _ in range(4)])
        self.not_a_point_embed = nn.Embedding(1, DIM)
        self.mask_downscaling = nn.Sequential(
            nn.Conv2d(1, 4, 2, 2),
            LayerNorm2d(4),
            nn.GELU(),
            nn.Conv2d(4, 16, 2, 2),
            LayerNorm2d(16),
            nn.GELU(),
            nn.Conv2d(16, DIM, 1),
        )
        self.no_mask_embed = nn.Embedding(1, DIM)

    def dense_positions(self, rows: int, columns: int, grid: int) -> Tensor:
        """Codes (1, 256, rows, columns) of the upper left part of a grid x grid embedding."""
        like = self.no_mask_embed.weight
        y, x = ((torch.arange(n, dtype=like.dtype, device=like.device) + 0.5) / grid for n in (rows, columns))
        xy = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)
        return self.pe_layer(xy).permute(2, 0, 1)[None]

    def points(self, xy: Tensor, labels: Tensor, side: int) -> Tensor:
        """Tokens (B, n + 1, 256) of clicks (B, n, 2) in pixels of the resized image, labels (B, n).

        Without a box one padding token follows the clicks.
        """
        table = torch.cat([p.weight for p in self.point_embeddings])
        clicks = self.pe_layer((xy + 0.5) / side) + table[labels]
        return torch.cat([clicks, self.not_a_point_embed.weight.expand(len(xy), 1, DIM)], 1)

    def boxes(self, xyxy: Tensor, side: int) -> Tensor:
        """Tokens (B, 2, 256) of boxes (B, 4) in pixels of the resized image."""
        corners = torch.cat([self.point_embeddings[2].weight, self.point_embeddings[3].weight])
        return self.pe_layer((xyxy.view(-1, 2, 2) + 0.5) / side) + corners


class Attention(nn.Module):
    """Attention with an inner width of its own. Queries or keys of one image serve any number of prompts."""

    def __init__(self, inner: int, heads: int = 8):
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(DIM, inner) for _ in range(3))
        self.out_proj = nn.Linear(inner, DIM)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        batch = max(q.shape[0], k.shape[0])
        q, k, v = (self._split(t, batch) for t in (self.q_proj(q), self.k_proj(k), self.v_proj(v)))
        out = functional.scaled_dot_product_attention(q, k, v)
        return self.out_proj(out.transpose(1, 2).flatten(2))

    def _split(self, x: Tensor, batch: int) -> Tensor:
        b, n, c = x.shape
        x = x.view(b, n, self.heads, c // self.heads).transpose(1, 2)
        return x if b == batch else x.expand(batch, -1, -1, -1)


class Mlp(nn.Module):
    """Eightfold width, ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.lin1, self.lin2 = nn.Linear(DIM, 2048), nn.Linear(2048, DIM)

    def forward(self, x: Tensor) -> Tensor:
        return self.lin2(functional.relu(self.lin1(x)))


class TwoWayBlock(nn.Module):
    """Tokens look at each other and at the image, then the image looks at the tokens."""

    def __init__(self, is_first: bool):
        super().__init__()
        self.is_first = is_first
        self.self_attn = Attention(DIM)
        self.norm1 = nn.LayerNorm(DIM)
        self.cross_attn_token_to_image = Attention(DIM // 2)
        self.norm2 = nn.LayerNorm(DIM)
        self.mlp = Mlp()
        self.norm3 = nn.LayerNorm(DIM)
        self.norm4 = nn.LayerNorm(DIM)
        self.cross_attn_image_to_token = Attention(DIM // 2)

    def forward(self, q: Tensor, k: Tensor, q_pe: Tensor, k_pe: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens q (B, n, 256), cells k (1 or B, h w, 256) and their positions, to both anew."""
        # The first block has neither positions nor a residual here.
        q = self.self_attn(q, q, q) if self.is_first else q + self.self_attn(q + q_pe, q + q_pe, q)
        q = self.norm1(q)
        q = self.norm2(q + self.cross_attn_token_to_image(q + q_pe, k + k_pe, k))
        q = self.norm3(q + self.mlp(q))
        return q, self.norm4(k + self.cross_attn_image_to_token(k + k_pe, q + q_pe, q))


class TwoWayTransformer(nn.Module):
    """Two blocks and a last look of the tokens at the image."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([TwoWayBlock(True), TwoWayBlock(False)])
        self.final_attn_token_to_image = Attention(DIM // 2)
        self.norm_final_attn = nn.LayerNorm(DIM)

    def forward(self, image: Tensor, positions: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """image, positions (1, 256, h, w), tokens (B, n, 256) to tokens (B, n, 256) and cells (B, h w, 256)."""
        k, k_pe, q = image.flatten(2).transpose(1, 2), positions.flatten(2).transpose(1, 2), tokens
        for layer in self.layers:
            q, k = layer(q, k, tokens, k_pe)
        return self.norm_final_attn(q + self.final_attn_token_to_image(q + tokens, k + k_pe, k)), k


class ThreeLayers(nn.Module):
    """256 to 256 to 256 to `out`, ReLU between."""

    def __init__(self, out: int):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(DIM, DIM), nn.Linear(DIM, DIM), nn.Linear(DIM, out)])

    def forward(self, x: Tensor) -> Tensor:
        first, second, last = self.layers
        return last(functional.relu(second(functional.relu(first(x)))))


class MaskDecoder(nn.Module):
    """Masks of prompts on one image."""

    def __init__(self) -> None:
        super().__init__()
        self.transformer = TwoWayTransformer()
        self.iou_token = nn.Embedding(1, DIM)
        self.mask_tokens = nn.Embedding(4, DIM)
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(DIM, 64, 2, 2), LayerNorm2d(64), nn.GELU(), nn.ConvTranspose2d(64, 32, 2, 2), nn.GELU()
        )
        self.output_hypernetworks_mlps = nn.ModuleList([ThreeLayers(32) for _ in range(4)])
        self.iou_prediction_head = ThreeLayers(4)

    def forward(
        self, embedding: Tensor, positions: Tensor, sparse: Tensor, dense: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Of B prompts: logits (B, 4, 4 h, 4 w), predicted IoU (B, 4), mask tokens (B, 4, 256).

        Outputs are numbered 0 (for boxes and several clicks) and 1 to 3 (the three readings of one click).
        embedding, positions (1, 256, h, w); sparse (B, n, 256); dense (1, 256, 1 or h, 1 or w).
        """
        b, (h, w) = sparse.shape[0], embedding.shape[2:]
        own = torch.cat([self.iou_token.weight, self.mask_tokens.weight]).expand(b, -1, -1)
        tokens, cells = self.transformer(embedding + dense, positions, torch.cat([own, sparse], 1))
        upscaled = self.output_upscaling(cells.transpose(1, 2).reshape(b, DIM, h, w))
        weights = torch.stack([mlp(tokens[:, 1 + i]) for i, mlp in enumerate(self.output_hypernetworks_mlps)], 1)
        logits = (weights @ upscaled.flatten(2)).view(b, len(self.output_hypernetworks_mlps), 4 * h, 4 * w)
        return logits, self.iou_prediction_head(tokens[:, 0]), tokens[:, 1:5]
