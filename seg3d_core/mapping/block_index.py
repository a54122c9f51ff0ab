# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Which points lie where: blocks of 8 x 8 x 8 voxels in a hash table, and the rows of each block in a chain.

A block has a packed int64 key (three signed block coordinates of 21 bits), a table of 512 voxel slots that
hold the row of the voxel's point or -1, and a linked list of its rows, which also serves clouds that hold
more than one point per voxel.
"""

# numba infers the types of kernels.
# mypy: allow-untyped-defs

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from ..types import Array

BLOCK_SIDE = 8
BLOCK_SLOTS = BLOCK_SIDE**3
# Block coordinates from -2**20 to 2**20 - 1 fit the key; so do voxels eight times as far.
VOXEL_LIMIT = BLOCK_SIDE * (1 << 20)
_OFFSET = 1 << 20
_EMPTY = -1
# Blocks that an empty index has room for.
MIN_BLOCKS = 256


class Blocks(NamedTuple):
    """The arrays of an index, as kernels take them. B blocks, R rows.

    keys int64 and numbers int32 (2**k,): the hash table, open addressing; coordinates int32 (B, 3) of each
    block; first int32 (B,): head of its chain, -1 = none; points int32 (B,): how many; slots int32
    (B, 512), or (0, 512) where voxels are not looked up; following int32 (R,): next row of the chain.
    """

    keys: Array
    numbers: Array
    coordinates: Array
    first: Array
    points: Array
    slots: Array
    following: Array


@njit(cache=True, nogil=True)
def find_or_add_block(blocks, count, bx, by, bz):
    """The number of block (bx, by, bz), which is `count` if it had to be added. Arrays must have room.

    With `count` -1 nothing is added, and -1 says that the block is not there.
    """
    key = (np.int64(bx + _OFFSET) << 42) | (np.int64(by + _OFFSET) << 21) | np.int64(bz + _OFFSET)
    mask = np.uint64(len(blocks.keys) - 1)
    # Fibonacci hashing: the high half of the product is well mixed.
    place = (np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32) & mask
    while True:
        found = blocks.keys[place]
        if found == key:
            return blocks.numbers[place]
        if found == _EMPTY:
            break
        place = (place + np.uint64(1)) & mask
    if count < 0:
        return -1
    blocks.keys[place] = key
    blocks.numbers[place] = count
    blocks.coordinates[count, 0] = bx
    blocks.coordinates[count, 1] = by
    blocks.coordinates[count, 2] = bz
    blocks.first[count] = -1
    blocks.points[count] = 0
    if len(blocks.slots) > 0:
        blocks.slots[count, :] = -1
    return count


@njit(cache=True, nogil=True)
def slot_of(x, y, z):
    """The slot of voxel (x, y, z) in its block; right for negative coordinates too."""
    return ((x & 7) << 6) | ((y & 7) << 3) | (z & 7)


@njit(cache=True, nogil=True)
def add_row(blocks, block, row):
    """Puts a row at the head of the block's chain."""
    blocks.following[row] = blocks.first[block]
    blocks.first[block] = row
    blocks.points[block] += 1


@njit(cache=True, nogil=True)
def remove_row(blocks, block, row):
    """Takes a row out of the block's chain and frees its slot."""
    if blocks.first[block] == row:
        blocks.first[block] = blocks.following[row]
    else:
        before = blocks.first[block]
        while blocks.following[before] != row:
            before = blocks.following[before]
        blocks.following[before] = blocks.following[row]
    blocks.points[block] -= 1
    if len(blocks.slots) > 0:
        for slot in range(BLOCK_SLOTS):
            if blocks.slots[block, slot] == row:
                blocks.slots[block, slot] = -1
                break


@njit(cache=True, nogil=True)
def _insert_rows(blocks, count, voxels, alive, start):
    """Inserts rows from `start` until blocks run short: (row reached, blocks, row that shares a voxel or -1)."""
    for row in range(start, len(voxels)):
        if not alive[row]:
            continue
        if count == len(blocks.first) or 2 * (count + 1) > len(blocks.keys):
            return row, count, -1
        x, y, z = voxels[row, 0], voxels[row, 1], voxels[row, 2]
        block = find_or_add_block(blocks, count, x >> 3, y >> 3, z >> 3)
        count = max(count, block + 1)
        if len(blocks.slots) > 0:
            slot = slot_of(x, y, z)
            if blocks.slots[block, slot] != -1:
                return row, count, row
            blocks.slots[block, slot] = row
        add_row(blocks, block, row)
    return len(voxels), count, -1


@njit(cache=True, nogil=True)
def _collect_voxels(blocks, count, voxels):
    for block in range(count):
        for slot in range(BLOCK_SLOTS):
            row = blocks.slots[block, slot]
            if row >= 0:
                voxels[row, 0] = blocks.coordinates[block, 0] * BLOCK_SIDE + (slot >> 6)
                voxels[row, 1] = blocks.coordinates[block, 1] * BLOCK_SIDE + ((slot >> 3) & 7)
                voxels[row, 2] = blocks.coordinates[block, 2] * BLOCK_SIDE + (slot & 7)


def grown(array: Array, length: int, fill: int | None = None) -> Array:
    """A copy of `array` with `length` rows, the new ones set to `fill` or left as they come."""
    shape = (length, *array.shape[1:])
    out = np.empty(shape, array.dtype) if fill is None else np.full(shape, fill, array.dtype)
    out[: len(array)] = array
    return out


