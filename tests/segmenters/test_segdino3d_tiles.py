# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Maps larger than the network takes: how they are cut, and that what tiles found is what the whole would have been."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seg3d_core.models.predictions import Predictions
from seg3d_core.segmenters.segdino3d.tiles import TileBudget, cut, distinct, merge, select


def predictions(members, labels=None, scores=None, boxes=None) -> Predictions:
    """From one list of rows per instance."""
    count = len(members)
    return Predictions(
        np.asarray(labels if labels is not None else np.zeros(count), np.int64),
        np.asarray(scores if scores is not None else np.linspace(0.9, 0.5, count), np.float32),
        np.zeros((count, 6), np.float32) if boxes is None else np.asarray(boxes, np.float32),
        np.append(0, np.cumsum([len(m) for m in members])).astype(np.int64),
        np.concatenate([np.empty(0, np.int64), *(np.asarray(m, np.int64) for m in members)]),
    )


def members(found: Predictions) -> list[list[int]]:
    return [found.points[a:b].tolist() for a, b in zip(found.indptr[:-1], found.indptr[1:], strict=True)]


@pytest.fixture(scope="module")
def hall() -> np.ndarray:
    """A floor of 12 x 4 m, a point every 5 cm."""
    x, y = np.meshgrid(np.arange(0, 12, 0.05), np.arange(0, 4, 0.05), indexing="ij")
    return np.stack([x.ravel(), y.ravel(), np.zeros(x.size)], axis=1).astype(np.float32)


def test_what_the_budget_holds_is_one_tile(hall) -> None:
    (rows,) = cut(hall, TileBudget(len(hall), len(hall), 1.0))
    assert (rows == np.arange(len(hall))).all()
    assert cut(hall[:0], TileBudget(10, 10, 1.0)) == []


@pytest.mark.parametrize(("points", "voxels"), [(8000, 10**6), (10**6, 8000)])
def test_tiles_hold_the_budget_and_all_points_and_overlap(hall, points, voxels) -> None:
    tiles = cut(hall, TileBudget(points, voxels, 0.5))
    assert len(tiles) > 2
    assert all(len(rows) <= 8000 and (np.diff(rows) > 0).all() for rows in tiles)
    assert (np.unique(np.concatenate(tiles)) == np.arange(len(hall))).all()
    # Along the hall, every point is within some tile that reaches half a metre further on either side, or the end.
    for x in np.arange(0.5, 11.5, 0.25):
        near = np.flatnonzero(np.abs(hall[:, 0] - x) < 0.49)
        assert any(np.isin(near, rows).all() for rows in tiles), x


def test_voxels_are_counted_not_points() -> None:
    dense = np.repeat(np.random.default_rng(0).random((50, 3)).astype(np.float32) * 9, 40, axis=0)
    assert len(cut(dense, TileBudget(10_000, 60, 0.1))) == 1
    assert len(cut(dense, TileBudget(10_000, 30, 0.1))) > 1


def test_what_cannot_be_cut_is_seen_whole_and_said(caplog) -> None:
    cube = np.random.default_rng(0).random((500, 3)).astype(np.float32)
    assert [len(rows) for rows in cut(cube, TileBudget(100, 10**6, 0.6))] == [500]
    assert "more than the budget" in caplog.text
    # Points in one place are no reason to go on for ever.
    assert len(cut(np.zeros((50, 3), np.float32), TileBudget(10, 10, 0.1))) == 1


def test_selecting_keeps_order_and_members() -> None:
    found = select(predictions([[0, 1], [2], [], [1, 4]], labels=[5, 6, 7, 8]), np.array([3, 2, 0]))
    assert members(found) == [[1, 4], [], [0, 1]] and found.labels.tolist() == [8, 7, 5]


