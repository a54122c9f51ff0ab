# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""A loaded network as a function of numpy arrays, on the device that there is."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..config import SegDino3DConfig
from ..errors import WeightsError
from ..types import Array
from .checkpoint import LoadedModel
from .predictions import CloudInput, Predictions
from .segdino3d import prepare_scene, segment


class NetworkPredictor:
    """`predictions.Predictor` of SegDINO3D. One thread at a time.

    The settings' `device`: auto takes a GPU where there is one. Raises WeightsError where cuda is asked for in vain.
    """

    def __init__(self, loaded: LoadedModel, settings: SegDino3DConfig):
        architecture = loaded.model.settings
        self.classes = architecture.thing_classes
        self.class_names = loaded.class_names
        self.needs_image_features = architecture.image_features or architecture.late_image_features
        self.needs_objects = architecture.object_queries
        self.regresses_boxes = architecture.box_regression
        self.features_2d = loaded.features_2d
        self._settings = settings
        self._device = _device(settings.device)
        self._model = loaded.model.to(self._device)

    def predict(self, scene: CloudInput) -> Predictions:
        """The instances of one or more points, best first. Raises Seg3DError for features of another width."""
        given = prepare_scene(
            self._tensor(scene.xyz),
            self._tensor(scene.rgb),
            self._tensor(scene.superpoints.astype(np.int64)),
            self._tensor(scene.image_features) if self.needs_image_features else None,
            self._tensor(scene.queries) if self.needs_objects else None,
            self._tensor(scene.query_centres) if self.needs_objects else None,
        )
        found = segment(self._model, given, self._settings).instances
        return Predictions(
            found.labels.cpu().numpy(),
            found.scores.float().cpu().numpy(),
            found.boxes.float().cpu().numpy(),
            found.indptr.cpu().numpy(),
            found.point_ids.cpu().numpy(),
        )

    def _tensor(self, values: Array) -> Tensor:
        return torch.from_numpy(np.require(values, requirements=["C", "W"])).to(self._device)


def _device(name: str) -> torch.device:
    has_gpu = torch.cuda.is_available()
    if name == "cuda" and not has_gpu:
        raise WeightsError("segdino3d.device is `cuda`, but torch sees no GPU here: set it to `auto` or `cpu`")
    return torch.device("cuda" if has_gpu and name != "cpu" else "cpu")
