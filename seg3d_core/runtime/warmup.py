# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Compiles the kernels before the first real frame: seconds after an install, a blink afterwards (they are cached).

`seg3d warmup` does it once and for all after an install.
"""

from __future__ import annotations

import logging
import time

import numpy as np

from ..build import build_scene
from ..config import Config
from ..perception.base import MaskGenerator, look
from ..types import Array, Camera, Frame, Masks2D, PoseCorrection

log = logging.getLogger(__name__)


def warm_up(config: Config, masks: MaskGenerator | None = None) -> float:
    """Sends two small frames through everything that `config` names, then corrects their poses; returns the seconds
    that it took."""
    start = time.perf_counter()
    scene = build_scene(config)
    for frame in _frames():
        visible = scene.add_frame(frame)
        found, objects = None, None
        if masks is not None and not masks.chooses_keyframes:
            found, objects = look(masks, frame, scene.wants_objects)
        found = found or Masks2D.from_labels(frame.rgb[:, :, 0].astype(np.int32))
        scene.add_observation(frame, visible, found, objects)
        scene.segment()
    scene.correct(PoseCorrection(np.array([0.0]), _shifted()))
    # What happens at the end of the budget must not wait for a compiler either. No map is full, so nobody is told.
    maps = logging.getLogger("seg3d_core.mapping")
    level = maps.level
    maps.setLevel(logging.ERROR)
    try:
        for holder in scene.holders.values():
            holder.budget_bytes = 0
            holder.make_room()
    finally:
        maps.setLevel(level)
    seconds = time.perf_counter() - start
    log.info("kernels are ready after %.1f s", seconds)
    return seconds


def _frames() -> list[Frame]:
    """A wall with a box before it; in the second frame the box is gone, so that its points are seen through."""
    camera = Camera(96, 72, 90.0, 90.0, 47.5, 35.5)
    wall = np.full((72, 96), 1.5, np.float32)
    box, colours = wall.copy(), np.ones((72, 96, 3), np.uint8)
    box[20:50, 30:60], colours[20:50, 30:60] = 1.0, 2
    return [Frame(i, i / 10, colours, depth, camera, np.eye(4)) for i, depth in enumerate((box, wall))]


def _shifted() -> Array:
    """A pose (1, 4, 4) some voxels beside that of the frames."""
    pose = np.eye(4)
    pose[0, 3] = 0.15
    return pose[None]
