# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from seg3d_core.build import build_scene, rebuild_scene
from seg3d_core.config import build
from seg3d_core.errors import FrameError, MapFileError
from seg3d_core.frame_choice import share_seen_before
from seg3d_core.perception.ground_truth import GroundTruthMasks
from seg3d_core.runtime.offline import run_offline
from seg3d_core.scene import Scene, boxes_of
from seg3d_core.sources.synthetic.noise import kinect_depth
from seg3d_core.storage import copy_scene, read_scene, restore_scene, write_scene
from seg3d_core.types import Cloud, Instances, Masks2D, Visible

SETTINGS = {"map.voxel_size": 0.05, "re0.min_points": 20, "runtime.segment_every": 3}


class Frames(list):
    """A list of frames as a source."""

    name, kind = "frames", "list"

    def __init__(self, frames):
        super().__init__(frames)
        self.drops = {}
        self.frame_names = [f.name for f in frames]


@pytest.fixture
def scene() -> Scene:
    return build_scene(build(SETTINGS))


def run(scene, frames):
    return run_offline(scene, Frames(frames), GroundTruthMasks())


def test_finds_the_boxes_where_they_are(scene, box_room):
    result = run(scene, box_room())
    assert result.statistics.counters["frames"] == 8 and not result.statistics.drops
    snapshot = result.snapshot
    assert len(snapshot.instances) == 3
    centres = snapshot.centres[np.argsort(snapshot.centres[:, 0])]
    expected = [(-0.6, 0.7, 0.35), (0.55, 0.95, 0.25), (0.8, -0.25, 0.45)]
    # Only the sides that the camera saw are in the boxes.
    assert np.abs(centres - expected).max() < 0.2
    assert set(np.unique(snapshot.labels)) == {0, *snapshot.instances.ids.tolist()}


def test_same_frames_give_the_same_bytes(box_room):
    def once():
        scene = build_scene(build(SETTINGS))
        run(scene, box_room())
        _, arrays, blobs = scene.state()
        return arrays, blobs

    first, second = once(), once()
    assert first[1] == second[1] and first[0].keys() == second[0].keys()
    for name, array in first[0].items():
        assert array.tobytes() == second[0][name].tobytes(), name


def test_ids_stay_over_segmentations_and_are_not_reused_after_a_reset(scene, box_room):
    frames = box_room(12)
    before = run(scene, frames[:6]).snapshot
    after = run(scene, frames[6:]).snapshot
    assert set(before.instances.ids) <= set(after.instances.ids)
    scene.reset()
    assert len(scene.map) == 0 and scene.frames == 0 and not len(scene.snapshot.instances)
    again = run(scene, frames).snapshot
    assert min(again.instances.ids) > max(after.instances.ids)


@pytest.mark.parametrize(
    ("reason", "spoil"),
    [
        ("size", lambda f: replace(f, depth=f.depth[:-1])),
        ("size", lambda f: replace(f, rgb=f.rgb[:, :-1])),
        ("pose", lambda f: replace(f, T_world_camera=np.full((4, 4), np.nan))),
        ("rotation", lambda f: replace(f, T_world_camera=np.diag([1.0, 1.0, -1.0, 1.0]))),
        ("rotation", lambda f: replace(f, T_world_camera=np.diag([2.0, 2.0, 2.0, 1.0]))),
        ("stamp", lambda f: replace(f, stamp=f.stamp - 0.3)),
        ("pose_jump", lambda f: replace(f, T_world_camera=f.T_world_camera + np.eye(4, k=3) * 5)),
    ],
)
def test_a_bad_frame_is_refused_and_changes_nothing(scene, box_room, reason, spoil):
    frames = box_room(4)
    for frame in frames[:3]:
        scene.add_frame(frame)
    points = len(scene.map)
    with pytest.raises(FrameError) as error:
        scene.add_frame(spoil(frames[3]))
    assert error.value.reason == reason
    assert len(scene.map) == points and scene.frames == 3
    scene.add_frame(frames[3])


def test_a_relocalised_camera_is_followed_after_five_frames_that_agree(scene, box_room):
    frames = box_room(12)
    scene.add_frame(frames[0])
    moved = [replace(f, T_world_camera=f.T_world_camera + np.eye(4, k=3) * 4) for f in frames[1:8]]
    refused = 0
    for frame in moved:
        try:
            scene.add_frame(frame)
        except FrameError:
            refused += 1
    assert refused == 4 and scene.frames == 4


