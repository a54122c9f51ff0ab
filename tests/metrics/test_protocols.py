# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Every golden case of the official code and of RE0's two averages, through the protocols by name."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from seg3d_core.metrics.classes import UNLISTED, class_lists
from seg3d_core.metrics.protocols import PROTOCOLS, Result, evaluate
from seg3d_core.metrics.scene_counts import SceneEvaluation, count_overlaps, duplicates
from seg3d_core.metrics.scene_files import find_predictions, find_truth, pair, read_predictions, read_truth
from seg3d_core.metrics.transfer import on_vertices

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "ap"
EXPECTED = json.loads((GOLDEN / "expected.json").read_text())
CASES = [name for name, case in EXPECTED["cases"].items() if "agnostic18" in case]
VOTES = ["gtvote_18", "gtvote_198"]
# Protocol -> where the golden file has its numbers.
POOLED = {
    "scannet18": "scannet18",
    "scannet200": "scannet198",
    "agnostic-scannet18": "agnostic18",
    "agnostic-scannet200": "agnostic198",
}
AVERAGED = {"re0-scannet18": "re0_scene_mean_18", "re0": "re0_scene_mean_198"}


def scenes_of(case: str) -> list[tuple[str, SceneEvaluation]]:
    out = []
    with np.load(GOLDEN / "cases.npz", allow_pickle=False) as data:
        numbers = sorted({int(name.split("/")[1]) for name in data if name.split("/")[0] == case})
        for k in numbers:
            truth = data[f"{case}/{k}/gt"]
            if f"{case}/{k}/partition" in data:
                partition = data[f"{case}/{k}/partition"]
                ids = np.unique(partition[partition > 0])
                rows = np.where(partition > 0, np.searchsorted(ids, partition) + 1, 0)
                scene = SceneEvaluation.from_partition(truth, rows, np.ones(len(ids)))
            else:
                masks = np.unpackbits(data[f"{case}/{k}/masks"], axis=1, count=len(truth)).astype(bool)
                scene = SceneEvaluation.from_masks(
                    truth, masks, *(data[f"{case}/{k}/{n}"] for n in ("labels", "scores"))
                )
            out.append((f"scene{k}", scene))
    return out


def kept(results: list[Result]) -> list[Result]:
    return [result for result in results if result.duplicates]


def assert_same(got: object, wanted: object) -> None:
    got, wanted = np.array(got, float), np.array(wanted, float)
    np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-9)


def triple(entry: dict) -> list[float | None]:
    return [entry["AP"], entry["AP50"], entry["AP25"]]


@pytest.mark.parametrize("case", CASES)
def test_pooled_protocols_agree_with_the_official_code(case: str) -> None:
    results = {r.protocol: r for r in kept(evaluate(scenes_of(case), list(POOLED)))}
    for protocol, where in POOLED.items():
        result, wanted = results[protocol], EXPECTED["cases"][case][where]
        assert_same((result.ap, result.ap50, result.ap25), triple(wanted))
        for group, values in result.groups.items():
            assert_same(values, triple(wanted[group]))
        assert result.name.endswith("pooled over scenes")


@pytest.mark.parametrize("case", CASES)
def test_classes_by_name_agree_with_the_official_code(case: str) -> None:
    (result,) = kept(evaluate(scenes_of(case), ["scannet200"]))
    names = class_lists()["scannet200"].names
    wanted = {names[int(i)]: v for i, v in EXPECTED["cases"][case]["scannet198"]["per_class"].items()}
    assert result.per_class.keys() == wanted.keys()
    for name, values in wanted.items():
        assert_same(result.per_class[name], (np.mean(values[:9]), values[0], values[9]))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("protocol", list(AVERAGED))
def test_re0_averages_over_scenes(case: str, protocol: str) -> None:
    (result,) = kept(evaluate(scenes_of(case), [protocol]))
    wanted = EXPECTED["cases"][case][AVERAGED[protocol]]
    assert_same((result.ap, result.ap50, result.ap25), wanted["mean"])
    none = [None, None, None]
    assert_same(list(result.per_scene.values()), [none if v is None else v for v in wanted["per_scene"]])
    assert result.name.endswith("mean over scenes")


@pytest.mark.parametrize("case", VOTES)
@pytest.mark.parametrize("released", [False, True], ids=["without_background", "as_released"])
def test_segments_labelled_by_vote(case: str, released: bool) -> None:
    protocol = "re0-gt-as-released" if released else "re0-gt"
    protocol += {"gtvote_18": "-scannet18", "gtvote_198": ""}[case]
    pooled, averaged = kept(evaluate(scenes_of(case), [protocol]))
    wanted = EXPECTED["cases"][case]["as_released" if released else "without_background"]
    assert_same((pooled.ap, pooled.ap50, pooled.ap25), triple(wanted["pooled"]))
    assert_same((averaged.ap, averaged.ap50, averaged.ap25), wanted["scene_mean"])
    assert_same(list(averaged.per_scene.values()), wanted["per_scene"])


def test_text_files_agree_with_the_official_code() -> None:
    ((found, true),) = pair(find_predictions(GOLDEN / "text" / "pred"), find_truth(GOLDEN / "text" / "gt"))
    scene, how = on_vertices(read_predictions(found), read_truth(true, {}), 0.04)
    assert how.radius is None
    (result,) = kept(evaluate([("a", scene)], ["scannet18"]))
    wanted = EXPECTED["cases"]["text_format"]["scannet18"]
    assert_same((result.ap, result.ap50, result.ap25), triple(wanted))


