# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""The source's own truth as masks: for tests, and for what the 3D side could reach with perfect masks."""

from __future__ import annotations

from ..types import Frame, Masks2D


class GroundTruthMasks:
    """`Frame.instance` as masks, ids renumbered to 1..m in ascending order (implements `MaskGenerator`)."""

    id = "ground-truth"
    chooses_keyframes = False

    def masks(self, frame: Frame) -> Masks2D | None:
        """The truth of this frame, or None where the source has none."""
        return None if frame.instance is None else Masks2D.from_labels(frame.instance)
