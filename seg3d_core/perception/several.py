# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Several generators of masks side by side: each label image is evidence of its own for the 3D core.

Painting them into one label image loses what they disagree on; `fused` does that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..types import Array, Frame, Masks2D
from .base import MaskGenerator


class SeveralMasks:
    """The label images of all generators, in their order (implements `MaskGenerator`)."""

    chooses_keyframes = False

    def __init__(self, generators: Sequence[MaskGenerator]):
        """At least one generator; none of them chooses keyframes."""
        self._generators = tuple(generators)
        self.id = "+".join(generator.id for generator in generators)

    def masks(self, frame: Frame) -> Masks2D | None:
        """The first generator's masks with the others' as `others`; a generator without masks is left out."""
        found = [generator.masks(frame) for generator in self._generators]
        images = [image for masks in found if masks is not None for image in masks.label_images]
        if not images:
            return None
        first, *rest = (replace(image, others=()) for image in images)
        return replace(first, others=tuple(rest))


class NewestMasks:
    """Remembers the masks of the newest frame: two that ask for them cost one computation."""

    def __init__(self, generator: MaskGenerator):
        self._generator = generator
        self._newest: tuple[Array, Masks2D | None] | None = None
        self.id, self.chooses_keyframes = generator.id, generator.chooses_keyframes

    def masks(self, frame: Frame) -> Masks2D | None:
        """The generator's; a frame is known again by its depth image."""
        if self._newest is None or self._newest[0] is not frame.depth:
            self._newest = frame.depth, self._generator.masks(frame)
        return self._newest[1]
