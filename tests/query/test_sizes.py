# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Usual sizes: what fits scores higher, and the box that counts does not depend on how the map is turned."""

from __future__ import annotations

import numpy as np
import pytest

from seg3d_core.query.sizes import TypicalSizes, edges_of
from seg3d_core.types import Cloud, Instances, Snapshot


def one_box(turn: float, size: tuple[float, float, float] = (2.0, 0.9, 0.5)) -> Snapshot:
    rng = np.random.default_rng(0)
    xyz = (rng.random((4000, 3)) - 0.5) * size
    c, s = np.cos(turn), np.sin(turn)
    xyz = (xyz @ np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]).T + 5).astype(np.float32)
    count = len(xyz)
    cloud = Cloud(
        np.arange(count), xyz, np.zeros((count, 3), np.uint8), np.zeros((count, 3), np.float32), np.ones(count)
    )
    instances = Instances.from_labels(np.ones(count, int), cloud.ids, np.ones(1), np.array([7]))
    low, high = xyz.min(0), xyz.max(0)
    return Snapshot(1, 0.0, cloud, instances, np.full(count, 7, np.int32), (low + high)[None] / 2, (high - low)[None])


@pytest.mark.parametrize("turn", [0.0, 0.3, 0.8, 1.5])
def test_edges_are_those_of_the_thing_however_it_is_turned(turn: float) -> None:
    assert edges_of(one_box(turn))[0] == pytest.approx([2.0, 0.9, 0.5], abs=0.06)


def test_edges_of_an_instance_without_points_are_its_extents() -> None:
    snapshot = Snapshot(
        1, 0.0, Cloud.empty(), Instances(np.array([1]), np.ones(1), np.zeros(2, int), np.empty(0, int)),
        np.empty(0, np.int32), np.zeros((1, 3)), np.array([[0.2, 1.0, 0.5]]),
    )  # fmt: skip
    assert edges_of(snapshot)[0] == pytest.approx([1.0, 0.5, 0.2])
    assert edges_of(Snapshot.empty()).shape == (0, 3)


def test_a_thing_fits_the_word_of_its_size() -> None:
    sizes = TypicalSizes()
    words = np.eye(len(sizes.words))
    named = {w: i for i, w in enumerate(sizes.words)}
    edges = np.array([[2.0, 0.9, 0.8], [0.12, 0.1, 0.08]])
    fit = sizes.log_fit(edges, words[[named["sofa"], named["mug"]]], words)
    assert fit.shape == (2, 2)
    assert fit[0, 0] > fit[1, 0]
    assert fit[1, 1] > fit[0, 1]
    assert fit.min() >= np.log(0.1) - 1e-9


def test_a_word_of_no_known_meaning_prefers_no_size_strongly() -> None:
    sizes = TypicalSizes()
    words = np.eye(len(sizes.words) + 1)[:-1]
    unknown = np.eye(len(sizes.words) + 1)[-1:]
    fit = sizes.log_fit(np.array([[2.0, 0.9, 0.8], [0.12, 0.1, 0.08], [0.9, 0.5, 0.5]]), unknown, words)
    assert np.ptp(fit) < np.log(1.1 / 0.1)
    assert fit.max() < np.log(0.3)
