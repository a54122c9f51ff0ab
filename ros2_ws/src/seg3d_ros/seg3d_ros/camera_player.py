# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Plays any source of the core as a camera: colour, depth, camera_info and poses on real topics."""

from __future__ import annotations

import queue
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import rclpy
from geometry_msgs.msg import Pose, PoseStamped, TransformStamped
from nav_msgs.msg import Odometry
from rclpy.duration import Duration
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from rclpy.time import Time
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header
from tf2_msgs.msg import TFMessage

from seg3d_core.errors import Seg3DError
from seg3d_core.geometry import invert, matrix_to_quaternion, quaternion_to_matrix
from seg3d_core.sources.guess import open_source
from seg3d_core.types import Camera, Frame

from . import convert, qos
from .parameters import declare, describe
from .stopping import Stop

BODY_FRAME, OPTICAL_FRAME = "camera_link", "camera_color_optical_frame"
# REP 103: from the body (x forward, z up) to the optical axes (z forward, y down)
T_BODY_OPTICAL = quaternion_to_matrix(np.zeros(3), np.array([-0.5, 0.5, -0.5, 0.5]))

DEFAULTS: dict[str, tuple[Any, str]] = {
    "source": ("", "folder or bag, or synthetic"),
    "rate": (15.0, "frames per second; 0: as fast as subscribers acknowledge"),
    "loop": (False, "start anew at the end"),
    "start": (0, "frames left out at the start"),
    "step": (1, "every that many-th frame"),
    "frames": (0, "stop after as many; 0: all"),
    "wait_for_subscribers": (0.0, "wait up to this long for somebody who listens to colour and depth [s]"),
    "pose_output": ("tf", "tf, pose or odometry"),
    "pose_delay": (0, "frames by which poses come after their images"),
    "map_frame": ("map", "frame of the poses"),
    "stamps": ("now", "now, or source for the recorded ones"),
    "depth_encoding": ("16UC1", "16UC1 or 32FC1"),
    "best_effort": (False, "offer BEST_EFFORT as many drivers do"),
    "masks": (False, "publish the source's own instance images on the topic masks"),
}


@dataclass
class Choices:
    """The parameters, read once."""

    values: dict[str, Any]

    def __getattr__(self, name: str) -> Any:
        return self.values[name]


