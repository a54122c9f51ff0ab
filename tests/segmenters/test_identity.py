# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Instance ids that stay from one segmentation to the next."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seg3d_core.errors import MapFileError
from seg3d_core.segmenters.identity import IdentityTracker
from seg3d_core.types import Array, Cloud, IdentityChange, Instances, MapCorrection


def make_tracker(budget_bytes: int = 1_000_000) -> IdentityTracker:
    return IdentityTracker(budget_bytes, 0.02)


def line(first: int = 0, last: int = 200, at: Array | None = None) -> Cloud:
    """Points half a metre apart along x, by id, so that each has a cell of its own; `at` gives their places in x."""
    ids = np.arange(first, last)
    xyz = np.zeros((len(ids), 3), np.float32)
    xyz[:, 0] = 0.5 * (ids if at is None else at) + 0.05
    return Cloud(ids, xyz, np.zeros((len(ids), 3), np.uint8), xyz, np.ones(len(ids), np.float32))


def instances(*members: range | list[int]) -> Instances:
    indptr = np.cumsum([0, *(len(m) for m in members)])
    points = np.concatenate([np.empty(0, np.int64), *(np.array(m, np.int64) for m in members)])
    return Instances(np.zeros(len(members), np.int32), np.ones(len(members), np.float32), indptr, points)


def ids(tracker: IdentityTracker, *members: range | list[int]) -> list[int]:
    return tracker.assign(instances(*members), line())[0].ids.tolist()


def test_ids_start_at_1_and_stay() -> None:
    tracker = make_tracker()
    assert ids(tracker, range(10), range(10, 30)) == [1, 2]
    assert ids(tracker, range(11, 31), range(9), range(50, 60)) == [2, 1, 3]


def test_an_instance_that_grows_with_the_map_keeps_its_id() -> None:
    tracker = make_tracker()
    ids(tracker, range(10))
    assert ids(tracker, range(4, 100)) == [1]


def test_a_merge_keeps_the_id_of_the_larger_part() -> None:
    tracker = make_tracker()
    ids(tracker, range(10), range(10, 40))
    result, changes = tracker.assign(instances(range(40)), line())
    assert result.ids.tolist() == [2]
    assert changes == (IdentityChange("merged", (1, 2), (2,)),)


def test_a_split_keeps_the_id_for_the_larger_part() -> None:
    tracker = make_tracker()
    ids(tracker, range(40))
    result, changes = tracker.assign(instances(range(10), range(10, 40)), line())
    assert result.ids.tolist() == [2, 1]
    assert changes == (IdentityChange("split", (1,), (1, 2)),)


def test_what_vanishes_and_what_appears_is_no_change_of_identity() -> None:
    tracker = make_tracker()
    ids(tracker, range(10))
    result, changes = tracker.assign(instances(range(20, 30)), line())
    assert (result.ids.tolist(), changes) == ([2], ())


def test_reset_does_not_reuse_ids() -> None:
    tracker = make_tracker()
    ids(tracker, range(10), range(10, 20))
    tracker.reset()
    assert ids(tracker, range(10)) == [3]


def test_restore_goes_on_with_the_same_ids() -> None:
    tracker, other = make_tracker(), make_tracker()
    ids(tracker, range(10), range(10, 20))
    other.restore(tracker.state())
    assert ids(other, range(12, 20), range(30, 40), range(9)) == [2, 3, 1]


def test_a_damaged_state_is_refused() -> None:
    tracker = make_tracker()
    ids(tracker, range(10))
    with pytest.raises(MapFileError, match="sizes"):
        tracker.restore({**tracker.state(), "point_ids": np.arange(3)})


partitions = st.lists(st.integers(0, 5), min_size=40, max_size=40)


def from_partition(labels: list[int]) -> Instances:
    return Instances.from_labels(np.array(labels), np.arange(40) * 2, np.ones(5))


