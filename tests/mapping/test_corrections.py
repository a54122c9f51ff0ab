# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Points move with the poses that they were made under; what meets in one voxel becomes one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from seg3d_core.config import CorrectionConfig, MapConfig
from seg3d_core.errors import MapFileError
from seg3d_core.lifting.keyframe_poses import KeyframePoses
from seg3d_core.mapping import FixedMap, PointMap
from seg3d_core.mapping.block_index import BlockIndex
from seg3d_core.mapping.corrections import index_merging
from seg3d_core.mapping.corrector import Corrector
from seg3d_core.mapping.fusion import COLUMNS, TWIN, WEIGHT, XYZ
from seg3d_core.mapping.pose_history import POSE_BYTES
from seg3d_core.types import PoseCorrection

VOXEL = 0.05
CONFIG = MapConfig(voxel_size=VOXEL)


def rigid(rotation=(0.0, 0.0, 0.0), translation=(0.0, 0.0, 0.0)) -> np.ndarray:
    out = np.eye(4)
    out[:3, :3] = Rotation.from_rotvec(rotation).as_matrix()
    out[:3, 3] = translation
    return out


def drifting(frames, centimetres=25.0, degrees=5.0):
    """The frames, ever more off."""
    share = np.linspace(0, 1, len(frames))
    moves = [
        rigid((0, 0, np.radians(degrees) * s), (0.008 * centimetres * s, -0.006 * centimetres * s, 0)) for s in share
    ]
    return [replace(f, T_world_camera=m @ f.T_world_camera) for f, m in zip(frames, moves, strict=True)]


def fused(frames, **settings_) -> PointMap:
    point_map = PointMap(CONFIG.model_copy(update=settings_))
    for frame in frames:
        point_map.integrate(frame)
    return point_map


def correction(frames, every: int = 1) -> PoseCorrection:
    chosen = frames[::every]
    return PoseCorrection(np.array([f.stamp for f in chosen]), np.array([f.T_world_camera for f in chosen]))


def corrector(point_map, translation=0.001, rotation=0.0001) -> Corrector:
    return Corrector(point_map, CorrectionConfig(translation=translation, rotation=rotation))


def apply(point_map, new_poses, until=np.inf):
    worker = corrector(point_map)
    offered = worker.offer(new_poses, until)
    applied = worker.apply()
    return offered if applied is None else applied[0]


# --- the map -------------------------------------------------------------------------------


def test_a_shift_by_whole_voxels_gives_the_map_of_the_true_poses(box_room):
    frames = box_room(6)
    shift = rigid(translation=(4 * VOXEL, -2 * VOXEL, 8 * VOXEL))
    true, moved = fused(frames), fused([replace(f, T_world_camera=shift @ f.T_world_camera) for f in frames])
    outcome = apply(moved, correction(frames))
    assert (outcome.state, outcome.moved - outcome.merged) == ("applied", len(moved))
    a, b = true.snapshot()[0], moved.snapshot()[0]
    # A coordinate on a voxel's border may be rounded to either side, so a few points may differ.
    assert abs(len(a) - len(b)) <= 0.01 * len(a)
    distance, nearest = cKDTree(b.xyz).query(a.xyz)
    assert np.median(distance) < 1e-5 and np.percentile(distance, 98) < 1e-3
    close = distance < 1e-4
    assert np.abs(a.normals - b.normals[nearest])[close].max() < 1e-3
    assert np.array_equal(a.weight[close], b.weight[nearest][close])


@pytest.mark.parametrize("every", [1, 2])
def test_a_drift_corrected_is_nearly_the_map_of_the_true_poses(box_room, every):
    frames = box_room(13)
    true, drifted = fused(frames), fused(drifting(frames))
    goal = cKDTree(true.snapshot()[0].xyz)
    before = goal.query(drifted.snapshot()[0].xyz)[0]
    apply(drifted, correction(frames, every))
    after = goal.query(drifted.snapshot()[0].xyz)[0]
    assert before.mean() > 0.5 * VOXEL
    assert after.mean() < 0.4 * VOXEL and np.percentile(after, 95) < VOXEL
    assert 0.75 * len(true) < len(drifted) < 1.35 * len(true)


