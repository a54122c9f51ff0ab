# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Average precision as ScanNet's benchmark computes it, class by class or class-agnostic.

The protocol has its own ideas of thresholds (0.95 is not among them), of the order in which predictions are
tried (the file's), and of the integral (a trapezoid-like rule); they are kept, so that numbers compare.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numba import njit

from ..types import Array
from .scene_counts import AGNOSTIC, LABEL_FACTOR, SceneCounts, SceneEvaluation, count_overlaps
from .transfer import nearest_within, transfer

__all__ = [
    "AGNOSTIC",
    "MIN_REGION",
    "OVERLAPS",
    "ApResult",
    "SceneEvaluation",
    "average_precision",
    "nearest_within",
    "precision_of_counts",
    "transfer",
]

OVERLAPS = np.append(np.arange(0.5, 0.95, 0.05), 0.25)
MIN_REGION = 100


@dataclass(frozen=True, eq=False)
class ApResult:
    """`per_class`: label to AP at each of `OVERLAPS`, (10,), NaN where no scene has ground truth of the class.

    `precision` and `recall`, likewise, stand where 2PR / (P + R + 1e-4) is largest on the curve.
    """

    per_class: dict[int, Array]
    precision: dict[int, Array] = field(default_factory=dict)
    recall: dict[int, Array] = field(default_factory=dict)

    def mean(self, classes: Collection[int] | None = None) -> tuple[float, float, float]:
        """(AP, AP50, AP25), means over the given classes (all by default) that have a value; NaN if none has."""
        return _mean(self.per_class, classes)

    def mean_precision(self, classes: Collection[int] | None = None) -> tuple[float, float, float]:
        """As `mean`, of `precision`."""
        return _mean(self.precision, classes)

    def mean_recall(self, classes: Collection[int] | None = None) -> tuple[float, float, float]:
        """As `mean`, of `recall`."""
        return _mean(self.recall, classes)

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


def _mean(values: Mapping[int, Array], classes: Collection[int] | None) -> tuple[float, float, float]:
    chosen = [v for label, v in values.items() if classes is None or label in classes]
    known = [v for v in chosen if not np.isnan(v).any()]
    if not known:
        return float("nan"), float("nan"), float("nan")
    mean = np.mean(known, axis=0)
    return float(mean[:-1].mean()), float(mean[0]), float(mean[-1])


def average_precision(scenes: Iterable[SceneEvaluation], classes: Collection[int], agnostic: bool = False) -> ApResult:
    """AP pooled over scenes, which are held one at a time. Vertices whose label is not in `classes` are void.

    Class-agnostic: every instance of a label in `classes` is one of class `AGNOSTIC`, and all predictions count
    whatever their label.
    """
    return precision_of_counts([count_overlaps(scene) for scene in scenes], classes, agnostic)


def precision_of_counts(scenes: Iterable[SceneCounts], classes: Collection[int], agnostic: bool = False) -> ApResult:
    """`average_precision` of scenes that are counted already."""
    curves = {label: _Examples() for label in ([AGNOSTIC] if agnostic else classes)}
    for scene in scenes:
        table = _valid_part(scene, classes, agnostic)
        for label in np.union1d(table.truth_labels, table.labels).tolist():
            if label in curves:
                curves[label].add(table, label)
    results = {label: examples.curve() for label, examples in curves.items()}
    return ApResult(*({label: result[i] for label, result in results.items()} for i in range(3)))


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


def _valid_part(scene: SceneCounts, classes: Collection[int], agnostic: bool) -> _Overlaps:
    labels_of_ids = scene.truth_ids // LABEL_FACTOR
    valid = np.isin(labels_of_ids, list(classes)) & (scene.truth_ids > 0)
    large = scene.sizes >= MIN_REGION
    truth_labels, labels = labels_of_ids[valid], scene.labels[large]
    if agnostic:
        truth_labels, labels = np.full_like(truth_labels, AGNOSTIC), np.full_like(labels, AGNOSTIC)
    return _Overlaps(
        truth_labels,
        scene.truth_sizes[valid],
        labels,
        scene.scores[large],
        scene.sizes[large],
        scene.common[large][:, valid],
        scene.common[large][:, ~valid].sum(axis=1),
    )


class _Examples:
    """The examples of one class, pooled over scenes, at each of `OVERLAPS`."""

    def __init__(self) -> None:
        self.at: list[list[tuple[Array, Array, int]]] = [[] for _ in OVERLAPS]
        self.any_truth = self.any_prediction = False

    def add(self, table: _Overlaps, label: int) -> None:
        truths, predictions = table.truth_labels == label, table.labels == label
        large = table.truth_sizes[truths] >= MIN_REGION
        self.any_truth |= bool(large.any())
        self.any_prediction |= bool(predictions.any())
        common, sizes = table.common[predictions][:, truths], table.sizes[predictions]
        iou = common / (sizes[:, None] + table.truth_sizes[truths] - common)
        ignored = (table.void[predictions] + common[:, ~large].sum(axis=1)) / sizes
        for examples, overlap in zip(self.at, OVERLAPS, strict=True):
            examples.append(_match(iou, large, ignored, table.scores[predictions], overlap))

    def curve(self) -> tuple[Array, Array, Array]:
        """AP, best precision and best recall at each of `OVERLAPS`, (10,) each."""
        if not (self.any_truth and self.any_prediction):
            value = np.full(len(OVERLAPS), 0.0 if self.any_truth else np.nan)
            return value, value, value
        points = [
            _integral(np.concatenate([e[0] for e in at]), np.concatenate([e[1] for e in at]), sum(e[2] for e in at))
            for at in self.at
        ]
        ap, precision, recall = np.array(points).T
        return ap, precision, recall


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


def _integral(true: Array, scores: Array, missed: int) -> tuple[float, float, float]:
    """Area under precision over recall, and its best point; equal scores enter the curve together."""
    if not len(true):
        # Every prediction was forgiven: the curve is its last point, precision 1 at recall 0.
        return 0.0, 1.0, 0.0
    order = np.argsort(scores)
    _, first = np.unique(scores[order], return_index=True)
    hits = np.append(0, np.cumsum(true[order]))
    positives = hits[-1] - hits[first]
    precision = np.append(positives / (len(true) - first), 1.0)
    recall = np.append(positives / (hits[-1] + missed), 0.0)
    padded = np.concatenate([recall[:1], recall, [0.0]])
    best = int(np.argmax(2 * precision * recall / (precision + recall + 1e-4)))
    return float(precision @ (0.5 * (padded[:-2] - padded[2:]))), float(precision[best]), float(recall[best])
