# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Which scenes come when: an order per epoch, from the seed alone, split over processes and cut into batches."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

from seg3d_core.errors import ConfigError


class EpochOrder(Sampler[list[int]]):
    """A batch sampler. Every process gets the same number of batches; `begin` says which come next."""

    def __init__(self, count: int, batch_size: int, seed: int, rank: int = 0, processes: int = 1, full: bool = True):
        self.count, self.batch_size, self.seed = count, batch_size, seed
        self.rank, self.processes, self.full = rank, processes, full
        self.epoch = self.done = 0
        if not len(self):
            raise ConfigError(
                f"{count} training scenes give {processes} process(es) no full batch of {batch_size}: lower "
                "data.batch_size, or set run.full_batches=false"
            )

    def begin(self, epoch: int, done: int = 0) -> None:
        """From batch number `done` of an epoch on."""
        self.epoch, self.done = epoch, done

    def __len__(self) -> int:
        """Batches of a whole epoch, of each process."""
        if self.full:
            return self.count // self.processes // self.batch_size
        return math.ceil(math.ceil(self.count / self.processes) / self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        yield from self.batches(self.epoch)[self.done :]

    def batches(self, epoch: int) -> list[list[int]]:
        """All of an epoch, of this process."""
        order = np.random.default_rng((self.seed, epoch)).permutation(self.count)
        if not self.full:
            # Some scenes come twice, so that no process waits for another's gradients in vain.
            order = np.resize(order, math.ceil(self.count / self.processes) * self.processes)
        own = order[self.rank :: self.processes].tolist()
        return [own[i * self.batch_size : (i + 1) * self.batch_size] for i in range(len(self))]
