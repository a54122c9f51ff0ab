# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Messages to frames of the core, and arrays to messages, without copies where the format allows it."""

from __future__ import annotations

import array
import sys
from typing import Any

import numpy as np
from sensor_msgs.msg import CameraInfo, Image, PointCloud2, PointField

from seg3d_core.sources.images import Rectifier
from seg3d_core.sources.messages import colour_of, depth_of, labels_of
from seg3d_core.types import Camera, Frame, Masks2D

from . import validate

CLOUD = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("rgb", "<f4"), ("instance_id", "<i4")])


class FrameMaker:
    """Messages of one camera to frames of the core; keeps the maps that take the lens distortion out."""

    def __init__(self) -> None:
        self._rectifier: Rectifier | None = None
        self._made_for: tuple[Camera, str] | None = None

    def frame(self, index: int, rgb: Image, depth: Image, camera: tuple[Camera, str], pose: np.ndarray) -> Frame:
        """Raises FrameError."""
        validate.pair(rgb, depth)
        validate.camera_fits(camera[0], rgb)
        rectifier = self._rectifier_for(camera)
        validate.image(rgb, validate.COLOUR, "the colour image")
        validate.image(depth, validate.DEPTH, "the depth image")
        values = depth_of(depth)
        validate.depth_values(values)
        stamp = rgb.header.stamp
        return Frame(
            index=index,
            stamp=validate.seconds(stamp),
            rgb=rectifier.linear(colour_of(rgb)),
            depth=rectifier.nearest(values),
            camera=rectifier.camera,
            T_world_camera=pose,
            name=f"{stamp.sec}.{stamp.nanosec:09d}",
        )

    def masks(self, message: Image, camera: tuple[Camera, str] | None) -> Masks2D:
        """A label image, 0 = none. Raises FrameError."""
        validate.image(message, validate.LABELS, "the label image")
        labels = labels_of(message)
        if camera is not None:
            validate.camera_fits(camera[0], message)
            labels = self._rectifier_for(camera).nearest(labels)
        return Masks2D.from_labels(labels)

    def _rectifier_for(self, camera: tuple[Camera, str]) -> Rectifier:
        if self._rectifier is None or camera != self._made_for:
            self._rectifier, self._made_for = Rectifier(*camera), camera
        return self._rectifier


def as_array(data: np.ndarray) -> array.array:
    """What a uint8[] field takes without looking at every element."""
    out = array.array("B")
    out.frombytes(memoryview(np.ascontiguousarray(data)).cast("B"))
    return out


def numpy_to_image(pixels: np.ndarray, encoding: str, header: Any) -> Image:
    """Of an array (H, W) or (H, W, C) whose type fits the encoding."""
    message = Image(header=header, height=pixels.shape[0], width=pixels.shape[1], encoding=encoding)
    message.is_bigendian = int(sys.byteorder == "big")
    message.step = pixels[0].nbytes
    message.data = as_array(pixels)
    return message


def camera_to_info(camera: Camera, header: Any) -> CameraInfo:
    """Of a camera whose images carry no distortion."""
    message = CameraInfo(header=header, width=camera.width, height=camera.height, distortion_model="plumb_bob")
    message.d = [0.0] * 5
    message.k = camera.matrix.ravel().tolist()
    message.r = np.eye(3).ravel().tolist()
    message.p = np.hstack([camera.matrix, np.zeros((3, 1))]).ravel().tolist()
    return message


def cloud_points(xyz: np.ndarray, rgb: np.ndarray, instance: np.ndarray) -> np.ndarray:
    """Structured array of type CLOUD. `rgb` is declared FLOAT32 and holds 0x00RRGGBB, as RViz and PCL expect."""
    points = np.empty(len(xyz), CLOUD)
    points["x"], points["y"], points["z"] = xyz.T
    red, green, blue = rgb.astype(np.uint32).T
    points["rgb"] = ((red << 16) | (green << 8) | blue).astype("<u4").view("<f4")
    points["instance_id"] = instance
    return points


def cloud_fields() -> list[PointField]:
    kinds = {"instance_id": PointField.INT32}
    return [
        PointField(name=n, offset=CLOUD.fields[n][1], datatype=kinds.get(n, PointField.FLOAT32), count=1)
        for n in CLOUD.names
    ]


def points_to_cloud(points: np.ndarray, header: Any) -> PointCloud2:
    """Of a structured array of type CLOUD."""
    message = PointCloud2(header=header, height=1, width=len(points), is_dense=True, is_bigendian=False)
    message.fields = cloud_fields()
    message.point_step, message.row_step = CLOUD.itemsize, CLOUD.itemsize * len(points)
    message.data = as_array(points)
    return message
