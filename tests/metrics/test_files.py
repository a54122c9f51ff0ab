# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Predictions and ground truth in files: what is read is what was written, and bad files say what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seg3d_core.errors import Seg3DError
from seg3d_core.metrics.benchmark_text import (
    _parse,
    read_integers,
    read_predictions_text,
    read_truth_text,
    write_predictions_text,
    write_truth_text,
)
from seg3d_core.metrics.ground_truth import GroundTruth, read_house, read_truth_npz, truth_from_masks, write_truth_npz
from seg3d_core.metrics.predictions import Predictions, read_predictions_npz, write_predictions_npz
from seg3d_core.metrics.scene_files import find_predictions, find_truth, pair
from seg3d_core.metrics.transfer import Transfer, on_vertices
from seg3d_core.types import Cloud, Instances, Snapshot

XYZ = np.array([[0, 0, 0], [1, 0, 0], [2, 0, 0], [3, 0, 0], [4, 0, 0]], np.float32)


def two_predictions(**changed: object) -> Predictions:
    """Over 5 points: {0, 1, 2} and {2, 4}."""
    values = {
        "point_count": 5,
        "indptr": np.array([0, 3, 5]),
        "members": np.array([0, 1, 2, 2, 4]),
        "labels": np.array([5, 39]),
        "scores": np.array([0.25, 0.5]),
        "xyz": XYZ,
    }
    return Predictions(**{**values, **changed})  # type: ignore[arg-type]


def assert_equal(got: Predictions, wanted: Predictions) -> None:
    assert (got.point_count, got.names) == (wanted.point_count, wanted.names)
    for name in ("indptr", "members", "labels", "scores"):
        np.testing.assert_array_equal(getattr(got, name), getattr(wanted, name))
    if wanted.xyz is None:
        assert got.xyz is None
    else:
        np.testing.assert_array_equal(got.xyz, wanted.xyz)


def text_folder(folder: Path, lines: str, **masks: str) -> Path:
    for name, content in masks.items():
        (folder / f"{name}.txt").write_text(content)
    path = folder / "scene.txt"
    path.write_text(lines)
    return path


@pytest.mark.parametrize("xyz", [XYZ, None], ids=["positions", "none"])
def test_text_predictions_round_trip(tmp_path: Path, xyz: np.ndarray | None) -> None:
    write_predictions_text(tmp_path, "scene", two_predictions(xyz=xyz))
    assert (tmp_path / "scene.txt").read_text().splitlines()[0] == "predicted_masks/scene_000.txt 5 0.250000"
    assert (tmp_path / "predicted_masks" / "scene_001.txt").read_text() == "0\n0\n1\n0\n1\n"
    assert_equal(read_predictions_text(tmp_path / "scene.txt"), two_predictions(xyz=xyz))


def test_text_truth_round_trip(tmp_path: Path) -> None:
    write_truth_text(tmp_path / "a.txt", GroundTruth(np.array([0, 5001, 39000])))
    np.testing.assert_array_equal(read_truth_text(tmp_path / "a.txt").ids, [0, 5001, 39000])


def test_a_path_listed_twice_counts_once_with_the_later_label_at_the_earlier_place(tmp_path: Path) -> None:
    path = text_folder(tmp_path, "a.txt 3 0.1\nb.txt 4 0.2\na.txt 5 0.3\n", a="1\n0\n", b="0\n7\n")
    got = read_predictions_text(path)
    assert (got.labels.tolist(), got.scores.tolist(), got.members.tolist()) == ([5, 4], [0.3, 0.2], [0, 1])


def test_an_empty_file_says_that_nothing_was_found(tmp_path: Path) -> None:
    assert len(read_predictions_text(text_folder(tmp_path, ""))) == 0


@pytest.mark.parametrize(
    "line", ["a.txt 3", "a.txt three 0.5", "a.txt 3 nan", "a.txt 3 inf", "a.txt 3.5 0.5", "a.txt 99999999999 1"]
)
def test_a_bad_line_is_named(tmp_path: Path, line: str) -> None:
    with pytest.raises(Seg3DError, match="line 2"):
        read_predictions_text(text_folder(tmp_path, f"a.txt 3 0.5\n{line}\n", a="1\n"))


@pytest.mark.parametrize("name", ["../secret.txt", "{folder}/secret.txt", "link.txt", "deep/../../secret.txt"])
def test_masks_may_not_leave_the_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret.txt").write_text("1\n0\n")
    folder = tmp_path / "predictions"
    (folder / "deep").mkdir(parents=True)
    (folder / "link.txt").symlink_to(tmp_path / "secret.txt")
    with pytest.raises(Seg3DError, match="outside the file's folder"):
        read_predictions_text(text_folder(folder, f"{name.replace('{folder}', str(tmp_path))} 3 0.5\n"))


