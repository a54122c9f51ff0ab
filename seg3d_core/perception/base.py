"""What 2D models promise. Perception knows images and no map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ..types import Array, FeatureMap, Frame, Masks2D, ObjectQueries2D


class MaskGenerator(Protocol):
    """2D masks of one frame. Poses and ids of the frame are not looked at."""

    id: str
    chooses_keyframes: bool
    """True where the frames that have masks are the keyframes (files, topics); else the camera's motion decides."""

    def masks(self, frame: Frame) -> Masks2D | None:
        """Disjoint masks, or None when this frame has none (then it is fused and not segmented)."""
        ...


class Detector2D(Protocol):
    """Objects and dense features of one frame."""

    id: str

    def detect(self, frame: Frame) -> tuple[ObjectQueries2D, FeatureMap | None]: ...


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
