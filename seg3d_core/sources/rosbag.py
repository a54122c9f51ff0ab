# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""A rosbag2 folder (sqlite3 or mcap), a lone .mcap or .db3 file, or a ROS 1 .bag, read without ROS.

What a bag needs:

    colour        sensor_msgs/Image (rgb8, bgr8, ... ; `messages.py` lists them) or CompressedImage
    depth         sensor_msgs/Image of 16UC1 (mm) or 32FC1 (m), or compressedDepth PNG, registered to colour
    intrinsics    sensor_msgs/CameraInfo; the first message counts
    poses         /tf and /tf_static from a fixed frame down to the camera's optical frame, or a topic of
                  PoseStamped, PoseWithCovarianceStamped, TransformStamped or Odometry

Topics are guessed by type, encoding, frame and name; `rgb_topic`, `depth_topic`, `camera_info_topic` and
`pose_topic` name them instead. Poses come from `pose_topic` if given, else from TF, in `map_frame` (by default the
root above the camera), where anything above the camera moves, else from the only pose topic. The optical frame
is depth's `frame_id`, or `camera_frame`. A pose topic gives the pose of its child frame (`pose_frame` for those
that name none, by default the optical frame itself); static transforms from there to the optical frame are added.

Colour and depth are paired by nearest header stamp within `slop` seconds. Poses are interpolated, never
extrapolated, between samples at most `max_gap` seconds apart. Frames without partner or pose are counted as `no_depth`
or `no_pose`. Names are colour's stamps, `seconds.nanoseconds`. The bag is read twice, first for stamps and
poses, then for images, which are handed on as they come: memory does not grow with the bag. A damaged bag is read
up to the damage, and that is counted as `bag_damaged`.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import FrameError, SourceError, printable
from ..types import Array, Camera, Frame
from . import bag_topics
from .bag_topics import CAMERA_INFO, COMPRESSED, IMAGE, TF, Topic
from .images import Rectifier, check_thinning, checked_pose, count_drop, register_colour
from .messages import colour_of, depth_of
from .tf_tree import TransformTree
from .trajectory import Trajectory, associate

log = logging.getLogger(__name__)


