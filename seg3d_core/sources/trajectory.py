# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Poses over time: interpolation without extrapolation, and association of stamps."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation, Slerp

from ..types import Array


class Trajectory:
    """Poses at stamps, interpolated in between: translation linearly, rotation by slerp.

    stamps float64 (n,) seconds; translations (n, 3); quaternions (n, 4) as (x, y, z, w) of any length above 0.
    Poses that are not finite or have no direction are left out, and repeated stamps keep the last.
    """

    def __init__(self, stamps: Array, translations: Array, quaternions: Array):
        stamps = np.asarray(stamps, float).reshape(-1)
        translations = np.asarray(translations, float).reshape(-1, 3)
        quaternions = np.asarray(quaternions, float).reshape(-1, 4)
        good = np.isfinite(stamps) & are_poses(translations, quaternions)
        # The last of equal stamps: unique of the reversed arrays finds the first.
        _, last = np.unique(stamps[good][::-1], return_index=True)
        keep = np.flatnonzero(good)[::-1][last]
        self.stamps, self.translations, self.quaternions = stamps[keep], translations[keep], quaternions[keep]

    def __len__(self) -> int:
        return len(self.stamps)

    def at(self, stamps: Array, max_gap: float = 1.0, tolerance: float = 0.0) -> tuple[Array, Array]:
        """Poses float64 (m, 4, 4) at `stamps` (m,), and whether there is one, bool (m,).

        There is none between two poses that are more than `max_gap` seconds apart, nor outside the first
        and last pose, except that the nearest pose serves when it is at most `tolerance` seconds away.
        """
        stamps = np.asarray(stamps, float).reshape(-1)
        poses = np.tile(np.eye(4), (len(stamps), 1, 1))
        if not len(self):
            return poses, np.zeros(len(stamps), bool)
        after = np.searchsorted(self.stamps, stamps).clip(0, len(self) - 1)
        before = np.where(self.stamps[after] <= stamps, after, np.maximum(after - 1, 0))
        inside = (self.stamps[before] <= stamps) & (stamps <= self.stamps[after])
        spanned = inside & (self.stamps[after] - self.stamps[before] <= max_gap)
        nearest = np.where(np.abs(self.stamps[before] - stamps) <= np.abs(self.stamps[after] - stamps), before, after)
        near = np.abs(self.stamps[nearest] - stamps) <= tolerance
        ask = np.where(spanned, stamps, self.stamps[nearest])
        poses[:, :3, 3] = np.stack([np.interp(ask, self.stamps, self.translations[:, k]) for k in range(3)], axis=1)
        poses[:, :3, :3] = self._rotations(ask)
        return poses, spanned | near

    def _rotations(self, stamps: Array) -> Array:
        if len(self) == 1:
            return np.tile(Rotation.from_quat(self.quaternions[0]).as_matrix(), (len(stamps), 1, 1))
        return Slerp(self.stamps, Rotation.from_quat(self.quaternions))(stamps).as_matrix()


def are_poses(translations: Array, quaternions: Array) -> Array:
    """Which translations (n, 3) and quaternions (n, 4) are finite and have a direction, bool (n,)."""
    good: Array = np.isfinite(np.column_stack([translations, quaternions])).all(axis=1)
    # Of finite numbers the length may still be infinite.
    with np.errstate(over="ignore"):
        length = np.linalg.norm(quaternions[good], axis=1)
    good[good] = (length > 1e-9) & np.isfinite(length)
    return good


def associate(stamps: Array, others: Array, slop: float) -> Array:
    """For each of `stamps` (n,) the row of the nearest of `others` (m,), ascending, within `slop` s; -1 where none.

    One of `others` serves once only: the nearest of those that want it keeps it. Returns int64 (n,).
    """
    stamps, others = np.asarray(stamps, float), np.asarray(others, float)
    if not len(stamps) or not len(others):
        return np.full(len(stamps), -1, np.int64)
    after = np.searchsorted(others, stamps).clip(0, len(others) - 1)
    before = np.maximum(after - 1, 0)
    row = np.where(np.abs(others[before] - stamps) <= np.abs(others[after] - stamps), before, after)
    distance = np.abs(others[row] - stamps)
    row = np.where(distance <= slop, row, -1).astype(np.int64)
    order = np.lexsort((distance, row))
    repeated = np.zeros(len(row), bool)
    repeated[order[1:]] = row[order[1:]] == row[order[:-1]]
    row[repeated] = -1
    return row
