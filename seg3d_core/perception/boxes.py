# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Boxes of 2D masks."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from ..types import Array, Masks2D


def boxes_of(masks: Masks2D) -> Array:
    """Tight boxes float32 (m, 4) xyxy in pixels, the far edges behind the last pixel; 0 for labels without pixels."""
    slices = ndimage.find_objects(masks.labels, max_label=len(masks))
    corners = [(s[1].start, s[0].start, s[1].stop, s[0].stop) if s else (0, 0, 0, 0) for s in slices]
    return np.array(corners, np.float32).reshape(-1, 4)
