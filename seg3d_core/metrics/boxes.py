# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Average precision of axis-aligned boxes, as detectors on ScanNet are compared (VoteNet, ICCV 2019, after PASCAL VOC).

Best predictions first, each looks at the box of its class that it overlaps most: it is true where the overlap is larger
than the threshold and no better prediction has had that box. The area lies under the largest precision at that recall
or beyond.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..types import Array
from .ap import AGNOSTIC, OVERLAPS, ApResult
from .classes import class_lists
from .protocols import Result, by_class


@dataclass(frozen=True, eq=False)
class SceneBoxes:
    """Boxes of one scene as centre and size in metres: truth (G, 6) with labels (G,), and predictions (P, 6) with
    labels and scores (P,). A box of no size overlaps nothing."""

    truth: Array
    truth_labels: Array
    boxes: Array
    labels: Array
    scores: Array


def boxes_around(xyz: Array, indptr: Array, members: Array) -> Array:
    """(P, 6) centre and size of the points (N, 3) `members[indptr[p]:indptr[p + 1]]` of each; zeros of none."""
    out = np.zeros((len(indptr) - 1, 6))
    filled = np.diff(indptr) > 0
    if filled.any():
        begins, points = indptr[:-1][filled], xyz[members].astype(np.float64)
        low, high = np.minimum.reduceat(points, begins), np.maximum.reduceat(points, begins)
        out[filled] = np.concatenate([(low + high) / 2, high - low], axis=1)
    return out


def box_iou(first: Array, second: Array) -> Array:
    """Intersection over union (n, m) of boxes (n, 6) and (m, 6)."""
    corners = [(each[:, :3] - each[:, 3:] / 2, each[:, :3] + each[:, 3:] / 2) for each in (first, second)]
    low = np.maximum(corners[0][0][:, None], corners[1][0][None])
    high = np.minimum(corners[0][1][:, None], corners[1][1][None])
    common = np.clip(high - low, 0, None).prod(axis=2)
    volumes = [np.clip(each[:, 3:], 0, None).prod(axis=1) for each in (first, second)]
    union = volumes[0][:, None] + volumes[1][None] - common
    return np.divide(common, union, out=np.zeros_like(common), where=union > 0)


def box_precision(scenes: Iterable[SceneBoxes], classes: Collection[int], agnostic: bool = False) -> ApResult:
    """AP at each of `OVERLAPS`, pooled over scenes. Class-agnostic: all boxes are of class `AGNOSTIC`."""
    examples: dict[int, list[tuple[Array, Array, int]]] = {label: [] for label in ([AGNOSTIC] if agnostic else classes)}
    for scene in scenes:
        is_true = np.isin(scene.truth_labels, list(classes))
        truth, truth_labels = scene.truth[is_true], scene.truth_labels[is_true]
        labels = scene.labels
        if agnostic:
            truth_labels, labels = np.full_like(truth_labels, AGNOSTIC), np.full_like(labels, AGNOSTIC)
        for label in np.union1d(truth_labels, labels).tolist():
            if label in examples:
                order = np.flatnonzero(labels == label)
                order = order[np.argsort(-scene.scores[order], kind="stable")]
                mine = truth[truth_labels == label]
                examples[label].append((_hits(box_iou(scene.boxes[order], mine)), scene.scores[order], len(mine)))
    return ApResult({label: _area(found) for label, found in examples.items()})


Kind = Literal["boxes", "mask-boxes"]
_TITLES: dict[Kind, str] = {"boxes": "AP of boxes, as regressed", "mask-boxes": "AP of boxes around masks"}


def evaluate_boxes(scenes: Sequence[tuple[str, SceneBoxes]], classes: str, kind: Kind = "boxes") -> list[Result]:
    """By class, then class-agnostic; `classes`: a key of `class_lists()`. Boxes that are alike all take part."""
    chosen, boxes = class_lists()[classes], [scene for _, scene in scenes]
    out = []
    for agnostic in (False, True):
        pooled = box_precision(boxes, chosen.ids, agnostic)
        listed = sum(int((agnostic | np.isin(scene.labels, chosen.ids)).sum()) for scene in boxes)
        how = "class-agnostic, valid:" if agnostic else "class by class,"
        ap, ap50, ap25 = pooled.mean()
        out.append(
            Result(
                protocol=f"{kind}-{'agnostic-' if agnostic else ''}{classes}",
                name=f"{_TITLES[kind]}, {how} {chosen.title}, pooled over scenes",
                duplicates=True,
                ap=ap,
                ap50=ap50,
                ap25=ap25,
                scenes=len(boxes),
                predictions=listed,
                repeated=0,
                unlisted=sum(len(scene.labels) for scene in boxes) - listed,
                small=0,
                groups={} if agnostic else {name: pooled.mean(ids) for name, ids in chosen.groups.items()},
                per_class={} if agnostic else by_class(pooled, chosen),
                per_scene={name: box_precision([scene], chosen.ids, agnostic).mean() for name, scene in scenes},
            )
        )
    return out


def _hits(iou: Array) -> Array:
    """Of predictions, best first, with truths (P, G): which are true at each of `OVERLAPS`, bool (P, T)."""
    out = np.zeros((len(iou), len(OVERLAPS)), bool)
    if not iou.size:
        return out
    best, overlap = iou.argmax(axis=1), iou.max(axis=1)
    for column, threshold in enumerate(OVERLAPS):
        near = np.flatnonzero(overlap > threshold)
        # The first to claim a truth is the best one.
        out[near[np.unique(best[near], return_index=True)[1]], column] = True
    return out


def _area(examples: Sequence[tuple[Array, Array, int]]) -> Array:
    """(T,): NaN without a truth."""
    truths = sum(count for _, _, count in examples)
    if not truths:
        return np.full(len(OVERLAPS), np.nan)
    order = np.argsort(-np.concatenate([scores for _, scores, _ in examples]), kind="stable")
    hits = np.concatenate([hit for hit, _, _ in examples])[order].cumsum(axis=0)
    precision = hits / np.arange(1, len(hits) + 1)[:, None]
    # From behind: the largest precision at this recall or beyond.
    envelope = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
    return (envelope * np.diff(hits / truths, axis=0, prepend=0)).sum(axis=0)
