# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Outlines of things: points vote with the masks that fit a thing, and their neighbours smooth the outcome."""

# numba infers the types of kernels.
# mypy: allow-untyped-defs

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numba import njit

from ...lifting.keyframe_log import LoggedKeyframe
from ...mapping.neighbours import Neighbours
from ...types import Array, Cloud
from .mask_table import Fits

# A mask votes for the thing of highest IoU among the visible points, with that IoU, where it is above this.
LEAST_FIT = 0.3
# Things that a point remembers while it is voted on, and while it is smoothed.
SLOTS = 6
SHARES = 4
# Smaller shares are forgotten, so that they do not creep over the whole map.
LEAST_SHARE = 0.05
# Things around a point that can be told apart; a point has some ten neighbours.
MOST_GATHERED = 64
# Neighbours count exp(-(1 - n_p . n_q) / FOLD - (step / STEP)^2 - (mean squared RGB difference) / COLOUR^2).
FOLD, STEP, COLOUR = 0.15, 0.3, 30.0


class NeighbourWeights(NamedTuple):
    """How much each neighbour counts, at most 1: `values` float32 (E,) beside the graph's indices, -1 = not yet
    weighed, from positions and normals float32 (N, 3) and colours uint8 (N, 3)."""

    values: Array
    xyz: Array
    normals: Array
    rgb: Array


