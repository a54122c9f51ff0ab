# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""What 2D models promise. Perception knows images and no map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from ..errors import ModelOutputError
from ..types import Array, FeatureMap, Frame, Masks2D, ObjectQueries2D, Objects2D


class MaskGenerator(Protocol):
    """2D masks of one frame. Poses and ids of the frame are not looked at."""

    id: str
    chooses_keyframes: bool
    """True where the frames that have masks are the keyframes (files, topics); else the camera's motion decides."""

    def masks(self, frame: Frame) -> Masks2D | None:
        """Disjoint masks, or None when this frame has none (then it is fused and not segmented).

        What sees a frame in several ways gives the further label images as `Masks2D.others`.
        """
        ...


@runtime_checkable
class Detector2D(Protocol):
    """Objects and dense features of one frame."""

    id: str

    def detect(self, frame: Frame) -> tuple[ObjectQueries2D, FeatureMap | None]: ...


@runtime_checkable
class LevelDetector(Detector2D, Protocol):
    """A detector that can give all of its feature levels."""

    def detect_levels(self, frame: Frame) -> tuple[ObjectQueries2D, tuple[FeatureMap, ...]]:
        """Objects, and levels fine to coarse."""
        ...


def detect_all(detector: Detector2D, frame: Frame) -> Objects2D:
    """Objects, and as many feature levels as the detector has."""
    if isinstance(detector, LevelDetector):
        return Objects2D(*detector.detect_levels(frame))
    queries, level = detector.detect(frame)
    return Objects2D(queries, () if level is None else (level,))


def look(model: MaskGenerator, frame: Frame, with_objects: bool) -> tuple[Masks2D | None, Objects2D | None]:
    """The masks of a frame and, if they are wanted and the model is a detector too, its objects; one run for both.

    Raises ModelOutputError where what the model says cannot be true of the frame.
    """
    if not (with_objects and isinstance(model, Detector2D)):
        return _checked(model, model.masks(frame), frame), None
    objects = detect_all(model, frame)
    masks = objects.queries.masks
    return _checked(model, model.masks(frame) if masks is None else masks, frame), objects


def _checked(model: MaskGenerator, found: Masks2D | None, frame: Frame) -> Masks2D | None:
    """Models are others' code: what they return is looked at before it may change votes."""
    if found is None:
        return None
    if not isinstance(found, Masks2D):
        raise ModelOutputError("masks_type", f"{model.id} returned {type(found).__name__}; Masks2D or None is wanted")
    for image in found.label_images:
        shape, scores = np.shape(image.labels), np.asarray(image.scores)
        if shape != frame.depth.shape:
            raise ModelOutputError("mask_size", f"{model.id} gave masks of {shape}, the frame is {frame.depth.shape}")
        if not np.issubdtype(np.asarray(image.labels).dtype, np.integer):
            raise ModelOutputError("mask_numbers", f"{model.id} gave labels of {image.labels.dtype}, not whole numbers")
        if image.labels.size and not 0 <= image.labels.min() <= image.labels.max() <= len(scores):
            raise ModelOutputError("mask_numbers", f"{model.id} gave mask numbers outside of 0 to {len(scores)}")
        if scores.ndim != 1 or not np.isfinite(scores).all():
            raise ModelOutputError("mask_scores", f"{model.id} gave scores that are no finite numbers")
    return found


class BoxSegmenter(Protocol):
    """Masks of boxes that something else found."""

    id: str

    def masks_of_boxes(self, frame: Frame, boxes: Array) -> tuple[Array, Array]:
        """Masks bool (n, H, W), which may overlap, and how good each is, float32 (n,) in [0, 1].

        boxes (n, 4) xyxy in pixels. A box in which nothing is found has an empty mask.
        """
        ...


class Encoder(Protocol):
    """Text and image crops in one space. Features of different `id`s are never compared."""

    id: str
    dim: int
    approximate: bool

    def encode_text(self, texts: Sequence[str]) -> Array:
        """Unit vectors float32 (len(texts), dim)."""
        ...

    def encode_images(self, crops: Sequence[Array]) -> Array:
        """Unit vectors float32 (len(crops), dim) of uint8 (h, w, 3) crops of any size."""
        ...
