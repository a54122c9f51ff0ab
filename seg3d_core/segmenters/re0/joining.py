"""Joining regions, the surest pair first, with all evidence counted anew for what they become."""

# numba infers the types of kernels.
# mypy: allow-untyped-defs

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from ...types import Array
from .evidence import Weights, all_features, clear_region, empty_spread, mask_evidence, spread_region, write_features
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
        first, second, contact, table.columns, table.counts, table.starts[:-1], table.starts[1:], table.pictures,
        table.sizes, regions.sizes, regions.sums, regions.low, regions.high,
    )  # fmt: skip
    return Candidates(first, second, contact, features)


def joined(regions: Regions, table: MaskTable, pairs: Candidates, weights: Weights) -> Array:
    """The thing that each of S regions belongs to, int32 (S,): the number of its first region."""
    of_region = _join(
        pairs.first.copy(),
        pairs.second.copy(),
        pairs.contact.copy(),
        pairs.features,
        table.columns,
        table.counts,
        table.starts[:-1].copy(),
        table.starts[1:].copy(),
        table.pictures,
        table.sizes,
        regions.sizes.copy(),
        regions.sums.copy(),
        regions.low.copy(),
        regions.high.copy(),
        weights.features,
        weights.constant,
    )
    _, smallest, number = np.unique(of_region, return_index=True, return_inverse=True)
    return smallest[number.reshape(-1)].astype(np.int32)


@njit(cache=True, nogil=True)
def _join(
    first,
    second,
    contact,
    known,
    table_columns,
    table_counts,
    starts,
    ends,
    pictures,
    mask_sizes,
    sizes,
    sums,
    low,
    high,
    weights,
    constant,
):
    """One region's number for each, after all joins. Writes into all arguments but the table's, the pairs' features
    and the weights.

    Pairs wait in a heap by log-odds, then by their number. In the second round fragments join as well.
    """
    pair_count, region_count = len(first), len(sizes)
    columns, counts = table_columns.copy(), table_counts.copy()
    top = len(columns)
    heads, links = _linked(first, second, region_count)
    gone = np.zeros(pair_count, np.bool_)
    spread, features = empty_spread(pictures), np.empty(17)
    odds = _log_odds(known, weights, constant)
    heap = Heap(np.empty(pair_count, np.int64), np.full(pair_count, -1, np.int64), np.zeros(1, np.int64), odds)
    owner = np.arange(region_count)
    pair_to = np.full(region_count, -1, np.int64)
    for fragments in (False, True):
        for e in range(pair_count):
            if not gone[e]:
                _place(heap, e, _may_join(fragments, odds[e], sizes[first[e]], sizes[second[e]], contact[e, 0]))
        while heap.length[0] > 0:
            joining = heap.pairs[0]
            i, j = first[joining], second[joining]
            if sizes[j] > sizes[i]:
                i, j = j, i
            need = top + ends[i] - starts[i] + ends[j] - starts[j]
            if need > len(columns):
                columns, counts = _longer(columns, top, 2 * need), _longer(counts, top, 2 * need)
            ended = _merge_entries(columns, counts, starts[i], ends[i], starts[j], ends[j], top)
            starts[i], ends[i], top = top, ended, ended
            sizes[i] += sizes[j]
            for k in range(sums.shape[1]):
                sums[i, k] += sums[j, k]
            for k in range(3):
                low[i, k], high[i, k] = min(low[i, k], low[j, k]), max(high[i, k], high[j, k])
            owner[j] = i
            gone[joining] = True
            _place(heap, joining, False)
            _move_pairs(i, j, first, second, contact, heads, links, gone, pair_to, heap)
            spread_region(spread, columns, counts, starts[i], ends[i], sizes[i], pictures, mask_sizes)
            link = heads[i]
            while link >= 0:
                e = link >> 1
                link = links[link]
                if gone[e]:
                    continue
                a, b = first[e], second[e]
                other = b if a == i else a
                evidence = mask_evidence(
                    spread, columns, counts, starts[other], ends[other], sizes[other], pictures, mask_sizes
                )
                write_features(features, a, b, evidence, contact[e], sizes, sums, low, high)
                odds[e] = _weighed(features, weights, constant)
                _place(heap, e, _may_join(fragments, odds[e], sizes[a], sizes[b], contact[e, 0]))
            clear_region(spread, columns, starts[i], ends[i], pictures)
    for s in range(region_count):
        while owner[owner[s]] != owner[s]:
            owner[s] = owner[owner[s]]
    return owner


