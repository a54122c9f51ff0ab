# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""RE0 Alg. 1: the masks of a keyframe take labels of the map, or new ones.

Label 0 never wins: as printed, all masks would align with it for ever. All masks are aligned with an untouched
copy of the labels, so that none reads what another one wrote. Ties go to the newest label.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...lifting.keyframe_log import contingency
from ...types import Array


def align_masks(
    point_labels: Array, point_masks: Array, mask_count: int, next_label: int, choose: Majority
) -> tuple[Array, int]:
    """RE0 Alg. 1: int32 labels of masks 0..mask_count, and the next free one.

    point_labels int32 (n,) are the points' labels of now, 0 = none; point_masks
    int16 (n,). Mask 0 and masks without points take no label.
    """
    present, counts = contingency(point_labels, point_masks, next_label, mask_count)
    sizes = np.bincount(point_masks, minlength=mask_count + 1)
    sizes[0] = 0
    out = np.zeros(mask_count + 1, np.int32)
    aligned = np.zeros(mask_count + 1, bool)
    if len(present):
        choice = choose(counts, sizes)
        aligned = choice >= 0
        out[aligned] = present[choice[aligned]]
    fresh = np.flatnonzero(~aligned & (sizes > 0))
    out[fresh] = np.arange(next_label, next_label + len(fresh))
    return out, next_label + len(fresh)


@dataclass(frozen=True)
class Majority:
    """The paper's rule: a mask takes the label of more than `k_align` of its points; many may take one label.

    Points without label are left out of the histogram and its sum, and a mask with fewer than `min_labelled` of
    its points labelled takes none; with `count_unlabelled` they are in both, as in the released code.
    """

    k_align: float
    min_labelled: float
    count_unlabelled: bool

    def __call__(self, counts: Array, sizes: Array) -> Array:
        """Row numbers of `counts` (masks + 1,), -1 = none.

        counts (k, masks + 1): common points of k > 0 labels, ascending, and masks; sizes (masks + 1,): points of
        each mask, those without label included, and 0 of mask 0, which takes no label.
        """
        newest_first = counts[::-1]
        best, most = len(counts) - 1 - newest_first.argmax(axis=0), newest_first.max(axis=0)
        labelled = counts.sum(axis=0)
        may = (most > 0) & (sizes > 0) & (_shares(labelled, sizes) >= self.min_labelled)
        if self.count_unlabelled:
            may &= most >= sizes - labelled
        total = sizes if self.count_unlabelled else labelled
        return np.where(may & (_shares(most, total) > self.k_align), best, -1)


def _shares(part: Array, whole: Array) -> Array:
    # Divided, not multiplied out: 11 of 20 is exactly the share 0.55, but 0.55 * 20 is more than 11.
    return part / np.maximum(whole, 1)
