# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""What a trained network says of a cloud, as numpy arrays. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ..types import Array


@dataclass(frozen=True, eq=False)
class Predictions:
    """n instances, overlaps allowed: labels int64 (n,) from 0, scores float32 (n,), boxes float32 (n, 6) as centre and
    size in metres (zeros where the network regresses none).

    Members in CSR form: instance k holds points `points[indptr[k]:indptr[k + 1]]`, ascending, int64.
    """

    labels: Array
    scores: Array
    boxes: Array
    indptr: Array
    points: Array

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def sizes(self) -> Array:
        """Points of each instance, int64 (n,)."""
        return np.diff(self.indptr)

    @classmethod
    def empty(cls) -> Predictions:
        none = np.empty(0, np.int64)
        return cls(none, np.empty(0, np.float32), np.empty((0, 6), np.float32), np.zeros(1, np.int64), none)


@dataclass(frozen=True, eq=False)
class CloudInput:
    """N points as a network takes them: xyz float32 (N, 3) metres, rgb uint8 (N, 3), superpoints int (N,); image
    features (N, C), zeros where no view saw a point; O object queries (O, C) and their centres float32 (O, 3)."""

    xyz: Array
    rgb: Array
    superpoints: Array
    image_features: Array
    queries: Array
    query_centres: Array


class Predictor(Protocol):
    """A trained network behind numpy arrays."""

    classes: int
    """How many things it tells apart."""
    class_names: tuple[str, ...]
    """Of these, or none where the weights do not say."""
    needs_image_features: bool
    needs_objects: bool
    regresses_boxes: bool
    features_2d: str | None
    """The source of 2D features that it was trained with."""

    def predict(self, scene: CloudInput) -> Predictions:
        """The instances of one or more points, best first."""
        ...
