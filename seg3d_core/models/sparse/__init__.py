# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Sparse convolution on occupied voxels: plain torch, with MinkowskiEngine or spconv behind it where asked for."""

from .backend import BACKENDS, Backend, TorchBackend, find_backend
from .coordinates import CoordinateSet, distinct_voxels
from .layers import BatchNorm, SparseConvolution, StridedConvolution, SubmanifoldConvolution, TransposedConvolution
from .tensor import SparseTensor, concatenate

__all__ = [
    "BACKENDS",
    "Backend",
    "BatchNorm",
    "CoordinateSet",
    "SparseConvolution",
    "SparseTensor",
    "StridedConvolution",
    "SubmanifoldConvolution",
    "TorchBackend",
    "TransposedConvolution",
    "concatenate",
    "distinct_voxels",
    "find_backend",
]
