# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""The distribution's packages and our own small ones pass the same cases, where the distribution's import."""

from types import SimpleNamespace

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from hypothesis import given
from hypothesis import strategies as st
from seg3d_ros import backends, convert, validate
from seg3d_ros.sync import Synchroniser
from seg3d_ros.transforms import TopicPoses, TransformBuffer, TransformError

from seg3d_core.errors import FrameError
from seg3d_core.sources.messages import colour_of, depth_of, pixel_format

Z90 = (0.0, 0.0, np.sqrt(0.5), np.sqrt(0.5))
NONE = (0.0, 0.0, 0.0, 1.0)


def pair(own, other, installed):
    return [pytest.param(own, id="own"), *([pytest.param(other, id="distribution")] if installed else [])]


synchronisers = pytest.mark.parametrize(
    "make", pair(Synchroniser, backends.FilterSynchroniser, backends.message_filters)
)
buffers = pytest.mark.parametrize("make", pair(TransformBuffer, backends.Tf2Buffer, backends.tf2_ros))


def item(stamp):
    return SimpleNamespace(header=SimpleNamespace(stamp=Time(sec=int(stamp), nanosec=round(stamp % 1 * 1e9))), at=stamp)


def matches(make, events, **options):
    out = []
    sync = make(2, lambda a, b: out.append((a.at, b.at)), **options)
    for stream, stamp in events:
        sync.add(stream, stamp, item(stamp))
    return out, sync


@synchronisers
class TestSynchroniser:
    def test_pairs_the_nearest_and_counts_the_rest(self, make):
        out, sync = matches(make, [(0, 1.0), (1, 1.001), (0, 1.033), (0, 1.066), (1, 1.067)], slop=0.02)
        assert out == [(1.0, 1.001), (1.066, 1.067)]
        assert sync.matched == 2
        assert sync.received == [3, 2]

    def test_a_jump_back_starts_anew(self, make):
        resets = []
        out, sync = matches(make, [(0, 100.0), (0, 1.0), (1, 1.0)], slop=0.02, on_reset=lambda: resets.append(1))
        assert out == [(1.0, 1.0)]
        assert sync.resets == len(resets) == 1

    def test_repeated_stamps_are_left_out(self, make):
        out, sync = matches(make, [(0, 1.0), (0, 1.0), (1, 1.0), (1, 0.9)])
        assert out == [(1.0, 1.0)]
        assert sync.backward == [1, 1]

    def test_slop_itself_is_near_enough(self, make):
        assert matches(make, [(0, 1.0), (1, 1.25)], slop=0.25)[0] == [(1.0, 1.25)]
        assert matches(make, [(0, 1.0), (1, 1.0)], slop=0.0)[0] == [(1.0, 1.0)]

    def test_a_callback_that_throws_stops_nothing(self, make):
        out = []

        def throw_once(a, b):
            out.append(a.at)
            if len(out) == 1:
                raise ValueError

        sync = make(2, throw_once)
        sync.add(0, 1.0, item(1.0))
        with pytest.raises(ValueError):
            sync.add(1, 1.0, item(1.0))
        for stream in (0, 1):
            sync.add(stream, 2.0, item(2.0))
        assert out == [1.0, 2.0]

    def test_a_silent_stream_stays_bounded(self, make):
        out, sync = matches(make, [(0, 1 + i / 30) for i in range(1000)], queue=10)
        assert not out
        assert sync.unmatched[0] == 990


@given(
    jitter=st.lists(st.floats(-0.004, 0.004), min_size=1, max_size=40),
    lost=st.sets(st.integers(0, 39), max_size=30),
    order=st.randoms(use_true_random=False),
)
def test_with_little_jitter_exactly_the_complete_frames_match(jitter, lost, order):
    events = []
    for k, shift in enumerate(jitter):
        both = [(0, 1 + k / 30), (1, 1 + k / 30 + shift)]
        order.shuffle(both)
        events += both[: 1 if k in lost else 2]
    kept = [k for k in range(len(jitter)) if k not in lost]
    out, sync = matches(Synchroniser, events, slop=0.01)
    assert [round((a - 1) * 30) for a, _ in out] == kept
    for stream in (0, 1):
        waiting = len(sync.queues[stream])
        assert sync.received[stream] == sync.matched + sync.unmatched[stream] + sync.backward[stream] + waiting


