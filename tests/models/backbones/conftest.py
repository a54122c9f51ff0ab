"""Golden numbers of the published backbones, with weights and inputs made from names as their README says."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).resolve().parents[2] / "golden" / "segdino3d"


@pytest.fixture(scope="session")
def golden() -> Callable[[str], dict[str, np.ndarray]]:
    def load(name: str) -> dict[str, np.ndarray]:
        with np.load(FOLDER / f"{name}.npz") as arrays:
            return {key: arrays[key] for key in arrays.files}

    return load


@pytest.fixture(scope="session")
def shapes() -> dict[str, dict[str, tuple[int, ...]]]:
    """Shapes of the backbone's entries in the published state dicts, by configuration; names without `backbone.`."""
    configurations = json.loads((FOLDER / "state_dict_shapes.json").read_text())
    return {
        name: {
            key.removeprefix("backbone."): tuple(shape)
            for key, (shape, _) in content["entries"].items()
            if key.startswith("backbone.")
        }
        for name, content in configurations.items()
    }


def _generator(name: str) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))


@pytest.fixture(scope="session")
def weight() -> Callable[[str, tuple[int, ...]], np.ndarray]:
    """A parameter or buffer of the golden networks, from its full name and its shape."""

    def make(name: str, shape: tuple[int, ...]) -> np.ndarray:
        generator, leaf = _generator(name), name.rpartition(".")[2]
        if leaf == "num_batches_tracked":
            return np.zeros((), np.int64)
        if leaf == "running_mean":
            value = 0.1 * generator.standard_normal(shape)
        elif leaf == "running_var":
            value = (0.5 + generator.random(shape)) * (0.01 if "output_layer" in name else 1)
        elif leaf == "bias":
            value = 0.05 * generator.standard_normal(shape)
        elif len(shape) == 1:
            value = 1 + 0.1 * generator.standard_normal(shape)
        else:
            fan = np.prod(shape[:-1] if leaf == "kernel" else shape[1:])
            is_spatial = (leaf == "kernel" and len(shape) == 3) or (len(shape) == 5 and shape[1] > 1)
            value = ((2 if is_spatial else 1) / np.sqrt(fan)) * generator.standard_normal(shape)
        return value.astype(np.float32)

    return make


@pytest.fixture(scope="session")
def features() -> Callable[[str, tuple[int, ...], float], np.ndarray]:
    """Inputs and cotangents of the golden runs, from a name."""

    def make(name: str, shape: tuple[int, ...], scale: float) -> np.ndarray:
        return (scale * _generator(name).standard_normal(shape)).astype(np.float32)

    return make


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Tests run side by side already, and many small products wait for each other's threads."""
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)
