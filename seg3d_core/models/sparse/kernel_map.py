# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Which input row meets which output row under which weight of a kernel."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

# Products of one block wait in memory for their sum: they must fit a cache on the CPU, and memory on a GPU.
_PAIRS_PER_BLOCK = {"cpu": 1 << 16, "cuda": 1 << 21}


@dataclass(frozen=True)
class Segment:
    """The pairs of one block that share a weight: rows `start` to `stop` of the block's products."""

    weight: int
    start: int
    stop: int
    source: Tensor
    target: Tensor


@dataclass(frozen=True)
class Block:
    """Consecutive output rows `first` to `last` and all pairs that reach them.

    `order` lists the rows of the block's products by output row; `offsets` (last - first + 1,) says where each
    output row begins in it.
    """

    first: int
    last: int
    n_pairs: int
    segments: tuple[Segment, ...]
    order: Tensor
    offsets: Tensor


@dataclass(frozen=True, eq=False)
class KernelMap:
    """Pairs (P,) of input and output rows, by weight and then by output row.

    Args:
        weight: (P,) int64, ascending, below `n_weights`.
        source, target: (P,) int32 rows of input and output; a target occurs at most once per weight.
        n_source, n_target: rows of input and output.
        is_mirrored: the pairs of weight K - 1 - j are those of j with source and target swapped.
    """

    weight: Tensor
    source: Tensor
    target: Tensor
    n_weights: int
    n_source: int
    n_target: int
    is_mirrored: bool = False

    @classmethod
    def from_pairs(cls, weight: Tensor, source: Tensor, target: Tensor, **sizes: Any) -> KernelMap:
        """Sorts pairs that come in any order."""
        order = torch.argsort(weight * max(sizes["n_target"], 1) + target)
        return cls(weight[order], source[order].int(), target[order].int(), **sizes)

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        return tuple(self._blocks())

    def _blocks(self) -> Iterator[Block]:
        device, n_pairs = self.source.device, len(self.source)
        budget = _PAIRS_PER_BLOCK.get(device.type, _PAIRS_PER_BLOCK["cuda"])
        n_blocks = max(1, -(-n_pairs // budget))
        rows = max(1, -(-self.n_target // n_blocks))
        firsts = torch.arange(0, self.n_target, rows, device=device)
        n_blocks = len(firsts)
        if not n_blocks:
            return

        # Where the pairs of each weight enter each block, (n_weights, n_blocks + 1).
        edges = torch.cat([firsts, firsts.new_tensor([self.n_target])])
        per_weight = torch.arange(self.n_weights, device=device)[:, None] * self.n_target + edges
        bounds = torch.searchsorted(self.weight * self.n_target + self.target, per_weight)
        lengths = bounds[:, 1:] - bounds[:, :-1]
        starts = torch.cumsum(lengths, dim=0) - lengths
        shift = torch.repeat_interleave((starts - bounds[:, :-1]).flatten(), lengths.flatten())
        position = (torch.arange(n_pairs, device=device) + shift).int()

        order = position[torch.argsort(self.target, stable=True)]
        ends = torch.cumsum(torch.bincount(self.target, minlength=self.n_target), dim=0).int()
        begins = torch.cat([ends.new_zeros(1), ends])
        bounds_list, starts_list, edge_list = bounds.tolist(), starts.tolist(), edges.tolist()
        pair_list = begins[edges].tolist()
        for block in range(n_blocks):
            segments = []
            for weight in range(self.n_weights):
                low, high = bounds_list[weight][block : block + 2]
                if low < high:
                    start = starts_list[weight][block]
                    pairs = slice(low, high)
                    segment = Segment(weight, start, start + high - low, self.source[pairs], self.target[pairs])
                    segments.append(segment)
            first, last = edge_list[block : block + 2]
            low, high = pair_list[block : block + 2]
            offsets = begins[first : last + 1] - low
            yield Block(first, last, high - low, tuple(segments), order[low:high], offsets)
