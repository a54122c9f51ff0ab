# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""2D features of one scene, by any `Detector2D`: what its frames say about the points, and its object queries.

The points are a map that does not change (`--points` of `seg3d run`), so that visibility, nearest views and the bank
of object queries are those of the running core (SegDINO3D sec. 3.1).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from seg3d_core.build import build_masks
from seg3d_core.config import Config, MapConfig
from seg3d_core.errors import ConfigError, FrameError, Seg3DError
from seg3d_core.lifting.object_queries import ObjectQueryBank
from seg3d_core.lifting.point_features import PointFeatures, view_distances
from seg3d_core.mapping.fixed_map import FixedMap
from seg3d_core.perception.base import Detector2D, detect_all
from seg3d_core.sources.sens import SensSource
from seg3d_core.types import Array, FeatureMap, Frame

from .prepare_scenes import Outcome, look_at
from .readers_cache import FORMAT, CachedScene, SceneFeatures, read_own_features, read_scene, write_features


@dataclass(frozen=True)
class FeatureSettings:
    """views: of which a point takes the mean, the nearest ones or the farthest; object_score: 2D objects of a higher
    score become queries, at most `object_queries` that lie far from one another; depth_max in metres."""

    views: int = 3
    nearest: bool = True
    object_score: float = 0.3
    object_queries: int = 2048
    depth_max: float = 6.0


@dataclass(frozen=True)
class FeatureTask:
    """One scene of the cache, its recording, where the features go, and how. `config` is the core's, as JSON."""

    name: str
    scene: Path
    sens: Path
    target: Path
    settings: FeatureSettings
    config: str

    def text(self, scene: CachedScene) -> str:
        about = {"format": FORMAT, **asdict(self.settings), "scene": scene.settings}
        return json.dumps({**about, "perception": json.loads(self.config)["perception"]}, sort_keys=True)


def prepare_features(task: FeatureTask) -> Outcome:
    """Makes the features unless they are there, whole, and made by the same settings. Raises Seg3DError."""
    scene = read_scene(task.scene)
    text = task.text(scene)

    def is_current() -> bool:
        found = read_own_features(task.target)
        return found.settings == text and len(found.image_features) == len(scene.xyz)

    is_done, notes = look_at(task.target, is_current)
    if is_done:
        return Outcome(made=False)
    if not len(scene.frames):
        raise Seg3DError(f"{task.scene} was made without images: run `prepare scenes` with the .sens files")
    source = SensSource(task.sens)
    features, dropped = lift_scene(scene, _frames(source, scene), detector_of(task.config), task.settings)
    write_features(task.target, replace(features, settings=text))
    if dropped:
        notes += (f"{dropped} of {len(scene.frames)} frames could not be used",)
    return Outcome(made=True, notes=notes)


def _frames(source: SensSource, scene: CachedScene) -> Iterable[Frame | None]:
    """The chosen frames; None for one that can't be read."""
    for index, number in enumerate(scene.frames.tolist()):
        if number >= len(source.file):
            raise Seg3DError(f"{source.file.path} has {len(source.file)} frames, the cache chose number {number}")
        try:
            yield source.read(index, number)
        except FrameError:
            yield None


@lru_cache(maxsize=1)
def detector_of(config: str) -> Detector2D:
    """The 2D model that `perception.masks` names, once in each process. Raises ConfigError where it is no detector."""
    settings = Config.model_validate_json(config)
    model = build_masks(settings)
    if not isinstance(model, Detector2D):
        raise ConfigError(
            f"perception.masks = {settings.perception.masks!r} gives masks without features: choose a model that has "
            "them, such as mobile_sam, sam, mask2former, detector or cropformer"
        )
    return model


def lift_scene(
    scene: CachedScene, frames: Iterable[Frame | None], detector: Detector2D, settings: FeatureSettings
) -> tuple[SceneFeatures, int]:
    """What the detector sees in the frames, at the scene's points, and how many frames could not be used.

    Points that no frame sees have zeros. Raises Seg3DError where no frame can be used.
    """
    view = FixedMap(MapConfig(depth_max=settings.depth_max), scene.xyz, scene.rgb)
    bank = ObjectQueryBank(settings.object_score, depth_max=settings.depth_max)
    points: PointFeatures | None = None
    used = tried = 0
    for frame in frames:
        tried += 1
        if frame is None:
            continue
        try:
            visible = view.integrate(frame)
        except FrameError:
            continue
        seen = detect_all(detector, frame)
        bank.add(tried - 1, frame, seen.queries)
        if seen.levels:
            points = points or _room_for(len(scene.xyz), seen.levels[0], settings)
            distances = view_distances(visible.pixels, visible.depths, frame.camera)
            points.observe(visible.rows, visible.pixels, distances, seen.levels)
        used += 1
    if not used:
        raise Seg3DError(f"none of {tried} frames of the scene could be used: are its poses and depth right?")
    found = bank.queries(settings.object_queries)
    rows = np.arange(len(scene.xyz))
    image_features: Array = np.zeros((len(rows), 0), np.float32) if points is None else points.features(rows)[0]
    features = SceneFeatures(image_features, found.features, found.centres, found.scores, detector.id)
    return features, tried - used


def _room_for(count: int, image: FeatureMap, settings: FeatureSettings) -> PointFeatures:
    """Room for all points of a scene: none is left out."""
    bytes_per_point = settings.views * (2 * image.values.shape[0] + 8) + 14
    points = PointFeatures(settings.views, (count + 1) * bytes_per_point / 1e6, settings.nearest)
    # All rows at once: tables that grow with the map take their room from the features.
    points.grow(count)
    return points
