# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""The reading `seg3d` of RE0 against a literal twin: one point, one picture and one pair of parts at a time.

The twin counts everything anew from the points whenever it asks, with dictionaries, and looks at all pairs for the
surest before each join. Neighbours and superpoints have twins of their own (tests/mapping) and are taken as they
are. Positions, normals and colours are such that their sums are exact; where the order of a sum matters (contacts,
shares), the twin adds in the same order.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest

from seg3d_core.config import Re0Config
from seg3d_core.lifting.keyframe_log import LoggedKeyframe
from seg3d_core.mapping.neighbours import Neighbours, nearest_neighbours, usual_spacing
from seg3d_core.mapping.superpoints import superpoints
from seg3d_core.segmenters.re0 import Re0Segmenter, evidence, joining, mask_table, outlines, regions, streaming
from seg3d_core.types import Cloud, Masks2D

F = np.float32
Picture = dict[int, int]


# --- superpoints, and where they touch -------------------------------------------------------------


def twin_superpoints(cloud: Cloud, neighbours: Neighbours) -> list[int]:
    of_point = superpoints(cloud, neighbours, regions.SUPERPOINT_THRESHOLD, regions.SUPERPOINT_POINTS).tolist()
    if cloud.normals.any():
        return of_point
    low, edge = cloud.xyz.min(axis=0), regions.CELL * usual_spacing(cloud.xyz)
    cells = [
        (part, *(math.floor(F(c - o) / edge) for c, o in zip(point, low, strict=True)))
        for part, point in zip(of_point, cloud.xyz, strict=True)
    ]
    numbers = {cell: number for number, cell in enumerate(sorted(set(cells)))}
    return [numbers[cell] for cell in cells]


def twin_fold(cloud: Cloud, p: int, q: int) -> tuple[float, float]:
    """Step and convexity."""
    a, b = cloud.normals[p], cloud.normals[q]
    v = cloud.xyz[q] - cloud.xyz[p]
    length = np.sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2])
    if length == 0 or not a.any() or not b.any():
        return 0.0, 0.0
    inverse = F(1) / length
    up_p = (a[0] * v[0] + a[1] * v[1] + a[2] * v[2]) * inverse
    up_q = (b[0] * v[0] + b[1] * v[1] + b[2] * v[2]) * inverse
    return float(max(abs(up_p), abs(up_q))), float(up_q - up_p)


def twin_contacts(cloud: Cloud, neighbours: Neighbours, of_point: list[int]) -> dict[tuple[int, int], list[float]]:
    """Point pairs across, and sums of step, convexity and difference of colour, by pair of superpoints."""
    colour = regions.lab_colour(cloud.rgb)
    found: dict[tuple[int, int], list[float]] = {}
    for p in range(len(cloud)):
        for q in neighbours.indices[neighbours.indptr[p] : neighbours.indptr[p + 1]].tolist():
            a, b = of_point[p], of_point[q]
            if q < p or a == b:
                continue
            difference = 0.0
            for c in range(3):
                away = colour[p, c] - colour[q, c]
                difference += float(away * away)
            step, convexity = twin_fold(cloud, p, q)
            values = (1.0, step, convexity, min(math.sqrt(difference), regions.MOST_COLOUR_STEP))
            sums = found.setdefault((min(a, b), max(a, b)), [0.0] * 4)
            for k in range(4):
                sums[k] += values[k]
    return dict(sorted(found.items()))


# --- evidence --------------------------------------------------------------------------------------


def part_seen(visible: int, size: int) -> float:
    if visible < 2:
        return 0.0
    return visible / (visible + evidence.HALF_SEEN) * math.sqrt(min(1.0, 2 * visible / size))


