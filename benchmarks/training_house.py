# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Furnished homes as a split of a training cache, to evaluate networks on what they never saw.

    python benchmarks/training_house.py CACHE --scenes DIR [--every 2] [--keep-voxel 0.04]

Scenes are in ScanNet's exported layout with `points.npz` and `instances.json`; they get points of the core's map and
2D features by MobileSAM, as `python -m training.prepare scenes --points map` and `features` give generated rooms, and
become `CACHE/splits/house.txt`: for evaluation alone. Things of categories that ScanNet200 lacks count as its `object`:
class-agnostic numbers are meant.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from homes import scenes_of

from seg3d_core.config import MapConfig, build
from seg3d_core.errors import FrameError
from seg3d_core.mapping.point_map import PointMap
from seg3d_core.metrics.classes import class_lists
from seg3d_core.metrics.ground_truth import read_house
from seg3d_core.metrics.scene_counts import LABEL_FACTOR
from seg3d_core.sources.guess import open_source
from seg3d_core.types import Array, Frame
from training.prepare_features import FeatureSettings, detector_of, lift_scene
from training.prepare_map import nearest_vertices
from training.prepare_scenes import SceneSettings, map_points
from training.readers_cache import CachedScene, write_features, write_scene

FEATURES = "mobile_sam"
_SYNONYMS = {"cooker": "stove", "sofa": "couch", "television": "tv", "washbasin": "sink"}


def labelled(folder: Path, xyz: Array) -> tuple[Array, Array]:
    """The thing int32 (N,) and its ScanNet200 class int16 (N,) of each point (N, 3), 0 = none."""
    categories: dict[str, int] = {}
    truth = read_house(folder, categories)
    assert truth.xyz is not None
    known = {name: number for number, name in class_lists()["scannet200"].names.items()}
    ids = {label: known.get(_SYNONYMS.get(name, name), known["object"]) for name, label in categories.items()}
    nearest = nearest_vertices(xyz, truth.xyz)
    found = np.where(nearest >= 0, truth.ids[nearest], 0)
    classes = np.array([ids.get(label, 0) for label in (found // LABEL_FACTOR).tolist()], np.int16)
    return (found % LABEL_FACTOR).astype(np.int32), classes


def prepare(folder: Path, cache: Path, every: int, settings: SceneSettings) -> None:
    frames: list[Frame] = list(open_source(folder))[::every]
    fused = PointMap(MapConfig(voxel_size=settings.map_voxel))
    for frame in frames:
        try:
            fused.integrate(frame)
        except FrameError:
            continue
    xyz, rgb, parts = map_points(fused.snapshot()[0], settings)
    instance, classes = labelled(folder, xyz)
    camera = np.eye(4)
    camera[:3, :3] = frames[0].camera.matrix
    scene = CachedScene(
        xyz, rgb, parts, instance, np.zeros(len(xyz), np.int16), classes, np.arange(len(frames), dtype=np.int32),
        np.stack([frame.T_world_camera for frame in frames]), camera, camera,
        np.array([frames[0].camera.size] * 2, np.int32), settings.text(),
    )  # fmt: skip
    detector = detector_of(build({"perception.masks": FEATURES}).model_dump_json())
    features, dropped = lift_scene(scene, frames, detector, FeatureSettings())
    write_scene(cache / "scenes" / f"{folder.name}.npz", scene)
    write_features(cache / "features" / FEATURES / f"{folder.name}.npz", features)
    things = len(np.unique(instance[instance > 0]))
    counts = f"{len(frames) - dropped} frames, {len(xyz)} points, {parts.max() + 1} superpoints, {things} things"
    print(f"{folder.name}: {counts}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("cache", type=Path)
    parser.add_argument("--scenes", type=Path, required=True)
    parser.add_argument("--every", type=int, default=2, help="every how many-th frame is looked at")
    parser.add_argument("--keep-voxel", type=float, default=0.04)
    options = parser.parse_args()
    settings = SceneSettings(options.every, "points", True, "map", keep_voxel=options.keep_voxel)
    folders = scenes_of(options.scenes, parser)
    for folder in folders:
        prepare(folder, options.cache, options.every, settings)
    names = "".join(f"{folder.name}\n" for folder in folders)
    (options.cache / "splits").mkdir(parents=True, exist_ok=True)
    (options.cache / "splits" / "house.txt").write_text(names, encoding="utf-8")


if __name__ == "__main__":
    main()
