# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Features on occupied voxels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from seg3d_core.errors import Seg3DError

from .backend import Backend, TorchBackend
from .coordinates import CoordinateSet

_TORCH = TorchBackend()


@dataclass(frozen=True, eq=False)
class SparseTensor:
    """One row of features (V, C) per voxel of a coordinate set, and who computes convolutions on it.

    Raises:
        Seg3DError: as many rows as voxels are needed.
    """

    features: Tensor
    coordinates: CoordinateSet
    backend: Backend = _TORCH

    def __post_init__(self) -> None:
        rows, voxels = self.features.shape[0], len(self.coordinates)
        if self.features.ndim != 2 or rows != voxels:
            raise Seg3DError(f"Features {tuple(self.features.shape)} do not fit {voxels} voxels: one row each")

    def replace(self, features: Tensor) -> SparseTensor:
        """Other features on the same voxels."""
        return SparseTensor(features, self.coordinates, self.backend)


def concatenate(*tensors: SparseTensor) -> SparseTensor:
    """Side by side along the channels; all must lie on one coordinate set.

    Raises:
        Seg3DError: they do not.
    """
    first = tensors[0]
    if any(tensor.coordinates is not first.coordinates for tensor in tensors):
        raise Seg3DError("Sparse tensors of different coordinate sets cannot be concatenated")
    return first.replace(torch.cat([tensor.features for tensor in tensors], dim=1))
