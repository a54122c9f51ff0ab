# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Frames, surface points, noise and export of generated rooms."""

from __future__ import annotations

import importlib.util
import json
from functools import cache
from itertools import pairwise

import cv2
import numpy as np
import pytest
from scipy.spatial import cKDTree

from seg3d_core.errors import SourceError
from seg3d_core.geometry import back_project, invert, project, rotation_angle, rotation_error, transform
from seg3d_core.sources.base import Source
from seg3d_core.sources.synthetic import SyntheticSource, export_scannet, raycast
from seg3d_core.sources.synthetic.noise import drifting_poses, kinect_depth
from seg3d_core.types import Camera

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("embreex") is None and importlib.util.find_spec("open3d") is None,
    reason="needs a ray caster: pip install 'seg3d[synthetic]'",
)


@cache
def small(seed: int = 0, frames: int = 24, noisy: bool = False, motion: str = "keyframe") -> SyntheticSource:
    return SyntheticSource(seed, frames=frames, width=160, height=120, noisy=noisy, motion=motion)


@cache
def frames_of(seed: int = 0, frames: int = 24, noisy: bool = False, motion: str = "keyframe"):
    return list(small(seed, frames, noisy, motion))


def same(a, b) -> bool:
    return all(
        np.array_equal(getattr(a, k), getattr(b, k)) for k in ("rgb", "depth", "instance", "T_world_camera")
    ) and (a.index, a.stamp, a.name) == (b.index, b.stamp, b.name)


def test_it_is_a_source_and_frames_keep_their_promises():
    source = small()
    assert isinstance(source, Source)
    assert (source.kind, len(source), source.drops) == ("synthetic", 24, {})
    for index, frame in enumerate(frames_of()):
        assert frame.index == index
        assert frame.stamp == pytest.approx(index / 5)
        assert (frame.rgb.shape, frame.rgb.dtype) == ((120, 160, 3), np.uint8)
        assert (frame.depth.shape, frame.depth.dtype) == ((120, 160), np.float32)
        assert (frame.instance.shape, frame.instance.dtype) == ((120, 160), np.int32)
        assert np.isfinite(frame.depth).all()
        assert (frame.depth > 0).mean() > 0.999
        assert rotation_error(frame.T_world_camera) < 1e-9


def test_default_intrinsics_and_a_camera_of_ones_own():
    default = SyntheticSource().camera
    assert (default.size, default.fx, default.fy, default.cx, default.cy) == ((320, 240), 277, 277, 159.5, 119.5)
    own = Camera(64, 48, 70.0, 71.0, 30.0, 25.0)
    frame = SyntheticSource(1, frames=1, camera=own)[0]
    assert frame.camera == own
    assert frame.rgb.shape == (48, 64, 3)


@pytest.mark.parametrize("noisy", [False, True])
def test_same_seed_same_bytes_in_any_order(noisy):
    fresh = SyntheticSource(0, frames=24, width=160, height=120, noisy=noisy)
    for index in (17, 3):
        assert same(fresh[index], frames_of(noisy=noisy)[index])


def test_seeds_differ():
    assert not np.array_equal(frames_of(0)[0].depth, SyntheticSource(1, frames=24, width=160, height=120)[0].depth)


@pytest.mark.parametrize("seed", [0, 3, 7])
@pytest.mark.parametrize("motion", ["keyframe", "video"])
def test_camera_keeps_its_distance_and_moves_without_jumps(seed, motion):
    source = SyntheticSource(seed, frames=40, width=32, height=24, motion=motion)
    eyes = source.poses[:, :3, 3]
    assert (eyes[:, 2] >= 1.2).all()
    assert (eyes[:, 2] <= 1.6).all()
    rng = np.random.default_rng(0)
    rays = rng.normal(size=(2000, 3))
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    between = np.concatenate([eyes, (eyes[1:] + eyes[:-1]) / 2])
    for eye in between:
        distance = source.scene.rays.nearest(np.tile(eye, (len(rays), 1)), rays).distance
        assert np.isfinite(distance).all()
        assert distance.min() >= 0.25
    step = np.linalg.norm(np.diff(eyes, axis=0), axis=1)
    turn = [rotation_angle(a, b) for a, b in pairwise(source.poses)]
    most_step, most_turn = (0.36, 36) if motion == "keyframe" else (0.08, 8)
    assert step.max() < most_step
    assert np.rad2deg(max(turn)) < most_turn


def test_camera_stands_in_no_thing():
    # Leaving a closed thing, a ray meets its surface from inside: straight up must lead to the ceiling or to
    # what hangs there, straight down to the floor or a carpet.
    for seed in (0, 7):
        source = SyntheticSource(seed, frames=40, width=32, height=24)
        eyes = source.poses[:, :3, 3]
        down = source.scene.rays.nearest(eyes, np.tile([[0.0, 0.0, -1.0]], (len(eyes), 1)))
        assert np.abs(down.distance - eyes[:, 2]).max() < 0.01


