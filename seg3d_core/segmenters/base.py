"""What a 3D core promises: it watches keyframes and gives instances of the map when asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from ..types import Array, Cloud, Instances, Masks2D, View


class Segmentation(Protocol):
    """The outcome of one segmentation: instances (ids 0, identity comes later) and their best views."""

    @property
    def instances(self) -> Instances: ...

    @property
    def views(self) -> tuple[tuple[View, ...], ...]:
        """Of each instance, best first."""
        ...


class Segmenter(Protocol):
    """Single-threaded. `rows` are rows of the map's arrays; they move only through `remap`."""

    def observe(self, keyframe: int, rows: Array, pixels: Array, depths: Array, masks: Masks2D) -> None:
        """One keyframe: its visible points' rows int64 (n,), pixels float32 (n, 2), depths float32 (n,)."""
        ...

    def prepare(self, cloud: Cloud, rows: Array) -> Callable[[], Segmentation]:
        """A function of copied state that any thread may call once: the segmentation as of now.

        `rows` int64 (N,) are the map rows of the cloud's points.
        """
        ...

    def remap(self, new_rows: Array) -> None:
        """The map was compacted: row r is now `new_rows[r]`, or is gone where that is -1."""
        ...

    def reset(self) -> None: ...

    @property
    def memory_bytes(self) -> int:
        """Of everything kept per point and per keyframe."""
        ...

    def state(self) -> dict[str, Array]:
        """Arrays that `restore` takes back; saved inside the map file."""
        ...

    def restore(self, state: Mapping[str, Array]) -> None: ...
