# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""From the points of scenes to features and positions of their superpoints (SegDINO3D sec. 3.2).

Points become voxels, a 3D U-Net sees the voxels, each point takes its voxel's row, and a superpoint the mean of its
points.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from seg3d_core.errors import Seg3DError

from ..sparse import Backend, CoordinateSet, SparseTensor, TorchBackend, distinct_voxels

Convention = Literal["minkowski", "spconv"]

VOXEL_SIZE = 0.02
"""Metres, of the published networks."""
COLOUR_MEAN = (0.47793125906962, 0.4303257521323044, 0.3749598901421883)
COLOUR_STD = (0.2834475483823543, 0.27566157565723015, 0.27018971370874995)
# spconv needs room for its coarsest level in small scenes.
_LEAST_EXTENT = 128


@dataclass(frozen=True, eq=False)
class Points:
    """One scene as the network sees it.

    Args:
        xyz: (N, 3) float32, metres.
        colours: (N, 3) float32, normalised (`normalise_colours`).
        superpoints: (N,) int64, ids from 0; an id that no point has gives a superpoint of zeros.
        image_features: (N, F) float32, or None for a network on colours alone.
        warped: (N, 3) float32, elastically moved positions in voxel units; in training only.

    Raises:
        Seg3DError: no points, or arrays of different lengths.
    """

    xyz: Tensor
    colours: Tensor
    superpoints: Tensor
    image_features: Tensor | None = None
    warped: Tensor | None = None

    def __post_init__(self) -> None:
        n = len(self.xyz)
        if n == 0:
            raise Seg3DError("A scene without points cannot enter the network: it has no instances")
        for name in ("colours", "superpoints", "image_features", "warped"):
            values = getattr(self, name)
            if values is not None and len(values) != n:
                raise Seg3DError(f"A scene has {n} points but {len(values)} {name}")


@dataclass(frozen=True, eq=False)
class Voxels:
    """Voxels of a batch, sorted by (batch, x, y, z), with mean features (V, C); `point_rows` (N,): point to voxel."""

    coordinates: CoordinateSet
    features: Tensor
    point_rows: Tensor


@dataclass(frozen=True, eq=False)
class Superpoints:
    """What the decoder sees of one scene.

    Args:
        features: (S, C), mean over points.
        positions: (S, 3) metres, means of quantised (in training: warped) points.
        positions_unwarped: (S, 3) metres, the same without the warp.
        low, high: (3,) metres, range of the (in training: warped) points, not quantised.
    """

    features: Tensor
    positions: Tensor
    positions_unwarped: Tensor
    low: Tensor
    high: Tensor


def normalise_colours(rgb: Tensor) -> Tensor:
    """(N, 3) colours from 0 to 255, as the published networks saw them."""
    mean, std = (255 * rgb.new_tensor(values) for values in (COLOUR_MEAN, COLOUR_STD))
    return (rgb - mean) / std


def encode_scenes(
    backbone: nn.Module, scenes: Sequence[Points], backend: Backend | None = None, voxel_size: float = VOXEL_SIZE
) -> list[Superpoints]:
    """Runs a backbone (`MinkUNet`, `SpConvUNet`) on a batch of scenes; the device is that of the points.

    Raises:
        Seg3DError: the features of the points are not those that the backbone was made for.
    """
    convention: Convention = backbone.convention
    # Joined as voxels, which are fewer than points.
    columns = zip(*(_point_columns(scene, convention) for scene in scenes), strict=True)
    voxels = _voxelise(scenes, list(columns), convention, voxel_size)
    if voxels.features.shape[1] != backbone.in_channels:
        raise Seg3DError(
            f"The points have {voxels.features.shape[1]} features, the network takes {backbone.in_channels}: "
            "3 colours, with spconv 3 positions, and the image features that it was trained with"
        )
    output = backbone(SparseTensor(voxels.features, voxels.coordinates, backend or TorchBackend()))
    return pool(scenes, output.features, voxels.point_rows, convention, voxel_size)


def point_features(scene: Points, convention: Convention) -> Tensor:
    """(N, C): colours, for spconv the position about the scene's mean (metres, unwarped), image features."""
    return torch.cat(_point_columns(scene, convention), dim=1)


def _point_columns(scene: Points, convention: Convention) -> list[Tensor]:
    columns = [scene.colours]
    if convention == "spconv":
        columns.append(scene.xyz - scene.xyz.mean(dim=0))
    if scene.image_features is not None:
        columns.append(scene.image_features)
    return columns


