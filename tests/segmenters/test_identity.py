"""Instance ids that stay from one segmentation to the next."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seg3d_core.errors import MapFileError
from seg3d_core.segmenters.identity import IdentityTracker
from seg3d_core.types import IdentityChange, Instances


def instances(*members: range | list[int]) -> Instances:
    indptr = np.cumsum([0, *(len(m) for m in members)])
    points = np.concatenate([np.empty(0, np.int64), *(np.array(m, np.int64) for m in members)])
    return Instances(np.zeros(len(members), np.int32), np.ones(len(members), np.float32), indptr, points)


def ids(tracker: IdentityTracker, *members: range | list[int]) -> list[int]:
    return tracker.assign(instances(*members))[0].ids.tolist()


def test_ids_start_at_1_and_stay() -> None:
    tracker = IdentityTracker()
    assert ids(tracker, range(10), range(10, 30)) == [1, 2]
    assert ids(tracker, range(11, 31), range(9), range(50, 60)) == [2, 1, 3]


def test_an_instance_that_grows_with_the_map_keeps_its_id() -> None:
    tracker = IdentityTracker()
    ids(tracker, range(10))
    assert ids(tracker, range(4, 100)) == [1]


def test_a_merge_keeps_the_id_of_the_larger_part() -> None:
    tracker = IdentityTracker()
    ids(tracker, range(10), range(10, 40))
    result, changes = tracker.assign(instances(range(40)))
    assert result.ids.tolist() == [2]
    assert changes == (IdentityChange("merged", (1, 2), (2,)),)


def test_a_split_keeps_the_id_for_the_larger_part() -> None:
    tracker = IdentityTracker()
    ids(tracker, range(40))
    result, changes = tracker.assign(instances(range(10), range(10, 40)))
    assert result.ids.tolist() == [2, 1]
    assert changes == (IdentityChange("split", (1,), (1, 2)),)


def test_what_vanishes_and_what_appears_is_no_change_of_identity() -> None:
    tracker = IdentityTracker()
    ids(tracker, range(10))
    result, changes = tracker.assign(instances(range(20, 30)))
    assert (result.ids.tolist(), changes) == ([2], ())


def test_reset_does_not_reuse_ids() -> None:
    tracker = IdentityTracker()
    ids(tracker, range(10), range(10, 20))
    tracker.reset()
    assert ids(tracker, range(10)) == [3]


def test_restore_goes_on_with_the_same_ids() -> None:
    tracker, other = IdentityTracker(), IdentityTracker()
    ids(tracker, range(10), range(10, 20))
    other.restore(tracker.state())
    assert ids(other, range(12, 20), range(30, 40), range(9)) == [2, 3, 1]


def test_a_damaged_state_is_refused() -> None:
    tracker = IdentityTracker()
    ids(tracker, range(10))
    with pytest.raises(MapFileError, match="sizes"):
        tracker.restore({**tracker.state(), "point_ids": np.arange(3)})


partitions = st.lists(st.integers(0, 5), min_size=40, max_size=40)


def from_partition(labels: list[int]) -> Instances:
    return Instances.from_labels(np.array(labels), np.arange(40) * 2, np.ones(5))


@given(st.lists(partitions, min_size=1, max_size=6))
@settings(max_examples=60, deadline=None)
def test_ids_are_distinct_never_come_back_and_only_move_by_overlap(history: list[list[int]]) -> None:
    tracker = IdentityTracker()
    alive: dict[int, set[int]] = {}
    largest = 0
    for labels in history:
        result, changes = tracker.assign(from_partition(labels))
        now = {int(i): set(result.members(k).tolist()) for k, i in enumerate(result.ids)}
        assert len(now) == len(result)
        for i, points in now.items():
            if i <= largest:
                assert len(points & alive[i]) * 2 > min(len(points), len(alive[i]))
        for change in changes:
            assert set(change.sources) <= set(alive)
            assert set(change.targets) <= set(now)
            assert len(change.sources if change.kind == "merged" else change.targets) >= 2
        alive, largest = now, max([largest, *now])


@given(partitions, st.permutations(range(5)))
@settings(max_examples=60, deadline=None)
def test_the_same_instances_in_another_order_keep_their_ids(labels: list[int], order: list[int]) -> None:
    tracker = IdentityTracker()
    first = tracker.assign(from_partition(labels))[0]
    again, changes = tracker.assign(first.select(np.array(order)))
    filled = first.sizes > 0
    assert again.ids[filled[order]].tolist() == first.ids[order][filled[order]].tolist()
    assert changes == ()


@given(partitions, partitions)
@settings(max_examples=60, deadline=None)
def test_agrees_with_greedy_matching_of_sets(before: list[int], after: list[int]) -> None:
    tracker = IdentityTracker()
    old = tracker.assign(from_partition(before))[0]
    new = tracker.assign(from_partition(after))[0]
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
