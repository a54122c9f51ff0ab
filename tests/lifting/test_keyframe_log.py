# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""The keyframe log: bounded, and true to what was seen."""

from __future__ import annotations

import numpy as np
import pytest

from seg3d_core.errors import MapFileError
from seg3d_core.lifting.keyframe_log import KeyframeLog, contingency


def add(log: KeyframeLog, number: int, rows: list[int], images: int = 1) -> None:
    """Label image l has l + 2 masks, on which the points lie in turn."""
    n = len(rows)
    masks = np.array([np.arange(n) % (image + 3) for image in range(images)]).reshape(images, n)
    log.append(number, np.array(rows, np.int64), masks, np.arange(2 * n).reshape(n, 2) + 0.3, range(2, 2 + images))


def numbers(log: KeyframeLog) -> list[int]:
    return [k.number for k in log]


def test_keeps_rows_masks_and_rounded_pixels() -> None:
    log = KeyframeLog(5)
    add(log, 7, [4, 9])
    (keyframe,) = log
    assert (keyframe.number, keyframe.mask_counts) == (7, (2,))
    assert keyframe.rows.tolist() == [4, 9]
    assert keyframe.masks.tolist() == [[0, 1]]
    assert keyframe.pixels.tolist() == [[0, 1], [2, 3]]


def test_keeps_all_label_images_of_a_keyframe() -> None:
    log = KeyframeLog(5)
    add(log, 7, [4, 9, 1, 2], images=3)
    (keyframe,) = log
    assert keyframe.mask_counts == (2, 3, 4)
    assert keyframe.masks.tolist() == [[0, 1, 2, 0], [0, 1, 2, 3], [0, 1, 2, 3]]
    assert keyframe.masks.dtype == np.int16


@pytest.mark.parametrize("images", [1, 2, 5])
def test_a_visible_point_costs_8_bytes_and_2_for_each_label_image(images: int) -> None:
    log = KeyframeLog(100)
    add(log, 0, list(range(1000)), images)
    for_the_map = log.memory_bytes - 1000 * (8 + 2 * images)
    for number in range(1, 10):
        add(log, number, list(range(1000)), images)
    assert log.memory_bytes == for_the_map + 10 * 1000 * (8 + 2 * images)
    assert for_the_map <= 6 * 1000


def test_when_full_the_oldest_that_others_cover_goes() -> None:
    log = KeyframeLog(4)
    add(log, 0, [0, 1, 2])
    add(log, 1, [10, 11])
    add(log, 2, [10, 11])
    add(log, 3, [10, 11])
    add(log, 4, [20])
    assert numbers(log) == [0, 2, 3, 4]


def test_when_nothing_is_covered_the_most_covered_goes_and_never_the_newest() -> None:
    log = KeyframeLog(3)
    add(log, 0, [0, 1, 2])
    add(log, 1, [3, 4, 9])
    add(log, 2, [4, 9, 7])
    add(log, 3, [9, 4, 8])
    assert numbers(log) == [0, 2, 3]
    add(log, 4, [0])
    assert 4 in numbers(log)


def test_a_large_log_makes_room_for_some_at_once_and_stays_bounded() -> None:
    log = KeyframeLog(40)
    for number in range(100):
        add(log, number, [number % 7, number])
        assert len(log) <= 40
    assert numbers(log) == sorted(numbers(log))
    assert numbers(log)[-1] == 99
    cover = np.bincount(np.concatenate([k.rows for k in log]))
    assert (log._cover[: len(cover)] == cover).all()


def test_remap_moves_rows_and_leaves_old_arrays_alone() -> None:
    log = KeyframeLog(3)
    add(log, 0, [0, 1, 2], images=2)
    (before,) = log
    log.remap(np.array([2, -1, 0]))
    (after,) = log
    assert before.rows.tolist() == [0, 1, 2]
    assert after.rows.tolist() == [2, 0]
    assert after.masks.tolist() == [[0, 2], [0, 2]]
    assert after.pixels.tolist() == [[0, 1], [4, 5]]


