# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""What corrected poses do to the map: every point moves rigidly with the pose that it was made under.

A correction says where the camera really was at some stamps. What lies between two of these moves as both say, the
nearer one more; what lies before the first or after the last moves with it. Points that meet in one voxel become one.
"""

# numba infers the types of kernels.
# mypy: allow-untyped-defs

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from ..geometry import ROTATION_TOLERANCE
from ..types import Array, PoseCorrection
from .block_index import BlockIndex, add_row, find_or_add_block, remove_row, slot_of
from .fusion import TWIN, WEIGHT
from .pose_history import PoseHistory, blended


@dataclass(frozen=True, eq=False)
class Moves:
    """A correction, checked against where the camera was thought to be.

    stamps float64 (k,), ascending, and deltas float64 (k, 4, 4): the rigid moves of the world at these; `until`: what
    was posed later is posed rightly. `unknown` poses were of stamps at which nothing was seen, `improper` ones no
    poses. `translation` and `rotation` are the largest moves of a remembered pose, in m and rad.
    """

    stamps: Array
    deltas: Array
    until: float
    unknown: int
    improper: int
    translation: float = 0.0
    rotation: float = 0.0

    def moved(self, stamps: Array, poses: Array) -> Array:
        """Poses (n, 4, 4) of the stamps (n,) after the correction; NaN = a stamp that is not known, which stays."""
        if not len(self.stamps) or not len(stamps):
            return poses.copy()
        nearest = np.where(np.isfinite(stamps), stamps, self.stamps[0])
        after = np.searchsorted(self.stamps, nearest, "right").clip(0, len(self.stamps) - 1)
        before = np.maximum(np.searchsorted(self.stamps, nearest, "right") - 1, 0)
        gap = self.stamps[after] - self.stamps[before]
        share = np.divide(nearest - self.stamps[before], gap, out=np.zeros(len(stamps)), where=gap > 0)
        new = blended(self.deltas[before] @ poses, self.deltas[after] @ poses, share.clip(0, 1))
        return np.where((np.isfinite(stamps) & (stamps <= self.until))[:, None, None], new, poses)


@dataclass(frozen=True)
class CorrectionOutcome:
    """What became of a correction: `applied`, `waiting` for the next segmentation, or not applied, since it moves too
    little (`small`), speaks of no stamp that was seen (`unknown`), or the map stays where it is (`fixed`).

    `unknown` poses were of stamps at which nothing was seen, `improper` ones no poses; the largest move of a camera in
    m and rad; `moved` points, of which `merged` became part of others; `unanchored` points stayed, for the file that
    they came from tells no poses.
    """

    state: str
    unknown: int = 0
    improper: int = 0
    translation: float = 0.0
    rotation: float = 0.0
    moved: int = 0
    merged: int = 0
    unanchored: int = 0


def plan(history: PoseHistory, correction: PoseCorrection, until: float, reach: float) -> Moves:
    """Checks a correction and says what it moves. Poses further than `reach` metres from the origin are none."""
    stamps = np.asarray(correction.stamps, float).reshape(-1)
    poses = np.asarray(correction.poses, float).reshape(-1, 4, 4)
    proper = _are_poses(poses, reach) & np.isfinite(stamps)
    stamps, poses = stamps[proper], poses[proper]
    before, known = history.at(stamps, until)
    known &= stamps <= until
    # The last of equal stamps: unique of the reversed arrays finds the first.
    knots, last = np.unique(stamps[known][::-1], return_index=True)
    chosen = np.flatnonzero(known)[::-1][last]
    deltas = _exact(poses[chosen]) @ _inverses(before[chosen])
    moves = Moves(knots, deltas, until, int((~known).sum()), int((~proper).sum()))
    old = history.poses[history.up_to(until)]
    new = moves.moved(history.stamps[history.up_to(until)], old)
    return Moves(knots, deltas, until, moves.unknown, moves.improper, *_largest(old, new))


def _are_poses(poses: Array, reach: float) -> Array:
    rotation = poses[:, :3, :3]
    finite = np.asarray(np.isfinite(poses).all(axis=(1, 2)))
    rotation = np.where(finite[:, None, None], rotation, np.eye(3))
    error = np.abs(rotation @ rotation.transpose(0, 2, 1) - np.eye(3)).max(axis=(1, 2), initial=0)
    near = np.abs(np.where(finite[:, None], poses[:, :3, 3], 0)).max(axis=1, initial=0) < reach
    return finite & (error <= ROTATION_TOLERANCE) & (np.linalg.det(rotation) > 0) & near


def _exact(poses: Array) -> Array:
    """The poses (n, 4, 4) with the nearest proper rotations."""
    out = poses.copy()
    u, _, vt = np.linalg.svd(poses[:, :3, :3])
    out[:, :3, :3] = u @ vt
    out[:, 3] = (0, 0, 0, 1)
    return out


def _inverses(poses: Array) -> Array:
    out = np.zeros_like(poses)
    turned = poses[:, :3, :3].transpose(0, 2, 1)
    out[:, :3, :3] = turned
    out[:, :3, 3] = -(turned @ poses[:, :3, 3, None])[..., 0]
    out[:, 3, 3] = 1
    return out


def _largest(old: Array, new: Array) -> tuple[float, float]:
    if not len(old):
        return 0.0, 0.0
    distance = np.linalg.norm(new[:, :3, 3] - old[:, :3, 3], axis=1).max()
    # Of small angles the cosine says little; the chord does.
    chord = np.linalg.norm(new[:, :3, :3] - old[:, :3, :3], axis=(1, 2)).max() / np.sqrt(8)
    return float(distance), float(2 * np.arcsin(min(chord, 1.0)))


def deltas_of(history: PoseHistory, moves: Moves) -> tuple[Array, slice, Array]:
    """How the points of each remembered pose move, float64 (n, 3, 4), which poses do, and where these are then."""
    chosen = history.up_to(moves.until)
    old = history.poses[chosen]
    new = moves.moved(history.stamps[chosen], old)
    deltas = np.tile(np.eye(4)[:3], (len(history), 1, 1))
    deltas[chosen] = (new @ _inverses(old))[:, :3]
    return deltas, chosen, new


@njit(cache=True, nogil=True)
def move_points(points, anchors, deltas):
    """Moves points float32 (n, 10), normals too, by the rigid transform (3, 4) of their anchor; at -1 they stay."""
    for row in range(len(points)):
        if anchors[row] < 0:
            continue
        d, point = deltas[anchors[row]], points[row]
        x, y, z = np.float64(point[0]), np.float64(point[1]), np.float64(point[2])
        a, b, c = np.float64(point[6]), np.float64(point[7]), np.float64(point[8])
        for axis in range(3):
            point[axis] = d[axis, 0] * x + d[axis, 1] * y + d[axis, 2] * z + d[axis, 3]
            point[6 + axis] = d[axis, 0] * a + d[axis, 1] * b + d[axis, 2] * c


@njit(cache=True, nogil=True)
def _has_room(blocks, count):
    return count < len(blocks.first) and 2 * (count + 1) <= len(blocks.keys)


@njit(cache=True, nogil=True)
def _claim_voxels(blocks, count, start, rows, voxels, late, lates):
    """Gives each of the rows from number `start` on its voxel's slot, until blocks run short; rows that find it taken
    go into `late`. (number reached, blocks, late rows)."""
    for i in range(start, len(rows)):
        if not _has_room(blocks, count):
            return i, count, lates
        row = rows[i]
        x, y, z = voxels[row, 0], voxels[row, 1], voxels[row, 2]
        block = find_or_add_block(blocks, count, x >> 3, y >> 3, z >> 3)
        count = max(count, block + 1)
        slot = slot_of(x, y, z)
        if blocks.slots[block, slot] < 0:
            blocks.slots[block, slot] = row
            add_row(blocks, block, row)
        else:
            late[lates] = row
            lates += 1
    return len(rows), count, lates


@njit(cache=True, nogil=True)
def _free_voxel(blocks, point, voxel_size, found):
    """Writes the nearest free voxel of the seven on the point's side of its own into `found` (3,); False if none is."""
    best = np.inf
    for choice in range(1, 8):
        distance = 0.0
        voxel = np.empty(3, np.int32)
        for axis in range(3):
            place = point[axis] / voxel_size
            voxel[axis] = np.int32(np.floor(place))
            if choice >> axis & 1:
                within = place - voxel[axis]
                distance += min(within, 1 - within) ** 2
                voxel[axis] += -1 if within < 0.5 else 1
        if distance >= best:
            continue
        block = find_or_add_block(blocks, -1, voxel[0] >> 3, voxel[1] >> 3, voxel[2] >> 3)
        if block < 0 or blocks.slots[block, slot_of(voxel[0], voxel[1], voxel[2])] < 0:
            best = distance
            found[:] = voxel
    return best < np.inf


