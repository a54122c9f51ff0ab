# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

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


# Kernels are given arrays one by one, and not in tuples: numba counts references whenever it takes one out of a tuple,
# which in the loop over pairs took as long as the evidence itself.

# Columns of `shapes` float64 (S, 17): a region's points, their logarithm, its mean CIELAB colour, normal and position,
# and the corners of its box.
SIZE, LOG_SIZE, COLOUR, NORMAL, PLACE, LOW, HIGH = 0, 1, 2, 5, 8, 11, 14
# Columns of `runs` int32 (R, 4). The entries of a region that belong to one picture are a run: the picture, where the
# run's entries end, the region's points in the picture, and how many of them lie on no mask.
PICTURE, END, VISIBLE, BARE = 0, 1, 2, 3
# Columns of `spread` float64 (pictures, 3): what each picture shows of a region, the share of that which lies on masks,
# and `part_seen`.
SHOWN, ON_MASKS, PART = 0, 1, 2


@njit(cache=True, nogil=True)
def shapes_of(sizes, sums, low, high):
    """Of S regions, from what `Regions` says of them."""
    shapes = np.empty((len(sizes), 17))
    for s in range(len(sizes)):
        shapes[s, SIZE] = sizes[s]
        for k in range(3):
            shapes[s, LOW + k], shapes[s, HIGH + k] = low[s, k], high[s, k]
        write_means(shapes, s, sums)
    return shapes


@njit(cache=True, nogil=True, error_model="numpy")
def write_means(shapes, s, sums):
    """Writes what follows from the size of region s and its sums."""
    shapes[s, LOG_SIZE] = np.log(shapes[s, SIZE])
    for k in range(9):
        shapes[s, COLOUR + k] = sums[s, k] / shapes[s, SIZE]


@njit(cache=True, nogil=True)
def runs_of(columns, counts, starts, pictures, mask_sizes):
    """The runs of S regions, and where those of each start, int64 (S + 1,)."""
    runs = np.empty((len(columns), 4), np.int32)
    run_starts = np.zeros(len(starts), np.int64)
    for s in range(len(starts) - 1):
        run_starts[s + 1] = write_runs(
            runs, run_starts[s], columns, counts, starts[s], starts[s + 1], pictures, mask_sizes
        )
    return runs, run_starts


@njit(cache=True, nogil=True, error_model="numpy")
def write_runs(runs, top, columns, counts, start, end, pictures, mask_sizes):
    """Writes the runs of a region, whose entries are `columns[start:end]`, from `top` on; where they end."""
    e = start
    while e < end:
        picture, visible, bare = pictures[columns[e]], np.float32(0), np.float32(0)
        while e < end and pictures[columns[e]] == picture:
            visible += counts[e]
            if mask_sizes[columns[e]] == 0:
                bare += counts[e]
            e += 1
        runs[top, PICTURE], runs[top, END], runs[top, VISIBLE], runs[top, BARE] = picture, e, visible, bare
        top += 1
    return top


@njit(cache=True, nogil=True)
def empty_spread(pictures):
    """What pictures show of one region, for look-ups: its points on each mask, float32 (C,), and its `shown` by
    picture, float64 (P, 3). `on_mask` and `PART` are zeros between uses."""
    return np.zeros(len(pictures), np.float32), np.zeros((pictures[-1] + 1 if len(pictures) > 0 else 0, 3))


@njit(cache=True, nogil=True)
def spread_region(on_mask, spread, columns, counts, start, end, runs, run, last_run, mask_sizes, size):
    """Writes a region of `size` points, whose entries and runs are given, into an empty spread."""
    for e in range(start, end):
        if mask_sizes[columns[e]] > 0:
            on_mask[columns[e]] = counts[e]
    for r in range(run, last_run):
        picture, visible = runs[r, PICTURE], np.float64(runs[r, VISIBLE])
        spread[picture, SHOWN], spread[picture, ON_MASKS] = visible, 1 - runs[r, BARE] / visible
        spread[picture, PART] = part_seen(visible, size)


@njit(cache=True, nogil=True)
def clear_region(on_mask, spread, columns, start, end, runs, run, last_run):
    """Makes the spread of such a region empty again."""
    for e in range(start, end):
        on_mask[columns[e]] = 0
    for r in range(run, last_run):
        spread[runs[r, PICTURE], PART] = 0