def test_normals_turn_and_frames_see_the_corrected_map(box_room):
    frames = box_room(8)
    turned = fused([replace(f, T_world_camera=rigid((0, 0, 0.5)) @ f.T_world_camera) for f in frames])
    true = fused(frames)
    apply(turned, correction(frames))
    a, b = true.snapshot()[0], turned.snapshot()[0]
    _, nearest = cKDTree(b.xyz).query(a.xyz)
    agree = np.sum(a.normals * b.normals[nearest], axis=1)
    assert np.median(agree) > 0.999
    assert len(turned.integrate(frames[3])) > 0.9 * len(true.integrate(frames[3]))


def test_the_same_correction_twice_changes_nothing(box_room):
    frames = box_room(9)
    point_map = fused(drifting(frames))
    apply(point_map, correction(frames, 2))
    before = point_map.state()
    again = apply(point_map, correction(frames, 2))
    assert again.state == "small" and again.translation < 1e-6
    after = point_map.state()
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_what_is_too_small_is_left_until_it_adds_up(box_room):
    frames = box_room(4)
    point_map = fused(frames)

    def shifted(metres):
        return correction(
            [replace(f, T_world_camera=rigid(translation=(metres, 0, 0)) @ f.T_world_camera) for f in frames]
        )

    assert apply(point_map, shifted(0.0006)).state == "small"
    assert apply(point_map, shifted(0.0012)).state == "applied"
    assert apply(point_map, shifted(0.0018)).state == "small"
    turn = correction([replace(f, T_world_camera=f.T_world_camera @ rigid((0, 0.0005, 0))) for f in frames])
    assert apply(fused(frames), turn).state == "applied"


def test_small_corrections_again_and_again_do_not_thin_the_map(box_room):
    frames = box_room(6, 160, 120)
    point_map = fused(frames)
    points = len(point_map)
    random = np.random.default_rng(5)
    for _ in range(15):
        world = rigid(random.normal(0, 0.02, 3), random.normal(0, 0.02, 3))
        apply(point_map, correction([replace(f, T_world_camera=world @ f.T_world_camera) for f in frames]))
    apply(point_map, correction(frames))
    assert len(point_map) > 0.9 * points
    assert cKDTree(fused(frames).snapshot()[0].xyz).query(point_map.snapshot()[0].xyz)[0].max() < VOXEL


def test_between_corrected_poses_both_have_a_say_and_beyond_them_the_nearest(box_room):
    frames = box_room(7)
    point_map = fused(frames)
    a, b = rigid((0, 0, 0.1), (0.2, 0, 0)), rigid((0, 0, -0.1), (0, 0.4, 0))
    told = PoseCorrection(
        np.array([frames[2].stamp, frames[4].stamp]),
        np.array([a @ frames[2].T_world_camera, b @ frames[4].T_world_camera]),
    )
    moves = point_map.plan_correction(told, np.inf)
    old = np.array([f.T_world_camera for f in frames])
    new = moves.moved(np.array([f.stamp for f in frames]), old)
    for i, move in ((0, a), (1, a), (2, a), (4, b), (5, b), (6, b)):
        assert np.allclose(new[i], move @ old[i], atol=1e-6)
    assert np.allclose(new[3, :3, 3], ((a @ old[3])[:3, 3] + (b @ old[3])[:3, 3]) / 2, atol=1e-6)
    stays = moves.moved(np.array([np.nan]), old[:1])
    assert np.array_equal(stays, old[:1]), "a stamp that is not known stays"


