# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Superpoints of a map that grows against a literal twin that cuts anew what has changed, one point at a time."""

from __future__ import annotations

import numpy as np
import pytest

from seg3d_core.errors import MapFileError
from seg3d_core.mapping.neighbours import Neighbours, nearest_neighbours
from seg3d_core.segmenters.re0 import growing, regions
from seg3d_core.segmenters.re0.growing import GrowingRegions
from seg3d_core.types import Cloud

STEP = 1 / 32


def surface(rng: np.random.Generator, side: int = 32) -> Cloud:
    """A floor with boxes on it, and noise."""
    u, v = np.meshgrid(np.arange(side), np.arange(side))
    height, tint = np.zeros((side, side)), np.zeros((side, side), int)
    for number in range(1, 7):
        x, y = rng.integers(0, side - 5, 2)
        where = (slice(y, y + rng.integers(4, 8)), slice(x, x + rng.integers(4, 8)))
        height[where], tint[where] = rng.integers(1, 5) * STEP, number
    xyz = np.stack([u * STEP, v * STEP, height], axis=2).reshape(-1, 3)
    xyz = xyz[np.argsort(xyz[:, 0] + rng.normal(0, 2 * STEP, len(xyz)))]
    xyz += rng.integers(-3, 4, xyz.shape) / 1024
    normals = np.tile([0.0, 0.0, 1.0], (len(xyz), 1)) + rng.normal(0, 0.05, xyz.shape)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    rgb = rng.integers(90, 120, xyz.shape)
    n = len(xyz)
    return Cloud(np.arange(n), xyz.astype("f4"), rgb.astype(np.uint8), normals.astype("f4"), np.ones(n, "f4"))


def stages(seed: int) -> list[Cloud]:
    """The map as it comes into view, is moved, turned and painted here and there, and loses points."""
    rng = np.random.default_rng(seed)
    world = surface(rng)
    out, seen, gone = [], len(world) // 2, np.zeros(len(world), bool)
    for _ in range(5):
        xyz, normals, rgb = world.xyz.copy(), world.normals.copy(), world.rgb.copy()
        where = (np.linalg.norm(xyz[:, :2] - rng.uniform(0, 1, 2), axis=1) < 0.08) & (rng.random(len(xyz)) < 0.4)
        xyz[where] += rng.normal(0, 0.02, (where.sum(), 3)).astype("f4")
        turned = rng.random(len(xyz)) < 0.002
        normals[turned] = normals[turned][:, [2, 0, 1]]
        rgb[rng.random(len(xyz)) < 0.002] += 20
        xyz += rng.normal(0, 0.0005, xyz.shape).astype("f4")
        world = Cloud(world.ids, xyz, rgb, normals, world.weight)
        out.append(world.select((np.arange(len(world)) < seen) & ~gone))
        gone |= rng.random(len(world)) < rng.choice([0, 0.005, 0.15])
        seen += int(rng.integers(0, 120))
    return out


class Twin:
    """Of points by id: what each was like when its superpoint was cut, where it is looked for, and its superpoint."""

    def __init__(self, cloud: Cloud):
        self.spacing = regions.spacing_of(cloud)
        self.was: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
        self.at: dict[int, np.ndarray] = {}
        self.parts: list[list[int]] = []
        self.see(cloud)

    def see(self, cloud: Cloud) -> None:
        place = {int(i): k for k, i in enumerate(cloud.ids)}
        alike = {}
        for i, k in place.items():
            now = cloud.xyz[k], cloud.normals[k], cloud.rgb[k]
            alike[i] = i in self.was and not self.has_changed(i, *now)
            if i not in self.at or self.has_moved(i, now[0]):
                self.at[i] = now[0]
        graph = nearest_neighbours(np.array([self.at[i] for i in place]), self.spacing)
        ids = list(place)
        around = {i: {ids[q] for q in graph.indices[graph.indptr[k] : graph.indptr[k + 1]]} for i, k in place.items()}
        kept, loose = [], {i for i in place if i not in self.was}
        for part in self.parts:
            stays = all(i in place and alike[i] and all(q in self.was for q in around[i]) for i in part)
            if stays:
                kept.append(part)
            else:
                loose |= {i for i in part if i in place}
        order = sorted(loose)
        number = {i: k for k, i in enumerate(order)}
        lists = [sorted(number[q] for q in around[i] if q in loose) for i in order]
        part_graph = Neighbours(np.cumsum([0, *map(len, lists)]), np.array([q for its in lists for q in its], np.int32))
        for i in order:
            k = place[i]
            self.was[i] = cloud.xyz[k], cloud.normals[k], cloud.rgb[k]
        self.was = {i: its for i, its in self.was.items() if i in place}
        self.at = {i: its for i, its in self.at.items() if i in place}
        part_cloud = cloud.select(np.array([place[i] for i in order], int))
        cut = regions.cut(part_cloud, part_graph, True, self.spacing)
        fresh: list[list[int]] = [[] for _ in range(max(cut, default=-1) + 1)]
        for i, its in zip(order, cut, strict=True):
            fresh[its].append(i)
        self.parts = kept + fresh

    def has_moved(self, i: int, xyz: np.ndarray) -> bool:
        return bool(((xyz - self.at[i]) ** 2).sum() > np.float32((growing.MOVED * self.spacing) ** 2))

    def has_changed(self, i: int, xyz: np.ndarray, normal: np.ndarray, rgb: np.ndarray) -> bool:
        old_xyz, old_normal, old_rgb = self.was[i]
        lifted = abs((xyz - old_xyz) @ old_normal) > growing.LIFTED * self.spacing
        turned = old_normal @ normal < growing.TURNED
        recoloured = np.abs(rgb.astype(int) - old_rgb.astype(int)).max() > growing.RECOLOURED
        return bool(self.has_moved(i, xyz) or lifted or turned or recoloured)