class Twin:
    """Of a cloud and what pictures show of its points."""

    def __init__(self, cloud: Cloud, keyframes: list[list[Picture]]):
        self.cloud = cloud
        self.pictures = [picture for keyframe in keyframes for picture in keyframe]
        self.mask_sizes = [Counter(picture.values()) for picture in self.pictures]
        self.colour = regions.lab_colour(cloud.rgb)
        spacing = usual_spacing(cloud.xyz)
        self.neighbours = nearest_neighbours(cloud.xyz, spacing)
        self.of_point = twin_superpoints(cloud, self.neighbours)
        self.shown = cache(self._shown)
        self.means = cache(self._means)
        self.box = cache(self._box)

    def _shown(self, part: frozenset[int]) -> list[Counter[int]]:
        """By picture: how many points of a part lie on each mask, 0 = none."""
        return [Counter(picture[p] for p in part if p in picture) for picture in self.pictures]

    def _means(self, part: frozenset[int]) -> list[float]:
        """Of colour, normal and position."""
        columns = np.column_stack([self.colour, self.cloud.normals, self.cloud.xyz]).astype(float)
        return [math.fsum(columns[p, k] for p in part) / len(part) for k in range(9)]

    def _box(self, part: frozenset[int]) -> tuple[list[float], list[float]]:
        points = [[float(c) for c in self.cloud.xyz[p]] for p in part]
        return [min(c) for c in zip(*points, strict=True)], [max(c) for c in zip(*points, strict=True)]

    def evidence(self, a: frozenset[int], b: frozenset[int]) -> tuple[float, float, float, float, float]:
        together = apart = one_on_none = seen = own = 0.0
        for on_a, on_b, sizes in zip(self.shown(a), self.shown(b), self.mask_sizes, strict=True):
            visible_a, visible_b = sum(on_a.values()), sum(on_b.values())
            weight = min(part_seen(visible_a, len(a)), part_seen(visible_b, len(b)))
            if weight == 0:
                continue
            same = filled = 0.0
            for mask in sorted(on_a.keys() & on_b.keys() - {0}):
                chance = on_a[mask] * on_b[mask] / (visible_a * visible_b)
                same += chance
                filled += chance * (on_a[mask] + on_b[mask]) / sizes[mask]
            share_a, share_b = 1 - on_a[0] / visible_a, 1 - on_b[0] / visible_b
            seen += weight
            together += weight * same
            apart += weight * (share_a * share_b - same)
            one_on_none += weight * (share_a * (1 - share_b) + share_b * (1 - share_a))
            own += weight * filled
        return together, max(apart, 0.0), one_on_none, seen, own

    def features(self, a: frozenset[int], b: frozenset[int], contact: tuple[float, ...]) -> dict[str, float]:
        together, apart, one_on_none, seen, own = self.evidence(a, b)
        total = together + apart
        scale = min(1.0, evidence.MOST_EVIDENCE / total) if total else 1.0
        ratio = math.log(together * scale + evidence.DOUBT) - math.log(apart * scale + evidence.DOUBT)
        observed = total * scale / (total * scale + 1)
        smaller, pairs = min(len(a), len(b)), contact[0]
        larger = self.means(a if len(a) >= len(b) else b)
        means_a, means_b = self.means(a), self.means(b)
        (low_a, high_a), (low_b, high_b) = self.box(a), self.box(b)
        colour = parallel = flat = diagonal = gap = 0.0
        for k in range(3):
            colour += (means_a[k] - means_b[k]) * (means_a[k] - means_b[k])
            parallel += means_a[3 + k] * means_b[3 + k]
            flat += larger[3 + k] * larger[3 + k]
            side = max(high_a[k], high_b[k]) - min(low_a[k], low_b[k])
            diagonal += side * side
            between = max(0.0, max(low_a[k], low_b[k]) - min(high_a[k], high_b[k]))
            gap += between * between
        return {
            "together": max(ratio, 0.0),
            "apart": min(ratio, 0.0),
            "observed": observed,
            "one on none": one_on_none / (seen + evidence.DOUBT),
            "own mask": own / (together + 0.05) * observed,
            "touching": float(pairs > 0),
            "contact": min(pairs / math.sqrt(smaller), 2.0),
            "step": contact[1] / pairs if pairs else 0.3,
            "convexity": contact[2] / pairs if pairs else 0.0,
            "edge colour": contact[3] / pairs if pairs else 8.0,
            "colour": min(math.sqrt(colour), 60.0),
            "size": math.log(smaller),
            "parallel": parallel,
            "flatness": math.sqrt(flat),
            "extent": math.log(math.sqrt(diagonal) + 0.05),
            "gap": min(math.sqrt(gap), 0.5),
            "seen": seen / (seen + 1),
        }

    # --- joining -----------------------------------------------------------------------------------

    def near_pairs(self, parts: list[frozenset[int]], gap: float) -> list[tuple[int, int]]:
        found = set()
        for number in range(len(self.pictures)):
            held: dict[int, list[int]] = {}
            for s, part in enumerate(parts):
                on = self.shown(part)[number]
                for mask, count in on.items():
                    if mask and count >= mask_table.MIN_HELD and count / sum(on.values()) > 0.5:
                        held.setdefault(mask, []).append(s)
            for group in held.values():
                if len(group) <= mask_table.MOST_HELD:
                    found |= {(a, b) for a in group for b in group if a < b and self._near(parts[a], parts[b], gap)}
        return sorted(found)

    def _near(self, a: frozenset[int], b: frozenset[int], gap: float) -> bool:
        (low_a, high_a), (low_b, high_b) = self.box(a), self.box(b)
        squared = 0.0
        for k in range(3):
            between = max(0.0, max(low_a[k], low_b[k]) - min(high_a[k], high_b[k]))
            squared += between * between
        return squared < gap * gap

    def joined(self, times: float) -> list[int]:
        """The thing of each point from 1 on; what masks say of together and apart counts `times` as much."""
        weights, constant = evidence.fitted_weights()
        by_name = dict(zip(evidence.FEATURES, weights.tolist(), strict=True))
        by_name["together"] *= times
        by_name["apart"] *= times

        @cache
        def log_odds(a: frozenset[int], b: frozenset[int], contact: tuple[float, ...]) -> float:
            features, total = self.features(a, b, contact), 0.0
            for name in evidence.FEATURES:
                total += by_name[name] * features[name]
            return constant + total

        count = max(self.of_point) + 1
        parts = {s: frozenset(p for p, its in enumerate(self.of_point) if its == s) for s in range(count)}
        superpoint = dict(parts)
        contacts = twin_contacts(self.cloud, self.neighbours, self.of_point)
        more = [pair for pair in self.near_pairs(list(parts.values()), streaming.NEAR) if pair not in contacts]
        live = dict(
            enumerate([[*pair, *sums] for pair, sums in contacts.items()] + [[*pair, *[0.0] * 4] for pair in more])
        )
        fragments = False
        while True:
            best, most = None, -math.inf
            for number, (i, j, *contact) in sorted(live.items()):
                odds = log_odds(parts[i], parts[j], tuple(contact))
                may = odds > joining.ONE_THING or (
                    fragments
                    and odds > joining.FRAGMENT_LIMIT
                    and contact[0] > 0
                    and min(len(parts[i]), len(parts[j])) < joining.FRAGMENT_POINTS
                )
                if may and odds > most:
                    best, most = number, odds
            if best is not None:
                join(parts, live, best)
            elif fragments:
                break
            else:
                fragments = True
        firsts = {min(s for s in superpoint if superpoint[s] <= part): part for part in parts.values()}
        things = [0] * len(self.cloud)
        for number, first in enumerate(sorted(firsts), 1):
            for p in firsts[first]:
                things[p] = number
        return things

    # --- outlines ----------------------------------------------------------------------------------

    def fits(self, picture: Picture, things: list[int]) -> dict[int, tuple[int, np.float32]]:
        """Of each mask that shows points, and of no mask: the thing of highest IoU and that IoU."""
        out = {}
        visible = Counter(things[p] for p in picture)
        for mask, size in sorted(Counter(picture.values()).items()):
            common = Counter(things[p] for p, its in picture.items() if its == mask)
            iou = {thing: F(c / (size + visible[thing] - c)) for thing, c in common.items()}
            thing = min(iou, key=lambda each, of=iou: (-of[each], each))
            out[mask] = thing, iou[thing]
        return out

    def fit(self, things: list[int]) -> float:
        iou, roots = [], []
        for picture, sizes in zip(self.pictures, self.mask_sizes, strict=True):
            fits = self.fits(picture, things)
            large = [m for m in sorted(fits) if m and sizes[m] >= streaming.MIN_MASK_POINTS]
            iou += [fits[m][1] for m in large]
            roots += [math.sqrt(sizes[m]) for m in large]
        return float(np.array(iou, F) @ np.array(roots)) / float(np.array(roots).sum()) if iou else 0.0

    def votes(self, things: list[int], inertia: float, background: float) -> list[list[list]]:
        """Of each point: slots of [thing, weight], -1 = empty; the last one is for what it is part of already."""
        slots = [[[-1, F(0)] for _ in range(outlines.SLOTS + 1)] for _ in things]
        for picture in self.pictures:
            fits = self.fits(picture, things)
            for p, mask in picture.items():
                thing, weight = fits[mask] if mask else (0, F(background))
                if weight > 0 and (mask == 0 or weight >= outlines.LEAST_FIT):
                    vote(slots[p][: outlines.SLOTS], thing, weight)
        for p, thing in enumerate(things):
            slot = next((s for s in slots[p][:-1] if s[1] > 0 and s[0] == thing), slots[p][-1])
            slot[0] = thing
            slot[1] = slot[1] + F(inertia)
        return slots

    def neighbour_weight(self, p: int, q: int) -> np.float32:
        xyz, normals, rgb = self.cloud.xyz, self.cloud.normals, self.cloud.rgb
        cosine = up_p = up_q = length = colour = F(0)
        for k in range(3):
            away = xyz[q, k] - xyz[p, k]
            cosine = cosine + normals[p, k] * normals[q, k]
            up_p = up_p + away * normals[p, k]
            up_q = up_q + away * normals[q, k]
            length = length + away * away
            difference = F(rgb[p, k]) - F(rgb[q, k])
            colour = colour + difference * difference
        step = max(abs(up_p), abs(up_q))
        lift = float(step * step / max(length, F(1e-18)))
        fold = (1 - float(cosine)) / outlines.FOLD
        lift, colour = lift / (outlines.STEP * outlines.STEP), float(colour) / (3 * outlines.COLOUR * outlines.COLOUR)
        return F(math.exp(-fold - lift - colour))

    def smoothed(self, slots: list[list[list]], rounds: int) -> list[int]:
        shares = [strongest(each) for each in slots]
        around = [
            self.neighbours.indices[self.neighbours.indptr[p] : self.neighbours.indptr[p + 1]].tolist()
            for p in range(len(shares))
        ]
        weights = [{q: self.neighbour_weight(p, q) for q in near} for p, near in enumerate(around)]

        def one_thing(p: int, q: int) -> bool:
            return len(shares[p]) == 1 == len(shares[q]) and shares[p][0][0] == shares[q][0][0]

        moving = {p for p, near in enumerate(around) if len(shares[p]) > 1 or not all(one_thing(p, q) for q in near)}
        for _ in range(rounds):
            for p in range(len(shares)):
                if p in moving:
                    shares[p] = average(p, shares, weights[p])
                    moving |= {q for q in around[p] if len(shares[p]) > 1 or shares[p][0][0] != shares[q][0][0]}
        return [its[0][0] for its in shares]

    def labels(self) -> list[int]:
        """The thing of each point, 0 = none."""
        exact = 0.0
        for _ in range(streaming.MOST_PASSES):
            things = self.joined(1 + exact * (streaming.EXACT_TIMES - 1))
            fit = self.fit(things)
            found = exactness(fit)
            if found <= exact:
                break
            exact = found
        shown = {things[p] for picture in self.pictures for p, mask in picture.items() if mask}
        inertia, exact = float(np.interp(fit, *streaming.INERTIA)), exactness(fit)
        background = exact * streaming.EXACT_BACKGROUND
        rounds = round(streaming.SMOOTHING + exact * (streaming.EXACT_SMOOTHING - streaming.SMOOTHING))
        for _ in range(streaming.OUTLINE_ROUNDS):
            things = self.smoothed(self.votes(things, inertia, background), rounds)
        return [thing if thing in shown else 0 for thing in things]


