"""The log-odds that two regions are one thing: a logistic model of what masks and geometry say.

Its weights were fitted on generated rooms with made mask errors (`benchmarks/fit_evidence.py`), and lie in
`evidence.json`.
"""

# numba infers the types of kernels.
# mypy: allow-untyped-defs

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from typing import NamedTuple

import numpy as np
from numba import njit

from ...types import Array

# In this order in the kernel, the weights and the file.
FEATURES = (
    "together",  # log-ratio of pictures that show both on one mask to those that show them on two, where above 0
    "apart",  # the same where below 0
    "observed",  # how much of such evidence there is, 0 to 1
    "one on none",  # share of pictures in which just one of them lies on no mask
    "own mask",  # how much of the shared masks the two fill, times `observed`
    "touching",  # 0 or 1
    "contact",  # point pairs across, over the square root of the smaller region's points
    "step",  # mean step across
    "convexity",  # mean convexity across
    "edge colour",  # mean difference of colour across, CIELAB
    "colour",  # difference of the mean colours, CIELAB
    "size",  # log of the smaller region's points
    "parallel",  # dot product of the mean normals
    "flatness",  # length of the larger region's mean normal: 1 is a plane
    "extent",  # log of the diagonal of the box around both, metres
    "gap",  # between the boxes, metres
    "seen",  # how often both are in a picture, 0 to 1
)
TOGETHER, APART = 0, 1
# Evidence beyond so many pictures counts no more: errors of 2D models persist.
MOST_EVIDENCE = 6.0
# Added to both sides of the ratio, in pictures.
DOUBT = 0.3
# A region that shows v points of n counts v / (v + 6) x sqrt(v / (n / 2)), at most 1, in a picture.
HALF_SEEN = 6.0


class Weights(NamedTuple):
    """Of the features, float64 (17,), and the constant."""

    features: Array
    constant: float

    def trusting(self, times: float) -> Weights:
        """The same with what masks say of `together` and `apart` counted `times` as much."""
        features = self.features.copy()
        features[[TOGETHER, APART]] *= times
        return Weights(features, self.constant)


@cache
def fitted_weights() -> Weights:
    """Those that come along."""
    found = json.loads(resources.files(__package__).joinpath("evidence.json").read_text(encoding="utf-8"))
    return Weights(np.array([found["weights"][name] for name in FEATURES], np.float64), float(found["constant"]))


@njit(inline="always")
def part_seen(visible, size):
    """What a picture that shows `visible` of a region's `size` points counts, 0 to 1."""
    if visible < 2:
        return 0.0
    return visible / (visible + HALF_SEEN) * np.sqrt(min(1.0, 2 * visible / size))


class Spread(NamedTuple):
    """What pictures show of one region, for look-ups; zeros between uses.

    on_mask float32 (masks + 1 of all pictures,): its points on each column; visible, on_none and part float64
    (pictures,): its points in each picture, those on no mask, and `part_seen`.
    """

    on_mask: Array
    visible: Array
    on_none: Array
    part: Array


@njit(cache=True, nogil=True)
def empty_spread(pictures):
    count = pictures[-1] + 1 if len(pictures) > 0 else 0
    return Spread(np.zeros(len(pictures), np.float32), np.zeros(count), np.zeros(count), np.zeros(count))


@njit(inline="always")
def spread_region(spread, columns, counts, start, end, size, pictures, mask_sizes):
    """Writes a region of `size` points, whose entries are `columns[start:end]`, into an empty spread."""
    e = start
    while e < end:
        picture = pictures[columns[e]]
        following, visible, bare = _in_picture(columns, counts, e, end, pictures, mask_sizes)
        spread.visible[picture], spread.on_none[picture] = visible, bare
        spread.part[picture] = part_seen(visible, size)
        for k in range(e, following):
            spread.on_mask[columns[k]] = counts[k]
        e = following


@njit(inline="always")
def clear_region(spread, columns, start, end, pictures):
    """Makes the spread of such entries empty again."""
    for e in range(start, end):
        spread.on_mask[columns[e]] = 0
        spread.part[pictures[columns[e]]] = 0


