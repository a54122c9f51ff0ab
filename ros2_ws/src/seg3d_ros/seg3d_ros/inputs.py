# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""What comes in: subscriptions, matching, the wait for poses. Good frames go to the runtime, bad ones are counted."""

from __future__ import annotations

import inspect
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseStamped
from nav_msgs.msg import Odometry
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo, Image
from tf2_msgs.msg import TFMessage

from seg3d_core.errors import FrameError
from seg3d_core.types import Camera

from . import backends, convert, corrections, qos, validate
from .report import Reporter
from .transforms import PoseProvider, TfPoses, TopicPoses, TransformError

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks

HEARS_NUMBERS = hasattr(Subscription, "CallbackType")  # not on Humble
KNOWN_EVENTS = inspect.signature(SubscriptionEventCallbacks.__init__).parameters
POSE_QUEUE = 60  # matched frames that wait for their pose; 90 MB at 640 x 480


class Input:
    """One subscription that follows the QoS of its publishers, and what was seen on it."""

    def __init__(
        self, inputs: Inputs, role: str, topic: str, kind: type, callback: Callable[[Any], None], profile=None
    ):
        self.inputs, self.role, self.topic, self.kind = inputs, role, topic, kind
        self.callback = callback
        self.fixed = profile is not None
        self.asked = profile or qos.SENSOR_RELIABLE
        self.count = 0
        self.lost = 0
        self._number: int | None = None  # of the newest message, as its publisher counts
        self._senders: tuple[Any, ...] = ()
        self.frame_id = ""
        self.stamps: deque[float] = deque(maxlen=60)
        self._subscribe()

    @property
    def type_name(self) -> str:
        return f"{self.kind.__module__.partition('.')[0]}/msg/{self.kind.__name__}"

    @property
    def full_topic(self) -> str:
        return self.subscription.topic_name

    def _subscribe(self) -> None:
        events = {
            "incompatible_qos": lambda event: self.follow_publishers(),
            "message_lost": self._on_lost,
            "incompatible_type": lambda event: None,  # the explanation names it; the default would print each time
        }
        self.subscription = self.inputs.node.create_subscription(
            self.kind,
            self.topic,
            self.inputs.report.guarded(self._on_numbered if self.is_numbered else self._on_message),
            self.asked,
            callback_group=self.inputs.group,
            event_callbacks=SubscriptionEventCallbacks(**{k: v for k, v in events.items() if k in KNOWN_EVENTS}),
        )

    def publishers(self) -> list[Any]:
        return self.inputs.node.get_publishers_info_by_topic(self.full_topic)

    def follow_publishers(self) -> None:
        """Asks for what every publisher offers: publishers come late, die and return with another QoS."""
        with self.inputs.lock:
            if self.fixed or self.inputs.closed:
                return
            publishers = self.publishers()
            senders = tuple(bytes(p.endpoint_gid) for p in publishers)
            if senders != self._senders:
                self._senders, self._number = senders, None
            wanted = qos.choose(p.qos_profile for p in publishers)
            if wanted is None or wanted == self.asked:
                return
            self.asked, self._number = wanted, None
            self.inputs.node.get_logger().info(f"{self.full_topic}: subscribing again with {qos.describe(wanted)}")
            old = self.subscription
            self._subscribe()
            self.inputs.node.destroy_subscription(old)

    @property
    def is_numbered(self) -> bool:
        """Whether gaps in the publisher's count tell of losses: several publishers at one topic count on their own."""
        return HEARS_NUMBERS and not self.fixed

    def _on_lost(self, event: Any) -> None:
        if not self.is_numbered:
            self.lost += event.total_count_change

    def _on_numbered(self, message: Any, info: Any) -> None:
        """Middleware tells of messages lost on the way, not of those that newer ones pushed out of our own queue."""
        number = info["publication_sequence_number"]
        if number is not None and len(self._senders) == 1:
            if self._number is not None and number > self._number:
                self.lost += number - self._number - 1
            self._number = number
        self._on_message(message)

    def _on_message(self, message: Any) -> None:
        self.count += 1
        if hasattr(message, "header"):
            self.frame_id = message.header.frame_id
            self.stamps.append(validate.seconds(message.header.stamp))
        start = time.perf_counter()
        try:
            self.callback(message)
        except FrameError as error:
            self.inputs.report.drop(error.reason, str(error))
        finally:
            self.inputs.callback_ms.append((time.perf_counter() - start) * 1e3)