def exactness(fit: float) -> float:
    return min(max((fit - streaming.DOUBTED) / (streaming.TRUSTED - streaming.DOUBTED), 0.0), 1.0)


def join(parts: dict[int, frozenset[int]], live: dict[int, list], number: int) -> None:
    """Joins the two of a pair under the larger one's number, at a tie the first one's."""
    i, j = live.pop(number)[:2]
    if len(parts[j]) > len(parts[i]):
        i, j = j, i
    parts[i] |= parts.pop(j)
    for other in [n for n, pair in live.items() if j in pair[:2]]:
        pair = live[other]
        third = pair[1] if pair[0] == j else pair[0]
        same = next((its for its in live.values() if set(its[:2]) == {i, third}), None)
        if same is None:
            pair[:2] = [i if s == j else s for s in pair[:2]]
        else:
            same[2:] = [a + b for a, b in zip(same[2:], pair[2:], strict=True)]
            del live[other]


def vote(slots: list[list], thing: int, weight: np.float32) -> None:
    for slot in slots:
        if slot[1] > 0 and slot[0] == thing:
            slot[1] = slot[1] + weight
            return
    weakest = min(slots, key=lambda slot: slot[1])
    if weakest[1] == 0:
        weakest[:] = [thing, weight]
    elif weakest[1] > weight:
        weakest[1] = weakest[1] - weight
    else:
        weakest[:] = [-1, F(0)]


