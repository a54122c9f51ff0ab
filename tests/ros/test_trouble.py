# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""What goes wrong in the field: missing topics, other QoS, bad messages, signals. The node says so and lives."""

import random
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import TransformStamped
from rcl_interfaces.srv import DescribeParameters, SetParameters
from rclpy.parameter import Parameter
from seg3d_ros import convert, qos
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header
from tf2_msgs.msg import TFMessage

from seg3d_core.types import Camera

STUDIO = Path(__file__).resolve().parents[2] / "examples" / "studio"
SIZE = (64, 48)


class Driver:
    """A camera in the test's own node, well or badly behaved."""

    def __init__(self, ros, profile=qos.SENSOR_RELIABLE, prefix=""):
        self.ros = ros
        self.publishers = {
            "rgb": ros.create_publisher(Image, f"{prefix}/rgb/image_raw", profile),
            "depth": ros.create_publisher(Image, f"{prefix}/depth/image_raw", profile),
            "info": ros.create_publisher(CameraInfo, f"{prefix}/rgb/camera_info", profile),
            "tf": ros.create_publisher(TFMessage, "/tf", qos.TF),
        }
        self.stamp = 1000.0

    def heard(self):
        return all(p.get_subscription_count() for p in self.publishers.values())

    def header(self, stamp, frame="camera"):
        return Header(stamp=Time(sec=int(stamp), nanosec=round(stamp % 1 * 1e9)), frame_id=frame)

    def send(self, *, depth=None, encoding="rgb8", quaternion=(0.0, 0.0, 0.0, 1.0), x=0.0, stamp=None, size=SIZE):
        self.stamp += 0.1
        stamp = self.stamp if stamp is None else stamp
        header = self.header(stamp)
        tf = TransformStamped(header=self.header(stamp, "map"), child_frame_id="camera")
        r = tf.transform.rotation
        r.x, r.y, r.z, r.w = quaternion
        tf.transform.translation.x = x
        camera = Camera(*SIZE, 60.0, 60.0, 31.5, 23.5)
        if depth is None:
            depth = np.full((size[1], size[0]), 1.5, np.float32)
        self.publishers["tf"].publish(TFMessage(transforms=[tf]))
        self.publishers["info"].publish(convert.camera_to_info(camera, header))
        self.publishers["depth"].publish(convert.numpy_to_image(depth, "32FC1", header))
        rgb = np.full((SIZE[1], SIZE[0], 3), 90, np.uint8)
        self.publishers["rgb"].publish(convert.numpy_to_image(rgb, encoding, header))

    def close(self):
        for publisher in self.publishers.values():
            self.ros.destroy_publisher(publisher)


def diagnostics(ros, accept):
    """The statuses by the last word of their names, and their values, as soon as `accept(statuses)`."""

    def read(message):
        return {
            s.name.rsplit(" ", 1)[-1]: (s.level, s.message, {v.key: v.value for v in s.values}) for s in message.status
        }

    return read(ros.receive(DiagnosticArray, "/diagnostics", qos.DIAGNOSTICS, lambda m: accept(read(m))))


