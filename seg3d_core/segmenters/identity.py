# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Stable instance ids: what overlaps the instance of before keeps its id, and what comes back has it again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from ..errors import MapFileError
from ..types import Array, Cloud, IdentityChange, Instances, MapCorrection
from .matching import common_points, greedy_pairs
from .past_instances import PastInstances

# An old and a new instance may be the same when they share more than this much of either.
CONTAINED = 0.5
# Where more than this much of the map's points left at once, part of it was evicted: what moved in a room is less.
EVICTED = 0.05


class IdentityTracker:
    """Gives ids from one segmentation to the next. Ids count up from 1 and are never given to something else, not even
    after `reset`.

    Instances that a segmentation lacks are remembered by their places (`PastInstances`), within `budget_bytes`.
    """

    def __init__(self, budget_bytes: int, voxel_size: float) -> None:
        self._next_id = 1
        self._past = PastInstances(budget_bytes, voxel_size)
        self.reset()

    def reset(self) -> None:
        self._previous = Instances.empty()
        # Whose points the previous instances are; shared with the snapshot that shows them.
        self._cloud: Cloud | None = None
        self._past.reset()

    @property
    def budget_bytes(self) -> int:
        return self._past.budget_bytes

    @budget_bytes.setter
    def budget_bytes(self, budget_bytes: int) -> None:
        self._past.budget_bytes = budget_bytes

    @property
    def memory_bytes(self) -> int:
        """Of the past instances."""
        return self._past.memory_bytes

    @property
    def evicted(self) -> int:
        """Past instances that were forgotten for the budget."""
        return self._past.evicted

    def make_room(self) -> None:
        self._past.make_room()

    def assign(self, instances: Instances, cloud: Cloud) -> tuple[Instances, tuple[IdentityChange, ...]]:
        """The same instances of the cloud with ids int32 (K,), and what merged and split since the last call.

        Pairs of an old and a new instance that share more than half of either's points are taken one to one,
        those with most common points first, then the older id. So the larger part keeps the id: of a merge,
        where the other ids end, and of a split, where the other parts get new ids. Where a new instance has no partner,
        and its place is that of a past one, it is that one.
        """
        new, old, common = common_points(instances, self._previous)
        smaller = np.minimum(instances.sizes[new], self._previous.sizes[old])
        linked = common > CONTAINED * smaller
        new, old, common = new[linked], old[linked], common[linked]
        order = np.lexsort((new, self._previous.ids[old], -common))
        partner_of_new, partner_of_old = greedy_pairs(new[order], old[order], len(instances), len(self._previous))

        ids = np.zeros(len(instances), np.int32)
        kept = partner_of_new >= 0
        ids[kept] = self._previous.ids[partner_of_new[kept]]
        if self._cloud is not None and _share_gone(self._cloud, cloud) > EVICTED:
            self._past.add(self._previous, self._cloud)
        ids[~kept] = self._past.take_back(instances.select(~kept), cloud, ids[kept])
        fresh = ids == 0
        ids[fresh] = np.arange(self._next_id, self._next_id + int(fresh.sum()))
        self._next_id += int(fresh.sum())
        changes = self._changes(ids, new[order], old[order], partner_of_new, partner_of_old)
        self._past.add(self._previous.select(partner_of_old < 0), cloud if self._cloud is None else self._cloud)
        self._previous, self._cloud = replace(instances, ids=ids), cloud
        return self._previous, changes

    def correct(self, correction: MapCorrection, cloud: Cloud) -> None:
        """The map's points moved and merged, and are `cloud` now: the instances hold what they held, under the ids of
        now, each point once."""
        before = self._previous
        owner = np.repeat(np.arange(len(before)), before.sizes)
        pairs = np.unique(np.stack([owner, correction.renamed(before.point_ids)], axis=1), axis=0)
        indptr = np.searchsorted(pairs[:, 0], np.arange(len(before) + 1))
        self._previous = replace(before, indptr=indptr.astype(np.int64), point_ids=pairs[:, 1].copy())
        self._cloud = cloud

    def _changes(
        self, ids: Array, new: Array, old: Array, partner_of_new: Array, partner_of_old: Array
    ) -> tuple[IdentityChange, ...]:
        """From links (new, old), most common points first: each unpartnered side goes to its strongest link."""
        old_ids = self._previous.ids
        ended, into = _strongest(old[partner_of_old[old] < 0], new[partner_of_old[old] < 0])
        begun, out_of = _strongest(new[partner_of_new[new] < 0], old[partner_of_new[new] < 0])
        changes = []
        for target in np.unique(into):
            sources = np.append(old_ids[ended[into == target]], ids[target])
            changes.append(IdentityChange("merged", tuple(sorted(sources.tolist())), (int(ids[target]),)))
        for source in np.unique(out_of):
            targets = np.append(ids[begun[out_of == source]], old_ids[source])
            changes.append(IdentityChange("split", (int(old_ids[source]),), tuple(sorted(targets.tolist()))))
        return tuple(changes)

    def state(self) -> dict[str, Array]:
        """Arrays for `restore`."""
        return {
            "ids": self._previous.ids,
            "indptr": self._previous.indptr,
            "point_ids": self._previous.point_ids,
            "next_id": np.array([self._next_id], np.int64),
            **self._past.state(),
        }

    def restore(self, state: Mapping[str, Array]) -> None:
        """From `state`. Raises MapFileError where the arrays do not belong together."""
        ids, indptr, point_ids = state["ids"], state["indptr"], state["point_ids"]
        if any(array.dtype.kind not in "iu" or array.ndim != 1 for array in (ids, indptr, point_ids)):
            raise MapFileError("damaged", "the last segmentation's instances are no lists of whole numbers")
        if len(indptr) != len(ids) + 1 or indptr[0] != 0 or indptr[-1] != len(point_ids) or (np.diff(indptr) < 0).any():
            raise MapFileError(
                "damaged", "the last segmentation's instances do not have the sizes that the file states"
            )
        self._previous = Instances(
            ids.astype(np.int32), np.ones(len(ids), np.float32), indptr.astype(np.int64), point_ids.astype(np.int64)
        )
        self._cloud = None
        self._past.restore(state)
        most = max(int(ids.max(initial=0)), int(state.get("past_ids", ids).max(initial=0)))
        self._next_id = max(int(state["next_id"][0]), most + 1)


def _share_gone(before: Cloud, now: Cloud) -> float:
    """Of the points of before, from the numbers of points alone: ids ascend, and new points have higher ones."""
    stayed = int(np.searchsorted(now.ids, before.ids[-1], "right")) if len(before) else 0
    return 1 - stayed / len(before) if len(before) else 0.0


def _strongest(a: Array, b: Array) -> tuple[Array, Array]:
    """The distinct values of `a` and, for each, the `b` of its first link."""
    values, first = np.unique(a, return_index=True)
    return values, b[first]
