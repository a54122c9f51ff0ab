# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Matrix NMS (SOLOv2, eqs. 4 and 5): masks lose score by how much better ones of their class cover them."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Kernel = Literal["linear", "gaussian"]


def matrix_nms(
    masks: Tensor,
    labels: Tensor,
    scores: Tensor,
    kernel: Kernel = "linear",
    sigma: float = 2.0,
    first: int = 0,
    threshold: float | None = None,
) -> tuple[Tensor, Tensor]:
    """Masks (n, S) >= 0, soft or binary, labels int (n,), scores (n,) -> new scores and rows of the input, best first.

    `first` > 0 keeps that many best before, `threshold` drops new scores below it.
    """
    order = scores.argsort(descending=True, stable=True)
    if first > 0:
        order = order[:first]
    if not len(order):
        return scores[order], order
    decay = _same_class_overlap(masks[order], labels[order])
    cover = decay.amax(dim=0)[:, None]
    if kernel == "gaussian":
        factor = (-sigma * decay**2).exp() / (-sigma * cover**2).exp()
    else:
        # An exact copy of a better mask leaves nothing to divide by: it suppresses what it covers wholly.
        factor = torch.where(cover < 1, (1 - decay) / (1 - cover).clamp(min=1e-30), (decay < 1).to(decay))
    new = scores[order] * factor.amin(dim=0)
    if threshold is not None:
        keep = new >= threshold
        new, order = new[keep], order[keep]
    best = new.argsort(descending=True, stable=True)
    return new[best], order[best]


def _same_class_overlap(masks: Tensor, labels: Tensor) -> Tensor:
    """IoU (n, n) of each mask i with the later masks j of its class, 0 elsewhere."""
    masks = masks.float()
    areas = masks.sum(dim=1)
    common = masks @ masks.T
    union = areas[:, None] + areas - common
    overlap = torch.where(union > 0, common / union, torch.zeros_like(common)).triu(diagonal=1)
    return overlap * (labels[:, None] == labels)