def test_class_lists_are_those_of_the_benchmarks() -> None:
    for key, golden in (("scannet18", "scannet18"), ("scannet200", "scannet198")):
        listed = class_lists()[key]
        assert {str(i): name for i, name in listed.names.items()} == EXPECTED["meta"][golden]
        assert list(listed.ids) == [int(i) for i in EXPECTED["meta"][golden]]
    assert {g: list(i) for g, i in class_lists()["scannet200"].groups.items()} == EXPECTED["meta"]["splits200"]


def test_names_find_their_class_whatever_case_and_spaces() -> None:
    ids = class_lists()["scannet18"].ids_of([" Shower  Curtain", "SOFA", "unicorn", ""])
    np.testing.assert_array_equal(ids, [28, 6, UNLISTED, UNLISTED])


@pytest.mark.parametrize("name", list(PROTOCOLS))
def test_every_number_says_its_protocol_and_whether_duplicates_took_part(name: str) -> None:
    results = evaluate(scenes_of("random20_0"), [name])
    assert {r.duplicates for r in results} == {True, False}
    assert all(r.protocol == name and r.name.startswith(PROTOCOLS[name].title()) for r in results)
    assert len({(r.name, r.duplicates) for r in results}) == len(results)


def one_chair() -> SceneEvaluation:
    """A chair of 200 vertices; found twice, once more under another label, and a miss."""
    truth = np.repeat([5001, 0, 7001], 200)
    masks = np.zeros((4, 600), bool)
    masks[[0, 1, 2], :200] = True
    masks[3, 400:] = True
    return SceneEvaluation.from_masks(truth, masks, np.array([5, 5, 7, 5]), np.array([0.5, 0.9, 0.8, 0.7]))


@pytest.mark.parametrize("key", PROTOCOLS)
def test_only_without_classes_a_list_says_what_is_valid(key: str) -> None:
    protocol = PROTOCOLS[key]
    what = "every label of the ground truth" if protocol.classes == "own" else class_lists()[protocol.classes].title
    assert protocol.title().endswith(f", valid: {what}" if protocol.kind == "agnostic" else f", {what}")
    assert protocol.title().count("valid") == (protocol.kind == "agnostic")


def test_a_duplicate_repeats_mask_and_class_of_a_better_one() -> None:
    counts = count_overlaps(one_chair())
    np.testing.assert_array_equal(duplicates(counts, counts.labels), [True, False, False, False])
    np.testing.assert_array_equal(duplicates(counts, np.zeros(4)), [True, False, True, False])


def test_equal_masks_of_another_order_are_duplicates_and_equal_counts_are_not_enough() -> None:
    truth = np.repeat([5001, 0], 300)
    members = [np.arange(200), np.arange(200)[::-1], np.arange(100, 300)]
    scene = SceneEvaluation(
        truth, np.array([0, 200, 400, 600]), np.concatenate(members), np.full(3, 5), np.array([0.5, 0.5, 0.5])
    )
    counts = count_overlaps(scene)
    np.testing.assert_array_equal(counts.mask_ids, [0, 0, 2])
    np.testing.assert_array_equal(duplicates(counts, counts.labels), [False, True, False])


def test_a_repeated_prediction_costs_only_while_duplicates_take_part() -> None:
    truth = np.repeat([5001, 5002], 200)
    masks = np.zeros((3, 400), bool)
    masks[:2, :200] = True
    masks[2, 200:] = True
    scene = SceneEvaluation.from_masks(truth, masks, np.full(3, 5), np.array([0.5, 0.9, 0.4]))
    results = {r.duplicates: r for r in evaluate([("a", scene)], ["scannet18"])}
    assert [r.repeated for r in results.values()] == [1, 1]
    assert (results[True].predictions, results[False].predictions) == (3, 2)
    assert results[True].ap < results[False].ap == 1.0


def test_names_become_labels_by_each_list() -> None:
    scene = replace(one_chair(), names=("chair", "chair", "table", "chair"))
    by_name, by_id = (kept(evaluate([("a", s)], ["scannet18"]))[0] for s in (scene, one_chair()))
    assert by_name == by_id
    (result,) = kept(evaluate([("a", replace(scene, names=("", "", "", "lamp")))], ["scannet18"]))
    assert (result.predictions, result.unlisted, result.ap) == (0, 4, 0.0)


def test_own_classes_are_those_of_the_ground_truth_by_its_names() -> None:
    scene = replace(one_chair(), truth_names={5: "throne", 7: "altar"}, names=("throne", "Throne", "altar", "throne"))
    (result,) = kept(evaluate([("a", scene)], ["own"]))
    assert result.per_class.keys() == {"throne", "altar"}
    assert result.ap == kept(evaluate([("a", one_chair())], ["scannet18"]))[0].ap


def test_a_scene_without_ground_truth_leaves_the_mean_over_scenes() -> None:
    empty = replace(one_chair(), truth=np.zeros(600, int))
    (alone,), (both,) = (
        kept(evaluate(list(enumerate(scenes)), ["re0-scannet18"])) for scenes in ([one_chair()], [one_chair(), empty])
    )
    assert both.ap == alone.ap


def test_where_predictions_overlap_the_vote_gives_the_vertex_to_the_higher_score() -> None:
    truth = np.repeat([5001, 7001], 200)
    masks = np.zeros((2, 400), bool)
    masks[0, :] = True
    masks[1, 200:] = True
    scene = SceneEvaluation.from_masks(truth, masks, np.zeros(2, int), np.array([0.1, 0.9]))
    pooled = kept(evaluate([("a", scene)], ["re0-gt-scannet18"]))[0]
    assert (pooled.ap, pooled.predictions) == (1.0, 2)
