# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Checkpoints without pickle: weights and the optimiser's state as safetensors, everything else as JSON.

`last.json` names the newest pair of files and is replaced at the very end, so that a run that is killed while it
writes goes on from the pair before. Weights are in the core's own format: `segdino3d.weights` takes them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from seg3d_core.errors import WeightsError, printable
from seg3d_core.models.checkpoint import Weights, load_strict, read_weights, to_bytes
from seg3d_core.models.segdino3d import SegDino3D

from .files import replacing

BEST, LAST = "best.safetensors", "last.json"
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class Progress:
    """How far a run is: finished epochs, finished batches of the running one, steps, and the best score so far.

    All that is random follows from the seed and these numbers.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    best: float = -1.0
    best_epoch: int = 0
    evaluations: int = 0


@dataclass(frozen=True)
class Origin:
    """What weights come from: the source of their 2D features, "" without any, and the names of their classes."""

    features_2d: str = ""
    class_names: tuple[str, ...] = ()


def save(folder: Path, model: SegDino3D, optimiser: torch.optim.Optimizer, progress: Progress, origin: Origin) -> Path:
    """Writes the newest checkpoint and removes those before it; the file of the weights.

    Raises Seg3DError where the folder can't be written.
    """
    name = f"step_{progress.step:010d}"
    weights, state = f"{name}.safetensors", f"{name}.optimiser.safetensors"
    write(folder / weights, weights_of(model, origin))
    write(folder / state, safetensors.torch.save(_optimiser_tensors(optimiser)))
    write_json(folder / LAST, {"weights": weights, "optimiser": state, **asdict(progress)})
    for old in folder.glob("step_*.safetensors"):
        if old.name not in (weights, state):
            old.unlink(missing_ok=True)
    return folder / weights


def save_best(folder: Path, model: SegDino3D, progress: Progress, origin: Origin, scores: Mapping[str, Any]) -> None:
    """Weights alone, and beside them what they scored. Raises Seg3DError."""
    write(folder / BEST, weights_of(model, origin))
    write_json(folder / "best.json", {"epoch": progress.epoch, "step": progress.step, **scores})


def exists(folder: Path) -> bool:
    """Whether a run can go on from here."""
    return (folder / LAST).is_file()


def load(folder: Path, model: SegDino3D, optimiser: torch.optim.Optimizer) -> Progress:
    """Fills both from the newest checkpoint, bit by bit. Raises WeightsError for files that are missing or damaged."""
    try:
        about = json.loads((folder / LAST).read_text(encoding="utf-8"))
        weights, state = folder / about.pop("weights"), folder / about.pop("optimiser")
        progress = Progress(**about)
        tensors = safetensors.torch.load_file(state)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError, SafetensorError) as error:
        raise WeightsError(
            f"cannot go on from {folder}: {printable(str(error), 200)}; start anew in another folder"
        ) from None
    try:
        load_strict(model, read_weights(weights).state)
        _fill(optimiser, tensors)
    except WeightsError as error:
        raise WeightsError(f"{folder}: {error}") from None
    return progress


def find_weights(path: Path) -> Path:
    """A file as it is; of a run's folder its best weights, or else its newest. Raises WeightsError."""
    if not path.is_dir():
        return path
    if (path / BEST).is_file():
        return path / BEST
    try:
        return path / json.loads((path / LAST).read_text(encoding="utf-8"))["weights"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise WeightsError(f"{path} holds no checkpoint of a run: neither {BEST} nor {LAST}") from None


def weights_of(model: SegDino3D, origin: Origin) -> bytes:
    """The network as a file of the core's."""
    features = origin.features_2d if origin.features_2d and model.settings.needs_2d else None
    return to_bytes(Weights(model.state_dict(), model.settings, features, origin.class_names))


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Replaces the file at once. Raises Seg3DError."""
    write(path, (json.dumps(data, indent=1) + "\n").encode())


def write(path: Path, data: bytes) -> None:
    """Replaces the file at once. Raises Seg3DError."""
    with replacing(path) as file:
        file.write(data)


def _named(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {n: p for group in optimiser.param_groups for n, p in zip(group["names"], group["params"], strict=True)}


def _optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    out = {}
    for name, parameter in _named(optimiser).items():
        for moment in _MOMENTS if parameter in optimiser.state else ():
            out[f"{moment}.{name}"] = optimiser.state[parameter][moment].detach().cpu().contiguous()
    return out


def _fill(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    named = _named(optimiser)
    if unknown := sorted(set(tensors) - {f"{moment}.{name}" for name in named for moment in _MOMENTS}):
        raise WeightsError(
            f"the optimiser's state is of another network: {len(unknown)} names are unknown, {unknown[0]} first"
        )
    for name, parameter in named.items():
        state = {m: tensors[f"{m}.{name}"] for m in _MOMENTS if f"{m}.{name}" in tensors}
        if not state:
            # Nothing has flowed to it yet.
            continue
        if set(state) != set(_MOMENTS) or any(state[m].shape != parameter.shape for m in _MOMENTS[1:]):
            raise WeightsError(f"the optimiser's state of {name} is incomplete or of another shape")
        # The count of steps stays on the CPU, where AdamW keeps it.
        moments = {moment: state[moment].to(parameter.device) for moment in _MOMENTS[1:]}
        optimiser.state[parameter] = {"step": state["step"], **moments}
