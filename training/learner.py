# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""One training step: losses of one or more batches, their gradients, and AdamW."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext

import numpy as np
import torch
from torch import Tensor

from seg3d_core.errors import Seg3DError
from seg3d_core.models.decoder import draw_queries
from seg3d_core.models.segdino3d import SegDino3D

from .collate import Batch
from .config import TrainingConfig
from .criterion import Criterion, Loss
from .dataset import Targets
from .optimiser import clip, make_optimiser, set_rates
from .processes import Processes


class NonFiniteError(Seg3DError):
    """A loss or gradient that is no number: the message lists every part."""


class Learner:
    """A network, its criterion and its optimiser. `steps` is where the schedule ends."""

    def __init__(self, model: SegDino3D, config: TrainingConfig, steps: int, processes: Processes):
        self.model, self.config, self.steps, self.processes = model, config, steps, processes
        self.network = processes.share(model)
        self.criterion = Criterion(config.loss, config.matcher, model.settings.box_regression)
        self.optimiser = make_optimiser(model, config.optimiser)

    def step(self, batches: Sequence[Batch], number: int) -> tuple[dict[str, float], float]:
        """Step `number`, from 0: the parts of the loss, means over batches, and the norm of the gradient.

        Raises NonFiniteError before any weight has changed.
        """
        draws = [self.draw(batch, number, place) for place, batch in enumerate(batches)]
        parts = self.backward(batches, draws)
        return parts, self.update(number, parts)

    def draw(self, batch: Batch, number: int, place: int) -> list[Tensor]:
        """The queries of each scene. They depend on the seed, the step and the batch's place in it alone: two processes
        draw what one would that takes two batches per step."""
        place_in_step = place * self.processes.count + self.processes.rank
        seeds = np.random.SeedSequence((self.config.run.seed, number, place_in_step))
        generator = torch.Generator().manual_seed(int(seeds.generate_state(1, np.uint64)[0] >> 1))
        most = self.config.run.most_queries or None
        drawn = (draw_queries(scene.superpoint_count, generator=generator) for scene in batch.scenes)
        return [queries[:most].to(self.processes.device) for queries in drawn]

    def backward(self, batches: Sequence[Batch], queries: Sequence[Sequence[Tensor]]) -> dict[str, float]:
        """Adds the gradients of the batches' mean loss; the parts of that. Raises NonFiniteError."""
        self.network.train()
        found: list[Mapping[str, Tensor]] = []
        for number, (batch, ids) in enumerate(zip(batches, queries, strict=True)):
            is_last = number == len(batches) - 1
            with nullcontext() if is_last else self.processes.without_exchange(self.network):
                loss = self.loss(batch, ids)
                self._check(loss.parts(), batch)
                (loss.total / len(batches)).backward()
            found.append(loss.parts())
        return {name: float(torch.stack([parts[name] for parts in found]).mean()) for name in found[0]}

    def loss(self, batch: Batch, query_ids: Sequence[Tensor]) -> Loss:
        """Of one batch, in float32 whatever the network computes in."""
        config = self.config.optimiser
        device = self.processes.device.type
        with torch.autocast(device, torch.bfloat16, enabled=config.precision == "bf16"):
            outputs = self.network(batch.inputs, query_ids, True)
        return self.criterion([output.float() for output in outputs], _targets(batch))

    def update(self, number: int, parts: Mapping[str, float]) -> float:
        """AdamW with the gradients that are there, clipped; their norm before. Raises NonFiniteError."""
        set_rates(self.optimiser, number, self.steps, self.config.optimiser.power)
        norm = clip(self.model, self.config.optimiser.clip_norm)
        if not np.isfinite(norm):
            self.optimiser.zero_grad()
            raise NonFiniteError(f"the gradient of step {number} is not finite; its losses were {_listed(parts)}")
        self.optimiser.step()
        self.optimiser.zero_grad()
        return norm

    def _check(self, parts: Mapping[str, Tensor], batch: Batch) -> None:
        if torch.isfinite(parts["total"]):
            return
        self.optimiser.zero_grad()
        names = ", ".join(scene.name for scene in batch.scenes)
        listed = _listed({name: float(value) for name, value in parts.items()})
        raise NonFiniteError(
            f"the loss of {names} is not finite: {listed}. Look at these scenes, lower optimiser.learning_rate, or "
            "set optimiser.precision=float32; the last checkpoint is whole"
        )


def _targets(batch: Batch) -> list[Targets]:
    out = []
    for scene in batch.scenes:
        if scene.targets is None:
            raise Seg3DError(f"{scene.name} has no annotation to learn from: take it out of the training split")
        out.append(scene.targets)
    return out


def _listed(parts: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in parts.items())
