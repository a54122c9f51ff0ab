# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Corrected poses from messages: a Path, RTAB-Map's graph, transforms published again."""

from types import SimpleNamespace

import numpy as np
import pytest
from geometry_msgs.msg import Pose, PoseStamped
from nav_msgs.msg import Path
from seg3d_ros import corrections
from seg3d_ros import inputs as room
from seg3d_ros.report import Reporter

from seg3d_core.errors import ConfigError

TURN = (0.0, 0.0, np.sin(0.2), np.cos(0.2))


@pytest.fixture
def listen(node, runtime, input_parameters):
    def make(source="path", **changes):
        report = Reporter(node.logger)
        report.count_drop = runtime.count_drop
        return room.Inputs(node, {**input_parameters, "correction_source": source, **changes}, runtime, report)

    return make


@pytest.fixture
def rtabmap(monkeypatch):
    """The package rtabmap_msgs as far as types go, where it is not installed."""
    msg = SimpleNamespace(MapData=SimpleNamespace(__module__="rtabmap_msgs", __name__="MapData"), MapGraph=object)
    monkeypatch.setitem(__import__("sys").modules, "rtabmap_msgs", SimpleNamespace(msg=msg))
    return msg


def pose(x, quaternion=(0.0, 0.0, 0.0, 1.0)) -> Pose:
    out = Pose()
    out.position.x = float(x)
    q = out.orientation
    q.x, q.y, q.z, q.w = quaternion
    return out


def path(messages, stamps, frame="map", inner="map") -> Path:
    poses = [PoseStamped(header=messages.header(stamp, inner), pose=pose(stamp)) for stamp in stamps]
    return Path(header=messages.header(99.0, frame), poses=poses)


def graph(messages, ids, stamp=50.0, offset=0.0):
    """As rtabmap_msgs/MapGraph."""
    return SimpleNamespace(
        header=messages.header(stamp, "map"), poses_id=list(ids), poses=[pose(i + offset) for i in ids], links=[]
    )


def data(messages, ids, nodes, offset=0.0):
    """As rtabmap_msgs/MapData: of the nodes the new ones alone, of the graph all."""
    return SimpleNamespace(
        header=messages.header(50.0, "map"),
        graph=graph(messages, ids, offset=offset),
        nodes=[SimpleNamespace(id=number, stamp=stamp) for number, stamp in nodes],
    )


def test_off_by_default(node, runtime, input_parameters):
    inputs = room.Inputs(node, input_parameters, runtime, Reporter(node.logger))
    assert "corrections" not in inputs.inputs


def test_a_path_is_a_correction(node, runtime, messages, listen):
    listen()
    node.hear("/corrections", path(messages, [10.0, 10.5, 11.25]))
    (correction,) = runtime.corrections
    assert np.allclose(correction.stamps, [10.0, 10.5, 11.25])
    assert np.allclose(correction.poses[:, 0, 3], [10.0, 10.5, 11.25])
    assert np.allclose(correction.poses[:, :3, :3], np.eye(3))
    node.hear("/corrections", path(messages, [12.0], inner=""))
    assert len(runtime.corrections) == 2


def test_poses_of_the_robot_become_those_of_the_camera(node, runtime, messages, listen):
    listen(correction_frame="base_link")
    node.hear("/corrections", path(messages, [10.0]))
    assert runtime.drops == {"correction_early": 1}, "nothing says yet which camera"
    node.hear("/rgb", messages.rgb(10.0))
    node.hear("/corrections", path(messages, [10.0]))
    assert runtime.drops["correction_no_camera"] == 1
    node.hear("/tf_static", messages.tf(0.0, "base_link", "camera", (0.5, 0.0, 0.25), TURN))
    node.hear("/corrections", path(messages, [10.0]))
    (correction,) = runtime.corrections
    assert np.allclose(correction.poses[0, :3, 3], (10.5, 0, 0.25))
    assert np.allclose(correction.poses[0, :2, 0], (np.cos(0.4), np.sin(0.4)))