def test_what_was_posed_later_stays(box_room):
    frames = box_room(10)
    point_map = fused(frames[:5])
    ids = int(point_map.snapshot()[0].ids[-1])
    shift = rigid(translation=(10 * VOXEL, 0, 0))
    worker = corrector(point_map)
    moved = [replace(f, T_world_camera=shift @ f.T_world_camera) for f in frames]
    assert worker.offer(correction(moved[:5]), frames[4].stamp).state == "waiting"
    before, _ = point_map.snapshot()
    # The corrected world's poses come before the correction is applied, hardly different from the last one.
    later = replace(
        frames[4],
        stamp=frames[4].stamp + 0.03,
        T_world_camera=rigid(translation=(0.004, 0, 0)) @ frames[4].T_world_camera,
    )
    point_map.integrate(replace(later, depth=later.depth * 0.5))
    made_later, _ = point_map.snapshot()
    worker.apply()
    after, _ = point_map.snapshot()
    new = made_later.ids[made_later.ids > ids]
    kept = np.intersect1d(new, after.ids)
    assert len(kept) > 50
    assert np.allclose(_at(made_later, kept), _at(after, kept), atol=1e-6)
    old = np.intersect1d(before.ids, after.ids)
    assert np.median(_at(after, old)[:, 0] - _at(before, old)[:, 0]) == pytest.approx(10 * VOXEL, abs=1e-4)


def _at(cloud, ids):
    return cloud.xyz[np.searchsorted(cloud.ids, ids)]


def test_unknown_stamps_and_improper_poses_are_counted_and_left_out(box_room):
    frames = box_room(6)
    point_map = fused(drifting(frames))
    good = correction(frames)
    mirror, scaled, far, not_finite = (good.poses[0].copy() for _ in range(4))
    mirror[:3, 0] *= -1
    scaled[:3, :3] *= 1.2
    far[0, 3] = 1e9
    not_finite[1, 1] = np.nan
    bad = PoseCorrection(
        np.concatenate([good.stamps, good.stamps[:4] + 0.001, [99.0, -3.0, np.inf]]),
        np.concatenate([good.poses, [mirror, scaled, far, not_finite], good.poses[:3]]),
    )
    outcome = apply(point_map, bad)
    assert (outcome.state, outcome.unknown, outcome.improper) == ("applied", 2, 5)
    assert apply(point_map, good).state == "small", "the good ones were taken as they are"


@pytest.mark.parametrize(
    "told", [PoseCorrection(np.empty(0), np.empty((0, 4, 4))), PoseCorrection(np.array([77.0]), np.eye(4)[None])]
)
def test_a_correction_of_nothing_known_does_nothing(box_room, told):
    point_map = fused(box_room(3))
    epoch = point_map.epoch
    assert apply(point_map, told).state == "unknown"
    assert apply(PointMap(CONFIG), told).state == "unknown"
    assert point_map.epoch == epoch


def test_a_given_cloud_stays():
    given_map = FixedMap(CONFIG, np.random.default_rng(0).random((50, 3)))
    assert apply(given_map, PoseCorrection(np.array([0.0]), np.eye(4)[None])).state == "fixed"


def test_only_the_newest_run_of_a_bag_that_starts_over_moves(box_room):
    frames = box_room(5)
    far = rigid(translation=(20.0, 0, 0))
    point_map = fused(frames)
    first, _ = point_map.snapshot()
    for frame in frames:
        point_map.integrate(replace(frame, T_world_camera=far @ frame.T_world_camera))
    shift = rigid(translation=(1.0, 0, 0))
    apply(point_map, correction([replace(f, T_world_camera=shift @ far @ f.T_world_camera) for f in frames]))
    after, _ = point_map.snapshot()
    assert np.array_equal(_at(after, first.ids), first.xyz)
    assert after.xyz[after.ids > first.ids[-1], 0].min() > 19.0


# --- merging -------------------------------------------------------------------------------


