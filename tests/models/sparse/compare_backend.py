# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Run with a backend's name and a convention: compares it with plain torch, forward and gradients.

Exit code 77 where it is not installed. On a GPU where there is one; elsewhere Triton is interpreted, layers alone.
"""

from __future__ import annotations

import collections
import os
import sys

import torch

from seg3d_core.errors import ConfigError
from seg3d_core.models.backbones import MinkUNet, SpConvUNet
from seg3d_core.models.sparse import (
    Backend,
    BatchNorm,
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


DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def make(name: str, indices: torch.Tensor, features: torch.Tensor, backend: Backend) -> SparseTensor:
    return SparseTensor(features, CoordinateSet(indices, extents=(13, 13, 13) if name == "spconv" else None), backend)


def close(ours: torch.Tensor, theirs: torch.Tensor, tolerance: float = 1e-5) -> None:
    assert (ours - theirs).abs().max().item() <= tolerance * theirs.abs().max().item()


def check_layers(library: Backend, name: str) -> None:
    torch.manual_seed(0)
    indices = voxels_for(name).to(DEVICE)
    layers = [
        SubmanifoldConvolution(6, 8, 3, name),
        StridedConvolution(8, 10, 2, name),
        SubmanifoldConvolution(10, 10, 3, name),
        TransposedConvolution(10, 7, 2, name),
        SubmanifoldConvolution(7, 5, 1, name),
    ]
    if name == "minkowski":
        layers.append(SubmanifoldConvolution(5, 5, 5, name))
    layers = [layer.to(DEVICE) for layer in layers]
    values = torch.randn(len(indices), 6, device=DEVICE)
    cotangent = torch.randn(len(indices), 5, device=DEVICE)

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


def check_u_nets(library: Backend, name: str, is_training: bool) -> None:
    torch.manual_seed(0)
    network = (MinkUNet if name == "minkowski" else SpConvUNet)(4).train(is_training).to(DEVICE)
    # Large enough that the coarsest level has many voxels; batch norm over a few amplifies rounding.
    generator = torch.Generator().manual_seed(1)
    xyz = torch.randint(0, 80, (3000, 3), generator=generator)
    indices = torch.unique(torch.nn.functional.pad(xyz, (1, 0)), dim=0).to(DEVICE)
    values = torch.randn(len(indices), 4, device=DEVICE)
    buffers = {name: value.clone() for name, value in network.state_dict().items()}

    def run(backend: Backend) -> torch.Tensor:
        network.load_state_dict(buffers)
        extents = (128, 128, 128) if name == "spconv" else None
        with torch.set_grad_enabled(is_training):
            return network(SparseTensor(values, CoordinateSet(indices, extents=extents), backend)).features.detach()

    close(run(TorchBackend()), run(library), 5e-5)


def check_the_shared_convention(library: Backend, name: str) -> None:
    """Submanifold convolution is the same everywhere: one layer and one kernel for all of them."""
    torch.manual_seed(0)
    indices = voxels_for("spconv").to(DEVICE)
    x, layer = torch.randn(len(indices), 6, device=DEVICE), SubmanifoldConvolution(6, 8, 3).to(DEVICE)
    expected = layer(SparseTensor(x, CoordinateSet(indices))).features.detach()
    close(layer(make(name, indices, x, library)).features.detach(), expected)


def check_what_triton_alone_does(library: Backend) -> None:
    """Many channels are several tiles, their number is filled up for aligned rows, norms are applied in passing, and
    nothing is made of nothing."""
    torch.manual_seed(0)
    indices = voxels_for("minkowski", 200, 7).to(DEVICE)
    layer, norm = SubmanifoldConvolution(67, 150, 3).to(DEVICE), BatchNorm(150).to(DEVICE).eval()
    norm.running_mean.normal_(), norm.running_var.uniform_(0.5, 2), norm.weight.data.normal_()
    values = torch.randn(len(indices), 67, device=DEVICE)
    for grad in (False, True):
        with torch.set_grad_enabled(grad):
            found = [layer(make("minkowski", indices, values, b), norm).features for b in (TorchBackend(), library)]
        close(found[1].detach(), found[0].detach())
    none = layer(make("minkowski", indices[:0], values[:0], library))
    assert none.features.shape == (0, 150)
    again = layer(make("minkowski", indices, values, library), norm).features
    assert torch.equal(again, found[1]), "equal input gives equal bytes"


def main() -> None:
    torch.set_num_threads(1)
    name, convention = sys.argv[1:]
    is_interpreted = name == "triton" and DEVICE == "cpu"
    if is_interpreted:
        os.environ["TRITON_INTERPRET"] = "1"
    try:
        library = find_backend(name, convention)
    except ConfigError as error:
        print(error)
        sys.exit(77)
    assert not hasattr(collections, "Sequence"), "the import must leave collections as they were"
    check_layers(library, convention)
    check_the_shared_convention(library, convention)
    if name == "triton":
        check_what_triton_alone_does(library)
    if not is_interpreted:
        check_u_nets(library, convention, False)
        check_u_nets(library, convention, True)


if __name__ == "__main__":
    main()