class RosbagSource:
    """Posed RGB-D from a ROS bag; the module's docstring says what it needs. Raises SourceError."""

    kind = "rosbag"

    def __init__(
        self,
        path: str | Path,
        *,
        stride: int = 1,
        max_frames: int | None = None,
        depth_scale: float | None = None,
        rgb_topic: str | None = None,
        depth_topic: str | None = None,
        camera_info_topic: str | None = None,
        pose_topic: str | None = None,
        map_frame: str | None = None,
        camera_frame: str | None = None,
        pose_frame: str | None = None,
        slop: float = 0.02,
        max_gap: float = 1.0,
    ):
        check_thinning(stride, max_frames)
        self.path, self.name = Path(path), Path(path).resolve().stem
        self.drops: dict[str, int] = {}
        self._pose_story = ""
        with _Bag(self.path) as bag:
            names = (rgb_topic, depth_topic, camera_info_topic, pose_topic)
            self.topics = bag_topics.choose(bag.topics, str(self.path), *names)
            chosen = self.topics
            self.depth_scale = depth_scale or (1.0 if "32FC1" in chosen.depth.encoding else 1000.0)
            self._info = bag.first_message(chosen.depth_info.name)
            self._colour_info = bag.first_message(chosen.colour_info.name)
            first_depth = bag.first_message(chosen.depth.name)
            depth_shape = _probe_depth(first_depth, chosen.depth.name)
            index = _Index(bag, chosen)
            topics = bag.topics
        self.damage = index.damage
        self.camera_frame = (camera_frame or chosen.depth.frame).lstrip("/")
        colour, depth = (np.array(index.stamps[t.name]) for t in (chosen.colour, chosen.depth))
        depth_order = np.argsort(depth, kind="stable")
        if not len(colour) or not len(depth):
            raise SourceError(f"{self.path}: of {chosen.colour.name} or {chosen.depth.name} no message can be read")
        partner = associate(colour, depth[depth_order], slop)
        stamps = np.where(partner >= 0, depth[depth_order][partner], colour)
        poses, posed = self._poses(index, topics, stamps, map_frame, pose_frame, max_gap)
        order = np.argsort(colour, kind="stable")[::stride][:max_frames]
        self._plan = [
            (int(i), int(depth_order[partner[i]]) if partner[i] >= 0 else None, poses[i] if posed[i] else None)
            for i in order
        ]
        self._stamps, self._names = colour, index.names
        self._cameras(depth_shape)
        if not any(d is not None for _, d, _ in self._plan):
            raise SourceError(
                f"{self.path}: no {chosen.colour.name} has a {chosen.depth.name} within {slop:g} s "
                f"({_span(colour)} and {_span(depth)}): raise slop, or record both with one clock"
            )
        if not any(p is not None for _, _, p in self._plan):
            raise SourceError(
                f"{self.path}: no image has a pose at its stamp: {self._pose_story}; images {_span(colour)}"
            )

    def __len__(self) -> int:
        return len(self._plan)

    @property
    def frame_names(self) -> list[str]:
        return [self._names[colour] for colour, _, _ in self._plan]

    def __iter__(self) -> Iterator[Frame]:
        self.drops = {"bag_damaged": 1} if self.damage else {}
        wanted: dict[tuple[str, int], int] = {}
        for number, (colour, depth, pose) in enumerate(self._plan):
            if depth is None or pose is None:
                reason = "no_depth" if depth is None else "no_pose"
                count_drop(self.drops, FrameError(reason, f"{self._names[colour]} has no partner"), self.name)
                continue
            wanted[self.topics.colour.name, colour] = number
            wanted[self.topics.depth.name, depth] = number
        with _Bag(self.path) as bag:
            for number, rgb, depth_message in self._pairs(bag, wanted):
                try:
                    yield self._frame(number, rgb, depth_message)
                except FrameError as error:
                    count_drop(self.drops, error, self.name)

    def _pairs(self, bag: _Bag, wanted: dict[tuple[str, int], int]) -> Iterator[tuple[int, Any, Any]]:
        """(frame number, colour, depth) raw, in order of number: what comes early waits for what is late."""
        queue = iter(sorted(set(wanted.values())))
        due = next(queue, None)
        seen: dict[str, int] = {}
        waiting: dict[int, dict[str, Any]] = {}
        for topic, _, raw in bag.messages([self.topics.colour.name, self.topics.depth.name]):
            count = seen.get(topic, 0)
            seen[topic] = count + 1
            number = wanted.get((topic, count))
            if number is None:
                continue
            waiting.setdefault(number, {})[topic] = raw
            while due is not None and len(waiting.get(due, ())) == 2:
                pair = waiting.pop(due)
                yield due, pair[self.topics.colour.name], pair[self.topics.depth.name]
                due = next(queue, None)

    def _frame(self, number: int, raw_colour: Any, raw_depth: Any) -> Frame:
        colour_row, _, pose = self._plan[number]
        assert pose is not None
        name = self._names[colour_row]
        pose = checked_pose(pose, name)
        depth = depth_of(raw_depth(), self.depth_scale)
        if depth.shape != (self.camera.height, self.camera.width):
            size = f"{depth.shape[1]}x{depth.shape[0]}, not {self.camera.width}x{self.camera.height}"
            raise FrameError("size_mismatch", f"{name}: depth is {size}")
        rgb = colour_of(raw_colour())
        if self._colour_rectifier is not None and rgb.shape[1::-1] == self._colour_rectifier.raw.size:
            rgb = self._colour_rectifier.linear(rgb)
        rgb = register_colour(rgb, self.camera, self._colour_camera)
        stamp = float(self._stamps[colour_row])
        return Frame(number, stamp, rgb, self._rectifier.nearest(depth), self.camera, pose, name)

    def _cameras(self, depth_shape: tuple[int, int]) -> None:
        """Depth's camera at its images' size, and colour's own; images of both lose their distortion."""
        height, width = depth_shape
        chosen = self.topics
        camera = camera_of_info(self._info, chosen.depth_info.name, "rect" in chosen.depth.name)
        self._rectifier = Rectifier(camera.scaled(width, height), _distortion_model(self._info))
        self.camera = self._rectifier.camera
        colour_camera = camera_of_info(self._colour_info, chosen.colour_info.name, "rect" in chosen.colour.name)
        self._colour_rectifier = Rectifier(colour_camera, _distortion_model(self._colour_info))
        self._colour_camera = self._colour_rectifier.camera
        if self.topics.depth.frame != self.topics.colour.frame:
            log.warning(
                "%s: depth is in %s and colour in %s: depth is not registered to colour",
                self.name,
                self.topics.depth.frame or "no frame",
                self.topics.colour.frame or "no frame",
            )

    def _poses(
        self,
        index: _Index,
        topics: dict[str, Topic],
        stamps: Array,
        map_frame: str | None,
        pose_frame: str | None,
        max_gap: float,
    ) -> tuple[Array, Array]:
        """T_world_camera (m, 4, 4) at `stamps`, and whether known (m,)."""
        tree, camera = index.tree, self.camera_frame
        # Static transforms alone are how the camera is mounted, not where it goes.
        by_tf = map_frame is not None or tree.moves(camera)
        pose_topic = self.topics.pose or (None if by_tf else bag_topics.only_pose_topic(topics))
        if pose_topic is not None:
            track, child = index.pose_tracks[pose_topic.name]
            self._pose_story = f"{pose_topic.name} has {len(track)} poses, {_span(track.stamps)}"
            poses, known = track.at(stamps, max_gap)
            base = (pose_frame or child).lstrip("/")
            mount = tree.static_between(base, camera) if base else None
            if base and base != camera and mount is None:
                raise SourceError(
                    f"{self.path}: {pose_topic.name} gives the pose of {base!r}, and no static transforms lead from "
                    f"there to {camera!r} (known: {', '.join(tree.frames) or 'none'}); if it is the camera's pose, "
                    f"say pose_frame={camera!r}"
                )
            return (poses if mount is None else poses @ mount), known
        chain = tree.ancestors(camera)
        base = (map_frame or chain[-1]).lstrip("/")
        found = tree.poses(base, camera, stamps, max_gap) if len(chain) > 1 or base == camera else None
        if found is None or len(chain) == 1:
            raise SourceError(
                f"{self.path}: no poses: TF leads from {camera!r} up to {' > '.join(chain)}"
                f"{f', not to {map_frame!r}' if map_frame else ''} (frames known: {', '.join(tree.frames) or 'none'}), "
                f"and no pose topic is named (pose_topic); the bag has {bag_topics.listing(topics)}"
            )
        self._pose_story = f"TF leads {' > '.join(reversed(chain))}, {index.tf_span()}"
        return found