@given(st.lists(partitions, min_size=1, max_size=6))
@settings(max_examples=60, deadline=None)
def test_ids_are_distinct_and_only_move_by_overlap(history: list[list[int]]) -> None:
    tracker = make_tracker()
    known: dict[int, set[int]] = {}
    alive: set[int] = set()
    for labels in history:
        result, changes = tracker.assign(from_partition(labels), line())
        now = {int(i): set(result.members(k).tolist()) for k, i in enumerate(result.ids)}
        assert len(now) == len(result)
        for i, points in now.items():
            if i in known:
                assert len(points & known[i]) * 2 > min(len(points), len(known[i]))
            else:
                assert i > max(known, default=0), "a new id is larger than all before"
        for change in changes:
            assert set(change.sources) <= alive
            assert set(change.targets) <= set(now)
            assert len(change.sources if change.kind == "merged" else change.targets) >= 2
        known |= now
        alive = set(now)


@given(partitions, st.permutations(range(5)))
@settings(max_examples=60, deadline=None)
def test_the_same_instances_in_another_order_keep_their_ids(labels: list[int], order: list[int]) -> None:
    tracker = make_tracker()
    first = tracker.assign(from_partition(labels), line())[0]
    again, changes = tracker.assign(first.select(np.array(order)), line())
    filled = first.sizes > 0
    assert again.ids[filled[order]].tolist() == first.ids[order][filled[order]].tolist()
    assert changes == ()


@given(partitions, partitions)
@settings(max_examples=60, deadline=None)
def test_agrees_with_greedy_matching_of_sets(before: list[int], after: list[int]) -> None:
    tracker = make_tracker()
    old = tracker.assign(from_partition(before), line())[0]
    new = tracker.assign(from_partition(after), line())[0]
    pairs = []
    for i in range(5):
        for j in range(5):
            a, b = set(new.members(i).tolist()), set(old.members(j).tolist())
            if len(a & b) * 2 > min(len(a), len(b)):
                pairs.append((-len(a & b), int(old.ids[j]), i))
    wanted: dict[int, int] = {}
    for _, old_id, i in sorted(pairs):
        if i not in wanted and old_id not in wanted.values():
            wanted[i] = old_id
    assert {i: int(new.ids[i]) for i in wanted} == wanted
    assert all(new.ids[i] > 5 for i in range(5) if i not in wanted)


# --- what comes back -------------------------------------------------------------------------------


def test_what_one_segmentation_lacks_comes_back_with_its_id() -> None:
    tracker = make_tracker()
    ids(tracker, range(10), range(10, 40))
    assert ids(tracker, range(10)) == [1]
    assert ids(tracker, range(10, 40), range(10)) == [2, 1]


def test_what_was_merged_for_a_while_has_its_id_again_after_the_split() -> None:
    tracker = make_tracker()
    ids(tracker, range(10), range(10, 40))
    assert ids(tracker, range(40)) == [2]
    result, changes = tracker.assign(instances(range(10), range(10, 40)), line())
    assert result.ids.tolist() == [1, 2]
    assert changes == (IdentityChange("split", (2,), (1, 2)),)


def test_what_was_evicted_and_mapped_anew_under_other_points_has_its_id_again() -> None:
    tracker = make_tracker()
    tracker.assign(instances(range(10), range(10, 40)), line(0, 40))
    assert tracker.assign(instances(range(10)), line(0, 10))[0].ids.tolist() == [1]
    again = line(100, 130, np.arange(10, 40))
    # Seen only in part at first, it is the same nevertheless, and stays it.
    assert tracker.assign(instances(range(100, 115)), again)[0].ids.tolist() == [2]
    assert tracker.assign(instances(range(100, 130)), again)[0].ids.tolist() == [2]


def test_what_lost_some_of_its_points_and_was_missing_keeps_its_id() -> None:
    tracker = make_tracker()
    tracker.assign(instances(range(10, 40)), line(0, 40))
    assert tracker.assign(instances(range(25, 40)), line(20, 40))[0].ids.tolist() == [1]
    tracker.assign(instances(), line(20, 40))
    assert tracker.assign(instances(range(22, 40)), line(20, 40))[0].ids.tolist() == [1]