@njit(cache=True, nogil=True, error_model="numpy")
def mask_evidence(on_mask, spread, columns, counts, start, runs, run, last_run, mask_sizes, size):
    """(together, apart, one on none, seen, own) over the pictures that show two regions, in pictures.

    One region lies in the spread; the other one has `size` points, its entries begin at `start`, and its runs are
    `run` to `last_run`. In a picture, `together` is the chance that a point of each lie on one mask, `apart` that they
    lie on two, `one on none` that just one of them is on a mask; `own` is `together` times the share of that mask that
    the two regions fill.
    """
    together, apart, one_on_none, seen, own = 0.0, 0.0, 0.0, 0.0, 0.0
    for r in range(run, last_run):
        picture, end, visible = runs[r, PICTURE], runs[r, END], np.float64(runs[r, VISIBLE])
        weight = spread[picture, PART]
        if weight > 0:
            weight = min(weight, part_seen(visible, size))
        if weight > 0:
            of_both = spread[picture, SHOWN] * visible
            same, filled = 0.0, 0.0
            for e in range(start, end):
                count_i = on_mask[columns[e]]
                if count_i > 0:
                    chance = count_i * counts[e] / of_both
                    same += chance
                    filled += chance * (count_i + counts[e]) / mask_sizes[columns[e]]
            on_i, on_j = spread[picture, ON_MASKS], 1 - runs[r, BARE] / visible
            seen += weight
            together += weight * same
            apart += weight * (on_i * on_j - same)
            one_on_none += weight * (on_i * (1 - on_j) + on_j * (1 - on_i))
            own += weight * filled
        start = end
    return together, max(apart, 0.0), one_on_none, seen, own


@njit(cache=True, nogil=True, error_model="numpy")
def write_features(out, a, b, evidence, contact, e, shapes):
    """The `FEATURES` of regions a and b into `out` (17,). `evidence` as from `mask_evidence`; contact[e] is theirs."""
    together, apart, one_on_none, seen, own = evidence
    total = together + apart
    scale = min(1.0, MOST_EVIDENCE / total) if total > 0 else 1.0
    ratio = np.log(together * scale + DOUBT) - np.log(apart * scale + DOUBT)
    observed = total * scale / (total * scale + 1)
    out[0], out[1], out[2] = max(ratio, 0.0), min(ratio, 0.0), observed
    out[3], out[4] = one_on_none / (seen + DOUBT), own / (together + 0.05) * observed
    larger = a if shapes[a, SIZE] >= shapes[b, SIZE] else b
    smaller = b if larger == a else a
    pairs, steps, convexity, differences = contact[e, 0], contact[e, 1], contact[e, 2], contact[e, 3]
    out[5], out[6] = (1.0 if pairs > 0 else 0.0), min(pairs / np.sqrt(shapes[smaller, SIZE]), 2.0)
    out[7] = steps / pairs if pairs > 0 else 0.3
    out[8] = convexity / pairs if pairs > 0 else 0.0
    out[9] = differences / pairs if pairs > 0 else 8.0
    colour, parallel, flat, diagonal, gap = 0.0, 0.0, 0.0, 0.0, 0.0
    for k in range(3):
        low, high = max(shapes[a, LOW + k], shapes[b, LOW + k]), min(shapes[a, HIGH + k], shapes[b, HIGH + k])
        side = max(shapes[a, HIGH + k], shapes[b, HIGH + k]) - min(shapes[a, LOW + k], shapes[b, LOW + k])
        colour += (shapes[a, COLOUR + k] - shapes[b, COLOUR + k]) ** 2
        parallel += shapes[a, NORMAL + k] * shapes[b, NORMAL + k]
        flat += shapes[larger, NORMAL + k] ** 2
        diagonal += side**2
        gap += max(0.0, low - high) ** 2
    out[10], out[11], out[12] = min(np.sqrt(colour), 60.0), shapes[smaller, LOG_SIZE], parallel
    out[13], out[14] = np.sqrt(flat), np.log(np.sqrt(diagonal) + 0.05)
    out[15], out[16] = min(np.sqrt(gap), 0.5), seen / (seen + 1)


@njit(cache=True, nogil=True)
def all_features(first, second, contact, columns, counts, starts, pictures, mask_sizes, shapes):
    """`FEATURES` of pairs of regions, float64 (E, 17)."""
    out, features = np.empty((len(first), 17)), np.empty(17)
    on_mask, spread = empty_spread(pictures)
    runs, run_starts = runs_of(columns, counts, starts, pictures, mask_sizes)
    before = -1
    for e in range(len(first)):
        a, b = first[e], second[e]
        if a != before:
            if before >= 0:
                clear_region(
                    on_mask, spread, columns, starts[before], starts[before + 1],
                    runs, run_starts[before], run_starts[before + 1],
                )  # fmt: skip
            spread_region(
                on_mask, spread, columns, counts, starts[a], starts[a + 1],
                runs, run_starts[a], run_starts[a + 1], mask_sizes, shapes[a, SIZE],
            )  # fmt: skip
            before = a
        evidence = mask_evidence(
            on_mask, spread, columns, counts, starts[b], runs, run_starts[b], run_starts[b + 1], mask_sizes,
            shapes[b, SIZE],
        )  # fmt: skip
        write_features(features, a, b, evidence, contact, e, shapes)
        out[e] = features
    return out
