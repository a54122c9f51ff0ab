# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Sparse convolution as gathers, matrix products and sums; forward and backward, on any device.

out[t] = sum over pairs (s, t) of weight j of features[s] @ kernel[j]. Per block of output rows, each weight's rows are
gathered and multiplied; the products of an output row are then summed in one pass, in the order of the weights. No
atomic addition is needed, so equal input gives equal bytes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .kernel_map import KernelMap


class Epilogue(NamedTuple):
    """result * scale + shift, each (Cout,)."""

    scale: Tensor
    shift: Tensor


def convolve(
    features: Tensor,
    kernel: Tensor,
    pairs: KernelMap,
    adjoint: KernelMap,
    epilogue: Epilogue | None = None,
) -> Tensor:
    """The sparse convolution of features (n_source, Cin) with a kernel (K, Cin, Cout): (n_target, Cout).

    Args:
        pairs: the kernel map.
        adjoint: the map with source and target swapped, for the gradient; `pairs` itself where it is mirrored.
        epilogue: applied to the result; only where no gradient is asked for.
    """
    if epilogue is not None:
        return _multiply_and_sum(features, kernel, pairs, epilogue)
    return _Convolution.apply(features, kernel, pairs, adjoint)


def edge(kernel: Tensor) -> int:
    """The size of a kernel (size^3, Cin, Cout)."""
    return round(kernel.shape[0] ** (1 / 3))


class _Convolution(torch.autograd.Function):
    """Keeps features, kernel and maps for the gradient, and no gathered block."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, kernel: Tensor, pairs: KernelMap, adjoint: KernelMap) -> Tensor:
        ctx.save_for_backward(features, kernel)
        ctx.maps = pairs, adjoint
        return _multiply_and_sum(features, kernel, pairs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        features, kernel = ctx.saved_tensors
        pairs, adjoint = ctx.maps
        gradient = gradient.contiguous()
        features_gradient = kernel_gradient = None
        if ctx.needs_input_grad[0]:
            turned = kernel.flip(0) if pairs.is_mirrored else kernel
            features_gradient = _multiply_and_sum(gradient, turned.transpose(1, 2).contiguous(), adjoint)
        if ctx.needs_input_grad[1]:
            kernel_gradient = _kernel_gradient(features, gradient, kernel.shape, pairs)
        return features_gradient, kernel_gradient, None, None


def _multiply_and_sum(features: Tensor, kernel: Tensor, pairs: KernelMap, epilogue: Epilogue | None = None) -> Tensor:
    width = kernel.shape[2]
    result = features.new_empty(pairs.n_target, width)
    room = features.new_empty(max((block.n_pairs for block in pairs.blocks), default=0), width)
    multiply = _Multiplication(features, pairs)
    for block in pairs.blocks:
        rows = result[block.first : block.last]
        if not block.n_pairs:
            rows.zero_()
        else:
            products = room[: block.n_pairs]
            for segment in block.segments:
                multiply(segment.source, kernel[segment.weight], products[segment.start : segment.stop])
            summed = torch.nn.functional.embedding_bag(
                block.order, products, block.offsets, mode="sum", include_last_offset=True
            )
            rows.copy_(summed)
        if epilogue is not None:
            rows.mul_(epilogue.scale).add_(epilogue.shift)
    return result


def _find_onednn() -> Any:
    """torch's dense product by oneDNN, which has no public name; None where this torch lacks it."""
    if not torch.backends.mkldnn.is_available():
        return None
    try:
        return torch.ops.mkldnn._linear_pointwise.default
    except AttributeError:
        return None


_onednn_linear = _find_onednn()
# Multiply-adds; its call costs about ten microseconds.
_LEAST_FOR_ONEDNN = 1_500_000
# oneDNN compiles code per number of rows and keeps about a thousand: rows are rounded up, so that few numbers occur.
_ROWS_OF_ONEDNN = 64


class _Multiplication:
    """out = features[source] @ weight, by oneDNN on the CPU where that pays.

    torch's own product there is MKL's, which takes half of the vector width of AMD's CPUs.
    """

    def __init__(self, features: Tensor, pairs: KernelMap):
        self._features = features
        self._buffer: Tensor | None = None
        if _onednn_linear is not None and features.device.type == "cpu" and features.dtype == torch.float32:
            rows = max((len(s.source) for block in pairs.blocks for s in block.segments), default=0)
            self._buffer = features.new_zeros(rows + _ROWS_OF_ONEDNN, features.shape[1])

    def __call__(self, source: Tensor, weight: Tensor, out: Tensor) -> None:
        n = len(source)
        if self._buffer is None or n * weight.numel() < _LEAST_FOR_ONEDNN:
            torch.mm(self._features.index_select(0, source), weight, out=out)
            return
        torch.index_select(self._features, 0, source, out=self._buffer[:n])
        rows = self._buffer[: -(-n // _ROWS_OF_ONEDNN) * _ROWS_OF_ONEDNN]
        out.copy_(_onednn_linear(rows, weight.T, None, "none", [], "")[:n])


def _kernel_gradient(features: Tensor, gradient: Tensor, shape: torch.Size, pairs: KernelMap) -> Tensor:
    result = gradient.new_zeros(shape)
    for block in pairs.blocks:
        for segment in block.segments:
            gathered = features.index_select(0, segment.source)
            result[segment.weight].addmm_(gathered.T, gradient.index_select(0, segment.target))
    return result