def test_what_was_evicted_piece_by_piece_is_remembered_as_the_whole_that_it_was() -> None:
    tracker = make_tracker()
    tracker.assign(instances(range(10, 40)), line(0, 40))
    assert tracker.assign(instances(range(34, 40)), line(34, 40))[0].ids.tolist() == [1]
    tracker.assign(instances(), line(50, 60))
    again = line(100, 130, np.arange(10, 40))
    assert tracker.assign(instances(range(100, 130)), again)[0].ids.tolist() == [1]


def test_an_id_whose_rest_is_still_there_is_not_given_to_what_stands_in_the_place_of_the_rest() -> None:
    tracker = make_tracker()
    tracker.assign(instances(range(10, 40)), line(0, 40))
    rest = line(30, 40)
    tracker.assign(instances(range(30, 40)), rest)
    both = line(30, 60, np.append(np.arange(30, 40), np.arange(10, 30)))
    assert tracker.assign(instances(range(30, 40), range(40, 60)), both)[0].ids.tolist() == [1, 2]


def test_a_small_thing_in_the_place_of_a_large_one_is_not_that() -> None:
    tracker = make_tracker()
    ids(tracker, range(40))
    ids(tracker)
    assert ids(tracker, range(8)) == [2]


def test_the_past_is_saved_and_forgotten_by_a_reset() -> None:
    tracker, other = make_tracker(), make_tracker()
    ids(tracker, range(10), range(10, 20))
    ids(tracker)
    other.restore(tracker.state())
    assert ids(other, range(10, 20)) == [2]
    tracker.reset()
    assert ids(tracker, range(10, 20)) == [3]


def test_a_map_that_was_saved_without_a_past_goes_on() -> None:
    tracker, other = make_tracker(), make_tracker()
    ids(tracker, range(10))
    other.restore({name: array for name, array in tracker.state().items() if not name.startswith("past_")})
    assert ids(other, range(10)) == [1]


def test_a_damaged_past_is_refused() -> None:
    tracker = make_tracker()
    ids(tracker, range(10))
    ids(tracker)
    with pytest.raises(MapFileError, match="past"):
        tracker.restore({**tracker.state(), "past_cells": np.arange(3)})


@given(st.lists(st.integers(1, 30), min_size=1, max_size=12), st.integers(0, 1500))
@settings(max_examples=60, deadline=None)
def test_the_past_keeps_its_budget_and_forgets_who_is_gone_for_longest(sizes: list[int], budget: int) -> None:
    tracker, cloud = make_tracker(budget), line(0, 500)
    for k, size in enumerate(sizes):
        # Each in a place of its own, and gone when the next one is there.
        tracker.assign(instances(range(40 * k, 40 * k + size)), cloud)
        assert tracker.memory_bytes <= max(budget, 8)
    # As many of the latest as fit: 8 bytes a cell and 16 each.
    wanted: list[int] = []
    for k in reversed(range(len(sizes) - 1)):
        if 8 + sum(8 * sizes[i - 1] + 16 for i in [*wanted, k + 1]) > budget:
            break
        wanted.insert(0, k + 1)
    remembered = tracker.state()["past_ids"].tolist()
    assert remembered == wanted
    assert tracker.evicted == len(sizes) - 1 - len(remembered)


def test_instances_of_before_hold_merged_points_once_under_their_new_ids():
    tracker = make_tracker()
    before, _ = tracker.assign(instances([1, 2, 3, 4], [5, 6, 7]), line())
    none = np.empty((0, 3))
    tracker.correct(
        MapCorrection(
            np.array([4, 7, 6]), np.array([1, 5, 2]), np.array([3, 6, 5]), np.array([0, 4, 1]),
            none, none, np.empty(0, np.int64), np.empty((0, 4, 4)),
        ),
        line(1, 6),
    )  # fmt: skip
    state = tracker.state()
    assert state["point_ids"].tolist() == [1, 2, 3, 2, 5] and state["indptr"].tolist() == [0, 3, 5]
    after, changes = tracker.assign(instances([1, 2, 3], [2, 5]), line(1, 6))
    assert after.ids.tolist() == before.ids.tolist() and not changes
