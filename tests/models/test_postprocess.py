# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""From predictions to instances against a literal reading of the rules, and the cases that have no points or masks."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from seg3d_core.config import SegDino3DConfig  # noqa: E402
from seg3d_core.models.decoder import DecoderOutput  # noqa: E402
from seg3d_core.models.heads import Prediction  # noqa: E402
from seg3d_core.models.matrix_nms import matrix_nms  # noqa: E402
from seg3d_core.models.postprocess import (  # noqa: E402
    instances,
    mask_quality,
    panoptic,
    semantic_classes,
    top_candidates,
)


def scene(seed: int = 0, queries: int = 12, classes: int = 4, points: int = 400):
    """A random prediction, points in a cube of a metre, and the superpoint of each."""
    draw = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=draw)

    centres, sizes = torch.rand(queries, 3, generator=draw), torch.rand(queries, 3, generator=draw) * 0.4
    prediction = Prediction(2 * normal(queries, classes + 1), 3 * normal(queries, queries), centres, sizes)
    superpoints = torch.randint(0, queries, (points,), generator=draw)
    output = DecoderOutput(prediction, (), normal(queries, classes + 3), torch.arange(queries))
    return prediction, torch.rand(points, 3, generator=draw), superpoints, output


def literal_nms(masks, labels, scores, sigma=None):
    order = sorted(range(len(scores)), key=lambda i: (-float(scores[i]), i))
    n = len(order)
    overlap = torch.zeros(n, n, dtype=torch.float64)
    for a in range(n):
        for b in range(a + 1, n):
            one, two = masks[order[a]].double(), masks[order[b]].double()
            common = float(one @ two)
            union = float(one.sum() + two.sum()) - common
            if labels[order[a]] == labels[order[b]] and union > 0:
                overlap[a, b] = common / union
    new = {}
    for b in range(n):
        factors = []
        for a in range(n):
            cover, decay = float(overlap[:, a].max()), float(overlap[a, b])
            if sigma is not None:
                factors.append(float(torch.tensor(-sigma * (decay**2 - cover**2)).exp()))
            elif cover < 1:
                factors.append((1 - decay) / (1 - cover))
            else:
                factors.append(float(decay < 1))
        new[order[b]] = float(scores[order[b]]) * min(factors)
    return new


@given(seed=st.integers(0, 10_000), count=st.integers(1, 9), sigma=st.sampled_from([None, 0.5, 2.0]))
@settings(max_examples=40, deadline=None)
def test_matrix_nms_is_its_formula(seed, count, sigma) -> None:
    draw = torch.Generator().manual_seed(seed)
    masks = torch.rand(count, 6, generator=draw)
    labels = torch.randint(0, 2, (count,), generator=draw)
    scores = torch.rand(count, generator=draw)
    kernel = "linear" if sigma is None else "gaussian"
    found, rows = matrix_nms(masks, labels, scores, kernel, sigma or 2.0)
    literal = literal_nms(masks, labels, scores, sigma)
    assert sorted(rows.tolist()) == list(range(count))
    assert torch.equal(found, found.sort(descending=True).values)
    for row, score in zip(rows.tolist(), found.tolist(), strict=True):
        assert score == pytest.approx(literal[row], rel=1e-4, abs=1e-6)


def test_of_equal_masks_of_a_class_one_is_left() -> None:
    masks = torch.ones(4, 5)
    found, rows = matrix_nms(masks, torch.tensor([1, 1, 1, 2]), torch.tensor([0.5, 0.9, 0.7, 0.3]))
    assert torch.isfinite(found).all()
    assert dict(zip(rows.tolist(), found.tolist(), strict=True)) == pytest.approx({1: 0.9, 3: 0.3, 0: 0.0, 2: 0.0})


def test_empty_masks_and_no_masks_have_defined_scores() -> None:
    found, _ = matrix_nms(torch.zeros(3, 5), torch.zeros(3), torch.tensor([0.1, 0.2, 0.3]))
    assert found.tolist() == pytest.approx([0.3, 0.2, 0.1])
    found, rows = matrix_nms(torch.zeros(0, 5), torch.zeros(0), torch.zeros(0))
    assert len(found) == len(rows) == 0


