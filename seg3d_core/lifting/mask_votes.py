# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Votes of 2D masks on map points: per point a bounded histogram over labels (RE0 eq. 2).

A point keeps its `slots` strongest labels. A label that finds no room lowers the weakest instead of entering
(space-saving), so that memory per point is fixed and what is seen often survives.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numba import njit

from ..errors import MapFileError
from ..types import Array

FULL = np.iinfo(np.uint16).max


@dataclass(frozen=True, eq=False)
class PointVotes:
    """Votes of n points: labels int32 (n, slots), weights uint16 (n, slots), sightings uint16 (n,)."""

    labels: Array
    weights: Array
    sightings: Array

    def majority(self) -> Array:
        """The most frequent label of each point, int32 (n,), 0 = no votes. Ties go to the largest label."""
        return _majority(self.labels, self.weights, np.arange(len(self.labels)))


class MaskVotes:
    """Histograms of labels (ints above 0) for the rows of a map. Rows appear when they are first voted on."""

    def __init__(self, slots: int):
        self.slots = slots
        self.reset()

    def reset(self) -> None:
        self._labels = np.zeros((0, self.slots), np.int32)
        self._weights = np.zeros((0, self.slots), np.uint16)
        self._sightings = np.zeros(0, np.uint16)

    def __len__(self) -> int:
        """Rows that there is room for."""
        return len(self._sightings)

    @property
    def largest_label(self) -> int:
        """0 where there are no votes."""
        return int(self._labels.max(initial=0))

    @property
    def memory_bytes(self) -> int:
        return int(self._labels.nbytes + self._weights.nbytes + self._sightings.nbytes)

    def grow(self, rows: int) -> None:
        """Makes room for rows 0 .. `rows` - 1; the new ones are unseen."""
        have = len(self)
        if rows > have:
            self._resize(max(rows, have + have // 2))

    def _resize(self, rows: int) -> None:
        more = rows - len(self)
        labels = np.concatenate([self._labels, np.zeros((more, self.slots), np.int32)])
        weights = np.concatenate([self._weights, np.zeros((more, self.slots), np.uint16)])
        sightings = np.concatenate([self._sightings, np.zeros(more, np.uint16)])
        # All or none: memory may run out in between.
        self._labels, self._weights, self._sightings = labels, weights, sightings

    def majority(self, rows: Array) -> Array:
        """The most frequent label of each row, int32 (n,), 0 = no votes. Ties go to the newest, the largest label."""
        return _majority(self._labels, self._weights, rows)

    def cast(self, rows: Array, labels: Array) -> None:
        """One sighting of each row int64 (n,), with a vote for its label int32 (n,); 0 is a sighting without vote."""
        _cast(self._labels, self._weights, self._sightings, rows, labels)

    def keep_newest(self, rows: Array, labels: Array) -> None:
        """One sighting of each row int64 (n,), once each: of its label and the new one int32 (n,) the larger stays.

        Nothing else is remembered of a point; 0 is a sighting without label.
        """
        newest = np.maximum(_majority(self._labels, self._weights, rows), labels)
        self._labels[rows], self._weights[rows] = 0, 0
        self._labels[rows, 0], self._weights[rows, 0] = newest, newest > 0
        self._sightings[rows] += self._sightings[rows] < FULL

    def copy(self, rows: Array) -> PointVotes:
        """The votes of some rows int64 (n,), that any thread may keep."""
        return PointVotes(*(np.take(a, rows, axis=0) for a in (self._labels, self._weights, self._sightings)))

    def remap(self, new_rows: Array) -> None:
        """Row r moves to `new_rows[r]`, or is forgotten where that is -1."""
        new_rows = new_rows[: len(self)]
        old = np.flatnonzero(new_rows >= 0)
        moved = MaskVotes(self.slots)
        moved.grow(int(new_rows.max(initial=-1)) + 1)
        new = new_rows[old]
        moved._labels[new] = self._labels[old]
        moved._weights[new] = self._weights[old]
        moved._sightings[new] = self._sightings[old]
        self._labels, self._weights, self._sightings = moved._labels, moved._weights, moved._sightings

    def merge(self, gone: Array, kept: Array) -> None:
        """Rows `gone` int64 (m,) give votes and sightings to the rows `kept`, which keep their strongest labels."""
        self.grow(int(np.concatenate([gone, kept]).max(initial=-1)) + 1)
        _merge(self._labels, self._weights, self._sightings, gone, kept)

    def state(self) -> dict[str, Array]:
        """Arrays for `restore`."""
        return {"labels": self._labels.copy(), "weights": self._weights.copy(), "sightings": self._sightings.copy()}

    def restore(self, state: Mapping[str, Array]) -> None:
        """From `state`; slots may be fewer or more than then, the strongest are kept. Raises MapFileError."""
        labels, weights = state["labels"], state["weights"]
        if labels.ndim != 2 or labels.shape != weights.shape or len(labels) != len(state["sightings"]):
            raise MapFileError("damaged", f"votes of shapes {labels.shape} and {weights.shape} do not belong together")
        if labels.min(initial=0) < 0:
            raise MapFileError("damaged", "a label in the votes is below 0")
        if labels.shape[1] > self.slots:
            strongest = np.argsort(-weights.astype(np.int64), axis=1, kind="stable")[:, : self.slots]
            labels, weights = (np.take_along_axis(a, strongest, axis=1) for a in (labels, weights))
        self.reset()
        self._resize(len(labels))
        self._labels[:, : labels.shape[1]] = labels
        self._weights[:, : labels.shape[1]] = weights
        self._sightings[:] = state["sightings"]


@njit(cache=True, nogil=True)
def top_label(labels: Array, weights: Array) -> int:
    """The label of most weight among one point's slots, the largest at ties; 0 = none."""
    best, most = 0, 0
    for k in range(len(labels)):
        if weights[k] > most or (weights[k] == most and labels[k] > best):
            best, most = labels[k], weights[k]
    return best if most > 0 else 0


@njit(cache=True, nogil=True)
def _majority(labels: Array, weights: Array, rows: Array) -> Array:
    out = np.empty(len(rows), np.int32)
    for i in range(len(rows)):
        out[i] = top_label(labels[rows[i]], weights[rows[i]])
    return out


@njit(cache=True, nogil=True)
def _cast(labels: Array, weights: Array, sightings: Array, rows: Array, votes: Array) -> None:
    slots = labels.shape[1]
    for i in range(len(rows)):
        r = rows[i]
        if sightings[r] == FULL:
            # Halving all keeps shares, and lets new evidence count again.
            sightings[r] //= 2
            for k in range(slots):
                weights[r, k] //= 2
        sightings[r] += 1
        if votes[i] == 0:
            continue
        chosen, weakest = -1, 0
        for k in range(slots):
            if weights[r, k] > 0 and labels[r, k] == votes[i]:
                chosen = k
                break
            if weights[r, k] < weights[r, weakest]:
                weakest = k
        if chosen < 0 and weights[r, weakest] == 0:
            chosen = weakest
            labels[r, chosen] = votes[i]
        if chosen >= 0:
            weights[r, chosen] += 1
        else:
            weights[r, weakest] -= 1


@njit(cache=True, nogil=True)
def _merge(labels: Array, weights: Array, sightings: Array, gone: Array, kept: Array) -> None:
    slots = labels.shape[1]
    for i in range(len(gone)):
        g, k = gone[i], kept[i]
        sightings[k] = min(np.int64(sightings[k]) + np.int64(sightings[g]), FULL)
        sightings[g] = 0
        for s in range(slots):
            label, weight = labels[g, s], np.int64(weights[g, s])
            labels[g, s], weights[g, s] = 0, 0
            if weight == 0:
                continue
            chosen, weakest = -1, 0
            for t in range(slots):
                if weights[k, t] > 0 and labels[k, t] == label:
                    chosen = t
                    break
                # As in `top_label`, the larger label is the stronger one at ties.
                if weights[k, t] < weights[k, weakest] or (
                    weights[k, t] == weights[k, weakest] and labels[k, t] < labels[k, weakest]
                ):
                    weakest = t
            if chosen >= 0:
                weights[k, chosen] = min(np.int64(weights[k, chosen]) + weight, FULL)
            elif weight > weights[k, weakest] or (weight == weights[k, weakest] and label > labels[k, weakest]):
                labels[k, weakest], weights[k, weakest] = label, weight