def test_bad_input_is_counted_and_the_node_lives(start, ros):
    node = start("node", "query.encoder:=none")
    camera = Driver(ros)
    assert ros.until(camera.heard)
    time.sleep(0.3)
    camera.send()
    h, w = SIZE[1], SIZE[0]
    for _ in range(2):
        camera.send(depth=np.full((h, w), np.nan, np.float32))
        camera.send(depth=np.full((h, w), np.inf, np.float32))
        camera.send(encoding="rgb565")
        camera.send(size=(w // 2, h // 2))
        camera.send(quaternion=(0.0, 0.0, 0.0, 0.0))
        camera.send(stamp=camera.stamp - 0.5)
        camera.send(stamp=0.0)
        ros.until(lambda: False, 0.2)
    camera.send(x=500.0)  # the pose jumps
    camera.send()
    wanted = {"no_depth": 4, "encoding": 2, "size_mismatch": 2, "tf_rotation": 2, "zero_stamp": 2, "stamp_backward": 2}

    def counted(status):
        drops = status["drops"][2]
        return all(int(drops.get(reason, 0)) >= n for reason, n in wanted.items())

    diagnostics(ros, counted)
    frames = int(diagnostics(ros, lambda s: True)["mapping"][2]["frames"])
    for k in range(5):
        camera.send(x=k * 0.01)
        ros.until(lambda: False, 0.1)
    diagnostics(ros, lambda s: int(s["mapping"][2]["frames"]) > frames)
    assert node.stop(signal.SIGTERM) == 0, node.said
    assert "Traceback" not in node.said, node.said
    assert "dropped (encoding): the colour image has the encoding 'rgb565'" in node.said


def test_says_what_is_missing_and_recovers(start, ros):
    node = start("node", "query.encoder:=none")
    elsewhere = Driver(ros, prefix="/front")
    status = diagnostics(ros, lambda s: "no synchronised frame" in s["input"][1])
    level, message, values = status["input"]
    assert level == b"\x01"
    assert "nobody publishes /rgb/image_raw (colour); set rgb_topic" in message
    assert "/front/rgb/image_raw" in values["cause 1"], "a topic of the right type is suggested"
    assert "0 publishers" in values["colour /rgb/image_raw"]
    elsewhere.close()

    # A driver that offers BEST_EFFORT only; then it dies, and returns as a RELIABLE one.
    for profile, asked in ((qos.SENSOR_BEST_EFFORT, "BEST_EFFORT"), (qos.SENSOR_RELIABLE, "RELIABLE")):
        camera = Driver(ros, profile)
        assert ros.until(camera.heard)

        def seen(status, camera=camera, asked=asked):
            camera.send()
            _, message, values = status["input"]
            return message == "frames arrive" and f"asked {asked}" in values["colour /rgb/image_raw"]

        diagnostics(ros, seen)
        camera.close()
    assert node.stop() == 0, node.said


def test_parameters_have_ranges_and_are_enforced(start, ros):
    node = start("node", "query.encoder:=none", "map.voxel_size:=0.03")
    (voxel, profile) = ros.call(
        DescribeParameters, "/seg3d/describe_parameters", names=["map.voxel_size", "profile"]
    ).descriptors
    assert voxel.floating_point_range[0].to_value == 0.5
    assert "[m]" in voxel.description
    assert profile.read_only

    def change(name, value):
        parameters = [Parameter(name, value=value).to_parameter_msg()]
        return ros.call(SetParameters, "/seg3d/set_parameters", parameters=parameters).results[0]

    assert change("sync_slop", 0.05).successful
    assert not change("sync_slop", 7.0).successful
    assert not change("profile", "paper-re0").successful
    refused = change("map.voxel_size", 0.04)
    assert not refused.successful
    assert "configure" in refused.reason
    assert node.stop(signal.SIGTERM) == 0, node.said


@pytest.mark.parametrize(
    ("parameter", "words"),
    [
        ("map.voxel_size:=9.0", "map.voxel_size"),
        ("map.voxel_size:=thick", "map.voxel_size wants a float"),
        ("perception.masks:=odd", "perception.masks"),
        ("pose_source:=gps", "must be one of tf, pose, odometry"),
        ("rgb_topic:=my camera", "rgb_topic is 'my camera'; it is no name of a topic"),
        ("points_file:=/nowhere.ply", "cannot configure: "),
        ("recording:=/nowhere/r.rrd", "cannot write the recording"),
    ],
)
def test_a_bad_parameter_ends_the_start_with_a_sentence(start, parameter, words):
    node = start("node", parameter)
    assert node.wait() == 1
    assert words in node.said
    assert "Traceback" not in node.said


def test_a_player_that_cannot_start_says_why(start):
    for parameters, words in (
        ((), "source:=PATH"),
        (("source:=/nowhere",), "/nowhere"),
        (("source:=synthetic", "rate:=5"), "rate wants a float, like 15.0"),
    ):
        player = start("player", *parameters)
        assert player.wait() == 1
        assert words in player.said
        assert "Traceback" not in player.said


def test_signals_at_any_moment_end_with_exit_code_0(start):
    chance = random.Random()
    for number in (signal.SIGINT, signal.SIGTERM):
        for span in (0.5, 4.0):
            both = [
                start("node", "query.encoder:=none"),
                start("player", f"source:={STUDIO}", "loop:=true"),
            ]
            for process in both:
                while not process.handles_signals():
                    assert process.child.poll() is None, process.said
                    time.sleep(0.005)
            delay = chance.uniform(0, span)
            time.sleep(delay)
            for process in both:
                assert process.stop(number) == 0, f"after {delay:.3f} s:\n{process.said}"
                assert "Traceback" not in process.said, process.said