class Scratch:
    """Arrays for one snapshot at a time, kept for the next one: fresh memory costs more than what is written to it."""

    def __init__(self) -> None:
        self._kept: dict[str, Array] = {}
        # Of a surface that stays, what its neighbours weigh stays too.
        self.weighed: tuple[Cloud, Neighbours, NeighbourWeights] | None = None

    @property
    def memory_bytes(self) -> int:
        return sum(array.nbytes for array in self._kept.values())

    def filled(self, name: str, shape: tuple[int, ...], value: float, dtype: type) -> Array:
        """An array of that shape and value, valid until the next one of that name."""
        length = int(np.prod(shape))
        if name not in self._kept or len(self._kept[name]) < length:
            self._kept[name] = np.empty(length + length // 2, dtype)
        out: Array = self._kept[name][:length].reshape(shape)
        out.fill(value)
        return out


def neighbour_weights(cloud: Cloud, neighbours: Neighbours, scratch: Scratch | None = None) -> NeighbourWeights:
    """Weighed when they are asked for: most points lie amid points of one thing."""
    scratch = scratch or Scratch()
    if scratch.weighed is not None and scratch.weighed[0] is cloud and scratch.weighed[1] is neighbours:
        return scratch.weighed[2]
    weights = NeighbourWeights(
        scratch.filled("neighbours", (len(neighbours.indices),), -1, np.float32),
        np.ascontiguousarray(cloud.xyz, np.float32),
        np.ascontiguousarray(cloud.normals, np.float32),
        np.ascontiguousarray(cloud.rgb),
    )
    scratch.weighed = cloud, neighbours, weights
    return weights


def voted(
    keyframes: Sequence[LoggedKeyframe],
    point_of_row: Array,
    things: Array,
    thing_count: int,
    inertia: float,
    background: float,
    fits: Fits | None = None,
    scratch: Scratch | None = None,
) -> tuple[Array, Array]:
    """What the masks say of each point: things int32 (N, SLOTS + 1), -1 = an empty slot, and weights float32.

    point_of_row int (rows,) is the point of each map row, -1 = none; things int32 (N,) in 0..thing_count - 1, of which
    0 is none. A point on no mask votes `background` for none; `inertia` is the weight of the thing that a point is
    part of already. `fits` are those of all label images of all keyframes, in order, where they are known.
    """
    scratch = scratch or Scratch()
    names = scratch.filled("names", (len(things), SLOTS + 1), -1, np.int32)
    weights = scratch.filled("weights", (len(things), SLOTS + 1), 0, np.float32)
    begin = 0
    for keyframe in keyframes:
        for masks, count in zip(keyframe.masks, keyframe.mask_counts, strict=True):
            if fits is None:
                thing, fit = _fit(keyframe.rows, point_of_row, things, masks, thing_count, count)
            else:
                thing, fit = (values[begin : begin + count + 1].copy() for values in fits)
                begin += count + 1
            fit[fit < LEAST_FIT] = 0
            thing[0], fit[0] = 0, background
            _vote(names, weights, keyframe.rows, point_of_row, masks, thing, fit)
    _add_inertia(names, weights, things, np.float32(inertia))
    return names, weights


def smoothed(
    names: Array,
    weights: Array,
    neighbours: Neighbours,
    neighbour_weight: NeighbourWeights,
    rounds: int,
    scratch: Scratch | None = None,
) -> Array:
    """The thing of most weight at each point, int32 (N,), after `rounds` of averaging with the neighbours."""
    scratch = scratch or Scratch()
    strongest = scratch.filled("strongest", (len(names), SHARES), -1, np.int32)
    shares = scratch.filled("shares", (len(names), SHARES), 0, np.float32)
    _write_shares(names, weights, strongest, shares)
    _smooth(strongest, shares, neighbours.indptr, neighbours.indices, neighbour_weight, rounds)
    return strongest[:, 0].copy()


@njit(inline="always")
def _weigh(p, q, xyz, normals, rgb):
    zero = np.float32(0)
    cosine, up_p, up_q, length, colour = zero, zero, zero, zero, zero
    for k in range(3):
        away = xyz[q, k] - xyz[p, k]
        cosine += normals[p, k] * normals[q, k]
        up_p += away * normals[p, k]
        up_q += away * normals[q, k]
        length += away * away
        difference = np.float32(rgb[p, k]) - np.float32(rgb[q, k])
        colour += difference * difference
    step = max(abs(up_p), abs(up_q))
    lift = step * step / max(length, np.float32(1e-18))
    return np.float32(np.exp(-(1 - cosine) / FOLD - lift / (STEP * STEP) - colour / (3 * COLOUR * COLOUR)))


@njit(cache=True, nogil=True)
def _fit(rows, point_of_row, things, masks, thing_count, mask_count):
    """The thing int32 (masks + 1,) of highest IoU with each mask, ties to the smaller, and that IoU float32.

    Rows of no point count nowhere.
    """
    local = np.full(thing_count, -1, np.int32)
    present = np.empty(thing_count, np.int32)
    found = 0
    for row in rows:
        point = point_of_row[row]
        if point >= 0 and local[things[point]] < 0:
            local[things[point]], present[found] = found, things[point]
            found += 1
    common = np.zeros((found, mask_count + 1), np.int64)
    for i in range(len(rows)):
        point = point_of_row[rows[i]]
        if point >= 0:
            common[local[things[point]], masks[i]] += 1
    sizes, visible = common.sum(axis=0), common.sum(axis=1)
    best, fit = np.full(mask_count + 1, -1, np.int32), np.zeros(mask_count + 1, np.float32)
    for k in range(found):
        for m in range(mask_count + 1):
            if common[k, m] == 0:
                continue
            iou = np.float32(common[k, m] / (sizes[m] + visible[k] - common[k, m]))
            if iou > fit[m] or (iou == fit[m] and present[k] < best[m]):
                best[m], fit[m] = present[k], iou
    return best, fit


@njit(cache=True, nogil=True)
def _vote(names, weights, rows, point_of_row, masks, thing, fit):
    """Space-saving: a thing that finds no slot lowers the weakest."""
    for i in range(len(rows)):
        name, weight = thing[masks[i]], fit[masks[i]]
        p, chosen, weakest = point_of_row[rows[i]], -1, 0
        if weight <= 0 or p < 0:
            continue
        for k in range(SLOTS):
            if weights[p, k] > 0 and names[p, k] == name:
                chosen = k
                break
            if weights[p, k] < weights[p, weakest]:
                weakest = k
        if chosen < 0 and weights[p, weakest] == 0:
            chosen = weakest
            names[p, chosen] = name
        if chosen >= 0:
            weights[p, chosen] += weight
        elif weights[p, weakest] > weight:
            weights[p, weakest] -= weight
        else:
            names[p, weakest], weights[p, weakest] = -1, 0


@njit(cache=True, nogil=True)
def _add_inertia(names, weights, things, inertia):
    for p in range(len(things)):
        chosen = SLOTS
        for k in range(SLOTS):
            if weights[p, k] > 0 and names[p, k] == things[p]:
                chosen = k
        names[p, chosen] = things[p]
        weights[p, chosen] += inertia


@njit(cache=True, nogil=True)
def _write_shares(names, weights, out, share):
    """The SHARES strongest, strongest first, as shares of all; ties to the first slot."""
    left = np.empty(names.shape[1], np.float32)
    for p in range(len(names)):
        total, things, last = np.float32(0), 0, 0
        for k in range(names.shape[1]):
            left[k] = weights[p, k]
            total += left[k]
            if left[k] > 0:
                things, last = things + 1, k
        if things == 1:
            out[p, 0], share[p, 0] = names[p, last], 1
            continue
        for place in range(min(things, SHARES)):
            best = 0
            for k in range(1, names.shape[1]):
                if left[k] > left[best]:
                    best = k
            out[p, place], share[p, place] = names[p, best], left[best] / total
            left[best] = 0


@njit(cache=True, nogil=True)
def _smooth(names, shares, indptr, indices, neighbour_weight, rounds):
    """Each round gives the points, in their order, the mean of their shares, counting 1, and those of their neighbours
    as they are by then. Strongest first, ties to the smaller thing. A point amid points of one thing stays as it is:
    only those that are not, and their neighbours, are looked at."""
    count = len(names)
    # The one thing of each point, -1 = several.
    only = np.empty(count, np.int32)
    for p in range(count):
        only[p] = names[p, 0] if names[p, 1] < 0 else -1
    is_open = np.zeros(count, np.bool_)
    for p in range(count):
        is_open[p] = only[p] < 0
        for e in range(indptr[p], indptr[p + 1]):
            is_open[p] |= only[indices[e]] != only[p]
    gathered, sums = np.empty(MOST_GATHERED, np.int32), np.empty(MOST_GATHERED, np.float32)
    for _ in range(rounds):
        for p in range(count):
            if not is_open[p]:
                continue
            before = names[p, 0] if names[p, 1] < 0 else -1
            things, total = _gather(p, names, shares, indptr, indices, neighbour_weight, gathered, sums)
            for k in range(SHARES):
                names[p, k], shares[p, k] = -1, 0
            for k in range(min(SHARES, things)):
                best = 0
                for place in range(1, things):
                    if sums[place] > sums[best] or (sums[place] == sums[best] and gathered[place] < gathered[best]):
                        best = place
                if k > 0 and sums[best] < LEAST_SHARE * total:
                    break
                names[p, k], shares[p, k] = gathered[best], sums[best] / total
                sums[best] = -1
            # Around several things, and around what differs from a neighbour, all are open already.
            if before >= 0 and (names[p, 1] >= 0 or names[p, 0] != before):
                for e in range(indptr[p], indptr[p + 1]):
                    if names[p, 1] >= 0 or names[p, 0] != names[indices[e], 0]:
                        is_open[indices[e]] = True


@njit(inline="always")
def _gather(p, names, shares, indptr, indices, neighbour_weight, gathered, sums):
    """How many things are at p and its neighbours, and the sum of weights; writes them and their shares' sums."""
    values, xyz, normals, rgb = neighbour_weight
    found = 0
    total = np.float32(1)
    for k in range(SHARES):
        if names[p, k] < 0:
            break
        gathered[found], sums[found] = names[p, k], shares[p, k]
        found += 1
    for e in range(indptr[p], indptr[p + 1]):
        q = indices[e]
        weight = values[e]
        if weight < 0:
            weight = _weigh(p, q, xyz, normals, rgb)
            values[e] = weight
        total += weight
        for k in range(SHARES):
            name = names[q, k]
            if name < 0:
                break
            place = 0
            while place < found and gathered[place] != name:
                place += 1
            if place == found:
                if found == MOST_GATHERED:
                    break
                gathered[found], sums[found] = name, np.float32(0)
                found += 1
            sums[place] += weight * shares[q, k]
    return found, total