def voxelise(
    scenes: Sequence[Points], features: Sequence[Tensor], convention: Convention, voxel_size: float = VOXEL_SIZE
) -> Voxels:
    """Mean features of the points of each voxel.

    Minkowski: floor(position / size), negative indices stay. spconv: the minimum of the scene is subtracted first, and
    the extents, which decide on voxels without a parent, are those of the whole batch.
    """
    return _voxelise(scenes, [features], convention, voxel_size)


def _voxelise(
    scenes: Sequence[Points], columns: Sequence[Sequence[Tensor]], convention: Convention, voxel_size: float
) -> Voxels:
    """`voxelise` of features in several groups of columns, each scene by scene."""
    size = scenes[0].xyz.new_tensor(voxel_size)
    cells = [
        _in_voxels(scene, convention, size) if convention == "minkowski" else _from_minimum(scene, size)
        for scene in scenes
    ]
    indices = torch.cat([nn.functional.pad(cell.floor().long(), (1, 0), value=i) for i, cell in enumerate(cells)])
    unique, rows = distinct_voxels(indices)
    extents = None
    if convention == "spconv":
        x, y, z = (max(int(value) + 1, _LEAST_EXTENT) for value in unique[:, 1:].amax(dim=0))
        extents = (x, y, z)
    groups = Groups(rows, len(unique))
    parts = (group[0] if len(group) == 1 else torch.cat(list(group)) for group in columns)
    means = torch.cat([groups.means(part) for part in parts], dim=1)
    return Voxels(CoordinateSet(unique, extents=extents), means, rows)


def pool(
    scenes: Sequence[Points],
    voxel_features: Tensor,
    point_rows: Tensor,
    convention: Convention,
    voxel_size: float = VOXEL_SIZE,
) -> list[Superpoints]:
    """Voxel features (V, C) to superpoints, scene by scene."""
    size = scenes[0].xyz.new_tensor(voxel_size)
    rows_of_scenes = torch.split(point_rows, [len(scene.xyz) for scene in scenes])
    result = []
    for scene, rows in zip(scenes, rows_of_scenes, strict=True):
        ids = scene.superpoints
        n = int(ids.max()) + 1
        groups = Groups(ids, n)
        corners = _in_voxels(scene, convention, size).floor() * size
        corners_unwarped = (scene.xyz / size).floor() * size
        moved = scene.xyz if scene.warped is None else scene.warped * size
        result.append(
            Superpoints(
                features=groups.means(voxel_features, rows),
                positions=groups.means(corners),
                positions_unwarped=groups.means(corners_unwarped),
                low=moved.amin(dim=0),
                high=moved.amax(dim=0),
            )
        )
    return result


def mean_per_group(values: Tensor, groups: Tensor, n_groups: int) -> Tensor:
    """Mean of values (N, C) over the members of each group, zero for a group without any: (n_groups, C).

    `groups` int64 (N,), below n_groups.
    """
    return Groups(groups, n_groups).means(values)


class Groups:
    """Which group, below `count`, each of N members is in, int64 (N,); sorted once for several means."""

    def __init__(self, groups: Tensor, count: int):
        self._order = torch.argsort(groups, stable=True)
        self._begins = nn.functional.pad(torch.bincount(groups, minlength=count).cumsum(0), (1, 0))

    def means(self, values: Tensor, rows: Tensor | None = None) -> Tensor:
        """Of values (R, C) over each group's members: (count, C). `rows` (N,): which value each has; None: its own."""
        members = self._order if rows is None else rows[self._order]
        options: dict[str, Any] = {"mode": "mean", "include_last_offset": True}
        return nn.functional.embedding_bag(members, values, self._begins, **options)


def _in_voxels(scene: Points, convention: Convention, size: Tensor) -> Tensor:
    """Positions (N, 3) in voxel units. Minkowski's way passes through metres: a point on a border may move."""
    if scene.warped is None:
        return scene.xyz / size
    return scene.warped if convention == "spconv" else (scene.warped * size) / size


def _from_minimum(scene: Points, size: Tensor) -> Tensor:
    if scene.warped is None:
        return (scene.xyz - scene.xyz.amin(dim=0)) / size
    return scene.warped - scene.warped.amin(dim=0)