def parts_of(grown: GrowingRegions) -> list[list[int]]:
    of_point = grown.regions.of_point
    return [grown.surface.ids[of_point == s].tolist() for s in range(len(grown.regions))]


@pytest.mark.parametrize("seed", range(8))
def test_superpoints_of_a_growing_map_agree_with_the_twin(seed: int) -> None:
    clouds = stages(seed)
    grown, twin = GrowingRegions.of(clouds[0]), Twin(clouds[0])
    stayed = 0
    for cloud in clouds[1:]:
        before = {tuple(part) for part in twin.parts}
        grown = grown.updated(cloud)
        twin.see(cloud)
        stayed += len(before & {tuple(part) for part in twin.parts})
        assert parts_of(grown) == twin.parts
        assert grown.surface.ids[grown.places].tolist() == cloud.ids.tolist()
        check_sums(grown)
    assert stayed > 5, "something stays as it was"


def check_sums(grown: GrowingRegions) -> None:
    """Sizes, sums, boxes and the pairs that touch are those of the points as they were when they were cut."""
    own, s = grown.regions, grown.surface
    there = own.of_point >= 0
    sizes, sums, low, high = regions.added_up(own.of_point[there], grown.colour[there], s.normals[there], s.xyz[there])
    assert own.sizes.tolist() == sizes.tolist()
    assert np.allclose(own.sums, sums, rtol=0, atol=1e-9)
    assert (own.low == low).all() and (own.high == high).all()
    assert (np.diff(own.first * np.int64(len(own)) + own.second) > 0).all() and (own.first < own.second).all()


def test_contacts_are_those_of_the_graph_where_nothing_is_kept_out_of_date() -> None:
    """New points alone change no pair of old neighbours that stay: the contacts are those counted from scratch."""
    cloud = surface(np.random.default_rng(1))
    grown = GrowingRegions.of(cloud.select(cloud.ids < 500)).updated(cloud.select(cloud.ids < 560))
    own, every = grown.regions, np.ones(560, bool)
    first, second, contact = regions.contacts(
        own.neighbours, own.of_point, every, grown.surface.xyz, grown.surface.normals, grown.colour
    )
    found = dict(zip(zip(own.first.tolist(), own.second.tolist(), strict=True), own.contact, strict=True))
    fresh = dict(zip(zip(first.tolist(), second.tolist(), strict=True), contact, strict=True))
    assert found.keys() >= fresh.keys()
    assert sum(np.allclose(found[pair], fresh[pair]) for pair in fresh) > 0.9 * len(fresh)


def test_a_cloud_that_stays_costs_nothing_and_keeps_everything() -> None:
    cloud = surface(np.random.default_rng(2))
    grown = GrowingRegions.of(cloud)
    again = grown.updated(cloud.select(np.arange(len(cloud))))
    assert again.regions is grown.regions and again.table is grown.table


def test_noise_that_comes_and_goes_moves_no_border() -> None:
    rng = np.random.default_rng(3)
    cloud = surface(rng)
    grown = first = GrowingRegions.of(cloud)
    for _ in range(5):
        noisy = cloud.xyz + rng.normal(0, 0.0005, cloud.xyz.shape).astype("f4")
        grown = grown.updated(Cloud(cloud.ids, noisy, cloud.rgb, cloud.normals, cloud.weight))
    assert grown.regions.of_point.tolist() == first.regions.of_point.tolist()


def test_another_cloud_under_the_same_ids_starts_anew() -> None:
    cloud, other = (surface(np.random.default_rng(seed)) for seed in (4, 5))
    found, fresh = GrowingRegions.of(cloud).updated(other), GrowingRegions.of(other)
    assert found.regions.of_point.tolist() == fresh.regions.of_point.tolist()
    assert found.spacing == fresh.spacing


def test_older_points_that_come_back_start_anew() -> None:
    cloud = surface(np.random.default_rng(6))
    part = cloud.select(cloud.ids % 3 > 0)
    assert parts_of(GrowingRegions.of(part).updated(cloud)) == parts_of(GrowingRegions.of(cloud))


@pytest.mark.parametrize("seed", range(3))
def test_what_is_saved_goes_on_alike(seed: int) -> None:
    first, second, third, fourth, _ = stages(seed)
    grown = GrowingRegions.of(first).updated(second).updated(third)
    restored = GrowingRegions.restored(grown.state())
    for a, b in ((grown, restored), (grown.updated(fourth), restored.updated(fourth))):
        assert parts_of(a) == parts_of(b)
        assert np.allclose(a.regions.sums, b.regions.sums, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ids", np.arange(3)),
        ("regions", np.full(1024, 7)),
        ("surface", np.full((1024, 9), np.nan)),
        ("spacing", np.zeros(2)),
        ("ids", np.zeros(1024, int)),
    ],
)
def test_a_damaged_state_is_refused(name: str, value: np.ndarray) -> None:
    state = GrowingRegions.of(surface(np.random.default_rng(8))).state()
    with pytest.raises(MapFileError, match="save the map again"):
        GrowingRegions.restored({**state, name: value})


def test_nothing_and_something() -> None:
    cloud = surface(np.random.default_rng(7))
    nothing = GrowingRegions.of(Cloud.empty())
    assert len(nothing.regions) == 0
    something = nothing.updated(cloud)
    assert parts_of(something) == parts_of(GrowingRegions.of(cloud))
    assert len(something.updated(Cloud.empty()).regions) == 0
