# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Maps that are larger than a network takes at once: tiles that overlap, and what they found made one.

A trained network sees rooms, not houses, so that tiles of a room's size are no less than what it knows.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components

from ...models.predictions import Predictions
from ...types import Array

log = logging.getLogger(__name__)

VOXEL = 0.02
"""Metres: of the network's, whatever the map's are."""
AGREEMENT = 0.5
"""Predictions of two tiles are one instance where they overlap by more (IoU) over the points that both tiles hold."""
# A cut leaves at least this share of a side on either hand, so that tiles do not become slices.
_LEAST_PART = 0.25


@dataclass(frozen=True)
class TileBudget:
    """What the network may see at once, and how far (m) a tile reaches beyond its border."""

    points: int
    voxels: int
    overlap: float


def cut(xyz: Array, budget: TileBudget) -> list[Array]:
    """The rows int64 of each tile, ascending; together they hold all points of xyz (N, 3), those near borders twice.

    Along its longest side a tile is cut at the median until it holds the budget with its overlap. One whose sides are
    no longer than twice the overlap is not cut any more: it is seen whole, and a warning says so.
    """
    if not len(xyz):
        return []
    is_first = _first_of_voxel(xyz)
    tiles: list[Array] = []
    waiting = [(np.arange(len(xyz)), xyz.min(axis=0).astype(float), xyz.max(axis=0).astype(float))]
    while waiting:
        rows, low, high = waiting.pop()
        if len(rows) <= budget.points and int(is_first[rows].sum()) <= budget.voxels:
            tiles.append(rows)
            continue
        sides = high - low
        axis = int(sides.argmax())
        if sides[axis] <= 2 * budget.overlap:
            log.warning("a tile of %.1f m has %d points: more than the budget of a tile", sides[axis], len(rows))
            tiles.append(rows)
            continue
        along = xyz[rows, axis]
        core = along[(along >= low[axis]) & (along <= high[axis])]
        middle = float(np.median(core)) if len(core) else (low[axis] + high[axis]) / 2
        border = np.clip(middle, low[axis] + _LEAST_PART * sides[axis], high[axis] - _LEAST_PART * sides[axis])
        below, above = high.copy(), low.copy()
        below[axis] = above[axis] = border
        waiting.append((rows[along >= border - budget.overlap], above, high))
        waiting.append((rows[along <= border + budget.overlap], low, below))
    return [rows for rows in tiles if len(rows)]


def _first_of_voxel(xyz: Array) -> Array:
    """Whether each point is the first one of its voxel, bool (N,)."""
    cells = np.floor((xyz - xyz.min(axis=0)).astype(np.float64) / VOXEL).astype(np.int64)
    extent = cells.max(axis=0) + 1
    keys = (cells[:, 0] * extent[1] + cells[:, 1]) * extent[2] + cells[:, 2]
    out = np.zeros(len(xyz), bool)
    out[np.unique(keys, return_index=True)[1]] = True
    return out


def select(found: Predictions, rows: Array) -> Predictions:
    """The instances of these rows, in their order."""
    members = _membership(found, int(found.points.max(initial=-1)) + 1)[rows]
    return Predictions(
        found.labels[rows],
        found.scores[rows],
        found.boxes[rows],
        members.indptr.astype(np.int64),
        members.indices.astype(np.int64),
    )


def distinct(found: Predictions, overlap: float) -> Predictions:
    """Best first, without those whose points overlap those of a better one by more than `overlap` (IoU)."""
    order = np.argsort(-found.scores, kind="stable")
    found = select(found, order)
    if overlap >= 1 or len(found) < 2:
        return found
    members = _membership(found, int(found.points.max(initial=-1)) + 1)
    common = (members @ members.T).toarray()
    union = found.sizes[:, None] + found.sizes[None] - common
    same = common > overlap * union
    kept: list[int] = []
    for k in range(len(found)):
        if not same[k, kept].any():
            kept.append(k)
    return select(found, np.array(kept))


def merge(parts: Sequence[Predictions], tiles: Sequence[Array], count: int) -> Predictions:
    """What tiles found, in rows of the tile each, as predictions of the whole cloud of `count` points.

    Instances of one class in two tiles are one where they agree on the points that both tiles hold (`AGREEMENT`): it
    has the points of both, the higher score and the box about both.
    """
    if len(parts) == 1:
        return parts[0]
    all_rows = np.concatenate([rows[part.points] for part, rows in zip(parts, tiles, strict=True)])
    sizes = np.concatenate([part.sizes for part in parts])
    found = Predictions(
        np.concatenate([part.labels for part in parts]),
        np.concatenate([part.scores for part in parts]),
        np.concatenate([part.boxes for part in parts]),
        np.append(0, np.cumsum(sizes)),
        all_rows,
    )
    tile = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    members = _membership(found, count)
    group = _groups(members, found.labels, tile, tiles)
    return _united(found, members, group)


def _groups(members: csr_matrix, labels: Array, tile: Array, tiles: Sequence[Array]) -> Array:
    """The group int (n,) of each prediction, numbered from 0."""
    holds = csr_matrix(
        (
            np.ones(sum(map(len, tiles)), np.int32),
            np.concatenate(tiles),
            np.append(0, np.cumsum([len(rows) for rows in tiles])),
        ),
        (len(tiles), members.shape[1]),
    )
    common = (members @ members.T).tocoo()
    # Points of prediction k that tile t holds.
    held = (members @ holds.T).toarray()
    a, b = common.row, common.col
    union = held[a, tile[b]] + held[b, tile[a]] - common.data
    joined = (tile[a] != tile[b]) & (labels[a] == labels[b]) & (common.data > AGREEMENT * union)
    links = csr_matrix((np.ones(int(joined.sum())), (a[joined], b[joined])), (len(labels), len(labels)))
    return np.asarray(connected_components(links, directed=False)[1])


def _united(found: Predictions, members: csr_matrix, group: Array) -> Predictions:
    count = int(group.max(initial=-1)) + 1
    best = np.zeros(count, np.int64)
    by_score = np.argsort(found.scores, kind="stable")
    best[group[by_score]] = by_score
    owner = csr_matrix((np.ones(len(found), np.int32), (group, np.arange(len(found)))), (count, len(found)))
    points = (owner @ members).tocsr()
    points.sort_indices()
    low = np.full((count, 3), np.inf, np.float32)
    high = np.full((count, 3), -np.inf, np.float32)
    np.minimum.at(low, group, found.boxes[:, :3] - found.boxes[:, 3:] / 2)
    np.maximum.at(high, group, found.boxes[:, :3] + found.boxes[:, 3:] / 2)
    return Predictions(
        found.labels[best],
        found.scores[best],
        np.concatenate([(low + high) / 2, high - low], axis=1),
        points.indptr.astype(np.int64),
        points.indices.astype(np.int64),
    )


def _membership(found: Predictions, count: int) -> csr_matrix:
    """int32 (n, count), 1 where an instance holds a point."""
    return csr_matrix((np.ones(len(found.points), np.int32), found.points, found.indptr), (len(found), count))
