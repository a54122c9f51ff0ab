# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Joining regions, the surest pair first, with all evidence counted anew for what they become."""

# numba infers the types of kernels.
# mypy: allow-untyped-defs

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from ...types import Array
from .evidence import (
    HIGH,
    LOW,
    SIZE,
    Weights,
    all_features,
    clear_region,
    empty_spread,
    mask_evidence,
    runs_of,
    shapes_of,
    spread_region,
    write_features,
    write_means,
    write_runs,
)
from .mask_table import MaskTable
from .regions import Regions

# Log-odds above which two regions are one thing.
ONE_THING = 0.0
# A fragment of fewer points that nobody would report joins what it touches while the log-odds are above this.
FRAGMENT_POINTS = 100
FRAGMENT_LIMIT = -3.0


class Candidates(NamedTuple):
    """All pairs that may join: first and second int32 (E,), their contact float64 (E, 4) as of `Regions`, and their
    `FEATURES` float64 (E, 17)."""

    first: Array
    second: Array
    contact: Array
    features: Array


def candidates(regions: Regions, table: MaskTable, more: tuple[Array, Array]) -> Candidates:
    """The pairs that touch and those of `more`, int64 (P,) twice, which need not."""
    touching = regions.first.astype(np.int64) * len(regions) + regions.second
    apart = ~np.isin(more[0] * len(regions) + more[1], touching)
    first = np.concatenate([regions.first, more[0][apart]]).astype(np.int32)
    second = np.concatenate([regions.second, more[1][apart]]).astype(np.int32)
    contact = np.concatenate([regions.contact, np.zeros((int(apart.sum()), 4))])
    features = all_features(
        first, second, contact, table.columns, table.counts, table.starts, table.pictures, table.sizes,
        shapes_of(regions.sizes, regions.sums, regions.low, regions.high),
    )  # fmt: skip
    return Candidates(first, second, contact, features)


def joined(regions: Regions, table: MaskTable, pairs: Candidates, weights: Weights) -> Array:
    """The thing that each of S regions belongs to, int32 (S,): the number of its first region."""
    of_region = _join(
        np.stack([pairs.first, pairs.second], axis=1),
        pairs.contact.copy(),
        pairs.features,
        table.columns,
        table.counts,
        table.starts,
        table.pictures,
        table.sizes,
        shapes_of(regions.sizes, regions.sums, regions.low, regions.high),
        regions.sums.copy(),
        weights.features,
        weights.constant,
    )
    _, smallest, number = np.unique(of_region, return_index=True, return_inverse=True)
    return smallest[number.reshape(-1)].astype(np.int32)


