# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Bounded memory: what each part holds, what it may hold, and what happens when the machine has less than that.

A part that holds data for as long as the scene lives is a `Holder`: it has a budget of its own and evicts by itself.
This module only reads them, and shrinks their budgets when memory ran out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

# Where memory ran out, each budget becomes this share of what its holder had, but not less than that of what it was
# meant to be: an accident while the map was small must not keep it small.
SHRINK_TO, LEAST_SHARE = 0.7, 1 / 16


class Holder(Protocol):
    """Something that keeps data within `budget_bytes`. Its own docstring says what it evicts first."""

    budget_bytes: int

    @property
    def memory_bytes(self) -> int: ...

    @property
    def evicted(self) -> int:
        """Things that left for the budget so far: points, keyframes, images, objects."""
        ...

    def make_room(self) -> None:
        """Evicts until the budget is kept, as after `budget_bytes` was lowered."""
        ...


@dataclass(frozen=True)
class Use:
    """What one part holds, in millions of bytes. `limit_mb` None: it goes with other parts and has no budget."""

    used_mb: float
    limit_mb: float | None = None
    evicted: int = 0


def use_of(holder: Holder) -> Use:
    """What a holder holds now, and may hold."""
    return Use(holder.memory_bytes / 1e6, holder.budget_bytes / 1e6, holder.evicted)


def megabytes(budget_mb: float) -> int:
    """Bytes of a budget."""
    return int(budget_mb * 1_000_000)


class Shrinking:
    """Budgets that become smaller when memory runs out, and stay so until the scene is built anew."""

    def __init__(self, holders: Mapping[str, Holder]):
        self._least = {name: int(LEAST_SHARE * holder.budget_bytes) for name, holder in holders.items()}

    def shrink(self, holders: Mapping[str, Holder], times: int = 1) -> None:
        """Every budget becomes 70 % of what is held, or a 16th of what it was; what is too much goes at once.

        `times`: so often 70 %, where less was not enough.
        """
        for name, holder in holders.items():
            wanted = max(int(SHRINK_TO**times * holder.memory_bytes), self._least[name])
            holder.budget_bytes = min(holder.budget_bytes, wanted)
        for holder in holders.values():
            holder.make_room()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that the host's memory ran out, in the words of Python, OpenCV or PyTorch."""
    text = str(error)
    return isinstance(error, MemoryError) or "Insufficient memory" in text or "can't allocate memory" in text
