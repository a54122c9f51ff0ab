# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Who computes sparse convolutions: plain torch, on a GPU Triton; MinkowskiEngine and spconv where installed."""

from __future__ import annotations

import logging
import sys
from typing import Protocol

import torch
from torch import Tensor

from seg3d_core.errors import ConfigError, printable

from .convolution import Epilogue, convolve, edge
from .coordinates import CoordinateSet

log = logging.getLogger(__name__)

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


def _fastest() -> Backend:
    if not torch.cuda.is_available():
        return TorchBackend()
    from .triton_backend import TritonBackend, is_installed

    if not is_installed():
        return TorchBackend()
    backend = TritonBackend()
    try:
        backend.try_out()
    except Exception as error:  # Whatever a compiler, a driver or an old GPU may say.
        reason = printable(str(error).strip().splitlines()[-1] if str(error).strip() else repr(error), 200)
        log.warning("Triton does not work here (%s): plain PyTorch computes sparse convolutions, slower", reason)
        return TorchBackend()
    return backend


def find_backend(name: str, convention: str) -> Backend:
    """The backend of that name for networks of a convention (`minkowski` or `spconv`).

    `auto`: triton where there is a GPU and Triton, which comes with PyTorch's CUDA builds for Linux, works; else torch.

    Raises:
        ConfigError: an unknown name, a library that computes the other convention, is not installed, or does
            not go together with one that is loaded.
    """
    if name == "torch":
        return TorchBackend()
    if name == "auto":
        return _fastest()
    if name == "triton":
        from .triton_backend import TritonBackend

        return TritonBackend()
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