def test_a_bag_that_starts_over_is_followed(scene, box_room):
    frames = [replace(f, stamp=100.0 + f.stamp) for f in box_room(4)]
    for frame in frames + [replace(f, stamp=f.stamp - 50) for f in frames]:
        scene.add_frame(frame)
    assert scene.frames == 8


def test_an_empty_scene_segments_to_nothing(scene):
    snapshot = scene.segment()
    assert len(snapshot.cloud) == 0 and len(snapshot.instances) == 0


def test_saved_and_loaded_maps_go_on_with_the_same_ids(scene, box_room, tmp_path):
    frames = box_room(12)
    before = run(scene, frames[:8]).snapshot
    file = tmp_path / "a.seg3d"
    write_scene(file, copy_scene(scene, {1: "box"}, "none"))
    saved = read_scene(file)
    loaded = rebuild_scene(saved)
    assert saved.names == {1: "box"} and loaded.config == scene.config
    same = loaded.segment()
    assert same.instances.ids.tolist() == before.instances.ids.tolist()
    assert np.array_equal(same.labels, before.labels) and np.array_equal(same.cloud.xyz, before.cloud.xyz)
    assert dict(same.images) == dict(before.images)
    # Both go on to the same end.
    for frame in frames[8:]:
        for s in (scene, loaded):
            visible = s.add_frame(frame)
            s.add_observation(frame, visible, GroundTruthMasks().masks(frame))
    assert np.array_equal(scene.segment().labels, loaded.segment().labels)


def test_all_label_images_of_a_frame_are_saved_and_taken_up_again(box_room, tmp_path):
    def observe(scene, frames):
        for frame in frames:
            visible = scene.add_frame(frame)
            own = Masks2D.from_labels(frame.instance)
            halves = Masks2D.from_labels((frame.instance > 0) * (1 + (np.arange(80) >= 40)))
            scene.add_observation(frame, visible, replace(own, others=(halves, own)))

    frames = box_room(8)
    whole, first, second = (build_scene(build(SETTINGS)) for _ in range(3))
    observe(whole, frames)
    observe(first, frames[:4])
    write_scene(tmp_path / "map.seg3d", copy_scene(first, {}, ""))
    restore_scene(second, read_scene(tmp_path / "map.seg3d"))
    arrays = second.state()[1]
    assert arrays["segmenter/log_label_images"].tolist() == [3] * 4
    assert len(arrays["segmenter/log_masks"]) == 3 * len(arrays["segmenter/log_rows"])
    observe(second, frames[4:])
    a, b = whole.segment(), second.segment()
    assert len(a.instances) == 3
    assert a.labels.tobytes() == b.labels.tobytes() and a.instances.scores.tobytes() == b.instances.scores.tobytes()


def test_a_map_of_another_voxel_size_is_refused_with_the_setting_to_change(scene, box_room, tmp_path):
    run(scene, box_room(4))
    file = tmp_path / "a.seg3d"
    write_scene(file, copy_scene(scene, {}, ""))
    other = build_scene(build({"map.voxel_size": 0.02}))
    with pytest.raises(MapFileError, match=r"map.voxel_size=0.05"):
        restore_scene(other, read_scene(file))


def test_parts_that_do_not_fit_leave_an_empty_scene(scene, box_room):
    run(scene, box_room(4))
    meta, arrays, blobs = scene.state()
    arrays["keyframes/poses"] = arrays["keyframes/poses"][:-1]
    with pytest.raises(MapFileError) as error:
        scene.restore(meta, arrays, blobs)
    assert error.value.code == "damaged" and len(scene.map) == 0


def test_masks_of_another_size_are_refused(scene, box_room):
    frame, small = box_room(1)[0], box_room(1, 40, 30)[0]
    visible = scene.add_frame(frame)
    with pytest.raises(FrameError, match="masks of"):
        scene.add_observation(frame, visible, GroundTruthMasks().masks(small))


def test_masks_that_are_refused_leave_no_keyframe(scene, box_room):
    frame = box_room(1)[0]
    visible = scene.add_frame(frame)
    wrong = Masks2D(np.full(frame.depth.shape, 7, np.int32), np.ones(2, np.float32))
    with pytest.raises(FrameError, match="mask numbers"):
        scene.add_observation(frame, visible, wrong)
    assert scene.keyframes == 0 and not scene.camera_poses and not len(scene.images)


