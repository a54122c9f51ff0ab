# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""The real node with the trained core: the network that comes along, classes and boxes on the topic, found by name."""

from pathlib import Path

import pytest
from seg3d_interfaces.msg import InstanceArray
from seg3d_interfaces.srv import QueryText, Segment
from seg3d_ros import qos

from seg3d_core.metrics.classes import class_lists
from seg3d_core.perception import weights

pytest.importorskip("torch")
pytest.importorskip("safetensors")

STUDIO = Path(__file__).resolve().parents[2] / "examples" / "studio"
# The network alone, shown colours and no 2D features; and as it is meant to be used.
ALONE = ("perception.masks:=topic", "segdino3d.features_2d:=mobile_sam", "segdino3d.instance_score:=0.0")
WHOLE = ("perception.masks:=mobile_sam", "segdino3d.instance_score:=0.05")


@pytest.mark.parametrize("settings", [ALONE, WHOLE], ids=["alone", "with MobileSAM"])
def test_instances_come_with_classes_and_boxes_and_are_found_by_name(start, ros, settings):
    if settings == WHOLE and weights.find("mobile_sam") is None:
        pytest.skip("needs the official weights: seg3d models fetch mobile_sam")
    node = start("node", "core:=segdino3d", "query.encoder:=none", "runtime.segment_every:=10000", *settings)
    player = start(
        "player",
        f"source:={STUDIO}",
        "rate:=2.0",
        "step:=5",
        "frames:=10",
        "masks:=true",
        "wait_for_subscribers:=240.0",
    )
    assert ros.until(lambda: "active;" in node.said, 240), node.said
    assert player.wait(120) == 0, player.said
    done = ros.call(Segment, "/seg3d/segment_now")
    assert done.success and done.num_instances > 0, done.message + node.said

    array = ros.receive(InstanceArray, "/seg3d/instance_array", qos.LATCHED, lambda a: a.sequence == done.sequence)
    assert len(array.instances) == done.num_instances
    classes = set(class_lists()["scannet200"].names.values())
    for instance in array.instances:
        assert instance.label in classes and 0 < instance.score <= 1 and instance.num_points > 0
        assert min(instance.size.x, instance.size.y, instance.size.z) > 0

    name = array.instances[0].label
    answer = ros.call(QueryText, "/seg3d/query_text", text=f"the {name}")
    assert (answer.success, answer.code) == (True, QueryText.Response.OK), answer.message
    assert {i.label for i in answer.instances} == {name}
    absent = next(iter(classes - {i.label for i in array.instances}))
    assert ros.call(QueryText, "/seg3d/query_text", text=absent).code == QueryText.Response.NOTHING_MATCHED
    assert node.stop() == 0, node.said
    assert "Traceback" not in node.said, node.said
