# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Furnished homes with ground truth, in ScanNet's exported layout: which there are, their things, masks, evaluation.

A home is a folder with `points.npz` (`xyz`, `instance`), `instances.json`, and true label images in `instance/`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Collection
from pathlib import Path

import numpy as np

from seg3d_core.build import build_masks
from seg3d_core.config import Config
from seg3d_core.metrics.ap import AGNOSTIC, SceneEvaluation, transfer
from seg3d_core.metrics.ground_truth import read_house
from seg3d_core.metrics.scene_counts import LABEL_FACTOR
from seg3d_core.metrics.transfer import TRANSFER_VOXELS
from seg3d_core.perception.base import MaskGenerator
from seg3d_core.perception.label_files import LabelFiles
from seg3d_core.types import Array, Snapshot

GENERATORS = ("geometric", "mobile_sam", "fused", "both")


def scenes_of(folder: Path, parser: argparse.ArgumentParser, only: Collection[str] = ()) -> list[Path]:
    """The homes in a folder, or the one that it is; of these names alone, where any are given."""
    is_one = (folder / "instances.json").exists()
    scenes = [folder] if is_one else sorted(path.parent for path in folder.glob("*/instances.json"))
    scenes = [scene for scene in scenes if not only or scene.name in only]
    if not scenes:
        parser.error(f"{folder} holds no scenes: folders with instances.json, points.npz, depth/ and instance/")
    return scenes


def things_of(scene: Path) -> dict[int, str]:
    """Ids and names of what is neither structure nor carpet, in ascending order."""
    entries = json.loads((scene / "instances.json").read_text(encoding="utf-8"))["instances"]
    things = {int(i): e["label"] for i, e in entries.items() if not (e["is_structure"] or e["is_carpet"])}
    return dict(sorted(things.items()))


def truth_of(scene: Path) -> tuple[Array, Array]:
    """Points (N, 3) and their ground truth, label * 1000 + instance, int64 (N,): things have label 1, the rest is 0."""
    truth = read_house(scene, {})
    assert truth.xyz is not None
    number = truth.ids % LABEL_FACTOR
    return truth.xyz, np.where(number > 0, AGNOSTIC * LABEL_FACTOR + number, 0)


def masks_for(name: str, scene: Path, config: Config) -> MaskGenerator:
    """`gt`, a generator, or a folder of label images, with `{scene}` in it.

    `mobile_sam@1024` is of a larger image, `mobile_sam+parts` leaves the wholes out that overlap their parts; so do
    others that take MobileSAM.
    """
    plain = name.removesuffix("+parts")
    generator, _, side = plain.partition("@")
    if generator in GENERATORS:
        changes: dict[str, object] = {"masks": generator, **({"sam_side": int(side)} if side else {})}
        changes |= {"sam_nested": False} if plain != name else {}
        perception = config.perception.model_copy(update=changes)
        return build_masks(config.model_copy(update={"perception": perception}))
    return LabelFiles(scene / "instance" if name == "gt" else name.replace("{scene}", scene.name))


def evaluation_of(scene: Path, snapshot: Snapshot, voxel_size: float, scores: Array | None = None) -> SceneEvaluation:
    """A true point takes the instance of the nearest map point within two voxels; no point has two instances."""
    xyz, truth = truth_of(scene)
    found, cloud = snapshot.instances, snapshot.cloud
    partition = transfer(cloud.xyz, xyz, found.exclusive(cloud.ids), TRANSFER_VOXELS * voxel_size)
    return SceneEvaluation.from_partition(truth, partition, found.scores if scores is None else scores)
