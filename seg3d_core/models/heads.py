# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""What a query says: its class, its mask over superpoints, its semantic class."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

_CHUNK = 512


@dataclass(frozen=True, eq=False)
class Prediction:
    """Of M queries: class logits (M, C + 1), the last is "no object"; mask logits (M, S) over superpoints; boxes as
    centres and sizes (M, 3) in metres, None where the network has none."""

    class_logits: Tensor
    mask_logits: Tensor
    centres: Tensor | None = None
    sizes: Tensor | None = None

    def float(self) -> Prediction:
        """In single precision."""
        boxes = (None if value is None else value.float() for value in (self.centres, self.sizes))
        return Prediction(self.class_logits.float(), self.mask_logits.float(), *boxes)


class PredictionHeads(nn.Module):
    """Shared by all layers. `features` is the channels of the superpoint features that masks are made of."""

    def __init__(self, features: int, width: int, thing_classes: int, semantic_classes: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.classes = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, thing_classes + 1))
        self.semantic = nn.Linear(width, semantic_classes + 1)
        self.mask_features = nn.Sequential(nn.Linear(features, width), nn.ReLU(), nn.Linear(width, width))

    def predict(self, content: Tensor, mask_features: Tensor) -> Prediction:
        """Content (M, D) and mask features (S, D), without boxes."""
        content = self.norm(content)
        return Prediction(self.classes(content), content @ mask_features.T)

    def semantic_logits(self, content: Tensor) -> Tensor:
        """(M, D) -> (M, G + 1), the last is "unlabelled"."""
        return self.semantic(self.norm(content))

    @torch.no_grad()
    def masks(self, content: Tensor, mask_features: Tensor) -> Tensor:
        """`attention_mask` of the mask logits, without holding them all: bool (M, S)."""
        out = torch.empty(len(content), len(mask_features), dtype=torch.bool, device=content.device)
        for begin in range(0, len(content), _CHUNK):
            part = self.norm(content[begin : begin + _CHUNK]) @ mask_features.T
            out[begin : begin + _CHUNK] = attention_mask(part)
        return out


@torch.no_grad()
def attention_mask(mask_logits: Tensor) -> Tensor:
    """Where the next layer's attention may look, bool (M, S): at its mask; everywhere where the mask is empty."""
    # Not `logits >= 0`: in float32 the sigmoid of a tiny negative logit is one half.
    allowed = mask_logits.sigmoid() >= 0.5
    return allowed | ~allowed.any(dim=1, keepdim=True)
