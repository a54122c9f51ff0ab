# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""What PointMap promises about ids, depth, compaction and states. Its twin: test_point_map_twin.py."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seg3d_core.config import MapConfig
from seg3d_core.errors import FrameError, MapFileError
from seg3d_core.mapping import PointMap
from seg3d_core.mapping import point_map as point_map_module
from seg3d_core.types import Camera, Frame

CAMERA = Camera(24, 18, 20.0, 21.0, 11.3, 8.9)
# Large voxels and a narrow margin, so that small frames meet the same voxels often.
CONFIG = MapConfig(voxel_size=0.05, depth_min=0.2, depth_max=3.0)


def wall_frame(depth: float | np.ndarray, index: int = 0, T: np.ndarray | None = None) -> Frame:
    image = np.zeros((CAMERA.height, CAMERA.width), np.float32) + np.asarray(depth, np.float32)
    rgb = np.full((*image.shape, 3), 100, np.uint8)
    return Frame(index, float(index), rgb, image, CAMERA, np.eye(4) if T is None else T)


def test_normals_face_the_camera_and_edges_do_not_bend_them() -> None:
    depth = np.full((CAMERA.height, CAMERA.width), 2.0)
    depth[5:12, 6:15] = 1.0
    fused = PointMap(MapConfig(voxel_size=0.02))
    fused.integrate(wall_frame(depth))
    cloud, _ = fused.snapshot()
    np.testing.assert_allclose(cloud.normals, np.tile([0.0, 0.0, -1.0], (len(cloud), 1)), atol=1e-4)


def test_a_wall_on_the_border_of_voxels_is_one_layer(random_pose: Callable[..., np.ndarray]) -> None:
    rng = np.random.default_rng(0)
    counts = {}
    for depth in (2.0, 2.01):
        fused = PointMap(MapConfig(voxel_size=0.02))
        for index in range(10):
            noisy = depth + rng.normal(0, 0.003, (CAMERA.height, CAMERA.width))
            fused.integrate(wall_frame(noisy, index, random_pose(index, 0.002)))
        counts[depth] = len(fused.snapshot()[0])
        if depth == 2.0:
            cloud, _ = fused.snapshot()
            assert abs(cloud.xyz[:, 2].mean() - depth) < 0.002
    assert counts[2.0] < 1.1 * counts[2.01]


def test_negative_coordinates_have_voxels_of_their_own() -> None:
    T = np.eye(4)
    T[:3, 3] = (-37.013, -0.5, -2.0)
    fused = PointMap(CONFIG)
    fused.integrate(wall_frame(1.73, T=T))
    cloud, _ = fused.snapshot()
    voxels = np.floor(cloud.xyz.astype(float) / CONFIG.voxel_size)
    assert (cloud.xyz < 0).any()
    assert len(np.unique(voxels, axis=0)) == len(cloud)


