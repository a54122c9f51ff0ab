# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""RE0 eqs. 3 to 5: instances that share a mask in a keyframe merge.

Labels are never merged in the state: a snapshot merges a copy, and can decide otherwise next time.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from ...lifting.keyframe_log import contingency
from ...types import Array
from .base import FIRST_LABEL, StateCopy


class MergeRule(NamedTuple):
    """When two instances merge in a keyframe.

    Both must show a share of their points above `k_proj`, and of these a share above `k_mask` on one mask, ties to
    the smallest, which must be the same. `at_least`: the limits themselves are enough. `background`: mask 0 is a
    mask like any other.
    """

    k_proj: float
    k_mask: float
    at_least: bool
    background: bool


def merge_instances(labels: Array, label_count: int, state: StateCopy, rule: MergeRule) -> Array:
    """Merges over all keyframes in stream order: labels int32 (N,) in 0..label_count - 1 before and after.

    Labels below `FIRST_LABEL` never merge.
    """
    by_row = state.by_row(labels, outside=0)
    root = np.arange(label_count, dtype=np.int32)
    sizes = np.bincount(labels, minlength=label_count)
    for keyframe in state.keyframes:
        seen = by_row[keyframe.rows]
        for masks, mask_count in zip(keyframe.masks, keyframe.mask_counts, strict=True):
            present, counts = contingency(seen, masks, label_count, mask_count)
            merge_in_keyframe(present, counts, root, sizes, rule)
    return root[labels]


@njit(cache=True, nogil=True)
def merge_in_keyframe(present: Array, counts: Array, root: Array, sizes: Array, rule: MergeRule) -> None:
    """Merges in one keyframe; writes into `root` (the label that each label is merged into) and `sizes`.

    present (k,), counts (k, masks + 1): `contingency` of the labels before any merge. The smallest label takes the
    others that share its mask. That is what visiting the pairs i < j one after the other gives, whether i is counted
    anew after each or not: a union's shares lie between those of its parts, above the same limits.
    """
    local = np.zeros(len(root), np.int64)
    for k in range(len(present)):
        local[root[present[k]]] = 1
    local[:FIRST_LABEL] = 0
    names = np.flatnonzero(local)
    for i in range(len(names)):
        local[names[i]] = i + 1
    masks = counts.shape[1]
    table = np.zeros((len(names), masks), np.int64)
    for k in range(len(present)):
        i = local[root[present[k]]] - 1
        if i >= 0:
            for m in range(masks):
                table[i, m] += counts[k, m]
    first = np.full(masks, -1)
    for i in range(len(names)):
        mask = _shared_mask(table[i], sizes[names[i]], rule)
        if mask < 0:
            continue
        if first[mask] < 0:
            first[mask] = names[i]
            continue
        sizes[first[mask]] += sizes[names[i]]
        sizes[names[i]] = 0
        for label in range(len(root)):
            if root[label] == names[i]:
                root[label] = first[mask]


@njit(cache=True, nogil=True)
def _shared_mask(counts: Array, size: int, rule: MergeRule) -> int:
    """The mask by which an instance may merge in a keyframe (RE0 eqs. 3 and 4), -1 = none."""
    visible, best, most = 0, -1, 0
    for mask in range(len(counts)):
        visible += counts[mask]
        if (mask > 0 or rule.background) and counts[mask] > most:
            best, most = mask, counts[mask]
    if best < 0:
        return -1
    alpha, beta = visible / size, most / visible
    if rule.at_least:
        return best if alpha >= rule.k_proj and beta >= rule.k_mask else -1
    return best if alpha > rule.k_proj and beta > rule.k_mask else -1