@njit(cache=True, nogil=True)
def _join(
    pairs,
    contact,
    known,
    table_columns,
    table_counts,
    table_starts,
    pictures,
    mask_sizes,
    shapes,
    sums,
    weights,
    constant,
):
    """One region's number for each, after all joins. Writes into all arguments but the table's, the pairs' features
    and the weights.

    Pairs wait in a heap by log-odds, then by their number. In the second round fragments join as well.
    """
    region_count = len(shapes)
    columns, counts = table_columns.copy(), table_counts.copy()
    runs, run_starts = runs_of(columns, counts, table_starts, pictures, mask_sizes)
    spans = np.column_stack((table_starts[:-1], table_starts[1:], run_starts[:-1], run_starts[1:])).astype(np.int32)
    top, run_top = len(columns), run_starts[-1]
    heads, links = _linked(pairs, region_count)
    on_mask, spread = empty_spread(pictures)
    odds = _log_odds(known, weights, constant)
    heap, places = np.arange(len(pairs)).astype(np.int32), np.arange(len(pairs)).astype(np.int32)
    keys = np.full(len(pairs), _OUT)
    owner = np.arange(region_count)
    pair_to = np.full(region_count, -1, np.int32)
    row, found = np.empty((len(pairs), 2), np.int32), np.empty((len(pairs), 5))
    for fragments in (False, True):
        for e in range(len(pairs)):
            if pairs[e, 0] >= 0:
                key = _key(fragments, odds[e], shapes[pairs[e, 0], SIZE], shapes[pairs[e, 1], SIZE], contact[e, 0])
                _rank(heap, places, keys, e, key)
        while len(pairs) > 0 and keys[heap[0]] > _OUT:
            joining = heap[0]
            i, j = pairs[joining, 0], pairs[joining, 1]
            if shapes[j, SIZE] > shapes[i, SIZE]:
                i, j = j, i
            need = top + spans[i, 1] - spans[i, 0] + spans[j, 1] - spans[j, 0]
            if need > len(columns):
                columns, counts = _longer(columns, top, 2 * need), _longer(counts, top, 2 * need)
            need = run_top + spans[i, 3] - spans[i, 2] + spans[j, 3] - spans[j, 2]
            if need > len(runs):
                runs = _longer(runs, run_top, 2 * need)
            ended = _merge_entries(columns, counts, spans[i, 0], spans[i, 1], spans[j, 0], spans[j, 1], top)
            run_ended = write_runs(runs, run_top, columns, counts, top, ended, pictures, mask_sizes)
            spans[i, 0], spans[i, 1], spans[i, 2], spans[i, 3] = top, ended, run_top, run_ended
            top, run_top = ended, run_ended
            _add_shape(shapes, sums, i, j)
            owner[j] = i
            pairs[joining, 0] = -1
            _rank(heap, places, keys, joining, _OUT)
            size = _move_pairs(i, j, pairs, contact, heads, links, pair_to, heap, places, keys, row)
            spread_region(
                on_mask, spread, columns, counts, spans[i, 0], spans[i, 1],
                runs, spans[i, 2], spans[i, 3], mask_sizes, shapes[i, SIZE],
            )  # fmt: skip
            for k in range(size):
                s = row[k, 1]
                found[k, 0], found[k, 1], found[k, 2], found[k, 3], found[k, 4] = mask_evidence(
                    on_mask, spread, columns, counts, spans[s, 0], runs, spans[s, 2], spans[s, 3], mask_sizes,
                    shapes[s, SIZE],
                )  # fmt: skip
            clear_region(on_mask, spread, columns, spans[i, 0], spans[i, 1], runs, spans[i, 2], spans[i, 3])
            _weigh_row(row[:size], found, pairs, contact, shapes, weights, constant, odds)
            for k in range(size):
                e = row[k, 0]
                key = _key(fragments, odds[e], shapes[i, SIZE], shapes[row[k, 1], SIZE], contact[e, 0])
                _rank(heap, places, keys, e, key)
    for s in range(region_count):
        while owner[owner[s]] != owner[s]:
            owner[s] = owner[owner[s]]
    return owner


@njit(cache=True, nogil=True)
def _weigh_row(row, found, pairs, contact, shapes, weights, constant, odds):
    features = np.empty(17)
    for k in range(len(row)):
        e = row[k, 0]
        evidence = found[k, 0], found[k, 1], found[k, 2], found[k, 3], found[k, 4]
        write_features(features, pairs[e, 0], pairs[e, 1], evidence, contact, e, shapes)
        odds[e] = _weighed(features, weights, constant)


@njit(cache=True, nogil=True)
def _add_shape(shapes, sums, i, j):
    """Region i becomes what it and j are together."""
    shapes[i, SIZE] += shapes[j, SIZE]
    for k in range(sums.shape[1]):
        sums[i, k] += sums[j, k]
    for k in range(3):
        shapes[i, LOW + k] = min(shapes[i, LOW + k], shapes[j, LOW + k])
        shapes[i, HIGH + k] = max(shapes[i, HIGH + k], shapes[j, HIGH + k])
    write_means(shapes, i, sums)


# The heap holds all pairs, int32 (E,), the surest first; places int32 (E,) say where each pair stands. keys float64
# (E,) are the log-odds of pairs that may join, and `_OUT` of all others; at equal keys the pair of the smaller number
# is surer. Pairs int32 (E, 2) that are gone have -1 first. spans int32 (S, 4) of each region: from where to where its
# entries are, and its runs. All is small, since each join looks up tens of pairs, and waits for memory.
_OUT = -np.inf


