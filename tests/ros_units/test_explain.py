# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""When nothing arrives, the first sentence names the cause."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from seg3d_ros import diagnostics
from seg3d_ros.explain import Offer, Situation, TopicFacts, causes, topic_line, troubles

RECIPES = Path(__file__).resolve().parents[2] / "docs" / "recipes" / "README.md"
IMAGE = "sensor_msgs/msg/Image"
GOOD = Offer("/camera", "RELIABLE, VOLATILE", True)


def facts(role, **changes):
    kind = "sensor_msgs/msg/CameraInfo" if role == "camera_info" else IMAGE
    base = TopicFacts(
        role, f"/{role}", kind, "RELIABLE, VOLATILE", (kind,), (GOOD,), 10, 0, 15.0, 100.0, "camera", 0.001
    )
    return replace(base, **changes)


def situation(colour=None, depth=None, info=None, **changes):
    topics = (facts("colour", **(colour or {})), facts("depth", **(depth or {})), facts("camera_info", **(info or {})))
    base = Situation(topics, clock=101.0, matched=9, camera_known=True, pose_chain="complete: camera -> map")
    return replace(base, **changes)


NOTHING = {"count": 0, "offers": (), "types_seen": (), "last_stamp": None, "partner": None}

CASES = {
    "nobody publishes": (
        situation(colour={**NOTHING, "suggestions": ("/cam/color",)}),
        ["nobody publishes /colour", "set rgb_topic", "/cam/color"],
    ),
    "a topic of another type": (
        situation(depth={**NOTHING, "types_seen": ("sensor_msgs/msg/CompressedImage",)}),
        ["/depth carries sensor_msgs/msg/CompressedImage", IMAGE],
    ),
    "qos": (
        situation(colour={"count": 0, "offers": (Offer("/camera", "BEST_EFFORT, VOLATILE", False),)}),
        ["/camera offers BEST_EFFORT, VOLATILE", "asked is RELIABLE"],
    ),
    "silent publishers": (situation(colour={"count": 0}), ["/colour has 1 publisher and no message"]),
    "camera_info": (situation(info=NOTHING), ["nobody publishes /camera_info", "set camera_info_topic"]),
    "camera_info that is unusable": (situation(camera_known=False), ["camera_info arrives but is not usable"]),
    "stamps apart": (
        situation(colour={"partner": 0.3}, depth={"partner": 0.3}, matched=0),
        ["sync_slop 0.02", "0.300 s apart"],
    ),
    "stamps of two clocks": (
        situation(colour={"partner": 1e9}, depth={"partner": 1e9}, matched=0),
        ["different clocks"],
    ),
    "simulated time": (
        situation(clock=1.7e9, pose_chain="complete: x"),
        ["over an hour apart", "use_sim_time is false"],
    ),
    "clocks that differ and nothing else wrong with the chain": (
        situation(clock=1.7e9, pose_chain="no chain from 'camera' to 'map'"),
        ["no pose from /tf", "no chain"],
    ),
    "poses of another clock": (
        situation(
            clock=1.7e9,
            pose_chain="camera -> map, but the transform of 'camera' is known from 5.000 to 6.000, not at 9.000",
        ),
        ["over an hour apart"],
    ),
    "simulated time that never comes": (
        situation(clock=0.0, use_sim_time=True),
        ["use_sim_time is true and no /clock has come", "--clock"],
    ),
    "no pose": (situation(pose_chain="no chain from 'camera' to 'map'"), ["no pose from /tf", "no chain"]),
    "publishers that died": (situation(colour={"offers": ()}), ["the publisher of /colour (colour) is gone"]),
    "drops": (situation(drops={"encoding": 7, "overtaken": 99}), ["dropped so far: encoding 7"]),
    "drops with their sentence": (
        situation(drops={"size_mismatch": 3}, drop_texts={"size_mismatch": "colour is 4 x 3, depth 2 x 1"}),
        ["size_mismatch 3 (colour is 4 x 3, depth 2 x 1)"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_cause(case):
    now, words = CASES[case]
    first = causes(now)[0]
    for word in words:
        assert word in first
    assert "overtaken" not in " ".join(causes(now)), "frames that newer ones overtook did arrive"


def test_transforms_that_cannot_be_heard():
    tf = facts("tf", count=0, offers=(Offer("/slam", "BEST_EFFORT, VOLATILE", False),))
    now = situation(pose_chain="no transform has arrived at all")
    assert "/tf: /slam offers BEST_EFFORT" in causes(replace(now, topics=(*now.topics, tf)))[0]
    quiet = replace(tf, offers=())
    assert "no pose from /tf" in causes(replace(now, topics=(*now.topics, quiet)))[0]


def with_masks(**changes):
    now = situation(**{"keyframes": 5} | changes.pop("now", {}))
    return replace(now, topics=(*now.topics, facts("masks", **changes)))


@pytest.mark.parametrize(
    ("now", "words"),
    [
        (with_masks(), None),
        (with_masks(**NOTHING), "nobody publishes /masks (masks); set mask_topic"),
        (with_masks(now={"keyframes": 0}), "label images on /masks carry no stamp of a colour image"),
        (
            situation(untaken=7.0, drops={"pose_jump": 61}),
            "the map has taken none of them for 7 s; dropped so far: pose_jump 61",
        ),
    ],
)
def test_frames_that_arrive_and_lead_to_nothing(now, words):
    found = troubles(now)
    assert len(found) == (words is not None)
    assert not found or words in found[0]


def test_a_pose_topic_that_is_silent_is_said_once():
    now = situation(pose_source="pose", pose_chain="no pose has come yet")
    now = replace(now, topics=(*now.topics, facts("pose", **NOTHING)))
    assert [c for c in causes(now) if "pose" in c] == ["nobody publishes /pose (pose); set pose_topic"]


def test_the_recipes_quote_what_the_node_says():
    said = "".join(cause for now, _ in CASES.values() for cause in causes(now)) + Path(diagnostics.__file__).read_text()
    rows = RECIPES.read_text().partition("| it says | do |")[2].partition("\n\n")[0].splitlines()[2:]
    quotes = [row.split("|")[1].strip() for row in rows]
    assert len(quotes) > 10
    for quote in quotes:
        for words in re.split(r"`[^`]*`|\.\.\.|TOPIC", "" if quote.startswith("*") else quote):
            assert len(words) < 10 or words.strip() in said, quote


def test_silence_without_a_fault_is_said_too():
    assert causes(situation()) == ["frames stopped: the inputs arrived before and are silent now"]


def test_the_line_of_a_topic_holds_all_facts():
    line = topic_line(facts("colour", lost=3))
    for word in (
        "1 publisher (/camera offers RELIABLE, VOLATILE)", "asked RELIABLE", "10 messages", "15.0 Hz", "3 lost",
        "last stamp 100.000", "frame_id 'camera'", "nearest partner stamp 1.0 ms away",
    ):  # fmt: skip
        assert word in line
    assert "(INCOMPATIBLE)" in topic_line(facts("colour", offers=(replace(GOOD, compatible=False),)))
