# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""From one downloaded scan to one cache file."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np

from seg3d_core.errors import Seg3DError, SourceError
from seg3d_core.mapping.neighbours import map_neighbours
from seg3d_core.mapping.superpoints import mesh_superpoints, superpoints
from seg3d_core.sources.sens import SensFile
from seg3d_core.types import Array, Cloud

from .prepare_map import fused_cloud, nearest_vertices, thinned
from .readers_cache import FORMAT, CachedScene, read_scene, write_scene
from .readers_labels import CategoryIds, read_label_table
from .readers_scannet import (
    PointLabels,
    ScanFiles,
    contiguous,
    label_points,
    read_aggregation,
    read_mesh,
    read_segments,
)

Partition = Literal["segments", "points"]
PointSource = Literal["mesh", "map"]


@dataclass(frozen=True)
class SceneSettings:
    """How scenes are made. Raises Seg3DError for settings that exclude each other.

    frame_stride: every how many-th frame is chosen; superpoints: `segments` takes those of the mesh (computed where
    the scan has none), `points` computes those that the core has of a cloud; with_images: read the `.sens`; points:
    the vertices of the mesh, or the map that the core fuses of the chosen frames, of `map_voxel` metres, which has the
    core's superpoints; keep_voxel: of that map, one point for each superpoint and cube of so many metres, the mean of
    those there; 0 keeps all.
    """

    frame_stride: int = 20
    superpoints: Partition = "segments"
    with_images: bool = True
    points: PointSource = "mesh"
    map_voxel: float = 0.02
    keep_voxel: float = 0.0

    def __post_init__(self) -> None:
        if self.keep_voxel and self.points != "map":
            raise Seg3DError("points are thinned out in the core's map alone: --keep-voxel needs --points map")
        if self.points == "map" and not (self.with_images and self.superpoints == "points"):
            raise Seg3DError("points of the core's map come from images, and have superpoints of points")

    def text(self) -> str:
        return json.dumps({"format": FORMAT, **asdict(self)}, sort_keys=True)


@dataclass(frozen=True)
class SceneTask:
    """One scan, ScanNet's table of labels, where the cache file goes, and how."""

    scan: ScanFiles
    table: Path
    target: Path
    settings: SceneSettings

    @property
    def name(self) -> str:
        return self.scan.scene


@dataclass(frozen=True)
class Outcome:
    """What became of a task; `notes` are for a person."""

    made: bool
    notes: tuple[str, ...] = ()


def look_at(target: Path, is_current: Callable[[], bool]) -> tuple[bool, tuple[str, ...]]:
    """Whether a file is there and as the settings say, and why one that is there has to be made again."""
    if not target.is_file():
        return False, ()
    try:
        if is_current():
            return True, ()
    except Seg3DError as error:
        return False, (f"made again: {str(error).split(';')[0]}",)
    return False, (f"{target.name} was made by other settings and is made again",)


def prepare_scene(task: SceneTask) -> Outcome:
    """Makes the cache file unless it is there, whole, and made by the same settings. Raises Seg3DError."""
    is_current, notes = look_at(task.target, lambda: read_scene(task.target).settings == task.settings.text())
    if is_current:
        return Outcome(made=False)
    missing = task.scan.missing(task.settings.with_images)
    if missing:
        raise SourceError(f"{task.scan.folder} lacks {', '.join(missing)}: fetch it with ScanNet's download script")
    scene, unknown = read_scan(task)
    write_scene(task.target, scene)
    if unknown:
        notes += (f"categories that the table lacks count as unlabelled: {', '.join(unknown)}",)
    return Outcome(made=True, notes=notes)


def read_scan(task: SceneTask) -> tuple[CachedScene, tuple[str, ...]]:
    """The scan, and its raw categories that the table lacks. Raises SourceError."""
    scan, settings = task.scan, task.settings
    xyz, rgb, faces = read_mesh(scan.mesh)
    nothing = np.zeros(len(xyz), np.int16)
    labels = PointLabels(nothing.astype(np.int32), nothing, nothing)
    segments: Array | None = None
    if not scan.is_test:
        segments = read_segments(scan.segments, len(xyz))
        labels = label_points(segments, read_aggregation(scan.aggregation), _table(task.table))
    if settings.points == "map":
        vertices = xyz
        xyz, rgb, parts = map_points(fused_cloud(scan.sens, settings.frame_stride, settings.map_voxel), settings)
        labels = labels.at(nearest_vertices(xyz, vertices))
    elif settings.superpoints == "points":
        parts = _superpoints_of_points(xyz, rgb, faces)
    else:
        parts = contiguous(mesh_superpoints(xyz, faces) if segments is None else segments)
    frames, poses, intrinsics, sizes = _chosen_frames(scan.sens, settings)
    scene = CachedScene(
        xyz, rgb, parts, labels.instance, labels.scannet20_ids, labels.scannet200_ids, frames, poses, intrinsics[1],
        intrinsics[0], sizes, settings.text(),
    )  # fmt: skip
    return scene, labels.unknown


def map_points(cloud: Cloud, settings: SceneSettings) -> tuple[Array, Array, Array]:
    """Points (N, 3), colours (N, 3) and superpoints int (N,) of the core's map, thinned out where the settings say."""
    parts = superpoints(cloud, map_neighbours(cloud.xyz))
    if not settings.keep_voxel:
        return cloud.xyz, cloud.rgb, parts
    return thinned(cloud.xyz, cloud.rgb, parts, settings.keep_voxel)


@lru_cache(maxsize=2)
def _table(path: Path) -> dict[str, CategoryIds]:
    return read_label_table(path)


def _chosen_frames(path: Path, settings: SceneSettings) -> tuple[Array, Array, Array, Array]:
    """Numbers (F,) and poses (F, 4, 4) of every n-th frame with a pose; intrinsics (2, 4, 4) and sizes (2, 2) of
    colour and depth."""
    intrinsics, sizes = np.tile(np.eye(4), (2, 1, 1)), np.zeros((2, 2), np.int32)
    if not settings.with_images:
        return np.zeros(0, np.int32), np.zeros((0, 4, 4)), intrinsics, sizes
    file = SensFile(path)
    has_pose = np.isfinite(file.poses.reshape(len(file), 16)).all(axis=1)
    frames = np.arange(0, len(file), settings.frame_stride, dtype=np.int32)
    frames = frames[np.asarray(has_pose)[frames]]
    for number, camera in enumerate((file.header.colour_camera, file.header.depth_camera)):
        intrinsics[number, :3, :3], sizes[number] = camera.matrix, camera.size
    return frames, file.poses[frames], intrinsics, sizes


def _superpoints_of_points(xyz: Array, rgb: Array, faces: Array) -> Array:
    normals = vertex_normals(xyz, faces)
    cloud = Cloud(np.arange(1, len(xyz) + 1), xyz, rgb, normals, np.ones(len(xyz), np.float32))
    return superpoints(cloud, map_neighbours(xyz))


def vertex_normals(xyz: Array, faces: Array) -> Array:
    """float32 (N, 3): of the faces around each vertex, the larger the heavier; 0 where there is none."""
    a, b, c = (xyz[faces[:, corner]].astype(np.float64) for corner in range(3))
    areas = np.cross(b - a, c - a)
    sums = np.stack(
        [np.bincount(faces.ravel(), np.repeat(areas[:, axis], 3), minlength=len(xyz)) for axis in range(3)], axis=1
    )
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    return (sums / np.where(lengths > 0, lengths, 1)).astype(np.float32)