def test_most_things_are_seen():
    seen = set(np.unique(np.concatenate([f.instance.ravel() for f in frames_of()])).tolist()) - {0}
    assert seen <= set(small().instances)
    large = {p.id for p in small().room.pieces if p.footprint is not None and p.footprint.half_x > 0.15}
    assert len(seen & large) >= 0.8 * len(large)


def test_depth_agrees_with_poses():
    agree = total = 0
    frames = frames_of()
    kernel = np.ones((3, 3), np.uint8)
    for a, b in pairwise(frames):
        world = transform(a.T_world_camera, back_project(a.depth, a.camera).reshape(-1, 3))
        pixels, z = project(transform(invert(b.T_world_camera), world), b.camera)
        u, v = np.round(pixels).astype(int).T
        inside = (z > 0.1) & (u >= 1) & (u < 159) & (v >= 1) & (v < 119)
        low = cv2.erode(b.depth, kernel)[v[inside], u[inside]]
        high = cv2.dilate(b.depth, kernel)[v[inside], u[inside]]
        visible = high > z[inside] - 0.03
        agree += ((low < z[inside] + 0.01) & (high > z[inside] - 0.01) & visible).sum()
        total += visible.sum()
    assert total > 100_000
    assert agree / total > 0.985


def test_surface_points_lie_on_what_frames_show():
    source = small()
    xyz, rgb, normals, instance = source.surface_points(20_000, seed=1)
    assert [a.dtype for a in (xyz, rgb, normals, instance)] == [np.float32, np.uint8, np.float32, np.int32]
    assert xyz.shape == rgb.shape == normals.shape == (20_000, 3)
    assert np.allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-4)
    seen = np.zeros(len(xyz), bool)
    matches = looked = 0
    kernel = np.ones((3, 3), np.uint8)
    for frame in frames_of():
        pixels, z = project(transform(invert(frame.T_world_camera), xyz.astype(float)), frame.camera)
        u, v = np.round(pixels).astype(int).T
        rows = np.flatnonzero((z > 0.1) & (u >= 0) & (u < 160) & (v >= 0) & (v < 120))
        low, high = (f(frame.depth, kernel)[v[rows], u[rows]] for f in (cv2.erode, cv2.dilate))
        seen[rows[(low - 0.01 < z[rows]) & (z[rows] < high + 0.01)]] = True
        close = rows[np.abs(frame.depth[v[rows], u[rows]] - z[rows]) < 0.01]
        matches += (frame.instance[v[close], u[close]] == instance[close]).sum()
        looked += len(close)
    assert seen.mean() > 0.95
    assert matches / looked > 0.98
    again = source.surface_points(20_000, seed=1)
    assert all(np.array_equal(a, b) for a, b in zip(again, (xyz, rgb, normals, instance), strict=True))
    assert not np.array_equal(source.surface_points(100, seed=2)[0], xyz[:100])


def test_surface_points_are_even_and_their_colours_are_those_of_the_frames():
    xyz, rgb, _, _ = small().surface_points(20_000)
    frame = frames_of()[5]
    world = transform(frame.T_world_camera, back_project(frame.depth, frame.camera).reshape(-1, 3))[::7]
    distance, row = cKDTree(xyz).query(world)
    # One point per about 40 square centimetres: pixels are never far from one.
    assert np.quantile(distance, 0.95) < 0.15
    near = distance < 0.01
    difference = np.abs(rgb[row[near]].astype(int) - frame.rgb.reshape(-1, 3)[::7][near])
    assert np.median(difference) < 12


def test_instances_tell_label_and_class():
    facts = small().instances
    assert all(set(f) == {"label", "class_id", "is_structure", "is_carpet"} for f in facts.values())
    assert {f["label"] for f in facts.values() if f["is_structure"]} <= {"door", "window"}
    assert all(f["is_carpet"] == (f["label"] == "rug") for f in facts.values())


def test_noise_is_that_of_a_structured_light_camera():
    rng = np.random.default_rng(0)
    depth = np.full((240, 320), 2.0, np.float32)
    depth[:, 160:] = 3.5
    noisy = kinect_depth(depth, np.ones_like(depth), rng)
    flat = noisy[:, :150][noisy[:, :150] > 0]
    assert 0.001 < np.abs(flat - 2.0).mean() < 0.03
    assert abs(np.median(flat) - 2.0) < 0.02
    steps = np.unique(580 * 0.075 / noisy[noisy > 0].astype(float)) * 8
    assert np.allclose(steps, np.round(steps), atol=1e-3)
    far = noisy[:, 170:][noisy[:, 170:] > 0]
    assert far.std() > 1.8 * flat.std()
    assert (noisy[:, 158:162] == 0).mean() > 0.2
    assert (noisy[:, :150] == 0).mean() < 0.01
    grazing = kinect_depth(depth, np.full_like(depth, 0.05), rng)
    assert (grazing == 0).mean() > 0.6
    assert not kinect_depth(np.full((8, 8), 0.2, np.float32), np.ones((8, 8), np.float32), rng).any()
    assert not kinect_depth(np.full((8, 8), 7.0, np.float32), np.ones((8, 8), np.float32), rng).any()


