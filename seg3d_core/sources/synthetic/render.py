# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""From a furnished room to triangles, and from triangles to pictures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...types import Array, Camera
from .primitives import turn
from .raycast import Hits, ray_caster
from .room import Room
from .structure import shell
from .surfaces import Material, Palette

_AMBIENT = 0.34
_SUBSAMPLES = np.array([[-0.25, -0.25], [0.25, -0.25], [-0.25, 0.25], [0.25, 0.25]])


@dataclass(frozen=True, eq=False)
class Picture:
    """rgb uint8 (H, W, 3), depth float32 (H, W) metres along the optical axis with 0 = none, instance int32 (H, W),
    and the cosine between ray and surface, float32 (H, W)."""

    rgb: Array
    depth: Array
    instance: Array
    cosine: Array


class Scene:
    """The triangles of a room and how they look. triangles float32 (F, 3, 3), instance int32 (F,)."""

    def __init__(self, room: Room):
        index: dict[Material, int] = {}
        corners, local, normals, material, instance, yaw = [], [], [], [], [], []
        placed = [(0, (0.0, 0.0, 0.0), 0.0, shell(room))]
        placed += [(p.id, p.position, p.yaw, p.model.solids) for p in room.pieces]
        for number, position, angle, solids in placed:
            rotation = turn(angle)
            for solid, look in solids:
                count = len(solid.triangles)
                corners.append(solid.triangles @ rotation.T + position)
                local.append(solid.triangles)
                normals.append(solid.normals)
                material.append(np.full(count, index.setdefault(look, len(index)), np.int32))
                instance.append(np.full(count, number, np.int32))
                yaw.append(np.full(count, angle))
        self.triangles = np.concatenate(corners).astype(np.float32)
        self.instance = np.concatenate(instance)
        # Place and normal of each corner in its object's frame, side by side: one look-up per hit.
        self._corners = np.concatenate([np.concatenate(local), np.concatenate(normals)], 2).astype(np.float32)
        self._material = np.concatenate(material)
        turned = np.concatenate(yaw)
        self._turn = np.stack([np.cos(turned), np.sin(turned)], 1).astype(np.float32)
        self._palette = Palette(list(index))
        self._lights = np.array(room.lights or [(room.width / 2, room.depth / 2, room.height - 0.3, 1.0)], np.float32)
        self.rays = ray_caster(self.triangles)

    def render(self, camera: Camera, T_world_camera: Array) -> Picture:
        """What a camera sees; depth and instance are those of the pixels' centres, colour is smoothed at edges."""
        v, u = np.mgrid[: camera.height, : camera.width]
        pixels = np.stack([u.ravel(), v.ravel()], 1).astype(np.float64)
        hits, rays = self._shoot(camera, T_world_camera, pixels)
        colour, cosine = self._shade_hits(camera, T_world_camera, hits, rays)
        shape = (camera.height, camera.width)
        hit = hits.triangle >= 0
        depth = np.where(hit, hits.distance, 0).astype(np.float32).reshape(shape)
        instance = np.where(hit, self.instance[hits.triangle], 0).astype(np.int32).reshape(shape)
        edge = self._edges(
            depth, np.where(hit, self._material[hits.triangle], -1).reshape(shape), cosine.reshape(shape)
        )
        rows = np.flatnonzero(edge)
        if len(rows):
            fine = (pixels[rows, None] + _SUBSAMPLES[None]).reshape(-1, 2)
            again, fine_rays = self._shoot(camera, T_world_camera, fine)
            smooth, _ = self._shade_hits(camera, T_world_camera, again, fine_rays)
            colour[rows] = smooth.reshape(len(rows), len(_SUBSAMPLES), 3).mean(1)
        return Picture(to_srgb(colour).reshape(*shape, 3), depth, instance, cosine.reshape(shape))

    def depth(self, camera: Camera, T_world_camera: Array, pixels: Array) -> Array:
        """Depths float32 (n,) along the optical axis at pixels (n, 2), inf for none."""
        return self._shoot(camera, T_world_camera, pixels)[0].distance

    def _shoot(self, camera: Camera, T_world_camera: Array, pixels: Array) -> tuple[Hits, Array]:
        """Rays whose direction has length 1 along the optical axis, so that distances are depths."""
        right, down, forward = T_world_camera[:3, :3].T.astype(np.float32)
        x = ((pixels[:, :1] - camera.cx) / camera.fx).astype(np.float32)
        y = ((pixels[:, 1:] - camera.cy) / camera.fy).astype(np.float32)
        rays = x * right + y * down + forward
        origins = np.broadcast_to(T_world_camera[:3, 3].astype(np.float32), rays.shape)
        return self.rays.nearest(origins, rays), rays

    def _shade_hits(self, camera: Camera, T_world_camera: Array, hits: Hits, rays: Array) -> tuple[Array, Array]:
        colour, cosine = np.zeros((len(rays), 3), np.float32), np.zeros(len(rays), np.float32)
        rows = np.flatnonzero(hits.triangle >= 0)
        triangle, depth, ray = hits.triangle[rows], hits.distance[rows], rays[rows]
        points = ray * depth[:, None] + T_world_camera[:3, 3].astype(np.float32)
        view = -ray / _length(ray)
        colour[rows], normals = self.shade(triangle, hits.weights[rows], points, view, depth / np.float32(camera.fx))
        cosine[rows] = _dot(normals, view)
        return colour, cosine

    def shade(self, triangle: Array, weights: Array, points: Array, view: Array, width: Array) -> tuple[Array, Array]:
        """Linear RGB (n, 3) and the normals (n, 3) towards the viewer of points (n, 3) on triangles (n,).

        `weights` (n, 2) are barycentric, `view` (n, 3) the unit directions to the viewer, and `width` (n,) the side
        of a pixel there in metres, for a surface that faces the viewer.
        """
        both = _blend(self._corners, triangle, weights)
        local, local_normals = both[:, :3], both[:, 3:]
        local_normals /= _length(local_normals)
        cos, sin = self._turn[triangle, 0], self._turn[triangle, 1]
        x, y = local_normals[:, 0], local_normals[:, 1]
        normals = np.stack([cos * x - sin * y, sin * x + cos * y, local_normals[:, 2]], 1)
        facing = _dot(normals, view)
        normals *= np.where(facing < 0, np.float32(-1), np.float32(1))[:, None]
        material = self._material[triangle]
        stretched = width / np.maximum(np.abs(facing), 0.12) ** np.float32(0.7)
        albedo = self._palette.albedo(material, local, local_normals, stretched)
        light, shine = self._light(points, normals, view)
        glow, gloss = self._palette.glow[material], self._palette.gloss[material]
        lit = albedo * np.maximum(light, glow[:, None] * np.float32(1.3)) + (gloss * shine)[:, None]
        return lit, normals

    def _light(self, points: Array, normals: Array, view: Array) -> tuple[Array, Array]:
        """Irradiance (n, 1) and highlight (n,): ambient light, and point lights with shadows."""
        total = np.float32(_AMBIENT) * (np.float32(0.85) + np.float32(0.15) * normals[:, 2])
        shine = np.zeros(len(points), np.float32)
        start = points + normals * np.float32(2e-3)
        for x, y, z, strength in self._lights:
            to = np.array([x, y, z], np.float32) - start
            square = _dot(to, to)
            distance = np.sqrt(square)
            cosine = _dot(normals, to) / distance
            lit = cosine > 0
            lit[lit] = self.rays.is_free(start[lit], to[lit])
            reach = np.where(lit, np.float32(strength * 4.6) / (np.float32(2.2) + square), np.float32(0))
            total += reach * cosine
            half = to / distance[:, None] + view
            half /= _length(half)
            shine += reach * _power48(np.maximum(_dot(half, normals), 0))
        return total[:, None], shine

    @staticmethod
    def _edges(depth: Array, material: Array, cosine: Array) -> Array:
        """Pixels whose neighbours show another surface, bool (H, W)."""
        edge = np.zeros(depth.shape, bool)
        for axis in (0, 1):
            jump = np.abs(np.diff(depth, axis=axis)) > 0.04 * np.minimum(np.roll(depth, -1, axis), depth)[
                tuple(slice(0, n - (k == axis)) for k, n in enumerate(depth.shape))
            ]  # fmt: skip
            change = jump | (np.diff(material, axis=axis) != 0) | (np.abs(np.diff(cosine, axis=axis)) > 0.2)
            first, second = [slice(None)] * 2, [slice(None)] * 2
            first[axis], second[axis] = slice(0, -1), slice(1, None)
            edge[tuple(first)] |= change
            edge[tuple(second)] |= change
        return edge


