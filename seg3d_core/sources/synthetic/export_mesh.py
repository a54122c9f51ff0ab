# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""The mesh of a generated room as a scan shows it: what the frames see, in triangles of even size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...types import Array
from .render import to_srgb
from .source import SyntheticSource

_WELD = 1e-4
_SHELL = ("wall", "floor", "ceiling")


@dataclass(frozen=True, eq=False)
class ScanMesh:
    """vertices float32 (N, 3) in metres, rgb uint8 (N, 3), faces int32 (F, 3), and the object of each vertex, int32
    (N,), a key of `labels`. Vertices of different objects are never joined."""

    vertices: Array
    rgb: Array
    faces: Array
    objects: Array
    labels: dict[int, str]


def scan_mesh(source: SyntheticSource, edge: float = 0.05) -> ScanMesh:
    """Of what the source's frames see; `edge` is the longest side of a triangle in metres."""
    triangles = source.scene.triangles.astype(np.float64)
    parent, weights = subdivide(triangles, edge)
    corners = np.einsum("nij,njk->nik", weights, triangles[parent])
    viewer, _ = source.viewers(corners.mean(axis=1))
    seen = viewer >= 0
    parent, weights, corners, viewer = parent[seen], weights[seen], corners[seen], viewer[seen]
    labels = {number: str(facts["label"]) for number, facts in source.instances.items()}
    objects = _objects(source, triangles, labels)[parent]

    first, vertex = _welded(corners.reshape(-1, 3), np.repeat(objects, 3))
    faces = vertex.reshape(-1, 3).astype(np.int32)
    points, face = corners.reshape(-1, 3)[first].astype(np.float32), first // 3
    rgb = _colours(source, points, parent[face], weights.reshape(-1, 3)[first], viewer[face])
    faces = faces[(faces != np.roll(faces, 1, axis=1)).all(axis=1)]
    used = set(np.unique(objects).tolist())
    return ScanMesh(points, rgb, faces, objects[face].astype(np.int32), {k: v for k, v in labels.items() if k in used})


def _welded(points: Array, objects: Array) -> tuple[Array, Array]:
    """One of the corners (n, 3) of each vertex, int (m,), and the vertex of each corner, int (n,)."""
    # The shift keeps borders of cells away from round numbers, where corners like to lie.
    cells = np.floor(points / _WELD + 0.37).astype(np.int64)
    columns = (*(cells - cells.min(axis=0)).T, objects)
    keys = np.ravel_multi_index(columns, tuple(int(column.max()) + 1 for column in columns))
    _, first, vertex = np.unique(keys, return_index=True, return_inverse=True)
    return first, vertex


def subdivide(triangles: Array, edge: float) -> tuple[Array, Array]:
    """Pieces with no side above `edge`: the triangle (n,) that each lies in, and its corners' weights there (n, 3, 3).

    Each round halves the longest side of what is too large. A side is halved wherever it occurs if it is too long, so
    that neighbours go on sharing their corners.
    """
    parent, weights = np.arange(len(triangles)), np.tile(np.eye(3), (len(triangles), 1, 1))
    done: list[tuple[Array, Array]] = []
    while len(parent):
        corners = np.einsum("nij,njk->nik", weights, triangles[parent])
        sides = np.linalg.norm(np.roll(corners, -1, axis=1) - corners, axis=2)
        large = sides.max(axis=1) > edge
        done.append((parent[~large], weights[~large]))
        parent, weights, longest = parent[large], weights[large], sides[large].argmax(axis=1)
        order = (longest[:, None] + np.arange(3)) % 3
        a, b, c = np.moveaxis(np.take_along_axis(weights, order[:, :, None], axis=1), 1, 0)
        middle = (a + b) / 2
        parent = np.concatenate([parent, parent])
        weights = np.concatenate([np.stack([a, middle, c], 1), np.stack([middle, b, c], 1)])
    return np.concatenate([p for p, _ in done]), np.concatenate([w for _, w in done])


def _objects(source: SyntheticSource, triangles: Array, labels: dict[int, str]) -> Array:
    """The object of each triangle int (F,); walls, floor and ceiling become objects, and get their labels."""
    objects = source.scene.instance.astype(np.int64)
    first = max(labels, default=0) + 1
    labels.update({first + number: label for number, label in enumerate(_SHELL)})
    height = triangles[:, :, 2]
    is_floor = np.abs(height).max(axis=1) < 1e-3
    is_ceiling = np.abs(height - source.room.height).max(axis=1) < 1e-3
    part = np.where(is_floor, 1, np.where(is_ceiling, 2, 0))
    return np.where(objects == 0, first + part, objects)


def _colours(source: SyntheticSource, points: Array, triangle: Array, weights: Array, viewer: Array) -> Array:
    view = source.poses[viewer, :3, 3].astype(np.float32) - points
    distance = np.linalg.norm(view, axis=1, keepdims=True)
    width = distance[:, 0] / np.float32(source.camera.fx)
    linear, _ = source.scene.shade(triangle, weights[:, 1:].astype(np.float32), points, view / distance, width)
    return to_srgb(linear)