@njit(cache=True, nogil=True)
def _merge_into(points, anchors, gone, kept, max_weight):
    """The weighted mean of both; what was seen more often says how the point moves next time."""
    total = points[kept, WEIGHT] + points[gone, WEIGHT]
    share = points[gone, WEIGHT] / total
    for column in range(9):
        points[kept, column] += (points[gone, column] - points[kept, column]) * share
    if share > np.float32(0.5):
        anchors[kept] = anchors[gone]
    points[kept, WEIGHT] = min(total, np.float32(max_weight))
    points[gone, WEIGHT] = 0


@njit(cache=True, nogil=True)
def _apart(before, after, a, b, voxel_size):
    """Whether two points moved otherwise, by half a voxel or more: then they were made in two visits."""
    apart = 0.0
    for axis in range(3):
        apart += (after[a, axis] - before[a, axis] - after[b, axis] + before[b, axis]) ** 2
    return apart >= (0.5 * voxel_size) ** 2


@njit(cache=True, nogil=True)
def _settle_late(
    blocks, count, start, voxel_size, max_weight, before, after, points, anchors, voxels, late, gone, kept, merged
):
    """What becomes of rows whose voxel is taken, from number `start` on until blocks run short.

    A point that moved together with the one that has the slot is its neighbour, which the turned grid caught in one
    voxel: it takes a free slot beside it, and keeps its place. Any other is the same surface seen again: both become
    one under the older id. (number reached, blocks, merged).
    """
    found = np.empty(3, np.int32)
    for i in range(start, len(late)):
        if not _has_room(blocks, count):
            return i, count, merged
        row = late[i]
        x, y, z = voxels[row, 0], voxels[row, 1], voxels[row, 2]
        block, slot = find_or_add_block(blocks, -1, x >> 3, y >> 3, z >> 3), slot_of(x, y, z)
        host = blocks.slots[block, slot]
        together = not _apart(before, after, row, host, voxel_size)
        if together and _free_voxel(blocks, points[row], voxel_size, found):
            block = find_or_add_block(blocks, count, found[0] >> 3, found[1] >> 3, found[2] >> 3)
            count = max(count, block + 1)
            blocks.slots[block, slot_of(found[0], found[1], found[2])] = row
            add_row(blocks, block, row)
            continue
        if row < host:
            # The younger one stayed where it was, and had the slot for that.
            remove_row(blocks, block, host)
            blocks.slots[block, slot] = row
            add_row(blocks, block, row)
            row, host = host, row
        _merge_into(points, anchors, row, host, max_weight)
        gone[merged], kept[merged] = row, host
        merged += 1
    return len(late), count, merged


