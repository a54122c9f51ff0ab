# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Fixtures that all rooms share."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from seg3d_core.types import Camera, Frame

ROOT = Path(__file__).resolve().parents[1]

# (low corner, high corner, colour): a closed room of 3 x 3 x 2.4 m, seen from inside, and three boxes in it.
ROOM = (np.array([-1.5, -1.5, 0.0]), np.array([1.5, 1.5, 2.4]))
BOXES = (
    ((-0.9, 0.4, 0.0), (-0.3, 1.0, 0.7), (200, 60, 50)),
    ((0.2, 0.7, 0.0), (0.9, 1.2, 0.5), (60, 170, 80)),
    ((0.5, -0.6, 0.0), (1.1, 0.1, 0.9), (70, 90, 210)),
)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of scenes that is too big for the repository: `data` in a folder `shared` beside it."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("needs the scenes that are too big for the repository (../shared/data)")
    return folder


@pytest.fixture(scope="session")
def studio() -> Path:
    """The furnished flat that comes with the repository, in ScanNet's exported layout."""
    return ROOT / "examples" / "studio"


@pytest.fixture(scope="session")
def until() -> Callable[..., bool]:
    """`until(condition, limit)` waits for a condition, at most `limit` seconds, and says whether it came."""

    def wait(condition: Callable[[], Any], limit: float = 60.0) -> bool:
        end = time.monotonic() + limit
        while not condition():
            if time.monotonic() > end:
                return False
            time.sleep(0.005)
        return True

    return wait


@pytest.fixture(scope="session")
def box_room() -> Callable[..., list[Frame]]:
    """`box_room(count, width, height, boxes)`: exact frames of a room with boxes, instance ids 1.. by box."""
    return box_frames


def box_frames(
    count: int = 8, width: int = 80, height: int = 60, boxes: tuple = BOXES, turn: tuple[float, float] = (-0.6, 0.9)
) -> list[Frame]:
    """Frames of a camera that turns from one angle to another, in radians."""
    focal = 0.8 * width
    camera = Camera(width, height, focal, focal, (width - 1) / 2, (height - 1) / 2)
    angles = np.linspace(*turn, count)
    return [_ray_cast(i, camera, _looking(angle), boxes) for i, angle in enumerate(angles)]


def _looking(angle: float) -> np.ndarray:
    """T_world_camera of a camera near one corner, at eye height, that turns about the vertical."""
    forward = np.array([np.sin(angle), np.cos(angle), -0.45])
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, np.cross(forward, right), forward], axis=1)
    pose[:3, 3] = (-0.2 + 0.3 * angle, -0.9, 1.4)
    return pose


def _ray_cast(index: int, camera: Camera, pose: np.ndarray, boxes: tuple) -> Frame:
    """Slab test of every pixel's ray against the room's inside and each box."""
    v, u = np.mgrid[: camera.height, : camera.width]
    rays = np.stack([(u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy, np.ones(u.shape)], axis=-1)
    direction, origin = rays @ pose[:3, :3].T, pose[:3, 3]
    with np.errstate(divide="ignore"):
        inverse = 1 / direction
    depth = np.where(inverse > 0, (ROOM[1] - origin) * inverse, (ROOM[0] - origin) * inverse).min(axis=-1)
    instance = np.zeros(depth.shape, np.int32)
    rgb = np.full((*depth.shape, 3), 190, np.uint8)
    for number, (low, high, colour) in enumerate(boxes, 1):
        a, b = (np.asarray(low) - origin) * inverse, (np.asarray(high) - origin) * inverse
        near, far = np.minimum(a, b).max(axis=-1), np.maximum(a, b).min(axis=-1)
        hit = (near < far) & (near > 0) & (near < depth)
        depth, instance[hit], rgb[hit] = np.where(hit, near, depth), number, colour
    return Frame(index, 0.2 * index, rgb, depth.astype(np.float32), camera, pose, str(index), instance)


@pytest.fixture(scope="session")
def box_room_folder(box_room, tmp_path_factory) -> Path:
    """The box room in ScanNet's exported layout, 12 frames of 80 x 60 with ground truth."""
    folder = tmp_path_factory.mktemp("scenes") / "boxes"
    folder.mkdir()
    write_scannet(folder, box_room(12))
    return folder


def write_scannet(folder: Path, frames: list[Frame]) -> None:
    """Writes frames, ground truth included, into a folder in ScanNet's exported layout."""
    for name in ("color", "depth", "pose", "intrinsic", "instance"):
        (folder / name).mkdir()
    matrix = np.eye(4)
    matrix[:3, :3] = frames[0].camera.matrix
    for kind in ("color", "depth"):
        np.savetxt(folder / "intrinsic" / f"intrinsic_{kind}.txt", matrix)
    for frame in frames:
        cv2.imwrite(str(folder / "color" / f"{frame.index}.jpg"), frame.rgb[:, :, ::-1])
        cv2.imwrite(str(folder / "depth" / f"{frame.index}.png"), np.round(frame.depth * 1000).astype(np.uint16))
        cv2.imwrite(str(folder / "instance" / f"{frame.index}.png"), frame.instance.astype(np.uint16))
        np.savetxt(folder / "pose" / f"{frame.index}.txt", frame.T_world_camera)


@pytest.fixture
def feed(until):
    """`feed(runtime, frames)`, one after the other, so that nothing is overtaken; `perceived=False` does not wait for
    the 2D model, which may hang."""

    def put(runtime, frames, perceived: bool = True):
        for frame in frames:
            seen = runtime.statistics().counters.get("frames", 0)
            runtime.submit(frame)
            assert until(lambda seen=seen: runtime.statistics().counters.get("frames", 0) > seen)
            assert not perceived or until(lambda: not runtime.statistics().queues["perception"].length)

    return put
