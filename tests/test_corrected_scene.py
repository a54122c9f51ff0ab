# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""A scene whose poses are corrected: map, instances and all that refers to them follow, without starting over."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from seg3d_core.build import build_scene, rebuild_scene
from seg3d_core.config import build
from seg3d_core.frame_choice import PoseGate
from seg3d_core.perception.ground_truth import GroundTruthMasks
from seg3d_core.runtime import LiveRuntime
from seg3d_core.runtime.offline import run_offline
from seg3d_core.storage import copy_scene, read_scene, write_scene
from seg3d_core.types import Masks2D, PoseCorrection

SETTINGS = {
    "map.voxel_size": 0.05,
    "re0.min_points": 20,
    "runtime.segment_every": 3,
    "perception.masks": "ground_truth",
    "query.encoder": "none",
}
CENTRES = [(-0.6, 0.7, 0.35), (0.55, 0.95, 0.25), (0.8, -0.25, 0.45)]
SHIFT = np.eye(4)
SHIFT[:3, 3] = 0.413, -0.217, 0.083


def moved(frames, T):
    return [replace(f, T_world_camera=T @ f.T_world_camera) for f in frames]


def drifting(frames):
    out = []
    for share, frame in zip(np.linspace(0, 1, len(frames)), frames, strict=True):
        T = np.eye(4)
        T[:3, :3] = Rotation.from_rotvec((0, 0, 0.1 * share)).as_matrix()
        T[:3, 3] = 0.25 * share, -0.15 * share, 0
        out.append(replace(frame, T_world_camera=T @ frame.T_world_camera))
    return out


def told(frames) -> PoseCorrection:
    return PoseCorrection(np.array([f.stamp for f in frames]), np.array([f.T_world_camera for f in frames]))


@pytest.fixture
def scene():
    return build_scene(build(SETTINGS))


def feed(scene, frames):
    for frame in frames:
        visible = scene.add_frame(frame)
        scene.mark_keyframe(frame, visible)
        scene.add_observation(frame, visible, Masks2D.from_labels(frame.instance))


def off(snapshot) -> float:
    """How far the three boxes are from where they should be, at most."""
    assert len(snapshot.instances) == 3
    return float(np.abs(snapshot.centres[np.argsort(snapshot.centres[:, 0])] - CENTRES).max())


def test_instances_move_and_keep_their_ids(scene, box_room):
    frames = box_room(10)
    feed(scene, moved(frames, SHIFT))
    before = scene.segment()
    assert off(before) > 0.3
    outcome = scene.correct(told(frames[::3]))
    assert outcome.state == "applied" and outcome.translation == pytest.approx(np.linalg.norm(SHIFT[:3, 3]))
    assert scene.snapshot is before, "what was handed out stays as it was"
    after = scene.segment()
    assert off(after) < 0.2
    assert set(after.instances.ids) == set(before.instances.ids) and not after.changes
    assert np.allclose(scene.camera_poses, [f.T_world_camera for f in frames], atol=1e-6)


def test_a_drift_is_undone(scene, box_room):
    frames = box_room(16)
    feed(scene, drifting(frames))
    scene.correct(told(frames))
    assert off(scene.segment()) < 0.2
    assert np.allclose(scene.camera_poses, [f.T_world_camera for f in frames], atol=1e-6)


def test_the_stream_goes_on_in_the_corrected_world(scene, box_room):
    frames = box_room(12)
    feed(scene, moved(frames[:6], SHIFT))
    first = scene.segment()
    scene.correct(told(frames[:6]))
    feed(scene, frames[6:])
    points = len(scene.map)
    after = scene.segment()
    assert off(after) < 0.2 and set(first.instances.ids) <= set(after.instances.ids)
    other = build_scene(build(SETTINGS))
    feed(other, frames)
    assert points < 1.05 * len(other.map), "nothing is there twice"


def test_masks_that_come_after_a_correction_find_their_points_and_the_pose_of_now(scene, box_room):
    frames = box_room(6)
    seen = [(f, scene.add_frame(f)) for f in moved(frames, SHIFT)]
    scene.correct(told(frames))
    for frame, visible in seen:
        scene.add_observation(frame, visible, Masks2D.from_labels(frame.instance))
    assert off(scene.segment()) < 0.2
    assert np.allclose(scene.camera_poses, [f.T_world_camera for f in frames], atol=1e-6)


