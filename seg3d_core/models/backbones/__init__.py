# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""3D backbones of SegDINO3D: voxels in, features of superpoints out."""

from .minkunet import MinkUNet
from .scene import Points, Superpoints, Voxels, encode_scenes, normalise_colours, point_features, pool, voxelise
from .spconvunet import SpConvUNet

__all__ = [
    "MinkUNet",
    "Points",
    "SpConvUNet",
    "Superpoints",
    "Voxels",
    "encode_scenes",
    "normalise_colours",
    "point_features",
    "pool",
    "voxelise",
]
