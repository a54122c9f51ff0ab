# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""The golden numbers of SegDINO3D: where they lie, and how their weights and inputs are made by name."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

Golden = dict[str, np.ndarray]
Pairs = dict[str, tuple[np.ndarray, np.ndarray]]
"""Array name -> ours, theirs."""

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = (ROOT / "tests" / "golden" / "segdino3d", ROOT.parent / "shared" / "golden" / "segdino3d")


def find(name: str) -> Path | None:
    """A golden file, in the repository or in the folder `shared` beside it."""
    return next((folder / name for folder in FOLDERS if (folder / name).is_file()), None)


def read_json(name: str) -> Any:
    path = find(name)
    return None if path is None else json.loads(path.read_text())


def _generator(name: str) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))


def features(name: str, shape: tuple[int, ...], scale: float) -> Tensor:
    """An input that is made instead of stored."""
    return torch.from_numpy((scale * _generator(name).standard_normal(shape)).astype(np.float32))


def parameter(name: str, shape: tuple[int, ...]) -> Tensor:
    """A parameter or buffer by its published name and its shape."""
    leaf, draw = name.rsplit(".", 1)[-1], _generator(name)
    if leaf == "num_batches_tracked":
        return torch.zeros(shape, dtype=torch.int64)
    if leaf == "running_mean":
        values = 0.1 * draw.standard_normal(shape)
    elif leaf == "running_var":
        values = (0.5 + draw.random(shape)) * (0.01 if "output_layer" in name else 1)
    elif leaf in ("bias", "in_proj_bias"):
        values = 0.05 * draw.standard_normal(shape)
    elif len(shape) == 1:
        values = 1 + 0.1 * draw.standard_normal(shape)
    else:
        fan = np.prod(shape[:-1]) if leaf == "kernel" else np.prod(shape[1:])
        values = (_gain(name, leaf, shape) / np.sqrt(fan)) * draw.standard_normal(shape)
    return torch.from_numpy(np.asarray(values).astype(np.float32))


def _gain(name: str, leaf: str, shape: tuple[int, ...]) -> float:
    if "bbox_embed." in name or "bbox_size_embed." in name:
        return 0.25
    is_spatial = (leaf == "kernel" and len(shape) == 3) or (len(shape) == 5 and shape[1] > 1)
    return 2 if is_spatial else 1


def published_state(configuration: str, prefix: str = "") -> dict[str, Tensor]:
    """The state dict of a published configuration, under its published names."""
    entries = read_json("state_dict_shapes.json")[configuration]["entries"]
    return {name: parameter(name, tuple(shape)) for name, (shape, _) in entries.items() if name.startswith(prefix)}


@dataclass(frozen=True)
class Case:
    """What makes a golden file's arrays; `inputs` matches the names of those that are given.

    Integers must be equal. Floats may be `tolerance` off, as a share of the largest value of theirs; those whose names
    match one of `others` (the first that does counts) by that much, as a share or as they are (`absolute`).
    """

    run: Callable[[Golden], Pairs]
    tolerance: float
    inputs: str
    others: tuple[tuple[str, str, float], ...] = ()


@dataclass(frozen=True)
class Row:
    """One array: how far ours is from theirs, and how far it may be. Exact ones count unequal entries."""

    file: str
    array: str
    kind: str
    difference: float
    allowed: float

    @property
    def holds(self) -> bool:
        return self.difference <= self.allowed


def run_case(name: str, case: Case) -> tuple[list[Row], list[str]]:
    """The rows of a golden file, and its arrays that are neither inputs nor compared. The file must be there."""
    path = find(name)
    assert path is not None, name
    with np.load(path, allow_pickle=False) as file:
        golden = {key: file[key] for key in file.files}
    pairs = case.run(golden)
    rows = [_row(name, key, *pair, case) for key, pair in pairs.items()]
    return rows, [key for key in golden if key not in pairs and not re.fullmatch(case.inputs, key)]


def _row(file: str, key: str, ours: np.ndarray, theirs: np.ndarray, case: Case) -> Row:
    if ours.shape != theirs.shape:
        return Row(file, key, f"shape {ours.shape}, not {theirs.shape}", float("inf"), 0)
    if not np.issubdtype(theirs.dtype, np.floating):
        return Row(file, key, "exact", int((ours != theirs).sum()), 0)
    kinds = [(kind, allowed) for pattern, kind, allowed in case.others if re.fullmatch(pattern, key)]
    kind, allowed = kinds[0] if kinds else ("relative", case.tolerance)
    difference = float(np.abs(ours - theirs).max(initial=0))
    if kind == "relative":
        difference /= max(float(np.abs(theirs).max(initial=0)), 1e-30)
    return Row(file, key, kind, difference, allowed)
