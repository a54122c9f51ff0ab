# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""The decoder against its dense twin, at its edges, and with each ablation; what its parts promise."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from decoder import room  # noqa: E402
from dense_decoder import DenseDecoder  # noqa: E402

from seg3d_core.errors import WeightsError  # noqa: E402
from seg3d_core.models.architecture import PUBLISHED, Architecture  # noqa: E402
from seg3d_core.models.attention import attend  # noqa: E402
from seg3d_core.models.boxes import Boxes, BoxModulation, BoxUpdate, initial_boxes  # noqa: E402
from seg3d_core.models.decoder import Decoder, draw_queries  # noqa: E402
from seg3d_core.models.heads import attention_mask  # noqa: E402
from seg3d_core.models.positional import SinePositionalEncoding  # noqa: E402
from seg3d_core.models.reachability import Reachability  # noqa: E402

BASE = dataclasses.replace(
    PUBLISHED["scannet200"], thing_classes=5, semantic_classes=7, layers=2, feed_forward_width=64
)


def make(architecture: Architecture = BASE) -> Decoder:
    torch.manual_seed(0)
    decoder = Decoder(architecture).eval()
    for name, parameter in decoder.named_parameters():
        if parameter.dim() > 1:
            # Boxes that jump about shrink to nothing, and then every rounding error is blown up.
            torch.nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5 * (0.1 if "box_update" in name else 1))
    return decoder


@pytest.mark.parametrize("sizes", ["normalised", "metric"])
def test_the_dense_twin_says_the_same(sizes) -> None:
    decoder = make(dataclasses.replace(BASE, sizes=sizes))
    scene = room(150, 60)
    with torch.no_grad():
        final = decoder(scene).final
    ours = (final.class_logits, final.mask_logits, final.centres, final.sizes)
    for mine, theirs in zip(ours, DenseDecoder(decoder)(scene), strict=True):
        assert torch.allclose(mine, theirs, rtol=1e-4, atol=1e-4 * float(theirs.abs().max()))


def test_auxiliary_predictions_change_nothing_and_gradients_reach_every_parameter() -> None:
    decoder, scene = make(), room(40, 12)
    with torch.no_grad():
        alone = decoder(scene)
    output = decoder(scene, auxiliary=True)
    assert alone.auxiliary == ()
    assert len(output.auxiliary) == BASE.layers
    assert output.auxiliary[0].centres is None
    assert torch.allclose(alone.final.mask_logits, output.final.mask_logits, atol=1e-5)
    heads = (*output.auxiliary, output.final)
    parts = [x for head in heads for x in (head.class_logits, head.mask_logits, head.centres, head.sizes)]
    (sum((x**2).sum() for x in parts if x is not None) + (output.semantic_logits**2).sum()).backward()
    assert [name for name, p in decoder.named_parameters() if p.grad is None] == []


def test_chosen_queries_are_rows_of_their_superpoints() -> None:
    decoder, scene = make(), room(30, 8)
    ids = torch.tensor([7, 3, 21])
    output = decoder(scene, ids, auxiliary=True)
    everyone = decoder(scene, auxiliary=True)
    assert torch.equal(output.query_ids, ids)
    assert output.final.mask_logits.shape == (3, 30)
    assert torch.allclose(output.auxiliary[0].class_logits, everyone.auxiliary[0].class_logits[ids], atol=1e-5)


def test_the_most_certain_superpoints_come_first() -> None:
    decoder, scene = make(), room(30, 8)
    first = decoder(scene, auxiliary=True).auxiliary[0].class_logits.softmax(dim=1)[:, :-1].amax(dim=1)
    chosen = decoder.most_certain(scene, 4)
    assert torch.equal(chosen, first.topk(4).indices)
    assert len(decoder.most_certain(scene, 100)) == 30


@given(count=st.integers(0, 60), share=st.floats(0, 1))
@settings(max_examples=40, deadline=None)
def test_training_draws_distinct_queries(count, share) -> None:
    ids = draw_queries(count, share, torch.Generator().manual_seed(count))
    assert len(ids.unique()) == len(ids)
    assert min(count, 1, int(share * count)) <= len(ids) <= count
    assert count == 0 or (len(ids) >= 1 and int(ids.max()) < count)


ABLATIONS = {
    "no image features": {"image_features": False},
    "no object queries": {"object_queries": False},
    "no modulation": {"box_modulation": False},
    "no box regression": {"box_modulation": False, "box_regression": False},
    "no centre encoding": {"box_modulation": False, "box_regression": False, "centre_encoding": False},
    "no distance mask": {"distance_mask": False},
}


@pytest.mark.parametrize("name", ABLATIONS)
def test_each_ablation_runs_and_is_another_network(name) -> None:
    decoder, scene = make(dataclasses.replace(BASE, **ABLATIONS[name])), room(30, 8)
    with torch.no_grad():
        final = decoder(scene).final
        full = make()(scene).final
    assert torch.isfinite(final.class_logits).all()
    assert (final.centres is None) == (name == "no centre encoding")
    if name == "no box regression":
        assert torch.allclose(final.sizes, torch.full_like(final.sizes, 0.5))
    if name != "no image features":
        assert not torch.allclose(final.class_logits, full.class_logits)


