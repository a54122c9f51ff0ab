# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""The real node in a process of its own, and a camera that drives it, for benchmarks over topics."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from builtin_interfaces.msg import Time
from common import ROOT
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import TransformStamped
from rclpy.executors import ExternalShutdownException, MultiThreadedExecutor
from seg3d_interfaces.msg import InstanceArray
from seg3d_interfaces.srv import Segment
from seg3d_ros import convert, qos
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header
from tf2_msgs.msg import TFMessage

from seg3d_core.geometry import matrix_to_quaternion
from seg3d_core.types import Frame

# DDS reads these when the first context is made.
os.environ.setdefault("ROS_DOMAIN_ID", str(random.SystemRandom().randrange(1, 100)))
os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
os.environ.setdefault("ROS_LOG_DIR", tempfile.mkdtemp(prefix="seg3d_ros_log_"))
for _name in ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE"):  # Jazzy, newer
    os.environ.setdefault(_name, str(ROOT / "ros2_ws" / "src" / "seg3d_ros" / "config" / "fastdds_shm.xml"))


class Camera:
    """Publishes frames; what is the same each time is made once per frame object."""

    def __init__(self, node: Any):
        self._rgb = node.create_publisher(Image, "/rgb/image_raw", qos.SENSOR_RELIABLE)
        self._depth = node.create_publisher(Image, "/depth/image_raw", qos.SENSOR_RELIABLE)
        self._info = node.create_publisher(CameraInfo, "/rgb/camera_info", qos.SENSOR_RELIABLE)
        self._tf = node.create_publisher(TFMessage, "/tf", qos.TF)
        self._publishers = (self._rgb, self._depth, self._info, self._tf)

    def heard(self) -> bool:
        return all(p.get_subscription_count() for p in self._publishers)

    def messages(self, frame: Frame) -> tuple[Any, ...]:
        """(tf, camera_info, depth, colour) of one frame, without a stamp."""
        header = Header(frame_id="camera")
        tf = TransformStamped(header=Header(frame_id="map"), child_frame_id="camera")
        t, r = tf.transform.translation, tf.transform.rotation
        t.x, t.y, t.z = map(float, frame.T_world_camera[:3, 3])
        r.x, r.y, r.z, r.w = map(float, matrix_to_quaternion(frame.T_world_camera))
        millimetres = np.clip(np.rint(frame.depth * 1000), 0, 65535).astype(np.uint16)
        return (
            TFMessage(transforms=[tf]),
            convert.camera_to_info(frame.camera, header),
            convert.numpy_to_image(millimetres, "16UC1", header),
            convert.numpy_to_image(frame.rgb, "rgb8", header),
        )

    def publish(self, messages: tuple[Any, ...], stamp: float) -> None:
        tf, info, depth, rgb = messages
        at = Time(sec=int(stamp), nanosec=min(round(stamp % 1 * 1e9), 999_999_999))
        tf.transforms[0].header.stamp = info.header.stamp = depth.header.stamp = rgb.header.stamp = at
        self._tf.publish(tf)
        self._info.publish(info)
        self._depth.publish(depth)
        self._rgb.publish(rgb)


class Node:
    """The node and a client of it. `command` starts another program in its place, which takes ROS arguments."""

    def __init__(self, settings: dict[str, Any], command: tuple[str, ...] = ("-m", "seg3d_ros.node")):
        words = [w for name, value in settings.items() for w in ("-p", f"{name}:={value}")]
        self._log = tempfile.NamedTemporaryFile("w+", suffix=".log")  # noqa: SIM115  as long as the node
        self.child = subprocess.Popen(
            [sys.executable, *command, "--ros-args", *words],
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "ros2_ws" / "src" / "seg3d_ros")])},
        )
        self._context = rclpy.Context()
        self._context.init()
        self.client = rclpy.create_node("benchmark", context=self._context)
        self.camera = Camera(self.client)
        self._newest: InstanceArray | None = None
        self.status: dict[str, dict[str, str]] = {}
        self.client.create_subscription(InstanceArray, "/seg3d/instance_array", self._on_instances, qos.LATCHED)
        self.client.create_subscription(DiagnosticArray, "/diagnostics", self._on_status, qos.DIAGNOSTICS)
        self._segment = self.client.create_client(Segment, "/seg3d/segment_now")
        self._executor = MultiThreadedExecutor(2, context=self._context)
        self._executor.add_node(self.client)
        threading.Thread(target=self._spin, daemon=True).start()
        self.wait(lambda: self.camera.heard() and self.status, 120.0, "the node did not start")

    def _spin(self) -> None:
        try:
            self._executor.spin()
        except ExternalShutdownException:
            return

    def wait(self, condition: Any, limit: float, what: str) -> None:
        end = time.monotonic() + limit
        while not condition():
            if self.child.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{what}:\n{Path(self._log.name).read_text()[-4000:]}")
            time.sleep(0.02)

    def _on_instances(self, message: InstanceArray) -> None:
        self._newest = message

    def _on_status(self, message: DiagnosticArray) -> None:
        self.status = {s.name.partition(": ")[2]: {v.key: v.value for v in s.values} for s in message.status}

    # --- as a target of soak.py ------------------------------------------------------------------

    def submit(self, frame: Frame) -> None:
        self.camera.publish(self.camera.messages(frame), frame.stamp)

    def things(self) -> dict[int, tuple[np.ndarray, int]]:
        future = self._segment.call_async(Segment.Request())
        self.wait(future.done, 120.0, "segment_now did not answer")
        asked = future.result().sequence
        self.wait(lambda: self._newest and self._newest.sequence >= asked, 60.0, "no instances came")
        found = self._newest.instances
        return {i.id: (np.array([getattr(i.pose.position, a) for a in "xyz"]), i.num_points) for i in found}

    def resident_mb(self) -> float:
        return int(Path(f"/proc/{self.child.pid}/statm").read_text().split()[1]) * 4096 / 1e6

    def held_mb(self) -> float:
        return float("nan")

    def readings(self) -> dict[str, float]:
        mapping = self.status.get("mapping", {})
        out = {
            f"{key.removeprefix('stage ')} p95 ms": milliseconds(value, "p95")
            for key, value in mapping.items()
            if key.startswith("stage ")
        }
        out |= {n: float(mapping.get(n, 0)) for n in ("points", "instances", "frames")}
        return out | {f"dropped: {reason}": float(n) for reason, n in self.status.get("drops", {}).items()}

    def close(self) -> None:
        self.child.send_signal(signal.SIGINT)
        try:
            self.child.wait(20)
        finally:
            self.child.kill()
            self._executor.shutdown(timeout_sec=2)
            self.client.destroy_node()
            self._context.try_shutdown()


def milliseconds(text: str, which: str) -> float:
    """Of `median 1.2 ms, p95 3.4 ms, ...`."""
    words = text.replace(",", "").split()
    return float(words[words.index(which) + 1]) if which in words else float("nan")
