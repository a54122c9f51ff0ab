# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""spconv 2 behind our layers: its index tables and matrix products, our kernels and parameter names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from seg3d_core.errors import ConfigError

from .convolution import Epilogue, edge
from .coordinates import CoordinateSet


def _import_spconv() -> Any:
    try:
        import spconv.pytorch as spconv
        from spconv.pytorch import functional, ops
    except ImportError as error:
        raise ConfigError(
            f"The sparse backend spconv cannot be loaded ({error}): pip install spconv-cu120, or spconv without a GPU; "
            "or use the backend torch"
        ) from error
    # Without a GPU, spconv's gradients still ask for a CUDA stream, which they then do not use.
    if not torch.cuda.is_available():
        ops.get_current_stream = lambda: 0
    return spconv, functional, ops


@dataclass(frozen=True, eq=False)
class _Table:
    pairs: Tensor
    counts: Tensor
    targets: CoordinateSet


class SpconvBackend:
    """Its own conventions; rows of coarser levels come in its own order.

    Raises:
        ConfigError: spconv is not installed.
    """

    name = "spconv"
    fuses = False

    def __init__(self) -> None:
        spconv, self._functional, self._ops = _import_spconv()
        self._algorithm = spconv.ConvAlgo.Native

    def submanifold(
        self, features: Tensor, kernel: Tensor, voxels: CoordinateSet, epilogue: Epilogue | None = None
    ) -> Tensor:
        table = self._table(voxels, edge(kernel), is_submanifold=True)
        return self._functional.indice_subm_conv(features, _stored(kernel), *self._arguments(table, len(voxels)))

    def parents(self, voxels: CoordinateSet, size: int) -> CoordinateSet:
        return self._table(voxels, size).targets

    def down(self, features: Tensor, kernel: Tensor, voxels: CoordinateSet, epilogue: Epilogue | None = None) -> Tensor:
        table = self._table(voxels, edge(kernel))
        return self._functional.indice_conv(features, _stored(kernel), *self._arguments(table, len(table.targets)))

    def up(self, features: Tensor, kernel: Tensor, voxels: CoordinateSet, epilogue: Epilogue | None = None) -> Tensor:
        table = self._table(voxels, edge(kernel))
        return self._functional.indice_inverse_conv(features, _stored(kernel), *self._arguments(table, len(voxels)))

    def _arguments(self, table: _Table, n_targets: int) -> tuple[Any, ...]:
        return table.pairs, table.counts, n_targets, self._algorithm

    def _table(self, voxels: CoordinateSet, size: int, is_submanifold: bool = False) -> _Table:
        key = (self.name, size, is_submanifold)
        if key not in voxels.derived:
            voxels.derived[key] = self._build(voxels, size, is_submanifold)
        return voxels.derived[key]

    def _build(self, voxels: CoordinateSet, size: int, is_submanifold: bool) -> _Table:
        if voxels.extents is None:
            raise ConfigError("The sparse backend spconv needs the extents of the voxels: use the backend torch")
        batches = int(voxels.indices[:, 0].max()) + 1 if len(voxels) else 1
        stride, padding = (1, size // 2) if is_submanifold else (size, 0)
        each = [[value] * 3 for value in (size, stride, padding, 1, 0)]
        indices, pairs, counts = self._ops.get_indice_pairs(
            voxels.indices.int(), batches, list(voxels.extents), self._algorithm, *each, subm=is_submanifold
        )
        if is_submanifold:
            return _Table(pairs, counts, voxels)
        return _Table(pairs, counts, CoordinateSet(indices, voxels.stride * size, voxels.coarser_extents(size)))


def _stored(kernel: Tensor) -> Tensor:
    """(size^3, Cin, Cout), x fastest, as spconv's (Cout, x, y, z, Cin)."""
    size, (_, cin, cout) = edge(kernel), kernel.shape
    return kernel.reshape(size, size, size, cin, cout).permute(4, 2, 1, 0, 3).contiguous()
