# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Parts of the node that need ROS's Python packages but no ROS graph."""

from __future__ import annotations

import importlib.util
import inspect
import itertools
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

# The core is tested where no ROS is installed, too.
NO_ROTATION = (0.0, 0.0, 0.0, 1.0)
WITH_ROS = all(importlib.util.find_spec(m) for m in ("rclpy", "seg3d_interfaces", "seg3d_ros", "tf2_msgs"))
collect_ignore_glob = [] if WITH_ROS else ["test_*.py"]


class FakeLogger:
    def __init__(self):
        self.lines: list[tuple[str, str]] = []

    def __getattr__(self, level: str) -> Any:
        return lambda text: self.lines.append((level, text))


class FakeNode:
    """Records what a node makes; nothing is sent anywhere. `publishers` maps a topic to its publishers' infos."""

    def __init__(self):
        self.logger = FakeLogger()
        self.subscriptions: list[SimpleNamespace] = []
        self.sent: dict[str, list] = {}
        self.services: dict[str, Any] = {}
        self.publishers: dict[str, list] = {}
        self.destroyed: list[Any] = []
        self.timers: list[SimpleNamespace] = []

    def get_logger(self):
        return self.logger

    def create_subscription(self, kind, topic, callback, profile, **_options):
        full = topic if topic.startswith("/") else f"/{topic}"
        out = SimpleNamespace(kind=kind, topic_name=full, callback=callback, profile=profile)
        self.subscriptions.append(out)
        return out

    def create_publisher(self, _kind, topic, _profile):
        out = self.sent.setdefault(topic, [])
        return SimpleNamespace(publish=out.append)

    def create_service(self, kind, name, callback, **_options):
        self.services[name] = (kind, callback)

    def create_timer(self, period, callback, **options):
        self.timers.append(SimpleNamespace(period=period, callback=callback, **options))
        return self.timers[-1]

    def get_fully_qualified_name(self):
        return "/seg3d"

    def get_publishers_info_by_topic(self, topic):
        return self.publishers.get(topic, [])

    def destroy_subscription(self, subscription):
        self.subscriptions.remove(subscription)

    def destroy_timer(self, timer):
        self.destroyed.append(timer)

    destroy_publisher = destroy_timer

    def hear(self, topic, message, number=None):
        """As if the message had come; `number` is its publisher's count."""
        for subscription in list(self.subscriptions):
            if subscription.topic_name == topic:
                wants_info = len(inspect.signature(subscription.callback).parameters) == 2
                info = ({"publication_sequence_number": number},) if wants_info else ()
                subscription.callback(message, *info)


class FakeRuntime:
    """Takes frames and masks, counts drops."""

    def __init__(self):
        self.frames: list = []
        self.masks: list = []
        self.corrections: list = []
        self.drops: dict[str, int] = {}

    def submit(self, frame):
        self.frames.append(frame)

    def submit_masks(self, stamp, masks):
        self.masks.append((stamp, masks))

    def submit_correction(self, correction):
        self.corrections.append(correction)

    def count_drop(self, reason, n=1):
        self.drops[reason] = self.drops.get(reason, 0) + n


@pytest.fixture
def node():
    return FakeNode()


@pytest.fixture
def runtime():
    return FakeRuntime()


class Messages:
    """Good messages of a small camera; each test spoils what it is about."""

    def __init__(self):
        from builtin_interfaces.msg import Time
        from std_msgs.msg import Header

        self.header = lambda stamp, frame="camera": Header(
            stamp=Time(sec=int(stamp), nanosec=round(stamp % 1 * 1e9)), frame_id=frame
        )
        self.numbers = itertools.count()

    def rgb(self, stamp=10.0, size=(8, 6), encoding="rgb8", **changes):
        from seg3d_ros.convert import numpy_to_image

        pixels = np.arange(size[1] * size[0] * 3, dtype=np.uint8).reshape(size[1], size[0], 3)
        return self._changed(numpy_to_image(pixels, encoding, self.header(stamp)), changes)

    def depth(self, stamp=10.0, size=(8, 6), pixels=None, encoding="16UC1", **changes):
        from seg3d_ros.convert import numpy_to_image

        if pixels is None:
            pixels = np.full((size[1], size[0]), 1500, np.uint16)
        return self._changed(numpy_to_image(pixels, encoding, self.header(stamp)), changes)

    def info(self, stamp=10.0, size=(8, 6), **changes):
        from seg3d_ros.convert import camera_to_info

        from seg3d_core.types import Camera

        camera = Camera(*size, 7.0, 7.0, (size[0] - 1) / 2, (size[1] - 1) / 2)
        return self._changed(camera_to_info(camera, self.header(stamp)), changes)

    def tf(
        self, stamp=10.0, parent="map", child="camera", translation=(1.0, 2.0, 3.0), quaternion=(0.0, 0.0, 0.0, 1.0)
    ):
        from geometry_msgs.msg import TransformStamped
        from tf2_msgs.msg import TFMessage

        out = TransformStamped(header=self.header(stamp, parent), child_frame_id=child)
        t, r = out.transform.translation, out.transform.rotation
        t.x, t.y, t.z = translation
        r.x, r.y, r.z, r.w = quaternion
        return TFMessage(transforms=[out])

    def pose(self, stamp=10.0, frame="map", translation=(1.0, 2.0, 3.0), quaternion=NO_ROTATION):
        from geometry_msgs.msg import PoseStamped

        out = PoseStamped(header=self.header(stamp, frame))
        p, r = out.pose.position, out.pose.orientation
        p.x, p.y, p.z = translation
        r.x, r.y, r.z, r.w = quaternion
        return out

    @staticmethod
    def _changed(message, changes):
        for name, value in changes.items():
            setattr(message, name, value)
        return message


@pytest.fixture
def messages():
    return Messages()


@pytest.fixture
def input_parameters():
    """What the inputs read, at its defaults."""
    return {
        "rgb_topic": "rgb", "depth_topic": "depth", "camera_info_topic": "info", "mask_topic": "masks",
        "pose_topic": "pose", "pose_source": "tf", "pose_frame": "", "camera_frame": "", "correction_source": "none",
        "correction_topic": "corrections", "correction_frame": "", "map_frame": "map",
        "sync_slop": 0.02, "sync_queue": 10, "pose_timeout": 2.0, "rectified": False, "perception.masks": "geometric",
    }  # fmt: skip
