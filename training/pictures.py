# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""A validation scene as the network sees it now."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from seg3d_core.models.segdino3d import SceneResult
from seg3d_core.types import Cloud, Instances, Snapshot
from seg3d_core.viz import render_instances

from .dataset import TrainingScene
from .readers_labels import Classes

_MOST = 60


def draw_scene(scene: TrainingScene, result: SceneResult, classes: Classes, path: Path, least_score: float) -> None:
    """Writes a PNG of the instances that score more than `least_score`, or the best ten. Raises Seg3DError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    render_instances(_snapshot(scene, result, classes, least_score), path, title=scene.name, up=np.array([0, 0, 1.0]))


def _snapshot(scene: TrainingScene, result: SceneResult, classes: Classes, least_score: float) -> Snapshot:
    xyz = scene.xyz.cpu().numpy()
    ids = np.arange(len(xyz))
    rgb = np.clip(np.rint(scene.rgb.cpu().numpy()), 0, 255).astype(np.uint8)
    cloud = Cloud(ids, xyz, rgb, np.zeros_like(xyz), np.ones(len(xyz), np.float32))
    found = result.instances
    scores = found.scores.cpu().numpy()
    count = int(np.clip((scores > least_score).sum(), min(10, len(scores)), _MOST))
    kept = np.argsort(-scores, kind="stable")[:count]
    everything = Instances(
        np.arange(1, len(scores) + 1, dtype=np.int32), scores, found.indptr.cpu().numpy(), found.point_ids.cpu().numpy()
    )
    instances = everything.select(kept)
    numbers = instances.exclusive(ids)
    labels = np.append(0, instances.ids)[numbers].astype(np.int32)
    boxes = found.boxes.cpu().numpy()[kept]
    names = tuple(classes.thing_names[k] for k in found.labels.cpu().numpy()[kept])
    return Snapshot(0, 0.0, cloud, instances, labels, boxes[:, :3], boxes[:, 3:], names=names)
