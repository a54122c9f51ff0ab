# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Bags are written here with the `rosbags` library from a few frames, and read again."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import StoragePlugin
from rosbags.rosbag2 import Writer as Writer2
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from seg3d_core.errors import FrameError, SourceError
from seg3d_core.geometry import matrix_to_quaternion
from seg3d_core.sources.guess import guess_kind, open_source
from seg3d_core.sources.messages import colour_of, depth_of
from seg3d_core.types import Frame

STUDIO = Path(__file__).resolve().parents[2] / "examples" / "studio"
STORES = {2: get_typestore(Stores.ROS2_JAZZY), 1: get_typestore(Stores.ROS1_NOETIC)}
TF_DEFINITION = get_types_from_msg("geometry_msgs/TransformStamped[] transforms", "tf2_msgs/msg/TFMessage")
STORES[1].register(TF_DEFINITION)
RGB, DEPTH, INFO = "/cam/color/image_raw", "/cam/aligned_depth_to_color/image_raw", "/cam/color/camera_info"
MOUNT = np.array([[0.0, 0, 1, 0.1], [-1, 0, 0, 0.02], [0, -1, 0, 0.3], [0, 0, 0, 1]])
START = 1000.0
STEP = 0.1


@pytest.fixture(scope="module")
def frames() -> list[Frame]:
    return list(open_source(STUDIO, max_frames=5))


@dataclass
class Recipe:
    """How a bag is written; the defaults make a good one."""

    poses: str = "tf"
    depth: str = "32FC1"
    compressed: bool = False
    depth_delay: float = 0.004
    skip_depth: tuple[int, ...] = ()
    skip_pose: tuple[int, ...] = ()
    static_mount: bool = True
    distortion: tuple[float, ...] = (0.0,) * 5
    step_padding: int = 0
    break_depth: tuple[int, ...] = ()
    with_info: bool = True


class BagWriter:
    """Messages of one ROS version, written in order of time."""

    def __init__(self, version: int):
        self.version, self.store = version, STORES[version]
        self.messages: list[tuple[float, str, str, Any]] = []

    def make(self, name: str, *values: Any, **named: Any) -> Any:
        return self.store.types[name](*values, **named)

    def header(self, stamp: float, frame: str) -> Any:
        seconds, nanoseconds = divmod(round(stamp * 1e9), 10**9)
        time = self.make("builtin_interfaces/msg/Time", seconds, nanoseconds)
        sequence = (0,) if self.version == 1 else ()
        return self.make("std_msgs/msg/Header", *sequence, time, frame)

    def add(self, stamp: float, topic: str, kind: str, *values: Any) -> None:
        self.messages.append((stamp, topic, kind, self.make(kind, *values)))

    def transform(self, stamp: float, parent: str, child: str, matrix: np.ndarray) -> Any:
        geometry = "geometry_msgs/msg/"
        moves = self.make(geometry + "Transform", self.make(geometry + "Vector3", *matrix[:3, 3]), self.turn(matrix))
        return self.make(geometry + "TransformStamped", self.header(stamp, parent), child, moves)

    def turn(self, matrix: np.ndarray) -> Any:
        return self.make("geometry_msgs/msg/Quaternion", *matrix_to_quaternion(matrix))

    def pose(self, matrix: np.ndarray) -> Any:
        point = self.make("geometry_msgs/msg/Point", *matrix[:3, 3])
        return self.make("geometry_msgs/msg/Pose", point, self.turn(matrix))

    def write(self, writer: Any) -> None:
        connections: dict[str, Any] = {}
        with writer:
            for stamp, topic, kind, message in sorted(self.messages, key=lambda m: m[0]):
                if topic not in connections:
                    connections[topic] = writer.add_connection(topic, kind, typestore=self.store)
                serialize = self.store.serialize_ros1 if self.version == 1 else self.store.serialize_cdr
                writer.write(connections[topic], round(stamp * 1e9), serialize(message, kind))


def fill(bag: BagWriter, frames: list[Frame], recipe: Recipe) -> None:
    for i, frame in enumerate(frames):
        stamp = START + i * STEP
        add_images(bag, frame, i, stamp, recipe)
        if i in recipe.skip_pose:
            continue
        add_poses(bag, frame, stamp + recipe.depth_delay, recipe)
    if recipe.static_mount and recipe.poses != "none":
        static = bag.transform(START, "base", "optical", MOUNT)
        bag.add(START, "/tf_static", "tf2_msgs/msg/TFMessage", [static])


