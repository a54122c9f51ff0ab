# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""One process, or as many as torchrun started, each with its own scenes and one network between them."""

from __future__ import annotations

import datetime
import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from seg3d_core.errors import ConfigError

# The others wait here while the first process evaluates.
_PATIENCE = datetime.timedelta(hours=6)


@dataclass(frozen=True)
class Processes:
    """Which process this is, of how many, and the device that is its own."""

    rank: int
    count: int
    device: torch.device

    @classmethod
    def join(cls, device: str = "auto") -> Processes:
        """What torchrun says in the environment; alone without it. Raises ConfigError for a missing device."""
        if device == "cuda" and not torch.cuda.is_available():
            raise ConfigError("run.device is cuda, but PyTorch sees no GPU here: set run.device=cpu or auto")
        with_gpu = device != "cpu" and torch.cuda.is_available()
        local = int(os.environ.get("LOCAL_RANK", 0))
        chosen = torch.device("cuda", local) if with_gpu else torch.device("cpu")
        if with_gpu:
            if local >= torch.cuda.device_count():
                raise ConfigError(
                    f"torchrun started {local + 1} or more processes here, but there are {torch.cuda.device_count()} "
                    "GPUs: lower --nproc-per-node"
                )
            torch.cuda.set_device(chosen)
        count = int(os.environ.get("WORLD_SIZE", 1))
        if count > 1:
            distributed.init_process_group("nccl" if with_gpu else "gloo", timeout=_PATIENCE)
        return cls(int(os.environ.get("RANK", 0)), count, chosen)

    @property
    def is_first(self) -> bool:
        """Whether this process writes, evaluates and talks."""
        return self.rank == 0

    def leave(self) -> None:
        """At the end."""
        if self.count > 1 and distributed.is_initialized():
            distributed.destroy_process_group()

    def wait(self) -> None:
        """Until all are here."""
        if self.count > 1:
            distributed.barrier()

    def share(self, model: nn.Module) -> nn.Module:
        """The network with gradients averaged over processes, and the first one's running statistics."""
        return DistributedDataParallel(model) if self.count > 1 else model

    def without_exchange(self, network: nn.Module) -> AbstractContextManager[Any]:
        """Gradients stay here: for all but the last batch of a step."""
        return network.no_sync() if self.count > 1 else nullcontext()

    def mean(self, values: Tensor) -> Tensor:
        """Over processes, in float64."""
        values = values.detach().double().to(self.device)
        if self.count > 1:
            distributed.all_reduce(values)
        return values / self.count

    def any(self, value: bool) -> bool:
        """Whether it is so in any process."""
        return bool(self.mean(torch.tensor(float(value))) > 0)
