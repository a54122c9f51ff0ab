# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Published checkpoints, strictly: every tensor has its place and every place its tensor."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ...errors import WeightsError, listed
from ...torch_file import read_torch_file
from ...types import Array
from .hornet import HorNetShape
from .images import PIXEL_MEAN, PIXEL_STD
from .network import EntityNetwork, NetworkShape
from .swin import SwinShape

# The losses' buffers and what a Swin computes anew; no weights of the network.
_DROPPED = re.compile(
    r"criterion(_[23]d)?\.empty_weight|backbone\.layers\.\d+\.blocks\.\d+\.attn\.relative_position_index"
)
_PUBLISHED = (HorNetShape(), SwinShape(), SwinShape(192, (2, 2, 18, 2), (6, 12, 24, 48)))
_CONSTANTS = {"pixel_mean": PIXEL_MEAN, "pixel_std": PIXEL_STD}


def load_network(path: str | Path) -> EntityNetwork:
    """The network of a published file on the CPU, float32, for inference. Raises WeightsError that lists the faults."""
    return network_of(read_state(Path(path)), str(path))


def read_state(path: Path) -> dict[str, Array]:
    """{name: array} of the network's weights under today's names; nothing in the file is executed.

    A state under `model` is unwrapped, buffers are dropped. Raises WeightsError for a missing, damaged or other file.
    """
    if not path.is_file():
        raise WeightsError(f"no entity weights at {path}: docs/cropformer.md says which files there are")
    state = read_torch_file(path)
    if not any(name.startswith(("backbone.", "sem_seg_head.")) for name in state):
        state = {n.removeprefix("model."): a for n, a in state.items() if n.startswith("model.")}
    if not state:
        raise WeightsError(f"{path} holds no entity segmentation model: no tensor of it is named backbone.*")
    _check_constants(state, path)
    kept = {name: array for name, array in state.items() if not _DROPPED.fullmatch(name)}
    return {name.replace("static_query", "query_feat"): array for name, array in kept.items()}


def shape_of(state: Mapping[str, Array], origin: str) -> NetworkShape:
    """The network's sizes; those of a published backbone are not guessed, so that a missing last layer is seen."""
    try:
        shape = NetworkShape.of({name: tuple(array.shape) for name, array in state.items()})
    except (KeyError, ValueError, IndexError) as error:
        raise WeightsError(
            f"{origin} is no entity Mask2Former or CropFormer with a HorNet or Swin backbone, or damaged: "
            f"{error} tells a size of the network and is missing or wrong"
        ) from None
    same = (b for b in _PUBLISHED if type(b) is type(shape.backbone) and b.width == shape.backbone.width)
    published = next(same, None)
    return shape if published is None else replace(shape, backbone=published, encoder_depth=6, depth=9)


def network_of(state: dict[str, Array], origin: str) -> EntityNetwork:
    """The network of the tensors in `state`, which is emptied on the way, so that they are not held twice."""
    shape = shape_of(state, origin)
    try:
        with torch.device("meta"):
            network = EntityNetwork(shape)
    except (RuntimeError, ValueError, IndexError) as error:
        raise WeightsError(f"{origin} has sizes that fit no network: {error}") from None
    wanted = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    check_names(state, wanted, origin)
    wrong = [f"{n} {tuple(state[n].shape)} instead of {s}" for n, s in wanted.items() if tuple(state[n].shape) != s]
    wrong += [f"{n} of {a.dtype}" for n, a in state.items() if a.dtype.kind != "f"]
    if wrong:
        raise WeightsError(f"{origin} has {len(wrong)} tensors of a wrong shape or type: {listed(wrong)}")
    tensors = {name: torch.from_numpy(np.array(state.pop(name), np.float32)) for name in wanted}
    network.load_state_dict(tensors, assign=True)
    return network.eval().requires_grad_(False)


def check_names(state: Collection[str], wanted: Collection[str], origin: str) -> None:
    """Raises WeightsError that lists the missing and the extra names."""
    missing = [name for name in wanted if name not in state]
    extra = [name for name in state if name not in wanted]
    if missing or extra:
        raise WeightsError(
            f"{origin} is damaged or another model: "
            f"{len(missing)} tensors missing ({listed(missing)}), {len(extra)} too many ({listed(extra)})"
        )


def _check_constants(state: dict[str, Array], origin: Path) -> None:
    """Takes the pixels' mean and deviation out of a state that has them. WeightsError where they differ."""
    for name, expected in _CONSTANTS.items():
        found = state.pop(name, None)
        if found is not None and (found.size != 3 or not np.allclose(found.ravel(), expected, atol=1e-3)):
            raise WeightsError(f"{origin} was trained with {name} = {found.ravel()[:3]}, not {expected}: another model")