def test_a_frame_that_the_map_refuses_is_not_where_the_camera_was(scene, box_room):
    frame = box_room(1)[0]
    with pytest.raises(FrameError, match="move the origin"):
        scene.add_frame(replace(frame, T_world_camera=frame.T_world_camera + np.eye(4, k=3) * 1e9))
    scene.add_frame(replace(frame, stamp=frame.stamp + 0.1))
    assert scene.frames == 1


def test_a_transposed_pose_is_refused(scene, box_room):
    frame = box_room(1)[0]
    with pytest.raises(FrameError, match="transposed"):
        scene.add_frame(replace(frame, T_world_camera=frame.T_world_camera.T))


def test_what_comes_and_goes_before_a_still_camera_leaves_no_rows(scene, box_room, monkeypatch):
    monkeypatch.setattr("seg3d_core.mapping.point_map.COMPACT_ROWS", 200)
    frame = box_room(1)[0]
    near = replace(frame, depth=np.where(frame.instance > 0, frame.depth, np.float32(0.7)))
    seen, masks = scene.add_frame(frame), GroundTruthMasks().masks(frame)
    for i in range(1, 41):
        scene.add_frame(replace(near if i % 2 else frame, stamp=frame.stamp + i / 30))
    assert scene.map.rows < 3 * len(scene.map)
    # What was seen before the rows moved still finds its points.
    scene.add_observation(frame, seen, masks)
    alone = build_scene(build(SETTINGS))
    alone.add_observation(frame, alone.add_frame(frame), masks)
    found, expected = scene.segment(), alone.segment()
    assert len(found.instances) == len(expected.instances) > 0
    assert np.abs(found.centres - expected.centres).max() < 0.1


def test_a_loaded_scene_is_segmented_though_no_new_keyframe_came(scene, box_room):
    before = run(scene, box_room()).snapshot
    scene.restore(*scene.state())
    after = run(scene, []).snapshot
    assert after.instances.ids.tolist() == before.instances.ids.tolist()


# --- keyframes -----------------------------------------------------------------------------------

OVERLAP_ALONE = {**SETTINGS, "keyframes.translation": 10.0, "keyframes.rotation": 3.2}


@pytest.fixture(params=["fused", "given"])
def overlap_scene(request, box_room, tmp_path) -> Scene:
    """A scene that chooses keyframes by overlap alone, over a map that grows or over a given cloud."""
    if request.param == "fused":
        return build_scene(build(OVERLAP_ALONE))
    fused = build_scene(build(SETTINGS))
    for frame in box_room(30):
        fused.add_frame(frame)
    np.savez(tmp_path / "points.npz", xyz=fused.map.snapshot()[0].xyz)
    return build_scene(build(OVERLAP_ALONE), tmp_path / "points.npz")


def choose(scene, frames) -> list[int]:
    """Numbers of the frames that become keyframes."""
    chosen = []
    for frame in frames:
        visible = scene.add_frame(frame)
        if scene.is_keyframe(frame, visible):
            scene.mark_keyframe(frame, visible)
            chosen.append(frame.index)
    return chosen


def test_a_turning_camera_gets_a_keyframe_where_too_little_of_the_last_one_is_left(overlap_scene, box_room):
    chosen, last = [], np.empty(0, np.int64)
    for frame in box_room(30):
        visible = overlap_scene.add_frame(frame)
        share = share_seen_before(visible, last, frame.camera.size)
        assert overlap_scene.is_keyframe(frame, visible) == (share < 0.7)
        if share < 0.7:
            overlap_scene.mark_keyframe(frame, visible)
            chosen, last = [*chosen, frame.index], visible.ids
    # The view turns by 86 degrees, and is 64 degrees wide.
    assert 4 <= len(chosen) <= 8 and chosen[0] == 0 and min(np.diff(chosen)) > 1


def test_a_standing_camera_gets_one_keyframe_whatever_its_depth_noise(overlap_scene, box_room):
    rng, frame = np.random.default_rng(3), box_room(1)[0]
    noisy = [
        replace(frame, depth=kinect_depth(frame.depth, np.ones_like(frame.depth), rng), index=i, stamp=i / 30)
        for i in range(60)
    ]
    assert choose(overlap_scene, noisy) == [0]