def add_poses(bag: BagWriter, frame: Frame, stamp: float, recipe: Recipe) -> None:
    base = frame.T_world_camera @ np.linalg.inv(MOUNT) if recipe.static_mount else frame.T_world_camera
    child = "base" if recipe.static_mount else "optical"
    if recipe.poses == "tf":
        bag.add(stamp, "/tf", "tf2_msgs/msg/TFMessage", [bag.transform(stamp, "map", child, base)])
    elif recipe.poses == "stamped":
        bag.add(stamp, "/slam/pose", "geometry_msgs/msg/PoseStamped", bag.header(stamp, "map"), bag.pose(base))
    elif recipe.poses == "odometry":
        none = bag.make("geometry_msgs/msg/Vector3", 0.0, 0.0, 0.0)
        zeros = np.zeros(36)
        twist = bag.make(
            "geometry_msgs/msg/TwistWithCovariance", bag.make("geometry_msgs/msg/Twist", none, none), zeros
        )
        pose = bag.make("geometry_msgs/msg/PoseWithCovariance", bag.pose(base), zeros)
        bag.add(stamp, "/odom", "nav_msgs/msg/Odometry", bag.header(stamp, "map"), child, pose, twist)


def add_images(bag: BagWriter, frame: Frame, i: int, stamp: float, recipe: Recipe) -> None:
    c, header = frame.camera, bag.header(stamp, "optical")
    if recipe.with_info:
        region = bag.make("sensor_msgs/msg/RegionOfInterest", 0, 0, 0, 0, False)
        p = np.hstack([c.matrix, np.zeros((3, 1))]).ravel()
        numbers = np.array(recipe.distortion), c.matrix.ravel(), np.eye(3).ravel(), p
        kind = "sensor_msgs/msg/CameraInfo"
        bag.add(stamp, INFO, kind, header, c.height, c.width, "plumb_bob", *numbers, 0, 0, region)
    image = "sensor_msgs/msg/Image"
    if recipe.compressed:
        data = cv2.imencode(".jpg", frame.rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])[1]
        kind = "sensor_msgs/msg/CompressedImage"
        bag.add(stamp, RGB + "/compressed", kind, header, "rgb8; jpeg compressed bgr8", data.ravel())
    else:
        rows = np.pad(frame.rgb.reshape(c.height, -1), ((0, 0), (0, recipe.step_padding)))
        bag.add(stamp, RGB, image, header, c.height, c.width, "rgb8", 0, rows.shape[1], rows.ravel())
    if i in recipe.skip_depth:
        return
    later = stamp + recipe.depth_delay
    header = bag.header(later, "optical")
    millimetres = np.rint(frame.depth * 1000).astype(np.uint16)
    if recipe.compressed:
        data = np.concatenate([np.zeros(12, np.uint8), cv2.imencode(".png", millimetres)[1].ravel()])
        kind = "sensor_msgs/msg/CompressedImage"
        bag.add(later, DEPTH + "/compressedDepth", kind, header, "16UC1; compressedDepth png", data)
        return
    raw = frame.depth if recipe.depth == "32FC1" else millimetres
    data = np.ascontiguousarray(raw).view(np.uint8).ravel()
    if i in recipe.break_depth:
        data = data[:1000]
    bag.add(later, DEPTH, image, header, c.height, c.width, recipe.depth, 0, c.width * raw.itemsize, data)


@pytest.fixture
def make_bag(tmp_path: Path, frames: list[Frame]) -> Callable[..., Path]:
    def make(storage: str = "mcap", **changes: Any) -> Path:
        path = tmp_path / (f"drive_{storage}" + (".bag" if storage == "ros1" else ""))
        bag = BagWriter(1 if storage == "ros1" else 2)
        fill(bag, frames, replace(Recipe(), **changes))
        plugin = StoragePlugin.MCAP if storage == "mcap" else StoragePlugin.SQLITE3
        bag.write(Writer1(path) if storage == "ros1" else Writer2(path, version=9, storage_plugin=plugin))
        return path

    return make


def assert_read_back(path: Path, frames: list[Frame], colours: float = 0.0, **options: Any) -> None:
    source = open_source(path, **options)
    read = list(source)
    assert source.drops == {}
    assert len(source) == len(read) == len(frames)
    for a, b in zip(read, frames, strict=True):
        np.testing.assert_allclose(a.T_world_camera, b.T_world_camera, atol=1e-6)
        np.testing.assert_allclose(a.depth, b.depth, atol=6e-4)
        assert np.abs(a.rgb.astype(int) - b.rgb).mean() <= colours
        assert a.camera == b.camera


