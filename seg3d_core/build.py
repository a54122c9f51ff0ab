"""From settings to objects. The only module that knows every implementation; it imports them lazily."""

from __future__ import annotations

import logging
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from .config import Config
from .errors import ConfigError, WeightsError
from .lifting.views import ImageStore
from .mapping.base import BaseMap
from .perception.base import Encoder, MaskGenerator
from .query.text import TextQuery
from .scene import Scene
from .segmenters.base import Segmenter
from .storage import SavedScene, config_of, restore_scene

log = logging.getLogger(__name__)


def build_scene(config: Config, points: str | Path | None = None) -> Scene:
    """An empty scene; `points` (PLY, or npz with `xyz`) is a given cloud that stays as it is."""
    return Scene(config, _build_map(config, points), build_segmenter(config), _build_images(config))


def rebuild_scene(saved: SavedScene) -> Scene:
    """The scene of a saved map, with the map's own settings. Raises MapFileError."""
    config = config_of(saved)
    point_map = _empty_map(config, saved.map_kind)
    scene = Scene(config, point_map, build_segmenter(config), _build_images(config))
    restore_scene(scene, saved)
    return scene


def _build_images(config: Config) -> ImageStore:
    return ImageStore(config.runtime.views_budget_mb, config.runtime.jpeg_quality)


def _build_map(config: Config, points: str | Path | None) -> BaseMap:
    if points is None:
        return _empty_map(config, "fused")
    from .mapping.fixed_map import FixedMap
    from .mapping.points_file import read_points

    return FixedMap(config.map, *read_points(points))


def _empty_map(config: Config, kind: str) -> BaseMap:
    from .mapping.fixed_map import FixedMap
    from .mapping.point_map import PointMap

    return FixedMap(config.map, np.empty((0, 3), np.float32)) if kind == "fixed" else PointMap(config.map)


def build_segmenter(config: Config) -> Segmenter:
    """The 3D core that `config.core` names."""
    from .segmenters.re0 import Re0Segmenter

    return Re0Segmenter(config.re0)


def build_masks(config: Config) -> MaskGenerator:
    """The source of 2D masks that `config.perception.masks` names."""
    kind = config.perception.masks
    if kind == "files":
        from .perception.label_files import LabelFiles

        if not config.perception.masks_dir:
            raise ConfigError("perception.masks is `files`: set perception.masks_dir to the folder of label PNGs")
        return LabelFiles(config.perception.masks_dir)
    if kind == "ground_truth":
        from .perception.ground_truth import GroundTruthMasks

        return GroundTruthMasks()
    if kind == "topic":
        from .perception.topic import PushedMasks

        return PushedMasks()
    from .perception.geometric import GeometricMasks

    return GeometricMasks(config.perception)


def build_encoder(config: Config) -> Encoder | None:
    """The text encoder, or None where `auto` finds none. Raises WeightsError where a named one is missing."""
    choice = config.query.encoder
    if choice == "none":
        return None
    if choice == "open_clip" or (choice == "auto" and config.query.open_clip_weights):
        from .perception.encoders import open_clip

        return open_clip.load(config.query.open_clip_model, config.query.open_clip_weights)
    try:
        return _offline_encoder(config)
    except WeightsError as error:
        if choice == "conse":
            raise
        log.info("no text encoder: %s", error)
        return None


def _offline_encoder(config: Config) -> Encoder:
    missing = [name for name in ("onnxruntime", "onnx", "tokenizers", "safetensors") if find_spec(name) is None]
    if missing:
        raise WeightsError(f"the offline text encoder needs {', '.join(missing)}: pip install 'seg3d[offline]'")
    from .perception.encoders import conse

    return conse.load(config.query.weights_dir)


def build_query(config: Config) -> TextQuery:
    """Text queries with whatever encoder there is."""
    return TextQuery(config.query, build_encoder(config))
