# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""A map that is saved by itself: atomic, with the file before kept, told and never in the way of mapping."""

from __future__ import annotations

import importlib
import os
import time
from pathlib import Path

import pytest

from seg3d_core.build import build_scene
from seg3d_core.config import build
from seg3d_core.errors import MapFileError
from seg3d_core.runtime import LiveRuntime, autosave
from seg3d_core.runtime.autosave import Autosaver, previous_of, write_with_previous
from seg3d_core.scene import Scene
from seg3d_core.storage import SavedScene, copy_scene, read_scene

SETTINGS = {"map.voxel_size": 0.06, "query.encoder": "none", "perception.masks": "ground_truth", "re0.min_points": 5}
OFTEN = {**SETTINGS, "runtime.autosave_minutes": 0.002}


@pytest.fixture
def scene(box_room) -> Scene:
    scene = build_scene(build(SETTINGS))
    for frame in box_room(2):
        scene.add_frame(frame)
    return scene


def frames_in(path: Path) -> int:
    return int(read_scene(path).meta["frames"])


def grown(scene: Scene, frames: int) -> SavedScene:
    """The scene's copy, told from others by its count of frames."""
    scene.frames = frames
    return copy_scene(scene, {}, "")


def test_the_file_before_stays_beside(scene, tmp_path):
    path = tmp_path / "new folder" / "autosave.seg3d"
    for number in (1, 2, 3):
        write_with_previous(path, grown(scene, number))
    assert (frames_in(path), frames_in(previous_of(path))) == (3, 2)
    assert sorted(file.name for file in path.parent.iterdir()) == ["autosave.previous.seg3d", "autosave.seg3d"]


def test_without_hard_links_it_is_copied(scene, tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    path = tmp_path / "autosave.seg3d"
    for number in (1, 2):
        write_with_previous(path, grown(scene, number))
    assert (frames_in(path), frames_in(previous_of(path))) == (2, 1)


class Killed(BaseException):
    """Stands for SIGKILL: nothing after it happens."""


def test_at_every_moment_a_whole_map_lies_there(scene, tmp_path, monkeypatch):
    """Killed before each change of a name, it leaves the old or the new file, and one before that is as whole."""
    path, seen = tmp_path / "autosave.seg3d", []
    for number in range(30):
        for file in tmp_path.iterdir():
            file.unlink()
        for frames in (1, 2):
            write_with_previous(path, grown(scene, frames))
        left = [number]

        def dying(function, left=left):
            def call(*args, **options):
                if left[0] <= 0:
                    raise Killed
                left[0] -= 1
                return function(*args, **options)

            return call

        died = False
        with monkeypatch.context() as patch:
            for name in ("replace", "unlink"):
                patch.setattr(Path, name, dying(getattr(Path, name)))
            patch.setattr(os, "link", dying(os.link))
            try:
                write_with_previous(path, grown(scene, 3))
            except Killed:
                died = True
        seen.append((frames_in(previous_of(path)), frames_in(path)))
        if not died:
            break
    assert set(seen) == {(1, 2), (2, 2), (2, 3)} and seen == sorted(seen)


def test_a_failure_is_told_and_changes_no_file(scene, tmp_path, monkeypatch):
    path = tmp_path / "autosave.seg3d"
    saver = Autosaver(path, 3600)
    saver.save(grown(scene, 1))
    first = saver.state
    assert (first.count, first.fault) == (1, "") and abs(first.at - time.time()) < 60

    def fail(*_args, **_options):
        raise MapFileError("no_space", "no space left")

    with monkeypatch.context() as patch:
        patch.setattr(autosave, "write_scene", fail)
        saver.save(grown(scene, 2))
    assert (saver.state.fault, saver.state.at, saver.state.count) == ("no space left", first.at, 1)
    assert [file.name for file in tmp_path.iterdir()] == ["autosave.seg3d"] and frames_in(path) == 1
    saver.save(grown(scene, 3))
    assert saver.state.fault == "" and frames_in(path) == 3
    saver.stop(10)


def test_a_live_map_is_saved_now_and_then_and_at_the_end(box_room, tmp_path, until):
    path, frames = tmp_path / "autosave.seg3d", box_room(6)
    runtime = LiveRuntime(build(OFTEN), autosave=path)
    runtime.start()
    try:
        assert until(lambda: "autosave" in runtime.statistics().saves)
        time.sleep(0.3)
        assert not path.exists(), "an empty map is not worth a file, and would take the place of another"
        runtime.submit(frames[0])
        assert until(lambda: runtime.statistics().saves["autosave"].count)
        before = runtime.statistics().saves["autosave"].count
        assert frames_in(path) == 1
        time.sleep(0.5)
        assert runtime.statistics().saves["autosave"].count == before, "nothing new, nothing saved"
        for frame in frames[1:3]:
            runtime.submit(frame)
            assert until(lambda n=frame.index: runtime.statistics().counters["frames"] > n)
        assert until(lambda: runtime.statistics().saves["autosave"].count > before)
        runtime.submit(frames[3])
        assert until(lambda: runtime.statistics().counters["frames"] == 4)
    finally:
        runtime.stop()
    assert frames_in(path) == 4, "once more at the end"


def test_it_is_off_where_nobody_asked(box_room, tmp_path, until):
    runtime = LiveRuntime(build(SETTINGS), autosave=tmp_path / "autosave.seg3d")
    runtime.start()
    runtime.submit(box_room(1)[0])
    assert until(lambda: runtime.statistics().points)
    assert set(runtime.statistics().saves) == {"request"}
    runtime.stop()
    assert list(tmp_path.iterdir()) == []


def test_a_save_on_request_is_told_too(box_room, tmp_path, until):
    runtime = LiveRuntime(build(SETTINGS))
    runtime.start()
    try:
        runtime.submit(box_room(1)[0])
        assert until(lambda: runtime.statistics().points)
        assert runtime.statistics().saves["request"].at is None
        runtime.save(tmp_path / "a.seg3d")
        with pytest.raises(MapFileError):
            runtime.save(tmp_path / "a.seg3d")
        save = runtime.statistics().saves["request"]
        assert save.count == 1 and save.path == str(tmp_path / "a.seg3d") and "exists already" in save.fault
    finally:
        runtime.stop()


def test_a_run_saves_on_its_way_and_tidies_up(box_room_folder, tmp_path, monkeypatch, until):
    command = importlib.import_module("seg3d_core.cli.run")  # of that name there is a function, too
    seen: list[int] = []

    def slowly(scene, source, masks, *, on_frame, **options):
        def shown(done, points):
            on_frame(done, points)
            if done == 3:
                assert until(lambda: on_frame(done, points) or (tmp_path / "autosave.seg3d").exists())
                seen.append(frames_in(tmp_path / "autosave.seg3d"))

        return original(scene, source, masks, on_frame=shown, **options)

    original = command.run_offline
    monkeypatch.setattr(command, "run_offline", slowly)
    code = command.run(str(box_room_folder), tmp_path, build(OFTEN), points=None, record=False, overwrite=False,
                       json_output=True, source_options={"max_frames": 6})  # fmt: skip
    assert code == 0
    assert len(seen) == 1 and 1 <= seen[0] <= 3
    assert not list(tmp_path.glob("autosave*"))
