"""Our reading of RE0: superpoints joined by evidence over all keyframes, then outlined by votes.

Nothing is decided when a keyframe arrives: it is logged, and a snapshot weighs all that the log holds. So what the
evidence joined yesterday it can divide today.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...lifting.keyframe_log import LoggedKeyframe
from ...lifting.mask_votes import MaskVotes
from ...lifting.views import InstanceSightings
from ...types import Array, Cloud
from .base import StateCopy
from .evidence import Weights, fitted_weights
from .joining import joined
from .mask_table import mask_table, near_pairs
from .outlines import fitting_masks, neighbour_weights, smoothed, voted
from .regions import Regions, regions_of

# Things that do not touch may be one when a mask holds both and their boxes are this near, in metres.
NEAR = 0.03
# Masks that fit the things they give by a mean IoU of `DOUBTED` or less are taken for a 2D model's, which errs the
# same way again and again; by `TRUSTED` or more, for exact: then each picture counts `EXACT_TIMES` as much.
DOUBTED, TRUSTED, EXACT_TIMES = 0.80, 0.86, 4.0
# Trust changes the things, and these the trust.
MOST_PASSES = 3
# Weight of the superpoints' outline against the IoU of a mask that votes, by the mean fit: masks that fit badly outline
# nothing better than superpoints do, and exact ones anything.
INERTIA = (0.66, 0.76, DOUBTED, TRUSTED), (4.0, 0.8, 0.8, 0.01)
# Weight of the vote for nothing of exact masks; others have none, for what they miss looks like background.
EXACT_BACKGROUND = 0.25
OUTLINE_ROUNDS = 2
# Rounds of averaging with the neighbours after each vote: exact masks need little.
SMOOTHING, EXACT_SMOOTHING = 2, 1
# Of an instance that no mask outlines: least sure, but found.
LEAST_SCORE = np.float32(0.125)
# Masks of fewer visible points say nothing of how exact the masks are.
MIN_MASK_POINTS = 30


@dataclass(frozen=True, eq=False)
class _Geometry:
    cloud: Cloud
    regions: Regions
    neighbour_weight: Array

    def is_of(self, cloud: Cloud) -> bool:
        pairs = ((self.cloud.xyz, cloud.xyz), (self.cloud.rgb, cloud.rgb), (self.cloud.normals, cloud.normals))
        return all(a is b or np.array_equal(a, b) for a, b in pairs)


class StreamingReading:
    """`base.Reading`. The arguments are for the ablation: the evidence's weights, how much more exact masks count,
    and how often points vote."""

    slots = 0

    def __init__(
        self, weights: Weights | None = None, exact_times: float = EXACT_TIMES, outline_rounds: int = OUTLINE_ROUNDS
    ) -> None:
        self._weights = weights or fitted_weights()
        self._exact_times = exact_times
        self._outline_rounds = outline_rounds
        self._geometry: _Geometry | None = None

    def observe(self, votes: MaskVotes, rows: Array, masks: Array, mask_count: int, next_label: int) -> int:
        """Nothing: the log is all that a snapshot needs."""
        return next_label

    def instances(self, state: StateCopy) -> Array:
        if not len(state.cloud):
            return np.empty(0, np.int32)
        geometry = self._geometry_of(state.cloud)
        things, fit, shown = self._joined_things(state, geometry.regions)
        exactness = _exactness(fit)
        inertia = float(np.interp(fit, *INERTIA))
        rounds = round(SMOOTHING + exactness * (EXACT_SMOOTHING - SMOOTHING))
        point_of_row = state.by_row(np.arange(len(state.cloud), dtype=np.int32), outside=-1)
        thing_count = int(things.max()) + 1
        for _ in range(self._outline_rounds):
            names, weights = voted(
                state.keyframes, point_of_row, things, thing_count, inertia, exactness * EXACT_BACKGROUND
            )
            things = smoothed(names, weights, geometry.regions.neighbours, geometry.neighbour_weight, rounds)
        return np.where(shown[things], things, 0).astype(np.int32)

    def _joined_things(self, state: StateCopy, regions: Regions) -> tuple[Array, float, Array]:
        """The thing of each point, int32 (N,) from 1 on, the masks' mean fit, and whether any mask shows
        the thing, bool (things + 1,)."""
        by_row = state.by_row(regions.of_point, outside=-1)
        table = mask_table(state.keyframes, by_row, len(regions))
        more = near_pairs(table, regions.low, regions.high, NEAR)
        exactness = 0.0
        for _ in range(MOST_PASSES):
            of_region = joined(regions, table, more, self._weights.trusting(1 + exactness * (self._exact_times - 1)))
            _, numbers = np.unique(of_region, return_inverse=True)
            things = (numbers.reshape(-1)[regions.of_point] + 1).astype(np.int32)
            fit = mean_fit(state.keyframes, state.by_row(things, outside=-1), len(regions) + 1)
            if _exactness(fit) <= exactness:
                break
            exactness = _exactness(fit)
        shown = np.zeros(int(things.max()) + 1, bool)
        shown[numbers.reshape(-1)[table.on_masks()] + 1] = True
        return things, fit, shown

    def scores(self, seen: InstanceSightings, sizes: Array) -> Array:
        """How well the best mask of any keyframe outlines each instance: its IoU, in quarters, `LEAST_SCORE` below.

        Finer orders of the instances ranked worse with real masks.
        """
        return np.maximum(seen.best_outlines(sizes), LEAST_SCORE)

    def _geometry_of(self, cloud: Cloud) -> _Geometry:
        # A given cloud stays as it is, and so do its superpoints.
        known = self._geometry
        if known is None or not known.is_of(cloud):
            regions = regions_of(cloud)
            known = _Geometry(cloud, regions, neighbour_weights(cloud, regions.neighbours))
            self._geometry = known
        return known


def _exactness(fit: float) -> float:
    """0 = masks of a 2D model, 1 = exact masks."""
    return float(np.clip((fit - DOUBTED) / (TRUSTED - DOUBTED), 0, 1))


def mean_fit(keyframes: Sequence[LoggedKeyframe], by_row: Array, thing_count: int) -> float:
    """Mean IoU of the masks with their best things, weighted by the root of the mask's points; 0 without masks."""
    total, weight = 0.0, 0.0
    for keyframe in keyframes:
        for _, fit, sizes in fitting_masks(keyframe, by_row[keyframe.rows], thing_count):
            large = sizes >= MIN_MASK_POINTS
            large[0] = False
            roots = np.sqrt(sizes[large])
            total += float(fit[large] @ roots)
            weight += float(roots.sum())
    return total / weight if weight else 0.0
