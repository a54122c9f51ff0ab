# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""The occupied voxels of a batch at one resolution, with their neighbourhoods and their parents."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from seg3d_core.errors import Seg3DError

from .kernel_map import KernelMap

_FARTHEST_KEY = torch.iinfo(torch.int64).max
# Each takes some 30 bytes while it runs.
_SEARCHES_AT_ONCE = 1 << 24


@dataclass(frozen=True, eq=False)
class Strides:
    """A set of voxels beside its parents: the pairs downwards and upwards."""

    parents: CoordinateSet
    down: KernelMap
    up: KernelMap


class CoordinateSet:
    """Voxels without duplicates, in any row order; everything derived from them is computed once.

    Args:
        indices: (V, 4) integers, columns (batch, x, y, z), in units of this resolution; negative x, y, z are fine.
        stride: edge of one voxel in voxels of the finest resolution.
        extents: spconv's bounds of x, y, z (its `spatial_shape`): a voxel in the last incomplete cell has no parent.
            None for Minkowski's convention, in which every voxel has one.

    Raises:
        Seg3DError: indices of another shape or type, outside `extents`, repeated, or too far apart for 64 bits.
    """

    def __init__(self, indices: Tensor, stride: int = 1, extents: tuple[int, int, int] | None = None):
        if indices.ndim != 2 or indices.shape[1] != 4 or indices.is_floating_point():
            kind = f"{tuple(indices.shape)}, {indices.dtype}"
            raise Seg3DError(f"Voxel indices must be integers of shape (V, 4): batch, x, y, z; these are {kind}")
        self.indices = indices.long()
        self.stride = stride
        self.extents = extents
        if extents is not None and len(indices):
            inside = (self.indices[:, 1:] >= 0) & (self.indices[:, 1:] < self.indices.new_tensor(extents))
            if not bool(inside.all()):
                raise Seg3DError(f"Voxel indices must lie in 0..{extents} (exclusive): subtract the scene's minimum")
        self.derived: dict[object, Any] = {}
        """What other libraries than torch derived from these voxels."""
        self._neighbourhoods: dict[int, KernelMap] = {}
        self._strides: dict[int, Strides] = {}

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def coordinates(self) -> Tensor:
        """(V, 4) int64: batch, then x, y, z in voxels of the finest resolution."""
        return self.indices * self.indices.new_tensor([1, self.stride, self.stride, self.stride])

    def coarser_extents(self, size: int) -> tuple[int, int, int] | None:
        """The parents' extents, which leave the last incomplete cell out."""
        if self.extents is None:
            return None
        x, y, z = ((extent - size) // size + 1 for extent in self.extents)
        return x, y, z

    def neighbourhood(self, size: int) -> KernelMap:
        """Pairs of a submanifold convolution with `size`^3 weights, x fastest; the result has the same rows.

        Raises:
            Seg3DError: an even size, which has no centre.
        """
        if size % 2 == 0:
            raise Seg3DError(f"A submanifold convolution needs an odd kernel size, not {size}")
        if size not in self._neighbourhoods:
            self._neighbourhoods[size] = self._find_neighbours(size)
        return self._neighbourhoods[size]

    def neighbour_rows(self, size: int) -> Tensor:
        """The same pairs as int32 (size^3, V): the source row of every weight and target, -1 where there is none.

        For whom a table serves better than pairs: the GPU makes it without waiting for the number of pairs.
        """
        if size % 2 == 0:
            raise Seg3DError(f"A submanifold convolution needs an odd kernel size, not {size}")
        indices, order = self._sorted
        n, radius = len(indices), size // 2
        rows = torch.full((size**3, n), -1, dtype=torch.int32, device=indices.device)
        if not n:
            return rows
        grid = _Grid(indices, radius)
        keys = grid.keys(indices)
        wanted = keys if order is None else grid.keys(self.indices)
        around = range(-radius, radius + 1)
        steps = keys.new_tensor([grid.step(x, y) + z for z in around for y in around for x in around])
        at_once = max(1, _SEARCHES_AT_ONCE // n)
        for first in range(0, len(steps), at_once):
            sought = wanted + steps[first : first + at_once, None]
            found = torch.searchsorted(keys, sought).clamp_(max=n - 1)
            source = found if order is None else order[found]
            rows[first : first + at_once] = torch.where(keys[found] == sought, source, -1).int()
        return rows

    def strides(self, size: int) -> Strides:
        """The parents, each of `size`^3 cells, and which child lies where in its parent (x fastest).

        Minkowski: every voxel has a parent, floor(index / size). spconv: those beyond the last whole cell have none.
        """
        if size not in self._strides:
            self._strides[size] = self._find_parents(size)
        return self._strides[size]

    @cached_property
    def _sorted(self) -> tuple[Tensor, Tensor | None]:
        """Row numbers by (batch, x, y, z), and None for them where the rows lie in that order already."""
        keys = _Grid(self.indices).keys(self.indices)
        is_sorted = bool((keys[1:] > keys[:-1]).all())
        if is_sorted:
            return self.indices, None
        keys, order = torch.sort(keys)
        if bool((keys[1:] == keys[:-1]).any()):
            raise Seg3DError("A voxel occurs twice in a coordinate set: average the features of equal voxels first")
        return self.indices[order], order

    def _refuse_duplicates(self) -> None:
        _ = self._sorted

    def _find_neighbours(self, size: int) -> KernelMap:
        indices, order = self._sorted
        sources, targets = _neighbour_rows(indices, size)
        n = len(indices)
        counts = torch.tensor([len(rows) for rows in sources], device=indices.device)
        weight = torch.repeat_interleave(torch.arange(len(sources), device=indices.device), counts)
        source, target = torch.cat(sources), torch.cat(targets)
        if order is None:
            return KernelMap(weight, source.int(), target.int(), len(sources), n, n, is_mirrored=True)
        return KernelMap.from_pairs(
            weight, order[source], order[target], n_weights=len(sources), n_source=n, n_target=n, is_mirrored=True
        )

    def _find_parents(self, size: int) -> Strides:
        self._refuse_duplicates()
        cells = torch.cat([self.indices[:, :1], torch.div(self.indices[:, 1:], size, rounding_mode="floor")], dim=1)
        within = self.indices[:, 1:] - cells[:, 1:] * size
        place = within[:, 0] + size * within[:, 1] + size * size * within[:, 2]
        children = torch.arange(len(cells), device=cells.device)
        extents = self.coarser_extents(size)
        if extents is not None:
            has_parent = (cells[:, 1:] < cells.new_tensor(extents)).all(dim=1)
            children, cells, place = children[has_parent], cells[has_parent], place[has_parent]

        grid = _Grid(cells)
        keys, parent = torch.unique(grid.keys(cells), return_inverse=True)
        parents = CoordinateSet(grid.indices(keys), self.stride * size, extents)
        sizes = {"n_weights": size**3}
        down = KernelMap.from_pairs(place, children, parent, n_source=len(self), n_target=len(parents), **sizes)
        up = KernelMap.from_pairs(place, parent, children, n_source=len(parents), n_target=len(self), **sizes)
        return Strides(parents, down, up)


def distinct_voxels(indices: Tensor) -> tuple[Tensor, Tensor]:
    """The different rows of int64 (N, 4), sorted by (batch, x, y, z), and which of them each row is, int64 (N,).

    One integer a row: `torch.unique` by rows compares them one pair at a time on the CPU.
    Raises Seg3DError for indices too far apart for 64 bits.
    """
    grid = _Grid(indices)
    keys, rows = torch.unique(grid.keys(indices), return_inverse=True)
    return grid.indices(keys), rows


class _Grid:
    """One integer per voxel that sorts as (batch, x, y, z); a neighbour up to `margin` away is a constant further."""

    def __init__(self, indices: Tensor, margin: int = 0):
        low, high = [0] * 4, [0] * 4
        if len(indices):
            low, high = (torch.stack([indices.amin(0), indices.amax(0)])).tolist()
        self._low = [low[0], *(value - margin for value in low[1:])]
        _, x, y, z = self._spans = [
            high[0] - low[0] + 1,
            *(b - a + 1 + 2 * margin for a, b in zip(low[1:], high[1:], strict=True)),
        ]
        self._steps = [x * y * z, y * z, z, 1]
        if self._spans[0] * self._steps[0] >= _FARTHEST_KEY:
            raise Seg3DError(
                f"The voxels of this batch spread over {x} x {y} x {z} cells in {self._spans[0]} scenes, more than 64 "
                "bits can number: remove stray points, or use larger voxels"
            )

    def keys(self, indices: Tensor) -> Tensor:
        return ((indices - indices.new_tensor(self._low)) * indices.new_tensor(self._steps)).sum(dim=1)

    def step(self, x: int, y: int) -> int:
        return x * self._steps[1] + y * self._steps[2]

    def indices(self, keys: Tensor) -> Tensor:
        columns = [
            torch.div(keys, step, rounding_mode="floor") % span
            for step, span in zip(self._steps, self._spans, strict=True)
        ]
        return torch.stack(columns, dim=1) + keys.new_tensor(self._low)


def _neighbour_rows(indices: Tensor, size: int) -> tuple[list[Tensor], list[Tensor]]:
    """Source and target rows per weight, x fastest, of voxels sorted by (batch, x, y, z).

    Voxels of one column (equal batch, x, y) lie one after the other: one search finds the lowest neighbour of each
    column, and the others follow it. Columns before the centre are searched; those behind are their mirror images.
    """
    radius, n = size // 2, len(indices)
    grid = _Grid(indices, radius)
    keys = grid.keys(indices)
    padded = torch.cat([keys, keys.new_tensor([_FARTHEST_KEY])])
    everyone = torch.arange(n, device=indices.device)
    sources: list[Tensor] = [everyone] * size**3
    targets: list[Tensor] = [everyone] * size**3
    columns = [(x, y) for x in range(-radius, 1) for y in range(-radius, radius + 1) if (x, y) <= (0, 0)]
    for x, y in columns:
        heights = range(-radius, radius + 1 if (x, y) < (0, 0) else 0)
        lowest = keys + (grid.step(x, y) - radius)
        row = torch.searchsorted(padded, lowest)
        for z in heights:
            exists = padded[row] == lowest + (z + radius)
            target = exists.nonzero().squeeze(1)
            source = row[target]
            weight = (x + radius) + size * (y + radius) + size * size * (z + radius)
            sources[weight], targets[weight] = source, target
            sources[size**3 - 1 - weight], targets[size**3 - 1 - weight] = target, source
            row = row + exists
    return sources, targets
