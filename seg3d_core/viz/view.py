# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Where to look from: which way is up, and the three-quarter view into the room that shows most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..geometry import invert, transform
from ..types import Array
from .splat import splat

_CULLED_FACING = 0.08


@dataclass(frozen=True, eq=False)
class Viewpoint:
    """T_view_world float64 (4, 4) in OpenCV axes, and the focal length in units of the picture's height."""

    T_view_world: Array
    focal: float

    def see(self, xyz: Array, normals: Array) -> tuple[Array, Array]:
        """Points and normals (N, 3) in the view's axes."""
        rotation = self.T_view_world[:3, :3]
        return transform(self.T_view_world, xyz).astype(np.float32), (normals @ rotation.T).astype(np.float32)

    def faces(self, xyz: Array, normals: Array) -> Array:
        """Boolean (N,): False for surfaces seen from behind, such as near walls and the ceiling."""
        eye = invert(self.T_view_world)[:3, 3]
        towards = eye - xyz
        facing = np.einsum("ij,ij->i", normals, towards)
        return facing >= -_CULLED_FACING * np.linalg.norm(towards, axis=1)


def estimate_up(normals: Array, cameras: Sequence[Array] | None = None) -> Array:
    """The unit vector (3,) that points up, from normals (N, 3) and, where given, camera poses (4, 4).

    People and robots hold cameras upright: the mean of the image's upward axis, snapped to the commonest
    normal near it (floor, tables). Without cameras: z where enough surfaces are level in z, else the
    commonest axis, pointing where more surfaces face (nobody maps the undersides of tables).
    """
    unit = normals[np.linalg.norm(normals, axis=1) > 0.5].astype(float)
    if cameras is not None and len(cameras):
        mean = -np.mean([np.asarray(pose)[:3, 1] for pose in cameras], axis=0)
        if np.linalg.norm(mean) > 0.1:
            return _snap(mean / np.linalg.norm(mean), unit)
    if not len(unit):
        return np.array([0.0, 0.0, 1.0])
    candidates = np.vstack([np.eye(3), unit[:: max(1, len(unit) // 200)]])
    sample = unit[:: max(1, len(unit) // 20_000)]
    support = (np.abs(sample @ candidates.T) > np.cos(np.radians(8))).mean(axis=0)
    best = 2 if support[2] > 0.4 * support.max() else int(support.argmax())
    along = sample @ candidates[best]
    sign = -1.0 if best != 2 and (along > 0.9).sum() < (along < -0.9).sum() else 1.0
    return _snap(sign * candidates[best], unit)


def _snap(guess: Array, normals: Array) -> Array:
    """The guess moved to the middle of the normals around it, up or down alike."""
    up = guess
    for degrees in (35, 25, 15, 8, 8):
        along = normals @ up
        near = np.abs(along) > np.cos(np.radians(degrees))
        if near.sum() < 50:
            break
        mean = (normals[near] * np.sign(along[near])[:, None]).mean(axis=0)
        up = mean / np.linalg.norm(mean)
    return up


def choose_view(
    xyz: Array, normals: Array, labels: Array, up: Array, radius: float, aspect: float, margin: float = 0.04
) -> Viewpoint:
    """Of views from all around, the one that shows the most of the most instances (or of the map without any)."""
    step = max(1, len(xyz) // 60_000)
    few, few_normals, few_labels = xyz[::step], normals[::step], labels[::step]
    height = 160
    walls = _wall_angle(few_normals, up)
    best, best_score = None, -1.0
    for elevation in (43, 52):
        for azimuth in range(0, 360, 20):
            view = _fit(few, few_normals, _look(up, azimuth, elevation), aspect, margin)
            facing = view.faces(few, few_normals)
            index, _ = splat(
                *view.see(few[facing], few_normals[facing]),
                radius * np.sqrt(step),
                view.focal * height,
                (int(height * aspect), height),
            )
            seen = few_labels[facing][index[index >= 0]]
            pixels = np.bincount(np.unique(seen, return_inverse=True)[1])[int(0 in seen) :]
            score = float(np.sqrt(pixels).sum()) + 0.01 * np.sqrt(len(seen))
            score *= 1 + 0.2 * np.sin(2 * (np.radians(azimuth) - walls)) ** 2
            if score > best_score:
                best, best_score = view, score
    assert best is not None
    return best


def _wall_angle(normals: Array, up: Array) -> float:
    """Compass angle of the walls in radians, modulo a right angle; views are best across, at 45 degrees to them."""
    east, north = _compass(up)
    level = normals[np.abs(normals @ up) < 0.2]
    angles = np.arctan2(level @ north, level @ east)
    return float(np.angle(np.exp(4j * angles).sum()) / 4)


def _compass(up: Array) -> tuple[Array, Array]:
    """Two level directions, at right angles."""
    east = np.cross(np.eye(3)[np.argmin(np.abs(up))], up)
    east /= np.linalg.norm(east)
    return east, np.cross(up, east)


def _look(up: Array, azimuth: float, elevation: float) -> Array:
    """Rotation (3, 3), world to view, looking down at `elevation` degrees from compass direction `azimuth`."""
    east, north = _compass(up)
    a, e = np.radians(azimuth), np.radians(elevation)
    forward = -(np.cos(e) * (np.cos(a) * east + np.sin(a) * north) + np.sin(e) * up)
    right = np.cross(forward, up)
    right /= np.linalg.norm(right)
    return np.stack([right, np.cross(forward, right), forward])


def _fit(xyz: Array, normals: Array, rotation: Array, aspect: float, margin: float) -> Viewpoint:
    """The nearest viewpoint in this direction from which the points fill the picture without leaving it."""
    focal = 1.9
    keep = normals @ rotation[2] < 0.2
    points = (xyz[keep] if keep.sum() > 100 else xyz) @ rotation.T
    slope = np.array([0.5 * aspect / focal, 0.5 / focal]) * (1 - margin)
    # Each side of the picture bounds the eye by a plane through the outermost point.
    left, right = (
        (points[:, :2] + slope * points[:, 2:]).min(axis=0),
        (points[:, :2] - slope * points[:, 2:]).max(axis=0),
    )
    eye = np.empty(3)
    eye[:2] = (left + right) / 2
    eye[2] = -((right - left) / (2 * slope)).max()
    view = np.eye(4)
    view[:3, :3] = rotation
    view[:3, 3] = -eye
    return Viewpoint(view, focal)