def _dot(a: Array, b: Array) -> Array:
    return np.einsum("ij,ij->i", a, b)


def _length(vectors: Array) -> Array:
    """(n, 1), never 0."""
    return np.sqrt(_dot(vectors, vectors))[:, None] + np.float32(1e-9)


def _power48(x: Array) -> Array:
    """x to the 48th, by squaring: `**` is many times slower."""
    x16 = ((x * x) ** 2) ** 2
    x16 = x16 * x16
    return x16 * x16 * x16


def _blend(corners: Array, triangle: Array, weights: Array) -> Array:
    """Values (n, c) of corners (F, 3, c) at barycentric weights (n, 2) of triangles (n,)."""
    u, v = weights[:, 0], weights[:, 1]
    return np.einsum("nij,ni->nj", corners[triangle], np.stack([1 - u - v, u, v], 1))


def to_srgb(linear: Array) -> Array:
    """uint8 from linear RGB; bright light is pressed into range."""
    pressed = linear * (1 + linear * 0.06) / (1 + linear * 0.28)
    steps = np.clip(pressed * 4095 * 0.98, 0, 4095).astype(np.int32)
    return _GAMMA[steps]


_GAMMA = np.round(255 * (np.arange(4096) / 4095) ** (1 / 2.2)).astype(np.uint8)