def strongest(slots: list[list]) -> list[tuple[int, np.float32]]:
    total = F(0)
    for _, weight in slots:
        total = total + weight
    ranked = sorted((slot for slot in slots if slot[1] > 0), key=lambda slot: -slot[1])
    return [(thing, weight / total) for thing, weight in ranked[: outlines.SHARES]]


def average(p: int, shares: list[list[tuple[int, np.float32]]], weights: dict[int, np.float32]) -> list:
    sums, total = dict(shares[p]), F(1)
    for q, weight in weights.items():
        total = total + weight
        for thing, share in shares[q]:
            sums[thing] = sums.get(thing, F(0)) + weight * share
    ranked = sorted(sums.items(), key=lambda each: (-each[1], each[0]))[: outlines.SHARES]
    least = outlines.LEAST_SHARE * float(total)
    return [(thing, s / total) for k, (thing, s) in enumerate(ranked) if k == 0 or float(s) >= least]


# --- streams ---------------------------------------------------------------------------------------


@dataclass
class Stream:
    """A cloud, the map rows of its points, and of each keyframe the rows it sees and their masks (L, n)."""

    cloud: Cloud
    rows: np.ndarray
    keyframes: list[tuple[np.ndarray, np.ndarray]]

    def fast(self) -> np.ndarray:
        """The instance of each point by the segmenter, 0 = none."""
        segmenter = Re0Segmenter(Re0Config(min_points=1))
        for number, (rows, masks) in enumerate(self.keyframes):
            pixels = np.stack([np.arange(len(rows)), np.zeros(len(rows))], axis=1).astype(F)
            images = tuple(
                Masks2D(each[None] if len(rows) else np.zeros((1, 1), np.int32), np.ones(each.max(initial=0), F))
                for each in masks
            )
            segmenter.observe(number, rows, pixels, np.ones(len(rows), F), images)
        return segmenter.prepare(self.cloud, self.rows)().instances.exclusive(self.cloud.ids)

    def pictures(self) -> list[list[Picture]]:
        """Of each keyframe and label image: point -> mask."""
        point = {row: p for p, row in enumerate(self.rows.tolist())}
        return [
            [
                {point[r]: int(m) for r, m in zip(rows.tolist(), each.tolist(), strict=True) if r in point}
                for each in masks
            ]
            for rows, masks in self.keyframes
        ]

    def twin(self) -> np.ndarray:
        labels = np.array(Twin(self.cloud, self.pictures()).labels())
        return np.searchsorted(np.union1d([0], labels), labels)


