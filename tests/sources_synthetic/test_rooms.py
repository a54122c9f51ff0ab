# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Layouts: what the generated rooms hold and where it stands. No rays are cast here."""

from __future__ import annotations

from functools import cache
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seg3d_core.errors import SourceError
from seg3d_core.sources.synthetic.classes import CLASSES, class_id
from seg3d_core.sources.synthetic.layout import build_room
from seg3d_core.sources.synthetic.model import Model
from seg3d_core.sources.synthetic.primitives import box, cushion, lathe, sphere
from seg3d_core.sources.synthetic.room import Footprint, Room
from seg3d_core.sources.synthetic.surfaces import PATTERNS, Material, Palette
from seg3d_core.sources.synthetic.walk import BODY, can_be_walked, clearance, walkable

SEEDS = range(30)


@cache
def rooms() -> tuple[Room, ...]:
    return tuple(build_room(seed) for seed in SEEDS)


def test_thirty_rooms_hold_at_least_twenty_classes_and_every_label_is_a_class():
    labels = {piece.label for room in rooms() for piece in room.pieces}
    assert len(labels) >= 35
    assert labels <= set(CLASSES)


def test_kinds_and_shapes_vary():
    assert len({room.kind for room in rooms()}) >= 5
    assert 3 <= sum(room.is_l_shaped for room in rooms()) <= 20
    assert len({round(room.width, 3) for room in rooms()}) == len(SEEDS)
    assert all(any(p.label == "door" for p in room.pieces) for room in rooms())


def test_one_class_has_many_shapes():
    chairs = [p.model for room in rooms() for p in room.pieces if p.label == "chair"]
    assert len({round(float(c.bounds()[1][2]), 4) for c in chairs}) > len(chairs) // 4


def test_footprints_do_not_overlap_and_stay_in_the_room():
    for room in rooms():
        feet = room.obstacles()
        assert not any(a.overlaps(b) for a, b in combinations(feet, 2))
        assert all(room.is_inside(foot) for foot in feet)


def test_footprints_hold_all_geometry_that_stands_on_the_floor():
    for room in rooms()[:8]:
        for piece in room.pieces:
            if piece.footprint is None:
                continue
            points = np.concatenate([s.triangles.reshape(-1, 3) for s, _ in piece.model.solids])
            c, s = np.cos(piece.yaw), np.sin(piece.yaw)
            xy = points[:, :2] @ np.array([[c, s], [-s, c]]) + piece.position[:2]
            away = (xy - (piece.footprint.x, piece.footprint.y)) @ np.array([[c, -s], [s, c]])
            assert (np.abs(away) <= np.array([piece.footprint.half_x, piece.footprint.half_y]) + 1e-9).all()


def test_things_on_things_are_inside_the_room_and_above_the_floor():
    for room in rooms():
        ids = {p.id: p for p in room.pieces}
        assert sorted(ids) == list(range(1, len(ids) + 1))
        for piece in room.pieces:
            if piece.parent:
                assert ids[piece.parent].id < piece.id
                assert piece.position[2] > 0
                assert 0 < piece.position[0] < room.width
                assert 0 < piece.position[1] < room.depth


def test_there_is_floor_to_walk_on():
    for room in rooms():
        assert can_be_walked(room)
        assert clearance(room)[walkable(room)].min() > BODY


def test_same_seed_same_room_and_other_seed_another():
    def facts(room: Room) -> list[object]:
        return [(p.label, p.position, p.yaw) for p in room.pieces]

    again = build_room(4)
    assert facts(again) == facts(rooms()[4])
    assert facts(again) != facts(rooms()[5])


@settings(max_examples=60, deadline=None)
@given(st.tuples(*[st.floats(-2, 2)] * 2), st.floats(-3, 3), st.floats(0.1, 1), st.floats(0.1, 1), st.integers(0, 99))
def test_rectangles_overlap_exactly_when_points_of_one_lie_in_the_other(place, yaw, half_x, half_y, seed):
    a = Footprint(0, 0, 0.6, 0.4, 0.3, 0, 1)
    b = Footprint(*place, half_x, half_y, yaw, 0, 1)
    grid = np.stack(np.meshgrid(np.linspace(-1, 1, 41), np.linspace(-1, 1, 41)), -1).reshape(-1, 2)

    def inside(points, foot, slack):
        c, s = np.cos(foot.yaw), np.sin(foot.yaw)
        local = (points - (foot.x, foot.y)) @ np.array([[c, -s], [s, c]])
        return (np.abs(local) <= np.array([foot.half_x, foot.half_y]) + slack).all(1).any()

    def points_of(foot):
        c, s = np.cos(foot.yaw), np.sin(foot.yaw)
        return (grid * (foot.half_x, foot.half_y)) @ np.array([[c, s], [-s, c]]) + (foot.x, foot.y)

    if inside(points_of(a), b, -1e-9):
        assert a.overlaps(b)
    if not inside(points_of(a), b, 0.08):
        assert not a.overlaps(b)
    assert a.overlaps(b) == b.overlaps(a)


def test_footprints_at_other_heights_do_not_meet():
    assert not Footprint(0, 0, 1, 1, 0, 0.0, 0.9).overlaps(Footprint(0, 0, 1, 1, 0, 1.4, 2.0))


@pytest.mark.parametrize(
    ("solid", "volume", "tolerance"),
    [
        (box((0, 0, 0), (1, 2, 3)), 6.0, 1e-9),
        (sphere(0.5, 48), 4 / 3 * np.pi * 0.125, 0.01),
        (lathe([(0, 0), (0.3, 0), (0.3, 1), (0, 1)], 64), np.pi * 0.09, 0.002),
        (cushion(1, 1, 1, 0.3), 0.85, 0.12),
    ],
)
def test_solids_are_closed(solid, volume, tolerance):
    a, b, c = np.moveaxis(solid.triangles, 1, 0)
    assert abs(np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6) == pytest.approx(volume, abs=tolerance)
    normal = np.cross(b - a, c - a)
    assert np.allclose(normal.sum(0), 0, atol=1e-6)
    assert np.allclose(np.linalg.norm(solid.normals, axis=2), 1, atol=1e-6)


@pytest.mark.parametrize("pattern", sorted(PATTERNS))
def test_patterns_give_colours_and_calm_down_from_afar(pattern):
    rng = np.random.default_rng(0)
    palette = Palette([Material(pattern, (0.2, 0.3, 0.4), (0.8, 0.7, 0.6), 0.1)])
    points = rng.uniform(-3, 3, (4000, 3)).astype(np.float32)
    points[:, 2] = 0.5
    normals = np.tile(np.array([[0, 0, 1]], np.float32), (4000, 1))
    kind = np.zeros(4000, int)
    near = palette.albedo(kind, points, normals, np.full(4000, 0.001, np.float32))
    far = palette.albedo(kind, points, normals, np.full(4000, 2.0, np.float32))
    assert near.shape == (4000, 3)
    assert np.isfinite(near).all()
    assert near.min() >= 0
    assert far.std(axis=0).max() <= near.std(axis=0).max() + 1e-6
    assert pattern == "plain" or near.std(axis=0).max() > 0.004


def test_class_ids_start_at_one_and_a_wrong_name_is_told():
    assert class_id("wall") == 1
    assert len({class_id(c) for c in CLASSES}) == len(CLASSES) >= 50
    with pytest.raises(SourceError, match="dragon"):
        class_id("dragon")


def test_a_model_without_solids_is_a_mistake():
    with pytest.raises(ValueError):
        Model("box").bounds()
