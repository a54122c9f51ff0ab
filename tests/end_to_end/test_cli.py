# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""The commands of the README, as a person types them."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from seg3d_core.errors import Seg3DError
from seg3d_core.geometry import matrix_to_quaternion

# The package has a command of the same name.
view = importlib.import_module("seg3d_core.cli.view")
SMALL = ("--set", "map.voxel_size=0.05", "--set", "re0.min_points=20", "--set", "query.encoder=none")


def seg3d(*words, **options):
    command = [sys.executable, "-m", "seg3d_core.cli", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False, **options)


@pytest.fixture(scope="module")
def results(box_room_folder, tmp_path_factory):
    """A finished run with masks made elsewhere, in a folder."""
    out = tmp_path_factory.mktemp("results") / "boxes"
    done = seg3d("run", box_room_folder, "--out", out, "--masks", box_room_folder / "instance", *SMALL)
    assert done.returncode == 0, done.stderr
    return out


def test_help_needs_no_heavy_library():
    code = (
        "import sys; sys.argv = ['seg3d', '--help']\n"
        "import seg3d_core.cli as c\n"
        "try:\n    c.main()\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'numba', 'cv2', 'scipy', 'open3d', 'rerun', 'pydantic'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "seg3d run PATH --out DIR" in done.stdout


@pytest.mark.parametrize("command", ["check", "run", "query", "view", "export", "settings", "models", "eval", "warmup"])
def test_every_command_explains_itself(command):
    done = seg3d(command, "--help")
    assert done.returncode == 0 and "Usage" in done.stdout


@pytest.fixture
def viewed(monkeypatch):
    """What the viewer was opened with: the file's name and the streams in it; no window."""
    pytest.importorskip("rerun", reason="the viewer is an optional part")
    opened = []

    def call(words):
        verified = subprocess.run([*words[:3], "rrd", "verify", words[3]], capture_output=True, text=True, check=False)
        opened.append((Path(words[3]).name, verified.returncode))
        return 0

    monkeypatch.setattr(view.subprocess, "call", call)
    return opened


def test_view_opens_the_map_where_the_run_kept_no_recording(results, viewed):
    assert view.view(results) == 0
    assert view.view(results / "map.seg3d") == 0
    assert viewed == [("map.rrd", 0)] * 2


def test_view_opens_the_recording_of_the_run(tmp_path, viewed):
    (tmp_path / "recording.rrd").write_bytes(b"no recording at all")
    assert view.view(tmp_path) == 0
    (name, code) = viewed[0]
    assert name == "recording.rrd" and code != 0


def test_view_says_how_to_get_the_viewer(results, monkeypatch):
    monkeypatch.setattr(view.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(Seg3DError, match="pip install"):
        view.view(results)


def test_run_leaves_what_it_promises(results):
    assert {p.name for p in results.iterdir()} == {"map.seg3d", "report.json", "picture.png", "instances.npz"}
    report = json.loads((results / "report.json").read_text())
    assert report["frames"] == report["keyframes"] == 12 and len(report["instances"]) == 3
    assert report["stages_ms"]["integrate"]["count"] == 12
    with np.load(results / "instances.npz") as data:
        assert data["xyz"].dtype == np.float32 and data["xyz"].shape[1] == 3
        assert data["instance"].dtype == np.int32 and len(data["instance"]) == len(data["xyz"]) == report["points"]
        assert set(np.unique(data["instance"])) == {0, *data["ids"].tolist()}
        assert len(data["ids"]) == len(data["scores"]) == len(data["names"]) == 3


def test_results_are_not_replaced_unasked(results, box_room_folder):
    before = (results / "map.seg3d").read_bytes()
    done = seg3d("run", box_room_folder, "--out", results)
    assert done.returncode == 2 and "--overwrite" in done.stderr
    assert (results / "map.seg3d").read_bytes() == before


def test_query_without_an_encoder_says_what_is_missing(results):
    done = seg3d("query", results, "the box", "--json", "--set", "query.encoder=none")
    answer = json.loads(done.stdout)
    assert done.returncode == 1 and not answer["matched"] and "encoder" in answer["message"]


def test_exports(results, tmp_path):
    for name in ("map.ply", "map.npz"):
        assert seg3d("export", results, "--out", tmp_path / name).returncode == 0
    assert (tmp_path / "map.ply").read_bytes().startswith(b"ply")
    assert seg3d("export", results, "--out", tmp_path / "scannet").returncode == 0
    lines = (tmp_path / "scannet" / "boxes.txt").read_text().splitlines()
    assert len(lines) == 3
    mask, label, score = lines[0].split()
    points = json.loads((results / "report.json").read_text())["points"]
    assert len(np.loadtxt(tmp_path / "scannet" / mask)) == points and label == "1" and 0 <= float(score) <= 1
    done = seg3d("export", results, "--out", tmp_path / "map.ply")
    assert done.returncode == 2 and "exists" in done.stderr


def test_a_given_cloud_is_a_fixed_map(results, box_room_folder, tmp_path):
    with np.load(results / "instances.npz") as data:
        np.savez(tmp_path / "cloud.npz", xyz=data["xyz"][::2])
        count = len(data["xyz"][::2])
    out = tmp_path / "fixed"
    masks = box_room_folder / "instance"
    done = seg3d("run", box_room_folder, "--out", out, "--masks", masks, "--points", tmp_path / "cloud.npz", *SMALL)
    assert done.returncode == 0, done.stderr
    report = json.loads((out / "report.json").read_text())
    assert report["points"] == count and len(report["instances"]) == 3
    assert seg3d("export", out, "--out", tmp_path / "fixed.npz").returncode == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("run", "nowhere", "--out", "o"), "nowhere"),
        (("run", ".", "--out", "o"), "layout"),
        (("run", "synthetic", "--out", "o", "--set", "map.voxel_size=9"), "map.voxel_size"),
        (("run", "synthetic", "--out", "o", "--masks", "nowhere"), "nowhere"),
        (("query", "nowhere", "the sofa"), "nowhere"),
        (("export", "nowhere", "--out", "a.ply"), "nowhere"),
        (("check", "nowhere"), "nowhere"),
    ],
)
def test_mistakes_get_a_sentence_and_no_traceback(words, message, tmp_path):
    done = seg3d(*words, cwd=tmp_path, env={**os.environ, "COLUMNS": "400"})
    assert done.returncode in (1, 2)
    text = done.stderr + done.stdout
    assert message in text and "Traceback" not in text


