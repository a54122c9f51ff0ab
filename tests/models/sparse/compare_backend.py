# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Run with a library's name: compares it with plain torch, forward and gradients; exit code 77 where not installed."""

from __future__ import annotations

import collections
import sys

import torch

from seg3d_core.errors import ConfigError
from seg3d_core.models.backbones import MinkUNet, SpConvUNet
from seg3d_core.models.sparse import (
    Backend,
    CoordinateSet,
    SparseTensor,
    StridedConvolution,
    SubmanifoldConvolution,
    TorchBackend,
    TransposedConvolution,
    find_backend,
)


def voxels_for(name: str, n: int = 1500, side: int = 13) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    xyz = torch.randint(0, side, (n, 3), generator=generator) - (side // 2 if name == "minkowski" else 0)
    return torch.unique(torch.cat([torch.randint(0, 2, (n, 1), generator=generator), xyz], dim=1), dim=0)


def make(name: str, indices: torch.Tensor, features: torch.Tensor, backend: Backend) -> SparseTensor:
    return SparseTensor(features, CoordinateSet(indices, extents=(13, 13, 13) if name == "spconv" else None), backend)


def close(ours: torch.Tensor, theirs: torch.Tensor, tolerance: float = 1e-5) -> None:
    assert (ours - theirs).abs().max().item() <= tolerance * theirs.abs().max().item()


def check_layers(library: Backend) -> None:
    torch.manual_seed(0)
    name = library.name
    indices = voxels_for(name)
    layers = [
        SubmanifoldConvolution(6, 8, 3, name),
        StridedConvolution(8, 10, 2, name),
        SubmanifoldConvolution(10, 10, 3, name),
        TransposedConvolution(10, 7, 2, name),
        SubmanifoldConvolution(7, 5, 1, name),
    ]
    if name == "minkowski":
        layers.append(SubmanifoldConvolution(5, 5, 5, name))
    values = torch.randn(len(indices), 6)
    cotangent = torch.randn(len(indices), 5)

    def run(backend: Backend) -> list[torch.Tensor]:
        features = values.clone().requires_grad_()
        first, down, around, up, *last = layers
        fine = first(make(name, indices, features, backend))
        y = up(around(down(fine)), fine)
        for layer in last:
            y = layer(y)
        parameters = [getattr(layer, layer.parameter_name) for layer in layers]
        return [y.features, *torch.autograd.grad((y.features * cotangent).sum(), [features, *parameters])]

    for ours, theirs in zip(run(TorchBackend()), run(library), strict=True):
        close(ours, theirs)


def check_u_nets(library: Backend, is_training: bool) -> None:
    torch.manual_seed(0)
    network = (MinkUNet if library.name == "minkowski" else SpConvUNet)(4).train(is_training)
    # Large enough that the coarsest level has many voxels; batch norm over a few amplifies rounding.
    generator = torch.Generator().manual_seed(1)
    xyz = torch.randint(0, 80, (3000, 3), generator=generator)
    indices = torch.unique(torch.nn.functional.pad(xyz, (1, 0)), dim=0)
    values = torch.randn(len(indices), 4)
    buffers = {name: value.clone() for name, value in network.state_dict().items()}

    def run(backend: Backend) -> torch.Tensor:
        network.load_state_dict(buffers)
        extents = (128, 128, 128) if library.name == "spconv" else None
        with torch.set_grad_enabled(is_training):
            return network(SparseTensor(values, CoordinateSet(indices, extents=extents), backend)).features.detach()

    close(run(TorchBackend()), run(library), 5e-5)


def check_the_shared_convention(library: Backend) -> None:
    """Submanifold convolution is the same everywhere: one layer and one kernel for both libraries."""
    torch.manual_seed(0)
    indices = voxels_for("spconv")
    x, layer = torch.randn(len(indices), 6), SubmanifoldConvolution(6, 8, 3)
    expected = layer(SparseTensor(x, CoordinateSet(indices))).features.detach()
    close(layer(make(library.name, indices, x, library)).features.detach(), expected)


def main() -> None:
    torch.set_num_threads(1)
    try:
        library = find_backend(sys.argv[1], sys.argv[1])
    except ConfigError as error:
        print(error)
        sys.exit(77)
    assert not hasattr(collections, "Sequence"), "the import must leave collections as they were"
    check_layers(library)
    check_the_shared_convention(library)
    check_u_nets(library, False)
    check_u_nets(library, True)


if __name__ == "__main__":
    main()
