# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Colour images of any kind to what the models take."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..errors import FrameError
from ..types import Array, Frame


def as_rgb8(image: Array) -> Array:
    """uint8 (H, W, 3) from uint8 or uint16 (full range) images (H, W), (H, W, 1), (H, W, 3) or (H, W, 4).

    One channel is repeated, transparency is dropped. FrameError `bad_colour` for anything else.
    """
    pixels = np.asarray(image)
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3, 4) or not pixels.size:
        raise FrameError("bad_colour", f"an image (H, W, 3) with pixels is wanted, not one of shape {np.shape(image)}")
    if pixels.dtype == np.uint16:
        pixels = (pixels >> 8).astype(np.uint8)
    if pixels.dtype != np.uint8:
        raise FrameError("bad_colour", f"an image of 8 or 16 bit is wanted, not {pixels.dtype}")
    pixels = np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels[:, :, :3]
    return np.ascontiguousarray(pixels)


def in_colour(frame: Frame) -> Frame:
    """The frame with an image uint8 (H, W, 3); itself where it has one. FrameError as `as_rgb8`."""
    if frame.rgb.dtype == np.uint8 and frame.rgb.ndim == 3 and frame.rgb.shape[2] == 3 and frame.rgb.size:
        return frame
    return replace(frame, rgb=as_rgb8(frame.rgb))
