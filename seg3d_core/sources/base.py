# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""What every source of posed RGB-D frames promises."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

from ..types import Frame


@runtime_checkable
class Source(Protocol):
    """Iterates `Frame`s in order of time; iterating again starts anew.

    Every frame keeps the promises of `types.Frame`: depth in metres with 0 = none (NaN, infinite, negative
    and the sensor's own "none" values are 0 already), depth registered to colour and of its size,
    T_world_camera camera to world in OpenCV optical axes, stamps that never go back. A frame that can't keep
    them is left out and counted in `drops` by a short reason. A source that can't be read at all raises
    `SourceError` when it is made, not when it is iterated.
    """

    name: str
    kind: str
    drops: dict[str, int]

    def __len__(self) -> int:
        """Frames that iteration will try (before drops)."""
        ...

    @property
    def frame_names(self) -> Sequence[str]:
        """`Frame.name` of those, in order: masks made elsewhere are found by them."""
        ...

    def __iter__(self) -> Iterator[Frame]: ...