@pytest.mark.parametrize("storage", ["mcap", "sqlite3", "ros1"])
def test_a_bag_is_read_back(make_bag: Callable[..., Path], frames: list[Frame], storage: str) -> None:
    path = make_bag(storage)
    assert guess_kind(path) == "rosbag"
    assert_read_back(path, frames)


@pytest.mark.parametrize(("storage", "suffix"), [("mcap", ".mcap"), ("sqlite3", ".db3")])
def test_a_lone_file_is_enough(make_bag: Callable[..., Path], frames: list[Frame], storage: str, suffix: str) -> None:
    assert_read_back(next(make_bag(storage).glob(f"*{suffix}")), frames)


@pytest.mark.parametrize("poses", ["stamped", "odometry"])
@pytest.mark.parametrize("mount", [True, False])
def test_poses_of_a_topic(make_bag: Callable[..., Path], frames: list[Frame], poses: str, mount: bool) -> None:
    topic = {"stamped": "/slam/pose", "odometry": "/odom"}[poses]
    path = make_bag(poses=poses, static_mount=mount)
    child = {"pose_frame": "base"} if mount and poses == "stamped" else {}
    assert_read_back(path, frames, pose_topic=topic, **child)
    assert_read_back(path, frames, **child)


def test_compressed_topics(make_bag: Callable[..., Path], frames: list[Frame]) -> None:
    assert_read_back(make_bag(compressed=True), frames, colours=4.0)


def test_millimetres_and_padded_rows(make_bag: Callable[..., Path], frames: list[Frame]) -> None:
    assert_read_back(make_bag(depth="16UC1", step_padding=24), frames)


def test_frames_without_partner_pose_or_sense_are_counted(make_bag: Callable[..., Path]) -> None:
    path = make_bag(skip_depth=(1,), skip_pose=(4,), break_depth=(2,))
    source = open_source(path)
    assert [f.name for f in source] == ["1000.000000000", "1000.300000000"]
    assert source.drops == {"no_depth": 1, "no_pose": 1, "size_mismatch": 1}
    assert [f.index for f in source] == [0, 3]


def test_poses_between_two_transforms_are_interpolated(make_bag: Callable[..., Path], frames: list[Frame]) -> None:
    source = open_source(make_bag(skip_pose=(2,)))
    middle = list(source)[2].T_world_camera
    ends = frames[1].T_world_camera @ np.linalg.inv(MOUNT), frames[3].T_world_camera @ np.linalg.inv(MOUNT)
    np.testing.assert_allclose((middle @ np.linalg.inv(MOUNT))[:3, 3], (ends[0] + ends[1])[:3, 3] / 2, atol=1e-6)


def test_map_frame_chooses_how_far_up(make_bag: Callable[..., Path]) -> None:
    frame = next(iter(open_source(make_bag(), map_frame="base")))
    np.testing.assert_allclose(frame.T_world_camera, MOUNT, atol=1e-9)


def test_stride_and_max_frames(make_bag: Callable[..., Path]) -> None:
    source = open_source(make_bag(), stride=2, max_frames=2)
    assert [f.name for f in source] == ["1000.000000000", "1000.200000000"]
    assert len(source) == 2


def test_distorted_images_become_pinhole(make_bag: Callable[..., Path]) -> None:
    frame = next(iter(open_source(make_bag(distortion=(0.1, -0.1, 0.0, 0.0, 0.0)))))
    assert frame.camera.distortion is None


@pytest.mark.parametrize(
    ("recipe", "options", "words"),
    [
        ({}, {"rgb_topic": "/nowhere"}, r"no topic /nowhere \(rgb_topic\); it has /cam/.*Image, 5"),
        ({"with_info": False}, {}, "no sensor_msgs/msg/CameraInfo"),
        ({"poses": "none"}, {}, "no poses: TF leads from 'optical'.*no pose topic"),
        ({}, {"map_frame": "earth"}, "not to 'earth'.*frames known: base, map, optical"),
        ({"depth_delay": 0.05}, {}, "within 0.02 s.*raise slop"),
        ({"poses": "odometry", "static_mount": False}, {"pose_frame": "wheel"}, "no static transforms lead"),
        ({"skip_depth": (0, 1, 2, 3, 4)}, {}, "no depth images"),
    ],
)
def test_what_is_missing_is_named(make_bag: Callable[..., Path], recipe: Any, options: Any, words: str) -> None:
    with pytest.raises(SourceError, match=words):
        open_source(make_bag(**recipe), **options)


