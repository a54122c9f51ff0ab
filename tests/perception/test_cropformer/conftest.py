# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Golden arrays of the public code, and the recipe of the weights that it ran with (golden/cropformer/README.md)."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

FOLDER = Path(__file__).resolve().parents[2] / "golden" / "cropformer"
BUFFERS = ("criterion.empty_weight", "criterion_2d.empty_weight", "criterion_3d.empty_weight")


def noise(name: str, shape: tuple[int, ...]) -> np.ndarray:
    return np.random.Generator(np.random.PCG64(zlib.crc32(name.encode()))).standard_normal(shape)


def made_weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The tensor that the recipe gives to this name."""
    leaf, values = name.rpartition(".")[2], noise(name, shape)
    if leaf == "complex_weight":
        return np.float32(values)
    if name.endswith("sampling_offsets.bias"):
        return np.float32(2 * values)
    if leaf in ("gamma1", "gamma2"):
        return np.float32(0.5 + 0.1 * values)
    if leaf in ("bias", "in_proj_bias"):
        return np.float32(0.1 * values)
    if len(shape) == 1:
        return np.float32(1 + 0.2 * values)
    if leaf == "level_embed" or any(part in name for part in (".query_feat.", ".query_embed.", ".level_embed.")):
        return np.float32(values)
    gain = 1.0
    gains = ((".gnconv.pws.", 1.5), (".gnconv.proj_in.", 1.5), ("class_embed", 3.0), (".dwconv.", 1.5))
    for part, factor in gains:
        gain = factor if part in name else gain
    if "out_proj" in name or ("sem_seg_head.predictor" in name and "linear2" in name):
        gain = 0.5
    return np.float32((gain / math.sqrt(math.prod(shape[1:]))) * values)


def made_state(shapes: Mapping[str, tuple[int, ...]], prefix: str = "") -> dict[str, np.ndarray]:
    return {name: made_weight(prefix + name, tuple(shape)) for name, shape in shapes.items()}


@pytest.fixture(scope="session")
def recipe() -> SimpleNamespace:
    """`weight(name, shape)`, `state(shapes, prefix)`, `feats(name, shape, scale)`, all float32."""
    return SimpleNamespace(
        weight=made_weight,
        state=made_state,
        feats=lambda name, shape, scale=1.0: np.float32(scale * noise(name, shape)),
    )


@pytest.fixture(scope="session")
def models() -> dict[str, dict[str, tuple[int, ...]]]:
    """{model: {name: shape}} of the published and the reduced models, the losses' buffers left out."""
    listed = json.loads((FOLDER / "state_dict_shapes.json").read_text())
    return {m: {n: tuple(e[0]) for n, e in v["entries"].items() if n not in BUFFERS} for m, v in listed.items()}


@pytest.fixture(scope="session")
def golden() -> Callable[[str], Mapping[str, np.ndarray]]:
    """`golden("c_parts")`: the arrays of that file."""
    return lambda name: dict(np.load(FOLDER / f"{name}.npz"))


@pytest.fixture(scope="session")
def golden_images(shared_data: Path) -> Mapping[str, np.ndarray]:
    """a_mask2former, which is too big for the repository."""
    path = shared_data.parent / "golden" / "cropformer" / "a_mask2former.npz"
    if not path.is_file():
        pytest.skip("needs a_mask2former.npz (../shared/golden/cropformer)")
    return dict(np.load(path))


@pytest.fixture(scope="session")
def reduced(models: dict[str, dict[str, tuple[int, ...]]]) -> Callable[[str], object]:
    """`reduced("cropformer")`: the small network of the goldens with the recipe's weights."""
    pytest.importorskip("torch")
    from seg3d_core.perception.cropformer.checkpoint import network_of

    made: dict[str, object] = {}

    def network(kind: str) -> object:
        if kind not in made:
            made[kind] = network_of(made_state(models[f"reduced_{kind}_hornet"]), kind)
        return made[kind]

    return network


def unpack(bits: np.ndarray, length: int) -> np.ndarray:
    return np.unpackbits(bits, axis=-1)[..., :length].astype(bool)


@pytest.fixture(scope="session")
def bits() -> Callable[[np.ndarray, int], np.ndarray]:
    """`bits(packed, length)`: booleans out of `numpy.packbits`."""
    return unpack
