# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Pictures, recordings and point files: what they show, and that ids keep their colours."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seg3d_core.errors import Seg3DError
from seg3d_core.types import Array, Camera, Cloud, Frame, IdentityChange, Instances, Masks2D, Snapshot
from seg3d_core.viz import NoRecording, Recording, draw_masks, export_ply, id_colours, render_instances
from seg3d_core.viz.picture import _blurred
from seg3d_core.viz.splat import splat
from seg3d_core.viz.view import choose_view, estimate_up

# A world that is not z-up: rows are the room's east, north and up in world axes (a Kinect's y-down, tilted).
TILTED = np.array([[1.0, 0.0, 0.0], [0.0, -0.42, 0.9075], [0.0, -0.9075, -0.42]])


def plane(corner: list[float], a: list[float], b: list[float], normal: list[float], step: float = 0.05):
    u, v = np.linalg.norm(a), np.linalg.norm(b)
    s, t = np.meshgrid(np.arange(0, 1, step / u), np.arange(0, 1, step / v), indexing="ij")
    xyz = np.array(corner) + s.reshape(-1, 1) * np.array(a) + t.reshape(-1, 1) * np.array(b)
    return xyz, np.tile(normal, (len(xyz), 1))


def room(axes: Array | None = None) -> Snapshot:
    """A room of 4 x 3 x 2.5 m: four walls and a ceiling that face inwards, and two boxes, ids 3 and 8."""
    shell = [
        plane([0, 0, 0], [4, 0, 0], [0, 3, 0], [0, 0, 1]),
        plane([0, 0, 2.5], [4, 0, 0], [0, 3, 0], [0, 0, -1]),
        plane([0, 0, 0], [4, 0, 0], [0, 0, 2.5], [0, 1, 0]),
        plane([0, 3, 0], [4, 0, 0], [0, 0, 2.5], [0, -1, 0]),
        plane([0, 0, 0], [0, 3, 0], [0, 0, 2.5], [1, 0, 0]),
        plane([4, 0, 0], [0, 3, 0], [0, 0, 2.5], [-1, 0, 0]),
    ]
    parts, labels = list(shell), [np.zeros(len(x), int) for x, _ in shell]
    for number, (x, y) in ((3, (0.6, 0.6)), (8, (2.4, 1.5))):
        for corner, a, b, normal in (
            ([x, y, 0.7], [1, 0, 0], [0, 0.8, 0], [0, 0, 1]),
            ([x, y, 0], [1, 0, 0], [0, 0, 0.7], [0, -1, 0]),
            ([x, y + 0.8, 0], [1, 0, 0], [0, 0, 0.7], [0, 1, 0]),
            ([x, y, 0], [0, 0.8, 0], [0, 0, 0.7], [-1, 0, 0]),
            ([x + 1, y, 0], [0, 0.8, 0], [0, 0, 0.7], [1, 0, 0]),
        ):
            parts.append(plane(corner, a, b, normal))
            labels.append(np.full(len(parts[-1][0]), number))
    axes = np.eye(3) if axes is None else axes
    xyz, normals = (np.concatenate([part[i] for part in parts]) @ axes for i in (0, 1))
    label = np.concatenate(labels).astype(np.int32)
    ids = np.arange(1, len(xyz) + 1)
    rgb = np.full((len(xyz), 3), 150, np.uint8)
    cloud = Cloud(ids, xyz.astype(np.float32), rgb, normals.astype(np.float32), np.ones(len(xyz), np.float32))
    instances = Instances.from_labels(np.searchsorted([0, 3, 8], label), ids, np.ones(2), np.array([3, 8], np.int32))
    boxes = [xyz[label == i] for i in (3, 8)]
    centres = np.array([(b.min(0) + b.max(0)) / 2 for b in boxes], np.float32)
    extents = np.array([np.ptp(b, axis=0) for b in boxes], np.float32)
    return Snapshot(1, 2.0, cloud, instances, label, centres, extents, names=("table", ""))