class Inputs:
    """All subscriptions of the node. `runtime` takes `submit(frame)`, `submit_masks(stamp, masks)` and
    `submit_correction(correction)`."""

    def __init__(self, node: Any, parameters: Any, runtime: Any, report: Reporter):
        self.node, self.parameters, self.runtime, self.report = node, parameters, runtime, report
        self.group = MutuallyExclusiveCallbackGroup()
        self.lock = threading.RLock()
        self.closed = False
        self.camera: tuple[Camera, str] | None = None
        self.frames = 0
        self.callback_ms: deque[float] = deque(maxlen=4000)  # how long the newest callbacks took
        self.last_frame = time.monotonic()  # when a frame was last complete; at first, when we began to listen
        self.maker = convert.FrameMaker()
        self.waiting: deque[tuple[float, Image, Image]] = deque()  # since when, colour, depth
        self.sync = backends.make_synchroniser(
            2, self._on_match, slop=parameters["sync_slop"], queue=parameters["sync_queue"], on_reset=self._on_reset
        )
        self._unmatched_counted = 0
        self._backward_counted = 0
        self.buffer = backends.make_buffer()
        self.poses = self._pose_provider()
        self.inputs = self._subscribe_all()
        # Steady: publishers come and go also while simulated time stands still.
        self._timer = node.create_timer(
            0.5,
            report.guarded(self._on_timer),
            callback_group=self.group,
            clock=Clock(clock_type=ClockType.STEADY_TIME),
        )

    def _pose_provider(self) -> PoseProvider:
        if self.parameters["pose_source"] == "tf":
            return TfPoses(self.buffer, self.parameters["map_frame"])
        return TopicPoses(self.buffer, self.parameters["map_frame"], self.parameters["pose_frame"])

    def _subscribe_all(self) -> dict[str, Input]:
        p = self.parameters
        out = [
            Input(self, "colour", p["rgb_topic"], Image, lambda m: self._on_image(0, m, "the colour image")),
            Input(self, "depth", p["depth_topic"], Image, lambda m: self._on_image(1, m, "the depth image")),
            Input(self, "camera_info", p["camera_info_topic"], CameraInfo, self._on_camera_info),
            Input(self, "tf", "/tf", TFMessage, self._on_tf, qos.TF),
            Input(self, "tf_static", "/tf_static", TFMessage, lambda m: self._on_tf(m, static=True), qos.TF_STATIC),
        ]
        if p["pose_source"] != "tf":
            kind = PoseStamped if p["pose_source"] == "pose" else Odometry
            out.append(Input(self, "pose", p["pose_topic"], kind, self._on_pose))
        if p["perception.masks"] == "topic":
            out.append(Input(self, "masks", p["mask_topic"], Image, self._on_masks))
        if p["correction_source"] != "none":
            kind = corrections.message_type(p["correction_source"])
            self.reader = corrections.CorrectionReader(
                p["correction_source"], p["map_frame"], p["correction_frame"], self._camera_in
            )
            out.append(Input(self, "corrections", p["correction_topic"], kind, self._on_correction))
        return {each.role: each for each in out}

    def close(self) -> None:
        with self.lock:
            self.closed = True
            self.node.destroy_timer(self._timer)
            for each in self.inputs.values():
                self.node.destroy_subscription(each.subscription)

    # --- callbacks, all in one group: never two at a time ---------------------------------------

    def _on_image(self, stream: int, message: Image, what: str) -> None:
        stamp = validate.header(message, what)
        validate.image(message, (validate.COLOUR, validate.DEPTH)[stream], what)
        self.sync.slop = self.parameters["sync_slop"]
        self.sync.add(stream, stamp, message)
        self._count_unmatched()

    def _count_unmatched(self) -> None:
        unmatched, backward = sum(self.sync.unmatched), sum(self.sync.backward)
        if unmatched > self._unmatched_counted:
            self.report.drop(
                "no_partner",
                f"an image had no partner within {self.sync.slop:g} s (sync_slop)",
                unmatched - self._unmatched_counted,
            )
        if backward > self._backward_counted:
            self.report.drop(
                "stamp_backward", "an image's stamp repeats or runs back", backward - self._backward_counted
            )
        self._unmatched_counted, self._backward_counted = unmatched, backward

    def _on_reset(self) -> None:
        """Stamps jumped back by more than a second: a bag loops or a simulator started anew."""
        if self.waiting:
            self.report.drop("stamp_backward", "stamps jumped back while frames waited for poses", len(self.waiting))
            self.waiting.clear()
        self.report.warn("time_restart", "stamps jumped back by more than a second: matching starts anew")

    def _on_camera_info(self, message: CameraInfo) -> None:
        self.camera = validate.camera_info(message, rectified=self.parameters["rectified"])
        self._hand_over()

    def _on_tf(self, message: TFMessage, static: bool = False) -> None:
        for tf in message.transforms:
            t, r = tf.transform.translation, tf.transform.rotation
            try:
                self.buffer.add(
                    tf.header.frame_id,
                    tf.child_frame_id,
                    validate.seconds(tf.header.stamp),
                    (t.x, t.y, t.z),
                    (r.x, r.y, r.z, r.w),
                    static=static,
                )
            except FrameError as error:
                self.report.drop(f"tf_{error.reason}", str(error))
        self._hand_over()

    def _on_pose(self, message: PoseStamped | Odometry) -> None:
        stamp = validate.header(message, "the pose")
        pose = message.pose
        if isinstance(message, Odometry):
            pose = pose.pose
            if not self.parameters["pose_frame"]:
                self.poses.pose_frame = message.child_frame_id.lstrip("/")
        t, r = pose.position, pose.orientation
        self.poses.add(message.header.frame_id, stamp, (t.x, t.y, t.z), (r.x, r.y, r.z, r.w))
        self._hand_over()

    def _on_masks(self, message: Image) -> None:
        stamp = validate.header(message, "the label image")
        self.runtime.submit_masks(stamp, self.maker.masks(message, self.camera))

    def _on_correction(self, message: Any) -> None:
        self.runtime.submit_correction(self.reader.read(message))

    def _camera_in(self, frame: str) -> np.ndarray:
        """The camera's pose (4, 4) in a frame of the robot, as of the newest image."""
        colour = self.inputs["colour"]
        camera = self.parameters["camera_frame"] or colour.frame_id
        if not camera:
            raise FrameError("correction_early", "a correction came before any image, so it moves nothing")
        try:
            return self.buffer.lookup(frame, camera, colour.stamps[-1] if colour.stamps else 0.0)
        except TransformError as error:
            raise FrameError(
                "correction_no_camera", f"where the camera is in {frame!r} (correction_frame) is not known: {error}"
            ) from None

    def _on_match(self, rgb: Image, depth: Image) -> None:
        """Images and poses are separate streams: the pose often comes after the frame. So wait for it."""
        validate.pair(rgb, depth)
        if rgb.header.frame_id != depth.header.frame_id:
            self.report.warn(
                "frame_ids",
                f"colour is in the frame {rgb.header.frame_id!r}, depth in {depth.header.frame_id!r}: "
                "if depth is not registered to colour, colours and masks will be shifted",
            )
        self.waiting.append((time.monotonic(), rgb, depth))
        self._hand_over()

    def _on_timer(self) -> None:
        for each in self.inputs.values():
            each.follow_publishers()
        self._hand_over()

    # --- the wait for poses ---------------------------------------------------------------------

    def camera_frame(self, rgb: Image) -> str:
        return self.parameters["camera_frame"] or rgb.header.frame_id

    def _hand_over(self) -> None:
        """Submits, in order, every waiting frame whose pose is known; gives up on those that waited too long.

        Too long by the clock and not by stamps alone: after a stall, images and poses of seconds come in one burst,
        and topic by topic.
        """
        still: deque[tuple[float, Image, Image]] = deque()
        now = time.monotonic()
        while self.waiting:
            since, rgb, depth = self.waiting.popleft()
            stamp = validate.seconds(rgb.header.stamp)
            try:
                self._submit(rgb, depth, stamp)
            except TransformError as error:
                too_many = len(still) + len(self.waiting) >= POSE_QUEUE
                if now - since > self.parameters["pose_timeout"] or too_many:
                    self._give_up(str(error))
                else:
                    still.append((since, rgb, depth))
            except FrameError as error:
                self.report.drop(error.reason, str(error))
        self.waiting = still

    def _give_up(self, why: str) -> None:
        if self.camera is None:
            topic = self.inputs["camera_info"].full_topic
            self.report.drop("no_camera_info", f"no usable camera_info has arrived on {topic}")
        else:
            self.report.drop("no_pose", f"no pose at the frame's stamp: {why}")

    def _submit(self, rgb: Image, depth: Image, stamp: float) -> None:
        if self.camera is None:
            raise TransformError("no camera_info yet")
        pose = self.poses.lookup(self.camera_frame(rgb), stamp)
        frame = self.maker.frame(self.frames, rgb, depth, self.camera, pose)
        self.frames += 1
        self.last_frame = time.monotonic()
        self.runtime.submit(frame)
