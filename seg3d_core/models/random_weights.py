"""A small network with random weights, in our format: everything runs, and nothing that it finds means anything.

For demonstrations and tests where no trained weights are at hand.
"""

from __future__ import annotations

import torch

from .architecture import Architecture
from .checkpoint import Weights, to_bytes
from .segdino3d import SegDino3D

ARCHITECTURE = Architecture("mlp", 18, 20, 32, layers=2, feed_forward_width=64)
"""ScanNet's classes, no 3D network, two layers: 10 MB."""


def random_weights(features_2d: str, seed: int = 0, architecture: Architecture = ARCHITECTURE) -> bytes:
    """The file's content; `features_2d` names the source of 2D features that it claims to know.

    The same seed gives the same weights. Raises WeightsError where safetensors is missing.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = SegDino3D(architecture)
        # As drawn, all classes are about as likely, and no prediction reaches a score that any limit lets pass.
        model.decoder.heads.classes[-1].weight.data *= 20
    return to_bytes(Weights(model.state_dict(), architecture, features_2d if architecture.needs_2d else None))