def test_a_truncated_map_is_named(results, tmp_path):
    file = tmp_path / "cut.seg3d"
    file.write_bytes((results / "map.seg3d").read_bytes()[:-1000])
    done = seg3d("query", file, "the box")
    assert done.returncode == 2 and "cut.seg3d" in done.stderr and "Traceback" not in done.stderr


def test_ctrl_c_saves_what_was_seen(studio, tmp_path, until):
    out = tmp_path / "out"
    often = ("--set", "runtime.autosave_minutes=0.001")
    child = subprocess.Popen(
        [sys.executable, "-m", "seg3d_core.cli", "run", str(studio), "--out", str(out), "--json", *SMALL, *often],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    # Saved on the way: frames are in the map.
    assert until(lambda: (out / "autosave.seg3d").exists() or child.poll() is not None, 120)
    child.send_signal(signal.SIGINT)
    stdout, stderr = child.communicate(timeout=120)
    assert "Traceback" not in stderr, stderr
    assert child.returncode in (0, 130), stderr
    assert json.loads(stdout)["frames"] > 0
    assert (out / "map.seg3d").exists()


def test_check_says_fine(box_room_folder):
    done = seg3d("check", box_room_folder, "--json")
    report = json.loads(done.stdout)
    assert done.returncode == 0 and report["ok"], report


def tum_file(path, folder, off=(0.0, 0.0, 0.0), stamps=None):
    """The poses of a folder in ScanNet's layout as lines of `stamp tx ty tz qx qy qz qw`, off by so many metres."""
    names = sorted((p.stem for p in (folder / "pose").iterdir()), key=int)
    poses = [np.loadtxt(folder / "pose" / f"{name}.txt") for name in names]
    lines = [
        " ".join(f"{n:.9g}" for n in (stamp, *(pose[:3, 3] + off), *matrix_to_quaternion(pose)))
        for stamp, pose in zip(stamps or range(len(poses)), poses, strict=True)
    ]
    path.write_text("# stamp tx ty tz qx qy qz qw\n" + "\n".join(lines) + "\n")
    return path


def test_a_run_follows_corrected_poses(results, box_room_folder, tmp_path):
    file = tum_file(tmp_path / "corrected.txt", box_room_folder, off=(1.0, 2.0, 0.0))
    with file.open("a") as lines:
        lines.write("999.0 0 0 0 0 0 0 1\n3.0 0 0 0 0 0 0 0\n")
    words = (
        "run",
        box_room_folder,
        "--masks",
        box_room_folder / "instance",
        "--corrections",
        file,
        *SMALL,
        "-o",
        "rate=1",
    )
    done = seg3d(*words, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "followed the corrected poses" in done.stderr, done.stderr
    assert "2 poses of" in done.stderr, done.stderr.split("points merged")[1]
    counters = json.loads((tmp_path / "out" / "report.json").read_text())["counters"]
    assert counters["corrections applied"] == counters["correction poses improper"] == 1
    with np.load(results / "instances.npz") as a, np.load(tmp_path / "out" / "instances.npz") as b:
        assert np.abs(np.median(b["xyz"] - np.median(a["xyz"], axis=0), axis=0) - (1, 2, 0)).max() < 0.03


def test_corrected_poses_that_fit_nothing_are_told(box_room_folder, tmp_path):
    words = ("run", box_room_folder, "--masks", box_room_folder / "instance", *SMALL, "--out", tmp_path / "out")
    late = tum_file(tmp_path / "late.txt", box_room_folder, stamps=[1e9 + i for i in range(12)])
    done = seg3d(*words, "--corrections", late)
    assert done.returncode == 0 and "none of its stamps is one of a frame" in done.stderr
    (tmp_path / "words.txt").write_text("a b c d e f g h\n")
    for file, sentence in (("none.txt", "is no file"), ("words.txt", "eight numbers")):
        done = seg3d(*words, "--overwrite", "--corrections", tmp_path / file)
        assert done.returncode == 2 and sentence in done.stderr and "Traceback" not in done.stderr
    done = seg3d(*words, "--overwrite", "--corrections", late, "--points", tmp_path / "cloud.npz")
    assert done.returncode == 2 and "leave one out" in done.stderr
