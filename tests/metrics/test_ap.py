# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""ScanNet's AP against values of the official code, and labels carried between clouds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from seg3d_core.metrics.ap import OVERLAPS, SceneEvaluation, average_precision, nearest_within, transfer

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "ap"
EXPECTED = json.loads((GOLDEN / "expected.json").read_text())
CASES = [name for name, case in EXPECTED["cases"].items() if "agnostic18" in case]
CLASSES = {kind: [int(label) for label in EXPECTED["meta"][kind]] for kind in ("scannet18", "scannet198")}


def load_scenes(case: str) -> list[SceneEvaluation]:
    with np.load(GOLDEN / "cases.npz", allow_pickle=False) as data:
        scenes = []
        for k in range(EXPECTED["cases"][case]["scenes"]):
            part = {name: data[f"{case}/{k}/{name}"] for name in ("gt", "masks", "labels", "scores")}
            masks = np.unpackbits(part["masks"], axis=1, count=len(part["gt"])).astype(bool)
            scenes.append(SceneEvaluation.from_masks(part["gt"], masks, part["labels"], part["scores"]))
    return scenes


def assert_same(got: tuple[float, float, float], wanted: dict) -> None:
    values = [np.nan if wanted[name] is None else wanted[name] for name in ("AP", "AP50", "AP25")]
    np.testing.assert_allclose(got, values, rtol=0, atol=1e-9)


def test_thresholds_are_the_official_floats() -> None:
    assert OVERLAPS.tolist() == EXPECTED["meta"]["overlaps"]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind", ["scannet18", "scannet198"])
@pytest.mark.parametrize("agnostic", [False, True], ids=["by_class", "agnostic"])
def test_agrees_with_the_official_code(case: str, kind: str, agnostic: bool) -> None:
    wanted = EXPECTED["cases"][case][kind.replace("scannet", "agnostic") if agnostic else kind]
    result = average_precision(load_scenes(case), CLASSES[kind], agnostic)
    assert_same((result.ap, result.ap50, result.ap25), wanted)
    known = {str(label): values for label, values in result.per_class.items() if not np.isnan(values).all()}
    assert known.keys() == wanted["per_class"].keys()
    for label, values in known.items():
        np.testing.assert_allclose(values, np.array(wanted["per_class"][label], float), rtol=0, atol=1e-9)


@pytest.mark.parametrize("group", ["head", "common", "tail"])
@pytest.mark.parametrize("case", CASES)
def test_groups_of_classes(case: str, group: str) -> None:
    result = average_precision(load_scenes(case), CLASSES["scannet198"])
    assert_same(result.mean(EXPECTED["meta"]["splits200"][group]), EXPECTED["cases"][case]["scannet198"][group])


@pytest.mark.parametrize("case", CASES)
def test_scene_means(case: str) -> None:
    wanted = EXPECTED["cases"][case]["re0_scene_mean_198"]["per_scene"]
    for scene, values in zip(load_scenes(case), wanted, strict=True):
        got = average_precision([scene], CLASSES["scannet198"]).mean()
        np.testing.assert_allclose(got, np.full(3, np.nan) if values is None else np.array(values, float), atol=1e-9)


def test_partition_equals_its_masks() -> None:
    rng = np.random.default_rng(0)
    truth = np.repeat([1001, 1002, 0, 1003], 300)
    partition = np.where(rng.random(1200) < 0.2, 0, np.repeat([1, 2, 3, 3], 300))
    scores = np.array([0.9, 0.4, 0.7])
    masks = partition == np.arange(1, 4)[:, None]
    a = average_precision([SceneEvaluation.from_partition(truth, partition, scores)], [1], agnostic=True)
    b = average_precision([SceneEvaluation.from_masks(truth, masks, np.ones(3, int), scores)], [1])
    np.testing.assert_array_equal(a.per_class[1], b.per_class[1])
    assert 0 < a.ap < 1


def test_transfer_takes_the_nearest_label_within_the_radius() -> None:
    here = np.array([[0.0, 0, 0], [1, 0, 0]])
    there = np.array([[0.03, 0, 0], [0.96, 0, 0], [0.5, 0, 0]])
    np.testing.assert_array_equal(transfer(here, there, np.array([5, 7]), 0.05), [5, 7, 0])


def test_transfer_from_an_empty_map_is_nothing() -> None:
    assert nearest_within(np.empty((0, 3)), np.zeros((2, 3)), 0.05).tolist() == [-1, -1]
    np.testing.assert_array_equal(transfer(np.empty((0, 3)), np.zeros((2, 3)), np.empty(0, np.int32), 0.05), [0, 0])


def test_precision_and_recall_stand_where_their_harmonic_mean_is_largest() -> None:
    """Not where their product is: 1 x 0.5 is more than 0.7 x 0.7."""
    truth = 5000 + np.repeat(np.arange(1, 11), 100)
    whole = truth == 5000 + np.arange(1, 11)[:, None]
    # Five found surely; of five more that are less sure, two are right and three repeat what was found.
    masks = whole[[0, 1, 2, 3, 4, 5, 6, 0, 1, 2]]
    scores = np.repeat([0.9, 0.4], 5)
    result = average_precision([SceneEvaluation.from_masks(truth, masks, np.full(10, 5), scores)], [5])
    assert np.allclose(result.precision[5], 0.7) and np.allclose(result.recall[5], 0.7)
    assert result.mean_precision() == result.mean_recall() == pytest.approx((0.7, 0.7, 0.7))
