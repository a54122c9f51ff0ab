# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Triangle meshes of a few solids, from which all furniture is built.

Every function returns a `Solid` in metres, z up. Normals are given per corner, so that round things shade round.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...types import Array


@dataclass(frozen=True, eq=False)
class Solid:
    """Triangles float64 (F, 3, 3) and the unit normals of their corners (F, 3, 3)."""

    triangles: Array
    normals: Array

    def moved(self, offset: Sequence[float] | Array, rotation: Array | None = None) -> Solid:
        """Rotated by (3, 3), then shifted by (3,)."""
        if rotation is None:
            return Solid(self.triangles + np.asarray(offset, float), self.normals)
        return Solid(self.triangles @ rotation.T + np.asarray(offset, float), self.normals @ rotation.T)

    def scaled(self, x: float, y: float, z: float = 1.0) -> Solid:
        """Stretched along the axes about the origin."""
        factor = np.array([x, y, z])
        return Solid(self.triangles * factor, _unit(self.normals / factor))


def merge(solids: Sequence[Solid]) -> Solid:
    """Several solids as one."""
    return Solid(np.concatenate([s.triangles for s in solids]), np.concatenate([s.normals for s in solids]))


def turn(yaw: float = 0.0, pitch: float = 0.0, roll: float = 0.0) -> Array:
    """Rotation (3, 3): first `roll` about y, then `pitch` about x, then `yaw` about z; radians."""
    cy, sy, cp, sp, cr, sr = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch), np.cos(roll), np.sin(roll)
    about_z = np.array([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    about_y = np.array([[cr, 0, sr], [0, 1, 0], [-sr, 0, cr]])
    return about_z @ about_x @ about_y


def _unit(vectors: Array) -> Array:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def _flat(triangles: Array) -> Solid:
    normal = _unit(np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]))
    return Solid(triangles, np.repeat(normal[:, None], 3, axis=1))


def _grid(points: Array, normals: Array) -> Solid:
    """Quads between neighbours of a grid of points (m, n, 3), two triangles each."""

    def quads(a: Array) -> Array:
        p, q, r, s = a[:-1, :-1], a[1:, :-1], a[1:, 1:], a[:-1, 1:]
        return np.stack([np.stack([p, q, r], -2), np.stack([p, r, s], -2)], 2).reshape(-1, 3, 3)

    triangles = quads(points)
    area = np.linalg.norm(np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]), axis=1)
    keep = area > 1e-10
    return Solid(triangles[keep], quads(normals)[keep])


def quad(a: Sequence[float], b: Sequence[float], c: Sequence[float], d: Sequence[float]) -> Solid:
    """A flat four-sided plate without thickness, corners in order."""
    p = np.array([a, b, c, d], float)
    return _flat(p[[[0, 1, 2], [0, 2, 3]]])


def box(low: Sequence[float], high: Sequence[float]) -> Solid:
    """An axis-aligned box between two corners."""
    return prism([(low[0], low[1]), (high[0], low[1]), (high[0], high[1]), (low[0], high[1])], low[2], high[2])


def prism(outline: Sequence[tuple[float, float]], z0: float, z1: float) -> Solid:
    """A convex outline in x, y, extruded from z0 to z1."""
    p = np.asarray(outline, float)
    n = len(p)
    low = np.concatenate([p, np.full((n, 1), z0)], 1)
    high = np.concatenate([p, np.full((n, 1), z1)], 1)
    i = np.arange(n)
    j = (i + 1) % n
    sides = [np.stack([low[i], low[j], high[j]], 1), np.stack([low[i], high[j], high[i]], 1)]
    fan = np.stack([np.zeros(n - 2, int), np.arange(1, n - 1), np.arange(2, n)], 1)
    return _flat(np.concatenate([*sides, high[fan], low[fan][:, ::-1]]))


