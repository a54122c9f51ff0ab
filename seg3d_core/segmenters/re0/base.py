# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""What a reading of RE0 promises, and the state that all of them share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from ...lifting.keyframe_log import LoggedKeyframe
from ...lifting.mask_votes import MaskVotes, PointVotes
from ...lifting.views import InstanceSightings
from ...types import Array, Cloud

FIRST_LABEL = 1


@dataclass(frozen=True, eq=False)
class StateCopy:
    """All that one snapshot needs; nothing here is shared with the stream but arrays that never change.

    rows int64 (N,) and votes are those of the cloud's N points; keyframes are in stream order.
    """

    cloud: Cloud
    rows: Array
    votes: PointVotes
    keyframes: tuple[LoggedKeyframe, ...]

    def by_row(self, labels: Array, outside: int) -> Array:
        """Labels of the cloud's points int32 (rows,), by map row; rows outside the cloud are `outside`."""
        out = np.full(self._row_count, outside, np.int32)
        out[self.rows] = labels
        return out

    @cached_property
    def _row_count(self) -> int:
        top = max((int(k.rows.max(initial=-1)) for k in self.keyframes), default=-1)
        return max(top, int(self.rows.max(initial=-1))) + 1


class Reading(Protocol):
    """How keyframes are observed, and how a snapshot is made of what was observed."""

    @property
    def slots(self) -> int:
        """Labels that a point has room for."""
        ...

    @property
    def enough_pictures(self) -> int | None:
        """Keyframes that show a point beyond so many add nothing; None = all count."""
        ...

    @property
    def memory_bytes(self) -> int:
        """Of what snapshots have left behind."""
        ...

    def observe(self, votes: MaskVotes, rows: Array, masks: Array, mask_count: int, next_label: int) -> int:
        """Names the masks of a label image, writes the names into `votes`, and gives the next free label.

        rows int64 (n,) of the visible points, each once, below `len(votes)`; masks int16 (n,) in 0..mask_count,
        0 = none. Labels are `FIRST_LABEL` and above; `next_label` and those after
        it are free.
        """
        ...

    def reset(self) -> None:
        """Forgets what snapshots have left behind."""
        ...

    def state(self) -> dict[str, Array]:
        """Arrays of what snapshots have left behind."""
        ...

    def restore(self, state: Mapping[str, Array]) -> None:
        """From `state`, or from nothing. Raises MapFileError where it does not fit together."""
        ...

    def instances(self, state: StateCopy) -> Array:
        """The instance of each of the cloud's points, int32 (N,): 0 = none, then 1, 2, ... with few gaps."""
        ...

    def scores(self, seen: InstanceSightings, sizes: Array) -> Array:
        """How sure each of K instances is, float32 (K,) in [0, 1]; sizes (K,) in points."""
        ...
