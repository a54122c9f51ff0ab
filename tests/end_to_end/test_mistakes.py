# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""What a stranger does wrong in the first ten minutes: each gets one sentence, exit code 2, and loses nothing."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest

from seg3d_core.cli import main
from seg3d_core.cli.results import claimed

SMALL = ("--set", "map.voxel_size=0.05", "--set", "re0.min_points=20", "--set", "query.encoder=none")


@pytest.fixture
def seg3d(monkeypatch, capsys) -> Callable[..., tuple[int, str, str]]:
    """The command in this process: exit code, standard output, standard error."""
    monkeypatch.setenv("COLUMNS", "300")

    def call(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["seg3d", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            main()
        out, err = capsys.readouterr()
        return int(end.value.code or 0), out, err

    return call


@pytest.fixture
def scene(box_room_folder, tmp_path) -> Path:
    """A copy of the box room, to be spoiled."""
    return Path(shutil.copytree(box_room_folder, tmp_path / "a room – été"))


@contextmanager
def no_file_larger_than(size: int):
    """A disk that is nearly full, as far as this process can tell."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--set", "map.voxel_size=[1"), "--set 'map.voxel_size=[1'"),
        (("--set", "=3"), "--set wants name=value"),
        (("-o", "color"), "--option wants name=value"),
        (("-o", "color=[1"), "--option 'color=[1'"),
        (("-o", "rate=abc"), "rate = 'abc'"),
        (("-o", "rate=0"), "rate 0.0 must be above 0"),
        (("-o", "color=7"), "has no folder 7/"),
        (("--depth-scale", "0"), "depth_scale 0.0 must be above 0"),
        (("--depth-scale", "nan"), "depth_scale nan must be above 0"),
        (("--kind", "synthetic"), "a generated room has no path"),
        (("--set", "perception.masks=topic"), "only the ROS node"),
    ],
)
def test_options_that_make_no_sense(seg3d, scene, tmp_path, words, message):
    code, out, err = seg3d("run", scene, "--out", tmp_path / "out", *words)
    assert code == 2 and out == "" and message in err
    assert not (tmp_path / "out").exists(), "nothing is left by a run that never began"


@pytest.mark.parametrize("path", ["", "nowhere", "synthetic:abc"])
def test_check_of_what_can_not_be_opened_is_silent_on_standard_output(seg3d, path):
    code, out, err = seg3d("check", path, "--json")
    assert code == 2 and out == "" and len(err.splitlines()) == 1


def test_a_folder_that_may_not_be_read_is_named(seg3d, scene, monkeypatch):
    def refuse(folder: Path):
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(Path, "iterdir", refuse)
    code, _, err = seg3d("check", scene)
    assert code == 2 and "color: Permission denied" in err


def test_poses_that_are_no_matrices_are_named(seg3d, scene):
    for file in (scene / "pose").iterdir():
        file.write_text("bonjour")
    code, _, err = seg3d("check", scene)
    assert code == 2 and "0.txt holds no 4x4 matrix" in err


def test_missing_colour_is_told(seg3d, scene, caplog):
    for number in range(0, 12, 2):
        (scene / "color" / f"{number}.jpg").unlink()
    assert seg3d("check", scene)[0] == 0
    assert "6 depth images with a pose have no colour" in caplog.text


def test_depth_without_values_is_refused(seg3d, scene, tmp_path):
    for file in (scene / "depth").iterdir():
        cv2.imwrite(str(file), np.zeros((60, 80), np.uint16))
    code, out, err = seg3d("run", scene, "--out", tmp_path / "out", *SMALL)
    assert code == 2 and out == "" and "map.depth_min" in err
    assert list((tmp_path / "out").iterdir()) == []


def test_wrong_poses_are_told_before_the_map_is_believed(seg3d, scene, tmp_path):
    first = (scene / "pose" / "0.txt").read_text()
    for file in (scene / "pose").iterdir():
        file.write_text(first)
    code, out, err = seg3d("run", scene, "--out", tmp_path / "out", "--json", *SMALL)
    assert code == 0 and "all poses are equal" in err
    assert "all poses are equal" in json.loads(out)["warnings"][0]


@pytest.mark.parametrize(
    ("xyz", "message"),
    [
        (np.zeros((0, 3)), "holds no points"),
        (np.array([[0, 0, np.nan], [1, 1, 1]]), "1 of 2 points have NaN"),
        (np.full((50, 3), 900.0), "sees any of the 50 points"),
    ],
)
def test_clouds_that_no_frame_can_see(seg3d, scene, tmp_path, xyz, message):
    np.savez(tmp_path / "cloud.npz", xyz=xyz.astype(np.float32))
    code, out, err = seg3d("run", scene, "--out", tmp_path / "out", "--points", tmp_path / "cloud.npz", *SMALL)
    assert code == 2 and out == "" and message in err and "cloud.npz" in err


def test_masks_of_another_shape_are_refused(seg3d, scene, tmp_path):
    (tmp_path / "square").mkdir()
    for number in range(12):
        cv2.imwrite(str(tmp_path / "square" / f"{number}.png"), np.ones((64, 64), np.uint8))
    code, _, err = seg3d("run", scene, "--out", tmp_path / "out", "--masks", tmp_path / "square", *SMALL)
    assert code == 2 and "64x64" in err and "80x60" in err


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda file: file.write_bytes(file.read_bytes()[:-20]), "no frame had readable masks"),
        (lambda file: cv2.imwrite(str(file), np.zeros((60, 80), np.uint8)), "are all empty"),
    ],
)
def test_no_instances_has_a_reason(seg3d, scene, tmp_path, spoil, message):
    for file in (scene / "instance").iterdir():
        spoil(file)
    code, out, _ = seg3d("run", scene, "--out", tmp_path / "out", "--masks", scene / "instance", *SMALL)
    assert code == 0 and message in out


def test_a_folder_in_use_and_a_full_disk_leave_the_old_results_whole(seg3d, scene, tmp_path):
    out = tmp_path / "out"
    run = ("run", scene, "--out", out, *SMALL, "--overwrite")
    out.mkdir()
    (out / "recording.rrd").write_text("of an earlier run")
    assert seg3d(*run)[0] == 0
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    assert len(before) == 4
    with claimed(out):
        code, printed, err = seg3d(*run)
    assert code == 2 and printed == "" and "another run is writing" in err
    with no_file_larger_than(20_000):
        code, printed, err = seg3d(*run)
    assert code == 2 and printed == "" and "no space left" in err
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before
    for name in ("a.ply", "a.npz"):
        with no_file_larger_than(2_000):
            code, _, err = seg3d("export", out, "--out", tmp_path / "exports" / name)
        assert code == 2 and "no space left" in err and name in err
    assert list((tmp_path / "exports").iterdir()) == []
    (tmp_path / "file").write_text("")
    code, _, err = seg3d("export", out, "--out", tmp_path / "file" / "a.ply")
    assert code == 2 and "cannot write" in err


def test_settings_are_readable_on_a_narrow_terminal():
    command = [sys.executable, "-m", "seg3d_core.cli", "settings"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "COLUMNS": "60"})
    assert "map.depth_tolerance_relative" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 60


@pytest.mark.parametrize(
    ("camera", "message"),
    [
        ('{"camera": 3}', "must hold w, h, fx"),
        ('{"w": 0, "h": 60, "fx": 64, "fy": 64, "cx": 39.5, "cy": 29.5}', "must be above 0"),
    ],
)
def test_a_replica_camera_that_is_none(seg3d, tmp_path, camera, message):
    (tmp_path / "results").mkdir()
    (tmp_path / "traj.txt").write_text("1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1")
    (tmp_path / "cam_params.json").write_text(camera)
    code, _, err = seg3d("check", tmp_path)
    assert code == 2 and "cam_params.json" in err and message in err


def test_a_bag_that_was_cut_short(seg3d, tmp_path):
    (tmp_path / "drive.mcap").write_bytes(b"\x89MCAP0\r\n" + bytes(200))
    code, out, err = seg3d("check", tmp_path / "drive.mcap", "--json")
    assert code == 2 and out == "" and "cut short" in err and "Traceback" not in err


def test_a_profile_says_what_it_lacks_once_and_what_mends_it(seg3d, scene, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    code, out, err = seg3d("run", scene, "--out", tmp_path / "out", "--profile", "paper-re0", *SMALL)
    assert code == 2 and out == "" and not (tmp_path / "out").exists()
    assert "profile paper-re0: masks from cropformer" in err and "not for commercial use" in err
    assert err.count("seg3d models fetch cropformer_hornet --from") == 1
    assert "cannot run without what is missing" in err
    code, _, err = seg3d("run", scene, "--out", tmp_path / "out", *SMALL)
    assert code == 0 and "profile cpu-geometric: masks from geometric" in err and "missing:" not in err
