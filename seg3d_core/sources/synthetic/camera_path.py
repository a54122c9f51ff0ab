# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""A walk through the free floor and a gaze that covers the room."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
from scipy.ndimage import gaussian_filter1d, map_coordinates
from scipy.sparse import coo_array
from scipy.sparse.csgraph import dijkstra

from ...types import Array, Camera
from .render import Scene
from .room import Room
from .walk import CELL, clearance, walkable

MOTIONS = ("keyframe", "video")
# Largest step in metres and largest turns in degrees from frame to frame.
_STEP = {"keyframe": 0.32, "video": 0.06}
_TURNS = {"keyframe": (0, 8, 16, 24), "video": (0, 2, 4)}
_TILTS = {"keyframe": (0, 6, 12), "video": (0, 1.5)}
_SMOOTH = {"keyframe": 0.8, "video": 4.0}
_NEAREST = 0.30
_TARGETS = 700
_LOWEST, _LEVEL, _HIGHEST = np.deg2rad([-38.0, -15.0, 4.0])


def plan_poses(room: Room, scene: Scene, camera: Camera, frames: int, motion: str, seed: int) -> Array:
    """Poses T_world_camera float64 (frames, 4, 4)."""
    rng = np.random.default_rng([seed, 2])
    ground = _resample(_walk(room, rng), frames, _STEP[motion])
    t = np.arange(frames) * (1.0 if motion == "keyframe" else 0.2)
    phase = rng.uniform(0, 2 * np.pi, 3)
    height = rng.uniform(1.28, 1.52) + 0.05 * np.sin(t / 5 + phase[0]) + 0.02 * np.sin(t / 1.7 + phase[1])
    roll = np.deg2rad(1.2) * np.sin(t / 3.1 + phase[2])
    eyes = np.concatenate([ground, height[:, None]], 1)
    yaw, pitch = _gaze(scene, camera, eyes, motion, rng)
    return np.stack([_pose(*values) for values in zip(eyes, yaw, pitch, roll, strict=True)])


def _pose(eye: Array, yaw: float, pitch: float, roll: float) -> Array:
    """Looking along `yaw` (about z, from x) and `pitch` (up)."""
    forward = np.array([np.cos(yaw) * np.cos(pitch), np.sin(yaw) * np.cos(pitch), np.sin(pitch)])
    right = np.array([np.sin(yaw), -np.cos(yaw), 0.0])
    down = np.cross(forward, right)
    pose = np.eye(4)
    pose[:3, 0] = np.cos(roll) * right + np.sin(roll) * down
    pose[:3, 1] = np.cos(roll) * down - np.sin(roll) * right
    pose[:3, 2] = forward
    pose[:3, 3] = eye
    return pose


def _walk(room: Room, rng: np.random.Generator) -> Array:
    """A smooth line (n, 2) through the walkable floor that comes near all of it, points about 2 cm apart."""
    mask, space = walkable(room), clearance(room)
    cells = np.argwhere(mask)
    graph = _graph(mask, space)
    goals = _spread(cells, rng)
    distance, before = dijkstra(graph, indices=goals, return_predecessors=True)
    order, left = [0], set(range(1, len(goals)))
    while left:
        here = order[-1]
        order.append(min(left, key=lambda k: distance[here, goals[k]]))
        left.remove(order[-1])
    line = [cells[goals[0]]]
    for a, b in pairwise(order):
        node, leg = goals[b], []
        while node != goals[a] and node >= 0:
            leg.append(cells[node])
            node = before[a, node]
        line += leg[::-1]
    rough = (np.array(line)[:, ::-1] + 0.5) * CELL
    return _smoothed(rough, space)


def _graph(mask: Array, space: Array) -> coo_array:
    """Neighbouring walkable cells, eight ways, dearer near obstacles."""
    number = np.full(mask.shape, -1)
    number[mask] = np.arange(mask.sum())
    rows, columns, costs = [], [], []
    padded = np.pad(number, 1, constant_values=-1)
    for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1)):
        other = padded[1 + dy : 1 + dy + mask.shape[0], 1 + dx : 1 + dx + mask.shape[1]]
        both = mask & (other >= 0)
        cost = np.hypot(dx, dy) * (1 + 0.15 / np.maximum(space[both] - 0.2, 0.05))
        rows.append(number[both])
        columns.append(other[both])
        costs.append(cost)
    i, j, c = np.concatenate(rows), np.concatenate(columns), np.concatenate(costs)
    size = int(mask.sum())
    return coo_array((np.tile(c, 2), (np.concatenate([i, j]), np.concatenate([j, i]))), shape=(size, size)).tocsr()


def _spread(cells: Array, rng: np.random.Generator) -> list[int]:
    """Row numbers of cells that lie far from one another, up to 10, at least 0.7 m apart."""
    chosen = [int(rng.integers(len(cells)))]
    nearest = np.linalg.norm(cells - cells[chosen[0]], axis=1)
    while len(chosen) < 10 and nearest.max() * CELL > 0.7:
        chosen.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, np.linalg.norm(cells - cells[chosen[-1]], axis=1))
    return chosen if len(chosen) > 1 else [chosen[0], int((chosen[0] + 1) % len(cells))]


def _smoothed(line: Array, space: Array) -> Array:
    """The line with its corners rounded as far as the clearance allows."""
    fine = _resample(line, max(2, int(_length(line) / 0.02)), np.inf)
    for sigma in (18.0, 12.0, 8.0, 5.0, 2.5):
        smooth = gaussian_filter1d(fine, sigma, axis=0, mode="nearest")
        here = map_coordinates(space, (smooth[:, ::-1] / CELL - 0.5).T, order=1, mode="nearest")
        if here.min() >= _NEAREST:
            return smooth
    return fine