@buffers
class TestBuffer:
    def test_chain_with_interpolation(self, make):
        tf = make()
        tf.add("base", "camera", 0.0, (0, 0, 1), NONE, static=True)
        tf.add("/map", "base", 1.0, (0, 0, 0), NONE)
        tf.add("map", "/base", 2.0, (2, 0, 0), Z90)
        half = tf.lookup("map", "camera", 1.5)
        assert np.isclose(np.arctan2(half[1, 0], half[0, 0]), np.pi / 4)
        assert np.allclose(half[:3, 3], (1, 0, 1))
        assert np.allclose(tf.lookup("camera", "map", 1.5) @ half, np.eye(4), atol=1e-9)
        assert np.allclose(tf.lookup("map", "map", 1.5), np.eye(4))

    def test_never_extrapolates(self, make):
        tf = make()
        tf.add("map", "base", 1.0, (0, 0, 0), NONE)
        tf.add("map", "base", 2.0, (2, 0, 0), NONE)
        for stamp in (1.0, 2.0):
            tf.lookup("map", "base", stamp)
        for stamp in (0.9, 2.1):
            with pytest.raises(TransformError):
                tf.lookup("map", "base", stamp)
            assert "1.000 to 2.000" in tf.explain("map", "base", stamp)

    def test_where_the_chain_breaks(self, make):
        tf = make()
        assert "no transform has arrived" in tf.explain("map", "camera", 1.0)
        tf.add("base", "camera", 0.0, (0, 0, 1), NONE, static=True)
        tf.add("odom", "robot", 1.0, (0, 0, 1), NONE)
        with pytest.raises(TransformError):
            tf.lookup("odom", "camera", 1.0)
        text = tf.explain("odom", "camera", 1.0)
        assert "camera -> base ends there" in text
        assert "no transform mentions 'world'" in tf.explain("world", "camera", 1.0)

    def test_time_that_starts_anew(self, make):
        tf = make()
        tf.add("base", "camera", 0.0, (0, 0, 1), NONE, static=True)
        tf.add("map", "base", 100.0, (5, 0, 0), NONE)
        tf.add("map", "base", 1.0, (1, 0, 0), NONE)
        assert tf.resets == 1
        assert np.allclose(tf.lookup("map", "camera", 1.0)[:3, 3], (1, 0, 1)), "static transforms stay"
        with pytest.raises(TransformError):
            tf.lookup("map", "camera", 100.0)

    @pytest.mark.parametrize("quaternion", [(0, 0, 0, 0), (0, 0, 0, 2), (np.nan, 0, 0, 1)])
    def test_what_is_no_rotation(self, make, quaternion):
        with pytest.raises(FrameError):
            make().add("a", "b", 1.0, (0, 0, 0), quaternion)

    @pytest.mark.parametrize(("parent", "child"), [("a", "a"), ("", "a"), ("a", ""), ("/a", "a")])
    def test_what_connects_nothing(self, make, parent, child):
        with pytest.raises(FrameError):
            make().add(parent, child, 1.0, (0, 0, 0), NONE)


def test_a_loop_in_the_tree_is_said():
    tf = TransformBuffer()
    tf.add("a", "b", 1.0, (0, 0, 0), NONE)
    tf.add("b", "a", 1.0, (0, 0, 0), NONE)
    assert "loop" in tf.explain("a", "c", 1.0) or "loop" in tf.explain("a", "b", 1.0)


def test_topic_poses_say_what_they_have():
    poses = TopicPoses(TransformBuffer(), "map")
    assert poses.explain("camera", 1.0) == "no pose has come yet"
    poses.add("map", 1.0, (1, 2, 3), NONE)
    assert "1.000 to 1.000" in poses.explain("camera", 2.0)


CHANNELS = {"rgb": (0, 1, 2), "bgr": (2, 1, 0), "8UC": (2, 1, 0), "mon": (0, 0, 0)}


def slow_colour(message):
    """Pixel by pixel, as the message's definition says; of the encodings that need no neighbours."""
    dtype, channels = pixel_format(message.encoding)
    order = CHANNELS["mon"] if channels == 1 else CHANNELS[message.encoding[:3]]
    out = np.zeros((message.height, message.width, 3), np.uint8)
    for row in range(message.height):
        for column in range(message.width):
            for c in range(3):
                start = row * message.step + (column * channels + order[c]) * dtype.itemsize
                raw = bytes(message.data[start : start + dtype.itemsize])
                value = int.from_bytes(raw, "big" if message.is_bigendian else "little")
                out[row, column, c] = value >> 8 * (dtype.itemsize - 1)
    return out


def image_of(messages, encoding, width=6, height=4, padding=0, big=0):
    """An image message whose rows hold counted bytes."""
    dtype, channels = pixel_format(encoding)
    row = width * channels * dtype.itemsize + padding
    data = convert.as_array(np.arange(height * row, dtype=np.uint8))
    shape = {"width": width, "height": height, "step": row, "data": data}
    return messages.rgb(encoding=encoding, is_bigendian=big, **shape)


@pytest.mark.parametrize("padding", [0, 4])
@pytest.mark.parametrize("big", [0, 1])
@pytest.mark.parametrize("encoding", validate.COLOUR)
def test_every_colour_of_bags_comes_live(encoding, big, padding, messages):
    rgb = image_of(messages, encoding, padding=padding, big=big)
    depth = messages.depth(size=(6, 4))
    frame = convert.FrameMaker().frame(0, rgb, depth, validate.camera_info(messages.info(size=(6, 4))), np.eye(4))
    assert frame.rgb.shape == (4, 6, 3) and frame.rgb.dtype == np.uint8
    if not encoding.startswith(("bayer", "yuv", "uyvy", "yuyv")):
        assert np.array_equal(frame.rgb, slow_colour(rgb))


