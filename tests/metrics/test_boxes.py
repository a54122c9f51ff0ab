# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""AP of boxes against the protocol written down step by step, and its edges."""

from __future__ import annotations

import numpy as np
import pytest

from seg3d_core.metrics.ap import AGNOSTIC, OVERLAPS
from seg3d_core.metrics.boxes import SceneBoxes, box_iou, box_precision, boxes_around, evaluate_boxes

CHAIR, TABLE, FLOOR = 5, 7, 1


def boxes_of(random: np.random.Generator, count: int) -> np.ndarray:
    return np.concatenate([random.uniform(0, 2, (count, 3)), random.uniform(0.3, 1.5, (count, 3))], axis=1)


def scene(seed: int, truths: int = 6, predictions: int = 15) -> SceneBoxes:
    """Predictions beside truths, as often right as wrong."""
    random = np.random.default_rng(seed)
    truth = boxes_of(random, truths)
    near = truth[random.integers(0, truths, predictions)] if truths else boxes_of(random, predictions)
    boxes = near + random.normal(0, 0.15, near.shape)
    scores = random.integers(0, 8, predictions) / 8
    return SceneBoxes(
        truth, random.choice([CHAIR, TABLE], truths), boxes, random.choice([CHAIR, TABLE, 99], predictions), scores
    )


def literal_iou(a: np.ndarray, b: np.ndarray) -> float:
    common = 1.0
    for axis in range(3):
        low = max(a[axis] - a[axis + 3] / 2, b[axis] - b[axis + 3] / 2)
        high = min(a[axis] + a[axis + 3] / 2, b[axis] + b[axis + 3] / 2)
        common *= max(high - low, 0)
    union = max(a[3], 0) * max(a[4], 0) * max(a[5], 0) + max(b[3], 0) * max(b[4], 0) * max(b[5], 0) - common
    return common / union if union > 0 else 0.0


def literal_ap(scenes: list[SceneBoxes], label: int, threshold: float) -> float:
    """PASCAL VOC's, since 2010, prediction by prediction."""
    truths = [s.truth[s.truth_labels == label] for s in scenes]
    ranked = [
        (-score, number, place)
        for number, s in enumerate(scenes)
        for place, score in enumerate(s.scores)
        if s.labels[place] == label
    ]
    # The evaluator sorts inside of scenes first, then all, each time stably: the same order.
    taken, hits = set(), []
    for _, number, place in sorted(ranked, key=lambda row: row[0]):
        overlaps = [literal_iou(scenes[number].boxes[place], truth) for truth in truths[number]]
        best = int(np.argmax(overlaps)) if overlaps else -1
        is_hit = best >= 0 and overlaps[best] > threshold and (number, best) not in taken
        hits.append(is_hit)
        if is_hit:
            taken.add((number, best))
    count = sum(len(each) for each in truths)
    points = [(sum(hits[: i + 1]) / count, sum(hits[: i + 1]) / (i + 1)) for i in range(len(hits))]
    area, reached = 0.0, 0.0
    for i, (recall, _) in enumerate(points):
        area += (recall - reached) * max(precision for _, precision in points[i:])
        reached = recall
    return area


@pytest.mark.parametrize("seed", range(8))
def test_it_is_the_protocol_written_down(seed: int) -> None:
    scenes = [scene(10 * seed + i) for i in range(3)]
    found = box_precision(scenes, [CHAIR, TABLE])
    for label in (CHAIR, TABLE):
        expected = [literal_ap(scenes, label, threshold) for threshold in OVERLAPS]
        np.testing.assert_allclose(found.per_class[label], expected, atol=1e-12)


def test_overlaps_are_those_of_the_literal_rule() -> None:
    random = np.random.default_rng(0)
    first, second = boxes_of(random, 5), boxes_of(random, 7)
    first[0, 4] = 0
    second[1, 3] = -0.2
    expected = [[literal_iou(a, b) for b in second] for a in first]
    np.testing.assert_allclose(box_iou(first, second), expected, atol=1e-12)
    assert not box_iou(first[:1], first[:1]).any(), "a box of no size is not even itself"


def test_what_repeats_a_box_is_false_and_what_is_missed_costs_recall() -> None:
    box = np.array([[0, 0, 0, 1, 1, 1.0], [5, 0, 0, 1, 1, 1]])
    labels = np.array([CHAIR, CHAIR])
    twice = SceneBoxes(box, labels, box[[0, 0]], labels, np.array([0.9, 0.8]))
    assert box_precision([twice], [CHAIR]).mean() == (0.5, 0.5, 0.5)
    right_last = SceneBoxes(box[:1], labels[:1], box[[1, 0]], labels, np.array([0.9, 0.8]))
    assert box_precision([right_last], [CHAIR]).mean() == (0.5, 0.5, 0.5)


def test_without_truth_there_is_no_number_and_without_predictions_it_is_zero() -> None:
    nothing = SceneBoxes(np.zeros((0, 6)), np.zeros(0, int), np.zeros((0, 6)), np.zeros(0, int), np.zeros(0))
    found = scene(1)
    only_truth = SceneBoxes(found.truth, found.truth_labels, nothing.boxes, nothing.labels, nothing.scores)
    only_found = SceneBoxes(nothing.truth, nothing.truth_labels, found.boxes, found.labels, found.scores)
    assert np.isnan(box_precision([nothing], [CHAIR]).mean()).all()
    assert np.isnan(box_precision([only_found], [CHAIR]).mean()).all()
    assert box_precision([only_truth], [CHAIR]).mean() == (0, 0, 0)
    assert np.isnan(box_precision([], [CHAIR]).mean()).all()


def test_class_agnostic_boxes_may_have_any_label_but_truths_are_of_the_list() -> None:
    box = np.array([[0, 0, 0, 1, 1, 1.0], [5, 0, 0, 9, 9, 0.1]])
    found = SceneBoxes(box, np.array([CHAIR, FLOOR]), box[:1], np.array([TABLE]), np.ones(1))
    assert box_precision([found], [CHAIR, TABLE]).mean()[0] == 0
    agnostic = box_precision([found], [CHAIR, TABLE], agnostic=True)
    assert agnostic.mean() == (1, 1, 1) and list(agnostic.per_class) == [AGNOSTIC]


def test_boxes_lie_around_the_points_of_masks() -> None:
    xyz = np.array([[0, 0, 0], [1, 2, 3], [-1, 0, 1]], np.float32)
    found = boxes_around(xyz, np.array([0, 2, 2, 3]), np.array([0, 1, 2]))
    np.testing.assert_allclose(found, [[0.5, 1, 1.5, 1, 2, 3], [0] * 6, [-1, 0, 1, 0, 0, 0]])
    assert boxes_around(xyz, np.zeros(1, int), np.zeros(0, int)).shape == (0, 6)


def test_results_say_what_they_are() -> None:
    by_class, agnostic = evaluate_boxes([("a", scene(1)), ("b", scene(2))], "scannet200")
    assert by_class.protocol == "boxes-scannet200" and agnostic.protocol == "boxes-agnostic-scannet200"
    assert by_class.name.startswith("AP of boxes, as regressed, class by class, 198 ScanNet200 classes")
    assert by_class.scenes == 2 and set(by_class.per_scene) == {"a", "b"} and set(by_class.groups) == {
        "head", "common", "tail",
    }  # fmt: skip
    assert by_class.predictions + by_class.unlisted == agnostic.predictions == 30
    assert len(by_class.per_class) == 2
    assert 0 < by_class.ap < by_class.ap25 <= 1