def _table_size(room: int) -> int:
    """Slots of a hash table that stays at most half full: a power of two, 4 to 8 times the room."""
    return 1 << int(4 * room - 1).bit_length()


class BlockIndex:
    """Owns the arrays of `Blocks` and lets them grow by doubling. `with_slots` False: no voxel look-up.

    `room`: blocks that there is room for at first.
    """

    def __init__(self, with_slots: bool = True, room: int = MIN_BLOCKS) -> None:
        self.count = 0
        keys = _table_size(room)
        self.blocks = Blocks(
            np.full(keys, _EMPTY, np.int64),
            np.zeros(keys, np.int32),
            np.empty((room, 3), np.int32),
            np.empty(room, np.int32),
            np.empty(room, np.int32),
            np.empty((room if with_slots else 0, BLOCK_SLOTS), np.int32),
            np.empty(0, np.int32),
        )

    def reserve_rows(self, rows: int) -> None:
        """Makes the chain as long as the caller's row arrays."""
        if rows > len(self.blocks.following):
            self.blocks = self.blocks._replace(following=grown(self.blocks.following, rows))

    @property
    def room(self) -> int:
        """Blocks that there is room for."""
        return len(self.blocks.first)

    @property
    def used(self) -> int:
        """Blocks that hold points."""
        return int(np.count_nonzero(self.blocks.points[: self.count]))

    def reserve_blocks(self, more: int, most: int | None = None) -> None:
        """Makes room for `more` blocks on top of those in use, and for `most` at most where that is given."""
        b = self.blocks
        wanted = self.count + more
        if wanted > len(b.first):
            room = max(wanted, 2 * len(b.first) if most is None else min(2 * len(b.first), most))
            b = b._replace(
                coordinates=grown(b.coordinates, room),
                first=grown(b.first, room),
                points=grown(b.points, room),
                slots=grown(b.slots, room) if len(b.slots) else b.slots,
            )
        if 2 * len(b.first) > len(b.keys):
            size = _table_size(len(b.first))
            b = b._replace(keys=np.full(size, _EMPTY, np.int64), numbers=np.zeros(size, np.int32))
            _rehash(b, self.count)
        self.blocks = b

    def insert(self, voxels: Array, alive: Array) -> int:
        """Inserts rows 0..N-1 by their voxels int32 (N, 3) where `alive` bool (N,).

        Returns -1, or the first row whose voxel was taken already (never without slots).
        """
        self.reserve_rows(len(voxels))
        reached, clash = 0, -1
        while reached < len(voxels) and clash < 0:
            self.reserve_blocks(256)
            reached, self.count, clash = _insert_rows(self.blocks, self.count, voxels, alive, reached)
        return int(clash)

    def voxels(self, rows: int) -> Array:
        """Voxel coordinates int32 (rows, 3) of each row; 0 for rows that are in no slot."""
        out = np.zeros((rows, 3), np.int32)
        _collect_voxels(self.blocks, self.count, out)
        return out

    def squeeze(self, rows: int, new_rows: Array) -> None:
        """Row r is now `new_rows[r]`, int64 (rows,), below 0 where it is in no chain; blocks without points go.

        In place: needs no memory.
        """
        self.count = int(_squeeze(self.blocks, self.count, rows, new_rows))
        self.blocks.keys.fill(_EMPTY)
        _rehash(self.blocks, self.count)

    def trim_blocks(self) -> None:
        """Gives back the room that the blocks in use do not need. MemoryError leaves all as it is."""
        b, room = self.blocks, max(self.count + 1, MIN_BLOCKS)
        size = _table_size(room)
        self.blocks = Blocks(
            np.full(size, _EMPTY, np.int64),
            np.zeros(size, np.int32),
            b.coordinates[:room].copy(),
            b.first[:room].copy(),
            b.points[:room].copy(),
            b.slots[:room].copy(),
            b.following,
        )
        _rehash(self.blocks, self.count)

    @property
    def memory_bytes(self) -> int:
        return sum(array.nbytes for array in self.blocks)


@njit(cache=True, nogil=True)
def _squeeze(blocks, count, rows, new_rows):
    for row in range(rows):
        if new_rows[row] >= 0:
            after = blocks.following[row]
            blocks.following[new_rows[row]] = new_rows[after] if after >= 0 else -1
    kept = 0
    for block in range(count):
        if blocks.points[block] == 0:
            continue
        blocks.coordinates[kept, :] = blocks.coordinates[block, :]
        blocks.first[kept] = new_rows[blocks.first[block]]
        blocks.points[kept] = blocks.points[block]
        for slot in range(len(blocks.slots[block])):
            row = blocks.slots[block, slot]
            blocks.slots[kept, slot] = new_rows[row] if row >= 0 else -1
        kept += 1
    return kept


@njit(cache=True, nogil=True)
def _rehash(blocks, count):
    mask = np.uint64(len(blocks.keys) - 1)
    for block in range(count):
        c = blocks.coordinates[block]
        key = (np.int64(c[0] + _OFFSET) << 42) | (np.int64(c[1] + _OFFSET) << 21) | np.int64(c[2] + _OFFSET)
        place = (np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32) & mask
        while blocks.keys[place] != _EMPTY:
            place = (place + np.uint64(1)) & mask
        blocks.keys[place] = key
        blocks.numbers[place] = block