@pytest.mark.parametrize("name", ["missing.txt", ".", "\0", "x" * 5000])
def test_masks_must_be_files(tmp_path: Path, name: str) -> None:
    with pytest.raises(Seg3DError, match="is not there"):
        read_predictions_text(text_folder(tmp_path, f"{name} 3 0.5\n"))


def test_masks_must_have_equal_lengths(tmp_path: Path) -> None:
    with pytest.raises(Seg3DError, match=r"b\.txt has 3 lines, those before it 2"):
        read_predictions_text(text_folder(tmp_path, "a.txt 3 0.1\nb.txt 3 0.1\n", a="1\n0\n", b="1\n0\n0\n"))


@settings(deadline=None)
@given(st.lists(st.integers(-(10**17), 10**17)), st.sampled_from(["\n", "\r\n", " ", "\n\n\t"]))
def test_integers_are_parsed_as_python_does(numbers: list[int], separator: str) -> None:
    text = separator.join(map(str, numbers)).encode()
    values, wrong = _parse(np.frombuffer(text, np.uint8))
    assert wrong == -1 and values.tolist() == [int(word) for word in text.split()]


@settings(deadline=None)
@given(st.text("0123456789+-e.x \n", max_size=12))
def test_what_is_no_integer_is_refused(text: str) -> None:
    values, wrong = _parse(np.frombuffer(text.encode(), np.uint8))
    try:
        assert values.tolist() == [int(word) for word in text.split()] and wrong == -1
    except ValueError:
        assert wrong >= 0


@pytest.mark.parametrize("content", ["1\n0.5\n", "1\nnan\n", "1\n9999999999999999999\n", "1\n-\n"])
def test_the_line_with_no_integer_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.txt").write_text(content)
    with pytest.raises(Seg3DError, match=r"a\.txt, line 2"):
        read_integers(tmp_path / "a.txt")


def test_negative_truth_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("5001\n-1\n")
    with pytest.raises(Seg3DError, match="line 2: -1"):
        read_truth_text(tmp_path / "a.txt")


@pytest.mark.parametrize(
    "changed",
    [{}, {"xyz": None}, {"names": ("chair", "sofa"), "labels": np.array([-1, -1])}],
    ids=["", "bare", "names"],
)
def test_npz_predictions_round_trip(tmp_path: Path, changed: dict) -> None:
    write_predictions_npz(tmp_path / "a.npz", two_predictions(**changed))
    assert_equal(read_predictions_npz(tmp_path / "a.npz"), two_predictions(**changed))


def test_npz_predictions_may_be_empty_in_the_middle_and_at_the_ends(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", indptr=[0, 0, 2, 2, 3, 3], members=[4, 1, 0], points=5, scores=np.ones(5))
    found = read_predictions_npz(tmp_path / "a.npz")
    assert found.indptr.tolist() == [0, 0, 2, 2, 3, 3] and found.members.tolist() == [1, 4, 0]


def test_npz_masks(tmp_path: Path) -> None:
    np.savez(
        tmp_path / "a.npz",
        masks=np.array([[1, 1, 1, 0, 0], [0, 0, 9, 0, 1]], np.uint8),
        labels=[5, 39],
        scores=[0.25, 0.5],
    )
    assert_equal(read_predictions_npz(tmp_path / "a.npz"), two_predictions(xyz=None))


def test_npz_with_an_id_per_point(tmp_path: Path) -> None:
    np.savez(
        tmp_path / "a.npz",
        instance=[7, 0, 3, 7, 7],
        ids=[7, 3, 9],
        scores=[0.5, 0.25, 1],
        names=["a", "", "c"],
        xyz=XYZ,
    )
    got = read_predictions_npz(tmp_path / "a.npz")
    assert (got.indptr.tolist(), got.members.tolist(), got.names) == ([0, 3, 4, 4], [0, 3, 4, 2], ("a", "", "c"))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"scores": [1.0]}, "holds no predictions"),
        ({"masks": np.ones((1, 5), bool)}, "no array `scores`"),
        ({"masks": np.ones((1, 5), bool), "scores": [np.nan]}, "NaN"),
        ({"masks": np.ones((1, 5), bool), "scores": [0.5, 0.5]}, "`scores` is float64 of shape"),
        ({"masks": np.ones((1, 5)), "scores": [0.5]}, "`masks` is float64"),
        ({"masks": np.ones((1, 5), bool), "scores": [0.5], "xyz": XYZ[:4]}, "`xyz`"),
        ({"instance": [1, 2], "ids": [1], "scores": [0.5]}, "holds 2, which is not among `ids`"),
        ({"instance": [1, 2], "ids": np.empty(0, int), "scores": []}, "holds 1, which is not among `ids`"),
        ({"instance": [1, 1], "ids": [1, 1], "scores": [0.5, 0.5]}, "each stand there once"),
        ({"indptr": [0, 3], "members": [0, 1], "points": 5, "scores": [0.5]}, "`indptr` must rise"),
        ({"indptr": [0, 2, 1, 2], "members": [0, 1], "points": 5, "scores": [0.5] * 3}, "`indptr` must rise"),
        ({"indptr": [1, 2], "members": [0, 1], "points": 5, "scores": [0.5]}, "`indptr` must rise"),
        ({"indptr": np.empty(0, int), "members": [0], "points": 5, "scores": []}, "`indptr` must rise"),
        ({"instance": [0, 0], "ids": [0], "scores": [0.5]}, "must be positive"),
        ({"indptr": [0, 2], "members": [-1, 0], "points": 5, "scores": [0.5]}, "rows of the 5 points"),
        ({"indptr": [0, 2], "members": [0, 5], "points": 5, "scores": [0.5]}, "rows of the 5 points"),
        ({"indptr": [0, 2], "members": [1, 1], "points": 5, "scores": [0.5]}, "twice in one prediction"),
        ({"indptr": [0, 1], "members": [1], "scores": [0.5]}, "no array `points`"),
        ({"masks": np.array([[None]]), "scores": [0.5]}, "no readable npz"),
    ],
)
def test_bad_npz_predictions_say_what_is_wrong(tmp_path: Path, arrays: dict, message: str) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(Seg3DError, match=message):
        read_predictions_npz(tmp_path / "a.npz")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut short", b"no archive", b"\x93NUMPY\x01\x00"])