@pytest.mark.parametrize(("encoding", "data"), [("yuv422", [128, 90] * 2), ("yuv422_yuy2", [90, 128] * 2)])
def test_grey_in_yuv_is_grey(encoding, data, messages):
    message = messages.rgb(encoding=encoding, width=2, height=1, step=4, data=bytes(data))
    pixels = colour_of(message).astype(int)
    assert np.ptp(pixels) == 0 and abs(pixels[0, 0, 0] - 90) < 10, "90 is luminance of the studio range"


@pytest.mark.parametrize("encoding", validate.LABELS)
@pytest.mark.parametrize("big", [0, 1])
def test_labels_of_every_encoding(encoding, big, messages):
    dtype, _ = pixel_format(encoding)
    labels = np.array([[0, 7], [3, 120]], dtype)
    data = labels.astype(dtype.newbyteorder(">" if big else "<")).tobytes()
    message = messages.rgb(encoding=encoding, width=2, height=2, step=len(data) // 2, data=data, is_bigendian=big)
    masks = convert.FrameMaker().masks(message, None)
    assert np.array_equal(masks.labels, [[0, 2], [1, 3]])


def test_negative_labels_are_refused(messages):
    data = np.array([[-1, 2]], "<i4").tobytes()
    message = messages.rgb(encoding="32SC1", width=2, height=1, step=8, data=data)
    with pytest.raises(FrameError, match="-1"):
        convert.FrameMaker().masks(message, None)


@pytest.mark.parametrize("changes", [{"step": 3}, {"height": 100}, {"width": 0}, {"encoding": "odd"}, {"data": b""}])
def test_sizes_that_do_not_add_up(changes, messages):
    with pytest.raises(FrameError):
        validate.image(messages.rgb(**changes), validate.COLOUR, "it")


@pytest.mark.parametrize("encoding", ["yuv422", "yuyv"])
def test_an_odd_width_has_no_pairs_of_colour(encoding, messages):
    message = image_of(messages, encoding, width=5)
    with pytest.raises(FrameError, match="even"):
        colour_of(message)


@pytest.mark.parametrize("make", pair(convert.points_to_cloud, backends.make_cloud, backends.point_cloud2))
def test_clouds(make, messages):
    xyz = np.arange(6, dtype=np.float32).reshape(2, 3)
    points = convert.cloud_points(xyz, np.array([[1, 2, 3], [255, 0, 128]], np.uint8), np.array([0, 7]))
    cloud = make(points, messages.header(1.0))
    assert (cloud.height, cloud.width, cloud.point_step, cloud.row_step) == (1, 2, 20, 40)
    assert [(f.name, f.offset, f.datatype) for f in cloud.fields] == [
        ("x", 0, 7), ("y", 4, 7), ("z", 8, 7), ("rgb", 12, 7), ("instance_id", 16, 5),
    ]  # fmt: skip
    data = bytes(cloud.data)
    assert data[12:16] == bytes([3, 2, 1, 0]), "blue comes first in little endian"
    assert int.from_bytes(data[36:40], "little") == 7
    assert np.allclose(np.frombuffer(data, np.float32).reshape(2, 5)[:, :3], xyz)


def test_depth_units_come_from_the_encoding(messages):
    whole = messages.depth(pixels=np.array([[0, 1500, 65535]], np.uint16))
    assert np.allclose(depth_of(whole), [[0, 1.5, 0]])
    given = messages.depth(pixels=np.array([[np.nan, np.inf, -np.inf, -1, 0, 2.5]], np.float32), encoding="32FC1")
    assert np.allclose(depth_of(given), [[0, 0, 0, 0, 0, 2.5]])


def test_rectified_images_take_the_projection_matrix(messages):
    info = messages.info(d=[0.1, 0.0, 0.0, 0.0, 0.0])
    p = list(info.p)
    p[0] = p[5] = 5.0
    info.p = p
    camera, model = validate.camera_info(info, rectified=True)
    assert (camera.fx, camera.distortion, model) == (5.0, None, "")
    camera, model = validate.camera_info(info)
    assert (camera.fx, camera.distortion[0], model) == (7.0, 0.1, "plumb_bob")


def test_distortion_is_taken_out(messages):
    rgb, depth = messages.rgb(size=(64, 48)), messages.depth(size=(64, 48))
    camera = validate.camera_info(messages.info(size=(64, 48), d=[-0.3, 0.1, 0.0, 0.0, 0.0]))
    frame = convert.FrameMaker().frame(0, rgb, depth, camera, np.eye(4))
    assert frame.camera.distortion is None
    assert frame.rgb.shape == (48, 64, 3)
    plain = convert.FrameMaker().frame(0, rgb, depth, validate.camera_info(messages.info(size=(64, 48))), np.eye(4))
    assert not np.array_equal(frame.rgb, plain.rgb)
