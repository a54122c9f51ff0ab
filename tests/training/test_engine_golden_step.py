# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Two training steps of the full networks against the published ones: losses, gradients, weights."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from golden import features, find, published_state  # noqa: E402

from seg3d_core.models.published_names import our_name, to_ours  # noqa: E402
from seg3d_core.models.segdino3d import SegDino3D  # noqa: E402
from training.collate import Batch  # noqa: E402
from training.config import build  # noqa: E402
from training.dataset import Targets, TrainingScene  # noqa: E402
from training.learner import Learner  # noqa: E402
from training.processes import Processes  # noqa: E402

TERMS = ("classes", "mask_bce", "mask_dice", None, "centre", "size")
SCHEDULE = {"scannet200": 38_700, "scannetv2": 153_600, "baseline200": 38_700}


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> None:
    torch.set_num_threads(1)


def scene_of(golden: dict[str, np.ndarray], number: int) -> TrainingScene:
    part = {key[3:]: value for key, value in golden.items() if key.startswith(f"s{number}_")}
    raw = torch.from_numpy(part["points_raw"])
    case = f"{golden['case_name']}:{number}"
    matrix = torch.from_numpy(np.unpackbits(part["sp_inst_sem_masks_bits"], axis=-1)[:, : int(part["S"])]).bool()
    count = len(part["labels"])
    none = torch.zeros(0, dtype=torch.int64)
    boxes = [torch.from_numpy(part[n]) if n in part else torch.zeros(count, 3) for n in ("gt_centers", "gt_sizes")]
    targets = Targets(
        torch.from_numpy(part["labels"]), matrix[:count], matrix[count:].int().argmax(dim=0), *boxes, none, none
    )
    return TrainingScene(
        case,
        raw[:, :3],
        raw[:, 3:],
        torch.from_numpy(part["superpoints"]).long(),
        features(f"{case}:points_2dfeats", (len(raw), 256), 0.5),
        features(f"{case}:query2d_feats", (40, 256), 1.0),
        torch.from_numpy(part["query2d_pos"]) if "query2d_pos" in part else torch.zeros(40, 3),
        torch.from_numpy(part["elastic_coords"]),
        targets,
    )


def learner_of(name: str) -> Learner:
    release = {"matcher.release_ties": True, "loss.release_empty_means": True, "loss.release_lost_head": True}
    config = build({**release, "data.features": "golden"}, name)
    model = SegDino3D(config.architecture())
    model.load_state_dict(to_ours(published_state(name)), strict=True)
    return Learner(model, config, SCHEDULE[name], Processes(0, 1, torch.device("cpu")))


def state_of(learner: Learner) -> dict[str, torch.Tensor]:
    """Parameters in the layout of the published state dict."""
    named = dict(learner.model.named_parameters())
    return {name: value.clone() for name, value in learner.model.state_dict().items() if name in named}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["scannetv2", "scannet200", "baseline200"])
def test_two_steps_are_the_published_ones(name) -> None:
    path = find(f"j_step_{name}.npz")
    if path is None:
        pytest.skip("needs the golden numbers that are too big for the repository (../shared/golden/segdino3d)")
    with np.load(path, allow_pickle=False) as file:
        golden = {key: file[key] for key in file.files}
    learner = learner_of(name)
    batch = Batch((scene_of(golden, 0), scene_of(golden, 1)))
    names = [our_name(str(n)) for n in golden["param_names"]]
    for step, tolerance in ((0, 1e-4), (1, 2e-3)):
        before = state_of(learner)
        queries = [torch.from_numpy(golden[f"step{step}_s{s}_query_ids"]) for s in (0, 1)]
        parts = learner.backward([batch], [queries])
        assert parts["instance"] == pytest.approx(float(golden[f"step{step}_inst_loss"]), rel=tolerance)
        assert parts["semantic"] == pytest.approx(float(golden[f"step{step}_seg_loss"]), rel=tolerance)
        check_terms(parts, golden[f"step{step}_terms"], 1e-4 if step == 0 else 1e-2)
        norms = gradient_norms(learner, names)
        check_norms(norms, golden[f"step{step}_param_grad_norms"], (2e-2, 0.2)[step])
        norm = learner.update(step, parts)
        assert norm == pytest.approx(float(golden[f"step{step}_grad_norm_before_clip"]), rel=(1e-3, 1e-2)[step])
        rates = [group["lr"] for group in learner.optimiser.param_groups]
        assert rates == pytest.approx(golden[f"step{step}_lr"][:2].tolist(), rel=1e-6)
        if step == 0:
            changes = np.array([float((state_of(learner)[n] - before[n]).double().norm()) for n in names])
            certain = golden["step0_param_grad_norms"] > 1e-3
            wanted = golden["step0_param_change_norms"]
            np.testing.assert_allclose(changes[certain], wanted[certain], rtol=2e-2)
    buffers = learner.model.state_dict()
    sums = [float(buffers[our_name(str(n))].double().sum()) for n in golden["bn_names"]]
    np.testing.assert_allclose(sums, golden["bn_after_sums"], rtol=0, atol=5e-2)


def check_terms(parts: dict[str, float], wanted: np.ndarray, tolerance: float) -> None:
    assert len([part for part in parts if part.endswith("/classes")]) == len(wanted)
    for head, row in enumerate(wanted):
        for term, theirs in zip(TERMS, row, strict=False):
            if term is not None:
                assert parts[f"head{head}/{term}"] == pytest.approx(theirs, rel=tolerance, abs=tolerance)


def gradient_norms(learner: Learner, names: list[str]) -> np.ndarray:
    gradients = {n: p.grad for n, p in learner.model.named_parameters()}
    return np.array([float(gradients[n].double().norm()) for n in names])


def check_norms(ours: np.ndarray, theirs: np.ndarray, tolerance: float) -> None:
    certain = theirs > 1e-3
    assert certain.sum() > 0.8 * len(theirs)
    np.testing.assert_allclose(ours[certain], theirs[certain], rtol=tolerance)