@pytest.mark.parametrize("read", [read_predictions_npz, read_truth_npz])
def test_what_is_no_npz_is_refused(tmp_path: Path, content: bytes, read: object) -> None:
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(Seg3DError, match=r"a\.npz"):
        read(tmp_path / "a.npz")  # type: ignore[operator]


def test_npz_truth_round_trip(tmp_path: Path) -> None:
    write_truth_npz(tmp_path / "a.npz", GroundTruth(np.array([0, 1001, 2001, 0, 1]), XYZ, {1: "chair", 2: "sofa"}))
    got = read_truth_npz(tmp_path / "a.npz")
    assert (got.ids.tolist(), got.names) == ([0, 1001, 2001, 0, 1], {1: "chair", 2: "sofa"})
    np.testing.assert_array_equal(got.xyz, XYZ)


def home(folder: Path, categories: dict[int, str]) -> Path:
    folder.mkdir()
    about = {
        str(i): {"category": name, "is_structure": name == "door", "is_carpet": name == "carpet"}
        for i, name in categories.items()
    }
    (folder / "instances.json").write_text(json.dumps({"instances": about}))
    np.savez(folder / "points.npz", xyz=XYZ, instance=np.array([0, *list(categories)[:4]], np.int32))
    return folder


def test_things_of_homes_have_labels_by_category(tmp_path: Path) -> None:
    ids: dict[str, int] = {}
    first = read_house(home(tmp_path / "a", {20: "sofa", 7: "door", 31: "carpet", 9: "lamp"}), ids)
    second = read_house(home(tmp_path / "b", {4: "lamp", 5: "bed", 6: "bed", 8: "door"}), ids)
    assert ids == {"lamp": 2001, "sofa": 2002, "bed": 2003}
    assert first.ids.tolist() == [0, 2002002, 0, 0, 2001001]
    assert second.ids.tolist() == [0, 2001001, 2003002, 2003003, 0]
    assert second.names == {2001: "lamp", 2002: "sofa", 2003: "bed"}


@pytest.mark.parametrize(
    "content", ["", "[]", '{"instances": 5}', '{"instances": {"a": {}}}', '{"instances": {"1": {}}}']
)
def test_bad_tables_of_homes_are_refused(tmp_path: Path, content: str) -> None:
    folder = home(tmp_path / "a", {1: "sofa", 2: "door", 3: "carpet", 4: "lamp"})
    (folder / "instances.json").write_text(content)
    with pytest.raises(Seg3DError, match=r"instances.json is not as expected"):
        read_house(folder, {})


def test_predictions_of_a_map_are_rows_of_its_cloud() -> None:
    cloud = Cloud(np.array([3, 5, 8, 9, 12]), XYZ, np.zeros((5, 3), np.uint8), np.zeros((5, 3)), np.ones(5))
    instances = Instances(
        np.array([4, 6]), np.array([0.25, 0.5], np.float32), np.array([0, 3, 6]), np.array([3, 5, 8, 7, 8, 12])
    )
    snapshot = Snapshot(0, 0.0, cloud, instances, np.zeros(5, np.int32), XYZ[:2], XYZ[:2], names=("chair", ""))
    got = Predictions.from_snapshot(snapshot, 0.02)
    assert_equal(got, two_predictions(labels=np.array([-1, -1]), names=("chair", "")))
    assert got.voxel_size == 0.02


