# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""A real camera player and the real node: frames in, instances out, questions answered, the map kept."""

import signal
from pathlib import Path

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from seg3d_interfaces.msg import InstanceArray
from seg3d_interfaces.srv import LoadMap, QueryText, Reset, SaveMap, Segment
from seg3d_ros import qos
from sensor_msgs.msg import PointCloud2
from visualization_msgs.msg import Marker, MarkerArray

STUDIO = Path(__file__).resolve().parents[2] / "examples" / "studio"
OK = 0


def latest(ros, accept=lambda array: True):
    return ros.receive(InstanceArray, "/seg3d/instance_array", qos.LATCHED, accept)


def ids(array):
    return sorted(i.id for i in array.instances)


def test_frames_in_instances_out_and_the_map_kept(start, ros, tmp_path):
    node = start(
        "node",
        "perception.masks:=topic",
        "query.encoder:=none",
        "runtime.segment_every:=5",
        f"maps_folder:={tmp_path}/maps",
    )
    player = start(
        "player", f"source:={STUDIO}", "rate:=5.0", "step:=3", "frames:=20", "masks:=true", "wait_for_subscribers:=60.0"
    )
    array = latest(ros, lambda a: a.instances)
    assert array.header.frame_id == "map"
    assert array.header.stamp.sec > 0
    assert all(0 < i.score <= 1 and i.num_points > 0 and i.pose.orientation.w == 1 for i in array.instances)
    assert player.wait() == 0, player.said

    done = ros.call(Segment, "/seg3d/segment_now")
    assert (done.success, done.code) == (True, OK), done.message
    assert done.num_points > 10_000
    assert done.num_instances >= 5

    # Nobody publishes frames any more: a late joiner still gets everything.
    array = latest(ros, lambda a: a.sequence == done.sequence)
    assert len(array.instances) == done.num_instances
    markers = ros.receive(MarkerArray, "/seg3d/instances", qos.LATCHED).markers
    assert markers[0].action == Marker.DELETEALL
    assert len(markers) == 1 + 2 * len(array.instances)
    cloud = ros.receive(PointCloud2, "/seg3d/points", qos.LATCHED)
    assert len(cloud.data) == cloud.row_step == cloud.width * cloud.point_step
    points = np.frombuffer(cloud.data, np.dtype([("xyz", "<f4", 3), ("rgb", "<u4"), ("instance_id", "<i4")]))
    assert set(points["instance_id"]) - {0} <= set(ids(array))
    assert np.isfinite(points["xyz"]).all()

    asks_and_answers(ros, array)
    saves_and_loads(ros, array, tmp_path)
    refuses_outside_of_the_active_state(ros)
    assert node.stop(signal.SIGINT) == 0, node.said
    assert "Traceback" not in node.said, node.said


def test_odometry_from_a_recording_that_loops_with_its_own_stamps(start, ros):
    settings = ("query.encoder:=none", "pose_source:=odometry", "pose_topic:=odometry", "pose_timeout:=60.0")
    node = start("node", *settings)
    player = start(
        "player", f"source:={STUDIO}", "rate:=10.0", "frames:=15", "step:=4", "stamps:=source", "loop:=true",
        "pose_output:=odometry", "pose_delay:=2", "depth_encoding:=32FC1", "wait_for_subscribers:=60.0",
    )  # fmt: skip

    def frames(message):
        (values,) = [{v.key: v.value for v in s.values} for s in message.status if s.name.endswith("input")]
        return int(values["frames"])

    ros.receive(DiagnosticArray, "/diagnostics", qos.DIAGNOSTICS, lambda m: frames(m) > 25)
    assert "stamps jumped back by more than a second" in node.said
    for process in (player, node):
        assert process.stop() == 0, process.said


def asks_and_answers(ros, array):
    first = array.instances[0]
    answer = ros.call(QueryText, "/seg3d/query_text", text=str(first.id))
    assert answer.success, answer.message
    assert answer.code == OK, answer.message
    assert answer.instances[0].id == first.id
    assert len(answer.scores) == len(answer.instances)
    nothing = ros.call(QueryText, "/seg3d/query_text", text="unicorn")
    assert (nothing.success, nothing.code) == (True, QueryText.Response.NOTHING_MATCHED)
    assert not nothing.instances
    empty = ros.call(QueryText, "/seg3d/query_text", text=" ")
    assert (empty.success, empty.code) == (False, QueryText.Response.EMPTY_TEXT)
    long = ros.call(QueryText, "/seg3d/query_text", text="x" * 10_000)
    assert (long.success, long.code) == (False, QueryText.Response.TOO_LONG)


def saves_and_loads(ros, array, tmp_path):
    saved = ros.call(SaveMap, "/seg3d/save_map", path="flat")
    assert saved.success, saved.message
    assert saved.path == str(tmp_path / "maps" / "flat.seg3d")
    assert ros.call(SaveMap, "/seg3d/save_map", path="flat").code == SaveMap.Response.EXISTS
    assert ros.call(SaveMap, "/seg3d/save_map", path="flat", overwrite=True).success
    assert ros.call(SaveMap, "/seg3d/save_map", path="/flat").code == SaveMap.Response.OUTSIDE_FOLDER

    assert ros.call(Reset, "/seg3d/reset").success
    assert not latest(ros, lambda a: not a.instances).instances
    assert ros.call(QueryText, "/seg3d/query_text", text="sofa").code == QueryText.Response.NO_INSTANCES
    assert ros.call(Segment, "/seg3d/segment_now").code == Segment.Response.EMPTY_MAP

    whole = (tmp_path / "maps" / "flat.seg3d").read_bytes()
    (tmp_path / "maps" / "cut.seg3d").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "maps" / "text.seg3d").write_text("hello")
    for path, code in (("none", "NOT_FOUND"), ("text", "NOT_A_MAP"), ("../x", "OUTSIDE_FOLDER")):
        refused = ros.call(LoadMap, "/seg3d/load_map", path=path)
        assert (refused.success, refused.code) == (False, getattr(refused, code)), refused.message
    cut = ros.call(LoadMap, "/seg3d/load_map", path="cut")
    assert cut.code in (cut.DAMAGED, cut.NOT_A_MAP), cut.message

    loaded = ros.call(LoadMap, "/seg3d/load_map", path="flat")
    assert loaded.success, loaded.message
    assert ids(latest(ros, lambda a: a.instances)) == ids(array), "the same things keep their ids"


def refuses_outside_of_the_active_state(ros):
    def change(transition):
        assert ros.call(ChangeState, "/seg3d/change_state", transition=Transition(id=transition)).success

    def state():
        return ros.call(GetState, "/seg3d/get_state").current_state.label

    assert state() == "active"
    change(Transition.TRANSITION_DEACTIVATE)
    assert state() == "inactive"
    refused = ros.call(QueryText, "/seg3d/query_text", text="sofa")
    assert (refused.success, refused.code) == (False, QueryText.Response.NOT_ACTIVE)
    change(Transition.TRANSITION_ACTIVATE)
    assert ros.call(Segment, "/seg3d/segment_now").success, "the map outlives a pause"
    change(Transition.TRANSITION_DEACTIVATE)
    change(Transition.TRANSITION_CLEANUP)
    assert state() == "unconfigured"
    change(Transition.TRANSITION_CONFIGURE)
    change(Transition.TRANSITION_ACTIVATE)
    assert ros.call(Segment, "/seg3d/segment_now").code == Segment.Response.EMPTY_MAP, "cleanup gives everything back"