@njit(cache=True, nogil=True)
def _rank(heap, places, keys, e, key):
    """Gives a pair a key, and the place in the heap that goes with it."""
    keys[e] = key
    place, is_moving = places[e], places[e] > 0
    while is_moving:
        above = (place - 1) >> 1
        other = heap[above]
        is_moving = (keys[other] < key) | ((keys[other] == key) & (other > e))
        if is_moving:
            heap[place], places[other] = other, place
            place, is_moving = above, above > 0
    is_moving = 2 * place + 1 < len(heap)
    while is_moving:
        below = 2 * place + 1
        other, beside = heap[below], heap[min(below + 1, len(heap) - 1)]
        if (keys[beside] > keys[other]) | ((keys[beside] == keys[other]) & (beside < other)):
            other, below = beside, below + 1
        is_moving = (keys[other] > key) | ((keys[other] == key) & (other < e))
        if is_moving:
            heap[place], places[other] = other, place
            place, is_moving = below, 2 * below + 1 < len(heap)
    heap[place], places[e] = e, place


@njit(cache=True, nogil=True)
def _key(fragments, odds, size_a, size_b, touching_pairs):
    """Of a pair: its log-odds if it may join."""
    is_fragment = touching_pairs > 0 and min(size_a, size_b) < FRAGMENT_POINTS
    may_join = odds > ONE_THING or (fragments and is_fragment and odds > FRAGMENT_LIMIT)
    return odds if may_join else _OUT


@njit(inline="always")
def _weighed(features, weights, constant):
    total = 0.0
    for k in range(len(weights)):
        total += weights[k] * features[k]
    return constant + total


@njit(cache=True, nogil=True)
def _log_odds(features, weights, constant):
    out = np.empty(len(features))
    for e in range(len(features)):
        out[e] = _weighed(features[e], weights, constant)
    return out


@njit(cache=True, nogil=True)
def _linked(pairs, region_count):
    """The pairs of each region as linked lists: link 2 e is pair e in the list of its first region, 2 e + 1 of its
    second; -1 ends a list."""
    heads = np.full(region_count, -1, np.int32)
    links = np.empty(2 * len(pairs), np.int32)
    for e in range(len(pairs)):
        for side in range(2):
            links[2 * e + side], heads[pairs[e, side]] = heads[pairs[e, side]], 2 * e + side
    return heads, links


@njit(cache=True, nogil=True)
def _move_pairs(i, j, pairs, contact, heads, links, pair_to, heap, places, keys, row):
    """What j had pairs with, i has now; two pairs with one region become one. `pair_to` is -1 between calls."""
    before, link = -1, heads[i]
    while link >= 0:
        e, following = link >> 1, links[link]
        if pairs[e, 0] < 0:
            if before < 0:
                heads[i] = following
            else:
                links[before] = following
        else:
            pair_to[pairs[e, 1] if pairs[e, 0] == i else pairs[e, 0]] = e
            before = link
        link = following
    link = heads[j]
    while link >= 0:
        e, following = link >> 1, links[link]
        if pairs[e, 0] >= 0:
            side = 0 if pairs[e, 0] == j else 1
            other = pairs[e, 1 - side]
            same = pair_to[other]
            if same >= 0:
                for k in range(4):
                    contact[same, k] += contact[e, k]
                pairs[e, 0] = -1
                _rank(heap, places, keys, e, _OUT)
            else:
                pairs[e, side] = i
                links[link], heads[i] = heads[i], link
                pair_to[other] = e
        link = following
    size, link = 0, heads[i]
    while link >= 0:
        e, link = link >> 1, links[link]
        other = pairs[e, 1] if pairs[e, 0] == i else pairs[e, 0]
        row[size, 0], row[size, 1] = e, other
        pair_to[other] = -1
        size += 1
    return size


@njit(cache=True, nogil=True)
def _merge_entries(columns, counts, i, i_end, j, j_end, top):
    """Writes the sum of two lists of entries from `top` on; where it ends."""
    while i < i_end or j < j_end:
        if j >= j_end or (i < i_end and columns[i] < columns[j]):
            columns[top], counts[top] = columns[i], counts[i]
            i += 1
        elif i >= i_end or columns[j] < columns[i]:
            columns[top], counts[top] = columns[j], counts[j]
            j += 1
        else:
            columns[top], counts[top] = columns[i], counts[i] + counts[j]
            i += 1
            j += 1
        top += 1
    return top


@njit(cache=True, nogil=True)
def _longer(values, used, length):
    out = np.empty((length, *values.shape[1:]), values.dtype)
    out[:used] = values[:used]
    return out