def lathe(profile: Sequence[tuple[float, float]], sides: int = 16, smooth: bool = False) -> Solid:
    """A profile of (radius, z) turned about z; `smooth` rounds the shading along the profile too."""
    p = np.asarray(profile, float)
    angle = np.linspace(0, 2 * np.pi, sides + 1)
    angle[-1] = 0.0
    around = np.stack([np.cos(angle), np.sin(angle)], 1)
    step = np.diff(p, axis=0)
    slope = _unit(np.stack([step[:, 1], -step[:, 0]], 1))
    ends = np.concatenate([slope[:1], slope, slope[-1:]])
    corner = _unit(ends[:-1] + ends[1:])

    def ring(radius: Array, z: Array) -> Array:
        flat = radius[:, None, None] * around[None]
        return np.concatenate([flat, np.broadcast_to(z[:, None, None], (*flat.shape[:2], 1))], -1)

    points = ring(p[:, 0], p[:, 1])
    if smooth:
        return _grid(points, ring(corner[:, 0], corner[:, 1]))
    return merge([
        _grid(points[k : k + 2], ring(slope[[k, k], 0], slope[[k, k], 1]))
        for k in range(len(step))
        if np.abs(step[k]).max() > 0
    ])  # fmt: skip


def frustum(bottom: float, top: float, z0: float, z1: float, sides: int = 16) -> Solid:
    """A closed cone stump of radii `bottom` and `top` about z."""
    return lathe([(0, z0), (bottom, z0), (top, z1), (0, z1)], sides)


def cylinder(radius: float, z0: float, z1: float, sides: int = 16) -> Solid:
    """A closed cylinder about z."""
    return frustum(radius, radius, z0, z1, sides)


def sphere(radius: float, sides: int = 16) -> Solid:
    """A sphere about the origin."""
    t = np.linspace(-np.pi / 2, np.pi / 2, max(6, sides // 2 + 1))
    return lathe([(max(0.0, radius * float(np.cos(a))), radius * float(np.sin(a))) for a in t], sides, smooth=True)


def torus(radius: float, thickness: float, sides: int = 20) -> Solid:
    """A ring in the plane z = 0; `thickness` is the radius of its tube."""
    t = np.linspace(0, 2 * np.pi, 9)
    return lathe([(radius + thickness * float(np.cos(a)), thickness * float(np.sin(a))) for a in t], sides, smooth=True)


def cushion(width: float, depth: float, height: float, roundness: float = 0.35) -> Solid:
    """A superellipsoid about the origin: a box with soft edges; `roundness` 1 is an ellipsoid, 0.2 nearly a box."""

    def power(x: Array, e: float) -> Array:
        # Rounding at the poles would be blown up by the power.
        return np.sign(x) * np.where(np.abs(x) < 1e-9, 0, np.abs(x)) ** e

    u = np.linspace(-np.pi / 2, np.pi / 2, 9)[:, None]
    v = np.linspace(-np.pi, np.pi, 21)[None]

    def shape(e: float) -> Array:
        c = power(np.cos(u), e)
        x = c * power(np.cos(v), e)
        return np.stack([x, c * power(np.sin(v), e), np.broadcast_to(power(np.sin(u), e), x.shape)], -1)

    half = np.array([width, depth, height]) / 2
    return _grid(shape(roundness) * half, _unit(shape(2 - roundness) / half))


def bar(start: Sequence[float], end: Sequence[float], r0: float, r1: float | None = None, sides: int = 8) -> Solid:
    """A round stick between two points, radius r0 at the start and r1 at the end; four sides make it square."""
    a, b = np.asarray(start, float), np.asarray(end, float)
    length = float(np.linalg.norm(b - a))
    z = (b - a) / max(length, 1e-9)
    x = _unit(np.cross([0.0, 1.0, 0.0] if abs(z[1]) < 0.9 else [1.0, 0.0, 0.0], z))
    y = np.cross(z, x)
    return frustum(r0, r0 if r1 is None else r1, 0.0, length, sides).moved(a, np.stack([x, y, z], 1))


def leaf(length: float, width: float, bend: float) -> Solid:
    """A thin leaf from the origin along +y, bending downward by `bend` metres at its tip."""
    t = np.linspace(0, 1, 6)
    half = width / 2 * np.sin(np.pi * np.clip(t * 0.92 + 0.06, 0, 1))
    y, z = length * t, -bend * t**2 + 0.25 * length * t
    side = np.array([-1.0, 0.0, 1.0])
    points = np.stack([
        half[:, None] * side[None],
        np.repeat(y[:, None], 3, 1),
        z[:, None] + 0.15 * half[:, None] * np.abs(side)[None],
    ], -1)  # fmt: skip
    return _flat(_grid(points, points).triangles)
