# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""A small network with random weights, in our format: everything runs, and nothing that it finds means anything.

For demonstrations and tests where no trained weights are at hand.
"""

from __future__ import annotations

import torch
from torch import nn

from .architecture import Architecture
from .checkpoint import Weights, to_bytes
from .segdino3d import SegDino3D
from .voxel_mlp import VoxelMlp

ARCHITECTURE = Architecture("mlp", 18, 20, 32, layers=2, feed_forward_width=64)
"""ScanNet's classes, no 3D network, two layers: 13 MB."""


def random_weights(features_2d: str, seed: int = 0, architecture: Architecture = ARCHITECTURE) -> bytes:
    """The file's content; `features_2d` names the source of 2D features that it claims to know.

    The same seed gives the same weights. Raises WeightsError where safetensors is missing.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = SegDino3D(architecture)
        _make_decided(model)
    return to_bytes(Weights(model.state_dict(), architecture, features_2d if architecture.needs_2d else None))


@torch.no_grad()
def _make_decided(model: SegDino3D) -> None:
    """As drawn, all classes are about as likely and masks are empty or hold everything: nothing would be found.

    Here a query's mask holds the superpoints whose features are like its own, and its class is certain.
    """
    heads, projection = model.decoder.heads, model.decoder.query_projection
    for parameter in projection.parameters():
        parameter.mul_(3)
    features = torch.randn(1000, model.settings.feature_channels)
    if isinstance(model.backbone, VoxelMlp):
        features = model.backbone.mlp(torch.randn(1000, model.settings.in_channels))
    # What all have in common would make everything alike.
    projection[-1].bias.sub_(projection(features).mean(dim=0))
    heads.mask_features.load_state_dict(projection.state_dict())
    heads.classes[-1].weight.mul_(20)
    for layer in model.decoder.layers:
        for module in layer.modules():
            if isinstance(module, nn.Linear):
                module.weight.mul_(0.3)