def furniture(rng: np.random.Generator, normals: bool) -> tuple[Cloud, np.ndarray]:
    """Floor and boxes of a small room, on a torn grid, and the thing of each point, 0 = floor."""
    side, step = 14, 1 / 32
    u, v = np.meshgrid(np.arange(side), np.arange(side))
    height, thing = np.zeros((side, side)), np.zeros((side, side), int)
    for number in range(1, 5):
        x, y = rng.integers(0, side - 4, 2)
        where = (slice(y, y + rng.integers(4, 8)), slice(x, x + rng.integers(4, 8)))
        height[where], thing[where] = rng.integers(1, 4) * step, number
    keep = rng.random((side, side)) < 0.93
    xyz = np.stack([u * step, v * step, height], axis=2)[keep]
    xyz += rng.integers(-4, 5, xyz.shape) / 1024
    thing = thing[keep]
    normal = np.tile([0.0, 0.0, 1.0], (len(xyz), 1)) + rng.integers(-8, 9, xyz.shape) / 64
    normal[rng.random(len(xyz)) < 0.05] = 0
    palette = np.array([[180, 150, 90], [200, 60, 50], [60, 170, 80], [70, 90, 210], [200, 60, 50]])
    rgb = (palette[thing] + rng.integers(-6, 7, xyz.shape)).astype(np.uint8)
    ids = np.arange(len(xyz)) * 2 + 1
    return Cloud(ids, xyz.astype(F), rgb, normal.astype(F) * F(normals), np.ones(len(xyz), F)), thing


