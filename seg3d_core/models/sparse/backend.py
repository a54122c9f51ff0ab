# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Who computes sparse convolutions: plain torch, on a GPU Triton; MinkowskiEngine and spconv where installed."""

from __future__ import annotations

import sys
from typing import Protocol

import torch
from torch import Tensor

from seg3d_core.errors import ConfigError

from .convolution import Epilogue, convolve, edge
from .coordinates import CoordinateSet

_MODULES = {"minkowski": "MinkowskiEngine", "spconv": "spconv"}
BACKENDS = ("auto", "torch", "triton", "minkowski", "spconv")


class Backend(Protocol):
    """Kernels are (size^3, Cin, Cout), x fastest, whatever the library behind it stores.

    An `epilogue` is applied to the result; only where `fuses` is true, and only where no gradient is asked for.
    """

    name: str
    fuses: bool

    def submanifold(
        self, features: Tensor, kernel: Tensor, voxels: CoordinateSet, epilogue: Epilogue | None = None
    ) -> Tensor:
        """(V, Cin) to (V, Cout) on the same voxels."""

    def parents(self, voxels: CoordinateSet, size: int) -> CoordinateSet:
        """Cells of size^3 voxels; the same object on every call."""

    def down(self, features: Tensor, kernel: Tensor, voxels: CoordinateSet, epilogue: Epilogue | None = None) -> Tensor:
        """Features of voxels to those of their parents; stride and edge of the kernel are equal."""

    def up(self, features: Tensor, kernel: Tensor, voxels: CoordinateSet, epilogue: Epilogue | None = None) -> Tensor:
        """Features of the parents to those of `voxels`."""


class TorchBackend:
    """Plain torch, both conventions, any device."""

    name = "torch"
    fuses = True

    def submanifold(
        self, features: Tensor, kernel: Tensor, voxels: CoordinateSet, epilogue: Epilogue | None = None
    ) -> Tensor:
        pairs = voxels.neighbourhood(edge(kernel))
        return convolve(features, kernel, pairs, pairs, epilogue)

    def parents(self, voxels: CoordinateSet, size: int) -> CoordinateSet:
        return voxels.strides(size).parents

    def down(self, features: Tensor, kernel: Tensor, voxels: CoordinateSet, epilogue: Epilogue | None = None) -> Tensor:
        strides = voxels.strides(edge(kernel))
        return convolve(features, kernel, strides.down, strides.up, epilogue)

    def up(self, features: Tensor, kernel: Tensor, voxels: CoordinateSet, epilogue: Epilogue | None = None) -> Tensor:
        strides = voxels.strides(edge(kernel))
        return convolve(features, kernel, strides.up, strides.down, epilogue)


def find_backend(name: str, convention: str) -> Backend:
    """The backend of that name for networks of a convention (`minkowski` or `spconv`).

    `auto`: triton where there are a GPU and Triton, which comes with PyTorch's CUDA builds for Linux; else torch.

    Raises:
        ConfigError: an unknown name, a library that computes the other convention, is not installed, or does
            not go together with one that is loaded.
    """
    if name == "torch":
        return TorchBackend()
    if name in ("auto", "triton"):
        from .triton_backend import TritonBackend, is_installed

        has_both = torch.cuda.is_available() and is_installed()
        return TritonBackend() if has_both or name == "triton" else TorchBackend()
    if name not in BACKENDS:
        raise ConfigError(f"The sparse backend {name!r} does not exist: choose one of {', '.join(BACKENDS)}")
    if name != convention:
        raise ConfigError(
            f"This network follows {convention}'s conventions, which {name} does not compute: use torch or "
            f"{convention} (segdino3d.sparse_backend)"
        )
    other = _MODULES["spconv" if name == "minkowski" else "minkowski"]
    if other in sys.modules:
        raise ConfigError(f"{_MODULES[name]} and {other} give wrong sums in one process: use one of them, or torch")
    if name == "minkowski":
        from .minkowski_backend import MinkowskiBackend

        return MinkowskiBackend()
    from .spconv_backend import SpconvBackend

    return SpconvBackend()
