# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Which query answers for which instance (SegDINO3D sec. 3.4, and the release).

A query may only answer for the instance that its own superpoint lies in, so the release needs no assignment: each
instance takes its cheapest query. `hungarian` solves the assignment, for targets that overlap.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional

from seg3d_core.models.heads import Prediction

from .config import MatcherConfig
from .dataset import Targets

UNREACHABLE = 1e8
"""The cost of a query outside of an instance, as in the release."""


@dataclass(frozen=True, eq=False)
class Match:
    """Pairs, int64 (P,) each: rows of queries and of instances, in ascending order of the query."""

    queries: Tensor
    instances: Tensor

    def __len__(self) -> int:
        return len(self.queries)


@torch.no_grad()
def match(
    prediction: Prediction, targets: Targets, query_ids: Tensor, settings: MatcherConfig, with_sizes: bool = True
) -> Match:
    """The pairs of one prediction. `query_ids` int64 (M,): the superpoint of each query."""
    if not len(targets) or not len(query_ids):
        none = query_ids.new_zeros(0)
        return Match(none, none)
    cost = costs(prediction, targets, query_ids, settings, with_sizes)
    if settings.kind == "hungarian":
        return match_hungarian(cost)
    return match_cheapest(cost, settings.release_ties)


def costs(
    prediction: Prediction, targets: Targets, query_ids: Tensor, settings: MatcherConfig, with_sizes: bool = True
) -> Tensor:
    """The cost (M, K) of each query for each instance; `UNREACHABLE` where its superpoint lies outside."""
    masks = targets.instance_masks.to(prediction.mask_logits)
    total = settings.classes * class_cost(prediction.class_logits, targets.labels)
    total = total + settings.mask_bce * mask_bce_cost(prediction.mask_logits, masks)
    total = total + settings.mask_dice * mask_dice_cost(prediction.mask_logits, masks)
    if prediction.centres is not None:
        total = total + settings.centre * torch.cdist(prediction.centres, targets.centres, p=1)
    if prediction.sizes is not None and with_sizes:
        total = total + settings.size * torch.cdist(prediction.sizes, targets.sizes, p=1)
    return total.masked_fill(~targets.instance_masks[:, query_ids].T, UNREACHABLE)


def class_cost(class_logits: Tensor, labels: Tensor) -> Tensor:
    """Minus the probability of each instance's class, (M, C + 1) and (K,) -> (M, K)."""
    return -class_logits.softmax(dim=1)[:, labels]


def mask_bce_cost(mask_logits: Tensor, masks: Tensor) -> Tensor:
    """Mean binary cross-entropy over superpoints, (M, S) and (K, S) -> (M, K)."""
    inside, outside = functional.softplus(-mask_logits), functional.softplus(mask_logits)
    return (inside @ masks.T + outside @ (1 - masks).T) / mask_logits.shape[1]


def mask_dice_cost(mask_logits: Tensor, masks: Tensor) -> Tensor:
    """One minus the dice of soft masks, one added to both halves, (M, S) and (K, S) -> (M, K)."""
    soft = mask_logits.sigmoid()
    both = soft.sum(dim=1)[:, None] + masks.sum(dim=1)
    return 1 - (2 * soft @ masks.T + 1) / (both + 1)


def match_cheapest(cost: Tensor, release_ties: bool = False) -> Match:
    """Each instance takes its cheapest reachable query, the first among equals.

    `release_ties`: as released, all queries cheaper than the second cheapest: none where two tie, or where one query
    is all there is.
    """
    if release_ties:
        if len(cost) < 2:
            raise ValueError("the release's rule needs two queries or more")
        second = cost.topk(2, dim=0, largest=False).values[1]
        chosen = cost < second
    else:
        chosen = torch.zeros_like(cost, dtype=torch.bool)
        chosen[cost.argmin(dim=0), torch.arange(cost.shape[1], device=cost.device)] = True
    queries, instances = (chosen & (cost < UNREACHABLE / 2)).nonzero(as_tuple=True)
    return Match(queries, instances)


def match_hungarian(cost: Tensor) -> Match:
    """The cheapest assignment of as many instances as possible to queries of their own."""
    queries, instances = linear_sum_assignment(cost.double().cpu().numpy())
    reachable = cost.cpu().numpy()[queries, instances] < UNREACHABLE / 2
    pairs = (torch.from_numpy(np.asarray(rows[reachable])).to(cost.device) for rows in (queries, instances))
    return Match(*pairs)
