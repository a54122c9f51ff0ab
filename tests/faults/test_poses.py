# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Fault 8: poses that jump, flicker or hold no rotation. The gate of one scene is in tests/test_scene.py; here the
stream as it is, and what the map holds afterwards."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

FAR = np.array([6.0, 0.0, 0.0])


def moved(frame, by, stamp):
    pose = frame.T_world_camera.copy()
    pose[:3, 3] += by
    return replace(frame, stamp=stamp, T_world_camera=pose)


def cloud_of(running):
    return running.runtime.segment_now().cloud.xyz


def test_a_localisation_that_flickers_between_two_places_maps_one_of_them(live, box_room) -> None:
    running = live()
    frames = [f for f in box_room(10) for _ in (0, 1)]
    running.feed(moved(f, FAR * (k % 2), k / 30) for k, f in enumerate(frames))
    assert running.drops == {"pose_jump": 10} and running.counters["frames"] == 10
    assert np.abs(cloud_of(running)).max() < 3.0
    assert any("jumps" in text for level, text in running.events if level == "warning")


def test_a_teleport_is_kept_out_until_it_is_stable_and_then_followed(live, box_room) -> None:
    running = live()
    frames = box_room(12)
    running.feed(moved(f, 0, k / 30) for k, f in enumerate(frames[:4]))
    running.feed(moved(f, FAR, (k + 4) / 30) for k, f in enumerate(frames[4:8]))
    assert running.drops == {"pose_jump": 4} and np.abs(cloud_of(running)).max() < 3.0
    running.feed(moved(f, FAR, (k + 8) / 30) for k, f in enumerate(frames[8:]))
    assert running.drops == {"pose_jump": 4} and np.abs(cloud_of(running)).max() > 3.0


def test_a_pose_that_wanders_wildly_is_never_believed(live, box_room) -> None:
    running = live()
    chance = np.random.default_rng(0)
    frames = box_room(12)
    running.feed(moved(f, 0, k / 30) for k, f in enumerate(frames[:2]))
    running.feed(moved(f, chance.permutation(FAR * (k + 1)), (k + 2) / 30) for k, f in enumerate(frames[2:]))
    assert running.drops == {"pose_jump": 10} and np.abs(cloud_of(running)).max() < 3.0


BAD = {
    "zeros": ("rotation", np.zeros((4, 4))),
    "mirrored": ("rotation", np.diag([1.0, 1.0, -1.0, 1.0])),
    "scaled": ("rotation", np.diag([1.1, 1.1, 1.1, 1.0])),
    "sheared": ("rotation", np.eye(4) + np.eye(4, k=1) * [0, 0.5, 0, 0]),
    "NaN": ("pose", np.full((4, 4), np.nan)),
    "infinite": ("pose", np.full((4, 4), np.inf)),
    "3 x 4": ("pose", np.eye(4)[:3]),
    "transposed": ("pose", np.eye(4) + np.eye(4, k=-3)),
}


@pytest.mark.parametrize("case", BAD)
def test_improper_poses_are_counted_and_leave_the_map_as_it_is(live, box_room, case) -> None:
    reason, pose = BAD[case]
    running = live()
    frames = box_room(3)
    running.feed(frames[:1])
    points = running.runtime.statistics().points
    running.feed([replace(frames[1], T_world_camera=pose)])
    assert running.drops == {reason: 1} and running.runtime.statistics().points == points
    running.feed(frames[2:])
    assert running.counters["frames"] == 2


@pytest.mark.parametrize("stamp", [np.nan, np.inf, -np.inf])
def test_a_stamp_that_is_none_is_counted_and_does_not_open_the_gate(live, box_room, stamp) -> None:
    running = live()
    frames = box_room(4)
    running.feed(frames[:1])
    running.feed([replace(frames[1], stamp=stamp)])
    assert running.drops == {"stamp": 1}
    running.feed([moved(frames[2], FAR, frames[1].stamp)])
    assert running.drops == {"stamp": 1, "pose_jump": 1}
    running.feed(frames[3:])
    assert running.counters["frames"] == 2
