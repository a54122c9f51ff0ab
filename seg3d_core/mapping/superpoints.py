# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Superpoints: parts of a surface that belong to one thing whatever the thing is, from points or from a mesh.

`superpoints` and `mesh_superpoints` join the most alike neighbours first, as long as a part's outline is no more
unlike than its inside (Felzenszwalb and Huttenlocher, "Efficient Graph-Based Image Segmentation", 2004).
`surface_components` follows the surface until a concave fold or a step ends it. A convex fold, which may well be
the edge of a box, counts little or nothing in all three.
"""

# numba infers the types of kernels.
# mypy: allow-untyped-defs

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from ..errors import Seg3DError
from ..types import Array, Cloud
from .neighbours import Neighbours

# Edges are sorted by counting: weights, from 0 to 1, are rounded down to steps of 1 / (LEVELS - 1).
LEVELS = 4096


class Unlikeness(NamedTuple):
    """What makes the edge between two neighbours p and q heavy; the parts add up, and 1 is the most.

    The fold counts 1 - n_p . n_q, or `convex` times that where it is convex, n_p and n_q being their normals;
    a step between parallel surfaces `step` x (the smaller of |v . n_p| and |v . n_q|)^2 x (n_p . n_q), v being the
    direction from p to q; colour `colour` x (distance in 8-bit RGB / `contrast`)^2, of which `colour` is the most.
    Where a normal is unknown, colour alone counts.
    """

    convex: float = 0.05
    step: float = 3.0
    colour: float = 0.3
    contrast: float = 100.0


def superpoints(
    cloud: Cloud,
    neighbours: Neighbours,
    threshold: float = 0.07,
    min_points: int = 20,
    unlikeness: Unlikeness | None = None,
) -> Array:
    """The superpoint of each point of a cloud, int32 (N,), numbered 0..S-1 by their first points.

    Two parts join across an edge of weight w where w <= heaviest edge inside + `threshold` / points, for both;
    a larger `threshold` gives larger parts. Then parts of fewer than `min_points` points join the neighbour
    across the lightest edge; only what has no neighbour stays smaller.
    Raises Seg3DError where the graph is not one of the cloud.
    """
    _check(cloud, neighbours)
    parts = (np.float32(value) for value in unlikeness or Unlikeness())
    levels, counts = _weigh(neighbours.indptr, neighbours.indices, *_arrays(cloud), *parts)
    first, second, weights = _sorted_edges(neighbours.indptr, neighbours.indices, levels, np.cumsum(counts))
    return _merge(first, second, weights, len(cloud), np.float32(threshold), min_points)


def surface_components(
    cloud: Cloud,
    neighbours: Neighbours,
    labels: Array | None = None,
    fold: float = np.deg2rad(25),
    convex: float = 0.1,
    step: float = 0.35,
) -> Array:
    """The connected part of the surface on which each point lies, int32 (N,), numbered 0..S-1 by their first points.

    Neighbours p and q are connected unless `labels` int (N,) differ, where given, or their normals differ by more
    than `fold` (rad) and the fold is not convex: (n_q - n_p) . v <= `convex`, v being the unit vector from p to q;
    or their normals agree that well and there is a step: |v . n_p| or |v . n_q| above `step`. Where a normal is
    unknown nothing separates but labels. Raises Seg3DError where the graph or the labels are not those of the cloud.
    """
    _check(cloud, neighbours)
    if labels is None:
        labels = np.zeros(len(cloud), np.int64)
    elif np.shape(labels) != (len(cloud),):
        raise Seg3DError(f"labels of shape {np.shape(labels)} for a cloud of {len(cloud)} points")
    labels = np.require(labels, np.int64, ["C", "A", "W"])
    xyz, normals, _ = _arrays(cloud)
    return _components(
        neighbours.indptr,
        neighbours.indices,
        xyz,
        normals,
        labels,
        np.float32(np.cos(fold)),
        np.float32(convex),
        np.float32(step),
    )


def mesh_superpoints(vertices: Array, faces: Array, threshold: float = 0.01, min_vertices: int = 20) -> Array:
    """ScanNet's own superpoints of a mesh, int32 (N,), numbered 0..S-1 by their first vertices.

    vertices float (N, 3) in metres; faces int (F, 3). Weights are 1 - n_a . n_b, squared where the fold is convex;
    a vertex normal is the mean of the unit normals of its faces. In float32, as the public tool computes, whose
    segments these are. Raises Seg3DError for faces of vertices that do not exist.
    """
    vertices = np.require(vertices, np.float32, ["C", "A", "W"])
    faces = np.require(faces, np.int64, ["C", "A", "W"])
    if vertices.ndim != 2 or vertices.shape[1] != 3 or faces.ndim != 2 or faces.shape[1] != 3:
        raise Seg3DError(f"vertices of shape {vertices.shape}, faces of {faces.shape}: expected (N, 3) and (F, 3)")
    if len(faces) and (faces.min() < 0 or faces.max() >= len(vertices)):
        raise Seg3DError(f"faces name vertices from {faces.min()} to {faces.max()}; there are {len(vertices)}, from 0")
    first, second = faces[:, [0, 0, 2]].reshape(-1), faces[:, [1, 2, 1]].reshape(-1)
    weights = _mesh_weights(vertices, _vertex_normals(vertices, faces), first, second)
    order = np.argsort(weights, kind="stable")
    return _merge(first[order], second[order], weights[order], len(vertices), np.float32(threshold), min_vertices)


def _check(cloud: Cloud, neighbours: Neighbours) -> None:
    if len(neighbours) != len(cloud):
        raise Seg3DError(f"a neighbour graph of {len(neighbours)} points for a cloud of {len(cloud)}: build it anew")


def _arrays(cloud: Cloud) -> tuple[Array, Array, Array]:
    kinds = ((cloud.xyz, np.float32), (cloud.normals, np.float32), (cloud.rgb, np.uint8))
    xyz, normals, rgb = (np.require(values, dtype, ["C", "A", "W"]) for values, dtype in kinds)
    return xyz, normals, rgb


@njit(inline="always")
def fold_between(xyz, normals, p, q):
    """(n_p . n_q, v . n_p, v . n_q), float32, v the unit vector from p to q; (2, 0, 0) where that is unknown.

    The fold is convex where v . n_q > v . n_p.
    """
    zero, one = np.float32(0), np.float32(1)
    ax, ay, az = normals[p, 0], normals[p, 1], normals[p, 2]
    bx, by, bz = normals[q, 0], normals[q, 1], normals[q, 2]
    vx, vy, vz = xyz[q, 0] - xyz[p, 0], xyz[q, 1] - xyz[p, 1], xyz[q, 2] - xyz[p, 2]
    length = np.sqrt(vx * vx + vy * vy + vz * vz)
    if length == 0 or (ax == 0 and ay == 0 and az == 0) or (bx == 0 and by == 0 and bz == 0):
        return np.float32(2), zero, zero
    inverse = one / length
    up_p, up_q = (ax * vx + ay * vy + az * vz) * inverse, (bx * vx + by * vy + bz * vz) * inverse
    return min(ax * bx + ay * by + az * bz, one), up_p, up_q


@njit(inline="always")
def _colour_distance(rgb, p, q):
    """Squared, float32."""
    r = np.float32(rgb[p, 0]) - np.float32(rgb[q, 0])
    g = np.float32(rgb[p, 1]) - np.float32(rgb[q, 1])
    b = np.float32(rgb[p, 2]) - np.float32(rgb[q, 2])
    return r * r + g * g + b * b


@njit(cache=True, nogil=True)
def _weigh(indptr, indices, xyz, normals, rgb, convex, step, colour, contrast):
    """The level uint16 (E / 2,) of each edge p < q in the graph's order, and how many have each: int64, one later."""
    zero, one = np.float32(0), np.float32(1)
    levels = np.empty(len(indices) // 2, np.uint16)
    counts = np.zeros(LEVELS + 1, np.int64)
    per_colour = colour / (contrast * contrast)
    e = 0
    for p in range(len(xyz)):
        for k in range(indptr[p], indptr[p + 1]):
            q = indices[k]
            if q < p:
                continue
            weight = min(per_colour * _colour_distance(rgb, p, q), colour)
            cosine, up_p, up_q = fold_between(xyz, normals, p, q)
            if cosine <= one:
                out = min(abs(up_p), abs(up_q))
                weight += (one - cosine) * (convex if up_q > up_p else one)
                weight += step * out * out * max(cosine, zero)
            level = int(min(weight, one) * np.float32(LEVELS - 1))
            levels[e] = level
            counts[level + 1] += 1
            e += 1
    return levels, counts


@njit(cache=True, nogil=True)
def _sorted_edges(indptr, indices, levels, starts):
    """Ends int32 (E / 2,) and weights float32 (E / 2,), lightest first, else in the graph's order.

    `starts` is where each level begins; it is used up.
    """
    first, second = np.empty(len(levels), np.int32), np.empty(len(levels), np.int32)
    weights = np.empty(len(levels), np.float32)
    e = 0
    for p in range(len(indptr) - 1):
        for k in range(indptr[p], indptr[p + 1]):
            if indices[k] < p:
                continue
            place = starts[levels[e]]
            starts[levels[e]] += 1
            first[place], second[place] = p, indices[k]
            weights[place] = np.float32(levels[e]) / np.float32(LEVELS - 1)
            e += 1
    return first, second, weights


@njit(cache=True, nogil=True)
def _root(parents, i):
    while parents[i] != i:
        parents[i] = parents[parents[i]]
        i = parents[i]
    return i


@njit(cache=True, nogil=True)
def _join(parents, sizes, a, b):
    """Joins two roots and returns the new one, that of the larger part."""
    if sizes[a] < sizes[b]:
        a, b = b, a
    parents[b] = a
    sizes[a] += sizes[b]
    return a


@njit(cache=True, nogil=True)
def _merge(first, second, weights, count, threshold, min_points):
    """Felzenszwalb and Huttenlocher's merging over sorted edges, then that of parts that are too small."""
    parents = np.arange(count).astype(np.int32)
    sizes = np.ones(count, np.int32)
    limits = np.full(count, threshold, np.float32)
    for e in range(len(first)):
        a, b = _root(parents, first[e]), _root(parents, second[e])
        if a != b and weights[e] <= limits[a] and weights[e] <= limits[b]:
            a = _join(parents, sizes, a, b)
            limits[a] = weights[e] + threshold / np.float32(sizes[a])
    for e in range(len(first)):
        a, b = _root(parents, first[e]), _root(parents, second[e])
        if a != b and (sizes[a] < min_points or sizes[b] < min_points):
            _join(parents, sizes, a, b)
    return _numbered(parents)


@njit(cache=True, nogil=True)
def _numbered(parents):
    """The number int32 (N,) of each one's part, by first appearance."""
    numbers = np.full(len(parents), -1, np.int32)
    out = np.empty(len(parents), np.int32)
    count = 0
    for i in range(len(parents)):
        root = _root(parents, i)
        if numbers[root] < 0:
            numbers[root] = count
            count += 1
        out[i] = numbers[root]
    return out


@njit(cache=True, nogil=True)
def _components(indptr, indices, xyz, normals, labels, least_cosine, convex, step):
    parents = np.arange(len(xyz)).astype(np.int32)
    sizes = np.ones(len(xyz), np.int32)
    for p in range(len(xyz)):
        for k in range(indptr[p], indptr[p + 1]):
            q = indices[k]
            if q < p or labels[p] != labels[q]:
                continue
            cosine, up_p, up_q = fold_between(xyz, normals, p, q)
            if cosine < least_cosine:
                connected = up_q - up_p > convex
            else:
                connected = max(abs(up_p), abs(up_q)) <= step
            if connected:
                a, b = _root(parents, p), _root(parents, q)
                if a != b:
                    _join(parents, sizes, a, b)
    return _numbered(parents)


@njit(cache=True, nogil=True)
def _vertex_normals(vertices, faces):
    """The running mean of the unit normals of each vertex's faces, float32 (N, 3), not of unit length."""
    one = np.float32(1)
    normals = np.zeros(vertices.shape, np.float32)
    counts = np.zeros(len(vertices), np.int64)
    for f in range(len(faces)):
        a, b, c = vertices[faces[f, 0]], vertices[faces[f, 1]], vertices[faces[f, 2]]
        ux, uy, uz = b[0] - a[0], b[1] - a[1], b[2] - a[2]
        wx, wy, wz = c[0] - a[0], c[1] - a[1], c[2] - a[2]
        x, y, z = uy * wz - uz * wy, uz * wx - ux * wz, ux * wy - uy * wx
        length = np.sqrt(x * x + y * y + z * z)
        if length > 0:
            x, y, z = x / length, y / length, z / length
        for k in range(3):
            i = faces[f, k]
            share = one / np.float32(counts[i] + 1)
            normals[i, 0] = share * x + (one - share) * normals[i, 0]
            normals[i, 1] = share * y + (one - share) * normals[i, 1]
            normals[i, 2] = share * z + (one - share) * normals[i, 2]
            counts[i] += 1
    return normals


@njit(cache=True, nogil=True)
def _mesh_weights(vertices, normals, first, second):
    weights = np.empty(len(first), np.float32)
    for e in range(len(first)):
        a, b = first[e], second[e]
        dot = normals[a, 0] * normals[b, 0] + normals[a, 1] * normals[b, 1] + normals[a, 2] * normals[b, 2]
        x, y, z = vertices[b, 0] - vertices[a, 0], vertices[b, 1] - vertices[a, 1], vertices[b, 2] - vertices[a, 2]
        weight = np.float32(1) - dot
        if normals[b, 0] * x + normals[b, 1] * y + normals[b, 2] * z > 0:
            weight *= weight
        weights[e] = weight
    return weights