def random_stream(seed: int, exact: bool, images: int, normals: bool = True) -> Stream:
    """Masks of things, or such that lose, unite, cut and blur them, seen through a window that wanders."""
    rng = np.random.default_rng(seed)
    cloud, thing = furniture(rng, normals)
    rows = rng.permutation(len(cloud) + 20)[: len(cloud)]
    everything = np.full(len(cloud) + 20, 1)
    everything[rows] = thing
    position = np.zeros((len(everything), 3))
    position[rows] = cloud.xyz
    keyframes = []
    for _ in range(rng.integers(5, 9)):
        centre, shy = rng.uniform(0, 0.42, 2), rng.random(len(everything)) < 0.1
        near = np.abs(position[:, :2] - centre).max(axis=1) < (0.5 if exact else 0.2)
        visible = rng.permutation(np.flatnonzero(near & ~shy))
        masks = []
        for _ in range(images):
            names = np.arange(6)
            if not exact:
                names = np.where(rng.random(6) < 0.2, 0, names)
                names = np.where(rng.random(6) < 0.3, np.roll(names, 1), names)
                names[0] = rng.choice([0, 0, 5])
            its = names[everything[visible]]
            if not exact:
                its = np.where((its == 2) & (position[visible, 0] > 0.2), 6, its)
                its = np.where(rng.random(len(its)) < 0.06, rng.integers(0, 7, len(its)), its)
            masks.append(its if rng.random() < 0.9 or exact else its * 0)
        keyframes.append((visible, np.array(masks, np.int32).reshape(images, -1)))
    return Stream(cloud, rows, keyframes)


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("seed", range(12))
def test_agrees_with_the_twin(seed: int, exact: bool) -> None:
    stream = random_stream(seed, exact, images=1 + seed % 3)
    found, expected = stream.fast(), stream.twin()
    assert found.tolist() == expected.tolist()
    assert expected.max() > 1


@pytest.mark.parametrize("seed", range(6))
def test_agrees_with_the_twin_where_no_normal_is_known(seed: int) -> None:
    stream = random_stream(100 + seed, exact=seed % 2 == 0, images=1 + seed % 2, normals=False)
    assert stream.fast().tolist() == stream.twin().tolist()


