# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""MobileSAM whole, loaded strictly from the official file without executing anything."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ...errors import WeightsError, listed
from ...torch_file import read_torch_file
from ...types import Array
from .mask_decoder import MaskDecoder, PromptEncoder
from .tiny_vit import TinyViT, fold_batch_norm

STRIDE = 16
"""Pixels of the resized image per cell of the embedding."""
MEAN, DEVIATION = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
_MOST_NAMES = 8


class MobileSamNetwork(nn.Module):
    """The three parts, with the checkpoint's names."""

    def __init__(self) -> None:
        super().__init__()
        self.image_encoder = TinyViT()
        self.prompt_encoder = PromptEncoder()
        self.mask_decoder = MaskDecoder()


def load_network(path: Path) -> MobileSamNetwork:
    """The network with the weights of that file, for inference. Raises WeightsError that lists what does not fit."""
    network = MobileSamNetwork()
    load_strictly(network, read_torch_file(path), str(path))
    fold_batch_norm(network)
    return network.eval().requires_grad_(False)


def load_strictly(network: nn.Module, tensors: dict[str, Array], origin: str) -> None:
    """Fills the network. Raises WeightsError that lists missing, extra and misshapen tensors, and values not finite."""
    own = network.state_dict()
    faults = [
        _listed("missing", own.keys() - tensors.keys()),
        _listed("not known", tensors.keys() - own.keys()),
        _listed(
            "of another shape",
            (
                f"{k} {tensors[k].shape}, expected {tuple(own[k].shape)}"
                for k in own.keys() & tensors.keys()
                if tensors[k].shape != tuple(own[k].shape)
            ),
        ),
        _listed("not finite", (k for k, v in tensors.items() if not np.isfinite(v).all())),
    ]
    if any(faults):
        raise WeightsError(f"{origin} is no MobileSAM: {'; '.join(filter(None, faults))}")
    network.load_state_dict({k: torch.from_numpy(np.array(v)) for k, v in tensors.items()}, strict=True)


def _listed(what: str, names: Iterable[str]) -> str:
    found = sorted(names)
    return f"{len(found)} {what} ({listed(found, _MOST_NAMES)})" if found else ""


def resized_size(height: int, width: int, side: int) -> tuple[int, int]:
    """(rows, columns) of an image whose longest side becomes `side`."""
    scale = side / max(height, width)
    return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))


def prepare(rgb: Array, side: int, square: bool = False) -> Tensor:
    """uint8 (H, W, 3) to the encoder's input float32 (1, 3, h, w).

    The longest side becomes `side`; then zeros are added to the right and below, to whole cells, or to a square as
    in training.
    """
    h, w = resized_size(rgb.shape[0], rgb.shape[1], side)
    x = torch.from_numpy(np.ascontiguousarray(rgb)).permute(2, 0, 1)[None].float()
    x = functional.interpolate(x, (h, w), mode="bilinear", align_corners=False, antialias=True).round_().clamp_(0, 255)
    x = (x - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(DEVIATION).view(1, 3, 1, 1)
    rows, columns = (side, side) if square else (h + -h % STRIDE, w + -w % STRIDE)
    return functional.pad(x, (0, columns - w, 0, rows - h))
