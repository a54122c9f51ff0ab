# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Which topics of a bag are colour, depth, camera_info and pose: by type, encoding, frame and name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import SourceError, printable
from .messages import COLOUR_ENCODINGS, DEPTH_ENCODINGS

IMAGE = "sensor_msgs/msg/Image"
COMPRESSED = "sensor_msgs/msg/CompressedImage"
CAMERA_INFO = "sensor_msgs/msg/CameraInfo"
TF = ("tf2_msgs/msg/TFMessage", "tf/msg/tfMessage")
POSES = (
    "geometry_msgs/msg/PoseStamped",
    "geometry_msgs/msg/PoseWithCovarianceStamped",
    "geometry_msgs/msg/TransformStamped",
    "nav_msgs/msg/Odometry",
)
_NEITHER = ("mask", "label", "segment", "confidence", "disparity", "infra", "/ir", "theora")


@dataclass(frozen=True)
class Topic:
    """What a bag says of one topic; `encoding` and `frame` are its first message's, "" where it has none."""

    name: str
    type: str
    count: int
    encoding: str = ""
    frame: str = ""

    @property
    def is_depth(self) -> bool:
        if self.type == COMPRESSED:
            return "compressedDepth" in self.encoding or self.name.endswith("compressedDepth")
        return (
            self.type == IMAGE
            and self.encoding in DEPTH_ENCODINGS
            and not (self.encoding == "mono16" and "depth" not in self.name)
        )

    @property
    def is_colour(self) -> bool:
        if self.type == COMPRESSED:
            return not self.is_depth and "depth" not in self.name
        return self.type == IMAGE and self.encoding in COLOUR_ENCODINGS and "depth" not in self.name


@dataclass(frozen=True)
class Chosen:
    """The topics to read; `pose` is None where poses come from TF."""

    colour: Topic
    depth: Topic
    depth_info: Topic
    colour_info: Topic
    pose: Topic | None


def choose(
    topics: Mapping[str, Topic],
    where: str,
    rgb_topic: str | None = None,
    depth_topic: str | None = None,
    camera_info_topic: str | None = None,
    pose_topic: str | None = None,
) -> Chosen:
    """The topics named, and guesses for the rest. Raises SourceError that lists what the bag has."""
    colour = _named(topics, rgb_topic, where, "rgb_topic") or _best_colour(topics, where)
    depth = _named(topics, depth_topic, where, "depth_topic") or _best_depth(topics, colour, where)
    info = _named(topics, camera_info_topic, where, "camera_info_topic")
    return Chosen(
        colour,
        depth,
        info or _best_info(topics, depth, colour, where),
        info or _best_info(topics, colour, depth, where),
        _named(topics, pose_topic, where, "pose_topic"),
    )


def listing(topics: Mapping[str, Topic]) -> str:
    """`/a (type, 12 messages), ...` for error messages."""
    shown = [f"{printable(t.name, 150)} ({printable(t.type.split('/')[-1], 50)}, {t.count})" for t in topics.values()]
    return printable(", ".join(shown), 2000) or "no topics"


def only_pose_topic(topics: Mapping[str, Topic]) -> Topic | None:
    """The pose topic with the most messages, Odometry last: it drifts where a PoseStamped may be corrected."""
    found = [t for t in topics.values() if t.type in POSES and t.count]
    return max(found, key=lambda t: (t.type != "nav_msgs/msg/Odometry", t.count), default=None)


def _named(topics: Mapping[str, Topic], name: str | None, where: str, option: str) -> Topic | None:
    if name is None:
        return None
    if name not in topics:
        raise SourceError(f"{where} has no topic {name} ({option}); it has {listing(topics)}")
    if not topics[name].count:
        raise SourceError(f"{where}: {name} ({option}) holds no messages; the bag has {listing(topics)}")
    return topics[name]


def _best_colour(topics: Mapping[str, Topic], where: str) -> Topic:
    def score(t: Topic) -> tuple[int, int, int, int]:
        named = 2 * any(word in t.name for word in ("color", "rgb", "colour")) - 4 * any(w in t.name for w in _NEITHER)
        return named + (t.encoding != "mono8"), int("rect" in t.name), int(t.type == IMAGE), t.count

    found = [t for t in topics.values() if t.is_colour and t.count]
    if not found:
        raise SourceError(
            f"{where} has no colour images (Image of rgb8, bgr8 and the like, or CompressedImage); "
            f"it has {listing(topics)}; name one with rgb_topic"
        )
    return max(found, key=score)


def _best_depth(topics: Mapping[str, Topic], colour: Topic, where: str) -> Topic:
    def score(t: Topic) -> tuple[int, int, int, int]:
        registered = any(word in t.name for word in ("aligned", "registered", "depth_to_rgb", "to_color"))
        return int(bool(t.frame) and t.frame == colour.frame), int(registered), int(t.type == IMAGE), t.count

    found = [t for t in topics.values() if t.is_depth and t.count and t.name != colour.name]
    if not found:
        raise SourceError(
            f"{where} has no depth images (Image of 16UC1 or 32FC1, or compressedDepth); "
            f"it has {listing(topics)}; name one with depth_topic"
        )
    return max(found, key=score)


def _best_info(topics: Mapping[str, Topic], image: Topic, other: Topic, where: str) -> Topic:
    found = [t for t in topics.values() if t.type == CAMERA_INFO and t.count]
    if not found:
        raise SourceError(f"{where} has no sensor_msgs/msg/CameraInfo with the intrinsics; it has {listing(topics)}")

    def score(t: Topic) -> tuple[int, int, int, int]:
        return (
            int(bool(image.frame) and t.frame == image.frame),
            _shared(t.name, image.name),
            _shared(t.name, other.name),
            t.count,
        )

    return max(found, key=score)


def _shared(a: str, b: str) -> int:
    """How many leading parts of two topic names are the same."""
    count = 0
    for x, y in zip(a.split("/"), b.split("/"), strict=False):
        if x != y:
            break
        count += 1
    return count
