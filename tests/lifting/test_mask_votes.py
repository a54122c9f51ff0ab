# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Votes per point: a bounded histogram that keeps what is seen often."""

from __future__ import annotations

import numpy as np
import pytest

from seg3d_core.errors import MapFileError
from seg3d_core.lifting.mask_votes import FULL, MaskVotes


class LiteralVotes:
    """One dict per point, one vote at a time."""

    def __init__(self, slots: int):
        self.slots = slots
        self.points: dict[int, list[list[int]]] = {}

    def cast(self, row: int, label: int) -> None:
        slots = self.points.setdefault(row, [[0, 0] for _ in range(self.slots)])
        if label == 0:
            return
        for slot in slots:
            if slot[1] and slot[0] == label:
                slot[1] += 1
                return
        weakest = min(slots, key=lambda slot: slot[1])
        if weakest[1] == 0:
            weakest[:] = [label, 1]
        else:
            weakest[1] -= 1

    def majority(self, row: int) -> int:
        return max(((w, label) for label, w in self.points.get(row, []) if w), default=(0, 0))[1]


@pytest.mark.parametrize("slots", [2, 4])
def test_agrees_with_one_dict_per_point(slots: int) -> None:
    rng = np.random.default_rng(slots)
    votes, literal = MaskVotes(slots), LiteralVotes(slots)
    for step in range(60):
        rows = np.flatnonzero(rng.random(20 + step) < 0.6)
        labels = rng.integers(0, 6, len(rows)).astype(np.int32)
        votes.grow(20 + step)
        votes.cast(rows, labels)
        for row, label in zip(rows.tolist(), labels.tolist(), strict=True):
            literal.cast(row, label)
        everything = np.arange(20 + step)
        assert votes.majority(everything).tolist() == [literal.majority(r) for r in everything.tolist()]


def test_ties_go_to_the_newest_label() -> None:
    votes = MaskVotes(4)
    votes.grow(1)
    for label in (7, 3, 5):
        votes.cast(np.array([0]), np.array([label], np.int32))
    assert votes.majority(np.array([0])).tolist() == [7]


def test_sightings_count_points_on_no_mask_too() -> None:
    votes = MaskVotes(4)
    votes.grow(3)
    votes.cast(np.array([0, 2]), np.array([0, 4], np.int32))
    copy = votes.copy(np.array([0, 1, 2]))
    assert copy.sightings.tolist() == [1, 0, 1]
    assert copy.majority().tolist() == [0, 0, 4]


def test_a_point_seen_very_often_can_still_change_its_mind() -> None:
    votes = MaskVotes(2)
    votes.grow(1)
    row = np.array([0])
    for _ in range(FULL + 10):
        votes.cast(row, np.array([2], np.int32))
    assert votes.copy(row).sightings[0] < FULL
    for _ in range(FULL // 2 + 20):
        votes.cast(row, np.array([3], np.int32))
    assert votes.majority(row).tolist() == [3]


def test_a_copy_does_not_see_later_votes() -> None:
    votes = MaskVotes(2)
    votes.grow(2)
    votes.cast(np.array([1]), np.array([2], np.int32))
    copy = votes.copy(np.array([1]))
    for _ in range(3):
        votes.cast(np.array([1]), np.array([9], np.int32))
    assert copy.majority().tolist() == [2]


def test_remap_moves_and_forgets() -> None:
    votes = MaskVotes(2)
    votes.grow(3)
    votes.cast(np.array([0, 1, 2]), np.array([4, 5, 6], np.int32))
    votes.remap(np.array([1, -1, 0]))
    votes.grow(3)
    assert votes.majority(np.arange(3)).tolist() == [6, 4, 0]


def test_restore_gives_the_same_votes_back() -> None:
    rng = np.random.default_rng(0)
    votes, other = MaskVotes(4), MaskVotes(4)
    votes.grow(30)
    for _ in range(20):
        votes.cast(np.arange(30), rng.integers(0, 6, 30).astype(np.int32))
    other.restore(votes.state())
    more = rng.integers(0, 6, 30).astype(np.int32)
    for each in (votes, other):
        each.cast(np.arange(30), more)
    assert all((votes.state()[name] == array).all() for name, array in other.state().items())
    assert votes.majority(np.arange(30)).tolist() == other.majority(np.arange(30)).tolist()


def test_restore_into_fewer_slots_keeps_the_strongest() -> None:
    votes, fewer = MaskVotes(4), MaskVotes(2)
    votes.grow(1)
    for label in (2, 3, 3, 4, 4, 4):
        votes.cast(np.array([0]), np.array([label], np.int32))
    fewer.restore(votes.state())
    assert sorted(fewer.copy(np.array([0])).labels[0].tolist()) == [3, 4]


def test_restore_refuses_arrays_that_do_not_fit() -> None:
    votes = MaskVotes(2)
    state = {**votes.state(), "weights": np.zeros((3, 2), np.uint16)}
    with pytest.raises(MapFileError, match="do not belong together"):
        votes.restore(state)


@pytest.mark.parametrize("slots", [1, 3])
def test_a_row_takes_six_bytes_a_slot_and_two_more(slots: int) -> None:
    """A label, its weight, and the sightings: what memory budgets reckon with."""
    votes = MaskVotes(slots)
    assert votes.memory_bytes == 0
    for rows in (10, 7, 11, 400):
        votes.grow(rows)
        assert len(votes) >= rows
        assert votes.memory_bytes == len(votes) * (6 * slots + 2)
