# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""MinkowskiEngine behind our layers: its kernel maps and convolutions, our kernels, norms and parameter names."""

from __future__ import annotations

import collections
import collections.abc
import importlib
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from seg3d_core.errors import ConfigError

from .convolution import Epilogue, edge
from .coordinates import CoordinateSet

# MinkowskiEngine 0.5.4 imports these from where Python 3.10 no longer has them.
_MOVED = ("Sequence", "Mapping", "MutableMapping", "Iterable", "Callable")


def import_minkowski_engine() -> Any:
    """The library, imported under any Python from 3.10 on.

    Raises:
        ConfigError: it is not installed or does not load.
    """
    missing = [name for name in _MOVED if not hasattr(collections, name)]
    for name in missing:
        setattr(collections, name, getattr(collections.abc, name))
    try:
        import MinkowskiEngine
    except ImportError as error:
        raise ConfigError(
            f"The sparse backend minkowski cannot be loaded ({error}): `make minkowski` builds MinkowskiEngine; "
            "or use the backend torch"
        ) from error
    finally:
        for name in missing:
            delattr(collections, name)
    return MinkowskiEngine


@dataclass(frozen=True, eq=False)
class _Known:
    """A coordinate set as MinkowskiEngine knows it; its rows have the order of the set."""

    manager: Any
    key: Any


class MinkowskiBackend:
    """Its own conventions; rows of coarser levels come in its own order.

    Raises:
        ConfigError: MinkowskiEngine is not installed.
    """

    name = "minkowski"
    fuses = False

    def __init__(self) -> None:
        self._engine = import_minkowski_engine()

    def submanifold(
        self, features: Tensor, kernel: Tensor, voxels: CoordinateSet, epilogue: Epilogue | None = None
    ) -> Tensor:
        known = self._known(voxels)
        return self._convolve(features, kernel, known.key, known.key, known.manager, stride=1)

    def parents(self, voxels: CoordinateSet, size: int) -> CoordinateSet:
        key = (self.name, "parents", size)
        if key not in voxels.derived:
            known = self._known(voxels)
            coarse = known.manager.stride(known.key, [size] * 3)
            stride = voxels.stride * size
            coordinates = known.manager.get_coordinates(coarse).long()
            parents = CoordinateSet(coordinates // coordinates.new_tensor([1, stride, stride, stride]), stride)
            parents.derived[self.name] = _Known(known.manager, coarse)
            voxels.derived[key] = parents
        return voxels.derived[key]

    def down(self, features: Tensor, kernel: Tensor, voxels: CoordinateSet, epilogue: Epilogue | None = None) -> Tensor:
        fine, coarse = self._known(voxels), self._known(self.parents(voxels, edge(kernel)))
        return self._convolve(features, kernel, fine.key, coarse.key, fine.manager, stride=edge(kernel))

    def up(self, features: Tensor, kernel: Tensor, voxels: CoordinateSet, epilogue: Epilogue | None = None) -> Tensor:
        fine, coarse = self._known(voxels), self._known(self.parents(voxels, edge(kernel)))
        return self._convolve(
            features, kernel, coarse.key, fine.key, fine.manager, stride=edge(kernel), is_transposed=True
        )

    def _known(self, voxels: CoordinateSet) -> _Known:
        if self.name not in voxels.derived:
            if voxels.extents is not None:
                raise ConfigError("The sparse backend minkowski knows no extents: use the backend torch")
            engine, device = self._engine, voxels.indices.device
            on_gpu = device.type == "cuda"
            kind = engine.CoordinateMapType.CUDA if on_gpu else engine.CoordinateMapType.CPU
            manager = engine.CoordinateManager(D=3, coordinate_map_type=kind)
            coordinates = voxels.coordinates.int().contiguous()
            key, _ = manager.insert_and_map(coordinates, [voxels.stride] * 3)
            if not torch.equal(manager.get_coordinates(key), coordinates):
                raise ConfigError("This build of MinkowskiEngine reorders voxels, so rows would be wrong: use torch")
            voxels.derived[self.name] = _Known(manager, key)
        return voxels.derived[self.name]

    def _convolve(
        self,
        features: Tensor,
        kernel: Tensor,
        source: Any,
        target: Any,
        manager: Any,
        stride: int,
        is_transposed: bool = False,
    ) -> Tensor:
        engine = self._engine
        generator = engine.KernelGenerator(
            kernel_size=edge(kernel), stride=stride, dilation=1, is_transpose=is_transposed, dimension=3
        )
        # The package hides its module behind a class of the same name.
        functions = importlib.import_module("MinkowskiEngine.MinkowskiConvolution")
        name = "MinkowskiConvolutionTransposeFunction" if is_transposed else "MinkowskiConvolutionFunction"
        mode = importlib.import_module("MinkowskiEngineBackend._C").ConvolutionMode.DEFAULT
        return getattr(functions, name).apply(features, kernel, generator, mode, source, target, manager)
