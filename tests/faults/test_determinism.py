# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Fault 20: the same input gives the same bytes, whatever the process, its threads and its hash seed; live, the same
instances. Other Python versions: scripts/compare_pythons.py."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from seg3d_core.build import build_masks, build_scene
from seg3d_core.config import build
from seg3d_core.runtime.offline import run_offline

ROOT = Path(__file__).resolve().parents[2]
SMALL = ("map.voxel_size=0.05", "re0.min_points=20", "runtime.segment_every=3", "query.encoder=none")


def digests(folder: Path, masks: str, **environment: str) -> Mapping[str, str]:
    """Of a run of scripts/digest.py in a process of its own: one hash per array, picture and number."""
    settings = [word for s in (*SMALL, f"perception.masks={masks}") for word in ("--set", s)]
    command = [sys.executable, ROOT / "scripts" / "digest.py", folder, *settings]
    seeds = {"PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, env=os.environ | seeds | environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("masks", ["ground_truth", "geometric"])
def test_offline_runs_are_byte_equal_across_processes_threads_and_hash_seeds(box_room_folder, masks) -> None:
    first = digests(box_room_folder, masks)
    assert int(first["instances"]) > 0 and len(first) > 20
    threads = {"OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2", "NUMBA_NUM_THREADS": "2", "SEG3D_CV_THREADS": "2"}
    for environment in ({"PYTHONHASHSEED": "1", **threads}, {"PYTHONHASHSEED": "4242", "SEG3D_CV_THREADS": "0"}):
        assert digests(box_room_folder, masks, **environment) == first


def test_a_digest_tells_runs_apart(box_room_folder, box_room) -> None:
    """One depth value that differs is seen."""
    one, other = (_digest(box_room(3), spoil) for spoil in (0.0, 0.05))
    assert one != other and one == _digest(box_room(3), 0.0)


def _digest(frames, spoil: float) -> Mapping[str, str]:
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        from digest import digest_of
    finally:
        sys.path.pop(0)
    frames[0].depth[30, 40] += spoil
    return digest_of(*run(frames))


class Frames(list):
    name, kind, drops = "frames", "list", {}


def run(frames):
    config = build({**dict(s.split("=") for s in SMALL), "perception.masks": "ground_truth"})
    scene = build_scene(config)
    return scene, run_offline(scene, Frames(frames), build_masks(config)).snapshot


@pytest.mark.parametrize("masks", ["ground_truth", "geometric"])
def test_a_live_run_gives_the_instances_of_the_offline_one_up_to_ids(live, box_room, masks) -> None:
    frames = box_room(12)
    config = build({**dict(s.split("=") for s in SMALL), "perception.masks": masks, "keyframes.translation": 0.0})
    scene = build_scene(config)
    expected = run_offline(scene, Frames(frames), build_masks(config)).snapshot
    running = live(perception__masks=masks)
    for k, frame in enumerate(frames, 1):
        running.runtime.submit(frame)
        assert running.until(lambda k=k: running.counters.get("keyframes", 0) == k), "slow enough for every keyframe"
    found = running.runtime.segment_now()
    np.testing.assert_array_equal(found.cloud.xyz, expected.cloud.xyz)
    np.testing.assert_array_equal(found.cloud.rgb, expected.cloud.rgb)
    # The same groups of points: each id of one goes with one id of the other.
    pairs = np.unique(np.stack([found.labels, expected.labels]), axis=1)
    assert len(np.unique(pairs[0])) == len(np.unique(pairs[1])) == pairs.shape[1]
    order = [np.argsort([s.instances.members(k)[0] for k in range(len(s.instances))]) for s in (found, expected)]
    for name in ("centres", "extents"):
        np.testing.assert_array_equal(getattr(found, name)[order[0]], getattr(expected, name)[order[1]])
    np.testing.assert_array_equal(found.instances.scores[order[0]], expected.instances.scores[order[1]])
