# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""A table of neighbours that follows a cloud against the same positions searched anew."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seg3d_core.errors import Seg3DError
from seg3d_core.mapping.nearest_table import NearestTable
from seg3d_core.mapping.neighbours import nearest_neighbours

SPACING = 0.06
NOBODY = np.empty(0, bool)


def started(xyz: np.ndarray) -> NearestTable:
    low = xyz.min(axis=0) if len(xyz) else np.zeros(3)
    return NearestTable.empty(low, SPACING).updated(xyz, NOBODY, NOBODY)


def rows_of(table: NearestTable) -> list[list[int]]:
    return [its.tolist() for its in np.split(table.graph.indices, table.graph.indptr[1:-1])]


def searched_anew(table: NearestTable, alive: np.ndarray) -> list[list[int]]:
    places = np.flatnonzero(alive)
    graph = nearest_neighbours(table.xyz[places], SPACING)
    rows: list[list[int]] = [[] for _ in range(len(table))]
    for place, its in zip(places, np.split(graph.indices, graph.indptr[1:-1]), strict=True):
        rows[place] = places[its].tolist()
    return rows


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.booleans())
def test_what_comes_moves_and_goes_gives_the_graph_of_a_new_search(seed: int, on_a_grid: bool) -> None:
    """On a grid distances tie, and several points share a place."""
    rng = np.random.default_rng(seed)

    def points(count: int) -> np.ndarray:
        xyz = rng.random((count, 3)) * (1, 1, 0.1)
        return (np.rint(xyz * 30) / 30 if on_a_grid else xyz).astype(np.float32)

    table = started(points(rng.integers(1, 150)))
    alive = np.ones(len(table), bool)
    for _ in range(4):
        moved, gone, new = rng.random(len(table)) < 0.1, rng.random(len(table)) < 0.1, points(rng.integers(0, 40))
        xyz = np.concatenate([np.where(moved[:, None], points(len(table)), table.xyz + 0.001), new])
        before = table.xyz[~moved & ~gone]
        table = table.updated(xyz, moved, gone)
        assert (table.xyz[: len(moved)][~moved & ~gone] == before).all()
        alive = np.concatenate([alive & ~gone, np.ones(len(new), bool)])
        assert rows_of(table) == searched_anew(table, alive)
        if rng.random() < 0.5:
            table, alive = table.without(alive), alive[alive]
            assert rows_of(table) == searched_anew(table, alive)


def test_a_table_is_never_written_to() -> None:
    xyz = np.random.default_rng(0).random((200, 3)).astype(np.float32)
    table = started(xyz)
    before = [array.copy() for array in (table.xyz, table.nearest, table.graph.indptr, table.graph.indices)]
    table.updated(xyz[::-1], np.arange(200) % 2 == 0, np.arange(200) % 5 == 0)
    after = (table.xyz, table.nearest, table.graph.indptr, table.graph.indices)
    assert all((a == b).all() for a, b in zip(before, after, strict=True))


def test_a_point_too_far_off_is_refused() -> None:
    table = started(np.zeros((2, 3), np.float32))
    far = np.array([[0, 0, 0], [0, 0, 0], [1e6, 0, 0]], np.float32)
    with pytest.raises(Seg3DError, match="too wide"):
        table.updated(far, np.zeros(2, bool), np.zeros(2, bool))