@njit(inline="always")
def mask_evidence(spread, columns, counts, j, j_end, size_j, pictures, mask_sizes):
    """(together, apart, one on none, seen, own) over the pictures that show two regions, in pictures.

    One region lies in `spread`, the other's entries are `columns[j:j_end]`. In a picture, `together` is the chance
    that a point of each lie on one mask, `apart` that they lie on two, `one on none` that just one of them is on a
    mask; `own` is `together` times the share of that mask that the two regions fill.
    """
    together, apart, one_on_none, seen, own = 0.0, 0.0, 0.0, 0.0, 0.0
    while j < j_end:
        picture = pictures[columns[j]]
        next_j, visible_j, bare_j = _in_picture(columns, counts, j, j_end, pictures, mask_sizes)
        weight = min(spread.part[picture], part_seen(visible_j, size_j))
        if weight > 0:
            visible_i = spread.visible[picture]
            same, filled = 0.0, 0.0
            for e in range(j, next_j):
                count_i, size = spread.on_mask[columns[e]], mask_sizes[columns[e]]
                if count_i > 0 and size > 0:
                    chance = count_i * counts[e] / (visible_i * visible_j)
                    same += chance
                    filled += chance * (count_i + counts[e]) / size
            on_i, on_j = 1 - spread.on_none[picture] / visible_i, 1 - bare_j / visible_j
            seen += weight
            together += weight * same
            apart += weight * (on_i * on_j - same)
            one_on_none += weight * (on_i * (1 - on_j) + on_j * (1 - on_i))
            own += weight * filled
        j = next_j
    return together, max(apart, 0.0), one_on_none, seen, own


@njit(inline="always")
def _in_picture(columns, counts, i, end, pictures, mask_sizes):
    """Where the entries of a picture end, how many points they are, and how many of them are on no mask."""
    picture, visible, bare = pictures[columns[i]], 0.0, 0.0
    while i < end and pictures[columns[i]] == picture:
        visible += counts[i]
        if mask_sizes[columns[i]] == 0:
            bare += counts[i]
        i += 1
    return i, visible, bare


@njit(inline="always")
def write_features(out, a, b, evidence, contact, sizes, sums, low, high):
    """The `FEATURES` of regions a and b into `out` (17,). `evidence` as from `mask_evidence`; contact (4,)."""
    together, apart, one_on_none, seen, own = evidence
    total = together + apart
    scale = min(1.0, MOST_EVIDENCE / total) if total > 0 else 1.0
    ratio = np.log(together * scale + DOUBT) - np.log(apart * scale + DOUBT)
    observed = total * scale / (total * scale + 1)
    out[0], out[1], out[2] = max(ratio, 0.0), min(ratio, 0.0), observed
    out[3], out[4] = one_on_none / (seen + DOUBT), own / (together + 0.05) * observed
    smaller, pairs = min(sizes[a], sizes[b]), contact[0]
    out[5], out[6] = (1.0 if pairs > 0 else 0.0), min(pairs / np.sqrt(smaller), 2.0)
    if pairs > 0:
        out[7], out[8], out[9] = contact[1] / pairs, contact[2] / pairs, contact[3] / pairs
    else:
        out[7], out[8], out[9] = 0.3, 0.0, 8.0
    larger = a if sizes[a] >= sizes[b] else b
    colour, parallel, flat, diagonal, gap = 0.0, 0.0, 0.0, 0.0, 0.0
    for k in range(3):
        colour += (sums[a, k] / sizes[a] - sums[b, k] / sizes[b]) ** 2
        parallel += sums[a, 3 + k] / sizes[a] * (sums[b, 3 + k] / sizes[b])
        flat += (sums[larger, 3 + k] / sizes[larger]) ** 2
        diagonal += (max(high[a, k], high[b, k]) - min(low[a, k], low[b, k])) ** 2
        gap += max(0.0, max(low[a, k], low[b, k]) - min(high[a, k], high[b, k])) ** 2
    out[10], out[11], out[12] = min(np.sqrt(colour), 60.0), np.log(smaller), parallel
    out[13], out[14] = np.sqrt(flat), np.log(np.sqrt(diagonal) + 0.05)
    out[15], out[16] = min(np.sqrt(gap), 0.5), seen / (seen + 1)


@njit(cache=True, nogil=True)
def all_features(first, second, contact, columns, counts, starts, ends, pictures, mask_sizes, sizes, sums, low, high):
    """`FEATURES` of pairs of regions, float64 (E, 17)."""
    out = np.empty((len(first), 17))
    spread = empty_spread(pictures)
    for e in range(len(first)):
        a, b = first[e], second[e]
        if e == 0 or a != first[e - 1]:
            if e > 0:
                before = first[e - 1]
                clear_region(spread, columns, starts[before], ends[before], pictures)
            spread_region(spread, columns, counts, starts[a], ends[a], sizes[a], pictures, mask_sizes)
        evidence = mask_evidence(spread, columns, counts, starts[b], ends[b], sizes[b], pictures, mask_sizes)
        write_features(out[e], a, b, evidence, contact[e], sizes, sums, low, high)
    return out
