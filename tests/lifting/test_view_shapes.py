# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""A view's shape: which cells of its box the instance's points cover."""

from __future__ import annotations

import numpy as np
import pytest

from seg3d_core.lifting.keyframe_log import LoggedKeyframe
from seg3d_core.lifting.view_shapes import cells_of, with_shapes
from seg3d_core.lifting.views import sightings
from seg3d_core.types import View


def unpacked(view: View) -> np.ndarray:
    return np.unpackbits(np.frombuffer(view.shape, np.uint8)).reshape(16, 16).astype(bool)


def grid(x0: int, y0: int, x1: int, y1: int, step: int) -> np.ndarray:
    x, y = np.meshgrid(np.arange(x0, x1, step), np.arange(y0, y1, step))
    return np.stack([x.ravel(), y.ravel()], 1)


@pytest.mark.parametrize("step", [1, 3, 7])
def test_sparse_points_leave_no_holes_and_an_l_stays_an_l(step: int) -> None:
    points = np.concatenate([grid(0, 0, 30, 90, step), grid(30, 60, 90, 90, step)])
    (cells,) = cells_of(np.zeros(len(points), int), points, np.array([[0, 0, 90, 90]]))
    truth = np.zeros((16, 16), bool)
    truth[:, :5] = truth[11:, :] = True
    assert cells[:, :4].all() and cells[12:-1, :-1].all(), "no holes"
    assert not cells[:8, 9:].any(), "nothing where no points are"
    assert (cells & truth).sum() / (cells | truth).sum() > 0.75


def test_each_view_of_each_instance_has_its_own_shape() -> None:
    # Rows 0..: an upright bar and a lying one; rows of the second keyframe see the first bar's lower half only.
    upright, lying = grid(10, 10, 20, 50, 1), grid(40, 10, 80, 20, 1)
    by_row = np.array([1] * len(upright) + [2] * len(lying) + [-1, 0], np.int32)
    rows = np.arange(len(by_row), dtype=np.int32)
    pixels = np.concatenate([upright, lying, [[15, 60], [60, 60]]])
    first = LoggedKeyframe(4, rows, np.ones((1, len(rows)), np.int16), pixels.astype(np.uint16), (1,))
    half = rows[: len(upright)][upright[:, 1] >= 30]
    second = LoggedKeyframe(9, half, np.ones((1, len(half)), np.int16), pixels[half].astype(np.uint16), (1,))
    keyframes = [first, second]
    plain = sightings(keyframes, by_row, 2).best_views()
    shaped = with_shapes(plain, keyframes, by_row)
    assert [[(v.keyframe, v.box, v.score) for v in views] for views in shaped] == [
        [(v.keyframe, v.box, v.score) for v in views] for views in plain
    ]
    assert [sorted(v.keyframe for v in views) for views in shaped] == [[4, 9], [4]]
    for views in shaped:
        for view in views:
            assert len(view.shape) == 32 and unpacked(view).all(), "a bar fills its box"


def test_no_views_no_shapes() -> None:
    assert with_shapes([], [], np.zeros(0, np.int32)) == ()
    assert with_shapes([(), ()], [], np.zeros(3, np.int32)) == ((), ())
