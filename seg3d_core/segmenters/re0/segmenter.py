# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""The segmenter: what all readings of RE0 have in common. It keeps votes and a log, and asks the reading."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from ...budgets import Holder, megabytes
from ...config import MemoryConfig, Re0Config
from ...errors import MapFileError
from ...lifting.keyframe_log import KeyframeLog
from ...lifting.mask_lookup import masks_at
from ...lifting.mask_votes import MaskVotes
from ...lifting.view_shapes import with_shapes
from ...lifting.views import sightings
from ...types import Array, Cloud, Instances, MapCorrection, Masks2D, View
from .base import FIRST_LABEL, Reading, StateCopy
from .readings import reading_of


@dataclass(frozen=True, eq=False)
class Re0Segmentation:
    """Instances (ids 0) over the cloud's point ids, and the best views of each, best first."""

    instances: Instances
    views: tuple[tuple[View, ...], ...]


class Re0Segmenter:
    """`segmenters.base.Segmenter` after RE0, sections 3.1 and 3.2.

    Votes and log share a budget: votes take 2 bytes a map row and 6 more a slot, and the log has what they leave.
    """

    def __init__(self, config: Re0Config, memory: MemoryConfig | None = None):
        self.config = config
        self.budget_bytes = megabytes((memory or MemoryConfig()).keyframes_mb)
        self.reading = reading_of(config)
        self._votes = MaskVotes(self.reading.slots)
        self._log = KeyframeLog(config.max_keyframes, enough=self.reading.enough_pictures)
        self._next_label = FIRST_LABEL

    @property
    def holders(self) -> dict[str, Holder]:
        return {"votes and log": self}

    @property
    def memory_bytes(self) -> int:
        return self._votes.memory_bytes + self._log.memory_bytes

    @property
    def working_bytes(self) -> int:
        return self.reading.memory_bytes

    def drop_working(self) -> None:
        self.reading.reset()

    @property
    def evicted(self) -> int:
        """Keyframes that left for capacity or budget."""
        return self._log.evicted

    def make_room(self) -> None:
        """Keyframes go, the newest excepted; votes go with the points of the map."""
        self._log.budget_bytes = max(self.budget_bytes - self._votes.memory_bytes, 0)
        self._log.make_room()

    def observe(self, keyframe: int, rows: Array, pixels: Array, depths: Array, masks: tuple[Masks2D, ...]) -> None:
        """Logs what the keyframe's points lie on, and lets the reading look at each label image in turn.

        Raises FrameError where a pixel lies outside a label image, or a mask number above its `len(masks)`.
        """
        found = [masks_at(pixels, image) for image in masks]
        on = np.stack([numbers for numbers, _ in found])
        self._votes.grow(int(rows.max(initial=-1)) + 1)
        for point_masks, image in zip(on, masks, strict=True):
            self._next_label = self.reading.observe(self._votes, rows, point_masks, len(image), self._next_label)
        self._log.append(keyframe, rows, on, found[0][1], [len(image) for image in masks])
        self.make_room()

    def prepare(self, cloud: Cloud, rows: Array) -> Callable[[], Re0Segmentation]:
        """Copies the votes of the cloud's points; the returned function needs nothing else of this object."""
        self._votes.grow(int(rows.max(initial=-1)) + 1)
        self.make_room()
        state = StateCopy(cloud, rows.copy(), self._votes.copy(rows), tuple(self._log))
        return partial(_segment, self.reading, state, self.config.min_points)

    def remap(self, new_rows: Array) -> None:
        self._votes.remap(new_rows)
        self._log.remap(new_rows)
        self.make_room()

    def correct(self, correction: MapCorrection) -> None:
        self._votes.merge(correction.gone_rows, correction.kept_rows)
        self._log.correct(correction)

    def reset(self) -> None:
        self._votes.reset()
        self._log.reset()
        self.reading.reset()
        self._next_label = FIRST_LABEL

    def state(self) -> dict[str, Array]:
        votes = {f"votes_{name}": array for name, array in self._votes.state().items()}
        log = {f"log_{name}": array for name, array in self._log.state().items()}
        reading = {f"reading_{name}": array for name, array in self.reading.state().items()}
        return {**votes, **log, **reading, "next_label": np.array([self._next_label], np.int64)}

    def restore(self, state: Mapping[str, Array]) -> None:
        """From `state`. Raises MapFileError where arrays are missing or do not belong together."""
        self.reset()
        try:
            self._votes.restore(_part(state, "votes_"))
            if state["log_rows"].max(initial=-1) >= len(self._votes):
                raise MapFileError("damaged", "the keyframe log speaks of points that have no votes")
            self._log.restore(_part(state, "log_"))
            self.reading.restore(_part(state, "reading_"))
            self._next_label = max(int(state["next_label"][0]), self._votes.largest_label + 1, FIRST_LABEL)
        except KeyError as error:
            raise MapFileError("damaged", f"the segmenter's state lacks {error}: save the map again") from None


def _segment(reading: Reading, state: StateCopy, min_points: int) -> Re0Segmentation:
    found = reading.instances(state)
    sizes = np.bincount(found, minlength=1)
    kept = 1 + np.flatnonzero(sizes[1:] >= min_points)
    number = np.zeros(len(sizes), np.int32)
    number[kept] = np.arange(1, len(kept) + 1)
    numbers = number[found]
    by_row = state.by_row(numbers, outside=-1)
    seen = sightings(state.keyframes, by_row, len(kept))
    instances = Instances.from_labels(numbers, state.cloud.ids, reading.scores(seen, sizes[kept]))
    return Re0Segmentation(instances, with_shapes(seen.best_views(), state.keyframes, by_row))


def _part(state: Mapping[str, Array], prefix: str) -> dict[str, Array]:
    return {name[len(prefix) :]: array for name, array in state.items() if name.startswith(prefix)}