def literal_merging(voxels, before, after, points, anchors, voxel, most):
    """Point by point with a dictionary of voxels; `voxels` are those that points had before."""
    points, anchors = points.copy(), anchors.copy()
    at: dict[tuple, int] = {}
    late, merged = [], []
    stay = [row for row in range(len(points)) if (before[row] == after[row]).all()]
    for row in stay + [row for row in range(len(points)) if row not in stay]:
        if points[row, WEIGHT] <= 0:
            continue
        floor = np.floor(after[row].astype(np.float64) / voxel).astype(int)
        key = tuple((voxels[row] if row in stay else floor).tolist())
        if key in at:
            late.append((row, key))
        else:
            at[key] = row
    for row, key in late:
        host = at[key]
        apart = np.linalg.norm((after[row] - before[row]).astype(np.float64) - (after[host] - before[host]))
        place = after[row].astype(np.float64) / voxel
        own, free = np.floor(place), []
        side, reach = np.where(place - own < 0.5, -1, 1), np.minimum(place - own, 1 - (place - own))
        for choice in range(1, 8):
            axes = np.array([choice & 1, choice >> 1 & 1, choice >> 2 & 1])
            beside = tuple((own + axes * side).astype(int).tolist())
            if beside not in at:
                free.append((float((axes * reach**2).sum()), choice, beside))
        if apart < voxel / 2 and free:
            at[min(free)[2]] = row
            continue
        kept, gone = min(row, host), max(row, host)
        at[key] = kept
        a, b = points[kept, WEIGHT], points[gone, WEIGHT]
        points[kept, :9] = (a * points[kept, :9].astype(np.float64) + b * points[gone, :9]) / (a + b)
        if b > a:
            anchors[kept] = anchors[gone]
        points[kept, WEIGHT], points[gone, WEIGHT] = min(a + b, most), 0
        merged.append((gone, kept))
    slot = {row: key for key, row in at.items()}
    for row in range(len(points)):
        if row in stay or points[row, WEIGHT] <= 0:
            continue
        side = np.where(points[row, XYZ].astype(np.float64) / voxel - slot[row] >= 0.5, 1, -1)
        twins = []
        for choice in range(1, 8):
            axes = np.array([choice & 1, choice >> 1 & 1, choice >> 2 & 1])
            other = at.get(tuple((slot[row] + axes * side).tolist()))
            if other is None:
                continue
            apart = np.linalg.norm((after[row] - before[row]).astype(np.float64) - (after[other] - before[other]))
            away = float(np.linalg.norm(points[row, XYZ].astype(np.float64) - points[other, XYZ]))
            if apart >= voxel / 2 and away < TWIN * voxel:
                twins.append((away, choice, other))
        if not twins:
            continue
        kept, gone = min(row, min(twins)[2]), max(row, min(twins)[2])
        a, b = points[kept, WEIGHT], points[gone, WEIGHT]
        key = slot[gone if b > a else kept]
        del at[slot.pop(kept)], at[slot.pop(gone)]
        at[key], slot[kept] = kept, key
        middle = (a * points[kept, :9].astype(np.float64) + b * points[gone, :9]) / (a + b)
        middle[:3] = np.clip(middle[:3], (np.array(key) - 0.5) * voxel, (np.array(key) + 1.5) * voxel)
        points[kept, :9] = middle
        if b > a:
            anchors[kept] = anchors[gone]
        points[kept, WEIGHT], points[gone, WEIGHT] = min(a + b, most), 0
        merged = [(g, kept if k == gone else k) for g, k in merged] + [(gone, kept)]
    return points, anchors, sorted(merged), slot


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), spread=st.sampled_from([0.1, 0.3, 1.0]))
def test_merging_is_the_literal_one(seed, spread):
    random = np.random.default_rng(seed)
    n = 150
    points = np.zeros((n, COLUMNS), np.float32)
    before = random.uniform(-spread, spread, (n, 3)).astype(np.float32)
    voxels = np.floor(before.astype(np.float64) / VOXEL).astype(np.int32)
    _, first = np.unique(voxels, axis=0, return_index=True)
    points[first, WEIGHT] = random.integers(1, 4, len(first))
    points[:, 3:9] = random.random((n, 6))
    anchors = random.integers(0, 4, n).astype(np.int32)
    after = before + np.array([[0, 0, 0], [0, 0, 0], [0.22, 0, 0], [0.22, 0.01, 0]], np.float32)[anchors]
    points[:, XYZ] = after
    old = BlockIndex()
    old.insert(voxels, points[:, WEIGHT] > 0)
    expected, expected_anchors, merged, slots = literal_merging(voxels, before, after, points, anchors, VOXEL, 5.0)
    index, gone, kept = index_merging(old, before, after, points, anchors, VOXEL, 5.0)
    assert list(zip(gone.tolist(), kept.tolist(), strict=True)) == merged
    assert np.allclose(points, expected, atol=1e-4)
    alive = points[:, WEIGHT] > 0
    assert np.array_equal(anchors[alive], expected_anchors[alive])
    found = index.voxels(n)
    assert all(tuple(found[row].tolist()) == key for row, key in slots.items())
    assert set(slots) == set(np.flatnonzero(alive).tolist())
    assert index.blocks.points[: index.count].sum() == alive.sum()
    assert (kept < gone).all() and not set(gone.tolist()) & set(kept.tolist())


