# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Good frames go on, every bad one is dropped with its own reason, and later good ones still pass."""

from types import SimpleNamespace

import numpy as np
import pytest
from rclpy.qos import QoSProfile, ReliabilityPolicy
from seg3d_ros import inputs as room
from seg3d_ros import qos
from seg3d_ros.report import Reporter


@pytest.fixture
def listen(node, runtime, input_parameters):
    def make(**changes):
        report = Reporter(node.logger)
        report.count_drop = runtime.count_drop
        return room.Inputs(node, {**input_parameters, **changes}, runtime, report)

    return make


@pytest.fixture
def clock(monkeypatch):
    """`clock.now` is what the wait for poses reads."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(room.time, "monotonic", lambda: clock.now)
    return clock


def feed(node, messages, stamp=10.0, *, rgb=None, depth=None, pose=True):
    if pose:
        node.hear("/tf", messages.tf(stamp))
    node.hear("/rgb", rgb or messages.rgb(stamp))
    node.hear("/depth", depth or messages.depth(stamp))


def test_a_good_frame_arrives_whole(node, runtime, messages, listen):
    listen()
    node.hear("/info", messages.info())
    feed(node, messages)
    (frame,) = runtime.frames
    assert frame.stamp == 10.0
    assert frame.name == "10.000000000"
    assert frame.rgb.shape == (6, 8, 3)
    assert np.allclose(frame.depth, 1.5)
    assert frame.camera.size == (8, 6)
    assert np.allclose(frame.T_world_camera[:3, 3], (1, 2, 3))
    assert runtime.drops == {}


def test_pose_and_camera_info_may_come_after_the_images(node, runtime, messages, listen):
    listen()
    feed(node, messages, 10.0, pose=False)
    feed(node, messages, 10.1, pose=False)
    node.hear("/info", messages.info())
    assert runtime.frames == []
    node.hear("/tf", messages.tf(10.0, translation=(0.0, 0.0, 0.0)))
    node.hear("/tf", messages.tf(10.2, translation=(2.0, 0.0, 0.0)))
    assert [f.stamp for f in runtime.frames] == [10.0, 10.1]
    assert np.isclose(runtime.frames[1].T_world_camera[0, 3], 1.0), "between two poses it is interpolated"


def nan_depth(messages):
    return messages.depth(pixels=np.full((6, 8), np.nan, np.float32), encoding="32FC1")


def half_nan_depth():
    pixels = np.full((6, 8), 1.0, np.float32)
    pixels[0, :4] = np.nan, np.inf, -np.inf, -1.0
    return pixels


BAD = {
    "no_depth": lambda m: {"depth": nan_depth(m)},
    "encoding": lambda m: {"rgb": m.rgb(encoding="yuv420")},
    "size_mismatch": lambda m: {"depth": m.depth(size=(4, 3))},
    "camera_info_size": lambda m: {"depth": m.depth(size=(4, 3)), "rgb": m.rgb(size=(4, 3))},
    "image_size": lambda m: {"rgb": m.rgb(step=3)},
    "zero_stamp": lambda m: {"rgb": m.rgb(0.0)},
    "empty_frame_id": lambda m: {"rgb": m.rgb(header=m.header(10.0, ""))},
}


@pytest.mark.parametrize("reason", BAD)
def test_a_bad_image_is_counted_and_the_next_frame_passes(reason, node, runtime, messages, listen):
    listen()
    node.hear("/info", messages.info())
    feed(node, messages, 10.0, **BAD[reason](messages))
    assert runtime.frames == []
    assert runtime.drops[reason] == 1
    feed(node, messages, 11.0)
    assert [f.stamp for f in runtime.frames] == [11.0]
    assert any(level == "warning" and reason in text for level, text in node.logger.lines), "said aloud"


def test_depth_that_is_no_number_is_no_depth(node, runtime, messages, listen):
    listen()
    node.hear("/info", messages.info())
    feed(node, messages, depth=messages.depth(pixels=half_nan_depth(), encoding="32FC1"))
    depth = runtime.frames[0].depth
    assert (depth[0, :4] == 0).all()
    assert (depth[1:] == 1).all()


def test_a_rotation_that_is_none(node, runtime, messages, listen):
    listen()
    node.hear("/info", messages.info())
    for quaternion in ((0.0, 0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 2.0)):
        node.hear("/tf", messages.tf(quaternion=quaternion))
    node.hear("/tf", messages.tf(quaternion=(float("nan"), 0.0, 0.0, 1.0)))
    assert runtime.drops == {"tf_rotation": 2, "tf_pose_not_finite": 1}
    feed(node, messages)
    assert len(runtime.frames) == 1


def test_stamps_that_run_backwards(node, runtime, messages, listen):
    listen()
    node.hear("/info", messages.info())
    for stamp in (10.0, 10.1, 10.05, 10.1, 10.2):
        feed(node, messages, stamp)
    assert [f.stamp for f in runtime.frames] == [10.0, 10.1, 10.2]
    assert runtime.drops["stamp_backward"] == 4


def test_a_bag_that_loops_three_times(node, runtime, messages, listen):
    listen()
    node.hear("/info", messages.info())
    for _ in range(3):
        for stamp in (10.0, 10.5, 11.0, 11.5):
            feed(node, messages, stamp)
    assert len(runtime.frames) == 12


def test_missing_camera_info_is_said_and_the_wait_is_bounded(node, runtime, messages, listen, clock):
    inputs = listen()
    for k in range(200):
        clock.now = k * 0.1
        feed(node, messages, 10 + k * 0.1)
    assert len(inputs.waiting) < 30
    assert runtime.drops["no_camera_info"] > 150
    node.hear("/info", messages.info())
    assert runtime.frames, "those that still wait go on"


def test_camera_info_without_calibration(node, runtime, messages, listen):
    listen()
    node.hear("/info", messages.info(k=[0.0] * 9))
    node.hear("/info", messages.info(width=0))
    node.hear("/info", messages.info(distortion_model="odd", d=[0.1]))
    assert runtime.drops == {"camera_info": 2, "distortion_model": 1}


def test_a_pose_that_never_comes(node, runtime, messages, listen, clock):
    inputs = listen()
    node.hear("/info", messages.info())
    for k in range(100):
        clock.now = k * 0.1
        feed(node, messages, 10 + k * 0.1, pose=False)
    assert runtime.drops["no_pose"] > 70
    assert len(inputs.waiting) < 30


def test_a_burst_after_a_stall_loses_no_frame_whose_pose_is_in_it(node, runtime, messages, listen, clock):
    listen()
    node.hear("/info", messages.info())
    for k in range(50):
        feed(node, messages, 10 + k * 0.1, pose=False)
    for k in range(50):
        node.hear("/tf", messages.tf(10 + k * 0.1))
    assert len(runtime.frames) == 50
    assert runtime.drops == {}


def test_the_wait_is_bounded_in_a_burst_too(node, runtime, messages, listen, clock):
    inputs = listen()
    node.hear("/info", messages.info())
    for k in range(200):
        feed(node, messages, 10 + k * 0.1, pose=False)
    assert len(inputs.waiting) <= room.POSE_QUEUE
    assert runtime.drops["no_pose"] >= 200 - room.POSE_QUEUE


def test_another_camera_info_mid_run(node, runtime, messages, listen):
    listen()
    node.hear("/info", messages.info())
    feed(node, messages, 10.0)
    node.hear("/info", messages.info(size=(4, 3)))
    feed(node, messages, 11.0)
    feed(node, messages, 12.0, rgb=messages.rgb(12.0, size=(4, 3)), depth=messages.depth(12.0, size=(4, 3)))
    assert [f.camera.size for f in runtime.frames] == [(8, 6), (4, 3)]
    assert runtime.drops == {"camera_info_size": 1}


def test_pose_topic(node, runtime, messages, listen):
    listen(pose_source="pose")
    node.hear("/info", messages.info())
    feed(node, messages, pose=False)
    node.hear("/pose", messages.pose(frame="odom"))
    assert runtime.drops == {"pose_frame": 1}, "poses in a frame that is not the map's are no poses"
    node.hear("/pose", messages.pose())
    assert np.allclose(runtime.frames[0].T_world_camera[:3, 3], (1, 2, 3))


def test_odometry_goes_through_the_tree_to_the_camera(node, runtime, messages, listen):
    from nav_msgs.msg import Odometry

    listen(pose_source="odometry")
    node.hear("/info", messages.info())
    node.hear("/tf_static", messages.tf(0.0, "base", "camera", (0.0, 0.0, 0.5)))
    message = Odometry(header=messages.header(10.0, "map"), child_frame_id="base")
    message.pose.pose = messages.pose().pose
    node.hear("/pose", message)
    feed(node, messages, pose=False)
    assert np.allclose(runtime.frames[0].T_world_camera[:3, 3], (1, 2, 3.5))


def test_masks_from_a_topic(node, runtime, messages, listen):
    listen(**{"perception.masks": "topic"})
    labels = np.zeros((6, 8), np.int32)
    labels[1:3], labels[4:] = 7, 300
    from seg3d_ros.convert import numpy_to_image

    node.hear("/masks", numpy_to_image(labels, "32SC1", messages.header(10.0)))
    ((stamp, masks),) = runtime.masks
    assert stamp == 10.0
    assert len(masks) == 2
    assert (masks.labels[4:] == 2).all()
    node.hear("/masks", numpy_to_image(-labels, "32SC1", messages.header(11.0)))
    assert runtime.drops == {"labels": 1}


def offer(reliability, gid=b"camera"):
    return SimpleNamespace(endpoint_gid=gid, qos_profile=QoSProfile(depth=1, reliability=reliability))


def test_subscriptions_follow_their_publishers(node, messages, listen):
    inputs = listen()
    colour = inputs.inputs["colour"]
    assert colour.asked == qos.SENSOR_RELIABLE
    node.publishers["/rgb"] = [offer(ReliabilityPolicy.RELIABLE), offer(ReliabilityPolicy.BEST_EFFORT)]
    inputs._on_timer()
    assert colour.asked == qos.SENSOR_BEST_EFFORT
    node.publishers["/rgb"] = []
    inputs._on_timer()
    assert colour.asked == qos.SENSOR_BEST_EFFORT, "nobody there: stay"
    node.publishers["/rgb"] = [offer(ReliabilityPolicy.RELIABLE)]
    inputs._on_timer()
    assert colour.asked == qos.SENSOR_RELIABLE
    assert sum(s.topic_name == "/rgb" for s in node.subscriptions) == 1, "the old subscription is gone"


def test_a_bug_in_a_callback_is_said_and_survived(node, runtime, messages, listen, monkeypatch):
    inputs = listen()
    node.hear("/info", messages.info())
    monkeypatch.setattr(inputs.maker, "frame", lambda *_: 1 / 0)
    feed(node, messages, 10.0)
    assert runtime.drops == {"internal_error": 1}
    assert any("ZeroDivisionError" in text for _, text in node.logger.lines)


def test_closing_leaves_no_subscription(node, listen):
    listen().close()
    assert node.subscriptions == []
