# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""A detector's boxes as masks, through a segmenter that takes boxes or through depth."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from ...config import PerceptionConfig
from ...types import Array, FeatureMap, Frame, Masks2D, ObjectQueries2D
from .. import weights
from ..base import BoxSegmenter, Detector2D, detect_all
from ..geometric import GeometricMasks
from ..mobile_sam import generator as mobile_sam
from . import detr, grounding_dino
from .folder import checked_folder, checked_type
from .results import paint
from .sam import Sam

# A depth segment belongs to a box that holds this share of it.
_SHARE_INSIDE = 0.8


class DepthBoxes:
    """The depth segments that lie in each box (implements `BoxSegmenter`); needs no weights."""

    def __init__(self, config: PerceptionConfig | None = None):
        self._segments = GeometricMasks(config)
        self.id = self._segments.id

    def masks_of_boxes(self, frame: Frame, boxes: Array) -> tuple[Array, Array]:
        """Masks bool (n, H, W) and the share of each box that its mask fills, float32 (n,). boxes (n, 4) xyxy."""
        labels = self._segments.masks(frame).labels
        height, width = labels.shape
        area = np.bincount(labels.ravel())
        masks = np.zeros((len(boxes), height, width), bool)
        filled = np.zeros(len(boxes), np.float32)
        limits = np.array([width, height, width, height])
        corners = np.concatenate([np.floor(boxes[:, :2]), np.ceil(boxes[:, 2:])], 1).clip(0, limits).astype(int)
        for k, (x0, y0, x1, y1) in enumerate(corners):
            part = labels[y0:y1, x0:x1]
            inside = np.bincount(part.ravel(), minlength=len(area))
            belongs = (inside >= _SHARE_INSIDE * area) & (inside > 0)
            belongs[0] = False
            masks[k, y0:y1, x0:x1] = belongs[part]
            filled[k] = inside[belongs].sum() / max(part.size, 1)
        return masks, filled


class DetectorMasks:
    """Masks of what a detector finds (implements `MaskGenerator` and `Detector2D`)."""

    chooses_keyframes = False

    def __init__(self, detector: Detector2D, segmenter: BoxSegmenter, min_area: float = 0.0):
        """Masks below `min_area`, a share of the image, are dropped."""
        self._detector, self._segmenter = detector, segmenter
        self._min_area = min_area
        self.id = f"{detector.id}+{segmenter.id}"

    def masks(self, frame: Frame) -> Masks2D:
        """Disjoint masks, smaller over larger."""
        masks = self.detect(frame)[0].masks
        assert masks is not None
        return masks

    def detect(self, frame: Frame) -> tuple[ObjectQueries2D, FeatureMap | None]:
        """As `detect_levels`, the finest level alone."""
        queries, levels = self.detect_levels(frame)
        return queries, levels[0] if levels else None

    def detect_levels(self, frame: Frame) -> tuple[ObjectQueries2D, tuple[FeatureMap, ...]]:
        """The detector's queries that have a mask (row k has label k + 1), and its features, fine to coarse.

        Scores are the detector's; the segmenter's are not comparable with them.
        """
        found = detect_all(self._detector, frame)
        queries, levels = found.queries, found.levels
        if not len(queries.boxes):
            nothing = Masks2D(np.zeros(frame.depth.shape, np.int32), np.empty(0, np.float32))
            return replace(queries, masks=nothing), levels
        masks, _ = self._segmenter.masks_of_boxes(frame, queries.boxes)
        image, rows = paint(masks, queries.scores, self._min_area * frame.depth.size)
        kept = ObjectQueries2D(
            queries.features[rows],
            queries.boxes[rows],
            queries.scores[rows],
            queries.encoder_id,
            None if queries.labels is None else queries.labels[rows],
            image,
        )
        return kept, levels


def load_detector_masks(settings: PerceptionConfig, weights_dir: str | Path = "") -> DetectorMasks:
    """The detector of `model_dir`, its boxes made masks by `load_box_segmenter`. Raises WeightsError, ConfigError."""
    return DetectorMasks(load_detector(settings), load_box_segmenter(settings, weights_dir), settings.min_area)


def load_box_segmenter(settings: PerceptionConfig, weights_dir: str | Path = "") -> BoxSegmenter:
    """The SAM of `box_segmenter_dir`; without that setting MobileSAM where its weights are, and depth where not.

    Raises WeightsError for a folder or a file of weights that is there and wrong.
    """
    if settings.box_segmenter_dir:
        return Sam(settings.box_segmenter_dir, settings, setting="perception.box_segmenter_dir")
    if weights.find(mobile_sam.NAME, weights_dir):
        return mobile_sam.load(settings, weights_dir)
    return DepthBoxes(settings)


def load_detector(settings: PerceptionConfig) -> detr.DetrDetector | grounding_dino.GroundingDino:
    """The detector of `model_dir`, of whichever known family it is. Raises WeightsError and ConfigError."""
    path = checked_folder(settings.model_dir, "perception.model_dir", "IDEA-Research/grounding-dino-tiny")
    if checked_type(path, [*grounding_dino.CLASSES, *detr.CLASSES]) in grounding_dino.CLASSES:
        return grounding_dino.GroundingDino(path, settings.prompts.split(","), settings.min_score, settings.device)
    return detr.DetrDetector(path, settings.min_score, settings.device)
