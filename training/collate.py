# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Scenes to batches, and loaders of these."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from seg3d_core.models.segdino3d import SceneInput

from .dataset import Targets, TrainingScene


@dataclass(frozen=True, eq=False)
class Batch:
    """Scenes of one step, never padded: they meet in the backbone's batch norm alone."""

    scenes: tuple[TrainingScene, ...]

    def __len__(self) -> int:
        return len(self.scenes)

    @property
    def inputs(self) -> list[SceneInput]:
        """What the network takes."""
        return [scene.inputs for scene in self.scenes]

    @property
    def targets(self) -> list[Targets | None]:
        return [scene.targets for scene in self.scenes]

    def to(self, device: torch.device | str) -> Batch:
        return Batch(tuple(scene.to(device) for scene in self.scenes))

    def pin_memory(self) -> Batch:
        """Called by the loader where it pins memory."""
        return Batch(tuple(scene.pin_memory() for scene in self.scenes))


def collate(scenes: Sequence[TrainingScene]) -> Batch:
    return Batch(tuple(scenes))