def camera_poses(axes: Array) -> list[Array]:
    """Upright cameras in the middle of the room that look level or down, in all directions."""
    poses = []
    for azimuth in np.linspace(0, 2 * np.pi, 12, endpoint=False):
        forward = np.array([np.cos(azimuth), np.sin(azimuth), -0.35])
        forward /= np.linalg.norm(forward)
        right = np.cross(forward, [0, 0, 1])
        right /= np.linalg.norm(right)
        pose = np.eye(4)
        pose[:3, :3] = axes.T @ np.stack([right, np.cross(forward, right), forward], axis=1)
        pose[:3, 3] = np.array([2, 1.5, 1.4]) @ axes
        poses.append(pose)
    return poses


def read(path: Path) -> Array:
    image = cv2.imread(str(path))
    assert image is not None
    return image[..., ::-1]


def share_of(image: Array, colour: Array) -> float:
    """Share of pixels with a colour's hue, whatever the light."""
    flat = image.reshape(-1, 3).astype(float) - image.reshape(-1, 3).mean(axis=1, keepdims=True)
    wanted = colour.astype(float) - colour.mean()
    strong = np.linalg.norm(flat, axis=1) > 20
    cosine = flat[strong] @ wanted / np.linalg.norm(flat[strong], axis=1) / np.linalg.norm(wanted)
    return float((cosine > 0.98).sum() / len(flat))


@given(st.lists(st.integers(0, 2**31 - 1), max_size=50))
def test_colour_depends_on_the_id_alone(ids: list[int]):
    together = id_colours(np.array(ids, np.int32))
    assert together.shape == (len(ids), 3)
    assert together.dtype == np.uint8
    for number, colour in zip(ids, together, strict=True):
        assert np.array_equal(colour, id_colours(np.array([number]))[0])


def test_colours_of_the_first_sixty_ids_differ_and_none_is_grey():
    colours = id_colours(np.arange(1, 61)).astype(int)
    distance = np.abs(colours[:, None] - colours[None]).sum(axis=2) + 1000 * np.eye(60, dtype=int)
    assert distance.min() > 12
    assert np.ptp(colours, axis=1).min() > 40
    assert np.ptp(id_colours(np.array([0]))[0].astype(int)) < 8


def test_masks_are_tinted_and_the_rest_darkened():
    labels = np.zeros((20, 30), np.int32)
    labels[5:15, 5:15] = 4
    image = draw_masks(np.full((20, 30, 3), 200, np.uint8), labels)
    assert image.dtype == np.uint8
    assert (image[0, 25] == 150).all()
    assert np.ptp(image[10, 10].astype(int)) > 20
    assert image[5, 10].sum() < image[10, 10].sum()
    assert draw_masks(np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), np.int32)).shape == (4, 4, 3)


def splat_twin(points: Array, radius: float, focal: float, size: tuple[int, int]) -> Array:
    """Depth by ray casting every disc that faces the camera: the literal meaning of `splat`."""
    width, height = size
    depth = np.full((height, width), np.inf)
    for row in range(height):
        for column in range(width):
            ray = np.array([(column - (width - 1) / 2) / focal, (row - (height - 1) / 2) / focal, 1.0])
            for point in points:
                normal = -point / np.linalg.norm(point)
                d = (normal @ point) / (normal @ ray)
                if np.linalg.norm(d * ray - point) <= radius:
                    depth[row, column] = min(depth[row, column], d)
    return depth


def test_splat_is_a_disc_per_point():
    points = np.array([[0, 0, 2.0], [0.4, 0.1, 2.5], [-0.5, -0.3, 3.0]])
    # The bend of a zero normal leaves discs that face the camera.
    index, depth = splat(points, np.zeros_like(points), 0.2, 40.0, (40, 30))
    twin = splat_twin(points, 0.2, 40.0, (40, 30))
    assert np.array_equal(np.isfinite(twin), index >= 0)
    assert np.allclose(depth[index >= 0], twin[index >= 0], atol=1e-4)
    assert set(np.unique(index)) == {-1, 0, 1, 2}


def test_splat_shows_the_nearer_surface():
    near, _ = plane([-0.5, -0.5, 2], [1, 0, 0], [0, 1, 0], [0, 0, -1], 0.02)
    far = near + np.array([0, 0, 0.3])
    index, depth = splat(np.vstack([far, near]), np.tile([0, 0, -1.0], (2 * len(near), 1)), 0.02, 60.0, (48, 48))
    inside = index[15:33, 15:33]
    assert (inside >= len(near)).all()
    assert np.allclose(depth[15:33, 15:33], 2, atol=0.01)


