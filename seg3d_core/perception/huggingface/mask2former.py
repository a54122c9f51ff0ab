# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Mask2Former (Cheng et al., CVPR 2022), trained for instances or, with the one class "entity", for everything."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ...types import FeatureMap, Frame, Masks2D, ObjectQueries2D
from ..boxes import boxes_of
from ..cropformer.postprocess import BEST_QUERIES, Scoring, claim, finish, score_threshold
from . import model
from .folder import checked_folder
from .images import Prepared, Preprocessing, feature_map, to_image

_CLASSES = {"mask2former": "Mask2FormerForUniversalSegmentation"}
_DEFAULTS = {"size": {"shortest_edge": 800, "longest_edge": 1333}, "size_divisor": 32}
# Mask logits and the finest map of the pixel decoder have this stride.
_STRIDE = 4


class Mask2Former:
    """Masks, query features and pixel features of one image (implements `MaskGenerator` and `Detector2D`)."""

    chooses_keyframes = False

    def __init__(
        self,
        folder: str | Path,
        min_score: float = 0.25,
        scoring: Scoring = "published",
        min_area: float = 0.0,
        device: str = "auto",
    ):
        """Loads a local folder. `min_score` and `scoring` are those of the entity project; masks below `min_area`, a
        share of the image, are dropped. Raises WeightsError, and ConfigError for a score that nothing reaches.
        """
        self._min_score = score_threshold(min_score, scoring)
        path = checked_folder(folder, "perception.model_dir", "facebook/mask2former-swin-tiny-coco-instance")
        self._loaded = model.load(path, _CLASSES, device)
        self._prepare = Preprocessing.read(path, _DEFAULTS)
        self._scoring, self._min_area = scoring, min_area
        self.id = self._loaded.id
        names = self._loaded.network.config.id2label
        self.names = tuple(str(names[i]) for i in sorted(names))

    def masks(self, frame: Frame) -> Masks2D:
        """Disjoint masks; a pixel belongs to the surest query that holds it."""
        masks = self.detect(frame)[0].masks
        assert masks is not None
        return masks

    def detect(self, frame: Frame) -> tuple[ObjectQueries2D, FeatureMap]:
        """Queries whose mask reached the score, each with its mask (row k has label k + 1), and pixels at stride 4."""
        prepared = self._prepare(frame.rgb)
        network, device = self._loaded.network, self._loaded.device
        with model.inference(device):
            output = network(pixel_values=prepared.pixels.to(device), pixel_mask=prepared.valid.to(device))
            # The heads see the last state through this norm; the output carries it without.
            norm = network.model.transformer_module.decoder.layernorm
            features = norm(output.transformer_decoder_last_hidden_state)[0].float()
            pixels = feature_map(output.pixel_decoder_last_hidden_state[0], _STRIDE, prepared, self.id)
            queries = self._queries(
                features, output.class_queries_logits[0].float(), output.masks_queries_logits[0].float(), prepared
            )
        return queries, pixels

    def _queries(self, features: Tensor, classes: Tensor, masks: Tensor, prepared: Prepared) -> ObjectQueries2D:
        # The last class is "no object".
        p, labels = classes.softmax(-1)[:, :-1].max(-1)
        p, order = p.sort(descending=True, stable=True)
        # A score is p times at most 1: what lies below cannot be kept, nor cover what is.
        possible = p[:BEST_QUERIES] >= self._min_score
        order, p = order[:BEST_QUERIES][possible], p[:BEST_QUERIES][possible]
        found = claim(
            order,
            p,
            lambda q: to_image(masks[q], _STRIDE, prepared),
            prepared.image,
            is_probability=False,
            scoring=self._scoring,
        )
        least_area = self._min_area * prepared.image[0] * prepared.image[1]
        image, places = finish(found, self._min_score, least_area)
        rows = found.queries[torch.from_numpy(places).to(order.device)]
        return ObjectQueries2D(
            features[rows].cpu().numpy(),
            boxes_of(image),
            image.scores,
            self.id,
            labels[rows].cpu().numpy(),
            image,
        )
