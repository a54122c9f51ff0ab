# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Decoding of JPEG and PNG: what is cut short is refused, and what claims to be huge takes no memory."""

from __future__ import annotations

from io import BytesIO

import cv2
import numpy as np

from .types import Array

MOST_PIXELS = 1 << 25
"""More than any camera of colour or depth has: 33 million."""


def decode_image(data: bytes, flags: int) -> Array | None:
    """The image as OpenCV gives it, (H, W) or (H, W, channels), blue first; None where it is damaged or too large.

    `flags` as of `cv2.imdecode`. OpenCV fills the rest of a truncated image and says nothing: here that is damage.
    """
    size = None if _is_truncated(data) else declared_size(data)
    if size is None or size[0] * size[1] > MOST_PIXELS:
        return None
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), flags | (0 if flags < 0 else cv2.IMREAD_IGNORE_ORIENTATION))
    except cv2.error:
        return None


def declared_size(data: bytes) -> tuple[int, int] | None:
    """Width and height that a PNG or JPEG claims, before anything is allocated for it; None for anything else."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(BytesIO(data), formats=("JPEG", "PNG")) as image:
            return image.size
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def _is_truncated(data: bytes) -> bool:
    """The end marks tell; OpenCV also takes memory for what a chunk of a PNG says it has, before it looks."""
    if data.startswith(b"\xff\xd8"):
        return b"\xff\xd9" not in data[-4096:]
    if not data.startswith(b"\x89PNG"):
        return True
    at = 8
    while at + 12 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        if data[at + 4 : at + 8] == b"IEND":
            return False
        at += 12 + size
    return True