def test_noisy_frames_are_worse_but_near():
    for clean, noisy in zip(frames_of()[::6], frames_of(noisy=True)[::6], strict=True):
        both = (clean.depth > 0.4) & (noisy.depth > 0)
        error = np.abs(clean.depth - noisy.depth)[both]
        assert 0.001 < np.median(error) < 0.03
        assert 0.7 < both.mean() < 1
        assert np.array_equal(clean.instance, noisy.instance)
        assert np.array_equal(clean.rgb, noisy.rgb)


def test_poses_drift_within_bounds():
    poses = np.tile(np.eye(4), (400, 1, 1))
    drifted = drifting_poses(poses, np.random.default_rng(1))
    shift = np.linalg.norm(drifted[:, :3, 3], axis=1)
    turn = np.rad2deg([rotation_angle(a, b) for a, b in zip(poses, drifted, strict=True)])
    assert shift[0] == 0
    assert 0.008 < np.median(shift) < shift.max() <= 0.0351
    assert 0.2 < np.median(turn) < turn.max() <= 1.31
    assert np.linalg.norm(np.diff(drifted[:, :3, 3], axis=0), axis=1).max() < 0.025


def test_export_reads_back(tmp_path):
    source = small(2, 4)
    folder = export_scannet(source, tmp_path / "room", points=3000)
    frames = frames_of(2, 4)
    for frame in frames:
        depth = cv2.imread(str(folder / "depth" / f"{frame.index}.png"), cv2.IMREAD_UNCHANGED)
        assert depth.dtype == np.uint16
        assert np.abs(depth / 1000 - frame.depth).max() <= 0.000501
        ids = cv2.imread(str(folder / "instance" / f"{frame.index}.png"), cv2.IMREAD_UNCHANGED)
        assert ids.dtype == np.uint16
        assert np.array_equal(ids, frame.instance)
        colour = cv2.imread(str(folder / "color" / f"{frame.index}.jpg"))[..., ::-1]
        assert np.abs(colour.astype(int) - frame.rgb).mean() < 8
        assert np.allclose(np.loadtxt(folder / "pose" / f"{frame.index}.txt"), frame.T_world_camera, atol=1e-8)
    matrix = np.loadtxt(folder / "intrinsic" / "intrinsic_depth.txt")
    assert np.allclose(matrix[:3, :3], source.camera.matrix)
    assert np.allclose(matrix, np.loadtxt(folder / "intrinsic" / "intrinsic_color.txt"))
    with np.load(folder / "points.npz", allow_pickle=False) as points:
        assert points["xyz"].shape == (3000, 3)
        assert points["normal"].dtype == np.int8
        ids = set(points["instance"].tolist()) - {0}
    table = json.loads((folder / "instances.json").read_text())["instances"]
    assert {str(i) for i in ids} <= set(table)
    assert sum(row["points"] for row in table.values()) == sum(i != 0 for i in _instances(folder))
    with pytest.raises(SourceError, match="not empty"):
        export_scannet(source, folder)


def _instances(folder):
    with np.load(folder / "points.npz", allow_pickle=False) as points:
        return points["instance"].tolist()


def test_export_to_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(SourceError, match="cannot write"):
        export_scannet(small(2, 4), tmp_path / "file" / "room")


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"seed": -1}, "seed"),
        ({"frames": 0}, "frame"),
        ({"width": 2}, "pixels"),
        ({"rate": 0.0}, "rate"),
        ({"rate": float("nan")}, "rate"),
        ({"rate": float("inf")}, "rate"),
        ({"motion": "teleport"}, "motion"),
        ({"camera": Camera(32, 24, 30.0, 30.0, 15.5, 11.5, (0.1, 0, 0, 0, 0))}, "distortion"),
    ],
)
def test_bad_arguments_are_told(arguments, word):
    with pytest.raises(SourceError, match=word):
        SyntheticSource(**arguments)


def test_without_a_ray_caster_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SourceError, match=r"pip install 'seg3d\[synthetic\]'"):
        SyntheticSource(0)


def test_both_ray_casters_agree():
    for library in ("embreex", "open3d"):
        if importlib.util.find_spec(library) is None:
            pytest.skip(f"needs {library}")
    triangles = small().scene.triangles
    try:
        one, two = raycast._embree(triangles), raycast._open3d(triangles)
    except SourceError as error:
        pytest.skip(str(error))
    rng = np.random.default_rng(0)
    rays = rng.normal(size=(3000, 3))
    origins = np.tile(small().poses[0, :3, 3], (3000, 1))
    a, b = one.nearest(origins, rays), two.nearest(origins, rays)
    assert np.allclose(a.distance, b.distance, rtol=1e-4)
    same_triangle = a.triangle == b.triangle
    assert same_triangle.mean() > 0.99
    assert np.allclose(a.weights[same_triangle], b.weights[same_triangle], atol=2e-3)
    assert (one.is_free(origins, rays) == two.is_free(origins, rays)).mean() > 0.999