def test_the_older_id_stays_and_weights_add_up(box_room):
    frames = box_room(4)
    point_map = fused(frames, fade=0.0)
    weight = point_map.snapshot()[0].weight.sum()
    first_new = int(point_map.snapshot()[0].ids[-1]) + 1
    # Seen again from the same places, half a metre off: a second room.
    again = [
        replace(f, stamp=f.stamp + 10, T_world_camera=rigid(translation=(10 * VOXEL, 0, 0)) @ f.T_world_camera)
        for f in frames
    ]
    for frame in again:
        point_map.integrate(frame)
    both = point_map.snapshot()[0].weight.sum()
    told = correction([*frames, *(replace(f, stamp=f.stamp + 10) for f in frames)])
    worker = corrector(point_map)
    worker.offer(told, np.inf)
    outcome, _, done = worker.apply()
    cloud, _ = point_map.snapshot()
    assert outcome.merged == len(done.gone_ids) > 0.8 * np.count_nonzero(done.gone_ids >= first_new) > 100
    assert (done.kept_ids < done.gone_ids).all()
    assert not np.isin(done.gone_ids, cloud.ids).any() and np.isin(done.kept_ids, cloud.ids).all()
    assert cloud.weight.sum() == pytest.approx(both) and both > 1.5 * weight
    assert np.array_equal(
        done.renamed(np.array([done.gone_ids[0], done.kept_ids[0], 10**9])), [done.kept_ids[0], done.kept_ids[0], 10**9]
    )


# --- what is remembered, and saved -----------------------------------------------------------


def test_a_camera_that_stands_still_adds_no_poses(box_room):
    frame = box_room(2)[0]
    point_map = PointMap(CONFIG)
    for i in range(50):
        point_map.integrate(replace(frame, stamp=0.1 * i))
    assert len(point_map.poses) == 2
    poses, known = point_map.poses.at(np.array([0.0, 2.53, 4.9, 5.2]))
    assert known.tolist() == [True, True, True, False]
    assert np.allclose(poses[:3], frame.T_world_camera)


def test_between_frames_far_apart_nothing_is_known():
    point_map = PointMap(CONFIG)
    for stamp, x in ((0.0, 0.0), (0.2, 0.05), (0.4, 0.5), (1.9, 0.55)):
        point_map.poses.add(stamp, rigid(translation=(x, 0, 0))[:3])
    poses, known = point_map.poses.at(np.array([0.1, 0.2004, 0.3, 0.4, 1.0, 1.9005, 1.95]))
    assert known.tolist() == [True, True, False, True, False, True, False]
    assert poses[known, 0, 3].tolist() == pytest.approx([0.025, 0.05, 0.5, 0.55])


def test_a_full_history_forgets_every_second_old_pose_and_points_follow_the_one_before(box_room):
    frames = box_room(24)
    whole, thinned = PointMap(CONFIG), PointMap(CONFIG)
    thinned.poses.budget_bytes = 12 * POSE_BYTES
    for frame in frames:
        whole.integrate(frame)
        thinned.integrate(frame)
        assert len(thinned.poses) <= 13
    shift = rigid((0, 0, 0.03), (0.3, 0.1, 0))
    told = correction([replace(f, T_world_camera=shift @ f.T_world_camera) for f in frames[-1:]])
    apply(whole, told)
    apply(thinned, told)
    assert np.allclose(whole.snapshot()[0].xyz, thinned.snapshot()[0].xyz, atol=1e-5)