def test_frames_that_were_posed_before_but_come_after_are_moved_too(scene, box_room):
    frames = box_room(8)
    wrong = moved(frames, SHIFT)
    feed(scene, wrong[:5])
    scene.offer_correction(told(frames[:5]), until=frames[6].stamp)
    scene.apply_correction()
    feed(scene, [*wrong[5:7], frames[7]])
    assert off(scene.segment()) < 0.2
    assert np.allclose(scene.camera_poses, [f.T_world_camera for f in frames], atol=1e-6)


def test_of_several_the_newest_waits_for_the_next_segmentation(scene, box_room):
    frames = box_room(6)
    feed(scene, moved(frames, SHIFT))
    cloud, _ = scene.map.snapshot()
    assert scene.offer_correction(told(moved(frames, np.linalg.inv(SHIFT)))).state == "waiting"
    assert scene.offer_correction(told(frames)).state == "waiting"
    assert np.array_equal(scene.map.snapshot()[0].xyz, cloud.xyz)
    assert off(scene.segment()) < 0.2
    assert scene.corrector.count == 1 and not scene.corrector.waits
    assert scene.offer_correction(told(frames)).state == "small" and scene.apply_correction() is None


def test_a_newer_one_that_changes_nothing_takes_the_waiting_one_back(scene, box_room):
    frames = box_room(4)
    feed(scene, frames)
    scene.offer_correction(told(moved(frames, SHIFT)))
    assert scene.offer_correction(told(frames)).state == "small"
    assert off(scene.segment()) < 0.3 and scene.corrector.count == 0


def test_a_segmentation_begun_before_a_correction_changes_nothing(scene, box_room):
    frames = box_room(6)
    feed(scene, moved(frames, SHIFT))
    last = scene.segment()
    job = scene.begin_segmentation()
    scene.correct(told(frames))
    assert scene.finish_segmentation(job, job.run()) is last
    assert set(scene.segment().instances.ids) == set(last.instances.ids)


def test_a_reset_forgets_what_waits_and_a_given_cloud_stays(scene, box_room, tmp_path):
    frames = box_room(4)
    feed(scene, frames)
    scene.offer_correction(told(moved(frames, SHIFT)))
    scene.reset()
    assert scene.apply_correction() is None
    np.savez(tmp_path / "cloud.npz", xyz=np.random.default_rng(0).random((500, 3)))
    given = build_scene(build(SETTINGS), tmp_path / "cloud.npz")
    feed(given, frames)
    assert given.correct(told(moved(frames, SHIFT))).state == "fixed"


def test_the_gate_compares_with_where_the_camera_really_was(box_room):
    frames = box_room(4)
    scene = build_scene(build({**SETTINGS, "keyframes.pose_jump": 0.5}))
    far = np.eye(4)
    far[0, 3] = 3.0
    feed(scene, moved(frames[:3], far))
    scene.correct(told(frames[:3]))
    feed(scene, frames[3:])
    assert isinstance(scene._poses, PoseGate) and scene.frames == 4


@pytest.mark.parametrize("reading", ["paper", "published"])
def test_every_reading_follows(box_room, reading):
    frames = box_room(10)
    scene = build_scene(build({**SETTINGS, "re0.reading": reading}))
    feed(scene, moved(frames, SHIFT))
    before = scene.segment()
    scene.correct(told(frames))
    assert off(scene.segment()) < 0.2 and set(scene.snapshot.instances.ids) == set(before.instances.ids)


def test_a_saved_map_is_corrected_like_the_one_that_was_saved(scene, box_room, tmp_path):
    frames = box_room(8)
    feed(scene, moved(frames, SHIFT))
    scene.segment()
    write_scene(tmp_path / "map.seg3d", copy_scene(scene, {}, ""))
    loaded = rebuild_scene(read_scene(tmp_path / "map.seg3d"))
    for each in (scene, loaded):
        assert each.correct(told(frames)).state == "applied"
    a, b = scene.segment(), loaded.segment()
    assert np.array_equal(a.cloud.xyz, b.cloud.xyz) and np.array_equal(a.labels, b.labels)
    assert np.allclose(loaded.camera_poses, scene.camera_poses)


