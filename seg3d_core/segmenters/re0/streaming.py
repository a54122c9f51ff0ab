# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Our reading of RE0: superpoints joined by evidence over all keyframes, then outlined by votes.

Nothing is decided when a keyframe arrives: it is logged, and a snapshot weighs all that the log holds. So what the
evidence joined yesterday it can divide today.
"""

from __future__ import annotations

from collections.abc import Mapping
from threading import Lock

import numpy as np

from ...lifting.mask_votes import MaskVotes
from ...lifting.views import InstanceSightings
from ...types import Array, Cloud
from .base import StateCopy
from .evidence import Weights, fitted_weights
from .growing import GrowingRegions
from .joining import candidates, joined
from .mask_table import Fits, fits_of, mask_table, near_pairs
from .outlines import Scratch, neighbour_weights, smoothed, voted

# Things that do not touch may be one when a mask holds both and their boxes are this near, in metres.
NEAR = 0.03
# Masks that fit the things they give by a mean IoU of `DOUBTED` or less are taken for a 2D model's, which errs the
# same way again and again; by `TRUSTED` or more, for exact: then each picture counts `EXACT_TIMES` as much.
DOUBTED, TRUSTED, EXACT_TIMES = 0.80, 0.86, 4.0
# Trust changes the things, and these the trust: once, since each pass costs a join and a further one changes little.
MOST_PASSES = 2
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


class StreamingReading:
    """`base.Reading`. The arguments are for the ablation: the evidence's weights, how much more exact masks count,
    and how often points vote."""

    slots = 0
    # Twice the pictures beyond which evidence counts no more, since a part that is seen in half counts less.
    enough_pictures = 12

    def __init__(
        self, weights: Weights | None = None, exact_times: float = EXACT_TIMES, outline_rounds: int = OUTLINE_ROUNDS
    ) -> None:
        self._weights = weights or fitted_weights()
        self._exact_times = exact_times
        self._outline_rounds = outline_rounds
        self._growing: GrowingRegions | None = None
        self._growth = Lock()
        self._scratch: list[Scratch] = []

    @property
    def memory_bytes(self) -> int:
        kept = 0 if self._growing is None else self._growing.memory_bytes
        return kept + sum(scratch.memory_bytes for scratch in self._scratch)

    def observe(self, votes: MaskVotes, rows: Array, masks: Array, mask_count: int, next_label: int) -> int:
        """Nothing: the log is all that a snapshot needs."""
        return next_label

    def reset(self) -> None:
        """Nothing is taken up from snapshots of before."""
        with self._growth:
            self._growing, self._scratch = None, []

    def state(self) -> dict[str, Array]:
        """The superpoints, so that a map that is loaded goes on with them."""
        return self._growing.state() if self._growing is not None and len(self._growing.places) else {}

    def restore(self, state: Mapping[str, Array]) -> None:
        """From `state`; without it superpoints begin anew."""
        with self._growth:
            self._growing = GrowingRegions.restored(state) if state else None

    def instances(self, state: StateCopy) -> Array:
        if not len(state.cloud):
            return np.empty(0, np.int32)
        # A snapshot that is made beside another one in a second thread finds none, and makes its own.
        scratch = self._scratch.pop() if self._scratch else Scratch()
        surface = self._grown(state.cloud)
        regions = surface.regions
        things, fits, fit, shown = self._joined_things(state, surface)
        exactness = _exactness(fit)
        inertia = float(np.interp(fit, *INERTIA))
        rounds = round(SMOOTHING + exactness * (EXACT_SMOOTHING - SMOOTHING))
        point_of_row = state.by_row(surface.places, outside=-1)
        near = neighbour_weights(surface.surface, regions.neighbours, scratch)
        known: Fits | None = fits
        for _ in range(self._outline_rounds):
            background = exactness * EXACT_BACKGROUND
            votes = voted(state.keyframes, point_of_row, things, len(shown), inertia, background, known, scratch)
            things = smoothed(*votes, regions.neighbours, near, rounds, scratch)
            known = None
        self._scratch = [scratch]
        return np.where(shown[things], things, 0)[surface.places].astype(np.int32)

    def _joined_things(self, state: StateCopy, surface: GrowingRegions) -> tuple[Array, Fits, float, Array]:
        """The thing of each place, int32 (S,) from 1 on, how masks fit the things, the mean of that, and whether any
        mask shows the thing, bool (things + 1,)."""
        regions = surface.regions
        table = mask_table(state.keyframes, state.by_row(regions.of_point[surface.places], outside=-1), len(regions))
        pairs = candidates(regions, table, near_pairs(table, regions.low, regions.high, NEAR))
        trust = 0.0
        for _ in range(MOST_PASSES):
            weights = self._weights.trusting(1 + trust * (self._exact_times - 1))
            _, numbers = np.unique(joined(regions, table, pairs, weights), return_inverse=True)
            of_region = (numbers.reshape(-1) + 1).astype(np.int32)
            fits = fits_of(table, of_region)
            fit = mean_fit(fits, table.sizes)
            if _exactness(fit) <= trust:
                break
            trust = _exactness(fit)
        shown = np.zeros(int(of_region.max()) + 1, bool)
        shown[of_region[table.on_masks()]] = True
        return of_region[regions.of_point], fits, fit, shown

    def scores(self, seen: InstanceSightings, sizes: Array) -> Array:
        """How well the best mask of any keyframe outlines each instance: its IoU, in quarters, `LEAST_SCORE` below.

        Finer orders of the instances ranked worse with real masks.
        """
        return np.maximum(seen.best_outlines(sizes), LEAST_SCORE)

    def _grown(self, cloud: Cloud) -> GrowingRegions:
        # Snapshots may be made in several threads; each takes up what the last one has found.
        with self._growth:
            known = self._growing
            self._growing = GrowingRegions.of(cloud) if known is None else known.updated(cloud)
            return self._growing


def _exactness(fit: float) -> float:
    """0 = masks of a 2D model, 1 = exact masks."""
    return float(np.clip((fit - DOUBTED) / (TRUSTED - DOUBTED), 0, 1))


def mean_fit(fits: Fits, sizes: Array) -> float:
    """Mean IoU of the masks with their best things, weighted by the root of the mask's points; 0 without masks.

    sizes (C,): the masks' points, 0 = no mask.
    """
    large = sizes >= MIN_MASK_POINTS
    roots = np.sqrt(sizes[large].astype(np.float64))
    return float(fits.iou[large] @ roots) / float(roots.sum()) if large.any() else 0.0