def test_a_saved_map_goes_on_following_and_compaction_keeps_what_points_remember(box_room):
    frames = box_room(9)
    drifted = drifting(frames)
    point_map, other = fused(drifted), PointMap(CONFIG)
    other.restore(point_map.state())
    for each in (point_map, other):
        apply(each, correction(frames))
    assert np.array_equal(point_map.snapshot()[0].xyz, other.snapshot()[0].xyz)
    alive = point_map.state()["points"][:, WEIGHT] > 0
    expected = point_map.state()["anchors"][alive]
    again = PointMap(CONFIG)
    state = point_map.state()
    again.restore({**state, **{n: state[n][alive] for n in ("ids", "points", "voxels", "anchors")}})
    assert np.array_equal(again.state()["anchors"], expected)


def test_points_of_a_file_without_poses_stay_and_are_counted(box_room):
    frames = box_room(6)
    old = {
        n: a
        for n, a in fused(frames[:3]).state().items()
        if n not in ("anchors", "pose_stamps", "poses", "pose_stretch")
    }
    point_map = PointMap(CONFIG)
    point_map.restore(old)
    before, _ = point_map.snapshot()
    assert apply(point_map, correction(frames[:3])).state == "unknown"
    for frame in frames[3:]:
        point_map.integrate(frame)
    shift = rigid(translation=(5.0, 0, 0))
    outcome = apply(point_map, correction([replace(f, T_world_camera=shift @ f.T_world_camera) for f in frames[3:]]))
    assert outcome.state == "applied" and 0 < outcome.unanchored <= len(before)
    after, _ = point_map.snapshot()
    assert after.xyz[np.isin(after.ids, before.ids)][:, 0].max() < 2.5
    assert after.xyz[~np.isin(after.ids, before.ids)][:, 0].min() > 3.0


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("anchors", lambda a: a[:-1]),
        ("anchors", lambda a: a + 10_000),
        ("anchors", lambda a: a - 2),
        ("anchors", lambda a: a.astype(np.int64)),
        ("poses", lambda a: a[1:]),
        ("poses", lambda a: a * np.nan),
        ("pose_stamps", lambda a: a[::-1].copy()),
        ("pose_stamps", lambda a: a + np.inf),
        ("pose_stretch", lambda a: a + 10_000),
        ("pose_stretch", lambda a: a[:1]),
        ("pose_stretch", lambda a: np.array([-1, 0])),
        ("pose_stretch", lambda a: np.array([0, 2])),
    ],
)
def test_a_damaged_state_is_refused(box_room, name, spoil):
    state = fused(box_room(4)).state()
    with pytest.raises(MapFileError):
        PointMap(CONFIG).restore({**state, name: spoil(state[name])})


def test_memory_is_four_bytes_a_point_and_104_a_pose(box_room):
    point_map = fused(box_room(12))
    state = point_map.state()
    assert state["anchors"].nbytes == 4 * point_map.rows
    assert state["pose_stamps"].nbytes + state["poses"].nbytes == 104 * len(point_map.poses)


def test_keyframe_poses_move_unless_stamps_ran_back():
    keyframes = KeyframePoses(10_000)
    keyframes.add(0, np.eye(4), 1.0)
    keyframes.time_ran_back()
    keyframes.add(1, np.eye(4), 0.5)
    point_map = PointMap(CONFIG)
    point_map.poses.add(0.5, np.eye(4)[:3])
    goal = rigid((0, 0.2, 0), (1, 2, 3))
    numbers, deltas = keyframes.correct(
        point_map.plan_correction(PoseCorrection(np.array([0.5]), goal[None]), np.inf).moved
    )
    assert numbers.tolist() == [1] and np.allclose(deltas[0], goal)
    assert np.allclose(keyframes.in_order(), [np.eye(4), goal])
    other = KeyframePoses(10_000)
    other.restore(keyframes.state())
    assert all(
        np.array_equal(a, b, equal_nan=True)
        for a, b in zip(other.state().values(), keyframes.state().values(), strict=True)
    )
    with pytest.raises(MapFileError, match="stamps"):
        other.restore({**keyframes.state(), "stamps": np.zeros(7)})