class Heap(NamedTuple):
    """Pairs, the surest first, at equal log-odds the one of the smaller number.

    pairs int64 (E,), of which the first `length[0]` wait; places int64 (E,) of each pair among them, -1 = none; odds
    float64 (E,) of each pair: after a change, `_place` puts it where it belongs.
    """

    pairs: Array
    places: Array
    length: Array
    odds: Array


@njit(inline="always")
def _place(heap, e, waits):
    """Lets a pair wait at the place that its log-odds give it, or takes it out."""
    pairs, places, length, odds = heap
    place = places[e]
    if waits:
        if place < 0:
            place = length[0]
            length[0] += 1
        _sift(pairs, places, length[0], odds, e, place)
    elif place >= 0:
        length[0] -= 1
        last = pairs[length[0]]
        places[e] = -1
        if last != e:
            _sift(pairs, places, length[0], odds, last, place)


@njit(inline="always")
def _sift(pairs, places, length, odds, e, place):
    """Puts pair e into the heap, of which `place` is free."""
    while place > 0:
        above = (place - 1) >> 1
        if not _is_surer(odds, e, pairs[above]):
            break
        pairs[place] = pairs[above]
        places[pairs[place]] = place
        place = above
    while True:
        below = 2 * place + 1
        if below >= length:
            break
        if below + 1 < length and _is_surer(odds, pairs[below + 1], pairs[below]):
            below += 1
        if not _is_surer(odds, pairs[below], e):
            break
        pairs[place] = pairs[below]
        places[pairs[place]] = place
        place = below
    pairs[place], places[e] = e, place


@njit(inline="always")
def _is_surer(odds, e, other):
    return odds[e] > odds[other] or (odds[e] == odds[other] and e < other)


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


@njit(inline="always")
def _may_join(fragments, odds, size_a, size_b, touching_pairs):
    is_fragment = touching_pairs > 0 and min(size_a, size_b) < FRAGMENT_POINTS
    return odds > ONE_THING or (fragments and is_fragment and odds > FRAGMENT_LIMIT)


@njit(cache=True, nogil=True)
def _linked(first, second, region_count):
    """The pairs of each region as linked lists: link 2 e is pair e in the list of its first region, 2 e + 1 of its
    second; -1 ends a list."""
    heads = np.full(region_count, -1, np.int64)
    links = np.empty(2 * len(first), np.int64)
    for e in range(len(first)):
        links[2 * e], heads[first[e]] = heads[first[e]], 2 * e
        links[2 * e + 1], heads[second[e]] = heads[second[e]], 2 * e + 1
    return heads, links


@njit(cache=True, nogil=True)
def _move_pairs(i, j, first, second, contact, heads, links, gone, pair_to, heap):
    """What j had pairs with, i has now; two pairs with one region become one. `pair_to` is -1 between calls."""
    before, link = np.int64(-1), heads[i]
    while link >= 0:
        e, following = link >> 1, links[link]
        if gone[e]:
            if before < 0:
                heads[i] = following
            else:
                links[before] = following
        else:
            pair_to[second[e] if first[e] == i else first[e]] = e
            before = link
        link = following
    link = heads[j]
    while link >= 0:
        e, following = link >> 1, links[link]
        if not gone[e]:
            other = second[e] if first[e] == j else first[e]
            if pair_to[other] >= 0:
                contact[pair_to[other]] += contact[e]
                gone[e] = True
                _place(heap, e, False)
            else:
                if first[e] == j:
                    first[e] = i
                else:
                    second[e] = i
                links[link], heads[i] = heads[i], link
                pair_to[other] = e
        link = following
    link = heads[i]
    while link >= 0:
        e = link >> 1
        pair_to[second[e] if first[e] == i else first[e]] = -1
        link = links[link]


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
    out = np.empty(length, values.dtype)
    out[:used] = values[:used]
    return out
