# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Fault 1: depth that is NaN, infinite, negative, 0 or 65535, or no depth at all. The map of one point map is in
tests/mapping/test_point_map.py; here all that a frame goes through."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from seg3d_core.build import build_scene
from seg3d_core.config import build
from seg3d_core.sources.images import depth_in_metres
from seg3d_core.types import Masks2D

SETTINGS = {"map.voxel_size": 0.05, "re0.min_points": 5, "perception.masks": "ground_truth", "query.encoder": "none"}
NO_DEPTH = [np.nan, np.inf, -np.inf, -1.0, 0.0, 65.535, 1e30]


def state_after(frames) -> dict[str, bytes]:
    scene = build_scene(build(SETTINGS))
    for frame in frames:
        visible = scene.add_frame(frame)
        scene.add_observation(frame, visible, Masks2D.from_labels(frame.instance))
    scene.segment()
    _, state, blobs = scene.state()
    return {name: array.tobytes() for name, array in state.items()} | blobs


@settings(max_examples=15, deadline=None)
@given(
    where=arrays.arrays(bool, (15, 20)),
    what=arrays.arrays(np.float32, (15, 20), elements=st.sampled_from(NO_DEPTH).map(np.float32)),
)
def test_only_valid_pixels_change_map_votes_and_instances(box_room, where, what) -> None:
    frames = box_room(3, 20, 15)
    spoiled, cleaned = (
        [replace(f, depth=np.where(where, w, f.depth).astype(np.float32)) for f in frames] for w in (what, 0)
    )
    assert state_after(spoiled) == state_after(cleaned)


@settings(max_examples=50, deadline=None)
@given(arrays.arrays(np.uint16, (4, 5), elements=st.sampled_from([0, 1, 1500, 65534, 65535])))
def test_sixteen_bit_depth_means_nothing_where_it_is_0_or_65535(pixels) -> None:
    metres = depth_in_metres(pixels, 1000.0)
    assert metres.dtype == np.float32 and np.isfinite(metres).all() and (metres >= 0).all()
    assert ((metres > 0) == ((pixels > 0) & (pixels < 65535))).all()


def test_frames_without_any_valid_depth_are_counted_and_make_neither_points_nor_keyframes(live, box_room) -> None:
    running = live()
    frames = box_room(4)
    running.feed(frames[:1])
    assert running.until(lambda: running.counters.get("keyframes") == 1)
    points = running.runtime.statistics().points
    running.feed(
        replace(f, depth=np.full_like(f.depth, v)) for f, v in zip(frames[1:], (np.nan, 0, 65.535), strict=True)
    )
    counted = running.runtime.statistics()
    assert counted.counters["frames that saw nothing"] == 3 and counted.points == points
    assert counted.counters["keyframes chosen"] == 1
