# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Messages say what the snapshot says; one message is the whole truth."""

import threading

import numpy as np
import pytest
from seg3d_interfaces.msg import InstanceChange
from seg3d_ros import outputs, qos
from seg3d_ros.report import Reporter
from visualization_msgs.msg import Marker

from seg3d_core.types import Cloud, IdentityChange, Instances, Snapshot


def snapshot(sequence=1, changes=(), names=("chair", "")):
    cloud = Cloud(
        np.arange(4), np.arange(12, dtype=np.float32).reshape(4, 3), np.full((4, 3), 9, np.uint8),
        np.zeros((4, 3), np.float32), np.ones(4, np.float32),
    )  # fmt: skip
    instances = Instances(
        np.array([5, 9], np.int32), np.array([0.5, 1.0], np.float32), np.array([0, 1, 3]), np.arange(3)
    )
    centres, extents = np.array([[1, 2, 3], [4, 5, 6]], np.float32), np.array([[1, 1, 2], [2, 2, 2]], np.float32)
    labels = np.array([5, 9, 9, 0], np.int32)
    return Snapshot(sequence, 7.25, cloud, instances, labels, centres, extents, names=names, changes=tuple(changes))


def test_instances():
    first, second = outputs.instance_messages(snapshot())
    assert (first.id, first.label, first.score, first.num_points) == (5, "chair", 0.5, 1)
    assert (first.pose.position.x, first.pose.position.z, first.size.z) == (1.0, 3.0, 2.0)
    assert first.pose.orientation.w == 1.0
    assert [i.id for i in outputs.instance_messages(snapshot(), [9, 77, 5])] == [9, 5], "in that order, if they exist"
    assert second.label == ""


def test_markers_begin_with_delete_all_and_have_unique_ids():
    header = outputs.make_header(snapshot(), "map")
    markers = outputs.marker_array(outputs.instance_messages(snapshot()), header).markers
    assert (markers[0].action, markers[0].ns, markers[0].header.frame_id) == (Marker.DELETEALL, "", "map")
    assert len({(m.ns, m.id) for m in markers[1:]}) == 4
    assert {m.type for m in markers[1:]} == {Marker.CUBE, Marker.TEXT_VIEW_FACING}
    assert [m.text for m in markers if m.text] == ["5 chair", "9"]
    assert all(m.pose.orientation.w == 1.0 for m in markers[1:])
    assert all(m.lifetime.sec == 0 for m in markers)


def test_a_flat_instance_has_a_box_that_rviz_draws():
    (flat, *_) = outputs.instance_messages(snapshot())
    flat.size.z = 0.0
    _, box, _ = outputs.marker_array([flat], outputs.make_header(snapshot(), "map")).markers
    assert min(box.scale.x, box.scale.y, box.scale.z) > 0
    assert flat.size.z == 0.0, "the message says what is"


def test_an_empty_scene_is_one_delete_all():
    empty = Snapshot.empty()
    header = outputs.make_header(empty, "map")
    assert len(outputs.marker_array(outputs.instance_messages(empty), header).markers) == 1
    assert outputs.cloud_message(empty, header, 1000).width == 0


def test_the_cloud_is_thinned_evenly():
    header = outputs.make_header(snapshot(), "map")
    assert outputs.cloud_message(snapshot(), header, 4).width == 4
    assert outputs.cloud_message(snapshot(), header, 3).width == 2


@pytest.fixture
def out(node):
    made = outputs.Outputs(node, {"map_frame": "map", "cloud_points": 1000}, Reporter(node.logger))
    yield made
    made.close()


def wait_for(condition):
    done = threading.Event()
    for _ in range(500):
        if condition():
            return True
        done.wait(0.01)
    return False


def test_a_snapshot_goes_out_on_three_topics(node, out):
    out.offer(snapshot())
    assert wait_for(lambda: out.published == 1)
    assert {topic: len(sent) for topic, sent in node.sent.items()} == {
        "~/instance_array": 1, "~/instances": 1, "~/points": 1,
    }  # fmt: skip


def test_changes_stay_with_their_snapshot(node, out):
    merged = IdentityChange("merged", (5, 6), (5,))
    out.offer(snapshot(1, [merged]))
    assert wait_for(lambda: out.published == 1)
    out.offer(snapshot(1, [merged], names=("table", "")))  # the labels became known
    assert wait_for(lambda: out.published == 2)
    out.offer(snapshot(2, [IdentityChange("split", (5,), (5, 7))]))
    assert wait_for(lambda: out.published == 3)
    first, again, second = node.sent["~/instance_array"]
    assert first.changes == again.changes
    assert [(c.kind, list(c.sources), list(c.targets)) for c in first.changes] == [(InstanceChange.MERGED, [5, 6], [5])]
    assert [(c.kind, list(c.targets)) for c in second.changes] == [(InstanceChange.SPLIT, [5, 7])]


def test_changes_of_overtaken_snapshots_are_not_lost(node, out, monkeypatch):
    gate, publish = threading.Event(), out.markers.publish
    monkeypatch.setattr(out.markers, "publish", lambda m: (gate.wait(5), publish(m)))
    out.offer(snapshot(1))
    assert wait_for(lambda: node.sent["~/instance_array"])
    out.offer(snapshot(2, [IdentityChange("merged", (5, 6), (5,))]))
    out.offer(snapshot(3, [IdentityChange("split", (5,), (5, 7))]))
    gate.set()
    assert wait_for(lambda: out.published == 2)
    last = node.sent["~/instance_array"][-1]
    assert last.sequence == 3
    assert [c.kind for c in last.changes] == [InstanceChange.MERGED, InstanceChange.SPLIT]


@pytest.mark.parametrize(
    ("offered", "asked", "meet"),
    [
        (qos.SENSOR_RELIABLE, qos.SENSOR_RELIABLE, True),
        (qos.SENSOR_BEST_EFFORT, qos.SENSOR_RELIABLE, False),
        (qos.SENSOR_RELIABLE, qos.SENSOR_BEST_EFFORT, True),
        (qos.SENSOR_RELIABLE, qos.SENSOR_LATCHED, False),
        (qos.LATCHED, qos.SENSOR_LATCHED, True),
    ],
)
def test_who_hears_whom(offered, asked, meet):
    assert qos.compatible(offered, asked) is meet


def test_the_strongest_profile_that_all_serve():
    assert qos.choose([]) is None
    assert qos.choose([qos.SENSOR_RELIABLE]) == qos.SENSOR_RELIABLE
    assert qos.choose([qos.LATCHED, qos.SENSOR_RELIABLE]) == qos.SENSOR_RELIABLE
    assert qos.choose([qos.LATCHED]) == qos.SENSOR_LATCHED
    assert qos.choose([qos.LATCHED, qos.SENSOR_BEST_EFFORT]) == qos.SENSOR_BEST_EFFORT
    for offered in (qos.SENSOR_RELIABLE, qos.LATCHED, qos.SENSOR_BEST_EFFORT):
        assert qos.compatible(offered, qos.choose([offered]))
