# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""AdamW over two groups of parameters, the polynomial schedule, and clipping (SegDINO3D sec. 4.1, release)."""

from __future__ import annotations

import torch
from torch import nn

from .config import OptimiserConfig

BACKBONE, REST = "backbone", "rest"


def make_optimiser(model: nn.Module, settings: OptimiserConfig) -> torch.optim.AdamW:
    """Weight decay on everything, as released. Groups carry their `name`, `names` of parameters and `start` rate."""
    groups = []
    for name, rate in ((REST, settings.learning_rate), (BACKBONE, settings.backbone_learning_rate)):
        members = [(n, p) for n, p in model.named_parameters() if ("backbone" in n) == (name == BACKBONE)]
        parameters = [parameter for _, parameter in members]
        names = [parameter_name for parameter_name, _ in members]
        groups.append({"params": parameters, "lr": rate, "start": rate, "name": name, "names": names})
    return torch.optim.AdamW(groups, betas=(0.9, 0.999), eps=1e-8, weight_decay=settings.weight_decay)


def rate_factor(step: int, steps: int, power: float) -> float:
    """What the rate of step `step`, from 0, is of the first: (1 - step / steps) ** power, zero from `steps` on."""
    return max(1 - step / steps, 0.0) ** power


def set_rates(optimiser: torch.optim.Optimizer, step: int, steps: int, power: float) -> dict[str, float]:
    """Gives each group the rate of `step`; returns them by the group's name."""
    for group in optimiser.param_groups:
        group["lr"] = group["start"] * rate_factor(step, steps, power)
    return {group["name"]: group["lr"] for group in optimiser.param_groups}


def clip(model: nn.Module, limit: float) -> float:
    """Scales all gradients so that their norm is at most `limit` (0: none); the norm before."""
    return float(nn.utils.clip_grad_norm_(model.parameters(), limit if limit > 0 else float("inf")))
