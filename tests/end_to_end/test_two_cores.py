# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Both cores on one map, as a person types it; the trained one with random weights that need no 2D features."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

import cv2
import numpy as np
import pytest

from seg3d_core.cli.compare import figures, same_things, table
from seg3d_core.cli.options import cores
from seg3d_core.errors import ConfigError

SMALL = ("--set", "map.voxel_size=0.05", "--set", "re0.min_points=20", "--set", "query.encoder=none")


def seg3d(*words):
    command = [sys.executable, "-m", "seg3d_core.cli", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    pytest.importorskip("torch")
    pytest.importorskip("safetensors")
    from seg3d_core.models.architecture import PUBLISHED
    from seg3d_core.models.random_weights import random_weights

    small = {"backbone": "mlp", "feature_channels": 16, "layers": 1, "feed_forward_width": 16, "thing_classes": 18}
    path = tmp_path_factory.mktemp("weights") / "random.safetensors"
    path.write_bytes(random_weights("", architecture=dataclasses.replace(PUBLISHED["baseline200"], **small)))
    return path


def test_one_run_compares_both_cores(box_room_folder, weights, tmp_path) -> None:
    settings = (*SMALL, "--set", f"segdino3d.weights={weights}", "--set", "segdino3d.instance_score=0")
    words = ("run", box_room_folder, "--masks", box_room_folder / "instance", "--out", tmp_path / "out", *settings)
    done = seg3d(*words, "--core", "re0,segdino3d")
    assert done.returncode == 0, done.stderr
    assert "Cores on one map" in done.stdout and "segdino3d" in done.stdout
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert list(report["cores"]) == ["re0", "segdino3d"] and report["config"]["core"] == "re0"
    assert report["cores"]["re0"]["instances"] == report["cores"]["re0"]["same_as_first"] == 3
    assert report["cores"]["segdino3d"]["seconds"] > 0
    height, width, _ = cv2.imread(str(tmp_path / "out" / "comparison.png")).shape
    assert (width, height) == (1600, 1600)
    with np.load(tmp_path / "out" / "instances-segdino3d.npz") as data:
        assert len(data["xyz"]) == report["points"]
        assert len(data["ids"]) == report["cores"]["segdino3d"]["instances"]
    # The map that is saved is the first core's, and opens without the other's weights.
    weights_moved = weights.rename(weights.with_suffix(".away"))
    exported = seg3d("export", tmp_path / "out", "--out", tmp_path / "map.ply")
    weights_moved.rename(weights)
    assert exported.returncode == 0, exported.stderr
    again = seg3d(*words, "--overwrite")
    assert again.returncode == 0, again.stderr
    left = {path.name for path in (tmp_path / "out").iterdir()}
    assert left == {"map.seg3d", "report.json", "picture.png", "instances.npz"}


def test_the_trained_core_alone_without_weights_says_what_to_do(box_room_folder, tmp_path) -> None:
    done = seg3d("run", box_room_folder, "--out", tmp_path / "out", "--core", "segdino3d")
    assert done.returncode == 2
    assert "segdino3d" in done.stderr and not (tmp_path / "out").exists()


def test_random_weights_are_written_once(tmp_path) -> None:
    pytest.importorskip("torch")
    assert seg3d("models", "random", tmp_path / "w.safetensors").returncode == 0
    again = seg3d("models", "random", tmp_path / "w.safetensors")
    assert again.returncode == 2 and "exists" in again.stderr


def test_names_of_cores_are_checked() -> None:
    assert cores(None) == () and cores("re0") == ("re0",) and cores("segdino3d, re0") == ("segdino3d", "re0")
    for wrong in ("re1", "re0,re0", "re0,"):
        with pytest.raises(ConfigError, match="one of re0, segdino3d"):
            cores(wrong)


def test_things_are_the_same_where_most_points_agree() -> None:
    one = np.array([0, 1, 1, 1, 1, 2, 2, 0])
    two = np.array([5, 5, 5, 5, 0, 7, 0, 7])
    # 3 of 5 points for the first pair; 1 of 3 for the second.
    assert same_things(one, two) == same_things(two, one) == 1
    assert same_things(one, 0 * one) == 0 == same_things(one[:0], one[:0])


def test_an_empty_map_has_a_table_too() -> None:
    from seg3d_core.build import build_scene
    from seg3d_core.config import Config

    scene = build_scene(Config())
    data = figures(scene, {"re0": scene.snapshot, "segdino3d": scene.snapshot})
    assert data["re0"]["instances"] == 0 and data["segdino3d"]["points_on_instances"] == 0
    assert table(data).row_count == 2
