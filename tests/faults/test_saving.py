# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Saving under fire: killed 200 times, on a full disk, in a folder that may not be written."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from seg3d_core.build import rebuild_scene
from seg3d_core.config import build
from seg3d_core.errors import MapFileError
from seg3d_core.runtime import LiveRuntime
from seg3d_core.scene import Scene
from seg3d_core.storage import copy_scene, read_scene, write_scene

SETTINGS = {"map.voxel_size": 0.06, "query.encoder": "none", "perception.masks": "ground_truth", "re0.min_points": 5}

# Two maps, saved in turn by children that are killed; the parent looks at what lies there after each.
KILLING = """
import os, random, signal, sys, time
from pathlib import Path
from seg3d_core.storage import read_scene, write_scene

folder, kills = Path(sys.argv[1]), int(sys.argv[2])
maps = [read_scene(folder / name) for name in ("few.seg3d", "many.seg3d")]
sizes = [len(saved.arrays["map/ids"]) for saved in maps]
target, choose = folder / "map.seg3d", random.Random(0)
start = time.perf_counter()
for saved in maps:
    write_scene(target, saved, overwrite=True)
once = (time.perf_counter() - start) / 2
found = [0, 0]
for life in range(kills):
    writer = os.fork()
    if writer == 0:
        while True:
            for saved in maps[:: 1 if life % 2 else -1]:
                write_scene(target, saved, overwrite=True)
    time.sleep(choose.uniform(0, 3 * once))
    os.kill(writer, signal.SIGKILL)
    os.waitpid(writer, 0)
    found[sizes.index(len(read_scene(target).arrays["map/ids"]))] += 1
print(*found)
"""


@pytest.fixture(scope="module")
def two_maps(box_room, tmp_path_factory) -> Path:
    """A folder with the maps of 2 and of 6 frames."""
    folder = tmp_path_factory.mktemp("maps")
    for name, count in (("few", 2), ("many", 6)):
        scene = scene_of(box_room(8)[:count])
        write_scene(folder / f"{name}.seg3d", copy_scene(scene, {1: "box"}, ""))
    return folder


def scene_of(frames) -> Scene:
    from seg3d_core.build import build_masks, build_scene

    config = build(SETTINGS)
    scene, masks = build_scene(config), build_masks(config)
    for frame in frames:
        scene.add_observation(frame, scene.add_frame(frame), masks.masks(frame))
    scene.segment()
    return scene


def test_200_kills_leave_one_whole_map_each(two_maps, tmp_path):
    for file in two_maps.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    done = subprocess.run([sys.executable, "-c", KILLING, str(tmp_path), "200"], capture_output=True, text=True,
                          timeout=200, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})  # fmt: skip
    assert done.returncode == 0, done.stderr
    few, many = map(int, done.stdout.split())
    assert few + many == 200 and min(few, many) > 0, "both were there, now one and now the other"
    assert any(tmp_path.glob(".map.seg3d.*.part")), "no writer died in the middle, so nothing was tested"
    assert len(rebuild_scene(read_scene(tmp_path / "map.seg3d")).segment().cloud) > 0


@contextmanager
def no_file_larger_than(size: int):
    """A disk that is nearly full, as far as this process can tell."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


def test_a_disk_that_fills_at_any_byte_leaves_the_old_map_and_no_half_file(two_maps, tmp_path):
    saved, path = read_scene(two_maps / "many.seg3d"), tmp_path / "map.seg3d"
    path.write_bytes((two_maps / "few.seg3d").read_bytes())
    before, whole = path.read_bytes(), (two_maps / "many.seg3d").stat().st_size
    for size in np.random.default_rng(0).integers(0, whole, 40).tolist():
        with no_file_larger_than(size), pytest.raises(MapFileError, match="no space left") as caught:
            write_scene(path, saved, overwrite=True)
        assert caught.value.code == "no_space"
        assert path.read_bytes() == before
        assert [file.name for file in tmp_path.iterdir()] == ["map.seg3d"]


def test_a_live_map_outlives_a_save_that_failed(box_room, two_maps, tmp_path, until):
    """On a full disk and below a folder that is none: the error says it, and mapping goes on."""
    path = tmp_path / "map.seg3d"
    path.write_bytes((two_maps / "few.seg3d").read_bytes())
    before, frames = path.read_bytes(), box_room(8)
    runtime = LiveRuntime(build({**SETTINGS, "runtime.segment_every": 1}))
    runtime.start()
    try:
        runtime.submit(frames[0])
        assert until(lambda: runtime.statistics().points > 0)
        with no_file_larger_than(3000), pytest.raises(MapFileError, match="no space left"):
            runtime.save(path, overwrite=True)
        with pytest.raises(MapFileError, match="does not exist"):
            runtime.save(tmp_path / "gone" / "map.seg3d")
        for frame in frames[1:4]:
            runtime.submit(frame)
            assert until(lambda n=frame.index: runtime.statistics().counters.get("frames", 0) > n)
        assert path.read_bytes() == before
        assert [file.name for file in tmp_path.iterdir()] == ["map.seg3d"]
        runtime.save(path, overwrite=True)
    finally:
        runtime.stop()
    assert path.read_bytes() != before and read_scene(path)


READ_ONLY = """
import os, sys
from pathlib import Path
from seg3d_core.cli.results import prepare_folder
from seg3d_core.errors import MapFileError
from seg3d_core.storage import read_scene, write_scene

folder = Path(sys.argv[1])
saved = read_scene(folder / "map.seg3d")
if os.getuid() == 0:  # whom no permission stops
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
for act in (
    lambda: write_scene(folder / "map.seg3d", saved, overwrite=True),
    lambda: write_scene(folder / "other.seg3d", saved),
    lambda: prepare_folder(folder, overwrite=True),
    lambda: prepare_folder(folder / "new", overwrite=False),
):
    try:
        act()
        print("written")
    except MapFileError as error:
        print(error.code, error)
"""


def test_a_read_only_folder_is_named_and_keeps_its_map(two_maps, tmp_path):
    folder = tmp_path / "read only"
    folder.mkdir()
    (folder / "map.seg3d").write_bytes((two_maps / "few.seg3d").read_bytes())
    before = (folder / "map.seg3d").read_bytes()
    for above in (folder, *folder.parents):
        if above == Path("/"):
            break
        if not above.stat().st_mode & 0o001:
            above.chmod(above.stat().st_mode | 0o011)
        if above.name.startswith("pytest-of-"):
            break
    folder.chmod(0o555)
    try:
        done = subprocess.run([sys.executable, "-c", READ_ONLY, str(folder)], capture_output=True, text=True,
                              timeout=60, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})  # fmt: skip
        said = done.stdout.splitlines()
        assert done.returncode == 0 and len(said) == 4, done.stderr
        assert all(line.startswith("unwritable ") and str(folder) in line for line in said), said
        assert (folder / "map.seg3d").read_bytes() == before
        assert [file.name for file in folder.iterdir()] == ["map.seg3d"]
    finally:
        folder.chmod(0o755)