def _length(line: Array) -> float:
    return float(np.linalg.norm(np.diff(line, axis=0), axis=1).sum())


def _resample(line: Array, count: int, step: float) -> Array:
    """`count` points along a line (n, 2), evenly spaced, at most `step` apart: what is too far is not reached."""
    along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(line, axis=0), axis=1))])
    at = np.linspace(0, min(along[-1], step * (count - 1)) if count > 1 else 0.0, count)
    return np.stack([np.interp(at, along, line[:, k]) for k in range(2)], 1)


def _targets(scene: Scene, rng: np.random.Generator) -> Array:
    """Points on surfaces (n, 3), furniture five times as dense as walls."""
    t = scene.triangles.astype(float)
    area = np.linalg.norm(np.cross(t[:, 1] - t[:, 0], t[:, 2] - t[:, 0]), axis=1)
    area = np.minimum(area, 4.0) * np.where(scene.instance > 0, 5.0, 1.0)
    rows = rng.choice(len(t), _TARGETS, p=area / area.sum())
    a, b = rng.random((2, _TARGETS, 1))
    fold = a + b > 1
    a, b = np.where(fold, 1 - a, a), np.where(fold, 1 - b, b)
    points = t[rows, 0] + a * (t[rows, 1] - t[rows, 0]) + b * (t[rows, 2] - t[rows, 0])
    return points[points[:, 2] < 2.3]


class _Outlook:
    """What can be seen from each eye (n, 3): targets by direction, and how far it is to the next wall."""

    def __init__(self, scene: Scene, camera: Camera, eyes: Array, targets: Array):
        rays = targets[None] - eyes[:, None]
        distance = np.linalg.norm(rays, axis=2)
        origins = np.repeat(eyes, len(targets), axis=0)
        free = scene.rays.is_free(origins, 0.995 * rays.reshape(-1, 3)).reshape(distance.shape)
        self._visible = free & (distance > 0.5) & (distance < 6.0)
        self._bearing = np.arctan2(rays[..., 1], rays[..., 0])
        self._lift = np.arcsin(rays[..., 2] / np.maximum(distance, 1e-6))
        self._ahead = _room_ahead(scene, eyes)
        self._half = np.arctan(np.array([camera.width / camera.fx, camera.height / camera.fy]) / 2) * 0.9

    def worth(self, eye: int, ways: Array, seen: Array) -> tuple[Array, Array]:
        """The share of what was `seen` (m,) least that each way (k, 2) shows, less the blame for a near wall; and
        which targets it shows, bool (k, m)."""
        off = np.abs(_turned(self._bearing[eye][None] - ways[:, :1]))
        rise = np.abs(self._lift[eye][None] - ways[:, 1:])
        inside = (off < self._half[0]) & (rise < self._half[1]) & self._visible[eye]
        gain = self._visible[eye] / (1 + seen) ** 1.5
        ahead = self._ahead[eye, np.round(np.rad2deg(ways[:, 0]) / 5).astype(int) % 72]
        return (inside @ gain) / max(1e-6, float(gain.sum())) - 0.6 * np.clip(1.3 - ahead, 0, 1), inside


def _gaze(scene: Scene, camera: Camera, eyes: Array, motion: str, rng: np.random.Generator) -> tuple[Array, Array]:
    """Yaw and pitch (n,) per frame: each turn goes where most is yet unseen, and not against a near wall."""
    targets = _targets(scene, rng)
    outlook = _Outlook(scene, camera, eyes, targets)
    turns = np.deg2rad(sorted({s * v for v in _TURNS[motion] for s in (-1, 1)}))
    tilts = np.deg2rad(sorted({s * v for v in _TILTS[motion] for s in (-1, 1)}))
    around = np.stack(np.meshgrid(np.deg2rad(np.arange(0, 360, 15)), [_LEVEL]), -1).reshape(-1, 2)
    seen = np.zeros(len(targets))
    chosen = np.empty((len(eyes), 2))
    for i in range(len(eyes)):
        ways = around
        if i:
            ways = np.stack(np.meshgrid(chosen[i - 1, 0] + turns, chosen[i - 1, 1] + tilts), -1).reshape(-1, 2)
            ways[:, 1] = np.clip(ways[:, 1], _LOWEST, _HIGHEST)
        score, inside = outlook.worth(i, ways, seen)
        # The way to a good view may lead past poor ones.
        anywhere, _ = outlook.worth(i, around, seen)
        nearness = np.exp(-np.abs(_turned(around[None, :, 0] - ways[:, :1])))
        best = int((score + 1.5 * (anywhere[None] * nearness).max(1)).argmax())
        chosen[i] = ways[best]
        seen += inside[best]
    smooth = gaussian_filter1d(chosen, _SMOOTH[motion], axis=0, mode="nearest")
    return smooth[:, 0], smooth[:, 1]


def _turned(angle: Array) -> Array:
    """Angles wrapped to -pi to pi."""
    return (angle + np.pi) % (2 * np.pi) - np.pi


def _room_ahead(scene: Scene, eyes: Array) -> Array:
    """Mean free distance (n, 72) from each eye around 72 bearings, slightly downward; metres."""
    angle = np.deg2rad(np.arange(72) * 5)
    rays = np.stack([np.cos(angle), np.sin(angle), np.full(72, -0.2)], 1)
    hits = scene.rays.nearest(np.repeat(eyes, 72, axis=0), np.tile(rays, (len(eyes), 1)))
    distance = np.minimum(hits.distance, 6.0).reshape(len(eyes), 72).astype(np.float32)
    return cv2.blur(np.concatenate([distance[:, -4:], distance, distance[:, :4]], 1), (7, 1))[:, 4:-4]