@pytest.mark.parametrize(("min_points", "box_filter"), [(0, True), (60, True), (60, False)])
def test_instances_are_the_rules_one_by_one(min_points, box_filter) -> None:
    prediction, xyz, superpoints, _ = scene()
    config = SegDino3DConfig(min_points=min_points, box_filter=box_filter, top_k=30)
    found = instances(prediction, xyz, superpoints, config)
    soft = prediction.mask_logits.sigmoid()
    probability = prediction.class_logits.softmax(dim=1)[:, :-1]
    pairs = [(int(i) // 4, int(i) % 4) for i in probability.flatten().argsort(descending=True)[:30]]
    raw = []
    for query, label in pairs:
        inside = prediction.mask_logits[query] > 0
        raw.append(float(probability[query, label]) * float(soft[query][inside].sum()) / (int(inside.sum()) + 1e-6))
    new = literal_nms(soft[[q for q, _ in pairs]], [label for _, label in pairs], raw)
    expected = {}
    for number, (query, label) in enumerate(pairs):
        mask = soft[query][superpoints] > 0.4
        if new[number] > 0 and int(mask.sum()) > min_points:
            if box_filter:
                half = 2.5 * prediction.sizes[query] / 2
                mask &= ((xyz - prediction.centres[query]).abs() <= half).all(dim=1)
            expected[query, label] = new[number], mask
    masks = found.masks(len(xyz))
    assert len(found) == len(expected) > 0
    for k, key in enumerate(zip(found.queries.tolist(), found.labels.tolist(), strict=True)):
        assert float(found.scores[k]) == pytest.approx(expected[key][0], rel=1e-4)
        assert torch.equal(masks[k], expected[key][1])
        members = found.point_ids[found.indptr[k] : found.indptr[k + 1]]
        assert torch.equal(members, masks[k].nonzero()[:, 0])
    rows = torch.tensor([len(found) - 1, 0])
    assert torch.equal(found.select(rows).masks(len(xyz)), masks[rows])


def test_fewer_pairs_than_asked_for_are_all_taken() -> None:
    """Below 34 superpoints of 18 classes there are less than 600."""
    found = top_candidates(torch.randn(1, 19), 600)
    assert sorted(found.labels.tolist()) == list(range(18))
    assert found.queries.unique().tolist() == [0]
    assert len(top_candidates(torch.randn(33, 19), 600).scores) == 33 * 18


def test_a_query_without_a_mask_has_no_quality_and_goes() -> None:
    prediction, xyz, superpoints, _ = scene()
    logits = prediction.mask_logits.clone()
    logits[3] = -1.0
    assert mask_quality(logits)[3] == 0
    found = instances(Prediction(prediction.class_logits, logits), xyz, superpoints, SegDino3DConfig(min_points=0))
    assert 3 not in found.queries.tolist()
    assert (found.boxes == 0).all()


def test_without_points_or_masks_there_is_nothing_and_no_error() -> None:
    prediction, xyz, superpoints, output = scene()
    config = SegDino3DConfig()
    nothing = instances(prediction, xyz[:0], superpoints[:0], config)
    assert len(nothing) == 0
    assert nothing.masks(0).shape == (0, 0)
    none = instances(prediction, xyz, superpoints, SegDino3DConfig(min_points=10_000))
    assert len(none) == 0
    semantic, numbers = panoptic(output, none, superpoints, config)
    stuff = output.semantic_logits[:, :2].argmax(dim=1)[superpoints]
    assert torch.equal(semantic, stuff)
    assert torch.equal(numbers, stuff)


def test_in_the_panoptic_map_the_better_thing_lies_on_top() -> None:
    prediction, xyz, superpoints, output = scene()
    config = SegDino3DConfig(min_points=5, panoptic_score_threshold=0.1, box_filter=False)
    found = instances(prediction, xyz, superpoints, config)
    semantic, numbers = panoptic(output, found, superpoints, config)
    masks, order = found.masks(len(xyz)), found.scores.argsort(stable=True)
    order = [int(i) for i in order if found.scores[i] > 0.1]
    assert len(order) > 1
    number = torch.zeros(len(xyz), dtype=torch.int64)
    for t, row in enumerate(order):
        number[masks[row]] = t + 2
    stuff = output.semantic_logits[:, :2].argmax(dim=1)[superpoints]
    for point in range(len(xyz)):
        top = int(number[point])
        is_thing = top >= 2 and int((number == top).sum()) > 5
        assert int(numbers[point]) == (top if is_thing else int(stuff[point]))
        label = int(found.labels[order[top - 2]]) + 2 if is_thing else int(stuff[point])
        assert int(semantic[point]) == label


def test_superpoints_that_are_no_query_are_unlabelled() -> None:
    prediction, _, superpoints, output = scene()
    some = torch.tensor([2, 5])
    chosen = Prediction(prediction.class_logits[some], prediction.mask_logits[some])
    classes = semantic_classes(DecoderOutput(chosen, (), output.semantic_logits[some], some), superpoints)
    assert (classes[(superpoints != 2) & (superpoints != 5)] == output.semantic_logits.shape[1] - 1).all()
    assert (classes[superpoints == 5] == output.semantic_logits[5, :-1].argmax()).all()
