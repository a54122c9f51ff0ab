# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Sparse convolution on a GPU, one Triton kernel each, where plain torch launches a gather and a product per weight.

A block of output rows fetches the input rows of each weight straight into fast memory, multiplies them there and is
written once (an implicit matrix product). Triton comes with PyTorch's CUDA builds for Linux.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from seg3d_core.errors import ConfigError

from .backend import TorchBackend
from .convolution import Epilogue, edge
from .coordinates import CoordinateSet
from .kernel_map import KernelMap

ROWS = 64
# Tensor cores take blocks of 16; rows that begin at a multiple of 16 bytes are fetched in one go.
_LEAST, _ALIGNED = 16, 8
_PARTS = 32


def is_installed() -> bool:
    try:
        import triton  # noqa: F401
    except ImportError:
        return False
    return True


def _kernels() -> Any:
    try:
        from . import triton_kernels
    except ImportError as error:
        raise ConfigError(
            f"The sparse backend triton cannot be loaded ({error}): it comes with PyTorch's CUDA builds for Linux; use "
            "the backend torch"
        ) from error
    return triton_kernels


@dataclass(frozen=True, eq=False)
class RowTable:
    """rows (K, n_target) int32: which input row meets an output row under each weight, -1 where none does."""

    rows: Tensor

    @classmethod
    def from_pairs(cls, pairs: KernelMap) -> RowTable:
        rows = pairs.source.new_full((pairs.n_weights, pairs.n_target), -1)
        rows[pairs.weight, pairs.target.long()] = pairs.source
        return cls(rows)

    @cached_property
    def active(self) -> tuple[Tensor, Tensor]:
        """Per block of `ROWS` output rows: the weights that any of them has, first in int32 (n_blocks, K); how many."""
        n_weights, n_target = self.rows.shape
        n_blocks = -(-n_target // ROWS)
        padded = torch.nn.functional.pad(self.rows >= 0, (0, n_blocks * ROWS - n_target))
        is_there = padded.view(n_weights, n_blocks, ROWS).any(dim=2).T
        order = torch.argsort((~is_there).byte(), dim=1, stable=True)
        return order.int().contiguous(), is_there.sum(dim=1, dtype=torch.int32)


class TritonBackend(TorchBackend):
    """Both conventions; what lies on a CPU is computed by plain torch.

    Raises:
        ConfigError: Triton is not installed.
    """

    name = "triton"

    def __init__(self) -> None:
        _kernels()

    def try_out(self) -> None:
        """Compiles and runs one small kernel on the GPU. Raises whatever keeps Triton from that: it needs a C compiler
        and a GPU of the last ten years."""
        one = torch.ones(1, _LEAST, device="cuda")
        table = RowTable(torch.zeros(1, 1, dtype=torch.int32, device="cuda"))
        found = self._convolve(one, torch.ones(1, _LEAST, _LEAST, device="cuda"), table, table, False, None)
        if float(found[0, 0]) != _LEAST:
            raise ConfigError(f"a sum of {_LEAST} ones came out as {float(found[0, 0])}")

    def submanifold(
        self, features: Tensor, kernel: Tensor, voxels: CoordinateSet, epilogue: Epilogue | None = None
    ) -> Tensor:
        if not _runs_on(features):
            return super().submanifold(features, kernel, voxels, epilogue)
        size = edge(kernel)
        key = (self.name, size)
        if key not in voxels.derived:
            voxels.derived[key] = RowTable(voxels.neighbour_rows(size))
        table = voxels.derived[key]
        return self._convolve(features, kernel, table, table, True, epilogue)

    def down(self, features: Tensor, kernel: Tensor, voxels: CoordinateSet, epilogue: Epilogue | None = None) -> Tensor:
        if not _runs_on(features):
            return super().down(features, kernel, voxels, epilogue)
        down, up = self._stride_tables(voxels, edge(kernel))
        return self._convolve(features, kernel, down, up, False, epilogue)

    def up(self, features: Tensor, kernel: Tensor, voxels: CoordinateSet, epilogue: Epilogue | None = None) -> Tensor:
        if not _runs_on(features):
            return super().up(features, kernel, voxels, epilogue)
        down, up = self._stride_tables(voxels, edge(kernel))
        return self._convolve(features, kernel, up, down, False, epilogue)

    def _stride_tables(self, voxels: CoordinateSet, size: int) -> tuple[RowTable, RowTable]:
        key = (self.name, "strides", size)
        if key not in voxels.derived:
            strides = voxels.strides(size)
            voxels.derived[key] = RowTable.from_pairs(strides.down), RowTable.from_pairs(strides.up)
        return voxels.derived[key]

    def _convolve(
        self, features: Tensor, kernel: Tensor, table: RowTable, adjoint: RowTable, is_mirrored: bool,
        epilogue: Epilogue | None,
    ) -> Tensor:  # fmt: skip
        """`convolution.convolve` with tables in place of pairs."""
        if torch.is_autocast_enabled():
            features, kernel = features.to(_autocast_type()), kernel.to(_autocast_type())
        elif features.dtype != kernel.dtype:
            kernel = kernel.to(features.dtype)
        missing = -features.shape[1] % _ALIGNED
        if missing and features.shape[1] > _LEAST:
            features = torch.nn.functional.pad(features, (0, missing))
            kernel = torch.nn.functional.pad(kernel, (0, 0, 0, missing))
        if epilogue is not None:
            return _multiply(features, kernel, table, epilogue)
        return _Convolution.apply(features, kernel, table, adjoint, is_mirrored)


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, features: Tensor, kernel: Tensor, table: RowTable, adjoint: RowTable, is_mirrored: bool
    ) -> Tensor:
        ctx.save_for_backward(features, kernel)
        ctx.rest = table, adjoint, is_mirrored
        return _multiply(features, kernel, table)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        features, kernel = ctx.saved_tensors
        table, adjoint, is_mirrored = ctx.rest
        gradient = gradient.to(features.dtype).contiguous()
        features_gradient = kernel_gradient = None
        if ctx.needs_input_grad[0]:
            turned = kernel.flip(0) if is_mirrored else kernel
            features_gradient = _multiply(gradient, turned.transpose(1, 2), adjoint)
        if ctx.needs_input_grad[1]:
            kernel_gradient = _kernel_gradient(features, gradient, kernel, table)
        return features_gradient, kernel_gradient, None, None, None


