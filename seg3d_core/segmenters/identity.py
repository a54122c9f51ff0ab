"""Stable instance ids: what overlaps the instance of before keeps its id."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from ..errors import MapFileError
from ..types import Array, IdentityChange, Instances
from .matching import greedy_pairs

# An old and a new instance may be the same when they share more than this much of either.
CONTAINED = 0.5


class IdentityTracker:
    """Gives ids from one segmentation to the next. Ids count up from 1 and are never reused, not even after `reset`."""

    def __init__(self) -> None:
        self._next_id = 1
        self.reset()

    def reset(self) -> None:
        self._previous = Instances.empty()

    def assign(self, instances: Instances) -> tuple[Instances, tuple[IdentityChange, ...]]:
        """The same instances with ids int32 (K,), and what merged and split since the last call.

        Pairs of an old and a new instance that share more than half of either's points are taken one to one,
        those with most common points first, then the older id. So the larger part keeps the id: of a merge,
        where the other ids end, and of a split, where the other parts get new ids.
        """
        new, old, common = _common_points(instances, self._previous)
        smaller = np.minimum(instances.sizes[new], self._previous.sizes[old])
        linked = common > CONTAINED * smaller
        new, old, common = new[linked], old[linked], common[linked]
        order = np.lexsort((new, self._previous.ids[old], -common))
        partner_of_new, partner_of_old = greedy_pairs(new[order], old[order], len(instances), len(self._previous))

        ids = np.zeros(len(instances), np.int32)
        kept = partner_of_new >= 0
        ids[kept] = self._previous.ids[partner_of_new[kept]]
        fresh = int((~kept).sum())
        ids[~kept] = np.arange(self._next_id, self._next_id + fresh)
        self._next_id += fresh
        changes = self._changes(ids, new[order], old[order], partner_of_new, partner_of_old)
        self._previous = replace(instances, ids=ids)
        return self._previous, changes

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
        }

    def restore(self, state: Mapping[str, Array]) -> None:
        """From `state`. Raises MapFileError where the arrays do not belong together."""
        ids, indptr, point_ids = state["ids"], state["indptr"], state["point_ids"]
        if len(indptr) != len(ids) + 1 or indptr[0] != 0 or indptr[-1] != len(point_ids) or (np.diff(indptr) < 0).any():
            raise MapFileError(
                "damaged", "the last segmentation's instances do not have the sizes that the file states"
            )
        self._previous = Instances(ids, np.ones(len(ids), np.float32), indptr, point_ids)
        self._next_id = max(int(state["next_id"][0]), int(ids.max(initial=0)) + 1)


def _common_points(new: Instances, old: Instances) -> tuple[Array, Array, Array]:
    """Pairs of instances that share points: numbers in `new` and in `old`, and how many points; int64 (pairs,)."""
    order = np.argsort(old.point_ids, kind="stable")
    old_points = old.point_ids[order]
    old_owner = np.repeat(np.arange(len(old)), old.sizes)[order]
    begin = np.searchsorted(old_points, new.point_ids, "left")
    count = np.searchsorted(old_points, new.point_ids, "right") - begin
    # Overlapping instances hold a point several times: every occurrence in one meets every one in the other.
    offset = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    new_owner = np.repeat(np.repeat(np.arange(len(new)), new.sizes), count)
    pair, common = np.unique(new_owner * len(old) + old_owner[np.repeat(begin, count) + offset], return_counts=True)
    return pair // max(len(old), 1), pair % max(len(old), 1), common


def _strongest(a: Array, b: Array) -> tuple[Array, Array]:
    """The distinct values of `a` and, for each, the `b` of its first link."""
    values, first = np.unique(a, return_index=True)
    return values, b[first]