def test_restore_gives_the_same_log_and_goes_on_dropping_alike() -> None:
    log, other = KeyframeLog(3), KeyframeLog(3)
    for number, (rows, images) in enumerate((([0, 1], 1), ([1, 2], 3), ([], 2))):
        add(log, number, rows, images)
    other.restore(log.state())
    for mine, its in zip(log, other, strict=True):
        assert (mine.number, mine.mask_counts) == (its.number, its.mask_counts)
        for name in ("rows", "masks", "pixels"):
            a, b = getattr(mine, name), getattr(its, name)
            assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
    for each in (log, other):
        add(each, 3, [5])
    assert numbers(log) == numbers(other)
    assert all((log.state()[name] == array).all() for name, array in other.state().items())


def test_an_empty_log_restores() -> None:
    log = KeyframeLog(3)
    log.restore(KeyframeLog(3).state())
    assert len(log) == 0


def test_restore_refuses_arrays_that_do_not_fit() -> None:
    log = KeyframeLog(3)
    add(log, 0, [0, 1], images=2)
    for name, value, message in (
        ("rows", np.zeros(3, np.int32), "differ in length"),
        ("masks", np.zeros(2, np.int16), "differ in length"),
        ("mask_counts", np.zeros(1, np.int32), "differ in length"),
        ("label_images", np.array([1], np.int32), "differ in length"),
        ("counts", np.array([1], np.int64), "differ in length"),
        ("label_images", np.array([0], np.int32), "cannot be"),
        ("label_images", np.array([1, 1], np.int32), "cannot be"),
        ("counts", np.array([-2], np.int64), "cannot be"),
        ("numbers", np.empty(0, np.int64), "cannot be"),
        ("rows", np.full(2, -1, np.int32), "cannot be"),
        ("masks", np.array([0, 3, 0, 0], np.int16), "cannot be"),
        ("masks", np.full(4, -1, np.int16), "cannot be"),
        ("pixels", np.zeros((2, 1), np.uint16), "cannot be"),
        ("mask_counts", np.full(2, 2_000_000_000, np.int32), "cannot be"),
        ("mask_counts", np.full(2, -3, np.int32), "cannot be"),
        ("rows", np.full(2, np.nan), "whole numbers"),
        ("masks", np.zeros((2, 2), np.int16), "whole numbers"),
    ):
        with pytest.raises(MapFileError, match=message):
            log.restore({**log.state(), name: value})


def test_contingency_counts_labels_by_mask() -> None:
    rng = np.random.default_rng(1)
    labels, masks = rng.integers(0, 9, 300), rng.integers(0, 5, 300)
    labels[labels == 4] = 5
    present, counts = contingency(labels, masks, 9, 4)
    assert present.tolist() == sorted(set(labels.tolist()) - {0})
    for label, row in zip(present, counts, strict=True):
        assert row.tolist() == [int(((labels == label) & (masks == m)).sum()) for m in range(5)]


def test_a_keyframe_that_adds_nothing_goes_the_oldest_first_and_no_point_is_lost() -> None:
    """Three places that are seen again and again, of which one has a corner that is seen from there alone."""
    log = KeyframeLog(1000, enough=4)
    places = [np.arange(0, 300), np.arange(100, 400), np.arange(0, 400)]
    for number in range(60):
        rows = places[number % 3] if number != 7 else np.append(places[1], np.arange(400, 450))
        log.append(number, rows, np.zeros((1, len(rows))), np.zeros((len(rows), 2)), [1])
    numbers = [k.number for k in log]
    assert len(log) < 12 and numbers == sorted(numbers) and numbers[-1] == 59
    assert 7 in numbers, "nobody else sees its corner"
    cover = np.bincount(np.concatenate([k.rows for k in log]), minlength=450)
    assert (cover[:400] >= 3).all() and (cover[400:] == 1).all()


def test_without_a_number_that_is_enough_nothing_goes() -> None:
    log = KeyframeLog(1000)
    for number in range(60):
        log.append(number, np.arange(5), np.zeros((1, 5)), np.zeros((5, 2)), [1])
    assert len(log) == 60


def test_a_restored_log_goes_on_dropping_what_adds_nothing_alike() -> None:
    logs = [KeyframeLog(1000, enough=3) for _ in range(2)]
    for number in range(40):
        rows = np.arange(number % 7, number % 7 + 20)
        for log in logs:
            log.append(number, rows, np.zeros((1, 20)), np.zeros((20, 2)), [1])
        if number == 20:
            logs[1] = KeyframeLog(1000, enough=3)
            logs[1].restore(logs[0].state())
    assert [k.number for k in logs[0]] == [k.number for k in logs[1]]
    assert len(logs[0]) < 40
