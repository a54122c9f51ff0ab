# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Casting rays at triangles, by Embree or, where it has no wheel, by Open3D (which holds Embree too)."""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import SourceError
from ...types import Array


@dataclass(frozen=True, eq=False)
class Hits:
    """What n rays met: distance float32 (n,) in lengths of the direction, inf for none; triangle int32 (n,), -1 for
    none; the hit's barycentric weights of the triangle's second and third corner, float32 (n, 2)."""

    distance: Array
    triangle: Array
    weights: Array


@dataclass(frozen=True)
class Caster:
    """`nearest` of origins (n, 3) and directions (n, 3) finds the first triangle on each ray; `is_free`, bool (n,),
    says whether nothing lies on the way from each origin to origin + direction."""

    nearest: Callable[[Array, Array], Hits]
    is_free: Callable[[Array, Array], Array]


def require_caster() -> str:
    """The name of the library that casts the rays; `SourceError` when there is none."""
    for name in ("embreex", "open3d"):
        if importlib.util.find_spec(name) is not None:
            return name
    raise SourceError("synthetic rooms need a ray caster and none is installed: pip install 'seg3d[synthetic]'")


def ray_caster(triangles: Array) -> Caster:
    """Rays against triangles (F, 3, 3)."""
    return _embree(triangles) if require_caster() == "embreex" else _open3d(triangles)


def _embree(triangles: Array) -> Caster:
    from embreex.mesh_construction import TriangleMesh
    from embreex.rtcore_scene import EmbreeScene

    scene = EmbreeScene()
    # The mesh is held by the closure: Embree reads it for as long as the scene lives.
    mesh = TriangleMesh(scene, np.ascontiguousarray(triangles, np.float32))

    def nearest(origins: Array, directions: Array, _mesh: object = mesh) -> Hits:
        if not len(origins):
            return Hits(np.empty(0, np.float32), np.empty(0, np.int32), np.empty((0, 2), np.float32))
        found = scene.run(
            np.ascontiguousarray(origins, np.float32), np.ascontiguousarray(directions, np.float32), output=1
        )
        hit = found["primID"] >= 0
        distance = np.where(hit, found["tfar"], np.float32(np.inf))
        return Hits(distance, found["primID"], np.stack([found["u"], found["v"]], 1))

    def is_free(origins: Array, directions: Array, _mesh: object = mesh) -> Array:
        if not len(origins):
            return np.empty(0, bool)
        start, way = np.ascontiguousarray(origins, np.float32), np.ascontiguousarray(directions, np.float32)
        return scene.run(start, way, dists=np.ones(len(start), np.float32), query="OCCLUDED") < 0

    return Caster(nearest, is_free)


def _load_open3d() -> Any:
    """Open3D wants libusb although nothing here uses it; where the system has none, a pip package brings it."""
    if importlib.util.find_spec("libusb_package") is not None:
        library = importlib.import_module("libusb_package").get_library_path()
        ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
    try:
        return importlib.import_module("open3d")
    except (ImportError, OSError) as error:
        raise SourceError(
            f"open3d, which casts the rays of synthetic rooms here, does not load ({error}): "
            "pip install libusb-package, or install what the message names"
        ) from error


def _open3d(triangles: Array) -> Caster:
    o3d = _load_open3d()
    scene = o3d.t.geometry.RaycastingScene()
    vertices = o3d.core.Tensor(np.ascontiguousarray(triangles.reshape(-1, 3), np.float32))
    faces = o3d.core.Tensor(np.arange(3 * len(triangles), dtype=np.uint32).reshape(-1, 3))
    scene.add_triangles(vertices, faces)

    def rays(origins: Array, directions: Array) -> Any:
        return o3d.core.Tensor(np.concatenate([origins, directions], 1).astype(np.float32))

    def nearest(origins: Array, directions: Array) -> Hits:
        found = scene.cast_rays(rays(origins, directions))
        distance = found["t_hit"].numpy()
        triangle = np.where(np.isfinite(distance), found["primitive_ids"].numpy().astype(np.int64), -1)
        return Hits(distance, triangle.astype(np.int32), found["primitive_uvs"].numpy())

    def is_free(origins: Array, directions: Array) -> Array:
        return ~scene.test_occlusions(rays(origins, directions), 0.0, 1.0).numpy()

    return Caster(nearest, is_free)
