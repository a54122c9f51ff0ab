# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""From settings to objects. The only module that knows every implementation; it imports them lazily."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from . import readiness
from .budgets import megabytes
from .config import Config, PerceptionConfig
from .errors import ConfigError, WeightsError
from .lifting.views import ImageStore
from .mapping.base import BaseMap
from .perception.base import Encoder, MaskGenerator
from .query.text import TextQuery
from .scene import Scene
from .segmenters.base import Segmenter
from .segmenters.group import SegmenterGroup
from .storage import SavedScene, config_of, restore_scene

log = logging.getLogger(__name__)


def build_scene(config: Config, points: str | Path | None = None, other_cores: Sequence[str] = ()) -> Scene:
    """An empty scene; `points` (PLY, or npz with `xyz`) is a given cloud that stays as it is.

    `other_cores` watch beside the config's (`segmenters.group`), to be compared with it.
    """
    segmenter = build_segmenter(config)
    if other_cores:
        others = {name: build_segmenter(config.model_copy(update={"core": name})) for name in other_cores}
        segmenter = SegmenterGroup({config.core: segmenter, **others})
    return Scene(config, _build_map(config, points), segmenter, _build_images(config))


def rebuild_scene(saved: SavedScene) -> Scene:
    """The scene of a saved map, with the map's own settings. Raises MapFileError."""
    config = config_of(saved)
    point_map = _empty_map(config, saved.map_kind)
    scene = Scene(config, point_map, build_segmenter(config), _build_images(config))
    restore_scene(scene, saved)
    return scene


def _build_images(config: Config) -> ImageStore:
    return ImageStore(config.memory.views_mb, config.runtime.jpeg_quality)


def _build_map(config: Config, points: str | Path | None) -> BaseMap:
    if points is None:
        return _empty_map(config, "fused")
    from .mapping.fixed_map import FixedMap
    from .mapping.points_file import read_points

    return FixedMap(config.map, *read_points(points), budget_mb=config.memory.map_mb)


def _empty_map(config: Config, kind: str) -> BaseMap:
    from .mapping.fixed_map import FixedMap
    from .mapping.point_map import PointMap

    budget = config.memory.map_mb
    if kind == "fixed":
        return FixedMap(config.map, np.empty((0, 3), np.float32), budget_mb=budget)
    return PointMap(config.map, budget, config.memory.pose_history_mb)


def build_segmenter(config: Config) -> Segmenter:
    """The 3D core that `config.core` names. Raises WeightsError where that needs some that are not there or fit not."""
    if config.core == "segdino3d":
        return _segdino3d(config)
    from .segmenters.re0 import Re0Segmenter

    return Re0Segmenter(config.re0, config.memory)


def _segdino3d(config: Config) -> Segmenter:
    _require("core is `segdino3d`", readiness.TRAINED_CORE)
    settings = config.segdino3d
    from .models.checkpoint import load_model
    from .models.predictor import NetworkPredictor
    from .models.shipped import shipped_weights
    from .segmenters.segdino3d import SegDino3DSegmenter

    running = features_source(config.perception) if settings.features_2d == "auto" else settings.features_2d
    weights = settings.weights or shipped_weights(running)
    loaded = load_model(weights, settings.model_copy(update={"features_2d": running}))
    return SegDino3DSegmenter(settings, NetworkPredictor(loaded, settings), config.map.depth_max, config.memory)


def features_source(settings: PerceptionConfig) -> str:
    """How weights name the 2D features of the model that `perception.masks` names; "" where it gives none.

    Raises WeightsError for a folder that holds no model.
    """
    if settings.masks == "mobile_sam":
        return "mobile_sam"
    if settings.masks not in ("detector", "mask2former", "sam"):
        return ""
    from .perception.huggingface.folder import checked_folder, model_type

    return model_type(checked_folder(settings.model_dir, "perception.model_dir", "IDEA-Research/grounding-dino-tiny"))


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

        return PushedMasks(budget_bytes=megabytes(config.memory.topic_masks_mb / 4))
    if kind == "cropformer":
        return _cropformer(config)
    if kind in ("mask2former", "detector", "sam"):
        return _hub_model(config)
    if kind in ("mobile_sam", "fused", "both"):
        return _mobile_sam(config)
    from .perception.geometric import GeometricMasks

    return GeometricMasks(config.perception)