@pytest.mark.parametrize("axes", [np.eye(3), TILTED], ids=["z-up", "tilted"])
def test_up_is_found_from_cameras(axes: Array):
    up = estimate_up(room(axes).cloud.normals, camera_poses(axes))
    assert np.degrees(np.arccos(np.clip(up @ axes[2], -1, 1))) < 1


def test_up_without_cameras():
    assert np.allclose(estimate_up(room().cloud.normals), [0, 0, 1], atol=1e-3)
    assert np.allclose(estimate_up(np.zeros((10, 3))), [0, 0, 1])
    floor = np.tile([0.0, -1.0, 0.0], (500, 1)) + np.random.default_rng(0).normal(0, 0.01, (500, 3))
    assert np.allclose(estimate_up(floor), [0, -1, 0], atol=0.01)


@pytest.mark.parametrize("axes", [np.eye(3), TILTED], ids=["z-up", "tilted"])
def test_view_looks_into_the_room_from_above(axes: Array):
    snapshot = room(axes)
    xyz, normals = snapshot.cloud.xyz.astype(float), snapshot.cloud.normals.astype(float)
    view = choose_view(xyz, normals, snapshot.labels, axes[2], 0.05, 1.2)
    shown = view.faces(xyz, normals)
    ceiling = normals @ axes[2] < -0.9
    assert not shown[ceiling].any()
    assert shown[normals @ axes[2] > 0.9].all()
    points, turned = view.see(xyz[shown], normals[shown])
    slope = np.abs(points[:, :2] / points[:, 2:]) * view.focal
    assert slope[:, 0].max() < 0.6
    assert slope[:, 1].max() < 0.5
    index, _ = splat(points, turned, 0.05, view.focal * 200, (240, 200))
    seen = snapshot.labels[shown][index[index >= 0]]
    assert {3, 8} <= set(np.unique(seen))


@pytest.mark.parametrize("axes", [np.eye(3), TILTED], ids=["z-up", "tilted"])
def test_picture_shows_instances_in_their_colours(tmp_path: Path, axes: Array):
    path = tmp_path / "picture.png"
    render_instances(room(axes), path, title="A room", size=(800, 400), cameras=camera_poses(axes))
    image = read(path)
    assert image.shape == (400, 800, 3)
    for number in (3, 8):
        colour = id_colours(np.array([number]))[0]
        assert share_of(image[:, 400:], colour) > 0.01
        assert share_of(image[:, :400], colour) < 0.001


def test_pictures_of_the_same_map_are_the_same_bytes(tmp_path: Path):
    for name in ("a.png", "b.png"):
        render_instances(room(), tmp_path / name, size=(320, 160))
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize("sigma", [1.0, 5.0, 9.0, 64.0])
def test_wide_blurs_on_smaller_images_are_those_at_full_size(sigma: float):
    image = np.zeros((686, 760), np.float32)
    image[200:400, 150:450] = 1
    assert np.abs(_blurred(image, sigma) - cv2.GaussianBlur(image, (0, 0), sigma)).max() < 0.01


def test_maps_with_little_in_them_make_pictures(tmp_path: Path):
    path = tmp_path / "picture.png"
    render_instances(Snapshot.empty(), path, size=(320, 160))
    assert read(path).shape == (160, 320, 3)
    for count in (1, 2, 9):
        xyz = np.zeros((count, 3), np.float32) + np.arange(count, dtype=np.float32)[:, None]
        cloud = Cloud(
            np.arange(count) + 1,
            xyz,
            np.zeros((count, 3), np.uint8),
            np.zeros((count, 3), np.float32),
            np.ones(count, np.float32),
        )
        none = np.empty((0, 3), np.float32)
        snapshot = Snapshot(1, 0.0, cloud, Instances.empty(), np.zeros(count, np.int32), none, none)
        render_instances(snapshot, path, size=(320, 160))
        assert read(path).shape == (160, 320, 3)


