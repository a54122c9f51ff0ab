# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Which mask of an image each visible map point lies on."""

from __future__ import annotations

import numpy as np

from ..errors import FrameError
from ..types import Array, Masks2D

# Tables of instances by masks are dense: beyond this, an image that holds no labels at all would take gigabytes.
MOST_MASKS = 4096


def masks_at(pixels: Array, masks: Masks2D) -> tuple[Array, Array]:
    """The mask int16 (n,), 0 = none, at the whole pixel int64 (n, 2) nearest to each of `pixels` (n, 2).

    Raises FrameError for a pixel outside of the label image, and for mask numbers above `len(masks)`.
    """
    height, width = masks.labels.shape
    if len(masks) > MOST_MASKS:
        raise FrameError(
            "too_many_masks",
            f"{len(masks)} masks in one image, at most {MOST_MASKS} are taken: is it an image of labels?",
        )
    if masks.labels.size and not 0 <= masks.labels.min() <= masks.labels.max() <= len(masks):
        raise FrameError("mask_numbers", f"mask numbers must run from 0 to {len(masks)}: see Masks2D.from_labels")
    if len(pixels) and not (pixels.min() >= -0.501 and (pixels.max(axis=0) <= (width - 0.499, height - 0.499)).all()):
        raise FrameError(
            "mask_size", f"masks of {width} x {height} pixels are smaller than the frame: make them its size"
        )
    # A pixel just inside the border may round to just outside of it.
    at = np.clip(np.rint(pixels).astype(np.int64), 0, (width - 1, height - 1))
    return masks.labels[at[:, 1], at[:, 0]].astype(np.int16), at
