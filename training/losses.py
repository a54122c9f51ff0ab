# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""The losses, one function each, of one scene (SegDINO3D sec. 3.4, weights and factors apart)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def class_loss(class_logits: Tensor, classes: Tensor, no_object_weight: float) -> Tensor:
    """Weighted cross-entropy over all queries, (M, C + 1) and int64 (M,); C is "no object".

    A mean by weight: every class weighs 1, "no object" `no_object_weight`.
    """
    weights = class_logits.new_ones(class_logits.shape[1])
    weights[-1] = no_object_weight
    return functional.cross_entropy(class_logits, classes, weights)


def mask_bce_loss(mask_logits: Tensor, masks: Tensor) -> Tensor:
    """Mean binary cross-entropy of matched masks (P, S) with their instances (P, S)."""
    return functional.binary_cross_entropy_with_logits(mask_logits, masks.to(mask_logits))


def mask_dice_loss(mask_logits: Tensor, masks: Tensor) -> Tensor:
    """One minus the dice of matched soft masks (P, S) with their instances (P, S), mean over pairs."""
    soft, masks = mask_logits.sigmoid(), masks.to(mask_logits)
    common = (soft * masks).sum(dim=1)
    return (1 - (2 * common + 1) / (soft.sum(dim=1) + masks.sum(dim=1) + 1)).mean()


def box_loss(predicted: Tensor, wanted: Tensor) -> Tensor:
    """L1 of matched centres, or sizes, (P, 3) in metres: summed over axes, mean over pairs."""
    return (predicted - wanted).abs().sum(dim=1).mean()


def semantic_loss(semantic_logits: Tensor, classes: Tensor) -> Tensor:
    """Cross-entropy (M, G + 1) and int64 (M,), mean over queries that have a class below G; NaN if none has."""
    unlabelled = semantic_logits.shape[1] - 1
    return functional.cross_entropy(semantic_logits[:, :-1], classes, ignore_index=unlabelled)


def mean_of(values: list[Tensor], otherwise: Tensor) -> Tensor:
    """The mean of scalars; `otherwise` where there are none."""
    return torch.stack(values).mean() if values else otherwise
