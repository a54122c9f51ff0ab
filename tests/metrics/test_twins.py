# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Slow, literal twins of what the evaluator does fast: written from the protocol's text, with sets and loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seg3d_core.metrics.ap import MIN_REGION, OVERLAPS, SceneEvaluation, average_precision
from seg3d_core.metrics.partition_vote import voted
from seg3d_core.metrics.scene_counts import count_overlaps, duplicates, members_of_masks
from seg3d_core.metrics.transfer import transfer_members

CLASSES = [3, 5]


def random_scene(seed: int) -> SceneEvaluation:
    """Blocks of vertices with moved, cut and repeated predictions, sizes about the limit of 100, few scores."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(60, 300, 6)
    ids = rng.choice([0, 7, 1001, 3000, 3001, 3002, 5001, 5002], 6, replace=False)
    truth = np.repeat(ids, sizes)
    masks = np.zeros((rng.integers(0, 9), len(truth)), bool)
    for k in range(len(masks)):
        if k and rng.random() < 0.25:
            masks[k] = masks[rng.integers(0, k)]
            continue
        centre, length = rng.integers(0, len(truth)), rng.integers(50, 350)
        masks[k, max(centre - length // 2, 0) : centre + length // 2] = True
        masks[k] &= rng.random(len(truth)) < rng.choice([1.0, 0.9, 0.6])
    return SceneEvaluation.from_masks(
        truth, masks, rng.choice([1, 3, 5], len(masks)), rng.integers(0, 4, len(masks)) / 4
    )


def sets_of(scene: SceneEvaluation) -> list[set[int]]:
    return [set(scene.members[a:b].tolist()) for a, b in zip(scene.indptr[:-1], scene.indptr[1:], strict=True)]


def slow_examples(scene: SceneEvaluation, label: int, overlap: float) -> tuple[list[tuple[bool, float]], int]:
    """(is true, score) of one class in one scene, and the hard misses."""
    instances = {i: set(np.flatnonzero(scene.truth == i).tolist()) for i in np.unique(scene.truth).tolist()}
    void = set().union(*(v for i, v in instances.items() if i // 1000 not in CLASSES))
    truths = [v for i, v in sorted(instances.items()) if i // 1000 == label]
    found = [
        (vertices, float(score))
        for vertices, own, score in zip(sets_of(scene), scene.labels.tolist(), scene.scores, strict=True)
        if own == label and len(vertices) >= MIN_REGION
    ]
    iou = [[len(p & g) / len(p | g) for g in truths] for p, _ in found]
    examples, missed, taken = [], 0, set()
    for g, vertices in enumerate(truths):
        if len(vertices) < MIN_REGION:
            continue
        best = None
        for p, (_, score) in enumerate(found):
            if p in taken or not iou[p][g] > overlap:
                continue
            if best is None:
                best = score
                taken.add(p)
            else:
                examples.append((False, min(best, score)))
                best = max(best, score)
        if best is None:
            missed += 1
        else:
            examples.append((True, best))
    small = set().union(*(v for v in truths if len(v) < MIN_REGION))
    for p, (vertices, score) in enumerate(found):
        if not any(value > overlap for value in iou[p]) and len(vertices & (void | small)) / len(vertices) <= overlap:
            examples.append((False, score))
    return examples, missed


def slow_ap(scenes: list[SceneEvaluation], label: int, overlap: float) -> float:
    sizes = [int((s.truth == i).sum()) for s in scenes for i in np.unique(s.truth) if i // 1000 == label]
    if not any(size >= MIN_REGION for size in sizes):
        return float("nan")
    parts = [slow_examples(scene, label, overlap) for scene in scenes]
    examples, missed = [e for part, _ in parts for e in part], sum(m for _, m in parts)
    total = sum(is_true for is_true, _ in examples)
    precision, recall = [], []
    for score in sorted({score for _, score in examples}):
        above = [is_true for is_true, s in examples if s >= score]
        precision.append(sum(above) / len(above))
        recall.append(sum(above) / (total + missed))
    precision.append(1.0)
    recall.append(0.0)
    padded = [recall[0], *recall, 0.0]
    return sum(p * 0.5 * (padded[i] - padded[i + 2]) for i, p in enumerate(precision))


@pytest.mark.parametrize("seed", range(25))
def test_average_precision(seed: int) -> None:
    scenes = [random_scene(3 * seed + k) for k in range(3)]
    result = average_precision(iter(scenes), CLASSES)
    for label in CLASSES:
        slow = [slow_ap(scenes, label, overlap) for overlap in OVERLAPS]
        np.testing.assert_allclose(result.per_class[label], slow, rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", range(10))
def test_counts_and_duplicates(seed: int) -> None:
    scene = random_scene(seed)
    counts, sets = count_overlaps(scene), sets_of(scene)
    for g, i in enumerate(counts.truth_ids.tolist()):
        vertices = set(np.flatnonzero(scene.truth == i).tolist())
        assert counts.truth_sizes[g] == len(vertices)
        assert counts.common[:, g].tolist() == [len(p & vertices) for p in sets]
    repeats = duplicates(counts, scene.labels)
    key = [(frozenset(p), int(label)) for p, label in zip(sets, scene.labels, strict=True)]
    for k in range(len(sets)):
        better = [j for j in range(len(sets)) if key[j] == key[k] and (scene.scores[j], -j) > (scene.scores[k], -k)]
        assert repeats[k] == bool(better)


@pytest.mark.parametrize("ids", [[-5, 2], [5_000_000, 7, 2**40]], ids=["negative", "large"])
def test_ids_of_any_size_are_counted(ids: list[int]) -> None:
    truth = np.repeat(ids, 3)
    counts = count_overlaps(SceneEvaluation.from_masks(truth, np.ones((1, len(truth)), bool), np.ones(1), np.ones(1)))
    assert counts.truth_ids.tolist() == sorted(ids) and counts.common.tolist() == [[3] * len(ids)]


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("as_released", [False, True])
def test_vote(seed: int, as_released: bool) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.choice([0, 12, 3001, 3002, 5001], 400)
    partition = rng.integers(0, 6, 400)
    scene = SceneEvaluation.from_partition(truth, partition, np.ones(6))
    wanted = []
    for segment in range(0 if as_released else 1, 7):
        inside = truth[partition == segment].tolist()
        best = max(sorted(set(inside)), key=inside.count) if inside else 0
        wanted.append(best // 1000)
    got = voted(count_overlaps(scene), as_released=as_released)
    assert got.labels.tolist() == wanted
    assert (got.scores == 1).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_memberships_follow_the_nearest_point(seed: int) -> None:
    rng = np.random.default_rng(seed)
    masks = rng.random((rng.integers(0, 5), 7)) < 0.4
    index = rng.integers(-1, 7, rng.integers(0, 12))
    indptr, members = transfer_members(*members_of_masks(masks), index, 7)
    for k, mask in enumerate(masks):
        wanted = [vertex for vertex, point in enumerate(index.tolist()) if point >= 0 and mask[point]]
        assert members[indptr[k] : indptr[k + 1]].tolist() == wanted


def test_members_of_no_masks_and_of_empty_ones() -> None:
    for masks in (np.zeros((0, 5), bool), np.zeros((2, 0), bool), np.zeros((2, 5), np.uint8)):
        indptr, members = members_of_masks(masks)
        assert indptr.tolist() == [0] * (len(masks) + 1) and not len(members)
