# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""What instances have in common, and one-to-one matching."""

from __future__ import annotations

import numpy as np

from ..types import Array, Instances, places_among


def greedy_pairs(a: Array, b: Array, a_count: int, b_count: int) -> tuple[Array, Array]:
    """Takes candidate pairs (a, b), int (pairs,), in the order given while both are free.

    Gives the partner of each a (a_count,) and of each b (b_count,), -1 = none.
    """
    partner_of_a, partner_of_b = np.full(a_count, -1), np.full(b_count, -1)
    for i, j in zip(a.tolist(), b.tolist(), strict=True):
        if partner_of_a[i] < 0 and partner_of_b[j] < 0:
            partner_of_a[i], partner_of_b[j] = j, i
    return partner_of_a, partner_of_b


def common_points(new: Instances, old: Instances) -> tuple[Array, Array, Array]:
    """Pairs of instances that share points: numbers in `new` and in `old`, and how many points; int64 (pairs,)."""
    new_owner, old_owner = (np.repeat(np.arange(len(its)), its.sizes) for its in (new, old))
    order = np.argsort(old.point_ids, kind="stable")
    old_points, old_owner = old.point_ids[order], old_owner[order]
    if (old_points[1:] > old_points[:-1]).all():
        place = places_among(old_points, new.point_ids)
        a, b = new_owner[place >= 0], old_owner[place[place >= 0]]
    else:
        # Overlapping instances hold a point several times: every occurrence in one meets every one in the other.
        begin = np.searchsorted(old_points, new.point_ids, "left")
        count = np.searchsorted(old_points, new.point_ids, "right") - begin
        offset = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        a, b = np.repeat(new_owner, count), old_owner[np.repeat(begin, count) + offset]
    pair, common = np.unique(a * len(old) + b, return_counts=True)
    return pair // max(len(old), 1), pair % max(len(old), 1), common
