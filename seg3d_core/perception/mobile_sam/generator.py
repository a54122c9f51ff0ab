# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""MobileSAM as a mask generator and a 2D detector: what it says of one RGB-D frame.

Clicks are prompted by the segments that depth shows; see `automatic`.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch

from ...config import PerceptionConfig
from ...types import Array, FeatureMap, Frame, Masks2D, ObjectQueries2D
from .. import weights
from ..base import MaskGenerator
from ..boxes import boxes_of
from ..fused import ColourMasks
from ..geometric import GeometricMasks
from ..label_cleanup import without_specks
from ..pixels import in_colour
from .automatic import (
    GRID_LEVELS,
    Candidates,
    Limits,
    find_candidates,
    grid_points,
    interior_points,
    without_duplicates,
)
from .backends import READINGS, WHOLE, Backend, choose_backend
from .mask_decoder import POSITIVE
from .network import STRIDE, MobileSamNetwork, load_network, prepare, resized_size

log = logging.getLogger(__name__)

NAME = "mobile_sam"
_SEGMENT_SHARE = 2 / 3
"""Of the clicks, for segments; the rest is for what depth does not see."""
_LOGITS_STRIDE = 4
"""Pixels of the resized image per pixel of the logits."""


class MobileSam:
    """Masks, object features and dense features of a frame (implements `MaskGenerator`, `Detector2D`, `BoxSegmenter`).

    `nested` gives all that MobileSAM sees, wholes and parts; `masks` paints that into disjoint masks.
    The embedding of the last frame is kept, so that masks and features of one frame cost one encoding.
    """

    chooses_keyframes = False

    def __init__(
        self, network: MobileSamNetwork, config: PerceptionConfig | None = None, segments: MaskGenerator | None = None
    ):
        """`segments` prompt the clicks; without them depth's own do."""
        self._config = config or PerceptionConfig()
        self._network = network
        self._segments = segments or GeometricMasks(self._config)
        self._backends: dict[tuple[int, int], Backend] = {}
        self._last: tuple[Array, Array] | None = None
        self.id = f"mobile_sam-{self._config.sam_side}-v1"

    def masks(self, frame: Frame) -> Masks2D:
        """Disjoint masks of the frame, scored by predicted IoU: of what overlaps, the parts.

        With `sam_nested` the wholes are a further label image.
        """
        return self._seen(in_colour(frame))[0]

    def detect(self, frame: Frame) -> tuple[ObjectQueries2D, FeatureMap]:
        """Objects with their mask tokens (n, 256) as features, and the embedding (256, h, w) as feature map.

        The objects are the parts; their masks are those of `masks`. The stride is in pixels of the frame's image;
        cells that hold only padding are cut off.
        """
        frame = in_colour(frame)
        masks, tokens = self._seen(frame)
        queries = ObjectQueries2D(tokens, boxes_of(masks), masks.scores, f"{self.id}-tokens", None, masks)
        return queries, self.feature_map(frame)

    def nested_masks(self, frame: Frame, segments: Array) -> ColourMasks:
        """As `nested`, at the frame's size: wholes and parts."""
        found = self.nested(frame, segments)
        return ColourMasks(full_size(found.logits, frame.rgb.shape[:2]), found.iou)

    def masks_of_boxes(self, frame: Frame, boxes: Array) -> tuple[Array, Array]:
        """Masks bool (n, H, W), which may overlap, and predicted IoU float32 (n,) of boxes (n, 4) xyxy in pixels."""
        frame = in_colour(frame)
        side = self._config.sam_side
        height, width = frame.rgb.shape[:2]
        h, w = resized_size(height, width, side)
        rows, columns = _logits_size((h, w))
        scale = np.array([w / width, h / height] * 2, np.float32)
        corners = torch.from_numpy(np.asarray(boxes, np.float32).reshape(-1, 4) * scale)
        masks, qualities = [np.empty((0, height, width), bool)], [np.empty(0, np.float32)]
        if len(corners):
            embedding = self._embedding(frame)
            backend = self._backend((embedding.shape[1] * STRIDE, embedding.shape[2] * STRIDE))
            for part in corners.split(backend.batch):
                logits, iou, _ = backend.decode(embedding, self._network.prompt_encoder.boxes(part, side))
                masks.append(full_size(logits[:, WHOLE, :rows, :columns], (height, width)))
                qualities.append(iou[:, WHOLE].clip(0, 1))
        return np.concatenate(masks), np.concatenate(qualities)

    def feature_map(self, frame: Frame) -> FeatureMap:
        """The image embedding."""
        frame = in_colour(frame)
        stride = STRIDE * max(frame.rgb.shape[:2]) / self._config.sam_side
        return FeatureMap(self._embedding(frame), stride, f"{self.id}-embedding")

    def nested(self, frame: Frame, segments: Array) -> Candidates:
        """All masks of the frame, which may overlap. `segments` int (H, W) prompt the clicks, 0 = none."""
        config, side = self._config, self._config.sam_side
        frame = in_colour(frame)
        height, width = frame.rgb.shape[:2]
        h, w = resized_size(height, width, side)
        rows, columns = _logits_size((h, w))
        embedding = self._embedding(frame)
        backend = self._backend((embedding.shape[1] * STRIDE, embedding.shape[2] * STRIDE))

        def click(points: Array) -> tuple[Array, Array, Array]:
            xy = torch.from_numpy(np.float32((points + 0.5) * (w / width, h / height) - 0.5))[:, None]
            labels = torch.full((len(points), 1), POSITIVE)
            logits, iou, tokens = backend.decode(embedding, self._network.prompt_encoder.points(xy, labels, side))
            return logits[:, READINGS, :rows, :columns], iou[:, READINGS], tokens[:, READINGS]

        limits = Limits(config.sam_iou, config.sam_stability, least_area=config.min_area)
        most = max(1, int(_SEGMENT_SHARE * config.sam_prompts))
        rounds = [interior_points(segments)[:most], *(grid_points(n, height, width) for n in GRID_LEVELS)]
        batch = min(backend.batch, config.sam_prompts)
        found, clicks = find_candidates(click, rounds, (height, width), config.sam_prompts, batch, limits)
        found = without_duplicates(found, limits.most_overlap)
        log.debug("%d clicks, %d masks", clicks, len(found))
        return found

    def _prompting(self, frame: Frame) -> Array:
        found = self._segments.masks(frame)
        return found.labels if found is not None else np.zeros(frame.depth.shape, np.int32)

    def _embedding(self, frame: Frame) -> Array:
        if self._last is None or self._last[0] is not frame.rgb:
            image = prepare(frame.rgb, self._config.sam_side)
            height, width = image.shape[2:]
            self._last = frame.rgb, self._backend((height, width)).encode(image)
        return self._last[1]

    def _backend(self, size: tuple[int, int]) -> Backend:
        if size not in self._backends:
            self._backends[size] = choose_backend(self._network, size, self._config.sam_side, self._config.device)
        return self._backends[size]

    def _seen(self, frame: Frame) -> tuple[Masks2D, Array]:
        """What `masks` gives, and the tokens of the parts (n, 256)."""
        found = self.nested(frame, self._prompting(frame))
        masks = full_size(found.logits, frame.rgb.shape[:2])
        area = masks.sum((1, 2))
        parts, kept = self._painted(masks, found.iou, np.argsort(-area, kind="stable"))
        if self._config.sam_nested:
            wholes, _ = self._painted(masks, found.iou, np.argsort(area, kind="stable"))
            parts = replace(parts, others=(wholes,))
        return parts, found.tokens[kept]

    def _painted(self, masks: Array, iou: Array, order: Array) -> tuple[Masks2D, Array]:
        """Disjoint masks of masks bool (K, H, W), the last of `order` on top, and the numbers of those left."""
        labels = np.zeros(masks.shape[1:], np.int32)
        for number in order:
            labels[masks[number]] = number + 1
        labels = without_specks(labels, self._config.min_area)
        kept = np.unique(labels)
        kept = kept[kept > 0] - 1
        return Masks2D.from_labels(labels, np.clip(iou[kept], 0, 1)), kept


def load(config: PerceptionConfig, weights_dir: str | Path = "", segments: MaskGenerator | None = None) -> MobileSam:
    """MobileSAM with the official weights. Raises WeightsError that says how to get them."""
    return MobileSam(load_network(weights.require(NAME, weights_dir)), config, segments)


def _logits_size(size: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of the logits that show a resized image (h, w); the rest is padding."""
    return max(1, round(size[0] / _LOGITS_STRIDE)), max(1, round(size[1] / _LOGITS_STRIDE))


def full_size(logits: Array, size: tuple[int, int]) -> Array:
    """Masks bool (K, H, W) of logits (K, h, w), which are enlarged before they are cut at 0."""
    height, width = size
    out = np.empty((len(logits), height, width), bool)
    for k, mask in enumerate(logits):
        np.greater(cv2.resize(mask, (width, height), interpolation=cv2.INTER_LINEAR), 0, out=out[k])
    return out