@pytest.mark.parametrize(
    "wrong",
    [
        {"box_regression": False},
        {"centre_encoding": False, "box_modulation": False},
        {"late_image_features": True},
        {"heads": 7},
        {"sizes": "inches"},
    ],
)
def test_switches_that_contradict_each_other_are_refused(wrong) -> None:
    with pytest.raises(WeightsError):
        dataclasses.replace(BASE, **wrong)


@pytest.mark.parametrize("superpoints", [1, 2, 33])
@pytest.mark.parametrize("queries_2d", [0, 1])
@pytest.mark.parametrize("distance_mask", [True, False])
def test_small_scenes_have_finite_results(superpoints, queries_2d, distance_mask) -> None:
    decoder = make(dataclasses.replace(BASE, distance_mask=distance_mask))
    with torch.no_grad():
        output = decoder(room(superpoints, queries_2d))
    final = output.final
    assert final.mask_logits.shape == (superpoints, superpoints)
    for values in (final.class_logits, final.mask_logits, final.centres, final.sizes, output.semantic_logits):
        assert torch.isfinite(values).all()


def test_a_flat_scene_has_a_finite_encoding() -> None:
    scene = room(20, 4)
    flat = dataclasses.replace(scene, positions=scene.positions * torch.tensor([1.0, 1.0, 0.0]))
    flat = dataclasses.replace(flat, high=scene.high * torch.tensor([1.0, 1.0, 0.0]))
    with torch.no_grad():
        assert torch.isfinite(make()(flat).final.class_logits).all()
    one = dataclasses.replace(room(1, 0), high=torch.zeros(3))
    with torch.no_grad():
        assert torch.isfinite(make()(one).final.sizes).all()


def test_a_metric_size_of_zero_gives_no_nan() -> None:
    modulation = BoxModulation(16)(torch.randn(3, 16), torch.tensor([[0.0, 1, 1], [0, 0, 0], [-1, 2, 3]]))
    assert torch.isfinite(modulation).all()


def test_boxes_start_at_half_a_metre_and_an_untrained_update_moves_nothing() -> None:
    low, high = torch.tensor([0.0, 0, 0]), torch.tensor([2.0, 4.0, 1.0])
    boxes = initial_boxes(torch.rand(5, 3), low, high, "normalised")
    assert torch.allclose(boxes.sizes[0], torch.tensor([0.25, 0.125, 0.5]))
    moved = BoxUpdate(16, "normalised", True)(torch.randn(5, 16), boxes)
    assert torch.allclose(moved.centres, boxes.centres)
    assert torch.allclose(moved.sizes, boxes.sizes, atol=1e-6)
    assert isinstance(moved, Boxes)


@given(rows=st.integers(1, 12), columns=st.integers(1, 40), queries=st.integers(0, 9), seed=st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_reachability_is_the_dense_product(rows, columns, queries, seed) -> None:
    draw = torch.Generator().manual_seed(seed)
    superpoints, queries_2d = torch.rand(columns, 3, generator=draw), torch.rand(queries, 3, generator=draw)
    allowed = torch.rand(rows, columns, generator=draw) > 0.7
    near = (superpoints[:, None] - queries_2d[None]).abs().sum(dim=2) < 0.4
    dense = (allowed.double() @ near.double()) > 0
    found = Reachability(superpoints, queries_2d, 0.4).visible(allowed)
    assert found.shape == (rows, queries + 1)
    assert found[:, -1].all()
    assert torch.equal(found[:, :-1], dense)


def test_an_empty_mask_looks_everywhere_and_half_is_inside() -> None:
    logits = torch.tensor([[-1.0, -2.0, -3.0], [1.0, -1.0, 0.0], [-1.0, -1e-8, -1e-3]])
    assert attention_mask(logits).tolist() == [[True] * 3, [True, False, True], [False, True, False]]


@pytest.mark.parametrize("value_width", [16, 8])
def test_attention_is_its_formula_beyond_one_block_of_keys(value_width) -> None:
    """More keys than one block of a fused kernel, and masks whose first blocks are empty."""
    draw = torch.Generator().manual_seed(1)
    query, key = torch.randn(20, 32, generator=draw), torch.randn(1500, 32, generator=draw)
    value = torch.randn(1500, 2 * value_width, generator=draw)
    allowed = torch.zeros(20, 1500, dtype=torch.bool)
    allowed[torch.arange(20), torch.arange(20) * 74 + 20] = True
    allowed[10:, 1400:] = True
    found = attend(query, key, value, 2, allowed)
    for head in range(2):
        columns = slice(16 * head, 16 * head + 16)
        logits = query[:, columns] @ key[:, columns].T / 4
        weights = logits.masked_fill(~allowed, float("-inf")).softmax(dim=1)
        part = slice(value_width * head, value_width * (head + 1))
        assert torch.allclose(found[:, part], weights @ value[:, part], atol=1e-5)


def test_encoding_widths_add_up() -> None:
    for width in (64, 96, 192, 256):
        channels = SinePositionalEncoding(width).channels
        assert sum(channels) == width
        assert all(count % 2 == 0 for count in channels)
