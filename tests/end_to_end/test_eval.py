# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""`seg3d eval` as a person types it: a saved map, its exports, homes and folders against ground truth."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from typer.testing import CliRunner

from seg3d_core.cli import app
from seg3d_core.errors import Seg3DError

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "ap" / "text"
SMALL = ("--set", "map.voxel_size=0.05", "--set", "re0.min_points=20", "--set", "query.encoder=none")


def seg3d(*words) -> Result:
    """A command in this process, as an error that a person can mend has ended it or as a whole."""
    result = CliRunner().invoke(app, [str(word) for word in words])
    if result.exception and not isinstance(result.exception, (SystemExit, Seg3DError)):
        raise result.exception
    return result


def evaluate(tmp_path: Path, *words) -> dict:
    done = seg3d("eval", *words, "--json", tmp_path / "out.json")
    assert done.exit_code == 0, done.exception
    return {**json.loads((tmp_path / "out.json").read_text()), "printed": " ".join(done.stdout.split())}


def error_of(*words) -> str:
    done = seg3d("eval", *words)
    assert isinstance(done.exception, Seg3DError)
    return str(done.exception)


@pytest.fixture(scope="module")
def results(box_room_folder, tmp_path_factory) -> Path:
    """A finished run on the room with three boxes, with the true masks."""
    out = tmp_path_factory.mktemp("results") / "boxes"
    done = seg3d("run", box_room_folder, "--out", out, "--masks", box_room_folder / "instance", *SMALL)
    assert done.exit_code == 0, done.exception
    return out


@pytest.fixture(scope="module")
def truth(results, tmp_path_factory) -> Path:
    """A home with denser points than the map's: each of its points, three times, a little apart."""
    home = tmp_path_factory.mktemp("truth") / "boxes"
    home.mkdir()
    with np.load(results / "instances.npz") as data:
        xyz, instance, ids = data["xyz"], data["instance"], data["ids"].tolist()
    shifts = np.array([[0, 0, 0], [0.004, 0, 0], [0, 0.004, 0]], np.float32)
    np.savez(home / "points.npz", xyz=(xyz[:, None] + shifts).reshape(-1, 3), instance=np.repeat(instance, 3))
    about = {str(i): {"category": f"box {i}", "is_structure": False, "is_carpet": False} for i in ids}
    (home / "instances.json").write_text(json.dumps({"instances": about}))
    return home


def test_a_saved_map_against_a_home(results, truth, tmp_path) -> None:
    found = evaluate(tmp_path, results, truth)
    assert [(r["protocol"], r["duplicates"]) for r in found["results"]] == [("agnostic", True), ("agnostic", False)]
    assert [r["ap"] for r in found["results"]] == pytest.approx([1, 1])
    assert found["transfer"]["boxes"]["radius"] == 0.1 and found["transfer"]["boxes"]["beyond"] == 0
    assert "ScanNet AP, class-agnostic, valid: every label of the ground truth, pooled over scenes" in found["printed"]
    assert "within 10 cm" in found["printed"] and "structure and carpets are void" in found["printed"]


def test_a_folder_of_maps_against_a_folder_of_homes_equals_one_scene(results, truth, tmp_path) -> None:
    one, all_scenes = (evaluate(tmp_path, *paths) for paths in ((results, truth), (results.parent, truth.parent)))
    assert one["results"] == all_scenes["results"]


def test_exports_evaluate_as_the_map(results, truth, tmp_path) -> None:
    for name in ("boxes.npz", "boxes"):
        assert seg3d("export", results, "--out", tmp_path / name).exit_code == 0
        found = evaluate(
            tmp_path, tmp_path / name, truth, "--radius", 0.1, "--protocol", "agnostic", "--protocol", "own"
        )
        assert [r["ap"] for r in found["results"]] == pytest.approx([1, 1, 0, 0])


def test_a_stated_radius_is_used_and_said(results, truth, tmp_path) -> None:
    found = evaluate(tmp_path, results, truth, "--radius", 0.001)
    vertices = found["transfer"]["boxes"]["vertices"]
    assert found["transfer"]["boxes"]["beyond"] > vertices / 3
    assert found["results"][0]["ap"] < 1 and "within 0.1 cm" in found["printed"]


def test_the_votes_of_re0(results, truth, tmp_path) -> None:
    found = evaluate(tmp_path, results, truth, "--protocol", "re0-gt-own", "--protocol", "own")
    by_name = {(r["protocol"], r["name"].rsplit(", ")[-1]): r["ap"] for r in found["results"]}
    assert by_name == pytest.approx(
        {
            ("re0-gt-own", "pooled over scenes"): 1.0,
            ("re0-gt-own", "mean over scenes"): 1.0,
            ("own", "pooled over scenes"): 0.0,
        }
    )
    assert "own: 3 of 3 predictions have no label of this list" in found["printed"]


def test_text_files(tmp_path) -> None:
    found = evaluate(tmp_path, GOLDEN / "pred", GOLDEN / "gt", "--protocol", "scannet18", "--protocol", "scannet200")
    first, third = found["results"][0], found["results"][2]
    assert first["ap"] == pytest.approx(13 / 36) and first["ap25"] == pytest.approx(23 / 36)
    assert third["groups"]["tail"] == [None, None, None]
    assert "198 ScanNet200 classes" in found["printed"] and "head" in found["printed"]


