# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Sine encodings of positions in a scene, modulated by the sizes of boxes (SegDINO3D sec. 3.3, eqs. 7 and 8)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class SinePositionalEncoding(nn.Module):
    """Positions to `width` channels: for each axis its own block of interleaved sines and cosines. No parameters.

    Positions are mapped to [0, 2 pi] by the range of the scene's points; what lies outside the range leaves the
    interval. Positions are constants: gradients flow into the modulation alone.
    """

    def __init__(self, width: int = 256, temperature: float = 20.0):
        super().__init__()
        self.temperature = temperature
        even = width // 3 // 2 * 2
        left = (width - 3 * even) // 2
        self.channels = tuple(even + 2 * (axis < left) for axis in range(3))

    def forward(self, positions: Tensor, low: Tensor, high: Tensor, modulation: Tensor | None = None) -> Tensor:
        """Positions (n, 3) in metres, the scene's range (3,) and (3,), modulation (n, 3) or none -> (n, width)."""
        phases = ((positions.detach() - low) / scene_extent(low, high)) * (2 * math.pi)
        parts = []
        for axis, count in enumerate(self.channels):
            part = self._waves(phases[:, axis], count)
            parts.append(part if modulation is None else part * modulation[:, axis, None])
        return torch.cat(parts, dim=1)

    def _waves(self, phase: Tensor, count: int) -> Tensor:
        pair = torch.div(torch.arange(count, device=phase.device), 2, rounding_mode="floor").to(phase.dtype)
        angles = phase[:, None] / self.temperature ** (2 * pair / count)
        return torch.stack((angles[:, 0::2].sin(), angles[:, 1::2].cos()), dim=2).flatten(1)


def scene_extent(low: Tensor, high: Tensor) -> Tensor:
    """The sides (3,) of the scene's range; 1 where the scene is flat, so that nothing divides by zero."""
    extent = high - low
    return torch.where(extent > 0, extent, torch.ones_like(extent))
