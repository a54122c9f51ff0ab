# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Matcher and criterion against the published numbers: costs, pairs, terms, losses and gradients."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from golden import find  # noqa: E402

from seg3d_core.models.decoder import DecoderOutput  # noqa: E402
from seg3d_core.models.heads import Prediction  # noqa: E402
from training.config import LossConfig, MatcherConfig  # noqa: E402
from training.criterion import Criterion  # noqa: E402
from training.dataset import Targets  # noqa: E402
from training.matcher import costs, match_cheapest  # noqa: E402

TERMS = {"classes": "cls", "mask_bce": "bce", "mask_dice": "dice", "centre": "center", "size": "size"}
CASES = (
    ("e_criterion_scannet200_b2", "s200_b2"),
    ("e_criterion_scannetv2_b2", "v2_b2"),
    ("e_criterion_scannetv2_b4", "v2_b4"),
    ("e_criterion_baseline200_b2", "base_b2"),
    ("e_criterion_edge_match", "unreachable"),
    ("e_criterion_edge_match", "tie"),
)
RELEASE = MatcherConfig(release_ties=True)


def read(name: str) -> dict[str, np.ndarray]:
    path = find(f"{name}.npz")
    if path is None:
        pytest.skip("needs the golden numbers that are too big for the repository (../shared/golden/segdino3d)")
    with np.load(path, allow_pickle=False) as file:
        return {key: file[key] for key in file.files}


def tensor(values: np.ndarray, grad: bool = False):
    return torch.from_numpy(np.array(values)).requires_grad_(grad)


class GoldenCase:
    """The scenes of one case, with leaves for gradients."""

    def __init__(self, golden: dict[str, np.ndarray], tag: str):
        self.golden, self.tag = golden, tag
        self.scenes = len({key for key in golden if key.startswith(f"{tag}_s") and key.endswith("_query_ids")})
        self.heads = len({key for key in golden if key.startswith(f"{tag}_s0_l") and key.endswith("_cls")})
        self.heads -= len({key for key in golden if key.startswith(f"{tag}_s0_l") and key.endswith("_grad_cls")})
        self.leaves: dict[str, torch.Tensor] = {}
        self.outputs = [self._output(scene) for scene in range(self.scenes)]
        self.targets = [self._targets(scene) for scene in range(self.scenes)]

    def _leaf(self, scene: int, name: str):
        key = f"{self.tag}_s{scene}_{name}"
        if key not in self.golden:
            return None
        self.leaves[f"s{scene}_{name}"] = tensor(self.golden[key], grad=True)
        return self.leaves[f"s{scene}_{name}"]

    def _output(self, scene: int) -> DecoderOutput:
        heads = [
            Prediction(*(self._leaf(scene, f"l{h}_{part}") for part in ("cls", "mask", "center", "size")))
            for h in range(self.heads)
        ]
        queries = tensor(self.golden[f"{self.tag}_s{scene}_query_ids"]).long()
        return DecoderOutput(heads[-1], tuple(heads[:-1]), self._leaf(scene, "sem"), queries)

    def _targets(self, scene: int) -> Targets:
        part = {name: self.golden[f"{self.tag}_s{scene}_{name}"] for name in ("labels", "centers", "sizes", "shape")}
        rows, columns = part["shape"]
        bits = np.unpackbits(self.golden[f"{self.tag}_s{scene}_sp_inst_sem_masks_bits"], axis=-1)[:, :columns]
        matrix = tensor(bits.astype(bool))
        assert len(matrix) == rows
        count = len(part["labels"])
        none = torch.zeros(0, dtype=torch.int64)
        semantic = matrix[count:].int().argmax(dim=0)
        boxes = (tensor(part["centers"]), tensor(part["sizes"]))
        return Targets(tensor(part["labels"]).long(), matrix[:count], semantic, *boxes, none, none)


def close(ours, theirs, relative: float = 1e-5) -> None:
    theirs = np.asarray(theirs)
    scale = max(float(np.abs(theirs).max(initial=0)), 1e-6)
    np.testing.assert_allclose(np.asarray(ours.detach()), theirs, rtol=0, atol=relative * scale)


@pytest.mark.parametrize(("name", "tag"), CASES)
def test_pairs_terms_and_gradients_are_the_published_ones(name, tag) -> None:
    golden = read(name)
    case = GoldenCase(golden, tag)
    assert case.scenes >= 1 and case.heads >= 2
    loss = Criterion(LossConfig(), RELEASE)(case.outputs, case.targets)
    assert len(loss.heads) == case.heads
    for h, (terms, pairs) in enumerate(zip(loss.heads, loss.matches, strict=True)):
        for term, theirs in TERMS.items():
            close(terms[term], golden.get(f"{tag}_l{h}_term_{theirs}", 0.0))
        for scene, found in enumerate(pairs):
            wanted = golden[f"{tag}_s{scene}_l{h}_match"]
            assert np.array_equal(torch.stack([found.queries, found.instances]).numpy(), wanted)
    close(loss.semantic, golden[f"{tag}_seg_loss"])
    close(loss.instance, golden[f"{tag}_inst_loss"])
    loss.total.backward()
    for leaf, values in case.leaves.items():
        scene, _, part = leaf.partition("_")
        head, _, what = part.rpartition("_")
        key = "_".join(x for x in (tag, scene, head, "grad", what) if x)
        gradient = torch.zeros_like(values) if values.grad is None else values.grad
        close(gradient, golden[key])