@pytest.mark.parametrize("seed", range(6))
def test_points_that_many_things_claim_agree_with_the_twin(seed: int) -> None:
    """More things than a point has room for, and weights that tie."""
    rng = np.random.default_rng(seed)
    cloud, _ = furniture(rng, normals=True)
    things = np.sort(rng.integers(0, 14, len(cloud))).astype(np.int32)
    keyframes = []
    for _ in range(80):
        claimed = rng.integers(0, 14)
        masks = np.where(things == claimed, 1, 0)
        masks = np.where((rng.random(len(cloud)) < 0.2) & (masks == 0), rng.integers(1, 3, len(cloud)), masks)
        keyframes.append([dict(enumerate(masks.tolist()))])
    twin = Twin(cloud, keyframes)
    slots = twin.votes(things.tolist(), 0.8, 0.25)
    logged = [
        LoggedKeyframe(0, np.arange(len(cloud)), np.array([list(its.values())]), np.empty(0), (2,))
        for (its,) in keyframes
    ]
    names, weights = outlines.voted(logged, np.arange(len(cloud)), things, 14, 0.8, 0.25)
    assert names.tolist() == [[slot[0] for slot in its] for its in slots]
    assert weights.tolist() == [[float(slot[1]) for slot in its] for its in slots]
    assert (names[:, outlines.SLOTS - 1] >= 0).any(), "some point has no slot left"
    found = outlines.smoothed(names, weights, twin.neighbours, outlines.neighbour_weights(cloud, twin.neighbours), 4)
    assert found.tolist() == twin.smoothed(slots, 4)


@pytest.mark.parametrize("seed", range(4))
def test_pairs_that_a_mask_holds_agree_with_the_twin(seed: int) -> None:
    stream = random_stream(seed, exact=False, images=2)
    point = np.full(len(stream.cloud) + 20, -1)
    point[stream.rows] = np.arange(len(stream.cloud))
    twin = Twin(stream.cloud, stream.pictures())
    parts = [frozenset(p for p, its in enumerate(twin.of_point) if its == s) for s in range(max(twin.of_point) + 1)]
    by_row = np.where(point >= 0, np.array(twin.of_point)[point], -1).astype(np.int32)
    logged = [
        LoggedKeyframe(0, rows, masks, np.empty(0), tuple(masks.max(axis=1).tolist()))
        for rows, masks in stream.keyframes
    ]
    table = mask_table.mask_table(logged, by_row, len(parts))
    low, high = (np.array(corners) for corners in zip(*(twin.box(part) for part in parts), strict=True))
    for s, part in enumerate(parts):
        entries = slice(table.starts[s], table.starts[s + 1])
        expected = [float(c) for on in twin.shown(part) for _, c in sorted(on.items())]
        assert table.counts[entries].tolist() == expected
    found = list(zip(*(side.tolist() for side in mask_table.near_pairs(table, low, high, 0.1)), strict=True))
    assert found == twin.near_pairs(parts, 0.1)
    assert len(found) > 2


@pytest.mark.parametrize("exact", [False, True])
def test_agrees_with_the_twin_where_everything_ties(exact: bool) -> None:
    """Four plates that are alike but for their place, and masks that hold two of them at a time."""
    u, v = np.meshgrid(np.arange(16), np.arange(16))
    xyz = np.stack([u.ravel() / 32, v.ravel() / 32, np.zeros(256)], axis=1)
    quarter = (u.ravel() >= 8) + 2 * (v.ravel() >= 8)
    rgb = np.where((quarter % 3 == 0)[:, None], [200, 60, 50], [60, 170, 80])
    normals = np.tile([0, 0, 1], (256, 1))
    cloud = Cloud(np.arange(256), xyz.astype(F), rgb.astype(np.uint8), normals.astype(F), np.ones(256, F))
    alike = [1 + quarter] if exact else [1 + quarter % 2, 1 + quarter // 2, 1 + quarter]
    stream = Stream(cloud, np.arange(256), [(np.arange(256), np.array([image], np.int32)) for image in alike])
    found = stream.fast()
    assert found.tolist() == stream.twin().tolist()
    assert found.max() > 1


def test_nothing_seen_nothing_found_by_either() -> None:
    stream = random_stream(3, exact=False, images=1)
    for keyframes in (
        [],
        [(np.empty(0, np.int64), np.empty((1, 0), np.int32))],
        [(stream.rows, stream.rows[None] * 0)],
    ):
        bare = Stream(stream.cloud, stream.rows, keyframes)
        assert bare.fast().tolist() == bare.twin().tolist() == [0] * len(stream.cloud)