def _multiply(features: Tensor, kernel: Tensor, table: RowTable, epilogue: Epilogue | None = None) -> Tensor:
    features, kernel = features.contiguous(), kernel.contiguous()
    n_weights, n_in, n_out = kernel.shape
    n_target = table.rows.shape[1]
    result = features.new_empty(n_target, n_out)
    if not n_target:
        return result
    active, counts = table.active
    # Without an epilogue any pointer does: the kernel does not look at it.
    scale, shift = epilogue or (result, result)
    # Of 48 choices on an H100, over the layers of the U-Net: wide tiles in half precision, narrow ones in single.
    most_in, most_out = (32, 32) if features.dtype == torch.float32 else (64, 128)
    out = _tile(n_out, most_out)
    _kernels().multiply[(len(counts), -(-n_out // out))](
        features, kernel, table.rows, active, counts, result, scale, shift,
        n_target, n_weights, n_in, n_out,
        ROWS=ROWS, IN=_tile(n_in, most_in), OUT=out, HAS_EPILOGUE=epilogue is not None, PRECISION=_precision(),
        num_warps=4, num_stages=3,
    )  # fmt: skip
    return result


def _kernel_gradient(features: Tensor, gradient: Tensor, kernel: Tensor, table: RowTable) -> Tensor:
    n_weights, n_in, n_out = kernel.shape
    n_target = table.rows.shape[1]
    if not n_target:
        return torch.zeros_like(kernel)
    n_blocks = -(-n_target // ROWS)
    blocks_each = -(-n_blocks // _PARTS)
    parts = -(-n_blocks // blocks_each)
    wide, high = _tile(n_out, 64), _tile(n_in, 64)
    result = features.new_empty((parts, n_weights, n_in, n_out), dtype=torch.float32)
    _kernels().multiply_transposed[(parts, n_weights, -(-n_in // high) * -(-n_out // wide))](
        features.contiguous(), gradient, table.rows, result, n_target, n_weights, n_in, n_out, blocks_each,
        ROWS=ROWS, IN=high, OUT=wide, PRECISION=_precision(),
        num_warps=4, num_stages=3,
    )  # fmt: skip
    return result.sum(dim=0).to(kernel.dtype)


def _tile(channels: int, most: int) -> int:
    """A power of two that covers the channels, from 16 to `most`."""
    return min(max(1 << (channels - 1).bit_length(), _LEAST), most)


def _autocast_type() -> torch.dtype:
    # Since torch 2.4; the older name warns.
    if hasattr(torch, "get_autocast_dtype"):
        return torch.get_autocast_dtype("cuda")
    return torch.get_autocast_gpu_dtype()


def _precision() -> str:
    """torch's own choice for products of single precision."""
    return "ieee" if torch.get_float32_matmul_precision() == "highest" else "tf32"


def _runs_on(features: Tensor) -> bool:
    """GPUs; with Triton's interpreter, for tests, CPUs."""
    return features.is_cuda or os.environ.get("TRITON_INTERPRET") == "1"
