"""Outlines of things: points vote with the masks that fit a thing, and their neighbours smooth the outcome."""

# numba infers the types of kernels.
# mypy: allow-untyped-defs

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import njit

from ...lifting.keyframe_log import LoggedKeyframe
from ...mapping.neighbours import Neighbours
from ...types import Array, Cloud

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


def neighbour_weights(cloud: Cloud, neighbours: Neighbours) -> Array:
    """How much each neighbour counts, float32 (E,) beside `neighbours.indices`, at most 1."""
    return _weigh(
        neighbours.indptr,
        neighbours.indices,
        np.ascontiguousarray(cloud.xyz, np.float32),
        np.ascontiguousarray(cloud.normals, np.float32),
        np.ascontiguousarray(cloud.rgb),
    )


def fitting_masks(keyframe: LoggedKeyframe, labels: Array, thing_count: int) -> list[tuple[Array, Array, Array]]:
    """Of each label image: the thing int32 (masks + 1,) of highest IoU with each mask, that IoU float32, and the
    masks' points int64. labels int32 (n,) are the things of the keyframe's points, in 0..thing_count - 1; what is
    below 0 counts nowhere."""
    out = []
    for masks, count in zip(keyframe.masks, keyframe.mask_counts, strict=True):
        out.append(_fit(labels, masks, thing_count, count))
    return out


def voted(
    keyframes: Sequence[LoggedKeyframe],
    point_of_row: Array,
    things: Array,
    thing_count: int,
    inertia: float,
    background: float,
) -> tuple[Array, Array]:
    """What the masks say of each point: things int32 (N, SLOTS + 1), -1 = an empty slot, and weights float32.

    point_of_row int (rows,) is the point of each map row, -1 = none; things int32 (N,) in 0..thing_count - 1, of which
    0 is none. A point on no mask votes `background` for none; `inertia` is the weight of the thing that a point is
    part of already.
    """
    names, weights = np.full((len(things), SLOTS + 1), -1, np.int32), np.zeros((len(things), SLOTS + 1), np.float32)
    for keyframe in keyframes:
        points = point_of_row[keyframe.rows]
        alive = points >= 0
        points = points[alive]
        seen = LoggedKeyframe(
            keyframe.number, keyframe.rows, keyframe.masks[:, alive], keyframe.pixels, keyframe.mask_counts
        )
        for masks, (thing, fit, _) in zip(seen.masks, fitting_masks(seen, things[points], thing_count), strict=True):
            fit = np.where(fit >= LEAST_FIT, fit, np.float32(0))
            thing[0], fit[0] = 0, background
            _vote(names, weights, points, masks, thing, fit)
    _add_inertia(names, weights, things, np.float32(inertia))
    return names, weights


def smoothed(names: Array, weights: Array, neighbours: Neighbours, neighbour_weight: Array, rounds: int) -> Array:
    """The thing of most weight at each point, int32 (N,), after `rounds` of averaging with the neighbours."""
    names, shares = _shares(names, weights)
    _smooth(names, shares, neighbours.indptr, neighbours.indices, neighbour_weight, rounds)
    return names[:, 0].copy()


@njit(cache=True, nogil=True)
def _weigh(indptr, indices, xyz, normals, rgb):
    zero = np.float32(0)
    out = np.empty(len(indices), np.float32)
    for p in range(len(xyz)):
        for e in range(indptr[p], indptr[p + 1]):
            q = indices[e]
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
            out[e] = np.exp(-(1 - cosine) / FOLD - lift / (STEP * STEP) - colour / (3 * COLOUR * COLOUR))
    return out


@njit(cache=True, nogil=True)
def _fit(labels, masks, thing_count, mask_count):
    local = np.full(thing_count, -1, np.int32)
    things = np.empty(thing_count, np.int32)
    found = 0
    for label in labels:
        if label >= 0 and local[label] < 0:
            local[label], things[found] = found, label
            found += 1
    common = np.zeros((found, mask_count + 1), np.int64)
    for i in range(len(labels)):
        if labels[i] >= 0:
            common[local[labels[i]], masks[i]] += 1
    sizes, visible = common.sum(axis=0), common.sum(axis=1)
    best, fit = np.full(mask_count + 1, -1, np.int32), np.zeros(mask_count + 1, np.float32)
    for m in range(mask_count + 1):
        for k in range(found):
            iou = np.float32(common[k, m] / (sizes[m] + visible[k] - common[k, m]))
            if common[k, m] > 0 and (iou > fit[m] or (iou == fit[m] and things[k] < best[m])):
                best[m], fit[m] = things[k], iou
    return best, fit, sizes


@njit(cache=True, nogil=True)
def _vote(names, weights, points, masks, thing, fit):
    """Space-saving: a thing that finds no slot lowers the weakest."""
    for i in range(len(points)):
        name, weight = thing[masks[i]], fit[masks[i]]
        if weight <= 0:
            continue
        p, chosen, weakest = points[i], -1, 0
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
def _shares(names, weights):
    """The SHARES strongest, strongest first, as shares of all; ties to the first slot."""
    out, share = np.full((len(names), SHARES), -1, np.int32), np.zeros((len(names), SHARES), np.float32)
    left = np.empty(names.shape[1], np.float32)
    for p in range(len(names)):
        total = np.float32(0)
        for k in range(names.shape[1]):
            left[k] = weights[p, k]
            total += left[k]
        for place in range(SHARES):
            best = 0
            for k in range(1, names.shape[1]):
                if left[k] > left[best]:
                    best = k
            if left[best] <= 0:
                break
            out[p, place], share[p, place] = names[p, best], left[best] / total
            left[best] = 0
    return out, share


@njit(cache=True, nogil=True)
def _smooth(names, shares, indptr, indices, neighbour_weight, rounds):
    """Each round gives the points, in their order, the mean of their shares, counting 1, and those of their neighbours
    as they are by then. Strongest first, ties to the smaller thing. A point amid points of one thing stays as it is:
    only those that are not, and their neighbours, are looked at."""
    count = len(names)
    is_open = np.zeros(count, np.bool_)
    for p in range(count):
        is_open[p] = not _is_settled(p, names, indptr, indices)
    gathered, sums = np.empty(MOST_GATHERED, np.int32), np.empty(MOST_GATHERED, np.float32)
    for _ in range(rounds):
        for p in range(count):
            if not is_open[p]:
                continue
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
            for e in range(indptr[p], indptr[p + 1]):
                if names[p, 1] >= 0 or names[p, 0] != names[indices[e], 0]:
                    is_open[indices[e]] = True


@njit(inline="always")
def _is_settled(p, names, indptr, indices):
    if names[p, 1] >= 0:
        return False
    for e in range(indptr[p], indptr[p + 1]):
        if names[indices[e], 1] >= 0 or names[indices[e], 0] != names[p, 0]:
            return False
    return True


@njit(inline="always")
def _gather(p, names, shares, indptr, indices, neighbour_weight, gathered, sums):
    """How many things are at p and its neighbours, and the sum of weights; writes them and their shares' sums."""
    found = 0
    total = np.float32(1)
    for k in range(SHARES):
        if names[p, k] < 0:
            break
        gathered[found], sums[found] = names[p, k], shares[p, k]
        found += 1
    for e in range(indptr[p], indptr[p + 1]):
        q, weight = indices[e], neighbour_weight[e]
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
