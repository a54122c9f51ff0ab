# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""The readings `paper` and `published` of RE0 against literal twins: one point, one label and one pair at a time.

The twins are written from the paper's algorithm and equations, with the decisions that fill its holes, and
keep exact counts of votes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seg3d_core import config as profiles
from seg3d_core.config import Re0Config
from seg3d_core.segmenters.re0 import Re0Segmentation, Re0Segmenter
from seg3d_core.types import Cloud, Masks2D

EXACT_SLOTS = 16


@dataclass
class Seen:
    """One keyframe: point -> the mask it lies on, 0 = none; the points that it sees are the keys."""

    masks: dict[int, int]

    def points_on(self, mask: int) -> list[int]:
        return [point for point, its in self.masks.items() if its == mask]


# --- the twins -----------------------------------------------------------------------------------


def twin_align(before: list[int], seen: Seen, newest: int, config: Re0Config) -> tuple[dict[int, int], int]:
    """Alg. 1: the label of each point that lies on a mask, and the newest label of all."""
    aligned: dict[int, int] = {}
    for mask in sorted(set(seen.masks.values()) - {0}):
        points = seen.points_on(mask)
        histogram = Counter(before[p] for p in points)
        unlabelled = histogram[0]
        counted = config.reading == "published" or config.count_unlabelled
        if not counted:
            del histogram[0]
        total = sum(histogram.values())
        label, most = max(histogram.items(), key=lambda entry: (entry[1], entry[0]), default=(0, 0))
        takes = label > 0 and most / total > config.k_align
        if config.reading == "paper":
            takes = takes and (len(points) - unlabelled) / len(points) >= config.min_labelled
        if not takes:
            newest += 1
            label = newest
        for p in points:
            aligned[p] = label
    return aligned, newest


def twin_statistics(labels: list[int], instance: int, seen: Seen, background: bool) -> tuple[float, float, int] | None:
    """Eqs. 3 and 4: alpha, beta and the mask of an instance in a keyframe; None where it has no point or no mask."""
    size = labels.count(instance)
    on_masks = Counter(mask for point, mask in seen.masks.items() if labels[point] == instance)
    visible = sum(on_masks.values())
    if not background:
        del on_masks[0]
    if not on_masks:
        return None
    mask, most = max(on_masks.items(), key=lambda entry: (entry[1], -entry[0]))
    return visible / size, most / visible, mask


def paper_merges(labels: list[int], i: int, j: int, seen: Seen, config: Re0Config) -> bool:
    """Eq. 5."""
    a, b = (twin_statistics(labels, instance, seen, background=False) for instance in (i, j))
    if a is None or b is None:
        return False
    alphas, betas = min(a[0], b[0]), min(a[1], b[1])
    return alphas > config.k_proj and betas > config.k_mask and a[2] == b[2]


def twin_merge_paper(labels: list[int], keyframes: list[Seen], config: Re0Config) -> None:
    for seen in keyframes:
        instances = sorted({labels[p] for p in seen.masks} - {0})
        for i in instances:
            for j in instances:
                if i < j and paper_merges(labels, i, j, seen, config):
                    labels[:] = [i if label == j else label for label in labels]


def twin_merge_published(labels: list[int], keyframes: list[Seen], config: Re0Config) -> None:
    """The released loop: the list of labels is fixed, the statistics of i are taken once per keyframe and i."""

    def passes(statistics: tuple[float, float, int] | None) -> bool:
        return statistics is not None and statistics[0] >= config.k_proj and statistics[1] >= config.k_mask

    instances = sorted(set(labels) - {0})
    for seen in keyframes:
        visible = {p: labels[p] for p in seen.masks}
        for i in instances:
            if i not in visible.values():
                continue
            a = twin_statistics(labels, i, seen, background=True)
            if not passes(a):
                continue
            for j in instances:
                if j <= i or j not in visible.values():
                    continue
                b = twin_statistics(labels, j, seen, background=True)
                if passes(b) and a is not None and b is not None and a[2] == b[2]:
                    labels[:] = [i if label == j else label for label in labels]
                    visible = {p: labels[p] for p in seen.masks}


