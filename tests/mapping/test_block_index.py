# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""The index of blocks beside a dictionary: insert, look up, squeeze, trim and grow, as a map does over its life."""

from __future__ import annotations

import numpy as np
import pytest

from seg3d_core.mapping.block_index import (
    BLOCK_SIDE,
    VOXEL_LIMIT,
    BlockIndex,
    add_row,
    find_or_add_block,
    remove_row,
    slot_of,
)


def scattered(seed: int, count: int, reach: int) -> np.ndarray:
    """Distinct voxels int32 (n, 3) on both sides of zero, in no order."""
    random = np.random.default_rng(seed)
    return random.permutation(np.unique(random.integers(-reach, reach, (count, 3)), axis=0)).astype(np.int32)


def rows_of_block(index: BlockIndex, block: int) -> set[int]:
    """Along the chain; a chain that bites its tail fails."""
    found, row = [], int(index.blocks.first[block])
    while row >= 0:
        found.append(row)
        assert len(found) <= index.blocks.points[block]
        row = int(index.blocks.following[row])
    assert len(found) == len(set(found)) == index.blocks.points[block]
    return set(found)


def check(index: BlockIndex, expected: dict[tuple[int, ...], int], rows: int) -> None:
    """That the index holds the rows of `expected`, by voxel, and no others."""
    blocks: dict[tuple[int, ...], set[int]] = {}
    for voxel, row in expected.items():
        blocks.setdefault(tuple(c // BLOCK_SIDE for c in voxel), set()).add(row)
    assert index.used == len(blocks)
    for place, members in blocks.items():
        block = find_or_add_block(index.blocks, -1, *place)
        assert tuple(index.blocks.coordinates[block]) == place
        assert rows_of_block(index, block) == members
    for voxel, row in expected.items():
        block = find_or_add_block(index.blocks, -1, *(c // BLOCK_SIDE for c in voxel))
        assert index.blocks.slots[block, slot_of(*voxel)] == row
    wanted = np.zeros((rows, 3), np.int32)
    for voxel, row in expected.items():
        wanted[row] = voxel
    np.testing.assert_array_equal(index.voxels(rows), wanted)


@pytest.mark.parametrize(("count", "reach"), [(1, 5), (300, 12), (3000, 400)])
def test_rows_are_where_they_were_inserted(count: int, reach: int) -> None:
    """The last case has thousands of blocks: the table grows, and places in it are taken by others."""
    voxels = scattered(0, count, reach)
    alive = np.random.default_rng(1).random(len(voxels)) < 0.8
    alive[0] = True
    index = BlockIndex()
    assert index.insert(voxels, alive) == -1
    check(index, {tuple(map(int, v)): row for row, v in enumerate(voxels) if alive[row]}, len(voxels))
    assert find_or_add_block(index.blocks, -1, reach, reach, reach) == -1, "a block that is not there"


@pytest.mark.parametrize("keeps_first", [True, False])
def test_rows_move_up_when_others_go(keeps_first: bool) -> None:
    voxels = scattered(2, 2000, 60)
    index = BlockIndex()
    index.insert(voxels, np.ones(len(voxels), bool))
    stays = np.random.default_rng(3).random(len(voxels)) < 0.5
    stays[:500] = False
    stays[0] = keeps_first
    for row in np.flatnonzero(~stays).tolist():
        block = find_or_add_block(index.blocks, -1, *(int(c) // BLOCK_SIDE for c in voxels[row]))
        remove_row(index.blocks, block, row)
    new_rows = np.where(stays, np.cumsum(stays) - 1, -1)
    index.squeeze(len(voxels), new_rows)
    expected = {tuple(map(int, v)): int(new_rows[row]) for row, v in enumerate(voxels) if stays[row]}
    check(index, expected, int(stays.sum()))
    before = index.memory_bytes
    index.trim_blocks()
    check(index, expected, int(stays.sum()))
    assert index.memory_bytes < before
    # A second life: what was squeezed and trimmed takes new rows.
    index.reserve_blocks(5000)
    check(index, expected, int(stays.sum()))


def test_a_row_that_came_back_late_keeps_who_follows_it() -> None:
    """Rows that were free are used again: row 0 then heads a chain."""
    voxels = np.array([[1, 0, 0], [2, 0, 0], [3, 0, 0], [4, 0, 0]], np.int32)
    index = BlockIndex()
    index.insert(voxels, np.array([False, True, True, True]))
    index.blocks.slots[0, slot_of(1, 0, 0)] = 0
    add_row(index.blocks, 0, 0)
    remove_row(index.blocks, 0, 1)
    index.squeeze(4, np.array([0, -1, 1, 2]))
    check(index, {(1, 0, 0): 0, (3, 0, 0): 1, (4, 0, 0): 2}, 3)


def test_a_voxel_that_is_taken_is_named() -> None:
    voxels = np.array([[0, 0, 0], [1, 0, 0], [0, 0, 0]], np.int32)
    assert BlockIndex().insert(voxels, np.ones(3, bool)) == 2
    assert BlockIndex().insert(voxels, np.array([True, True, False])) == -1
    assert BlockIndex(with_slots=False).insert(voxels, np.ones(3, bool)) == -1


def test_the_farthest_voxels_have_blocks_of_their_own() -> None:
    ends = (-VOXEL_LIMIT, -1, 0, VOXEL_LIMIT - 1)
    voxels = np.array([(x, y, z) for x in ends for y in ends for z in ends], np.int32)
    index = BlockIndex(room=1)
    assert index.insert(voxels, np.ones(len(voxels), bool)) == -1
    check(index, {tuple(map(int, v)): row for row, v in enumerate(voxels)}, len(voxels))
    assert index.used == len(ends) ** 3
