# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""The SROS 2 policy allows what the programs do and nothing more: compared with the topics and services they have."""

from __future__ import annotations

import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import rclpy
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from seg3d_ros.segment_node import SegmentNode

POLICY = Path(__file__).resolve().parents[2] / "ros2_ws/src/seg3d_ros/config/sros2/policy.xml"
# Heard with simulated time only.
CLOCK = {"/clock"}


def allowed() -> dict[str, dict[str, set[str]]]:
    """{enclave: {qualifier: names}}."""
    root = ElementTree.parse(POLICY).getroot()
    out: dict[str, dict[str, set[str]]] = {}
    for enclave in root.iterfind("enclaves/enclave"):
        names = out.setdefault(enclave.get("path"), {})
        for group in enclave.iterfind("profiles/profile/*"):
            for qualifier in group.attrib:
                names.setdefault(qualifier, set()).update(each.text for each in group)
    return out


def in_graph(observer, name: str) -> dict[str, set[str]]:
    kinds = {"publish": "publisher", "subscribe": "subscriber", "reply": "service", "request": "client"}
    functions = {word: getattr(observer, f"get_{kind}_names_and_types_by_node") for word, kind in kinds.items()}
    found = {word: {topic for topic, _ in function(name, "/")} for word, function in functions.items()}
    return {word: names for word, names in found.items() if names}


def test_the_file_has_the_form_that_sros2_reads():
    root = ElementTree.parse(POLICY).getroot()
    assert (root.tag, root.get("version")) == ("policy", "0.2.0")
    for profile in root.iterfind("enclaves/enclave/profiles/profile"):
        assert profile.get("ns") == "/" and profile.get("node")
        for group in profile:
            words = {"topics": {"publish", "subscribe"}, "services": {"reply", "request"}}[group.tag]
            assert set(group.attrib) <= words and set(group.attrib.values()) == {"ALLOW"}
            texts = [each.text for each in group]
            assert {each.tag for each in group} == {group.tag[:-1]}
            assert texts == sorted(set(texts)) and all(text.startswith("/") for text in texts)


def test_the_node_may_do_what_it_does_and_nothing_else(empty_domain):
    context = rclpy.Context()
    context.init(domain_id=empty_domain)
    values = {"query.encoder": "none", "pose_source": "odometry", "perception.masks": "topic"}
    node = SegmentNode(context=context, parameter_overrides=[Parameter(k, value=v) for k, v in values.items()])
    try:
        assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
        assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS
        policy = allowed()["/seg3d/node"]

        def found() -> dict[str, set[str]]:
            seen = in_graph(node, "seg3d")
            return {**seen, "subscribe": seen.get("subscribe", set()) | CLOCK}

        # The graph is learned piece by piece.
        end = time.monotonic() + 20
        while found() != policy and time.monotonic() < end:
            time.sleep(0.1)
        in_the_end = found()
    finally:
        node.close()
        node.destroy_node()
        context.try_shutdown()
    assert in_the_end == policy


@pytest.mark.parametrize("output", ["pose", "odometry"])
def test_the_player_may_do_what_it_does(output, start, ros, studio):
    start("player", f"source:={studio}", "loop:=true", f"pose_output:={output}", "masks:=true")
    policy = allowed()["/seg3d/camera_player"]
    other = {"pose": "/odometry", "odometry": "/pose"}[output]

    def found():
        try:
            return in_graph(ros, "camera_player")
        except rclpy.node.NodeNameNonExistentError:
            return {}

    assert ros.until(lambda: found().get("publish", set()) | {other} == policy["publish"]), found()
    assert ros.until(lambda: found().get("reply", set()) == policy["reply"]), found()


def test_a_viewer_hears_results_and_changes_nothing():
    node, viewer = allowed()["/seg3d/node"], allowed()["/seg3d/viewer"]
    assert viewer["request"] == {"/seg3d/query_text", "/seg3d/get_state"} <= node["reply"]
    assert {name for name in viewer["subscribe"] if name.startswith("/seg3d/")} <= node["publish"]