class _Index:
    """The first pass: stamps of images, poses and transforms; no image is decoded."""

    def __init__(self, bag: _Bag, chosen: bag_topics.Chosen):
        self.tree = TransformTree()
        self.names: list[str] = []
        images = (chosen.colour.name, chosen.depth.name)
        self.stamps: dict[str, list[float]] = {name: [] for name in images}
        poses = [t.name for t in bag.topics.values() if t.type in bag_topics.POSES and t.count]
        if chosen.pose is not None:
            poses = [chosen.pose.name]
        samples: dict[str, list[tuple[Any, ...]]] = {name: [] for name in poses}
        child = dict.fromkeys(poses, "")
        self._tf_stamps: list[float] = []
        transforms = [t.name for t in bag.topics.values() if t.type in TF]
        for topic, recorded, message in bag.messages([*images, *poses, *transforms]):
            if topic in self.stamps:
                seconds, nanoseconds = bag.header_stamp(message.raw, recorded)
                self.stamps[topic].append(seconds + nanoseconds * 1e-9)
                if topic == chosen.colour.name:
                    self.names.append(f"{seconds}.{nanoseconds:09d}")
                continue
            try:
                decoded = message()
            except FrameError as error:
                log.warning("%s: left out: %s", topic, error)
                continue
            if topic in samples:
                samples[topic].append(_sample_of_pose(decoded))
                child[topic] = getattr(decoded, "child_frame_id", "")
            else:
                self._add_transforms(decoded, topic.endswith("tf_static"))
        self.damage = bag.damage
        self.pose_tracks = {name: (_track(samples[name]), child[name]) for name in poses}

    def tf_span(self) -> str:
        return f"moving transforms {_span(np.array(self._tf_stamps))}"

    def _add_transforms(self, message: Any, is_static: bool) -> None:
        for t in message.transforms:
            stamp = t.header.stamp.sec + t.header.stamp.nanosec * 1e-9
            move, turn = t.transform.translation, t.transform.rotation
            sample = (stamp, np.array([move.x, move.y, move.z]), np.array([turn.x, turn.y, turn.z, turn.w]))
            self.tree.add(t.header.frame_id, t.child_frame_id, sample, is_static)
            if not is_static:
                self._tf_stamps.append(stamp)


class _Message:
    """A message that is decoded when called."""

    def __init__(self, reader: Any, raw: bytes, msgtype: str):
        self._reader, self.raw, self._type = reader, raw, msgtype

    def __call__(self) -> Any:
        try:
            return self._reader.deserialize(self.raw, self._type)
        except Exception as error:
            reason = printable(str(error), 200)
            raise FrameError("message_damaged", f"a {self._type} cannot be decoded: {reason}") from None


