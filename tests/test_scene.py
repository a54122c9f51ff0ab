from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from seg3d_core.build import build_scene, rebuild_scene
from seg3d_core.config import build
from seg3d_core.errors import FrameError, MapFileError
from seg3d_core.perception.ground_truth import GroundTruthMasks
from seg3d_core.runtime.offline import run_offline
from seg3d_core.scene import Scene
from seg3d_core.storage import copy_scene, read_scene, restore_scene, write_scene
from seg3d_core.types import Masks2D

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