def test_a_file_that_is_no_bag(tmp_path: Path) -> None:
    (tmp_path / "a.mcap").write_bytes(b"nonsense" * 10)
    with pytest.raises(SourceError, match="cannot open"):
        open_source(tmp_path / "a.mcap")


def image(encoding: str, pixels: np.ndarray, big_endian: bool = False) -> SimpleNamespace:
    rows = pixels.astype(pixels.dtype.newbyteorder(">" if big_endian else "<"))
    return SimpleNamespace(
        encoding=encoding,
        height=pixels.shape[0],
        width=pixels.shape[1],
        step=rows[0].nbytes,
        is_bigendian=int(big_endian),
        data=rows.tobytes(),
    )


@pytest.mark.parametrize(
    ("encoding", "pixel"),
    [
        ("rgb8", [10, 20, 30]),
        ("bgr8", [30, 20, 10]),
        ("8UC3", [30, 20, 10]),
        ("rgba8", [10, 20, 30, 255]),
        ("bgra8", [30, 20, 10, 255]),
    ],
)
def test_colour_encodings(encoding: str, pixel: list[int]) -> None:
    pixels = np.tile(np.array(pixel, np.uint8), (4, 6, 1))
    assert (colour_of(image(encoding, pixels)) == [10, 20, 30]).all()


def test_grey_encodings() -> None:
    assert (colour_of(image("mono8", np.full((4, 6), 7, np.uint8))) == 7).all()
    assert (colour_of(image("mono16", np.full((4, 6), 7 * 256, np.uint16), True)) == 7).all()


@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
def test_bayer_patterns_give_the_colour_that_was_mosaicked(pattern: str) -> None:
    colour = {"r": 200, "g": 120, "b": 40}
    tile = np.array([colour[letter] for letter in pattern], np.uint8).reshape(2, 2)
    out = colour_of(image(f"bayer_{pattern}8", np.tile(tile, (4, 4))))
    assert (out[2:-2, 2:-2] == [200, 120, 40]).all()


@pytest.mark.parametrize("big_endian", [False, True])
def test_depth_encodings(big_endian: bool) -> None:
    raw = np.array([[0, 1500, 65535]], np.uint16)
    np.testing.assert_allclose(depth_of(image("16UC1", raw, big_endian)), [[0, 1.5, 0]])
    metres = np.array([[np.nan, 1.5, np.inf, -1.0]], np.float32)
    np.testing.assert_allclose(depth_of(image("32FC1", metres, big_endian)), [[0, 1.5, 0, 0]])


def test_quantised_inverse_depth() -> None:
    a, b = 1000.0, -2.0
    depth = np.array([[0.0, 0.5, 2.0, 4.0]])
    raw = np.where(depth > 0, a / np.maximum(depth, 0.1) + b, 0).astype(np.uint16)
    data = struct.pack("<iff", 0, a, b) + cv2.imencode(".png", raw)[1].tobytes()
    message = SimpleNamespace(format="32FC1; compressedDepth png", data=data)
    np.testing.assert_allclose(depth_of(message), depth, rtol=0.01)


@pytest.mark.parametrize(
    ("decode", "message", "reason"),
    [
        (colour_of, image("nv21", np.zeros((2, 2), np.uint8)), "colour_encoding"),
        (depth_of, image("rgb8", np.zeros((2, 2, 3), np.uint8)), "depth_encoding"),
        (depth_of, SimpleNamespace(format="16UC1; compressedDepth rvl", data=b"0123"), "depth_encoding"),
        (colour_of, SimpleNamespace(format="jpeg", data=b"\xff\xd8broken"), "colour_unreadable"),
        (
            depth_of,
            SimpleNamespace(**{**vars(image("32FC1", np.zeros((2, 2), np.float32))), "step": 4}),
            "size_mismatch",
        ),
    ],
)
def test_senseless_messages_carry_a_reason(decode: Callable[..., Any], message: Any, reason: str) -> None:
    with pytest.raises(FrameError) as caught:
        decode(message)
    assert caught.value.reason == reason