@njit(cache=True, nogil=True)
def _find_twin(blocks, row, voxels, voxel_size, before, after, points):
    """The nearest point of another visit within `TWIN`, of the seven voxels at the row's nearest corner; -1 = none."""
    nearest, twin = (TWIN * voxel_size) ** 2, -1
    for corner in range(1, 8):
        x, y, z = voxels[row, 0], voxels[row, 1], voxels[row, 2]
        if corner & 1:
            x += 1 if points[row, 0] / voxel_size - x >= 0.5 else -1
        if corner & 2:
            y += 1 if points[row, 1] / voxel_size - y >= 0.5 else -1
        if corner & 4:
            z += 1 if points[row, 2] / voxel_size - z >= 0.5 else -1
        block = find_or_add_block(blocks, -1, x >> 3, y >> 3, z >> 3)
        other = blocks.slots[block, slot_of(x, y, z)] if block >= 0 else -1
        if other < 0 or not _apart(before, after, row, other, voxel_size):
            continue
        away = 0.0
        for axis in range(3):
            away += (points[row, axis] - points[other, axis]) ** 2
        if away < nearest:
            nearest, twin = away, other
    return twin


@njit(cache=True, nogil=True)
def _merge_twins(blocks, rows, voxels, voxel_size, max_weight, before, after, points, anchors, gone, kept):
    """A surface of two visits is one layer of points, on a border of voxels too: twins merge, as in fusion.

    The older id stays, on the slot of the one seen more often, at most half a voxel beside it. How many merged.
    """
    merged = 0
    for row in rows:
        twin = _find_twin(blocks, row, voxels, voxel_size, before, after, points) if points[row, WEIGHT] > 0 else -1
        if twin < 0:
            continue
        old, young = min(row, twin), max(row, twin)
        place = young if points[young, WEIGHT] > points[old, WEIGHT] else old
        for each in (old, young):
            remove_row(blocks, find_or_add_block(blocks, -1, *_block_of(voxels[each])), each)
        for axis in range(3):
            voxels[old, axis] = voxels[place, axis]
        _merge_into(points, anchors, young, old, max_weight)
        for axis in range(3):
            low = (voxels[old, axis] - 0.5) * voxel_size
            points[old, axis] = min(max(points[old, axis], low), low + 2 * voxel_size)
        block = find_or_add_block(blocks, -1, *_block_of(voxels[old]))
        blocks.slots[block, slot_of(voxels[old, 0], voxels[old, 1], voxels[old, 2])] = old
        add_row(blocks, block, old)
        gone[merged], kept[merged] = young, old
        merged += 1
    return merged


