# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Sparse layers with the parameter names and layouts of the published weights.

Inside, every kernel is (size^3, Cin, Cout) with x fastest. `Layout` says how its state dict looks: loading converts
from it, and `state_dict` converts back to it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from seg3d_core.errors import Seg3DError, WeightsError

from .convolution import Epilogue
from .tensor import SparseTensor

Layout = Literal["minkowski", "spconv"]


class SparseConvolution(nn.Module):
    """What the three convolutions below have in common: a kernel without bias. Each says how it is applied.

    Args:
        in_channels, out_channels: Cin, Cout.
        size: edge of the kernel.
        layout: `minkowski` names the parameter `kernel`, `spconv` names it `weight` (Cout, size, size, size, Cin).
    """

    fan_is_out = False

    def __init__(self, in_channels: int, out_channels: int, size: int, layout: Layout = "minkowski"):
        super().__init__()
        self.in_channels, self.out_channels, self.size, self.layout = in_channels, out_channels, size, layout
        self.parameter_name = "kernel" if layout == "minkowski" else "weight"
        is_matrix = size == 1 and layout == "minkowski"
        shape = (in_channels, out_channels) if is_matrix else (size**3, in_channels, out_channels)
        self.register_parameter(self.parameter_name, nn.Parameter(torch.empty(shape)))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Uniform in plus-minus 1 / sqrt(size^3 Cin); Minkowski's transposed ones have Cout there."""
        fan = self.out_channels if self.fan_is_out and self.layout == "minkowski" else self.in_channels
        bound = 1 / math.sqrt(self.size**3 * fan)
        nn.init.uniform_(getattr(self, self.parameter_name), -bound, bound)

    @property
    def weights(self) -> Tensor:
        """(size^3, Cin, Cout), x fastest."""
        parameter = getattr(self, self.parameter_name)
        return parameter if parameter.ndim == 3 else parameter[None]

    def _then(self, norm: nn.BatchNorm1d | None, x: SparseTensor, compute: Callable[..., Tensor]) -> Tensor:
        """The convolution, then `norm` where given: in one pass where no gradient is asked for."""
        if norm is None:
            return compute()
        if x.backend.fuses and not norm.training and not torch.is_grad_enabled():
            return compute(epilogue=as_epilogue(norm))
        return norm(compute())

    def extra_repr(self) -> str:
        return f"{self.in_channels}, {self.out_channels}, size={self.size}, layout={self.layout}"

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        parameter = getattr(self, self.parameter_name)
        value = parameter if keep_vars else parameter.detach()
        destination[prefix + self.parameter_name] = self.to_layout(value)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        name = prefix + self.parameter_name
        if name in state_dict and self.layout == "spconv":
            state_dict = {**state_dict, name: self.from_layout(state_dict[name], name)}
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def to_layout(self, weights: Tensor) -> Tensor:
        """Our weights, or a gradient of theirs, as the state dict has them: a view."""
        if self.layout == "minkowski":
            return weights
        k, cin, cout = self.size, self.in_channels, self.out_channels
        if k == 1:
            return weights.reshape(cout, 1, 1, 1, cin)
        return weights.reshape(k, k, k, cin, cout).permute(4, 2, 1, 0, 3)

    def from_layout(self, stored: Tensor, name: str = "weight") -> Tensor:
        """spconv's weights as ours: (Cout, x, y, z, Cin), or (x, y, z, Cin, Cout) of its older files.

        With size 1, spconv looks at the storage as (Cin, Cout) without transposing it; trained weights rely on that.

        Raises:
            WeightsError: neither shape.
        """
        k, cin, cout = self.size, self.in_channels, self.out_channels
        current, older = (cout, k, k, k, cin), (k, k, k, cin, cout)
        if tuple(stored.shape) not in (current, older):
            raise WeightsError(f"{name} has shape {tuple(stored.shape)}; {current} is needed, or spconv 1's {older}")
        if k == 1:
            return stored.reshape(1, cin, cout)
        if tuple(stored.shape) == current:
            return stored.permute(3, 2, 1, 4, 0).reshape(k**3, cin, cout)
        return stored.permute(2, 1, 0, 3, 4).reshape(k**3, cin, cout)


class SubmanifoldConvolution(SparseConvolution):
    """Stride 1, odd size: the result lies on the voxels of the input."""

    def forward(self, x: SparseTensor, norm: nn.BatchNorm1d | None = None) -> SparseTensor:
        if self.size == 1:
            y = x.features @ self.weights[0]
            return x.replace(y if norm is None else norm(y))
        compute = partial(x.backend.submanifold, x.features, self.weights, x.coordinates)
        return x.replace(self._then(norm, x, compute))


class StridedConvolution(SparseConvolution):
    """Stride and size are equal: every parent sums over its children."""

    def forward(self, x: SparseTensor, norm: nn.BatchNorm1d | None = None) -> SparseTensor:
        parents = x.backend.parents(x.coordinates, self.size)
        compute = partial(x.backend.down, x.features, self.weights, x.coordinates)
        return SparseTensor(self._then(norm, x, compute), parents, x.backend)


class TransposedConvolution(SparseConvolution):
    """From parents back to their children (spconv: inverse convolution)."""

    fan_is_out = True

    def forward(self, x: SparseTensor, like: SparseTensor, norm: nn.BatchNorm1d | None = None) -> SparseTensor:
        """As `like`, the input of the strided convolution that made the voxels of x.

        Raises:
            Seg3DError: x lies on other voxels.
        """
        if like.backend.parents(like.coordinates, self.size) is not x.coordinates:
            raise Seg3DError("A transposed convolution goes back to the voxels that its input's were made from")
        compute = partial(x.backend.up, x.features, self.weights, like.coordinates)
        return like.replace(self._then(norm, x, compute))


class BatchNorm(nn.BatchNorm1d):
    """Over all voxels of the batch.

    Raises:
        Seg3DError: in training, a level with a single voxel, which has no variance.
    """

    def forward(self, input: Tensor) -> Tensor:
        if self.training and len(input) < 2:
            raise Seg3DError(
                f"Batch norm needs two voxels at every level in training, and one has {len(input)}: "
                "take larger scenes, or more of them in a batch"
            )
        return super().forward(input)


def as_epilogue(norm: nn.BatchNorm1d) -> Epilogue:
    """Batch norm with its running statistics."""
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    return Epilogue(scale, norm.bias - norm.running_mean * scale)
