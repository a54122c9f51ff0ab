# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""What a message must be before anything is made of it.

Every check raises `FrameError` with a short stable reason, for counters, and a sentence for people.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from seg3d_core.errors import FrameError
from seg3d_core.sources import messages
from seg3d_core.types import Camera

COLOUR, DEPTH, LABELS = messages.COLOUR_ENCODINGS, messages.DEPTH_ENCODINGS, messages.LABEL_ENCODINGS

# coefficients that OpenCV takes of each model
DISTORTION_MODELS = {"plumb_bob": (4, 5), "rational_polynomial": (8, 12, 14), "equidistant": (4,)}

LARGEST_SIDE = 16384
QUATERNION_TOLERANCE = 0.01


def seconds(stamp: Any) -> float:
    """A builtin_interfaces/Time as float64 seconds."""
    return stamp.sec + stamp.nanosec * 1e-9


def header(message: Any, what: str) -> float:
    """The stamp in seconds. Refuses zero or negative stamps and empty frame ids."""
    stamp = seconds(message.header.stamp)
    if stamp <= 0:
        raise FrameError("zero_stamp", f"{what} has the stamp {stamp:g}: its driver must set header.stamp")
    if not message.header.frame_id.strip("/ "):
        raise FrameError("empty_frame_id", f"{what} has an empty header.frame_id: its driver must set it")
    return stamp


def image(message: Any, allowed: Sequence[str], what: str) -> None:
    """Refuses foreign encodings and sizes that do not add up, before the image waits for its partner and its pose."""
    encoding = message.encoding
    if encoding not in allowed:
        raise FrameError("encoding", f"{what} has the encoding {encoding!r}; it must be one of {', '.join(allowed)}")
    if not (0 < message.width <= LARGEST_SIDE and 0 < message.height <= LARGEST_SIDE):
        raise FrameError("image_size", f"{what} is {message.width} x {message.height} pixels")
    dtype, channels = messages.pixel_format(encoding)
    row = message.width * channels * dtype.itemsize
    if message.step < row:
        raise FrameError(
            "image_size",
            f"{what} has step {message.step}, less than {row}, one row of {message.width} {encoding} pixels",
        )
    if len(message.data) < message.height * message.step:
        raise FrameError(
            "image_size",
            f"{what} has {len(message.data)} bytes of data, less than {message.height} rows of {message.step} bytes",
        )


def camera_info(message: Any, *, rectified: bool = False) -> tuple[Camera, str]:
    """The camera of a CameraInfo and its distortion model: K and D, or P without distortion for rectified images."""
    if not (message.width and message.height):
        raise FrameError("camera_info", "camera_info has no image size (width and height are 0)")
    matrix = np.asarray(message.p if rectified else message.k, float).reshape(3, -1)[:, :3]
    if not np.isfinite(matrix).all() or matrix[0, 0] <= 0 or matrix[1, 1] <= 0:
        raise FrameError(
            "camera_info",
            f"camera_info has focal lengths {matrix[0, 0]:g} and {matrix[1, 1]:g}: the camera is not calibrated",
        )
    if rectified or not any(message.d):
        return Camera.from_matrix(matrix, message.width, message.height), ""
    distortion = tuple(float(v) for v in message.d)
    lengths = DISTORTION_MODELS.get(message.distortion_model)
    if lengths is None or len(distortion) not in lengths or not np.isfinite(distortion).all():
        raise FrameError(
            "distortion_model",
            f"camera_info has the distortion model {message.distortion_model!r} with {len(distortion)} coefficients; "
            f"known are {', '.join(DISTORTION_MODELS)}. Take rectified images (image_proc) and set rectified to true",
        )
    return Camera.from_matrix(matrix, message.width, message.height, distortion), message.distortion_model


def pair(rgb: Any, depth: Any) -> None:
    """Colour and depth of one frame must have one size: depth must be registered to colour."""
    if (rgb.width, rgb.height) != (depth.width, depth.height):
        raise FrameError(
            "size_mismatch",
            f"colour is {rgb.width} x {rgb.height}, depth {depth.width} x {depth.height}: "
            "take the depth topic that is registered (aligned) to the colour camera",
        )


def camera_fits(camera: Camera, rgb: Any) -> None:
    """The intrinsics must be those of the image's resolution."""
    if camera.size != (rgb.width, rgb.height):
        raise FrameError(
            "camera_info_size",
            f"camera_info is for {camera.width} x {camera.height}, the image is {rgb.width} x {rgb.height}: "
            "take the camera_info of the same stream",
        )


def depth_values(depth: np.ndarray) -> None:
    """At least one pixel must carry depth."""
    if not depth.any():
        raise FrameError("no_depth", "a depth image has no valid pixel (all zero, negative, NaN or infinite)")


def rigid(translation: Sequence[float], quaternion: Sequence[float], what: str) -> None:
    """A pose: finite, and a quaternion of length 1."""
    if not all(math.isfinite(v) for v in (*translation, *quaternion)):
        raise FrameError("pose_not_finite", f"{what} holds numbers that are not finite")
    norm = math.sqrt(sum(v * v for v in quaternion))
    if abs(norm - 1) > QUATERNION_TOLERANCE:
        raise FrameError("rotation", f"{what} has a quaternion of length {norm:.3f}, which is no rotation")


def child_frame(parent: str, child: str, what: str) -> None:
    """A transform connects two different frames that have names."""
    if not parent.strip("/") or not child.strip("/") or parent.strip("/") == child.strip("/"):
        raise FrameError("empty_frame_id", f"{what} from {parent!r} to {child!r} connects nothing")
