# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""RE0's mAP_GT: the segments of a partition take the ground-truth label that most of their points carry."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .scene_counts import LABEL_FACTOR, SceneCounts


def voted(counts: SceneCounts, *, as_released: bool = False) -> SceneCounts:
    """The segments, labelled by vote, all with score 1 (RE0 sec. 4.1.2). Predictions must not overlap.

    The vote counts full instance ids, ties go to the smaller id; a segment that lies mostly on points without label
    gets label 0 and counts nowhere. `as_released`: the points of no segment are one more segment, the first one, as
    in the release's code.
    """
    if as_released:
        counts = _with_background(counts)
    labels = np.where(counts.sizes > 0, counts.truth_ids[counts.common.argmax(axis=1)] // LABEL_FACTOR, 0)
    return replace(counts, labels=labels, scores=np.ones(len(labels)), names=None)


def _with_background(counts: SceneCounts) -> SceneCounts:
    rest = counts.truth_sizes - counts.common.sum(axis=0)
    return replace(
        counts,
        labels=np.append(0, counts.labels),
        scores=np.append(1.0, counts.scores),
        sizes=np.append(rest.sum(), counts.sizes),
        common=np.vstack([rest, counts.common]),
        mask_ids=np.append(0, counts.mask_ids + 1),
    )