def test_predictions_move_to_vertices_within_the_radius_and_overlaps_stay() -> None:
    truth = GroundTruth(np.array([5001, 0, 7001]), np.array([[2.03, 0, 0], [0, 0.5, 0], [3.98, 0, 0]]))
    scene, how = on_vertices(two_predictions(), truth, 0.04)
    assert how == Transfer(0.04, 3, 1)
    assert (scene.indptr.tolist(), scene.members.tolist()) == ([0, 1, 3], [0, 0, 2])


def test_equal_clouds_correspond_by_number() -> None:
    truth = GroundTruth(np.arange(5), XYZ)
    scene, how = on_vertices(two_predictions(), truth, 0.04)
    assert how == Transfer(None, 5)
    assert scene.members.tolist() == [0, 1, 2, 2, 4]


@pytest.mark.parametrize("xyz", [XYZ, None])
def test_different_clouds_without_positions_are_refused(xyz: np.ndarray | None) -> None:
    truth = GroundTruth(np.arange(4), None if xyz is not None else XYZ[:4])
    with pytest.raises(Seg3DError, match="the ground truth came" if xyz is not None else "the predictions came"):
        on_vertices(two_predictions(xyz=xyz), truth, 0.04)


def test_ground_truth_without_vertices_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").touch()
    with pytest.raises(Seg3DError, match="no vertices"):
        on_vertices(two_predictions(), read_truth_text(tmp_path / "a.txt"), 0.04)


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_predictions_are_found_in_every_form(tmp_path: Path) -> None:
    touch(
        *(tmp_path / name for name in ("a/map.seg3d", "a/instances.npz", "b.txt", "b.npz", "c.npz", "d.seg3d", "e.md"))
    )
    assert [(f.scene, f.kind) for f in find_predictions(tmp_path)] == [
        ("a", "map"), ("b", "text"), ("c", "npz"), ("d", "map"),
    ]  # fmt: skip
    assert [(f.scene, f.kind) for f in find_predictions(tmp_path / "a")] == [("a", "map")]
    assert [(f.scene, f.kind) for f in find_predictions(tmp_path / "a" / "instances.npz")] == [("a", "npz")]


def test_ground_truth_is_found_in_every_form(tmp_path: Path) -> None:
    touch(tmp_path / "text" / "b.txt", tmp_path / "text" / "a.npz")
    touch(
        *(tmp_path / "homes" / "one" / name for name in ("points.npz", "instances.json")), tmp_path / "homes" / "x.txt"
    )
    assert [(f.scene, f.kind) for f in find_truth(tmp_path / "text")] == [("a", "npz"), ("b", "text")]
    for path in (tmp_path / "homes", tmp_path / "homes" / "one", tmp_path / "homes" / "one" / "points.npz"):
        assert [(f.scene, f.kind) for f in find_truth(path)] == [("one", "house")]


@pytest.mark.parametrize("find", [find_predictions, find_truth])
def test_nothing_to_evaluate_says_what_is_wanted(tmp_path: Path, find: object) -> None:
    touch(tmp_path / "picture.png")
    wrong = {"no": "does not exist", "": "nothing to evaluate", "picture.png": "no known kind"}
    for name, message in wrong.items():
        with pytest.raises(Seg3DError, match=message):
            find(tmp_path / name)  # type: ignore[operator]


def test_a_scene_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    touch(tmp_path / "a" / "map.seg3d", tmp_path / "a.npz")
    with pytest.raises(Seg3DError, match="scene a is there twice"):
        find_predictions(tmp_path)


def test_scenes_pair_by_name(tmp_path: Path) -> None:
    touch(*(tmp_path / "p" / f"{n}.npz" for n in "abx"), *(tmp_path / "t" / f"{n}.txt" for n in "aby"))
    found, true = find_predictions(tmp_path / "p"), find_truth(tmp_path / "t")
    with pytest.raises(Seg3DError, match=r"no predictions for y and no ground truth for x.*--only-common"):
        pair(found, true)
    assert [(a.scene, b.scene) for a, b in pair(found, true, only_common=True)] == [("a", "a"), ("b", "b")]
    with pytest.raises(Seg3DError, match="no scene has both"):
        pair(found[2:], true, only_common=True)
    assert [(a.scene, b.scene) for a, b in pair(found[2:], true[2:])] == [("x", "y")]


def test_masks_become_ids_of_label_and_number_and_structure_becomes_void() -> None:
    masks = np.eye(5, 7, dtype=bool)
    masks[4, 3] = True
    truth = truth_from_masks(masks, np.array([2, 0, 1, 4, 3]), thing_ids=[5, 36, 1191])
    # The later mask holds what two claim.
    assert truth.ids.tolist() == [5001, 0, 0, 36005, 36005, 0, 0]
    assert truth.xyz is None and not truth.names
