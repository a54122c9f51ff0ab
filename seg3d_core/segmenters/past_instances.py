# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Where instances were that are not seen now, so that what comes back has the id that it had."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..errors import MapFileError
from ..types import Array, Cloud, Instances, places_among
from .matching import common_points, greedy_pairs

# Edge of the cells in which places are told, in metres, and in voxels where those are large.
CELL, CELL_VOXELS = 0.1, 2
# What comes back fills more than half of the smaller of both places, and a quarter of the larger: half a sofa is the
# sofa, and a book that lay on it is not.
SHARE_OF_SMALLER, SHARE_OF_LARGER = 0.5, 0.25
_AXIS_BITS = 21


class PastInstances:
    """Places of past instances, in cells of 10 cm, within a budget; those gone for longest are forgotten first.

    Places and not points: the points of what was evicted with its part of the map come back under new ids. Eviction may
    take an instance piece by piece, so that what ends is a rest: of each id the largest place is kept that was added.
    """

    def __init__(self, budget_bytes: int, voxel_size: float):
        self.budget_bytes = budget_bytes
        self._cell = max(CELL, CELL_VOXELS * voxel_size)
        self.reset()

    def reset(self) -> None:
        # In the order of leaving; `point_ids` are cells.
        self._places = Instances.empty()
        self.evicted = 0
        """Instances that were forgotten for the budget."""

    def __len__(self) -> int:
        return len(self._places)

    @property
    def memory_bytes(self) -> int:
        places = self._places
        return places.ids.nbytes + places.scores.nbytes + places.indptr.nbytes + places.point_ids.nbytes

    def add(self, leaving: Instances, cloud: Cloud) -> None:
        """Remembers instances that end, or may do so piece by piece, by their points in the cloud, where it has any."""
        places = self._places_of(leaving, cloud)
        both = _joined(self._places, places.select(places.sizes > 0))
        if not len(both):
            return
        order = np.lexsort((both.sizes, both.ids))
        largest = order[np.append(both.ids[order][1:] != both.ids[order][:-1], True)]
        newest = len(both) - 1 - np.unique(both.ids[::-1], return_index=True)[1]
        self._places = both.select(largest[np.argsort(newest)])
        self.make_room()

    def make_room(self) -> None:
        sizes = self._places.sizes
        newest_first = np.cumsum((8 * sizes + 16)[::-1]) + 8
        kept = int(np.searchsorted(newest_first, self.budget_bytes, "right"))
        if kept < len(self):
            self.evicted += len(self) - kept
            self._places = self._places.select(np.arange(len(self) - kept, len(self)))

    def take_back(self, found: Instances, cloud: Cloud, present: Array) -> Array:
        """The id int32 (K,) of each of K new instances that is a past one, 0 = none; those are past no more.

        Who is `present`, ids (n,), does not come back. One to one: the largest common place first, then the older id.
        """
        ids = np.zeros(len(found), np.int32)
        if not len(self) or not len(found):
            return ids
        places = self._places_of(found, cloud)
        new, old, common = common_points(places, self._places)
        absent = ~np.isin(self._places.ids[old], present)
        new, old, common = new[absent], old[absent], common[absent]
        a, b = places.sizes[new], self._places.sizes[old]
        same = (common > SHARE_OF_SMALLER * np.minimum(a, b)) & (common > SHARE_OF_LARGER * np.maximum(a, b))
        new, old, common = new[same], old[same], common[same]
        order = np.lexsort((new, self._places.ids[old], -common))
        partner_of_new, partner_of_old = greedy_pairs(new[order], old[order], len(found), len(self))
        back = partner_of_new >= 0
        ids[back] = self._places.ids[partner_of_new[back]]
        self._places = self._places.select(partner_of_old < 0)
        return ids

    def _places_of(self, instances: Instances, cloud: Cloud) -> Instances:
        """The cells of each instance, ascending, by the points that the cloud has."""
        owner = np.repeat(np.arange(len(instances)), instances.sizes)
        row = places_among(cloud.ids, instances.point_ids)
        known = row >= 0
        cells = np.floor(cloud.xyz[row[known]] / self._cell).astype(np.int64) + (1 << (_AXIS_BITS - 1))
        keys = (cells[:, 0] << 2 * _AXIS_BITS) | (cells[:, 1] << _AXIS_BITS) | cells[:, 2]
        owner = owner[known]
        order = np.lexsort((keys, owner))
        owner, keys = owner[order], keys[order]
        first = np.ones(len(keys), bool)
        first[1:] = (owner[1:] != owner[:-1]) | (keys[1:] != keys[:-1])
        counts = np.bincount(owner[first], minlength=len(instances))
        return Instances(instances.ids, instances.scores, np.append(0, np.cumsum(counts)), keys[first])

    def state(self) -> dict[str, Array]:
        """Arrays for `restore`."""
        return {
            "past_ids": self._places.ids,
            "past_indptr": self._places.indptr,
            "past_cells": self._places.point_ids,
            "past_cell": np.array(self._cell),
        }

    def restore(self, state: Mapping[str, Array]) -> None:
        """From `state`; a map that was saved without past instances has none. Raises MapFileError."""
        self.reset()
        if "past_ids" not in state or float(state["past_cell"]) != self._cell:
            return
        ids, indptr, cells = state["past_ids"], state["past_indptr"], state["past_cells"]
        if any(array.dtype.kind not in "iu" or array.ndim != 1 for array in (ids, indptr, cells)):
            raise MapFileError("damaged", "the past instances are no lists of whole numbers")
        if len(indptr) != len(ids) + 1 or indptr[0] != 0 or indptr[-1] != len(cells) or (np.diff(indptr) < 0).any():
            raise MapFileError("damaged", "the past instances do not have the sizes that the file states")
        self._places = Instances(
            ids.astype(np.int32), np.ones(len(ids), np.float32), indptr.astype(np.int64), cells.astype(np.int64)
        )
        self.make_room()


def _joined(a: Instances, b: Instances) -> Instances:
    return Instances(
        np.concatenate([a.ids, b.ids]),
        np.concatenate([a.scores, b.scores]),
        np.concatenate([a.indptr, a.indptr[-1] + b.indptr[1:]]),
        np.concatenate([a.point_ids, b.point_ids]),
    )
