"""Decoding of ROS image messages to arrays; works on any object with the fields of the message, no ROS needed.

Colour: rgb8, bgr8, rgba8, bgra8, mono8, mono16, 8UC1, 8UC3 and 8UC4 (taken as bgr, as OpenCV has it), 8-bit
Bayer patterns, yuv422 (UYVY) and yuv422_yuy2 (YUYV), and JPEG or PNG in CompressedImage. Depth: 16UC1 and mono16 in
millimetres, 32FC1 in metres, and PNG in the compressedDepth transport, plain or as quantised inverse depth.
"""

from __future__ import annotations

import struct
from typing import Any

import cv2
import numpy as np

from ..errors import FrameError
from ..types import Array
from .images import decode_colour, decode_depth, depth_in_metres

# Encoding -> (dtype, channels, OpenCV's conversion to RGB or None).
_COLOUR: dict[str, tuple[str, int, int | None]] = {
    "rgb8": ("u1", 3, None),
    "bgr8": ("u1", 3, cv2.COLOR_BGR2RGB),
    "8UC3": ("u1", 3, cv2.COLOR_BGR2RGB),
    "rgba8": ("u1", 4, cv2.COLOR_RGBA2RGB),
    "bgra8": ("u1", 4, cv2.COLOR_BGRA2RGB),
    "8UC4": ("u1", 4, cv2.COLOR_BGRA2RGB),
    "mono8": ("u1", 1, cv2.COLOR_GRAY2RGB),
    "8UC1": ("u1", 1, cv2.COLOR_GRAY2RGB),
    "mono16": ("u2", 1, cv2.COLOR_GRAY2RGB),
    "bayer_rggb8": ("u1", 1, cv2.COLOR_BayerRGGB2RGB),
    "bayer_bggr8": ("u1", 1, cv2.COLOR_BayerBGGR2RGB),
    "bayer_gbrg8": ("u1", 1, cv2.COLOR_BayerGBRG2RGB),
    "bayer_grbg8": ("u1", 1, cv2.COLOR_BayerGRBG2RGB),
    "yuv422": ("u1", 2, cv2.COLOR_YUV2RGB_UYVY),
    "uyvy": ("u1", 2, cv2.COLOR_YUV2RGB_UYVY),
    "yuv422_yuy2": ("u1", 2, cv2.COLOR_YUV2RGB_YUYV),
    "yuyv": ("u1", 2, cv2.COLOR_YUV2RGB_YUYV),
}
_DEPTH = {"16UC1": "u2", "mono16": "u2", "32FC1": "f4"}
COLOUR_ENCODINGS = tuple(_COLOUR)
DEPTH_ENCODINGS = tuple(_DEPTH)
_INVERSE_DEPTH_HEADER = struct.Struct("<iff")


def colour_of(message: Any) -> Array:
    """Image or CompressedImage to uint8 (H, W, 3), red first. Raises FrameError."""
    if not hasattr(message, "encoding"):
        return decode_colour(bytes(message.data), message.format or "compressed image")
    if message.encoding not in _COLOUR:
        raise FrameError("colour_encoding", f"colour of encoding {message.encoding!r}: known are {', '.join(_COLOUR)}")
    dtype, channels, conversion = _COLOUR[message.encoding]
    image = _pixels(message, dtype, channels, "colour")
    if dtype == "u2":
        image = (image >> 8).astype(np.uint8)
    return np.ascontiguousarray(image) if conversion is None else cv2.cvtColor(image, conversion)


def depth_of(message: Any, scale: float | None = None) -> Array:
    """Image or compressedDepth CompressedImage to float32 (H, W) metres, 0 = none. Raises FrameError.

    `scale`, the number that stands for one metre, defaults to 1000 for integers and 1 for floats.
    """
    if not hasattr(message, "encoding"):
        return _compressed_depth(message, scale)
    if message.encoding not in _DEPTH:
        raise FrameError("depth_encoding", f"depth of encoding {message.encoding!r}: known are {', '.join(_DEPTH)}")
    image = _pixels(message, _DEPTH[message.encoding], 1, "depth")
    return depth_in_metres(image, scale or (1000.0 if image.dtype == np.uint16 else 1.0))


def _pixels(message: Any, dtype: str, channels: int, part: str) -> Array:
    """The raw pixels, native byte order, (H, W) or (H, W, channels), without the rows' padding."""
    height, width, step = int(message.height), int(message.width), int(message.step)
    row = width * channels * np.dtype(dtype).itemsize
    data = np.frombuffer(memoryview(message.data), np.uint8)
    if height < 1 or width < 1 or step < row or len(data) < step * height:
        size = f"{width}x{height} with step {step} and {len(data)} bytes"
        raise FrameError("size_mismatch", f"{part} of {message.encoding} says {size}: needs {max(step, row) * height}")
    rows = np.ascontiguousarray(data[: step * height].reshape(height, step)[:, :row])
    order = ">" if message.is_bigendian else "<"
    image = rows.view(order + dtype).astype(dtype, copy=False)
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
