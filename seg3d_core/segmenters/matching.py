"""One-to-one matching."""

from __future__ import annotations

import numpy as np

from ..types import Array


def greedy_pairs(a: Array, b: Array, a_count: int, b_count: int) -> tuple[Array, Array]:
    """Takes candidate pairs (a, b), int (pairs,), in the order given while both are free.

    Gives the partner of each a (a_count,) and of each b (b_count,), -1 = none.
    """
    partner_of_a, partner_of_b = np.full(a_count, -1), np.full(b_count, -1)
    for i, j in zip(a.tolist(), b.tolist(), strict=True):
        if partner_of_a[i] < 0 and partner_of_b[j] < 0:
            partner_of_a[i], partner_of_b[j] = j, i
    return partner_of_a, partner_of_b
