# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Detectors with a fixed set of classes: RT-DETR and its second version, and D-FINE."""

from __future__ import annotations

from pathlib import Path

from ...types import FeatureMap, Frame, ObjectQueries2D
from . import model
from .folder import checked_folder
from .images import Preprocessing, feature_map
from .results import pixel_boxes, without_duplicates

CLASSES = {
    "rt_detr": "RTDetrForObjectDetection",
    "rt_detr_v2": "RTDetrV2ForObjectDetection",
    "d_fine": "DFineForObjectDetection",
}
_DEFAULTS = {"size": {"height": 640, "width": 640}, "do_normalize": False}
_STRIDES = (8, 16, 32)
# They are trained to need no suppression; what is this alike is the same thing all the same.
_MOST_OVERLAP = 0.9


class DetrDetector:
    """Boxes, query features and image features (implements `Detector2D`). The image is stretched to a square."""

    def __init__(self, folder: str | Path, min_score: float = 0.25, device: str = "auto"):
        """Loads a local folder. Raises WeightsError."""
        path = checked_folder(folder, "perception.model_dir", "PekingU/rtdetr_v2_r18vd")
        self._loaded = model.load(path, CLASSES, device)
        self._prepare = Preprocessing.read(path, _DEFAULTS)
        self._min_score = min_score
        self.id = self._loaded.id
        names = self._loaded.network.config.id2label
        self.names = tuple(str(names[i]) for i in sorted(names))

    def detect(self, frame: Frame) -> tuple[ObjectQueries2D, FeatureMap]:
        """Objects, best first, and the finest feature level."""
        queries, levels = self.detect_levels(frame)
        return queries, levels[0]

    def detect_levels(self, frame: Frame) -> tuple[ObjectQueries2D, tuple[FeatureMap, ...]]:
        """Objects, best first, and the encoder's levels, fine to coarse; of each query its best class."""
        prepared = self._prepare(frame.rgb)
        with model.inference(self._loaded.device):
            output = self._loaded.network(pixel_values=prepared.pixels.to(self._loaded.device))
            scores, labels = output.logits[0].float().sigmoid().max(-1)
            keep = scores >= self._min_score
            boxes = pixel_boxes(output.pred_boxes[0][keep], prepared.image)
            score = scores[keep].cpu().numpy()
            rows = without_duplicates(boxes, score, _MOST_OVERLAP)
            features = output.last_hidden_state[0][keep].float().cpu().numpy()
            levels = tuple(
                feature_map(values[0], stride, prepared, self.id)
                for values, stride in zip(output.encoder_last_hidden_state, _STRIDES, strict=True)
            )
        queries = ObjectQueries2D(features[rows], boxes[rows], score[rows], self.id, labels[keep].cpu().numpy()[rows])
        return queries, levels