def test_what_is_no_correction_is_counted(node, runtime, messages, listen):
    listen()
    node.hear("/corrections", path(messages, []))
    node.hear("/corrections", path(messages, [10.0], frame="odom"))
    node.hear("/corrections", path(messages, [10.0], inner="odom"))
    assert runtime.drops == {"correction_empty": 1, "correction_frame": 2} and not runtime.corrections
    bad = path(messages, [10.0, 11.0, 12.0])
    bad.poses[0].pose.orientation.w = 0.0
    bad.poses[1].pose.position.x = float("nan")
    node.hear("/corrections", bad)
    good = np.isfinite(runtime.corrections[0].poses).all(axis=(1, 2))
    assert good.tolist() == [False, False, True], "the core counts those that are no poses"


def test_map_data_tells_stamps_of_new_nodes_and_poses_of_all(node, runtime, messages, listen, rtabmap):
    listen("map_data")
    node.hear("/corrections", data(messages, [1], [(1, 10.0)]))
    node.hear("/corrections", data(messages, [-3, 1, 2, 4], [(2, 11.0)], offset=0.5))
    last = runtime.corrections[-1]
    assert last.stamps.tolist() == [10.0, 11.0], "a landmark, and a node that came before we listened, have no stamp"
    assert last.poses[:, 0, 3].tolist() == [1.5, 2.5]
    node.hear("/corrections", data(messages, [1], [(1, 90.0)]))
    assert runtime.corrections[-1].stamps.tolist() == [90.0], "a new map begins"
    node.hear("/corrections", data(messages, [1, 2], []))
    assert runtime.corrections[-1].stamps.tolist() == [90.0], "its nodes are not those of before"


def test_a_graph_alone_tells_the_stamp_of_its_newest_node(node, runtime, messages, listen, rtabmap):
    listen("map_graph")
    node.hear("/corrections", graph(messages, [1], 10.0))
    node.hear("/corrections", graph(messages, [1, 2], 12.0))
    node.hear("/corrections", graph(messages, [1, 2], 99.0, offset=0.25))
    last = runtime.corrections[-1]
    assert last.stamps.tolist() == [10.0, 12.0] and last.poses[:, 0, 3].tolist() == [1.25, 2.25]
    broken = graph(messages, [1, 2])
    broken.poses.pop()
    node.hear("/corrections", broken)
    assert runtime.drops == {"correction_graph": 1}


def test_transforms_published_again(node, runtime, messages, listen):
    listen("tf", correction_frame="base_link")
    node.hear("/tf_static", messages.tf(0.0, "base_link", "camera", (0.0, 0.0, 1.0)))
    node.hear("/rgb", messages.rgb(20.0))
    again = messages.tf(10.0, "map", "base_link", (3.0, 0.0, 0.0))
    again.transforms += messages.tf(10.0, "map", "lidar").transforms
    again.transforms += messages.tf(11.0, "map", "base_link", (4.0, 0.0, 0.0)).transforms
    node.hear("/corrections", again)
    (correction,) = runtime.corrections
    assert correction.stamps.tolist() == [10.0, 11.0]
    assert np.allclose(correction.poses[:, :3, 3], [(3, 0, 1), (4, 0, 1)])


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "rtabmap_msgs", None)
    with pytest.raises(ConfigError, match="rtabmap_msgs"):
        corrections.message_type("map_data")


@pytest.mark.parametrize("source", ["map_data", "map_graph"])
def test_the_real_messages_have_these_fields(source):
    pytest.importorskip("rtabmap_msgs", reason="RTAB-Map's messages are not installed")
    kind = corrections.message_type(source)
    fields = kind.get_fields_and_field_types()
    assert (
        {"header", "graph", "nodes"} <= fields.keys()
        if source == "map_data"
        else {"poses_id", "poses"} <= fields.keys()
    )
