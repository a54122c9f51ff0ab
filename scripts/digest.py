#!/usr/bin/env python3
# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Maps a scene offline and prints, as JSON, a SHA-256 of every array and picture of the map and of its instances.

    python scripts/digest.py SCENE [--set NAME=VALUE]...

Two runs are the same, byte for byte, where they print the same: scripts/compare_pythons.py compares Python versions
with it, tests/faults/test_determinism.py processes, threads and hash seeds. SEG3D_CV_THREADS sets OpenCV's threads.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os

import cv2
import numpy as np

from seg3d_core.build import build_masks, build_scene
from seg3d_core.config import build, parse_assignments
from seg3d_core.runtime import run_offline
from seg3d_core.scene import Scene
from seg3d_core.sources.guess import open_source
from seg3d_core.types import Snapshot


def digest_of(scene: Scene, snapshot: Snapshot) -> dict[str, str]:
    """Type, shape and bytes of all that a map file would hold, and of the snapshot's instances."""
    meta, arrays, blobs = scene.state()
    shown = {
        "snapshot/xyz": snapshot.cloud.xyz,
        "snapshot/labels": snapshot.labels,
        "snapshot/ids": snapshot.instances.ids,
        "snapshot/scores": snapshot.instances.scores,
        "snapshot/members": snapshot.instances.point_ids,
        "snapshot/centres": snapshot.centres,
        "snapshot/extents": snapshot.extents,
    }
    out = {name: _of_array(array) for name, array in {**arrays, **shown}.items()}
    out |= {name: hashlib.sha256(data).hexdigest() for name, data in blobs.items()}
    return {**out, "meta": json.dumps(meta, sort_keys=True), "instances": str(len(snapshot.instances))}


def _of_array(array: np.ndarray) -> str:
    what = f"{array.dtype.str} {array.shape} ".encode()
    return hashlib.sha256(what + np.ascontiguousarray(array).tobytes()).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scene", help="what `seg3d run` takes")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting")
    options = parser.parse_args()
    if "SEG3D_CV_THREADS" in os.environ:
        cv2.setNumThreads(int(os.environ["SEG3D_CV_THREADS"]))
    config = build(parse_assignments(options.set))
    scene = build_scene(config)
    result = run_offline(scene, open_source(options.scene), build_masks(config))
    print(json.dumps(digest_of(scene, result.snapshot), indent=1, sort_keys=True))


if __name__ == "__main__":
    main()