def test_duplicates_are_counted_and_both_numbers_printed(tmp_path) -> None:
    masks = np.zeros((3, 400), bool)
    masks[:2, :200] = True
    masks[2, 200:] = True
    np.savez(tmp_path / "scene.npz", masks=masks, scores=[0.5, 0.9, 0.4], labels=[5, 5, 5])
    (tmp_path / "truth.txt").write_text("5001\n" * 200 + "5002\n" * 200)
    found = evaluate(tmp_path, tmp_path / "scene.npz", tmp_path / "truth.txt", "--protocol", "scannet18")
    assert found["results"][0]["ap"] < found["results"][1]["ap"] == pytest.approx(1)
    assert "with duplicates" in found["printed"] and "without them" in found["printed"]


def test_positions_of_the_vertices_may_lie_apart(results, truth, tmp_path) -> None:
    with np.load(truth / "points.npz") as data:
        np.savez(tmp_path / "boxes.npz", xyz=data["xyz"])
        (tmp_path / "boxes.txt").write_text("".join(f"{5000 + i}\n" if i else "0\n" for i in data["instance"]))
    (tmp_path / "mesh").mkdir()
    (tmp_path / "boxes.npz").rename(tmp_path / "mesh" / "boxes.npz")
    found = evaluate(tmp_path, results, tmp_path / "boxes.txt", "--points", tmp_path / "mesh")
    assert found["results"][0]["ap"] == pytest.approx(1)
    assert "--points" in error_of(results, tmp_path / "boxes.txt")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("nowhere", GOLDEN / "gt"), "nowhere does not exist: predictions are"),
        ((GOLDEN / "pred", "nowhere"), "nowhere does not exist: ground truth is"),
        ((GOLDEN / "pred" / "predicted_masks", GOLDEN / "gt"), "no scene has both"),
        ((GOLDEN / "pred", GOLDEN / "gt", "--protocol", "coco"), "no protocol 'coco': choose among scannet18"),
        ((GOLDEN / "pred", GOLDEN / "gt", "--radius", "-1"), "metres above 0"),
        ((GOLDEN / "pred", GOLDEN / "gt", "--points", GOLDEN), "no positions of scene0000_00"),
        ((GOLDEN / "pred", GOLDEN / "gt", "--json", "nowhere/out.json"), "the folder nowhere does not exist"),
        ((GOLDEN / "gt", GOLDEN / "gt"), "is not `relative/mask/path label score`"),
    ],
)
def test_mistakes_are_one_sentence(words, message) -> None:
    assert message in error_of(*words)


def test_a_mistake_is_printed_with_exit_code_2() -> None:
    command = [sys.executable, "-m", "seg3d_core.cli", "eval", "nowhere", str(GOLDEN / "gt")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 2 and done.stderr.startswith("seg3d: nowhere does not exist")


def test_a_vocabulary_needs_maps_and_an_encoder(results, truth) -> None:
    words = (results, truth, "--vocabulary", "scannet200", "--set", "query.encoder=none")
    assert "--vocabulary needs a text encoder" in error_of(*words)
    assert "holds none" in error_of(GOLDEN / "pred", GOLDEN / "gt", "--vocabulary", "scannet18")


class ThirdWord:
    """Finds that every instance but the first is what the third word says."""

    encoder_id = "third-word"

    def compare(self, texts, snapshot):
        seen = np.arange(len(snapshot.instances)) > 0
        return np.tile(np.arange(len(texts)) == 2, (len(seen), 1)).astype(float), seen


def test_a_vocabulary_names_the_instances_of_maps_anew(results, truth, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("seg3d_core.cli.eval.build_query", lambda config: ThirdWord())
    with np.load(results / "instances.npz") as data:
        second = int(data["ids"][1])
    (tmp_path / "words.txt").write_text(f"sky\nsea\nBox  {second}\n")
    found = evaluate(tmp_path, results, truth, "--protocol", "own", "--vocabulary", tmp_path / "words.txt")
    assert found["results"][0]["per_class"][f"box {second}"][2] > 0
    assert (found["results"][0]["predictions"], found["results"][0]["unlisted"]) == (2, 1)
    assert found["vocabulary"]["encoder"] == "third-word"
    assert "nearest of 3 entries" in found["printed"]


def test_the_house_layout(shared_data, tmp_path) -> None:
    """The homes' own points with their own ids are a perfect prediction; doors and carpets cost nothing."""
    home = shared_data / "house" / "house1"
    with np.load(home / "points.npz") as data:
        ids = np.unique(data["instance"][data["instance"] > 0])
        np.savez(tmp_path / "house1.npz", instance=data["instance"], ids=ids, scores=np.ones(len(ids)), xyz=data["xyz"])
    found = evaluate(tmp_path, tmp_path / "house1.npz", home, "--protocol", "agnostic", "--protocol", "re0-gt-own")
    assert [r["ap"] for r in found["results"]] == pytest.approx([1] * 6)
    assert found["transfer"]["house1"] == {"radius": None, "vertices": 195432, "beyond": 0}