@njit(cache=True, nogil=True)
def _block_of(voxel):
    return voxel[0] >> 3, voxel[1] >> 3, voxel[2] >> 3


def index_merging(
    old: BlockIndex, before: Array, after: Array, points: Array, anchors: Array, voxel_size: float, max_weight: float
) -> tuple[BlockIndex, Array, Array]:
    """A new index of the live rows of points float32 (n, 10), which moved from `before` to `after` (n, 3), and which
    rows merged into which, int64 (m,) each. A point lies in its voxel, or at most half a voxel beside it."""
    index = BlockIndex()
    index.reserve_rows(len(points))
    # What stays where it is stays in its voxel, whatever arrives there; of the others the older id comes first.
    voxels, moved = old.voxels(len(points)), (before != after).any(axis=1)
    voxels[moved] = np.floor(after[moved].astype(np.float64) / voxel_size)
    alive = points[:, WEIGHT] > 0
    rows = np.concatenate([np.flatnonzero(alive & ~moved), np.flatnonzero(alive & moved)])
    late = np.empty(len(rows), np.int64)
    reached = lates = merged = 0
    while reached < len(rows):
        index.reserve_blocks(256)
        reached, index.count, lates = _claim_voxels(index.blocks, index.count, reached, rows, voxels, late, lates)
    late, reached = late[:lates].copy(), 0
    gone, kept = np.empty_like(late), np.empty_like(late)
    while reached < lates:
        index.reserve_blocks(256)
        reached, index.count, merged = _settle_late(
            index.blocks, index.count, reached, voxel_size, max_weight, before, after, points, anchors, voxels, late,
            gone, kept, merged,
        )  # fmt: skip
    parent = np.arange(len(points))
    parent[gone[:merged]] = kept[:merged]
    movers = np.flatnonzero(moved & (points[:, WEIGHT] > 0))
    gone, kept = np.empty_like(movers), np.empty_like(movers)
    twins = _merge_twins(
        index.blocks, movers, index.voxels(len(points)), voxel_size, max_weight, before, after, points, anchors, gone,
        kept,
    )  # fmt: skip
    parent[gone[:twins]] = kept[:twins]
    all_gone = np.flatnonzero(parent != np.arange(len(points)))
    # What merged into a twin that went on to merge.
    return index, all_gone, parent[parent[all_gone]]