class _Bag:
    """An open bag: its topics, and messages in order of recording."""

    def __init__(self, path: Path):
        from rosbags.highlevel import AnyReader
        from rosbags.typesys import Stores, get_typestore

        self.path, self.damage = path, ""
        self.topics: dict[str, Topic] = {}
        # Whatever the library stumbles over in a damaged file, the person needs a sentence, not a trace.
        try:
            self._reader = AnyReader([path], default_typestore=get_typestore(Stores.ROS2_JAZZY))
            self._reader.open()
            topics = sorted((name, info.msgtype or "", info.msgcount) for name, info in self._reader.topics.items())
        except Exception as error:
            reason = printable(str(error).rstrip("."), 300)
            raise SourceError(
                f"cannot open {path} as a bag: {reason}; if recording was cut short, `mcap recover` or "
                "`ros2 bag reindex` mends it"
            ) from error
        self.topics = {name: self._describe(name, *what) for name, *what in topics}

    def __enter__(self) -> _Bag:
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.close()

    def messages(self, topics: Sequence[str]) -> Iterator[tuple[str, int, _Message]]:
        """(topic, time of recording in ns, message); ends early, with `damage` set, where the bag is damaged."""
        connections = [c for c in self._reader.connections if c.topic in topics]
        if not connections:
            return
        stream = self._reader.messages(connections=connections)
        while True:
            try:
                connection, recorded, raw = next(stream)
            except StopIteration:
                return
            except Exception as error:
                self.damage = printable(f"{type(error).__name__}: {error}", 300)
                log.warning("%s is damaged and read up to there: %s", self.path, self.damage)
                return
            yield connection.topic, recorded, _Message(self._reader, raw, connection.msgtype)

    def first_message(self, topic: str) -> Any:
        """The first message of a topic. Raises SourceError."""
        for _, _, message in self.messages([topic]):
            try:
                return message()
            except FrameError as error:
                raise SourceError(f"{self.path}: {topic}: {error}") from None
        raise SourceError(
            f"{self.path}: {topic} holds no readable message; the bag has {bag_topics.listing(self.topics)}"
        )

    def header_stamp(self, raw: bytes, recorded: int) -> tuple[int, int]:
        """(seconds, nanoseconds) of a message that begins with a header, or of its recording where that is 0."""
        if len(raw) < 12:
            return divmod(recorded, 10**9)
        if self._reader.is2:
            seconds, nanoseconds = struct.unpack_from("<iI" if raw[1] & 1 else ">iI", raw, 4)
        else:
            seconds, nanoseconds = struct.unpack_from("<II", raw, 4)
        return (seconds, nanoseconds) if seconds or nanoseconds else divmod(recorded, 10**9)

    def _describe(self, name: str, msgtype: str, count: int) -> Topic:
        if msgtype not in (IMAGE, COMPRESSED, CAMERA_INFO) or not count:
            return Topic(name, msgtype, count)
        try:
            message = self.first_message(name)
        except SourceError:
            return Topic(name, msgtype, count)
        encoding = getattr(message, "encoding", "") or getattr(message, "format", "")
        return Topic(name, msgtype, count, encoding, message.header.frame_id)


def camera_of_info(info: Any, where: str, is_rectified: bool = False) -> Camera:
    """The camera of a CameraInfo: K and D, or P for images that were rectified already. Raises SourceError."""
    k = np.array(info.k if hasattr(info, "k") else info.K, float).reshape(3, 3)
    d = tuple(float(x) for x in (info.d if hasattr(info, "d") else info.D))
    p = np.array(info.p if hasattr(info, "p") else info.P, float).reshape(3, 4)
    if is_rectified and p[0, 0] > 0:
        k, d = p[:, :3], ()
    if not np.isfinite(k).all() or k[0, 0] <= 0 or k[1, 1] <= 0 or info.width < 1 or info.height < 1:
        raise SourceError(
            f"{where}: K is {k.ravel().tolist()} for {info.width}x{info.height}: the camera is not calibrated"
        )
    return Camera.from_matrix(k, info.width, info.height, d if any(d) else None)


def _distortion_model(info: Any) -> str:
    return str(info.distortion_model or "plumb_bob")


def _probe_depth(message: Any, topic: str) -> tuple[int, int]:
    try:
        height, width = depth_of(message).shape
    except FrameError as error:
        raise SourceError(f"{topic}: {error}") from None
    return height, width


def _sample_of_pose(message: Any) -> tuple[Any, ...]:
    stamp = message.header.stamp.sec + message.header.stamp.nanosec * 1e-9
    if hasattr(message, "transform"):
        move, turn = message.transform.translation, message.transform.rotation
    else:
        pose = message.pose.pose if hasattr(message.pose, "pose") else message.pose
        move, turn = pose.position, pose.orientation
    return stamp, (move.x, move.y, move.z), (turn.x, turn.y, turn.z, turn.w)


def _track(samples: list[tuple[Any, ...]]) -> Trajectory:
    return Trajectory(
        np.array([s[0] for s in samples]), np.array([s[1] for s in samples]), np.array([s[2] for s in samples])
    )


def _span(stamps: Array) -> str:
    return f"{stamps.min():.3f} to {stamps.max():.3f} s" if len(stamps) else "at no time"