def test_unwritable_places_are_named(tmp_path: Path):
    writers = [
        lambda: render_instances(room(), tmp_path / "no" / "p.png", size=(320, 160)),
        lambda: export_ply(room(), tmp_path / "no" / "p.ply"),
    ]
    if importlib.util.find_spec("rerun"):
        writers.append(lambda: Recording(tmp_path / "no" / "r.rrd"))
    for write in writers:
        with pytest.raises(Seg3DError, match="cannot write"):
            write()


@pytest.mark.parametrize("by_instance", [False, True])
def test_ply_holds_colours_and_ids(tmp_path: Path, by_instance: bool):
    path, snapshot = tmp_path / "map.ply", room()
    export_ply(snapshot, path, colour_by_instance=by_instance)
    head, body = path.read_bytes().split(b"end_header\n", 1)
    assert head.startswith(b"ply\nformat binary_little_endian 1.0\n")
    kinds = {b"float": "<f4", b"uchar": "u1", b"int": "<i4"}
    fields = [line.split() for line in head.splitlines() if line.startswith(b"property")]
    table = np.frombuffer(body, [(name.decode(), kinds[kind]) for _, kind, name in fields])
    assert len(table) == len(snapshot.cloud)
    assert np.array_equal(np.stack([table["x"], table["y"], table["z"]], 1), snapshot.cloud.xyz)
    assert np.array_equal(table["instance"], snapshot.labels)
    colours = id_colours(snapshot.labels)
    assert np.array_equal(table["instance_green"], colours[:, 1])
    assert np.array_equal(table["red"], (colours if by_instance else snapshot.cloud.rgb)[:, 0])


def record(path: Path, start: float) -> None:
    camera = Camera(64, 48, 60.0, 60.0, 31.5, 23.5)
    labels = np.zeros((48, 64), np.int32)
    labels[10:20, 10:30] = 2
    recording = Recording(path)
    for i, pose in enumerate(camera_poses(np.eye(3))[:3]):
        frame = Frame(
            i, start + i, np.full((48, 64, 3), 90, np.uint8), np.full((48, 64), 1.5, np.float32), camera, pose
        )
        recording.frame(frame, Masks2D.from_labels(labels) if i else None)
    snapshot = room()
    recording.snapshot(snapshot)
    recording.snapshot(
        Snapshot(
            **{
                **{name: getattr(snapshot, name) for name in Snapshot.__dataclass_fields__},
                "stamp": start + 2,
                "changes": (IdentityChange("merged", (3, 5), (3,)),),
            }
        )
    )
    recording.close()
    recording.close()


@pytest.mark.parametrize("start", [0.0, 1.7e9], ids=["since-start", "since-1970"])
def test_recording_can_be_read_back(tmp_path: Path, start: float):
    pytest.importorskip("rerun", reason="needs rerun-sdk")
    path = tmp_path / "run.rrd"
    record(path, start)
    verify = [sys.executable, "-m", "rerun", "rrd", "verify", str(path)]
    # A home of its own: rerun's command reports no usage in the first session of a home.
    home = {**os.environ, "HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
    outcome = subprocess.run(verify, capture_output=True, text=True, check=True, env=home)
    assert "verified without error" in outcome.stderr
    data = path.read_bytes()
    for entity in (b"/world/camera/image/depth", b"/world/camera/image/masks", b"/world/instances/boxes", b"/changes"):
        assert entity in data
    assert len(data) < 1_500_000


def test_no_recording_takes_the_same_calls():
    recording = NoRecording()
    recording.snapshot(room())
    recording.close()
    assert isinstance(Recording.__mro__[1], type)
    assert {n for n in vars(NoRecording) if n[0] != "_"} == {"frame", "snapshot", "close"}


def test_recording_without_rerun_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "rerun", None)
    with pytest.raises(Seg3DError, match=r"pip install 'seg3d\[viz\]'"):
        Recording(tmp_path / "r.rrd")


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 5), st.integers(1, 4))
def test_any_mask_image_can_be_drawn(top: int, scale: int):
    labels = np.random.default_rng(top).integers(0, top + 1, (8 * scale, 6 * scale))
    assert draw_masks(np.zeros((*labels.shape, 3), np.uint8), labels).shape == (*labels.shape, 3)
