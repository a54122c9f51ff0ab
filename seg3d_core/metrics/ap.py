"""Average precision as ScanNet's benchmark computes it, class by class or class-agnostic.

The protocol has its own ideas of thresholds (0.95 is not among them), of the order in which predictions are
tried (the file's), and of the integral (a trapezoid-like rule); they are kept, so that numbers compare.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit
from scipy.spatial import cKDTree

from ..types import Array, Instances

OVERLAPS = np.append(np.arange(0.5, 0.95, 0.05), 0.25)
MIN_REGION = 100
AGNOSTIC = 1


@dataclass(frozen=True, eq=False)
class SceneEvaluation:
    """Ground truth and predictions of one scene of N vertices.

    truth int (N,): label * 1000 + instance number, 0 = unannotated. Prediction p, of P that may overlap, holds
    the vertices `members[indptr[p]:indptr[p + 1]]`, each once, and has `labels[p]` and `scores[p]`. The order
    of the predictions matters.
    """

    truth: Array
    indptr: Array
    members: Array
    labels: Array
    scores: Array

    @classmethod
    def from_masks(cls, truth: Array, masks: Array, labels: Array, scores: Array) -> SceneEvaluation:
        """From one boolean mask per prediction, (P, N)."""
        indptr = np.append(0, np.cumsum(masks.sum(axis=1)))
        return cls(truth, indptr, np.nonzero(masks)[1], labels, scores)

    @classmethod
    def from_partition(cls, truth: Array, partition: Array, scores: Array) -> SceneEvaluation:
        """From one prediction per vertex, int (N,), 0 = none, 1..P; every prediction has the class-agnostic label."""
        instances = Instances.from_labels(partition, np.arange(len(truth)), scores)
        return cls(truth, instances.indptr, instances.point_ids, np.full(len(scores), AGNOSTIC), np.asarray(scores))


@dataclass(frozen=True, eq=False)
class ApResult:
    """`per_class`: label to AP at each of `OVERLAPS`, (10,), NaN where no scene has ground truth of the class."""

    per_class: dict[int, Array]

    def mean(self, classes: Collection[int] | None = None) -> tuple[float, float, float]:
        """(AP, AP50, AP25), means over the given classes (all by default) that have a value; NaN if none has."""
        values = [v for label, v in self.per_class.items() if classes is None or label in classes]
        known = [v for v in values if not np.isnan(v).any()]
        if not known:
            return float("nan"), float("nan"), float("nan")
        mean = np.mean(known, axis=0)
        return float(mean[:-1].mean()), float(mean[0]), float(mean[-1])

    @property
    def ap(self) -> float:
        """Mean over the thresholds 0.5, 0.55, .. 0.9."""
        return self.mean()[0]

    @property
    def ap50(self) -> float:
        return self.mean()[1]

    @property
    def ap25(self) -> float:
        return self.mean()[2]


def average_precision(scenes: Sequence[SceneEvaluation], classes: Collection[int], agnostic: bool = False) -> ApResult:
    """AP pooled over scenes. Vertices whose label is not in `classes` are void.

    Class-agnostic: every instance of a label in `classes` is one of class `AGNOSTIC`, and all predictions count
    whatever their label.
    """
    tables = [_overlaps(scene, classes, agnostic) for scene in scenes]
    names = [AGNOSTIC] if agnostic else list(classes)
    return ApResult({label: _class_precision(tables, label) for label in names})


@dataclass(frozen=True, eq=False)
class _Overlaps:
    """Counts of one scene: G valid ground-truth instances (ascending id) and P predictions that are large enough."""

    truth_labels: Array
    truth_sizes: Array
    labels: Array
    scores: Array
    sizes: Array
    common: Array
    void: Array


def _overlaps(scene: SceneEvaluation, classes: Collection[int], agnostic: bool) -> _Overlaps:
    ids, vertex_id, truth_sizes = np.unique(scene.truth, return_inverse=True, return_counts=True)
    sizes = np.diff(scene.indptr)
    owner = np.repeat(np.arange(len(sizes)), sizes)
    cells = owner * len(ids) + vertex_id.reshape(-1)[scene.members]
    common = np.bincount(cells, minlength=len(sizes) * len(ids)).reshape(len(sizes), len(ids))
    valid = np.isin(ids // 1000, list(classes))
    large = sizes >= MIN_REGION
    truth_labels = ids[valid] // 1000
    labels = np.asarray(scene.labels)[large]
    if agnostic:
        truth_labels, labels = np.full_like(truth_labels, AGNOSTIC), np.full_like(labels, AGNOSTIC)
    return _Overlaps(
        truth_labels,
        truth_sizes[valid],
        labels,
        np.asarray(scene.scores, float)[large],
        sizes[large],
        common[large][:, valid],
        common[large][:, ~valid].sum(axis=1),
    )


def _class_precision(tables: Sequence[_Overlaps], label: int) -> Array:
    """AP of one class at each of `OVERLAPS`, (10,)."""
    examples: list[list[tuple[Array, Array, int]]] = [[] for _ in OVERLAPS]
    any_truth = any_prediction = False
    for table in tables:
        truths, predictions = table.truth_labels == label, table.labels == label
        large = table.truth_sizes[truths] >= MIN_REGION
        any_truth |= bool(large.any())
        any_prediction |= bool(predictions.any())
        if not truths.any() and not predictions.any():
            continue
        common, sizes = table.common[predictions][:, truths], table.sizes[predictions]
        iou = common / (sizes[:, None] + table.truth_sizes[truths] - common)
        ignored = (table.void[predictions] + common[:, ~large].sum(axis=1)) / sizes
        for i, overlap in enumerate(OVERLAPS):
            examples[i].append(_match(iou, large, ignored, table.scores[predictions], overlap))
    if not any_truth:
        return np.full(len(OVERLAPS), np.nan)
    if not any_prediction:
        return np.zeros(len(OVERLAPS))
    return np.array(
        [
            _integral(np.concatenate([e[0] for e in at]), np.concatenate([e[1] for e in at]), sum(e[2] for e in at))
            for at in examples
        ]
    )


@njit(cache=True, nogil=True)
def _match(iou: Array, large: Array, ignored: Array, scores: Array, overlap: float) -> tuple[Array, Array, int]:
    """Examples of one class in one scene: which are true (n,), their scores (n,), and how many truths were missed.

    iou (P, G); large (G,) ground truth that counts; ignored (P,) share of the prediction where no truth counts.
    """
    predictions, truths = iou.shape
    true = np.zeros(truths + predictions * (truths + 1), np.bool_)
    score = np.zeros(len(true))
    taken = np.zeros(predictions, np.bool_)
    count, missed = 0, 0
    for g in range(truths):
        if not large[g]:
            continue
        first = -1
        for p in range(predictions):
            if taken[p] or not iou[p, g] > overlap:
                continue
            if first < 0:
                first = count
                true[first], score[first] = True, scores[p]
                taken[p] = True
            else:
                score[count] = min(score[first], scores[p])
                score[first] = max(score[first], scores[p])
            count += 1
        if first < 0:
            missed += 1
    for p in range(predictions):
        unmatched = True
        for g in range(truths):
            if iou[p, g] > overlap:
                unmatched = False
        if unmatched and ignored[p] <= overlap:
            score[count] = scores[p]
            count += 1
    return true[:count], score[:count], missed


def _integral(true: Array, scores: Array, missed: int) -> float:
    """Area under precision over recall; equal scores enter the curve together."""
    if not len(true):
        return 0.0
    order = np.argsort(scores)
    _, first = np.unique(scores[order], return_index=True)
    hits = np.append(0, np.cumsum(true[order]))
    positives = hits[-1] - hits[first]
    precision = np.append(positives / (len(true) - first), 1.0)
    recall = np.append(positives / (hits[-1] + missed), 0.0)
    padded = np.concatenate([recall[:1], recall, [0.0]])
    return float(precision @ (0.5 * (padded[:-2] - padded[2:])))


def nearest_within(points_from: Array, points_to: Array, radius: float) -> Array:
    """Index int64 (M,) of the nearest of `points_from` (N, 3) to each of `points_to` (M, 3), -1 beyond radius (m)."""
    if not len(points_from):
        return np.full(len(points_to), -1, np.int64)
    distance, index = cKDTree(points_from).query(points_to, distance_upper_bound=radius)
    return np.where(np.isfinite(distance), index, -1).astype(np.int64)


def transfer(points_from: Array, points_to: Array, labels: Array, radius: float) -> Array:
    """Labels (N,) of `points_from` carried to `points_to`, (M,): the nearest one's, 0 beyond `radius` (m)."""
    index = nearest_within(points_from, points_to, radius)
    out = np.zeros(len(points_to), labels.dtype)
    out[index >= 0] = labels[index[index >= 0]]
    return out