class CameraPlayer(Node):
    """Topics: rgb/image_raw, depth/image_raw, rgb/camera_info, masks, /tf and /tf_static, pose or odometry."""

    def __init__(self) -> None:
        super().__init__("camera_player")
        for name, (value, text) in DEFAULTS.items():
            declare(self, name, value, describe(text))
        self.choices = Choices({name: self.get_parameter(name).value for name in DEFAULTS})
        self._check()
        self.source = open_source(
            self.choices.source,
            stride=self.choices.step,
            max_frames=(self.choices.frames + self.choices.start) or None if self.choices.frames else None,
        )
        self.sensor = qos.SENSOR_BEST_EFFORT if self.choices.best_effort else qos.SENSOR_RELIABLE
        self.rgb = self.create_publisher(Image, "rgb/image_raw", self.sensor)
        self.depth = self.create_publisher(Image, "depth/image_raw", self.sensor)
        self.info = self.create_publisher(CameraInfo, "rgb/camera_info", self.sensor)
        self.masks = self.create_publisher(Image, "masks", self.sensor) if self.choices.masks else None
        self.tf = self.create_publisher(TFMessage, "/tf", qos.TF)
        self.tf_static = self.create_publisher(TFMessage, "/tf_static", qos.TF_STATIC)
        kinds = {"pose": (PoseStamped, "pose"), "odometry": (Odometry, "odometry")}
        kind = kinds.get(self.choices.pose_output)
        self.pose = self.create_publisher(*kind, self.sensor) if kind else None
        self.tf_static.publish(
            TFMessage(transforms=[_transform(Header(frame_id=BODY_FRAME), OPTICAL_FRAME, T_BODY_OPTICAL)])
        )
        self.sent = 0
        self._shift = 0.0
        self._late_poses: list[tuple[Any, np.ndarray]] = []

    def _check(self) -> None:
        for name, allowed in (
            ("pose_output", ("tf", "pose", "odometry")),
            ("stamps", ("now", "source")),
            ("depth_encoding", ("16UC1", "32FC1")),
        ):
            if self.choices.values[name] not in allowed:
                raise Seg3DError(f"{name} is {self.choices.values[name]!r}; it must be one of {', '.join(allowed)}")
        if not self.choices.source:
            raise Seg3DError("no source: --ros-args -p source:=PATH (a folder or a bag, or synthetic)")
        if not 0 <= self.choices.rate <= 1000:
            raise Seg3DError(f"rate is {self.choices.rate}; it must be 0 to 1000 frames per second")

    def heard(self) -> bool:
        """Somebody listens to colour, depth and intrinsics, and asks for the reliability that is offered."""
        for publisher in (self.rgb, self.depth, self.info):
            listeners = self.get_subscriptions_info_by_topic(publisher.topic_name)
            reliable = self.choices.best_effort or any(
                s.qos_profile.reliability == ReliabilityPolicy.RELIABLE for s in listeners
            )
            if not publisher.get_subscription_count() or not reliable:
                return False
        return True

    def send(self, frame: Frame) -> None:
        header = Header(stamp=self._stamp(frame).to_msg(), frame_id=OPTICAL_FRAME)
        self._late_poses.append((header.stamp, frame.T_world_camera))
        self.flush_poses(self.choices.pose_delay)
        self.info.publish(convert.camera_to_info(_without_distortion(frame.camera), header))
        self.depth.publish(self._depth_message(frame.depth, header))
        self.rgb.publish(convert.numpy_to_image(frame.rgb, "rgb8", header))
        if self.masks is not None and frame.instance is not None:
            self.masks.publish(convert.numpy_to_image(frame.instance.astype(np.int32), "32SC1", header))
        self.sent += 1

    def _stamp(self, frame: Frame) -> Time:
        if self.choices.stamps == "now":
            return self.get_clock().now()
        # In ROS the stamp 0 says that there is none, but sources may well count from 0.
        if not self.sent:
            self._shift = 1.0 if frame.stamp <= 0 else 0.0
        return Time(nanoseconds=round((frame.stamp + self._shift) * 1e9))

    def _depth_message(self, depth: np.ndarray, header: Header) -> Image:
        if self.choices.depth_encoding == "32FC1":
            return convert.numpy_to_image(np.where(depth > 0, depth, np.nan).astype(np.float32), "32FC1", header)
        millimetres = np.clip(np.rint(depth * 1000), 0, np.iinfo(np.uint16).max).astype(np.uint16)
        return convert.numpy_to_image(millimetres, "16UC1", header)

    def flush_poses(self, keep: int = 0) -> None:
        """Publishes the poses that are due; `keep` of the newest stay back."""
        while len(self._late_poses) > keep:
            stamp, T_world_optical = self._late_poses.pop(0)
            header = Header(stamp=stamp, frame_id=self.choices.map_frame)
            T_world_body = T_world_optical @ invert(T_BODY_OPTICAL)
            if self.choices.pose_output == "tf":
                self.tf.publish(TFMessage(transforms=[_transform(header, BODY_FRAME, T_world_body)]))
            elif self.choices.pose_output == "pose":
                self.pose.publish(PoseStamped(header=header, pose=_pose(T_world_optical)))
            else:
                message = Odometry(header=header, child_frame_id=BODY_FRAME)
                message.pose.pose = _pose(T_world_body)
                self.pose.publish(message)

    def acknowledged(self, seconds: float) -> None:
        """Until subscribers have what was sent; without it the last frames die with the process."""
        for publisher in (self.rgb, self.depth, self.info, self.tf):
            if hasattr(publisher, "wait_for_all_acked") and not self.choices.best_effort:
                publisher.wait_for_all_acked(Duration(seconds=seconds))


def _transform(header: Header, child: str, matrix: np.ndarray) -> TransformStamped:
    out = TransformStamped(header=header, child_frame_id=child)
    pose = _pose(matrix)
    t = out.transform.translation
    t.x, t.y, t.z = pose.position.x, pose.position.y, pose.position.z
    out.transform.rotation = pose.orientation
    return out


