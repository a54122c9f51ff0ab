# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""CropFormer and the entity Mask2Former as a generator of masks and of object queries."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...errors import ConfigError
from ...types import Array, FeatureMap, Frame, Masks2D, ObjectQueries2D
from ..boxes import boxes_of
from ..pixels import as_rgb8
from . import images
from .checkpoint import load_network
from .decoder import Predictions
from .network import EntityNetwork
from .postprocess import (
    BEST_QUERIES,
    EntityMasks,
    Scoring,
    candidates,
    claim,
    crops_upsampler,
    finish,
    image_upsampler,
    score_threshold,
)
from .swin import SwinShape

logger = logging.getLogger(__name__)

_STRIDE = 4


@dataclass(frozen=True)
class EntityOptions:
    """How images are looked at.

    `confidence`: least published score of a mask. `scoring`: `published` squashes a mask's probabilities twice,
    `plain` once, with the threshold scaled to match. `crops`: CropFormer's four crops; without them it is a plain
    Mask2Former on the whole image. `short_side` of the network's input, pixels; the models were trained at 800.
    `min_area`: share of the image. `half`: bfloat16 where the release's own code would allow it.
    """

    confidence: float = 0.25
    scoring: Scoring = "published"
    crops: bool = True
    short_side: int = images.SHORT_SIDE
    min_area: float = 0.0
    half: bool = False


class CropFormerMasks:
    """Disjoint class-agnostic masks of an image (implements `MaskGenerator` and `Detector2D`)."""

    chooses_keyframes = False

    def __init__(self, network: EntityNetwork, options: EntityOptions = EntityOptions(), device: str = "auto"):
        """Raises ConfigError for a confidence that nothing reaches or a device that is not there."""
        self.options = options
        self._threshold = score_threshold(options.confidence, options.scoring)
        self._device = _device(device)
        self._network = network.to(self._device)
        self._crops = options.crops and network.shape.associates
        if options.crops and not network.shape.associates:
            logger.info("these weights are a plain Mask2Former: it looks at the whole image only, no crops")
        self.id = _identity(network)

    def masks(self, frame: Frame) -> Masks2D:
        """Masks in descending probability of being an entity. FrameError `bad_colour` or `image_size`."""
        with torch.inference_mode():
            return self._look(frame.rgb)[0]

    def detect(self, frame: Frame) -> tuple[ObjectQueries2D, FeatureMap]:
        """The kept queries with their masks, and the mask features of the whole image (stride 4 of the input)."""
        with torch.inference_mode():
            masks, queries, predictions, view = self._look(frame.rgb)
        h, w = (-(-side // _STRIDE) for side in view.size)
        features = FeatureMap(
            predictions.features[0, :, :h, :w].float().cpu().numpy(),
            _STRIDE * (view.box[2] / view.size[1] + view.box[3] / view.size[0]) / 2,
            f"{self.id}/mask_features",
        )
        found = predictions.queries[queries].float().cpu().numpy()
        return ObjectQueries2D(found, boxes_of(masks), masks.scores, f"{self.id}/queries", masks=masks), features

    def _look(self, image: Array) -> tuple[Masks2D, Tensor, Predictions, images.View]:
        """The masks, their rows in the predictions, the predictions and the view of the whole image."""
        rgb = as_rgb8(image)
        views = images.views_of(rgb, self._crops, self.options.short_side)
        batch = images.network_input(rgb, views).to(self._device)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self.options.half):
            predictions = self._network(batch)
        claimed = self._claim(predictions, (int(batch.shape[2]), int(batch.shape[3])), views)
        masks, places = finish(claimed, self._threshold, self.options.min_area * rgb.shape[0] * rgb.shape[1])
        return masks, claimed.queries[torch.from_numpy(places).to(self._device)], predictions, views[0]

    def _claim(self, predictions: Predictions, padded: tuple[int, int], views: list[images.View]) -> EntityMasks:
        most = None if self._crops else BEST_QUERIES
        queries, p = candidates(predictions.class_logits, self.options.confidence, most)
        upsample: Callable[[Tensor], Tensor]
        if self._crops:
            upsample = crops_upsampler(predictions.mask_logits, padded, views)
        else:
            upsample = image_upsampler(predictions.mask_logits, padded, views[0])
        size = (views[0].box[3], views[0].box[2])
        return claim(queries, p, upsample, size, is_probability=self._crops, scoring=self.options.scoring)


def load(weights: str | Path, options: EntityOptions = EntityOptions(), device: str = "auto") -> CropFormerMasks:
    """From a published file. Raises WeightsError or ConfigError."""
    return CropFormerMasks(load_network(weights), options, device)


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name if name != "auto" else "cuda" if torch.cuda.is_available() else "cpu")
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"no device {name!r} for CropFormer ({reason}): use auto, cpu, or cuda with a GPU") from None
    return device


def _identity(network: EntityNetwork) -> str:
    """Names the architecture and the very weights, so that features of two trainings are never compared."""
    kind = "cropformer" if network.shape.associates else "mask2former"
    backbone = "swin" if isinstance(network.shape.backbone, SwinShape) else "hornet"
    weights = network.sem_seg_head.predictor.query_feat.weight.float().cpu().numpy()
    return f"{kind}-{backbone}-{hashlib.sha256(np.ascontiguousarray(weights).tobytes()).hexdigest()[:8]}"