def test_a_door_that_opens_before_a_standing_camera_makes_a_keyframe(overlap_scene, box_room):
    frame = box_room(1)[0]
    width = frame.depth.shape[1]
    door = frame.depth.copy()
    door[:, width // 2 :] = 0.5
    closed = [replace(frame, depth=door, index=i, stamp=i / 30) for i in range(10)]
    # What is behind the door is there for the first time, and then is no news.
    opened = [replace(frame, index=i, stamp=i / 30) for i in range(10, 20)]
    assert choose(overlap_scene, closed + opened) == [0, 10]


def test_what_was_seen_before_the_rows_moved_is_still_known(box_room, monkeypatch):
    monkeypatch.setattr("seg3d_core.mapping.point_map.COMPACT_ROWS", 200)
    scene, frame = build_scene(build(OVERLAP_ALONE)), box_room(1)[0]
    near = replace(frame, depth=np.full_like(frame.depth, 0.7))
    scene.mark_keyframe(frame, scene.add_frame(frame))
    for i in range(1, 41):
        scene.add_frame(replace(near if i % 2 else frame, stamp=frame.stamp + i / 30))
    assert scene.map.epoch > 0
    again, hidden = replace(frame, stamp=frame.stamp + 2), replace(near, stamp=frame.stamp + 2.1)
    assert not scene.is_keyframe(again, scene.add_frame(again))
    assert scene.is_keyframe(hidden, scene.add_frame(hidden))


def test_motion_makes_keyframes_though_all_was_seen_before(box_room):
    scene, frame = build_scene(build({**SETTINGS, "keyframes.overlap": 0.0})), box_room(1)[0]
    moved = [replace(frame, index=i, T_world_camera=frame.T_world_camera + np.eye(4, k=3) * 0.02 * i) for i in range(9)]
    assert choose(scene, [replace(f, stamp=f.index / 30) for f in moved]) == [0, 8]


def test_a_frame_that_sees_nothing_is_no_keyframe_and_a_reset_begins_anew(scene, box_room):
    first, second, third = box_room(3)
    blind = replace(first, depth=np.zeros_like(first.depth))
    assert not scene.is_keyframe(blind, scene.add_frame(blind))
    assert choose(scene, [second]) == [second.index]
    assert not scene.is_keyframe(second, scene.add_frame(second))
    scene.reset()
    assert scene.is_keyframe(third, scene.add_frame(third))


@pytest.mark.parametrize("size", [(80, 60), (33, 47), (7, 5)])
def test_the_share_seen_before_is_that_of_the_images_cells(size):
    rng = np.random.default_rng(size[0])
    ids = np.sort(rng.choice(500, 120, replace=False))
    before = np.sort(rng.choice(500, 80, replace=False))
    pixels = (rng.random((120, 2)) * size - 0.5).astype(np.float32)
    side = max(1, size[0] // 20)
    cells: dict[tuple[int, int], bool] = {}
    for point, (u, v) in zip(ids, pixels, strict=True):
        cell = int((u + 0.5) / side), int((v + 0.5) / side)
        cells[cell] = cells.get(cell, False) or point in before
    visible = Visible(ids, pixels, np.ones(120, np.float32), ids)
    assert share_seen_before(visible, before, size) == sum(cells.values()) / len(cells)


def test_boxes_are_the_percentiles_of_each_instance() -> None:
    rng = np.random.default_rng(5)
    xyz = rng.normal(size=(3000, 3)).astype(np.float32)
    cloud = Cloud(np.arange(3000) * 3 + 2, xyz, np.zeros_like(xyz, np.uint8), np.zeros_like(xyz), np.ones(3000))
    labels = rng.permutation(np.repeat(np.arange(7), [900, 1, 2, 99, 101, 1897, 0]))
    instances = Instances.from_labels(labels, cloud.ids, np.ones(6, np.float32))
    centres, extents = boxes_of(instances, cloud)
    for k in range(5):
        low, high = np.percentile(xyz[labels == k + 1], [1, 99], axis=0)
        assert np.allclose(centres[k], (low + high) / 2) and np.allclose(extents[k], high - low)
    assert not centres[5].any() and not extents[5].any(), "an instance without points has no box"