def twin(point_count: int, keyframes: list[Seen], config: Re0Config) -> list[int]:
    """The label of every point in the end, 0 = none."""
    votes: list[Counter[int]] = [Counter() for _ in range(point_count)]
    labels = [0] * point_count
    newest = 0
    for seen in keyframes:
        aligned, newest = twin_align(list(labels), seen, newest, config)
        for p, label in aligned.items():
            if config.reading == "published":
                labels[p] = max(labels[p], label)
            else:
                votes[p][label] += 1
                labels[p] = max(votes[p], key=lambda each, of=votes[p]: (of[each], each))
    if config.merge:
        (twin_merge_published if config.reading == "published" else twin_merge_paper)(labels, keyframes, config)
    return labels


def twin_instances(labels: list[int], min_points: int) -> list[list[int]]:
    sizes = Counter(label for label in labels if label)
    return [
        [p for p, its in enumerate(labels) if its == label] for label in sorted(sizes) if sizes[label] >= min_points
    ]


# --- the fast code -------------------------------------------------------------------------------


def fast(point_count: int, keyframes: list[Seen], config: Re0Config, xyz: np.ndarray | None = None) -> Re0Segmentation:
    """Keyframes as images of one row, a pixel per visible point."""
    segmenter = Re0Segmenter(config)
    for number, seen in enumerate(keyframes):
        rows = np.array(list(seen.masks), np.int64)
        image = np.array([list(seen.masks.values()) or [0]], np.int32)
        masks = Masks2D(image, np.ones(image.max(), np.float32))
        pixels = np.stack([np.arange(len(rows)), np.zeros(len(rows))], axis=1).astype(np.float32)
        segmenter.observe(number, rows, pixels, np.ones(len(rows), np.float32), (masks,))
    zeros = np.zeros((point_count, 3), np.float32)
    where = zeros if xyz is None else xyz.astype(np.float32)
    ids = np.arange(point_count)
    cloud = Cloud(ids, where, zeros.astype(np.uint8), zeros, np.ones(point_count, np.float32))
    return segmenter.prepare(cloud, ids)()


def members(result: Re0Segmentation) -> list[list[int]]:
    return [result.instances.members(k).tolist() for k in range(len(result.instances))]


# --- streams -------------------------------------------------------------------------------------


