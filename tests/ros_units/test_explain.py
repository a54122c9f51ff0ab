"""When nothing arrives, the first sentence names the cause."""

from dataclasses import replace

import pytest
from seg3d_ros.explain import Offer, Situation, TopicFacts, causes, topic_line

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
    "silent publishers": (situation(colour={"count": 0}), ["/colour has 1 publishers and no message"]),
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
    "no pose": (situation(pose_chain="no chain from 'camera' to 'map'"), ["no pose from /tf", "no chain"]),
    "publishers that died": (situation(colour={"offers": ()}), ["the publisher of /colour (colour) is gone"]),
    "drops": (situation(drops={"encoding": 7, "overtaken": 99}), ["dropped so far: encoding 7"]),
}


@pytest.mark.parametrize("case", CASES)
def test_cause(case):
    now, words = CASES[case]
    first = causes(now)[0]
    for word in words:
        assert word in first
    assert "overtaken" not in " ".join(causes(now)), "frames that newer ones overtook did arrive"


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
