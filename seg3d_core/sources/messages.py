# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Decoding of ROS image messages to arrays; works on any object with the fields of the message, no ROS needed.

Colour: rgb8, bgr8, rgba8, bgra8, mono8, mono16, 8UC1, 8UC3 and 8UC4 (taken as bgr, as OpenCV has it), 8-bit
Bayer patterns, yuv422 (UYVY) and yuv422_yuy2 (YUYV), and JPEG or PNG in CompressedImage. Depth: 16UC1 and mono16 in
millimetres, 32FC1 in metres, and PNG in the compressedDepth transport, plain or as quantised inverse depth. Labels:
integers of one channel. Bags and the ROS node decode here and nowhere else.
"""

from __future__ import annotations

import struct
from typing import Any

import cv2
import numpy as np

from ..errors import FrameError
from ..types import Array
from .images import decode_colour, decode_depth, depth_in_metres

# Encoding -> OpenCV's conversion to RGB or None.
_COLOUR: dict[str, int | None] = {
    "rgb8": None,
    "bgr8": cv2.COLOR_BGR2RGB,
    "8UC3": cv2.COLOR_BGR2RGB,
    "rgba8": cv2.COLOR_RGBA2RGB,
    "bgra8": cv2.COLOR_BGRA2RGB,
    "8UC4": cv2.COLOR_BGRA2RGB,
    "mono8": cv2.COLOR_GRAY2RGB,
    "8UC1": cv2.COLOR_GRAY2RGB,
    "mono16": cv2.COLOR_GRAY2RGB,
    "bayer_rggb8": cv2.COLOR_BayerRGGB2RGB,
    "bayer_bggr8": cv2.COLOR_BayerBGGR2RGB,
    "bayer_gbrg8": cv2.COLOR_BayerGBRG2RGB,
    "bayer_grbg8": cv2.COLOR_BayerGRBG2RGB,
    "yuv422": cv2.COLOR_YUV2RGB_UYVY,
    "uyvy": cv2.COLOR_YUV2RGB_UYVY,
    "yuv422_yuy2": cv2.COLOR_YUV2RGB_YUYV,
    "yuyv": cv2.COLOR_YUV2RGB_YUYV,
}
# Encodings of more than one byte per pixel: (dtype, channels).
_WIDE = {
    **dict.fromkeys(("rgb8", "bgr8", "8UC3"), ("u1", 3)),
    **dict.fromkeys(("rgba8", "bgra8", "8UC4"), ("u1", 4)),
    **dict.fromkeys(("yuv422", "uyvy", "yuv422_yuy2", "yuyv"), ("u1", 2)),
    **dict.fromkeys(("mono16", "16UC1"), ("u2", 1)),
    "32SC1": ("i4", 1),
    "32FC1": ("f4", 1),
}
COLOUR_ENCODINGS = tuple(_COLOUR)
DEPTH_ENCODINGS = ("16UC1", "mono16", "32FC1")
LABEL_ENCODINGS = ("mono8", "8UC1", "16UC1", "mono16", "32SC1")
_INVERSE_DEPTH_HEADER = struct.Struct("<iff")


def pixel_format(encoding: str) -> tuple[np.dtype[Any], int]:
    """(type in native byte order, channels) of an encoding that is known here."""
    dtype, channels = _WIDE.get(encoding, ("u1", 1))
    return np.dtype(dtype), channels


def colour_of(message: Any) -> Array:
    """Image or CompressedImage to uint8 (H, W, 3), red first; rgb8 without a copy. Raises FrameError."""
    if not hasattr(message, "encoding"):
        return decode_colour(bytes(message.data), message.format or "compressed image")
    if message.encoding not in _COLOUR:
        raise FrameError("colour_encoding", f"colour of encoding {message.encoding!r}: known are {', '.join(_COLOUR)}")
    conversion = _COLOUR[message.encoding]
    image = _pixels(message, "colour")
    if image.dtype == np.uint16:
        image = (image >> 8).astype(np.uint8)
    if conversion is None:
        return np.ascontiguousarray(image)
    try:
        return cv2.cvtColor(image, conversion)
    except cv2.error:
        size = f"{message.width}x{message.height}"
        raise FrameError("size_mismatch", f"colour of {message.encoding} cannot be {size}: its width is even") from None


def depth_of(message: Any, scale: float | None = None) -> Array:
    """Image or compressedDepth CompressedImage to float32 (H, W) metres, 0 = none. Raises FrameError.

    `scale`, the number that stands for one metre, defaults to 1000 for integers and 1 for floats (REP 118).
    """
    if not hasattr(message, "encoding"):
        return _compressed_depth(message, scale)
    if message.encoding not in DEPTH_ENCODINGS:
        known = ", ".join(DEPTH_ENCODINGS)
        raise FrameError("depth_encoding", f"depth of encoding {message.encoding!r}: known are {known}")
    image = _pixels(message, "depth")
    return depth_in_metres(image, scale or (1000.0 if image.dtype == np.uint16 else 1.0))


def labels_of(message: Any) -> Array:
    """Image of labels to int32 (H, W), 0 = none. Raises FrameError."""
    if message.encoding not in LABEL_ENCODINGS:
        known = ", ".join(LABEL_ENCODINGS)
        raise FrameError("label_encoding", f"labels of encoding {message.encoding!r}: known are {known}")
    labels = _pixels(message, "labels").astype(np.int32)
    if labels.min() < 0:
        raise FrameError("labels", f"the label image has negative labels, down to {labels.min()}")
    return labels


def _pixels(message: Any, part: str) -> Array:
    """The raw pixels, native byte order, (H, W) or (H, W, channels), without the rows' padding."""
    dtype, channels = pixel_format(message.encoding)
    height, width, step = int(message.height), int(message.width), int(message.step)
    row = width * channels * dtype.itemsize
    data = np.frombuffer(memoryview(message.data), np.uint8)
    if height < 1 or width < 1 or step < row or len(data) < step * height:
        size = f"{width}x{height} with step {step} and {len(data)} bytes"
        raise FrameError("size_mismatch", f"{part} of {message.encoding} says {size}: needs {max(step, row) * height}")
    rows = np.ascontiguousarray(data[: step * height].reshape(height, step)[:, :row])
    image = rows.view(dtype.newbyteorder(">" if message.is_bigendian else "<")).astype(dtype, copy=False)
    return image if channels == 1 else image.reshape(height, width, channels)


def _compressed_depth(message: Any, scale: float | None) -> Array:
    data = bytes(message.data)
    start = data.find(b"\x89PNG", 0, 64)
    if start < 0:
        raise FrameError(
            "depth_encoding", f"compressed depth of format {message.format!r} is no PNG: record it as PNG or raw"
        )
    raw = decode_depth(data[start:], "compressed depth")
    if "32FC1" not in message.format:
        return depth_in_metres(raw, scale or 1000.0)
    if start < _INVERSE_DEPTH_HEADER.size:
        raise FrameError("depth_encoding", "compressed depth of format 32FC1 lacks its header of quantisation")
    # compressed_depth_image_transport: depth = A / (value - B), 0 = none.
    _, a, b = _INVERSE_DEPTH_HEADER.unpack_from(data)
    depth = np.zeros(raw.shape, np.float32)
    known = raw > max(0.0, b)
    depth[known] = a / (raw[known] - np.float32(b)) / np.float32(scale or 1.0)
    return depth
