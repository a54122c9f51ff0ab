# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Weights of SegDINO3D: the published container, backbones alone, and our own safetensors file.

Nothing is unpickled: the published container is read by `torch_file`, which executes nothing. Keys are strict; every
mismatch is listed. Our file also says what shapes cannot: the architecture, and which 2D features it was trained with.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from ..config import SegDino3DConfig
from ..errors import WeightsError, printable
from ..torch_file import read_torch_file
from .architecture import PUBLISHED, Architecture, differences, same_source
from .published_names import to_ours
from .recover import NOT_IN_SHAPES, is_stem, recover_architecture, recover_backbone
from .segdino3d import SegDino3D
from .sparse import find_backend

log = logging.getLogger(__name__)

SizeChoice = Literal["auto", "normalised", "metric"]

FORMAT = "seg3d-segdino3d"
VERSION = 1
_LONGEST_NAME = 200  # characters, of a class
PUBLISHED_FEATURES = "dino-x"
"""What both published full networks were trained with. Their files do not say so."""


@dataclass(frozen=True, eq=False)
class Weights:
    """Tensors under our names, on the CPU. `architecture` and `features_2d` are None where the file does not say;
    a backbone alone (`is_whole` is false) has neither. `class_names` are those of the things, or none."""

    state: dict[str, Tensor]
    architecture: Architecture | None = None
    features_2d: str | None = None
    class_names: tuple[str, ...] = ()

    @property
    def is_whole(self) -> bool:
        return any(name.startswith("decoder.") for name in self.state)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: tuple(value.shape) for name, value in self.state.items()}


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model in evaluation mode, the 2D feature source of its weights (None: it needs none), sentences on what
    the file did not say and was assumed, and the names of its classes where the file says them."""

    model: SegDino3D
    features_2d: str | None
    notes: tuple[str, ...]
    class_names: tuple[str, ...] = ()


def read_weights(path: str | Path) -> Weights:
    """A file of ours, the published container, a plain state dict, or a backbone alone. Raises WeightsError."""
    path = Path(path).expanduser()
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError as error:
        raise WeightsError(f"cannot read weights at {path}: {error}") from None
    # A safetensors file begins with the length of its JSON header, uint64.
    if start[8:9] == b"{" and start[:2] != b"PK":
        return _read_safetensors(path)
    arrays = read_torch_file(path, under="model", allow_unknown=True)
    state = to_ours({name: torch.from_numpy(np.array(values)) for name, values in arrays.items()})
    if not any(name.startswith(("backbone.", "decoder.")) for name in state):
        # A backbone saved by itself.
        state = {f"backbone.{name}": value for name, value in state.items()}
    return Weights(state)


def describe(weights: Weights, sizes: SizeChoice = "auto") -> tuple[Architecture, str | None, list[str]]:
    """Architecture, 2D feature source, and what was assumed. `sizes` other than `auto` decides how boxes are sized.

    Raises WeightsError for what is no whole network, or says another size than was asked for.
    """
    notes: list[str] = []
    if not weights.is_whole:
        recover_backbone(weights.shapes)
        raise WeightsError(
            "these weights are a backbone alone: training can start from them, segmenting needs a decoder"
        )
    architecture = weights.architecture
    recovered, untold = recover_architecture(weights.shapes)
    if architecture is None:
        architecture, notes = recovered, untold
        if architecture.box_regression and sizes != "auto" and sizes != architecture.sizes:
            notes[-1] = f"box sizes are {sizes}, as asked; with this backbone {architecture.sizes} was published"
            architecture = replace(architecture, sizes=sizes)
    elif lines := differences(recovered, replace(architecture, **{n: getattr(recovered, n) for n in NOT_IN_SHAPES})):
        raise WeightsError("the file's header does not agree with its tensors: " + "; ".join(lines))
    elif sizes not in ("auto", architecture.sizes):
        raise WeightsError(
            f"these weights have {architecture.sizes} box sizes, not {sizes}: set segdino3d.sizes to auto"
        )
    features = weights.features_2d
    if features is None and architecture.needs_2d:
        features = PUBLISHED_FEATURES
        notes.append(f"the file does not name its 2D features: taken as {features}, as published")
    return architecture, features if architecture.needs_2d else None, notes


def load_model(path: str | Path, settings: SegDino3DConfig, expected: Architecture | str | None = None) -> LoadedModel:
    """The network of a file, in evaluation mode on the CPU.

    `expected` is an architecture or the name of a published one that the file must be of. Raises WeightsError where
    it is not, lists every key that does not fit, and refuses weights of other 2D features than `settings` says run.
    """
    weights = read_weights(path)
    try:
        architecture, features, notes = describe(weights, settings.sizes)
        if expected is not None:
            check_architecture(architecture, expected)
        if features is not None and settings.features_2d != "auto":
            check_features(features, settings.features_2d)
        if not settings.distance_mask:
            architecture = replace(architecture, distance_mask=False)
        backend = None
        if architecture.backbone != "mlp":
            backend = find_backend(settings.sparse_backend, architecture.backbone)
        model = SegDino3D(architecture, sparse_backend=backend)
        load_strict(model, weights.state)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from None
    for note in notes:
        log.info("%s: %s", path, note)
    return LoadedModel(model.eval(), features, tuple(notes), weights.class_names)


def check_features(trained_with: str, running: str) -> None:
    """Raises WeightsError unless both name one source of 2D features, the one perhaps more closely; "": none runs."""
    if same_source(trained_with, running):
        return
    if not running:
        raise WeightsError(
            f"the weights were trained with 2D features of {trained_with}, and no model runs that gives any: set "
            "perception.masks to one, such as `detector` or `mobile_sam`, and take weights for it"
        )
    raise WeightsError(
        f"the weights were trained with 2D features of {trained_with}, but those of {running} run; "
        "another network's features mean nothing to them: take weights for these, or set segdino3d.features_2d"
    )


def check_architecture(found: Architecture, expected: Architecture | str) -> None:
    """Raises WeightsError that lists every difference."""
    if isinstance(expected, str):
        if expected not in PUBLISHED:
            raise WeightsError(f"no published architecture {expected!r}: choose one of {', '.join(PUBLISHED)}")
        expected = PUBLISHED[expected]
    if lines := differences(found, expected):
        raise WeightsError("other weights than asked for: " + "; ".join(lines))


def load_strict(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """All of a state dict into a module. Raises WeightsError that lists what is missing, too much, or misshapen."""
    if problems := mismatches(module, state):
        raise WeightsError(f"these weights do not fit in {len(problems)} keys: " + "; ".join(problems))
    module.load_state_dict(dict(state), strict=True)


def mismatches(module: nn.Module, state: Mapping[str, Tensor]) -> list[str]:
    """One phrase per key that differs."""
    wanted = module.state_dict()
    problems = [f"{name} is missing" for name in wanted if name not in state]
    problems += [f"{name} is not known" for name in state if name not in wanted]
    for name in wanted.keys() & state.keys():
        here, there = tuple(wanted[name].shape), tuple(state[name].shape)
        # spconv before version 2 stored (k, k, k, in, out); the layers take both.
        if there not in (here, (*here[1:4], here[4], here[0]) if len(here) == 5 else here):
            problems.append(f"{name} is {there}, not {here}")
    return problems


def load_backbone(model: SegDino3D, path: str | Path) -> list[str]:
    """Starts the backbone from a file of one, whole networks included; says what stayed at its initial values.

    The first layer stays where the file has none for as many input channels. Raises WeightsError for all else.
    """
    weights = read_weights(path)
    state = {n.removeprefix("backbone."): v for n, v in weights.state.items() if n.startswith("backbone.")}
    try:
        kind, channels = recover_backbone({f"backbone.{name}": tuple(v.shape) for name, v in state.items()})
    except WeightsError:
        # Without a first layer the names alone must tell; the check of the keys below does.
        kind, channels = model.settings.backbone, 0
    if kind != model.settings.backbone:
        raise WeightsError(f"{path} holds a {kind} backbone, the network has a {model.settings.backbone} one")
    notes = []
    if channels != model.settings.in_channels:
        own = {n: v for n, v in model.backbone.state_dict().items() if is_stem(f"backbone.{n}")}
        state.update(own)
        found = f"takes {channels} channels, not {model.settings.in_channels}" if channels else "is not there"
        notes.append(f"the first layer of {path} {found}: the network's own stays as initialised")
    try:
        load_strict(model.backbone, state)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from None
    return notes


def to_bytes(weights: Weights, half: bool = False) -> bytes:
    """Our file: safetensors, with architecture and 2D feature source in its header. Raises WeightsError.

    `half`: numbers are stored at half precision; a network computes at single precision all the same.
    """
    safetensors = _safetensors()
    header = {"format": FORMAT, "version": str(VERSION)}
    if weights.architecture is not None:
        header["architecture"] = json.dumps(asdict(weights.architecture))
    if weights.features_2d is not None:
        header["features_2d"] = weights.features_2d
    if weights.class_names:
        header["classes"] = json.dumps(weights.class_names)
    state = {name: value.detach().cpu().contiguous() for name, value in weights.state.items()}
    if half:
        state = {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
    return safetensors.save(state, metadata=header)


def convert(
    source: str | Path, features_2d: str | None = None, sizes: SizeChoice = "auto", half: bool = False
) -> tuple[bytes, list[str]]:
    """Any weights that `read_weights` takes as our file, checked, and what was assumed on the way.

    `features_2d` names the 2D features that they were trained with; `half` as in `to_bytes`. Raises WeightsError.
    """
    weights = read_weights(source)
    if not weights.is_whole:
        return to_bytes(weights, half), [_backbone_note(source, weights)]
    if features_2d is not None:
        if weights.features_2d not in (None, features_2d):
            raise WeightsError(
                f"{source} says that its 2D features are those of {weights.features_2d}, not {features_2d}"
            )
        weights = replace(weights, features_2d=features_2d)
    try:
        architecture, features, notes = describe(weights, sizes)
        model = SegDino3D(architecture)
        load_strict(model, weights.state)
    except WeightsError as error:
        raise WeightsError(f"{source}: {error}") from None
    return to_bytes(Weights(model.state_dict(), architecture, features, weights.class_names), half), notes


def _backbone_note(source: str | Path, weights: Weights) -> str:
    try:
        kind, channels = recover_backbone(weights.shapes)
    except WeightsError as error:
        raise WeightsError(f"{source}: {error}") from None
    return f"a {kind} backbone of {channels} input channels alone: training can start from it"


def _read_safetensors(path: Path) -> Weights:
    _safetensors()
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(f"{path} is damaged or no safetensors file: {error}") from None
    if header.get("format") != FORMAT:
        return Weights(to_ours(state))
    if not header.get("version", "").isdigit() or int(header["version"]) > VERSION:
        raise WeightsError(f"{path} has format version {header.get('version')}, this software reads up to {VERSION}")
    architecture = _parse_architecture(path, header["architecture"]) if "architecture" in header else None
    names = _parse_names(path, header.get("classes", "[]"), architecture)
    return Weights(state, architecture, header.get("features_2d"), names)


def _parse_names(path: Path, text: str, architecture: Architecture | None) -> tuple[str, ...]:
    try:
        names = json.loads(text)
    except ValueError:
        names = None
    count = len(names) if isinstance(names, list) and all(isinstance(name, str) for name in names) else -1
    if count < 0 or (count and architecture is not None and count != architecture.thing_classes):
        raise WeightsError(f"{path}: its header names other classes than the network has")
    return tuple(printable(name, _LONGEST_NAME) for name in names)


def _parse_architecture(path: Path, text: str) -> Architecture:
    try:
        found = Architecture(**json.loads(text))
        for name, value in asdict(PUBLISHED["scannet200"]).items():
            if type(getattr(found, name)) is not type(value):
                raise TypeError(f"{name} is {getattr(found, name)!r}")
        return found
    except (ValueError, TypeError, ArithmeticError) as error:
        raise WeightsError(f"{path}: its header describes no architecture that this software knows: {error}") from None


def _safetensors() -> Any:
    try:
        import safetensors.torch
    except ImportError:
        raise WeightsError("weights in safetensors need the package: pip install safetensors") from None
    return safetensors.torch