def random_streams(seed: int, points: int = 60, keyframes: int = EXACT_SLOTS) -> list[Seen]:
    """A strip of six things seen through a window that wanders, by masks that drop, split, unite and wobble."""
    rng = np.random.default_rng(seed)
    thing = 1 + np.arange(points) * 6 // points
    stream = []
    for _ in range(keyframes):
        start = rng.integers(-points // 3, points)
        visible = [p for p in range(max(start, 0), min(start + points // 2, points)) if rng.random() < 0.9]
        names = np.where(rng.random(7) < 0.1, 0, np.arange(7))
        names = np.where(rng.random(7) < 0.25, np.roll(names, 1), names)
        cut = rng.integers(0, points) if rng.random() < 0.3 else points
        on = {p: int(names[thing[p]]) for p in visible}
        on = {p: m + 7 if p >= cut and m else m for p, m in on.items()}
        stream.append(Seen({p: int(rng.integers(0, 7)) if rng.random() < 0.08 else m for p, m in on.items()}))
    return stream


# Few points and masks, so that ties and shares of exactly a limit are common.
tiny_streams = st.lists(
    st.dictionaries(st.integers(0, 9), st.integers(0, 3), max_size=10).map(Seen), max_size=EXACT_SLOTS
)
limits = st.sampled_from([0.0, 0.25, 0.3, 0.4, 0.5, 0.55, 0.6, 0.75, 1.0])
configs = st.builds(
    Re0Config,
    reading=st.sampled_from(["paper", "published"]),
    k_align=limits,
    min_labelled=limits,
    count_unlabelled=st.booleans(),
    k_proj=limits,
    k_mask=limits,
    merge=st.booleans(),
    slots=st.just(EXACT_SLOTS),
    min_points=st.integers(1, 3),
)

READINGS: dict[str, Callable[[], dict[str, object]]] = {
    "paper": lambda: {"reading": "paper"},
    "paper without merge": lambda: {"reading": "paper", "merge": False},
    "paper with 0 counted": lambda: {"reading": "paper", "count_unlabelled": True},
    "published": lambda: {"reading": "published"},
    "published without merge": lambda: {"reading": "published", "merge": False},
}


# --- tests ---------------------------------------------------------------------------------------


@settings(max_examples=400, deadline=None)
@given(stream=tiny_streams, config=configs)
def test_small_streams_agree_with_the_twin(stream: list[Seen], config: Re0Config) -> None:
    result = fast(10, stream, config)
    assert members(result) == twin_instances(twin(10, stream, config), config.min_points)
    assert (result.instances.scores == 1).all()


@pytest.mark.parametrize("name", READINGS)
@pytest.mark.parametrize("seed", range(6))
def test_things_seen_in_passing_agree_with_the_twin(name: str, seed: int) -> None:
    config = Re0Config(**READINGS[name](), slots=EXACT_SLOTS, min_points=2)
    stream = random_streams(seed)
    result = fast(60, stream, config)
    expected = twin_instances(twin(60, stream, config), 2)
    assert members(result) == expected
    assert len(expected) > 1
    assert (result.instances.scores == 1).all()


@pytest.mark.parametrize("reading", ["paper", "published"])
@pytest.mark.parametrize("seed", range(4))
def test_label_images_of_one_keyframe_count_one_after_the_other(reading: str, seed: int) -> None:
    config = Re0Config(reading=reading, slots=EXACT_SLOTS, min_points=2)
    rng = np.random.default_rng(seed)
    segmenter, one_by_one = Re0Segmenter(config), []
    for number, seen in enumerate(random_streams(seed, keyframes=EXACT_SLOTS // 2)):
        other = Seen({p: int(m > 3) + 2 * int(rng.random() < 0.1) for p, m in seen.masks.items()})
        one_by_one += [seen, other]
        rows = np.array(list(seen.masks), np.int64)
        pixels = np.stack([np.arange(len(rows)), np.zeros(len(rows))], axis=1).astype(np.float32)
        both = tuple(
            Masks2D(np.array([list(each.masks.values()) or [0]], np.int32), np.ones(14, np.float32))
            for each in (seen, other)
        )
        segmenter.observe(number, rows, pixels, np.ones(len(rows), np.float32), both)
    ids, zeros = np.arange(60), np.zeros((60, 3), np.float32)
    result = segmenter.prepare(Cloud(ids, zeros, zeros.astype(np.uint8), zeros, np.ones(60, np.float32)), ids)()
    expected = twin_instances(twin(60, one_by_one, config), 2)
    assert members(result) == expected
    assert len(expected) > 1


def test_the_readings_differ_in_these_streams() -> None:
    found = []
    for name in READINGS:
        config = Re0Config(**READINGS[name](), slots=EXACT_SLOTS, min_points=2)
        found.append([members(fast(60, random_streams(seed), config)) for seed in range(6)])
    assert all(a != b for i, a in enumerate(found) for b in found[:i])


def house_stream(scene: Path, thin: int) -> tuple[np.ndarray, list[Seen]]:
    """Every second frame of a furnished flat: points (N, 3), every so manyth of the scene's, and what each sees.

    In each frame some masks are united with another and some are lost.
    """
    with np.load(scene / "points.npz", allow_pickle=False) as data:
        xyz = data["xyz"][::thin].astype(float)
    matrix = np.loadtxt(scene / "intrinsic" / "intrinsic_depth.txt")
    rng = np.random.default_rng(0)
    stream = []
    for frame in range(0, len(list((scene / "pose").glob("*.txt"))), 2):
        depth = cv2.imread(str(scene / f"depth/{frame}.png"), cv2.IMREAD_UNCHANGED) / 1000
        labels = Masks2D.from_labels(cv2.imread(str(scene / f"instance/{frame}.png"), cv2.IMREAD_UNCHANGED)).labels
        names = np.arange(labels.max() + 1)
        names = np.where(rng.random(len(names)) < 0.1, rng.permutation(names), names)
        names[rng.random(len(names)) < 0.1] = 0
        pose = np.loadtxt(scene / f"pose/{frame}.txt")
        camera = (xyz - pose[:3, 3]) @ pose[:3, :3]
        front = np.flatnonzero(camera[:, 2] > 0.01)
        u, v, z = (camera[front] @ matrix[:3, :3].T).T
        u, v = np.rint(u / z).astype(int), np.rint(v / z).astype(int)
        inside = (u >= 0) & (u < depth.shape[1]) & (v >= 0) & (v < depth.shape[0])
        front, u, v, z = front[inside], u[inside], v[inside], z[inside]
        near = (depth[v, u] > 0) & (abs(z - depth[v, u]) <= 0.02 + 0.01 * z)
        masks = names[labels[v[near], u[near]]]
        stream.append(Seen(dict(zip(front[near].tolist(), masks.tolist(), strict=True))))
    return xyz, stream


@pytest.mark.parametrize("reading", ["paper", "published"])
def test_a_furnished_flat_agrees_with_the_twin(shared_data: Path, reading: str) -> None:
    xyz, stream = house_stream(shared_data / "house" / "house1", thin=40)
    config = Re0Config(reading=reading, slots=EXACT_SLOTS, min_points=5)
    most_seen = max(Counter(p for seen in stream for p in seen.masks).values())
    assert most_seen <= EXACT_SLOTS, "then votes may be forgotten, and the twin counts more"
    result = fast(len(xyz), stream, config, xyz)
    expected = twin_instances(twin(len(xyz), stream, config), 5)
    assert members(result) == expected
    assert len(expected) > 20


def test_the_profiles_take_the_readings() -> None:
    paper, published = (profiles.build({}, name) for name in ("paper-re0", "published-re0"))
    assert (paper.re0.reading, published.re0.reading) == ("paper", "published")
    assert (published.map.depth_tolerance, published.map.depth_tolerance_relative) == (0.10, 0.0)
    assert paper.re0.min_labelled == 0.25
    assert not paper.re0.count_unlabelled
    assert profiles.build().re0.reading == "seg3d"


# --- each decision, in the smallest case that shows it -------------------------------------------


def instances(stream: list[dict[int, int]], reading: str, **values: object) -> list[list[int]]:
    points = 1 + max(p for seen in stream for p in seen)
    config = Re0Config(**{"reading": reading, "slots": EXACT_SLOTS, "min_points": 1, **values})
    return members(fast(points, [Seen(each) for each in stream], config))


def on(mask: int, points: range) -> dict[int, int]:
    return dict.fromkeys(points, mask)


def test_unlabelled_points_hinder_the_alignment_only_where_they_count() -> None:
    stream = [on(1, range(4)), on(1, range(4)), on(1, range(10))]
    assert instances(stream, "paper", merge=False) == [list(range(10))]
    assert instances(stream, "paper", merge=False, count_unlabelled=True) == [list(range(4)), list(range(4, 10))]


def test_a_mask_that_touches_an_instance_with_a_few_points_is_a_new_one() -> None:
    stream = [on(1, range(2)), on(1, range(2)), on(1, range(9))]
    assert instances(stream, "paper", merge=False, min_labelled=0.25) == [[0, 1], list(range(2, 9))]
    assert instances(stream, "paper", merge=False, min_labelled=0.2) == [list(range(9))]


def test_paper_keeps_the_majority_and_published_the_newest() -> None:
    stream = [on(1, range(4)), on(1, range(4)), on(1, range(2, 20))]
    assert instances(stream, "paper", merge=False) == [[0, 1, 2, 3], list(range(4, 20))]
    assert instances(stream, "published", merge=False) == [[0, 1], list(range(2, 20))]


def test_many_masks_may_take_one_label() -> None:
    stream = [on(1, range(8)), {**on(1, range(4)), **on(2, range(4, 8))}]
    for reading in ("paper", "published"):
        assert instances(stream, reading) == [list(range(8))]


def test_background_is_a_shared_mask_only_in_published() -> None:
    stream = [{**on(1, range(4)), **on(2, range(4, 8))}, on(0, range(8))]
    assert instances(stream, "paper") == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert instances(stream, "published") == [list(range(8))]


def test_the_limits_of_the_merge_are_enough_only_in_published() -> None:
    apart = {**on(1, range(5)), **on(2, range(5, 10))}
    for_paper = [apart, apart, {0: 1, 1: 1, 5: 1, 6: 1}]
    assert [len(instances(for_paper, "paper", k_proj=limit)) for limit in (0.4, 0.39)] == [2, 1]
    for_published = [apart, {0: 0, 1: 0, 5: 0, 6: 0}]
    assert [len(instances(for_published, "published", k_proj=limit)) for limit in (0.41, 0.4)] == [2, 1]
