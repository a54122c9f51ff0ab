# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Corrected poses as messages: a Path, RTAB-Map's graph, or transforms of before published again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from nav_msgs.msg import Path
from tf2_msgs.msg import TFMessage

from seg3d_core.errors import ConfigError, FrameError
from seg3d_core.geometry import quaternion_to_matrix
from seg3d_core.types import PoseCorrection

from .validate import seconds

SOURCES = ("none", "path", "map_data", "map_graph", "tf")
# A stamp, and a pose as position (x, y, z) and quaternion (x, y, z, w).
Posed = tuple[float, tuple[float, ...], tuple[float, ...]]


def message_type(source: str) -> type:
    """The type of the topic's messages. Raises ConfigError where its package is not installed."""
    if source in ("path", "tf"):
        return Path if source == "path" else TFMessage
    try:
        from rtabmap_msgs import msg
    except ImportError:
        raise ConfigError(
            f"correction_source is {source}, which needs the package rtabmap_msgs: "
            "sudo apt install ros-$ROS_DISTRO-rtabmap-msgs, or take path"
        ) from None
    return msg.MapData if source == "map_data" else msg.MapGraph


class CorrectionReader:
    """Turns messages into corrected poses of the camera.

    `frame`: whose poses the messages tell; empty: the camera's. `to_camera(frame)` gives the pose (4, 4) of the camera
    in that frame, or raises.
    """

    def __init__(self, source: str, map_frame: str, frame: str, to_camera: Callable[[str], np.ndarray]):
        self._read = {"path": self._path, "tf": self._transforms, "map_data": self._data, "map_graph": self._graph}[
            source
        ]
        self._map_frame, self._frame = map_frame.strip("/"), frame.strip("/")
        self._to_camera = to_camera
        self._stamps: dict[int, float] = {}  # of RTAB-Map's nodes: the graph tells poses by number alone

    def read(self, message: Any) -> PoseCorrection:
        """Raises FrameError for a message that tells no poses in the map's frame."""
        posed = self._read(message)
        if not posed:
            raise FrameError("correction_empty", "a correction tells no pose at any stamp")
        to_camera = self._to_camera(self._frame) if self._frame else np.eye(4)
        poses = np.array([_matrix(position, quaternion) for _, position, quaternion in posed]) @ to_camera
        return PoseCorrection(np.array([stamp for stamp, _, _ in posed]), poses)

    def _check_frame(self, name: str) -> None:
        if name.strip("/") != self._map_frame:
            raise FrameError(
                "correction_frame",
                f"a correction speaks of the frame {name!r}, the parameter map_frame is {self._map_frame!r}",
            )

    def _path(self, message: Any) -> list[Posed]:
        for name in {pose.header.frame_id for pose in message.poses} - {""} | {message.header.frame_id}:
            self._check_frame(name)
        return [(seconds(pose.header.stamp), *_numbers(pose.pose)) for pose in message.poses]

    def _transforms(self, message: Any) -> list[Posed]:
        posed = []
        for tf in message.transforms:
            if self._frame and tf.child_frame_id.strip("/") != self._frame:
                continue
            self._check_frame(tf.header.frame_id)
            t, r = tf.transform.translation, tf.transform.rotation
            posed.append((seconds(tf.header.stamp), (t.x, t.y, t.z), (r.x, r.y, r.z, r.w)))
        return posed

    def _data(self, message: Any) -> list[Posed]:
        for node in message.nodes:
            self._stamps[int(node.id)] = float(node.stamp)
        return self._graph(message.graph, message.header)

    def _graph(self, graph: Any, header: Any = None) -> list[Posed]:
        """A graph alone comes after each node, with its stamp: so stamps are known of what came while we listened."""
        self._check_frame((header or graph.header).frame_id)
        ids = np.asarray(graph.poses_id, np.int64)
        if len(ids) != len(graph.poses):
            raise FrameError("correction_graph", f"a graph tells {len(ids)} numbers for {len(graph.poses)} poses")
        if not (ids > 0).any():
            return []
        newest = int(ids.max())
        if header is None:
            self._stamps.setdefault(newest, seconds(graph.header.stamp))
        if self._stamps and newest < max(self._stamps):
            # RTAB-Map began a new map, or forgot its last nodes: their numbers will be given again.
            self._stamps = {number: stamp for number, stamp in self._stamps.items() if number <= newest}
        # Landmarks have numbers below 0 and no stamp.
        return [
            (self._stamps[number], *_numbers(pose))
            for number, pose in zip(ids.tolist(), graph.poses, strict=True)
            if number in self._stamps
        ]


def _numbers(pose: Any) -> tuple[tuple[float, ...], tuple[float, ...]]:
    p, q = pose.position, pose.orientation
    return (p.x, p.y, p.z), (q.x, q.y, q.z, q.w)


def _matrix(position: Sequence[float], quaternion: Sequence[float]) -> np.ndarray:
    """(4, 4), NaN for what is no pose: the core counts those."""
    try:
        return quaternion_to_matrix(np.asarray(position), np.asarray(quaternion))
    except ValueError:
        return np.full((4, 4), np.nan)
