# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""The two matchers: what they pair, and where they must agree."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from seg3d_core.models.heads import Prediction  # noqa: E402
from training.config import MatcherConfig  # noqa: E402
from training.dataset import Targets  # noqa: E402
from training.matcher import UNREACHABLE, costs, match, match_cheapest, match_hungarian  # noqa: E402


def pairs_of(found) -> set[tuple[int, int]]:
    return set(zip(found.queries.tolist(), found.instances.tolist(), strict=True))


def problem(seed: int, queries: int, instances: int, disjoint: bool = True):
    """Costs where each query lies in at most one instance, or in about half of them."""
    draw = torch.Generator().manual_seed(seed)
    cost = torch.rand(queries, instances, generator=draw) * 10 - 3
    if disjoint:
        owner = torch.randint(-1, instances, (queries,), generator=draw)
        outside = owner[:, None] != torch.arange(instances)
    else:
        outside = torch.rand(queries, instances, generator=draw) < 0.5
    return cost.masked_fill(outside, UNREACHABLE)


@given(st.integers(0, 10_000), st.integers(2, 30), st.integers(1, 8))
@settings(max_examples=60, deadline=None)
def test_where_instances_do_not_overlap_all_rules_agree(seed, queries, instances) -> None:
    cost = problem(seed, queries, instances)
    cheapest = pairs_of(match_cheapest(cost))
    assert cheapest == pairs_of(match_hungarian(cost)) == pairs_of(match_cheapest(cost, release_ties=True))
    reached = (cost < UNREACHABLE).any(dim=0).nonzero()[:, 0].tolist()
    assert sorted(k for _, k in cheapest) == reached


@given(st.integers(0, 10_000), st.integers(2, 5), st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_the_assignment_is_the_cheapest_of_all(seed, queries, instances) -> None:
    cost = problem(seed, queries, instances, disjoint=False)
    found = pairs_of(match_hungarian(cost))
    assert len({q for q, _ in found}) == len({k for _, k in found}) == len(found)

    def price(assignment: tuple[tuple[int, int], ...]) -> float:
        return sum(float(cost[q, k]) for q, k in assignment)

    shorter, longer = (range(queries), range(instances)) if queries < instances else (range(instances), range(queries))
    tried = [tuple(zip(shorter, chosen, strict=True)) for chosen in itertools.permutations(longer, len(shorter))]
    if queries >= instances:
        tried = [tuple((q, k) for k, q in pairs) for pairs in tried]
    best = min(tried, key=price)
    reachable = {(q, k) for q, k in best if cost[q, k] < UNREACHABLE}
    assert len(found) == len(reachable)
    assert price(tuple(found)) == pytest.approx(price(tuple(reachable)), rel=1e-5, abs=1e-5)


def test_pairs_come_in_the_order_of_the_queries() -> None:
    cost = torch.tensor([[5.0, 1.0], [2.0, UNREACHABLE], [UNREACHABLE, 3.0]])
    found = match_cheapest(cost)
    assert found.queries.tolist() == [0, 1] and found.instances.tolist() == [1, 0]


def test_one_query_is_enough_save_for_the_published_rule() -> None:
    cost = torch.tensor([[1.0, UNREACHABLE]])
    assert pairs_of(match_cheapest(cost)) == {(0, 0)}
    with pytest.raises(ValueError, match="two queries"):
        match_cheapest(cost, release_ties=True)


def random_scene(queries: int = 9, superpoints: int = 14, things: int = 3, classes: int = 5):
    draw = torch.Generator().manual_seed(3)
    owner = torch.randint(-1, things, (superpoints,), generator=draw)
    masks = owner == torch.arange(things)[:, None]
    boxes = torch.rand(2, things, 3, generator=draw)
    none = torch.zeros(0, dtype=torch.int64)
    labels = torch.randint(0, classes, (things,), generator=draw)
    targets = Targets(labels, masks, none, *boxes, none, none)
    prediction = Prediction(
        torch.randn(queries, classes + 1, generator=draw),
        4 * torch.randn(queries, superpoints, generator=draw),
        torch.rand(queries, 3, generator=draw),
        torch.rand(queries, 3, generator=draw),
    )
    return prediction, targets, torch.randperm(superpoints, generator=draw)[:queries]


def literal_cost(prediction, targets, query_ids, weights: MatcherConfig, m: int, k: int) -> float:
    """One entry, written out."""
    if not targets.instance_masks[k, query_ids[m]]:
        return UNREACHABLE
    p, t = prediction.mask_logits[m].sigmoid(), targets.instance_masks[k].float()
    bce = -(t * p.log() + (1 - t) * (1 - p).log()).mean()
    dice = 1 - (2 * (p * t).sum() + 1) / (p.sum() + t.sum() + 1)
    centre = (prediction.centres[m] - targets.centres[k]).abs().sum()
    size = (prediction.sizes[m] - targets.sizes[k]).abs().sum()
    probability = prediction.class_logits[m].softmax(dim=0)[targets.labels[k]]
    parts = ((-probability, "classes"), (bce, "mask_bce"), (dice, "mask_dice"), (centre, "centre"), (size, "size"))
    return float(sum(getattr(weights, name) * value for value, name in parts))


def test_every_cost_is_the_sum_of_its_weighted_parts() -> None:
    weights = MatcherConfig(classes=0.3, mask_bce=0.7, mask_dice=1.1, centre=0.4, size=0.9)
    scene = random_scene()
    found = costs(*scene, weights)
    for m, k in itertools.product(*map(range, found.shape)):
        assert float(found[m, k]) == pytest.approx(literal_cost(*scene, weights, m, k), rel=1e-4)


def test_a_network_without_sizes_is_not_matched_by_them() -> None:
    prediction, targets, query_ids = random_scene()
    found = costs(prediction, targets, query_ids, MatcherConfig(), with_sizes=False)
    assert torch.equal(found, costs(prediction, targets, query_ids, MatcherConfig(size=0.0)))


def test_a_scene_without_things_has_no_pairs() -> None:
    prediction, targets, query_ids = random_scene(things=3)
    empty = Targets(targets.labels[:0], targets.instance_masks[:0], targets.semantic, targets.centres[:0],
                    targets.sizes[:0], targets.instance_of_point, targets.semantic_of_point)  # fmt: skip
    assert len(match(prediction, empty, query_ids, MatcherConfig())) == 0


def test_the_kind_of_matcher_is_a_setting() -> None:
    prediction, targets, query_ids = random_scene()
    both = [pairs_of(match(prediction, targets, query_ids, MatcherConfig(kind=k))) for k in ("sparse", "hungarian")]
    assert both[0] == both[1] != set()
