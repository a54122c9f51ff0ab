"""Joining regions, the surest pair first, with all evidence counted anew for what they become."""

# numba infers the types of kernels.
# mypy: allow-untyped-defs

from __future__ import annotations

import heapq

import numpy as np
from numba import njit

from ...types import Array
from .evidence import Weights, mask_evidence, write_features
from .mask_table import MaskTable
from .regions import Regions

# Log-odds above which two regions are one thing.
ONE_THING = 0.0
# A fragment of fewer points that nobody would report joins what it touches while the log-odds are above this.
FRAGMENT_POINTS = 100
FRAGMENT_LIMIT = -3.0


def candidates(regions: Regions, more: tuple[Array, Array]) -> tuple[Array, Array, Array]:
    """All pairs that may join: first and second int32 (E,), and their contact float64 (E, 4).

    `more` are pairs of regions, int64 (P,) twice, that need not touch.
    """
    touching = regions.first.astype(np.int64) * len(regions) + regions.second
    apart = ~np.isin(more[0] * len(regions) + more[1], touching)
    first = np.concatenate([regions.first, more[0][apart]]).astype(np.int32)
    second = np.concatenate([regions.second, more[1][apart]]).astype(np.int32)
    contact = np.concatenate([regions.contact, np.zeros((int(apart.sum()), 4))])
    return first, second, contact


def joined(regions: Regions, table: MaskTable, more: tuple[Array, Array], weights: Weights) -> Array:
    """The thing that each of S regions belongs to, int32 (S,): the number of its first region.

    `more` are pairs of regions, int64 (P,) twice, that may join although they do not touch.
    """
    first, second, contact = candidates(regions, more)
    of_region = _join(
        first,
        second,
        contact,
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
    """One region's number for each, after all joins. Writes into all arguments but the table's and the weights.

    Pairs wait in a heap by log-odds, then by their number. What was pushed before its pair changed is told by its
    version. In the second round only fragments join.
    """
    pair_count, region_count = len(first), len(sizes)
    columns, counts = table_columns.copy(), table_counts.copy()
    top = len(columns)
    heads, links = _linked(first, second, region_count)
    gone = np.zeros(pair_count, np.bool_)
    version = np.zeros(pair_count, np.int64)
    odds = np.empty(pair_count)
    features = np.empty(17)
    heap = [(0.0, np.int64(0), np.int64(0))]
    heap.pop()
    for e in range(pair_count):
        a, b = first[e], second[e]
        evidence = mask_evidence(
            columns, counts, starts[a], ends[a], sizes[a], starts[b], ends[b], sizes[b], pictures, mask_sizes
        )
        write_features(features, a, b, evidence, contact[e], sizes, sums, low, high)
        odds[e] = constant + (weights * features).sum()
        if odds[e] > ONE_THING:
            heapq.heappush(heap, (-odds[e], np.int64(e), np.int64(0)))
    owner = np.arange(region_count)
    pair_to = np.full(region_count, -1, np.int64)
    for fragments in (False, True):
        if fragments:
            for e in range(pair_count):
                if not gone[e] and _absorbs(odds[e], sizes[first[e]], sizes[second[e]], contact[e, 0]):
                    heapq.heappush(heap, (-odds[e], np.int64(e), version[e]))
        while len(heap) > 0:
            surest = heapq.heappop(heap)
            joining = surest[1]
            if gone[joining] or version[joining] != surest[2]:
                continue
            i, j = first[joining], second[joining]
            if (
                fragments
                and odds[joining] <= ONE_THING
                and not _absorbs(odds[joining], sizes[i], sizes[j], contact[joining, 0])
            ):
                continue
            if sizes[j] > sizes[i]:
                i, j = j, i
            need = top + ends[i] - starts[i] + ends[j] - starts[j]
            if need > len(columns):
                columns, counts = _longer(columns, top, 2 * need), _longer(counts, top, 2 * need)
            ended = _merge_entries(columns, counts, starts[i], ends[i], starts[j], ends[j], top)
            starts[i], ends[i], top = top, ended, ended
            sizes[i] += sizes[j]
            sums[i] += sums[j]
            for k in range(3):
                low[i, k], high[i, k] = min(low[i, k], low[j, k]), max(high[i, k], high[j, k])
            owner[j] = i
            gone[joining] = True
            _move_pairs(i, j, first, second, contact, heads, links, gone, pair_to)
            link = heads[i]
            while link >= 0:
                e = link >> 1
                link = links[link]
                if gone[e]:
                    continue
                a, b = first[e], second[e]
                evidence = mask_evidence(
                    columns, counts, starts[a], ends[a], sizes[a], starts[b], ends[b], sizes[b], pictures, mask_sizes
                )
                write_features(features, a, b, evidence, contact[e], sizes, sums, low, high)
                odds[e] = constant + (weights * features).sum()
                version[e] += 1
                if odds[e] > ONE_THING or (fragments and _absorbs(odds[e], sizes[a], sizes[b], contact[e, 0])):
                    heapq.heappush(heap, (-odds[e], np.int64(e), version[e]))
    for s in range(region_count):
        while owner[owner[s]] != owner[s]:
            owner[s] = owner[owner[s]]
    return owner


@njit(cache=True, nogil=True)
def _absorbs(odds, size_a, size_b, touching_pairs):
    return odds > FRAGMENT_LIMIT and touching_pairs > 0 and min(size_a, size_b) < FRAGMENT_POINTS


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
def _move_pairs(i, j, first, second, contact, heads, links, gone, pair_to):
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
