# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""The distribution's packages where they import, our own small ones where not: decided here and nowhere else.

`message_filters` or `sync.Synchroniser`, `tf2_ros` or `transforms.TransformBuffer`, `sensor_msgs_py` or
`convert.points_to_cloud`. Both sides pass the same tests. Images are decoded by the core alone.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from geometry_msgs.msg import TransformStamped
from rclpy.duration import Duration
from rclpy.time import Time

from seg3d_core.geometry import quaternion_to_matrix

from . import convert
from .sync import Synchroniser
from .transforms import TransformBuffer, TransformError


def _optional(name: str) -> Any:
    # A module built for another numpy fails with AttributeError or worse than ImportError.
    try:
        return importlib.import_module(name)
    except Exception:
        return None


message_filters = _optional("message_filters")
tf2_ros = _optional("tf2_ros")
point_cloud2 = _optional("sensor_msgs_py.point_cloud2")


class FilterSynchroniser(Synchroniser):
    """The same promises, matched by message_filters' approximate-time policy; items must be stamped messages."""

    def __init__(self, streams: int, on_match: Any, *, slop: float = 0.02, queue: int = 10, **options: Any):
        super().__init__(streams, on_match, slop=slop, queue=queue, **options)
        self._found: list[tuple[Any, ...]] = []
        self._filters = [message_filters.SimpleFilter() for _ in range(streams)]
        self._policy = message_filters.ApproximateTimeSynchronizer(self._filters, queue, slop)
        # The policy calls back while it holds a lock, which an exception would leave locked: collect, then tell.
        self._policy.registerCallback(lambda *items: self._found.append(items))

    def _clear(self) -> None:
        for queue in self._policy.queues:
            queue.clear()
        self._count_unmatched()

    def _push(self, stream: int, stamp: float, item: Any) -> None:
        # The policy takes what is nearer than its slop, we take what is at slop too.
        self._policy.slop = Duration(nanoseconds=round(self.slop * 1e9) + 1)
        self._filters[stream].signalMessage(item)
        found, self._found = self._found, []
        self.matched += len(found)
        self._count_unmatched()
        for items in found:
            self.on_match(*items)

    def _count_unmatched(self) -> None:
        for stream, queue in enumerate(self._policy.queues):
            taken = self.received[stream] - self.backward[stream] - self.matched
            self.unmatched[stream] = taken - len(queue)


class Tf2Buffer(TransformBuffer):
    """Looks up in a tf2 buffer; the own one keeps the chains, which say where a lookup breaks."""

    def __init__(self, cache: float = 30.0, reset_after: float = 1.0):
        super().__init__(cache, reset_after)
        self._tf2 = tf2_ros.Buffer(cache_time=Duration(seconds=cache))

    def add(
        self,
        parent: str,
        child: str,
        stamp: float,
        translation: Sequence[float],
        quaternion: Sequence[float],
        *,
        static: bool = False,
    ) -> None:
        super().add(parent, child, stamp, translation, quaternion, static=static)
        self._give(parent.lstrip("/"), child.lstrip("/"), stamp, translation, quaternion, static)

    def _give(self, parent: str, child: str, stamp: float, translation: Any, quaternion: Any, static: bool) -> None:
        message = TransformStamped(child_frame_id=child)
        message.header.frame_id = parent
        message.header.stamp = Time(nanoseconds=round(stamp * 1e9)).to_msg()
        t, r = message.transform.translation, message.transform.rotation
        t.x, t.y, t.z = map(float, translation)
        r.x, r.y, r.z, r.w = map(float, quaternion)
        (self._tf2.set_transform_static if static else self._tf2.set_transform)(message, "seg3d")

    def clear(self) -> None:
        super().clear()
        self._tf2.clear()
        for child, (translation, quaternion) in self._static.items():
            self._give(self._parent[child], child, 0.0, translation, quaternion, True)

    def lookup(self, target: str, source: str, stamp: float) -> np.ndarray:
        target, source = target.lstrip("/"), source.lstrip("/")
        if target == source:
            return np.eye(4)
        try:
            found = self._tf2.lookup_transform(target, source, Time(nanoseconds=round(stamp * 1e9)))
        except tf2_ros.TransformException as error:
            raise TransformError(str(error)) from None
        t, r = found.transform.translation, found.transform.rotation
        return quaternion_to_matrix((t.x, t.y, t.z), (r.x, r.y, r.z, r.w))


def make_synchroniser(*args: Any, **options: Any) -> Synchroniser:
    return (FilterSynchroniser if message_filters else Synchroniser)(*args, **options)


def make_buffer(*args: Any, **options: Any) -> TransformBuffer:
    return (Tf2Buffer if tf2_ros else TransformBuffer)(*args, **options)


def make_cloud(points: np.ndarray, header: Any) -> Any:
    """PointCloud2 of a structured array of type `convert.CLOUD`."""
    if point_cloud2:
        return point_cloud2.create_cloud(header, convert.cloud_fields(), points)
    return convert.points_to_cloud(points, header)


def chosen() -> str:
    """For the log at start."""
    names = {
        "message_filters": message_filters,
        "tf2_ros": tf2_ros,
        "sensor_msgs_py": point_cloud2,
    }
    return ", ".join(f"{name}: {'installed' if module else 'own fallback'}" for name, module in names.items())