def test_a_map_of_before_corrections_loads_and_says_that_it_stays(scene, box_room, tmp_path):
    frames = box_room(8)
    feed(scene, frames[:5])
    scene.segment()
    saved = copy_scene(scene, {}, "")
    newer = {"map/anchors", "map/pose_stamps", "map/poses", "map/pose_stretch", "keyframes/stamps"}
    old = replace(saved, arrays={name: a for name, a in saved.arrays.items() if name not in newer})
    write_scene(tmp_path / "map.seg3d", old)
    loaded = rebuild_scene(read_scene(tmp_path / "map.seg3d"))
    outcome = loaded.correct(told(moved(frames[:5], SHIFT)))
    assert (outcome.state, outcome.unanchored) == ("unknown", len(loaded.map))
    feed(loaded, frames[5:])
    assert loaded.correct(told(moved(frames[5:], SHIFT))).unanchored > 0
    assert np.allclose(loaded.camera_poses[:5], [f.T_world_camera for f in frames[:5]])
    loaded.segment()


# --- the ways in ---------------------------------------------------------------------------


class Frames(list):
    name, kind = "frames", "list"
    drops: dict[str, int] = {}

    @property
    def frame_names(self):
        return [f.name for f in self]


def test_offline_the_map_follows_at_the_end_and_all_is_counted(scene, box_room):
    frames = box_room(8)
    bad = PoseCorrection(np.append(told(frames).stamps, 55.0), np.append(told(frames).poses, np.eye(4)[None], axis=0))
    result = run_offline(scene, Frames(moved(frames, SHIFT)), GroundTruthMasks(), correction=bad)
    assert off(result.snapshot) < 0.2
    assert result.corrected.state == "applied"
    counters = result.statistics.counters
    assert (
        counters["corrections"]
        == counters["corrections applied"]
        == counters["correction poses of unknown stamps"]
        == 1
    )
    assert counters["points moved by corrections"] > 1000 and "correct" in result.statistics.stages


def test_live_corrections_move_the_map_and_are_counted(box_room, until):
    events = []
    runtime = LiveRuntime(build(SETTINGS), on_event=lambda level, text: events.append(text))
    runtime.start()
    try:
        frames = box_room(8)
        for n, frame in enumerate(moved(frames, SHIFT), 1):
            runtime.submit(frame)
            assert until(lambda n=n: runtime.statistics().counters.get("keyframes", 0) == n)
        before = runtime.segment_now()
        runtime.submit_correction(told(frames))
        assert until(lambda: runtime.snapshot.sequence > before.sequence), "a segmentation begins by itself"
        assert off(runtime.snapshot) < 0.2
        assert set(runtime.snapshot.instances.ids) == set(before.instances.ids)
        sequence = runtime.snapshot.sequence
        runtime.submit_correction(told(frames))
        assert until(lambda: runtime.statistics().counters.get("corrections") == 2)
        runtime.submit_correction(PoseCorrection(np.array([99.0]), np.eye(4)[None]))
        assert until(lambda: runtime.statistics().counters.get("corrections") == 3)
        counters = runtime.statistics().counters
        assert counters["corrections applied"] == counters["corrections: too small to apply"] == 1
        assert counters["corrections: of no known stamp"] == 1
        assert any("none of its stamps" in text for text in events)
        assert runtime.snapshot.sequence == sequence, "what moves nothing costs no segmentation"
    finally:
        runtime.stop()


def test_a_flood_of_corrections_is_applied_once_per_snapshot(box_room, until):
    runtime = LiveRuntime(build(SETTINGS))
    runtime.start()
    try:
        frames = box_room(6)
        for n, frame in enumerate(frames, 1):
            runtime.submit(frame)
            assert until(lambda n=n: runtime.statistics().counters.get("keyframes", 0) == n)
        first = runtime.segment_now().sequence
        for i in range(60):
            T = np.eye(4)
            T[0, 3] = 0.01 * (60 - i)
            runtime.submit_correction(told(moved(frames, T)))
        assert until(lambda: runtime.statistics().counters.get("corrections") == 60)
        last = runtime.segment_now()
        counters = runtime.statistics().counters
        assert counters["corrections applied"] <= last.sequence - first
        assert counters.get("corrections overtaken", 0) + counters["corrections applied"] >= 59
        assert off(last) < 0.25, "the last word is the newest"
    finally:
        runtime.stop()
