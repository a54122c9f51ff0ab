"""The segmenter: what all readings of RE0 have in common. It keeps votes and a log, and asks the reading."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from ...config import Re0Config
from ...errors import FrameError, MapFileError
from ...lifting.keyframe_log import KeyframeLog
from ...lifting.mask_votes import MaskVotes
from ...lifting.view_shapes import with_shapes
from ...lifting.views import sightings
from ...types import Array, Cloud, Instances, Masks2D, View
from .base import FIRST_LABEL, Reading, StateCopy
from .readings import reading_of

# Tables of labels by masks are dense: beyond this, an image that holds no labels at all would take gigabytes.
MOST_MASKS = 4096


@dataclass(frozen=True, eq=False)
class Re0Segmentation:
    """Instances (ids 0) over the cloud's point ids, and the best views of each, best first."""

    instances: Instances
    views: tuple[tuple[View, ...], ...]


class Re0Segmenter:
    """`segmenters.base.Segmenter` after RE0, sections 3.1 and 3.2."""

    def __init__(self, config: Re0Config):
        self.config = config
        self._reading = reading_of(config)
        self._votes = MaskVotes(self._reading.slots)
        self._log = KeyframeLog(config.max_keyframes)
        self._next_label = FIRST_LABEL

    @property
    def memory_bytes(self) -> int:
        return self._votes.memory_bytes + self._log.memory_bytes

    def observe(self, keyframe: int, rows: Array, pixels: Array, depths: Array, masks: Masks2D) -> None:
        """Aligns the keyframe's masks (RE0 Alg. 1) and lets them say what its points are (eq. 2).

        Raises FrameError where a pixel lies outside the label image, or a mask number above `len(masks)`.
        """
        at = _rounded(pixels, masks)
        point_masks = masks.labels[at[:, 1], at[:, 0]].astype(np.int16)
        self._votes.grow(int(rows.max(initial=-1)) + 1)
        self._next_label = self._reading.observe(self._votes, rows, depths, point_masks, len(masks), self._next_label)
        self._log.append(keyframe, rows, point_masks, at, len(masks))

    def prepare(self, cloud: Cloud, rows: Array) -> Callable[[], Re0Segmentation]:
        """Copies the votes of the cloud's points; the returned function needs nothing else of this object."""
        self._votes.grow(int(rows.max(initial=-1)) + 1)
        state = StateCopy(cloud, rows.copy(), self._votes.copy(rows), tuple(self._log))
        return partial(_segment, self._reading, state, self.config.min_points)

    def remap(self, new_rows: Array) -> None:
        self._votes.remap(new_rows)
        self._log.remap(new_rows)

    def reset(self) -> None:
        self._votes.reset()
        self._log.reset()
        self._next_label = FIRST_LABEL

    def state(self) -> dict[str, Array]:
        votes = {f"votes_{name}": array for name, array in self._votes.state().items()}
        log = {f"log_{name}": array for name, array in self._log.state().items()}
        return {**votes, **log, "next_label": np.array([self._next_label], np.int64)}

    def restore(self, state: Mapping[str, Array]) -> None:
        """From `state`. Raises MapFileError where arrays are missing or do not belong together."""
        self.reset()
        try:
            self._votes.restore(_part(state, "votes_"))
            if state["log_rows"].max(initial=-1) >= len(self._votes):
                raise MapFileError("damaged", "the keyframe log speaks of points that have no votes")
            self._log.restore(_part(state, "log_"))
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


def _rounded(pixels: Array, masks: Masks2D) -> Array:
    """Pixels (n, 2) as whole ones of the label image, int64. Raises FrameError where masks and pixels do not fit."""
    height, width = masks.labels.shape
    if len(masks) > MOST_MASKS:
        raise FrameError(
            "too_many_masks",
            f"{len(masks)} masks in one image, at most {MOST_MASKS} are taken: is it an image of labels?",
        )
    if masks.labels.size and not 0 <= masks.labels.min() <= masks.labels.max() <= len(masks):
        raise FrameError("mask_numbers", f"mask numbers must run from 0 to {len(masks)}: see Masks2D.from_labels")
    if len(pixels) and not (pixels.min() >= -0.501 and (pixels.max(axis=0) <= (width - 0.499, height - 0.499)).all()):
        raise FrameError(
            "mask_size", f"masks of {width} x {height} pixels are smaller than the frame: make them its size"
        )
    # A pixel just inside the border may round to just outside of it.
    return np.clip(np.rint(pixels).astype(np.int64), 0, (width - 1, height - 1))
