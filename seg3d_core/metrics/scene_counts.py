# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Overlaps of one scene's predictions with its ground truth: all that average precision needs, and small."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numba import njit

from ..errors import Seg3DError
from ..types import Array, Instances

AGNOSTIC = 1
LABEL_FACTOR = 1000
"""Ground-truth ids are `label * LABEL_FACTOR + instance number`."""
_LARGEST_TABLE = 4_000_000


@dataclass(frozen=True, eq=False)
class SceneEvaluation:
    """Ground truth and predictions of one scene of N vertices.

    truth int (N,): label * 1000 + instance number, 0 = unannotated. Prediction p, of P that may overlap, holds
    the vertices `members[indptr[p]:indptr[p + 1]]`, each once, and has `labels[p]` and `scores[p]`. The order
    of the predictions matters. Where `names` (P) are given, a class list turns them into labels and `labels` is not
    looked at. `truth_names` names the ground truth's labels, for lists of its own.
    """

    truth: Array
    indptr: Array
    members: Array
    labels: Array
    scores: Array
    names: tuple[str, ...] | None = None
    truth_names: Mapping[int, str] = field(default_factory=dict)

    @classmethod
    def from_masks(cls, truth: Array, masks: Array, labels: Array, scores: Array) -> SceneEvaluation:
        """From one boolean mask per prediction, (P, N)."""
        indptr, members = members_of_masks(masks)
        return cls(truth, indptr, members, labels, scores)

    @classmethod
    def from_partition(cls, truth: Array, partition: Array, scores: Array) -> SceneEvaluation:
        """From one prediction per vertex, int (N,), 0 = none, 1..P; every prediction has the class-agnostic label."""
        instances = Instances.from_labels(partition, np.arange(len(truth)), scores)
        return cls(truth, instances.indptr, instances.point_ids, np.full(len(scores), AGNOSTIC), np.asarray(scores))

    @property
    def is_partition(self) -> bool:
        """Whether no vertex lies in two predictions."""
        return not len(self.members) or int(np.bincount(self.members).max()) <= 1

    def partition(self) -> Array:
        """One prediction per vertex, int32 (N,), 0 = none, 1..P: where some overlap, the higher score wins."""
        none = np.zeros(len(self.scores), np.int32)
        instances = Instances(none, np.asarray(self.scores, float), self.indptr, self.members)
        return instances.exclusive(np.arange(len(self.truth)))


@dataclass(frozen=True, eq=False)
class SceneCounts:
    """Vertices that predictions and ground truth share, of one scene.

    truth_ids int64 (G,), ascending, void ones too, and truth_sizes (G,); labels, scores, sizes (P,), in the order
    of the predictions; common int64 (P, G). mask_ids int64 (P,): predictions of identical masks share one.
    """

    truth_ids: Array
    truth_sizes: Array
    labels: Array
    scores: Array
    sizes: Array
    common: Array
    mask_ids: Array
    names: tuple[str, ...] | None = None
    truth_names: Mapping[int, str] = field(default_factory=dict)

    def select(self, keep: Array) -> SceneCounts:
        """Only the predictions of the boolean mask (P,)."""
        names = None if self.names is None else tuple(np.array(self.names, object)[keep])
        return replace(
            self,
            labels=self.labels[keep],
            scores=self.scores[keep],
            sizes=self.sizes[keep],
            common=self.common[keep],
            mask_ids=self.mask_ids[keep],
            names=names,
        )


def members_of_masks(masks: Array) -> tuple[Array, Array]:
    """CSR `indptr` int64 (P + 1,) and `members` int64 (M,) of masks (P, N), non-zero = in."""
    masks = np.asarray(masks)
    inside = masks if masks.dtype == bool else masks != 0
    flat = np.flatnonzero(inside)
    width = max(inside.shape[1], 1)
    return np.searchsorted(flat, np.arange(len(inside) + 1) * width), flat % width


def count_overlaps(scene: SceneEvaluation) -> SceneCounts:
    """Counts what the predictions share with each ground-truth id. Raises Seg3DError for vertices out of range."""
    members = np.ascontiguousarray(scene.members, np.int64)
    indptr = np.ascontiguousarray(scene.indptr, np.int64)
    if members.size and not (members.min() >= 0 and members.max() < len(scene.truth)):
        raise Seg3DError(
            f"a prediction holds vertex {int(members.max())}, but the ground truth has {len(scene.truth)} vertices: "
            "predictions and ground truth are of different clouds"
        )
    ids, column = _numbered(np.ascontiguousarray(scene.truth, np.int64))
    sizes = np.diff(indptr)
    common = _count(indptr, members, column, len(ids))
    return SceneCounts(
        ids,
        np.bincount(column, minlength=len(ids)),
        np.asarray(scene.labels),
        np.asarray(scene.scores, float),
        sizes,
        common,
        _mask_ids(indptr, members, sizes, common),
        scene.names,
        scene.truth_names,
    )


def duplicates(counts: SceneCounts, labels: Array) -> Array:
    """Which predictions (P,) repeat the mask and the label of another one of higher score, or equal and earlier."""
    order = np.lexsort((np.arange(len(labels)), -counts.scores))
    pairs = np.stack([counts.mask_ids, np.asarray(labels, np.int64)], axis=1)[order]
    _, first = np.unique(pairs, axis=0, return_index=True)
    repeats = np.ones(len(labels), bool)
    repeats[order[first]] = False
    return repeats


def _numbered(truth: Array) -> tuple[Array, Array]:
    """Distinct ids ascending (G,), and each vertex's number among them (N,), without sorting the vertices."""
    if len(truth) and truth.min() >= 0 and truth.max() < _LARGEST_TABLE:
        present = np.zeros(int(truth.max()) + 1, bool)
        present[truth] = True
        ids = np.flatnonzero(present)
        number = np.zeros(len(present), np.int64)
        number[ids] = np.arange(len(ids))
        return ids, number[truth]
    ids, column = np.unique(truth, return_inverse=True)
    return ids, column.reshape(-1)


@njit(cache=True, nogil=True)
def _count(indptr: Array, members: Array, column: Array, width: int) -> Array:
    out = np.zeros((len(indptr) - 1, width), np.int64)
    for p in range(len(indptr) - 1):
        for k in range(indptr[p], indptr[p + 1]):
            out[p, column[members[k]]] += 1
    return out


def _mask_ids(indptr: Array, members: Array, sizes: Array, common: Array) -> Array:
    """The number of the first prediction with the same vertices, (P,). Equal counts say where to compare them."""
    out = np.arange(len(sizes))
    _, group = np.unique(np.column_stack([sizes, common]), axis=0, return_inverse=True)
    group = group.reshape(-1)
    for number in np.flatnonzero(np.bincount(group, minlength=1) > 1):
        masks: list[tuple[int, Array]] = []
        for p in np.flatnonzero(group == number):
            mask = np.sort(members[indptr[p] : indptr[p + 1]])
            same = [first for first, other in masks if np.array_equal(mask, other)]
            out[p] = same[0] if same else p
            if not same:
                masks.append((int(p), mask))
    return out
