# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Several cores that watch the same keyframes of one map, so that they can be compared."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from ..budgets import Holder
from ..types import Array, Cloud, Frame, MapCorrection, Masks2D, Objects2D
from .base import ObjectSegmenter, Segmentation, Segmenter


class SegmenterGroup:
    """Cores by name (implements `ObjectSegmenter`). All observe; the first one segments, and is what is saved."""

    def __init__(self, segmenters: Mapping[str, Segmenter]):
        """At least one."""
        self._segmenters = dict(segmenters)
        self._leader = next(iter(self._segmenters))
        self.wants_objects = any(s.wants_objects for s in self._with_objects())
        self.seconds: dict[str, float] = {}
        """What the last segmentation of each core took."""

    @property
    def others(self) -> tuple[str, ...]:
        """The names of all but the first."""
        return tuple(name for name in self._segmenters if name != self._leader)

    def _with_objects(self) -> list[ObjectSegmenter]:
        return [s for s in self._segmenters.values() if isinstance(s, ObjectSegmenter)]

    def observe_objects(
        self, keyframe: int, frame: Frame, rows: Array, pixels: Array, depths: Array, objects: Objects2D
    ) -> None:
        for segmenter in self._with_objects():
            segmenter.observe_objects(keyframe, frame, rows, pixels, depths, objects)

    def observe(self, keyframe: int, rows: Array, pixels: Array, depths: Array, masks: tuple[Masks2D, ...]) -> None:
        for segmenter in self._segmenters.values():
            segmenter.observe(keyframe, rows, pixels, depths, masks)

    def prepare(self, cloud: Cloud, rows: Array) -> Callable[[], Segmentation]:
        return self.prepare_core(self._leader, cloud, rows)

    def prepare_core(self, name: str, cloud: Cloud, rows: Array) -> Callable[[], Segmentation]:
        """As `prepare`, by the core of that name."""
        segment = self._segmenters[name].prepare(cloud, rows)

        def timed() -> Segmentation:
            start = time.perf_counter()
            found = segment()
            self.seconds[name] = time.perf_counter() - start
            return found

        return timed

    def remap(self, new_rows: Array) -> None:
        for segmenter in self._segmenters.values():
            segmenter.remap(new_rows)

    def correct(self, correction: MapCorrection) -> None:
        for segmenter in self._segmenters.values():
            segmenter.correct(correction)

    def reset(self) -> None:
        for segmenter in self._segmenters.values():
            segmenter.reset()

    @property
    def working_bytes(self) -> int:
        return sum(segmenter.working_bytes for segmenter in self._segmenters.values())

    def drop_working(self) -> None:
        for segmenter in self._segmenters.values():
            segmenter.drop_working()

    @property
    def holders(self) -> dict[str, Holder]:
        """The first core's by their own names, the others' with their core's name before."""
        return {
            part if name == self._leader else f"{name} {part}": holder
            for name, segmenter in self._segmenters.items()
            for part, holder in segmenter.holders.items()
        }

    def state(self) -> dict[str, Array]:
        return self._segmenters[self._leader].state()

    def restore(self, state: Mapping[str, Array]) -> None:
        """The first core goes on; the others begin anew."""
        self.reset()
        self._segmenters[self._leader].restore(state)