def test_of_predictions_that_overlap_the_best_stays_whatever_its_class() -> None:
    found = predictions([[0, 1, 2], [0, 1, 2, 3], [3, 4], [2, 3, 4, 5]], [0, 1, 2, 2], [0.3, 0.9, 0.5, 0.4])
    kept = distinct(found, 0.45)
    assert members(kept) == [[0, 1, 2, 3], [3, 4]] and kept.scores.tolist() == pytest.approx([0.9, 0.5])
    assert len(distinct(found, 0.5)) == 3
    everything = distinct(found, 1.0)
    assert len(everything) == 4 and (np.diff(everything.scores) <= 0).all()
    assert len(distinct(Predictions.empty(), 0.5)) == 0


def test_halves_that_two_tiles_see_become_one_instance() -> None:
    """Points 0..9 in a row; tiles 0..6 and 4..9. A table over 2..8, a chair at 0..1, another class at 5..6 in one."""
    tiles = [np.arange(7), np.arange(4, 10)]
    boxes_one = [[4, 0, 0, 4, 1, 1], [0.5, 0, 0, 1, 1, 1]]
    boxes_two = [[6, 0, 0, 4, 1, 2], [1.5, 0, 0, 1, 1, 1]]
    one = predictions([[2, 3, 4, 5, 6], [0, 1]], [7, 3], [0.5, 0.8], boxes_one)
    two = predictions([[0, 1, 2, 3, 4], [1, 2]], [7, 9], [0.6, 0.4], boxes_two)
    found = distinct(merge([one, two], tiles, 10), 1.0)
    assert members(found) == [[0, 1], [2, 3, 4, 5, 6, 7, 8], [5, 6]]
    assert found.labels.tolist() == [3, 7, 9] and found.scores.tolist() == pytest.approx([0.8, 0.6, 0.4])
    # From 2 to 8 on the first axis, as wide as the wider on the others.
    assert found.boxes[1].tolist() == [5, 0, 0, 6, 1, 2]


def test_predictions_that_share_no_tile_border_stay_apart() -> None:
    tiles = [np.arange(5), np.arange(4, 10)]
    found = merge([predictions([[0, 1, 2]]), predictions([[3, 4]])], tiles, 10)
    assert members(found) == [[0, 1, 2], [7, 8]]
    nothing = merge([Predictions.empty(), Predictions.empty()], tiles, 10)
    assert len(nothing) == 0 and nothing.boxes.shape == (0, 6)


@given(st.integers(0, 2**32 - 1), st.integers(2, 5), st.integers(0, 12))
def test_merging_is_as_a_literal_twin_does_it(seed, tile_count, per_tile) -> None:
    draw = np.random.default_rng(seed)
    tiles = [np.flatnonzero(draw.random(30) < 0.6) for _ in range(tile_count)]
    parts = []
    for rows in tiles:
        chosen = [np.flatnonzero(draw.random(len(rows)) < 0.5) for _ in range(int(draw.integers(0, per_tile + 1)))]
        parts.append(predictions(chosen, draw.integers(0, 2, len(chosen)), draw.random(len(chosen))))
    found = merge(parts, tiles, 30)
    everything = [
        (t, int(part.labels[k]), float(part.scores[k]), set(tiles[t][rows].tolist()))
        for t, part in enumerate(parts)
        for k, rows in enumerate(members(part))
    ]
    groups = [{k} for k in range(len(everything))]
    for a, (ta, la, _, pa) in enumerate(everything):
        for b, (tb, lb, _, pb) in enumerate(everything):
            shared = set(tiles[ta].tolist()) & set(tiles[tb].tolist())
            either = (pa | pb) & shared
            if ta != tb and la == lb and len(pa & pb) > 0.5 * len(either):
                ga, gb = (next(g for g in groups if k in g) for k in (a, b))
                if ga is not gb:
                    ga |= gb
                    groups.remove(gb)
    expected = sorted(
        (round(max(everything[k][2] for k in g), 6), sorted(set().union(*(everything[k][3] for k in g))))
        for g in groups
    )
    assert sorted((round(float(s), 6), m) for s, m in zip(found.scores, members(found), strict=True)) == [
        (pytest.approx(s, abs=1e-5), m) for s, m in expected
    ]