def _mobile_sam(config: Config) -> MaskGenerator:
    """MobileSAM alone, depth amended by it, or both side by side. Raises WeightsError that says how to get it."""
    _require(f"perception.masks is `{config.perception.masks}`", readiness.MOBILE_SAM)
    from .perception.fused import FusedMasks
    from .perception.geometric import GeometricMasks
    from .perception.mobile_sam import generator
    from .perception.several import NewestMasks, SeveralMasks

    settings = config.perception
    by_depth = NewestMasks(GeometricMasks(settings))
    model = generator.load(settings, config.query.weights_dir, by_depth)
    if settings.masks == "mobile_sam":
        return model
    if settings.masks == "both":
        return SeveralMasks((model, by_depth))
    return FusedMasks(by_depth, model, settings.fused_first, least_area=settings.min_area)


def _hub_model(config: Config) -> MaskGenerator:
    """A model of transformers from a local folder."""
    settings = config.perception
    _require(f"perception.masks is `{settings.masks}`", readiness.HUB)
    folder = settings.model_dir
    if settings.masks == "mask2former":
        from .perception.huggingface.mask2former import Mask2Former

        return Mask2Former(folder, settings.min_score, min_area=settings.min_area, device=settings.device)
    if settings.masks == "sam":
        from .perception.huggingface.sam import Sam

        return Sam(folder, settings)
    from .perception.huggingface.box_masks import load_detector_masks

    return load_detector_masks(settings, config.query.weights_dir)


def _cropformer(config: Config) -> MaskGenerator:
    from .perception.cropformer import detectron, weights

    p = config.perception
    path = weights.resolve(p.cropformer_weights, config.query.weights_dir)
    if p.cropformer_config:
        return detectron.load(p.cropformer_config, path, p.cropformer_confidence, p.min_area, p.cropformer_device)
    try:
        from .perception.cropformer import generator
    except ImportError as error:
        raise ConfigError(f"perception.masks is `cropformer`, which needs PyTorch ({error}): install torch") from None
    options = generator.EntityOptions(
        confidence=p.cropformer_confidence,
        scoring=p.cropformer_score,
        crops=p.cropformer_crops,
        short_side=p.cropformer_short_side,
        min_area=p.min_area,
        half=p.cropformer_half,
    )
    return generator.load(path, options, p.cropformer_device)


def _require(who: str, libraries: tuple[Sequence[str], str]) -> None:
    for sentence in readiness.lacking(who, libraries):
        raise WeightsError(sentence)


def build_encoder(config: Config) -> Encoder | None:
    """The text encoder, or None where `auto` finds none. Raises WeightsError where a named one is missing."""
    choice = config.query.encoder
    if choice == "none":
        return None
    if choice == "open_clip" or (choice == "auto" and config.query.open_clip_weights):
        from .perception.encoders import open_clip

        return open_clip.load(config.query.open_clip_model, config.query.open_clip_weights)
    if choice == "siglip" or (choice == "auto" and config.query.siglip_dir):
        _require("query.encoder is `siglip`", readiness.HUB)
        from .perception.encoders import siglip

        return siglip.load(config.query.siglip_dir)
    try:
        return _offline_encoder(config)
    except WeightsError as error:
        if choice == "conse":
            raise
        log.info("no text encoder: %s", error)
        return None


def _offline_encoder(config: Config) -> Encoder:
    _require("the text encoder is the offline stand-in", readiness.OFFLINE)
    from .perception.encoders import conse

    return conse.load(config.query.weights_dir)


def build_query(config: Config) -> TextQuery:
    """Text queries with whatever encoder there is."""
    return TextQuery(config.query, build_encoder(config))
