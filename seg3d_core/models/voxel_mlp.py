# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""No 3D network: each voxel's features through a small MLP, the ablation of global context (paper Table 3)."""

from __future__ import annotations

from torch import nn

from .boxes import Mlp
from .sparse import SparseTensor


class VoxelMlp(nn.Module):
    """Features (V, in_channels) to (V, out_channels), in the place of a backbone. The paper gives no width."""

    convention = "minkowski"

    def __init__(self, in_channels: int, out_channels: int, hidden: int = 256):
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        self.mlp = Mlp(in_channels, hidden, hidden, out_channels)

    def forward(self, x: SparseTensor) -> SparseTensor:
        return x.replace(self.mlp(x.features))