@pytest.mark.parametrize(("name", "tag"), CASES)
def test_costs_and_pairs_of_stored_costs_are_the_published_ones(name, tag) -> None:
    golden = read(name)
    case = GoldenCase(golden, tag)
    compared = 0
    for scene, (output, target) in enumerate(zip(case.outputs, case.targets, strict=True)):
        for h, prediction in enumerate((*output.auxiliary, output.final)):
            stored = tensor(golden[f"{tag}_s{scene}_l{h}_cost"])
            ours = costs(prediction, target, output.query_ids, RELEASE)
            reachable = stored < 1e7
            assert torch.equal(reachable, ours < 1e7)
            close(torch.where(reachable, ours, 0), torch.where(reachable, stored, 0))
            pairs = match_cheapest(stored, release_ties=True)
            wanted = golden[f"{tag}_s{scene}_l{h}_match"]
            assert np.array_equal(torch.stack([pairs.queries, pairs.instances]).numpy(), wanted)
            compared += 1
    assert compared


def test_a_scene_without_instances_takes_no_part_and_nothing_becomes_nan() -> None:
    golden = read("e_criterion_edge_no_gt")
    case = GoldenCase(golden, "no_gt")
    loss = Criterion(LossConfig(), RELEASE)(case.outputs, case.targets)
    for h, terms in enumerate(loss.heads):
        for term, theirs in TERMS.items():
            close(terms[term], golden[f"no_gt_safe_l{h}_term_{theirs}"])
    close(loss.instance, golden["no_gt_safe_inst_loss"])
    close(loss.semantic, golden["no_gt_seg_loss"])
    loss.total.backward()
    assert all(leaf.grad is None or torch.isfinite(leaf.grad).all() for leaf in case.leaves.values())


def test_as_released_a_scene_without_instances_makes_the_loss_nan() -> None:
    golden = read("e_criterion_edge_no_gt")
    case = GoldenCase(golden, "no_gt")
    loss = Criterion(LossConfig(release_empty_means=True), RELEASE)(case.outputs, case.targets)
    assert np.isnan(golden["no_gt_inst_loss"])
    assert torch.isnan(loss.instance)
    close(loss.semantic, golden["no_gt_seg_loss"])


def test_a_batch_without_any_instance_or_label_still_gives_every_prediction_a_gradient() -> None:
    case = GoldenCase(read("e_criterion_edge_no_gt"), "no_gt")
    output, target = case.outputs[1], case.targets[1]
    classes = output.semantic_logits.shape[1] - 1
    nothing = Targets(*(getattr(target, n) for n in ("labels", "instance_masks")), target.semantic * 0 + classes,
                      target.centres, target.sizes, target.instance_of_point, target.semantic_of_point)  # fmt: skip
    loss = Criterion(LossConfig(), MatcherConfig())([output], [nothing])
    assert torch.isfinite(loss.total) and loss.semantic == 0
    loss.total.backward()
    mine = [leaf for name, leaf in case.leaves.items() if name.startswith("s1_")]
    assert all(leaf.grad is not None and torch.isfinite(leaf.grad).all() for leaf in mine)


def test_where_all_queries_of_an_instance_tie_one_of_them_takes_it_unless_as_released() -> None:
    golden = read("e_criterion_edge_match")
    cost = tensor(golden["tie_s0_l0_cost"])
    thing = int(golden["tie_object"])
    tied = cost[:, thing].clone()
    tied[tied < 1e7] = tied[tied < 1e7][0]
    cost[:, thing] = tied
    ours, released = match_cheapest(cost), match_cheapest(cost, release_ties=True)
    assert thing in ours.instances and thing not in released.instances
    assert int(ours.queries[ours.instances == thing][0]) == int((tied < 1e7).nonzero()[0])


def test_without_boxes_the_prediction_before_the_last_is_supervised_unless_as_released() -> None:
    case = GoldenCase(read("e_criterion_baseline200_b2"), "base_b2")
    ours = Criterion(LossConfig(), RELEASE)(case.outputs, case.targets)
    released = Criterion(LossConfig(release_lost_head=True), RELEASE)(case.outputs, case.targets)
    assert len(released.heads) == len(ours.heads) - 1
    assert torch.equal(released.heads[-1]["mask_bce"], ours.heads[-1]["mask_bce"])
    released.total.backward()
    before_last = case.outputs[0].auxiliary[-1].mask_logits
    assert before_last.grad is None or not before_last.grad.any()


def test_networks_with_boxes_lose_no_prediction_as_released() -> None:
    case = GoldenCase(read("e_criterion_scannetv2_b2"), "v2_b2")
    ours = Criterion(LossConfig(), RELEASE)(case.outputs, case.targets)
    released = Criterion(LossConfig(release_lost_head=True), RELEASE)(case.outputs, case.targets)
    assert torch.equal(ours.total, released.total)


def test_without_regressed_sizes_they_have_no_part_in_cost_and_loss() -> None:
    case = GoldenCase(read("e_criterion_scannetv2_b2"), "v2_b2")
    loss = Criterion(LossConfig(), MatcherConfig(), with_sizes=False)(case.outputs, case.targets)
    assert all(terms["size"] == 0 for terms in loss.heads)
    assert loss.heads[-1]["centre"] > 0
    loss.total.backward()
    assert not any(leaf.grad is not None and leaf.grad.any() for n, leaf in case.leaves.items() if n.endswith("size"))
