# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Numbers of SegDINO3D's published evaluator, and its known defect behind a flag."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from seg3d_core.metrics.ap import ApResult, SceneEvaluation, average_precision
from seg3d_core.metrics.classes import ClassList, class_lists
from seg3d_core.metrics.ground_truth import truth_from_masks

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "segdino3d"
CASES = ["v2_two", "v2_six", "s200", "v2_scene_without_predictions", "v2_no_ground_truth", "v2_all_scores_equal"]
ROUND_TRIPS = ["wall_and_floor", "wall_only", "floor_only", "neither", "neither_mixed"]


@pytest.fixture(scope="module")
def stored() -> dict[str, np.ndarray]:
    out = {}
    for name in ("h_ap", "h_label_round_trip"):
        with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as data:
            out.update({key: data[key] for key in data})
    return out


def classes_of(case: str) -> ClassList:
    return class_lists()["scannet200" if case == "s200" else "scannet18"]


def result_of(stored: dict[str, np.ndarray], case: str) -> ApResult:
    ids = np.array(classes_of(case).ids)
    scenes, k = [], 0
    while f"{case}_s{k}_gt_instance" in stored:
        part = {
            name: stored[f"{case}_s{k}_{name}"] for name in ("gt_instance", "gt_class", "pred_labels", "pred_scores")
        }
        count = len(part["gt_instance"])
        masks = np.unpackbits(stored[f"{case}_s{k}_pred_masks_bits"], axis=1, count=count).astype(bool)
        truth = np.where(part["gt_instance"] < 0, 0, ids[part["gt_class"]] * 1000 + part["gt_instance"] + 1)
        scenes.append(SceneEvaluation.from_masks(truth, masks, ids[part["pred_labels"]], part["pred_scores"]))
        k += 1
    return average_precision(scenes, ids.tolist())


@pytest.mark.parametrize("case", CASES)
def test_ap_precision_and_recall_of_each_class(stored: dict[str, np.ndarray], case: str) -> None:
    result = result_of(stored, case)
    for name, values in (
        ("ap", result.per_class),
        ("best_precision", result.precision),
        ("best_recall", result.recall),
    ):
        got = np.array([values[label] for label in classes_of(case).ids])
        np.testing.assert_allclose(got, stored[f"{case}_{name}"], rtol=0, atol=1e-9)


@pytest.mark.parametrize("case", CASES)
def test_summary(stored: dict[str, np.ndarray], case: str) -> None:
    result, classes = result_of(stored, case), classes_of(case)
    wanted = dict(zip(stored[f"{case}_summary_names"].tolist(), stored[f"{case}_summary"], strict=True))
    groups = {"all": classes.ids, **(classes.groups if case == "s200" else {})}
    for group, ids in groups.items():
        names = [f"{group}_{what}" for what in ("ap", "ap_50%", "ap_25%", "prec_50%", "rec_50%")]
        got = [*result.mean(ids), result.mean_precision(ids)[1], result.mean_recall(ids)[1]]
        np.testing.assert_allclose(got, [wanted[name] for name in names], rtol=0, atol=1e-9)


@pytest.mark.parametrize("case", ROUND_TRIPS)
@pytest.mark.parametrize("defect", [False, True], ids=["corrected", "release"])
def test_the_release_loses_things_where_wall_or_floor_is_missing(
    stored: dict[str, np.ndarray], case: str, defect: bool
) -> None:
    count = int(stored[f"{case}_N"])
    things = class_lists()["scannet18"].ids
    masks = {
        name: np.unpackbits(stored[f"{case}_{name}_masks_bits"], axis=1, count=count).astype(bool)
        for name in ("gt", "pred")
    }
    truth = truth_from_masks(masks["gt"], stored[f"{case}_gt_labels"], things, release_label_defect=defect)
    labels = np.array(things)[stored[f"{case}_pred_labels"]]
    scene = SceneEvaluation.from_masks(truth.ids, masks["pred"], labels, stored[f"{case}_pred_scores"])
    wanted = stored[f"{case}_{'release' if defect else 'corrected'}_all_ap"]
    np.testing.assert_allclose(average_precision([scene], things).mean(), wanted, rtol=0, atol=1e-9)
    if defect:
        np.testing.assert_array_equal(truth.ids // 1000, np.maximum(stored[f"{case}_eval_semantic"], 0))