def _pose(matrix: np.ndarray) -> Pose:
    out = Pose()
    out.position.x, out.position.y, out.position.z = map(float, matrix[:3, 3])
    q = out.orientation
    q.x, q.y, q.z, q.w = map(float, matrix_to_quaternion(matrix))
    return out


def _without_distortion(camera: Camera) -> Camera:
    return Camera(camera.width, camera.height, camera.fx, camera.fy, camera.cx, camera.cy)


class Prefetch:
    """Reads frames ahead in a thread, so that decoding does not disturb the rate."""

    def __init__(self, player: CameraPlayer, stop: Stop):
        self._player, self._stop = player, stop
        self._queue: queue.Queue[Frame | Exception | None] = queue.Queue(maxsize=8)
        threading.Thread(target=self._read, name="read-ahead", daemon=True).start()

    def _read(self) -> None:
        try:
            while True:
                any_frame = False
                for frame in self._player.source:
                    if frame.index < self._player.choices.start:
                        continue
                    any_frame = True
                    if not self._put(frame):
                        return
                if not self._player.choices.loop or not any_frame:
                    break
            self._put(None)
        except Exception as error:
            self._put(error)

    def _put(self, item: Frame | Exception | None) -> bool:
        while not self._stop.is_set():
            try:
                self._queue.put(item, timeout=0.2)
                return True
            except queue.Full:
                continue
        return False

    def __iter__(self) -> Iterator[Frame]:
        while not self._stop.is_set():
            try:
                item = self._queue.get(timeout=0.2)
            except queue.Empty:
                continue
            if item is None:
                return
            if isinstance(item, Exception):
                raise item
            yield item


def play(player: CameraPlayer, stop: Stop) -> None:
    """Blocks until the end, or until `stop`."""
    limit = player.choices.wait_for_subscribers
    deadline = time.monotonic() + limit
    while not stop.is_set() and time.monotonic() < deadline and not player.heard():
        stop.wait(0.05)
    if limit and not player.heard():
        player.get_logger().warning(f"nobody listens after {limit:g} s; playing all the same")
    total = len(player.source) - player.choices.start
    show = _Progress(0 if player.choices.loop else total)
    period = 1 / player.choices.rate if player.choices.rate else 0.0
    due = time.monotonic()
    for frame in Prefetch(player, stop):
        player.send(frame)
        show.update(player.sent)
        if not period:
            player.acknowledged(5.0)
            continue
        due = max(due + period, time.monotonic() - period)
        stop.wait(max(0.0, due - time.monotonic()))
    player.flush_poses()
    if not stop.is_set():
        player.acknowledged(5.0)
    show.close()


class _Progress:
    """One line that rewrites itself, on a terminal only."""

    def __init__(self, total: int):
        self.total, self.shown = total, sys.stderr.isatty()

    def update(self, sent: int) -> None:
        if self.shown:
            of = f" of {self.total}" if self.total else ""
            print(f"\rcamera player: frame {sent}{of} ", end="", file=sys.stderr, flush=True)

    def close(self) -> None:
        if self.shown:
            print(file=sys.stderr)


def run(args: list[str] | None, stop: Stop) -> int:
    """Until the end of the source or a signal; returns the exit code: 0, or 1 when the source is bad."""
    stop.starting = False
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    executor = SingleThreadedExecutor()
    spinner = threading.Thread(target=_spin, args=(executor, stop), daemon=True)
    player, code = None, 0
    try:
        player = CameraPlayer()
        executor.add_node(player)
        spinner.start()
        play(player, stop)
        player.get_logger().info(f"sent {player.sent} frames, dropped {sum(player.source.drops.values())}")
    except Seg3DError as error:
        print(f"camera player: {error}", file=sys.stderr)
        code = 1
    except ExternalShutdownException:
        pass
    finally:
        stop.set()
        if spinner.is_alive():  # the context must outlive its last wait
            spinner.join()
        executor.shutdown(timeout_sec=2)
        if player is not None:
            player.destroy_node()
        rclpy.try_shutdown()
    return code


def _spin(executor: SingleThreadedExecutor, stop: Stop) -> None:
    """Parameter services answer while frames are sent from the main thread."""
    while not stop.is_set():
        try:
            executor.spin_once(timeout_sec=0.2)
        except ExternalShutdownException:
            return
