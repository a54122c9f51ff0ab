# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Where the camera was: the poses under which the map's points were made, as they stand after every correction."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from ..types import Array
from .block_index import grown

# A pose is remembered where the camera has moved or turned by this much since the last one: less than a voxel, and
# less than it takes for poses in between to be wrong by interpolation.
STEP, TURN = 0.02, 0.02
# Between poses further apart than this (m, rad) nobody knows the way; nor between those further apart in time, unless
# the camera stood still.
MOST_STEP, MOST_TURN, MOST_SECONDS = 0.1, 0.1, 1.0
# Stamps that differ by less are those of one frame.
SAME_SECONDS = 0.001
NO_POSE = -1
POSE_BYTES, LEAST_POSES = 8 + 96, 8


class PoseHistory:
    """Poses T_world_camera of the fused frames by stamp, within `budget_bytes`, 104 bytes each; points hold their
    numbers.

    A frame is remembered when it is more than `STEP` metres or `TURN` radians from the one remembered last, and so is
    the frame before it. When full, every second pose of the older half is forgotten, and the points that it made
    belong to the one before it. Where stamps run back (a bag that starts over) a new stretch begins; poses are
    looked up and corrected in the newest stretch alone.
    """

    def __init__(self, budget_bytes: int):
        self.budget_bytes = budget_bytes
        self.reset()

    def reset(self) -> None:
        self._stamps = np.empty(0)
        self._poses = np.empty((0, 3, 4))
        self._count = 0
        self._stretch = 0
        # The newest frame is not yet remembered for good: it may stand still.
        self._floating = False
        self._split_after = np.inf
        self.renumbered: Array | None = None
        self.evicted = 0
        """Poses that left for the budget."""

    def make_room(self) -> None:
        """With the next frame: the map's points hold numbers."""

    @property
    def capacity(self) -> int:
        """Poses that the budget has room for; a few always."""
        return max(self.budget_bytes // POSE_BYTES, LEAST_POSES)

    def __len__(self) -> int:
        return self._count

    @property
    def memory_bytes(self) -> int:
        return int(self._stamps.nbytes + self._poses.nbytes)

    @property
    def stretch(self) -> slice:
        """The poses of the newest stretch of ascending stamps; its beginning never moves but in thinning."""
        return slice(self._stretch, self._count)

    @property
    def stamps(self) -> Array:
        """float64 (n,)."""
        return self._stamps[: self._count]

    @property
    def poses(self) -> Array:
        """float64 (n, 4, 4), copied."""
        return _whole(self._poses[: self._count])

    def split_after(self, stamp: float) -> None:
        """Frames of a later stamp share no pose with those before: they are posed in a corrected world."""
        self._split_after = stamp

    def add(self, stamp: float, pose: Array) -> int:
        """Takes a frame's pose (3, 4); the number of the pose that its points belong to.

        It may have thinned the history: `renumbered` int32 (old numbers,) is then the new number of each old one.
        """
        self.renumbered = None
        if not np.isfinite(stamp):
            stamp = 0.0  # nobody will ever correct it
        split = stamp > self._split_after
        if split:
            self._split_after = np.inf
        if self._count and stamp <= self._stamps[self._count - 1]:
            self._stretch, split = self._count, True
        last = self._count - 1 - self._floating
        if not split and last >= self._stretch and not _is_far(self._poses[last], pose):
            if self._floating:
                self._count -= 1
            self._append(stamp, pose)
            self._floating = True
            return last
        self._floating = False
        while self._count >= self.capacity:
            self._thin()
        self._append(stamp, pose)
        return self._count - 1

    def _append(self, stamp: float, pose: Array) -> None:
        if self._count == len(self._stamps):
            room = min(max(LEAST_POSES, 2 * self._count), max(self.capacity, self._count + 1))
            self._stamps, self._poses = grown(self._stamps, room), grown(self._poses, room)
        self._stamps[self._count], self._poses[self._count] = stamp, pose
        self._count += 1

    def _thin(self) -> None:
        keep = np.ones(self._count, bool)
        keep[1 : self._count // 2 : 2] = False
        keep[self._stretch : self._stretch + 1] = True
        renumbered = (np.cumsum(keep) - 1).astype(np.int32)
        self._stretch = int(renumbered[self._stretch])
        self.renumbered = renumbered if self.renumbered is None else renumbered[self.renumbered]
        self.evicted += int((~keep).sum())
        n = int(keep.sum())
        self._stamps[:n], self._poses[:n] = self._stamps[: self._count][keep], self._poses[: self._count][keep]
        self._count = n

    def replace(self, chosen: slice, poses: Array) -> None:
        """New poses (n, 4, 4) in place of the chosen ones."""
        self._poses[chosen] = poses[:, :3]

    def up_to(self, stamp: float) -> slice:
        """The poses of the newest stretch whose stamps are at most `stamp`."""
        in_stretch = int(np.searchsorted(self._stamps[self.stretch], stamp, "right"))
        return slice(self._stretch, self._stretch + in_stretch)

    def at(self, stamps: Array, until: float = np.inf) -> tuple[Array, Array]:
        """Poses float64 (m, 4, 4) at `stamps` (m,), interpolated between those up to `until`, and whether they are
        known, bool (m,)."""
        chosen = self.up_to(until)
        known_stamps, rows = self._stamps[chosen], self._poses[chosen]
        stamps = np.asarray(stamps, float)
        if not len(known_stamps):
            return np.tile(np.eye(4), (len(stamps), 1, 1)), np.zeros(len(stamps), bool)
        after = np.searchsorted(known_stamps, stamps).clip(0, len(known_stamps) - 1)
        before = np.where(known_stamps[after] <= stamps, after, np.maximum(after - 1, 0))
        since, to = stamps - known_stamps[before], known_stamps[after] - stamps
        is_before, is_after = np.abs(since) <= SAME_SECONDS, np.abs(to) <= SAME_SECONDS
        share = np.divide(since, since + to, out=np.zeros(len(stamps)), where=since + to > 0).clip(0, 1)
        share = np.where(is_before, 0.0, np.where(is_after, 1.0, share))
        inside = (since >= 0) & (to >= 0) & _near_each_other(rows[before], rows[after], since + to)
        return blended(_whole(rows[before]), _whole(rows[after]), share), is_before | is_after | inside

    def state(self) -> dict[str, Array]:
        """`pose_stamps` float64 (n,), `poses` float64 (n, 3, 4), `pose_stretch` int64 (2,): begin, floating."""
        return {
            "pose_stamps": self.stamps.copy(),
            "poses": self._poses[: self._count].copy(),
            "pose_stretch": np.array([self._stretch, self._floating], np.int64),
        }

    def restore(self, stamps: Array, poses: Array, stretch: Array) -> None:
        """From `state`, checked by the map."""
        self.reset()
        self._stamps, self._poses, self._count = stamps.copy(), poses.copy(), len(stamps)
        self._stretch, self._floating = int(stretch[0]), bool(stretch[1])


def blended(a: Array, b: Array, share: Array) -> Array:
    """Poses between poses a and b (n, 4, 4): translation linearly, rotation along the shorter arc; share (n,) of b."""
    out = a.copy()
    out[:, :3, 3] += share[:, None] * (b[:, :3, 3] - a[:, :3, 3])
    between = (share > 0) & (a != b).any(axis=(1, 2))
    if between.any():
        start = Rotation.from_matrix(a[between, :3, :3])
        turn = (start.inv() * Rotation.from_matrix(b[between, :3, :3])).as_rotvec()
        out[between, :3, :3] = (start * Rotation.from_rotvec(share[between, None] * turn)).as_matrix()
    return out


def _whole(rows: Array) -> Array:
    out = np.zeros((len(rows), 4, 4))
    out[:, :3], out[:, 3, 3] = rows, 1
    return out


def _near_each_other(a: Array, b: Array, seconds: Array) -> Array:
    """Whether what lies between poses a and b (n, 3, 4) so many seconds apart is told by these, bool (n,)."""
    distance = np.linalg.norm(a[:, :, 3] - b[:, :, 3], axis=1)
    cosine = (np.einsum("nij,nij->n", a[:, :, :3], b[:, :, :3]) - 1) / 2
    near = (distance <= MOST_STEP) & (cosine >= np.cos(MOST_TURN))
    return near & ((seconds <= MOST_SECONDS) | (distance <= 2 * STEP))


def _is_far(a: Array, b: Array) -> bool:
    """Whether two poses (3, 4) are more than `STEP` or `TURN` apart."""
    if float(np.linalg.norm(a[:, 3] - b[:, 3])) > STEP:
        return True
    cosine = (float(np.sum(a[:, :3] * b[:, :3])) - 1) / 2
    return cosine < np.cos(TURN)
