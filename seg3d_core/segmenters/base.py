# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""What a 3D core promises: it watches keyframes and gives instances of the map when asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol, runtime_checkable

from ..budgets import Holder
from ..types import Array, Cloud, Frame, Instances, MapCorrection, Masks2D, Objects2D, View


class Segmentation(Protocol):
    """The outcome of one segmentation: instances (ids 0, identity comes later) and their best views."""

    @property
    def instances(self) -> Instances: ...

    @property
    def views(self) -> tuple[tuple[View, ...], ...]:
        """Of each instance, best first."""
        ...


class Segmenter(Protocol):
    """Single-threaded. `rows` are rows of the map's arrays; they move through `remap` and merge through `correct`."""

    def observe(self, keyframe: int, rows: Array, pixels: Array, depths: Array, masks: tuple[Masks2D, ...]) -> None:
        """One keyframe: its visible points' rows int64 (n,), pixels float32 (n, 2), depths float32 (n,).

        `masks` are all label images of the frame, at least one and of one size, each evidence of its own. It is called
        once per keyframe.
        """
        ...

    def prepare(self, cloud: Cloud, rows: Array) -> Callable[[], Segmentation]:
        """A function of copied state that any thread may call once: the segmentation as of now.

        `rows` int64 (N,) are the map rows of the cloud's points.
        """
        ...

    def remap(self, new_rows: Array) -> None:
        """The map was compacted: row r is now `new_rows[r]`, or is gone where that is -1."""
        ...

    def correct(self, correction: MapCorrection) -> None:
        """Poses were corrected: points and keyframes moved, points merged."""
        ...

    def reset(self) -> None: ...

    @property
    def working_bytes(self) -> int:
        """Of what goes with the map's points and has no budget: superpoints, and arrays kept for the next snapshot."""
        ...

    def drop_working(self) -> None:
        """Lets that go, where memory ran out: the next snapshot makes it anew."""
        ...

    @property
    def holders(self) -> dict[str, Holder]:
        """Everything kept per point and per keyframe, by a name for people."""
        ...

    def state(self) -> dict[str, Array]:
        """Arrays that `restore` takes back; saved inside the map file."""
        ...

    def restore(self, state: Mapping[str, Array]) -> None: ...


@runtime_checkable
class ObjectSegmenter(Segmenter, Protocol):
    """A segmenter that also takes what a detector says of keyframes."""

    wants_objects: bool
    """False where it does without: then nobody needs to run a detector."""

    def observe_objects(
        self, keyframe: int, frame: Frame, rows: Array, pixels: Array, depths: Array, objects: Objects2D
    ) -> None:
        """Before `observe` of the same keyframe, with the same points. Raises FrameError for what does not fit."""
        ...