@settings(max_examples=40, deadline=None)
@given(
    bad=st.lists(
        st.tuples(
            st.integers(0, CAMERA.height - 1),
            st.integers(0, CAMERA.width - 1),
            st.one_of(
                st.sampled_from([0.0, -0.0, np.nan, np.inf, -np.inf]),
                st.floats(-1e30, 0.19),
                st.floats(3.01, 1e30),
            ),
        ),
        max_size=60,
    ),
    near=st.sampled_from([0.0, 0.2]),
)
def test_only_valid_depth_enters(bad: list, near: float) -> None:
    """Whatever stands for "none" in a pixel, the map is that of the image with 0 there."""
    config = CONFIG.model_copy(update={"depth_min": near})
    with_bad, with_zero = wall_frame(1.5), wall_frame(1.5)
    for v, u, value in bad:
        if near == 0 and 0 < value < 1:
            continue
        with_bad.depth[v, u] = np.float32(value)
        with_zero.depth[v, u] = 0
    maps = PointMap(config), PointMap(config)
    seen = [m.integrate(f) for m, f in zip(maps, (with_bad, with_zero), strict=True)]
    a, b = (m.snapshot()[0] for m in maps)
    assert np.isfinite(a.xyz).all()
    for name in ("ids", "xyz", "rgb", "normals", "weight"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    np.testing.assert_array_equal(seen[0].ids, seen[1].ids)


@pytest.mark.parametrize("limit", [1.0, 3.0])
def test_the_nearest_and_the_farthest_depth_are_valid_themselves(limit: float) -> None:
    point_map = PointMap(CONFIG.model_copy(update={"depth_min": 1.0, "depth_max": 3.0}))
    beyond = np.nextafter(np.float32(limit), np.float32(10 * (limit - 2)))
    at, out = wall_frame(2.0), wall_frame(2.0)
    at.depth[:], out.depth[:] = limit, beyond
    assert len(point_map.integrate(out)) == len(point_map) == 0
    assert len(point_map.integrate(at)) == len(point_map) > 0


@settings(max_examples=15, deadline=None)
@given(seeds=st.lists(st.integers(0, 30), min_size=1, max_size=12), reset_after=st.integers(0, 12))
def test_ids_ascend_and_are_never_used_again(
    random_frame: Callable[..., Frame], seeds: list[int], reset_after: int
) -> None:
    fused = PointMap(CONFIG)
    gone: set[int] = set()
    highest = 0
    for k, seed in enumerate(seeds):
        visible = fused.integrate(random_frame(seed))
        ids = fused.snapshot()[0].ids
        assert (np.diff(ids) > 0).all()
        assert not gone & set(ids.tolist())
        assert len(ids) == len(fused)
        fresh = ids[ids > highest]
        assert len(fresh) == 0 or fresh[0] > highest
        highest = max(highest, int(ids[-1]) if len(ids) else 0)
        gone |= set(fused.removed_ids.tolist())
        still = ~np.isin(visible.ids, fused.removed_ids)
        assert ((fused.rows_of(visible) >= 0) == still).all()
        if k == reset_after:
            gone |= set(ids.tolist())
            fused.reset()
            assert len(fused) == 0
            assert (fused.rows_of(visible) == -1).all()
            assert len(fused.snapshot()[0]) == 0


def test_a_moved_box_leaves_its_old_place_and_nothing_else() -> None:
    with_box = np.full((CAMERA.height, CAMERA.width), 2.5)
    with_box[4:14, 5:18] = 1.2
    fused = PointMap(CONFIG)
    for index in range(3):
        fused.integrate(wall_frame(with_box, index))
    before = fused.snapshot()[0]
    box, wall = before.ids[before.xyz[:, 2] < 1.3], before.ids[before.xyz[:, 2] > 2.4]
    removed: list[int] = []
    for index in range(3):
        assert len(removed) == 0
        fused.integrate(wall_frame(2.5, 3 + index))
        removed += fused.removed_ids.tolist()
    after = fused.snapshot()[0]
    # The rim of the box projects onto pixels around which the wall is seen as well, so all of it goes.
    assert set(removed) == set(box.tolist())
    assert set(wall.tolist()) <= set(after.ids.tolist())
    fused.integrate(wall_frame(with_box, 6))
    reborn = fused.snapshot()[0]
    assert reborn.ids[reborn.xyz[:, 2] < 1.3].min() > after.ids.max()


def test_points_behind_what_is_seen_stay() -> None:
    fused = PointMap(CONFIG)
    fused.integrate(wall_frame(2.5))
    far = fused.snapshot()[0]
    for index in range(5):
        visible = fused.integrate(wall_frame(1.0, 1 + index))
        assert len(fused.removed_ids) == 0
        assert not set(visible.ids.tolist()) & set(far.ids.tolist())
    assert set(far.ids.tolist()) <= set(fused.snapshot()[0].ids.tolist())


def faded_map(monkeypatch: pytest.MonkeyPatch) -> tuple[PointMap, list]:
    monkeypatch.setattr(point_map_module, "COMPACT_ROWS", 20)
    fused = PointMap(CONFIG)
    seen = [fused.integrate(wall_frame(1.0)), fused.integrate(wall_frame(2.5))]
    assert fused.rows - len(fused) > 0.25 * fused.rows
    return fused, seen


def test_compaction_keeps_ids_and_lookups(monkeypatch: pytest.MonkeyPatch) -> None:
    fused, seen = faded_map(monkeypatch)
    before, old_rows = fused.snapshot()
    epoch = fused.epoch
    new_rows = fused.compact()
    assert new_rows is not None
    assert fused.epoch == epoch + 1
    after, rows = fused.snapshot()
    np.testing.assert_array_equal(after.ids, before.ids)
    np.testing.assert_array_equal(after.xyz, before.xyz)
    np.testing.assert_array_equal(new_rows[old_rows], rows)
    assert (np.delete(new_rows, old_rows) == -1).all()
    assert fused.rows == len(fused) == len(after)
    assert fused.compact() is None
    for visible in seen:
        found = fused.rows_of(visible)
        position = np.searchsorted(after.ids, visible.ids)
        known = np.isin(visible.ids, after.ids)
        np.testing.assert_array_equal(found[~known], -1)
        np.testing.assert_array_equal(found[known], rows[position[known]])
    # The same frame again finds the same points: no voxel was forgotten.
    again = fused.integrate(wall_frame(2.5))
    np.testing.assert_array_equal(again.ids, seen[1].ids)


def test_nothing_is_compacted_for_a_few_dead_rows() -> None:
    fused = PointMap(CONFIG)
    fused.integrate(wall_frame(1.0))
    fused.integrate(wall_frame(2.5))
    assert fused.rows > len(fused)
    assert fused.compact() is None


def test_a_full_map_says_so_once_and_takes_no_more_memory(
    caplog: pytest.LogCaptureFixture, random_pose: Callable[..., np.ndarray]
) -> None:
    config = MapConfig(voxel_size=0.004, max_points=1000, fade=0.0)
    fused = PointMap(config)
    fused.integrate(wall_frame(1.0))
    assert not fused.saturated
    for index in range(4):
        visible = fused.integrate(wall_frame(1.5 + 0.4 * index, index, random_pose(index)))
    assert fused.saturated
    assert fused.dropped_pixels > 0 and fused.evicted > 0
    assert len(fused) <= 1000
    assert caplog.text.count("max_points") == 1
    assert len(visible.ids) <= 1000
    for index in range(30):
        fused.compact()
        fused.integrate(wall_frame(2.0, 5 + index, random_pose(50 + index, spread=5.0)))
        assert len(fused) <= 1000
    assert fused.rows <= 1000 + point_map_module.COMPACT_ROWS
    fused.reset()
    assert not fused.saturated


def test_restore_continues_identically(random_frame: Callable[..., Frame]) -> None:
    whole, first = PointMap(CONFIG), PointMap(CONFIG)
    for index in range(5):
        whole.integrate(random_frame(index))
        first.integrate(random_frame(index))
    second = PointMap(CONFIG)
    second.restore(first.state())
    for index in range(5, 10):
        frame = random_frame(index)
        a, b = whole.integrate(frame), second.integrate(frame)
        for name in ("ids", "rows", "pixels", "depths"):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
        np.testing.assert_array_equal(whole.removed_ids, second.removed_ids)
    assert whole.state().keys() == second.state().keys()
    for name, value in whole.state().items():
        np.testing.assert_array_equal(value, second.state()[name])


def test_restore_of_an_empty_map_goes_on_counting() -> None:
    fused = PointMap(CONFIG)
    fused.integrate(wall_frame(1.0))
    highest = fused.snapshot()[0].ids.max()
    fused.reset()
    other = PointMap(CONFIG)
    other.restore(fused.state())
    assert len(other) == 0
    other.integrate(wall_frame(1.0))
    assert other.snapshot()[0].ids.min() == highest + 1


def _spoiled(state: dict, name: str, how: str) -> dict:
    state = {key: value.copy() for key, value in state.items()}
    if how == "missing":
        del state[name]
    elif how == "short":
        state[name] = state[name][:-1]
    elif how == "dtype":
        state[name] = state[name].astype(np.float16)
    elif how == "nan":
        state[name][3] = np.nan
    elif how == "swapped":
        state[name][[0, 1]] = state[name][[1, 0]]
    elif how == "same":
        state[name][1] = state[name][0]
    elif how == "far":
        state[name][0] += 2**28
    elif how == "zero":
        state[name][...] = 0
    return state


@pytest.mark.parametrize(
    ("name", "how"),
    [(name, "missing") for name in ("ids", "points", "voxels", "counters", "voxel_size")]
    + [(name, "short") for name in ("ids", "points", "voxels", "counters")]
    + [(name, "dtype") for name in ("ids", "points", "voxels", "counters", "voxel_size")]
    + [("points", "nan"), ("ids", "swapped"), ("ids", "same"), ("voxels", "same"), ("voxels", "far")]
    + [("voxels", "swapped"), ("counters", "zero"), ("voxel_size", "zero"), ("ids", "zero")],
)
def test_a_damaged_state_is_refused_and_changes_nothing(name: str, how: str) -> None:
    source = PointMap(CONFIG)
    source.integrate(wall_frame(1.0))
    fused = PointMap(CONFIG)
    fused.integrate(wall_frame(2.0))
    before = fused.state()
    with pytest.raises(MapFileError) as caught:
        fused.restore(_spoiled(source.state(), name, how))
    assert caught.value.code == "damaged"
    for key, value in fused.state().items():
        np.testing.assert_array_equal(value, before[key])


def test_frames_that_cannot_be_used_are_refused_with_a_reason() -> None:
    fused = PointMap(CONFIG)
    good = wall_frame(1.0)
    reflected, far = np.diag([1.0, 1.0, -1.0, 1.0]), np.eye(4)
    far[0, 3] = 1e9
    bad = {
        "size": [replace(good, depth=good.depth[:5]), replace(good, rgb=good.rgb[..., :2])],
        "pose": [replace(good, T_world_camera=T) for T in (np.full((4, 4), np.nan), far, far.T, np.eye(3))],
        "rotation": [replace(good, T_world_camera=reflected)],
        "camera": [replace(good, camera=replace(CAMERA, fx=0.0)), replace(good, camera=replace(CAMERA, cx=np.nan))],
    }
    for reason, frames in bad.items():
        for frame in frames:
            with pytest.raises(FrameError) as caught:
                fused.integrate(frame)
            assert caught.value.reason == reason
    assert len(fused) == 0


def test_images_of_any_layout_and_size_may_follow_each_other() -> None:
    fused = PointMap(CONFIG)
    one = fused.integrate(wall_frame(1.5))
    small = CAMERA.scaled(12, 9)
    depth = np.asfortranarray(np.full((9, 12), 1.5, np.float64))
    rgb = np.zeros((9, 24, 3), np.uint8)[:, ::2]
    two = fused.integrate(Frame(1, 1.0, rgb, depth, small, np.eye(4)))
    plain = wall_frame(1.5)
    plain.depth.flags.writeable = plain.rgb.flags.writeable = False
    three = fused.integrate(plain)
    assert len(two) > 0
    assert len(three) >= len(one)


def test_an_image_without_depth_sees_nothing() -> None:
    fused = PointMap(CONFIG)
    fused.integrate(wall_frame(1.5))
    before = len(fused)
    visible = fused.integrate(wall_frame(0.0))
    assert len(visible) == 0
    assert visible.ids.dtype == np.int64
    assert visible.pixels.shape == (0, 2)
    assert len(fused) == before


def test_a_growing_map_agrees_with_one_that_had_room() -> None:
    """Arrays that grow within a frame lose nothing."""
    camera = Camera(200, 150, 150.0, 150.0, 99.5, 74.5)
    depth = np.random.default_rng(1).uniform(0.5, 5.0, (150, 200)).astype(np.float32)
    frame = Frame(0, 0.0, np.zeros((150, 200, 3), np.uint8), depth, camera, np.eye(4))
    growing, roomy = (PointMap(MapConfig(voxel_size=0.01)) for _ in range(2))
    roomy._reserve_rows(100_000)
    roomy._index.reserve_blocks(100_000)
    for fused in (growing, roomy):
        fused.integrate(frame)
    assert len(growing) > 0.99 * depth.size
    for name, array in growing.state().items():
        np.testing.assert_array_equal(array, roomy.state()[name], err_msg=name)


def test_a_still_scene_keeps_its_points(shared_data) -> None:
    import cv2

    scene = shared_data / "house" / "house1"
    camera = Camera.from_matrix(np.loadtxt(scene / "intrinsic/intrinsic_depth.txt"), 320, 240)
    fused = PointMap(MapConfig())
    removed = 0
    for index in range(0, 40):
        depth = cv2.imread(str(scene / f"depth/{index}.png"), cv2.IMREAD_UNCHANGED).astype(np.float32) / 1000
        rgb = cv2.cvtColor(cv2.imread(str(scene / f"color/{index}.jpg")), cv2.COLOR_BGR2RGB)
        frame = Frame(index, float(index), rgb, depth, camera, np.loadtxt(scene / f"pose/{index}.txt"))
        visible = fused.integrate(frame)
        removed += len(fused.removed_ids)
        assert len(visible) > 0
    assert len(fused) > 50_000
    assert removed < 1e-4 * len(fused)
