# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""RE0 as a stream: what holds in every reading, and how the default one, `seg3d`, behaves."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest

from seg3d_core.config import Re0Config
from seg3d_core.errors import FrameError, MapFileError
from seg3d_core.metrics.ap import SceneEvaluation, average_precision
from seg3d_core.segmenters.re0 import Re0Segmentation, Re0Segmenter
from seg3d_core.types import Cloud, Masks2D

SIZE = 32
every_reading = pytest.mark.parametrize("reading", ["seg3d", "paper", "published"])


@dataclass
class Observation:
    rows: np.ndarray
    pixels: np.ndarray
    masks: tuple[Masks2D, ...]


def make_cloud(xyz: np.ndarray) -> Cloud:
    n = len(xyz)
    zeros = np.zeros((n, 3), np.float32)
    return Cloud(np.arange(n) * 3 + 5, xyz.astype(np.float32), zeros.astype(np.uint8), zeros, np.ones(n, np.float32))


def random_stream(seed: int, images: int = 2) -> tuple[Cloud, list[Observation]]:
    """Blobs of a plane seen through a sliding window, with masks that drop, merge and split them."""
    points, keyframes = 600, 14
    rng = np.random.default_rng(seed)
    xyz = np.column_stack([rng.uniform(0, 3, (points, 2)), rng.normal(0, 0.01, points)])
    truth = (xyz[:, 0] * 2).astype(int) * 4 + (xyz[:, 1] * 1.2).astype(int) + 1
    observations = []
    for t in range(keyframes):
        left = 2 * t / keyframes
        rows = np.flatnonzero((xyz[:, 0] >= left) & (xyz[:, 0] < left + 1.3) & (rng.random(points) < 0.8))
        pixels = np.stack(np.divmod(np.arange(len(rows)), SIZE)[::-1], axis=1).astype(np.float32)
        masks = []
        for _ in range(images):
            naming = np.where(rng.random(40) < 0.15, 0, np.arange(40))
            naming = np.where(rng.random(40) < 0.2, np.roll(naming, 1), naming)
            labels = np.zeros((SIZE, SIZE), np.int32)
            wrong = rng.random(len(rows)) < 0.1
            on = np.where(wrong, rng.integers(0, 20, len(rows)), truth[rows])
            labels[pixels[:, 1].astype(int), pixels[:, 0].astype(int)] = naming[on]
            masks.append(Masks2D.from_labels(labels))
        observations.append(Observation(rows, pixels, tuple(masks)))
    return make_cloud(xyz), observations


def stream(config: Re0Config, observations: list[Observation]) -> Re0Segmenter:
    segmenter = Re0Segmenter(config)
    for number, o in enumerate(observations):
        segmenter.observe(number, o.rows, o.pixels, np.ones(len(o.rows), np.float32), o.masks)
    return segmenter


def segment(segmenter: Re0Segmenter, cloud: Cloud) -> Re0Segmentation:
    return segmenter.prepare(cloud, np.arange(len(cloud)))()


@every_reading
def test_same_frames_same_bytes(reading: str) -> None:
    cloud, observations = random_stream(1)
    first, second = (segment(stream(Re0Config(reading=reading, min_points=4), observations), cloud) for _ in range(2))
    for name in ("ids", "scores", "indptr", "point_ids"):
        assert getattr(first.instances, name).tobytes() == getattr(second.instances, name).tobytes()
    assert first.views == second.views


def test_scores_and_views_go_with_the_instances() -> None:
    cloud, observations = random_stream(2)
    result = segment(stream(Re0Config(min_points=4), observations), cloud)
    assert len(result.views) == len(result.instances)
    assert ((result.instances.scores >= 0) & (result.instances.scores <= 1)).all()
    assert all(views and views[0].score >= views[-1].score for views in result.views)
    assert not result.instances.ids.any()


@every_reading
def test_snapshots_in_between_change_nothing(reading: str) -> None:
    cloud, observations = random_stream(7)
    config = Re0Config(reading=reading, min_points=4)
    part = cloud.select(np.arange(200))
    # Its superpoints grow with the cloud: see test_re0_growing.py.
    part = cloud if reading == "seg3d" else part
    often = Re0Segmenter(config)
    for number, o in enumerate(observations):
        often.observe(number, o.rows, o.pixels, np.ones(len(o.rows)), o.masks)
        segment(often, cloud if number % 3 else part)
    a, b = segment(often, cloud), segment(stream(config, observations), cloud)
    assert len(a.instances) > 3
    for name in ("scores", "indptr", "point_ids"):
        assert getattr(a.instances, name).tobytes() == getattr(b.instances, name).tobytes()
    assert a.views == b.views


@every_reading
def test_a_prepared_segmentation_does_not_see_what_comes_after(reading: str) -> None:
    cloud, observations = random_stream(3)
    segmenter = stream(Re0Config(reading=reading, min_points=4), observations[:7])
    before = segment(segmenter, cloud)
    prepared = segmenter.prepare(cloud, np.arange(len(cloud)))
    for number, o in enumerate(observations[7:], 7):
        segmenter.observe(number, o.rows, o.pixels, np.ones(len(o.rows)), o.masks)
    segmenter.remap(np.arange(len(cloud))[::-1].copy())
    after = prepared()
    assert after.instances.point_ids.tobytes() == before.instances.point_ids.tobytes()
    assert after.views == before.views


@every_reading
def test_compacting_the_map_in_between_changes_nothing(reading: str) -> None:
    cloud, observations = random_stream(4)
    shuffled = np.random.default_rng(0).permutation(len(cloud))
    segmenter = stream(Re0Config(reading=reading, min_points=4), observations[:7])
    segmenter.remap(shuffled)
    for number, o in enumerate(observations[7:], 7):
        segmenter.observe(number, shuffled[o.rows], o.pixels, np.ones(len(o.rows)), o.masks)
    moved = segmenter.prepare(cloud, shuffled)()
    plain = segment(stream(Re0Config(reading=reading, min_points=4), observations), cloud)
    assert moved.instances.point_ids.tobytes() == plain.instances.point_ids.tobytes()
    assert moved.instances.scores.tobytes() == plain.instances.scores.tobytes()
    assert moved.views == plain.views


@every_reading
def test_removed_points_are_gone(reading: str) -> None:
    cloud, observations = random_stream(4)
    segmenter = stream(Re0Config(reading=reading, min_points=4), observations)
    keep = np.arange(len(cloud)) % 3 > 0
    segmenter.remap(np.where(keep, np.cumsum(keep) - 1, -1))
    rest = cloud.select(keep)
    result = segmenter.prepare(rest, np.arange(int(keep.sum())))()
    assert len(result.instances) > 3
    assert np.isin(result.instances.point_ids, rest.ids).all()


@every_reading
def test_a_restored_segmenter_goes_on_alike(reading: str) -> None:
    cloud, observations = random_stream(5)
    config = Re0Config(reading=reading, min_points=4)
    segmenter, other = stream(config, observations[:7]), Re0Segmenter(config)
    other.restore(segmenter.state())
    for each in (segmenter, other):
        for number, o in enumerate(observations[7:], 7):
            each.observe(number, o.rows, o.pixels, np.ones(len(o.rows)), o.masks)
    a, b = segment(segmenter, cloud), segment(other, cloud)
    assert a.instances.point_ids.tobytes() == b.instances.point_ids.tobytes()
    assert a.views == b.views


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("votes_labels", lambda array: None),
        ("votes_labels", lambda array: array * 0 - 5),
        ("votes_weights", lambda array: np.zeros((1, 1), np.uint16)),
        ("votes_sightings", lambda array: array[1:]),
        ("log_rows", lambda array: None),
        ("log_rows", lambda array: array * 0 + 30_000),
        ("log_rows", lambda array: array[1:]),
        ("log_masks", lambda array: array * 0 + 30_000),
        ("log_masks", lambda array: array[::2]),
        ("log_label_images", lambda array: None),
        ("log_label_images", lambda array: array - 1),
        ("log_mask_counts", lambda array: array[1:]),
        ("log_numbers", lambda array: array[:0]),
        ("log_pixels", lambda array: array.astype(float)),
        ("next_label", lambda array: None),
    ],
)
def test_a_damaged_state_is_refused(name: str, spoil: Callable[[np.ndarray], np.ndarray | None]) -> None:
    _, observations = random_stream(5)
    state = stream(Re0Config(reading="paper"), observations[:3]).state()
    spoiled = spoil(state.pop(name))
    if spoiled is not None:
        state[name] = spoiled
    segmenter = Re0Segmenter(Re0Config(reading="paper"))
    with pytest.raises(MapFileError):
        segmenter.restore(state)


@every_reading
def test_a_reset_segmenter_is_as_new(reading: str) -> None:
    cloud, observations = random_stream(6)
    segmenter = stream(Re0Config(reading=reading, min_points=4), observations)
    segmenter.reset()
    assert len(segment(segmenter, cloud).instances) == 0
    for number, o in enumerate(observations):
        segmenter.observe(number, o.rows, o.pixels, np.ones(len(o.rows)), o.masks)
    fresh = segment(stream(Re0Config(reading=reading, min_points=4), observations), cloud)
    assert segment(segmenter, cloud).instances.point_ids.tobytes() == fresh.instances.point_ids.tobytes()


@every_reading
def test_nothing_in_nothing_out(reading: str) -> None:
    segmenter = Re0Segmenter(Re0Config(reading=reading))
    empty = Cloud.empty()
    assert len(segmenter.prepare(empty, np.empty(0, np.int64))().instances) == 0
    none = Masks2D(np.zeros((4, 4), np.int32), np.empty(0, np.float32))
    segmenter.observe(0, np.empty(0, np.int64), np.empty((0, 2), np.float32), np.empty(0, np.float32), (none,))
    segmenter.observe(1, np.array([2]), np.array([[3.0, 3.0]]), np.array([1.0]), (none,))
    result = segment(segmenter, make_cloud(np.eye(3)))
    assert (len(result.instances), result.views) == (0, ())


def plates() -> Cloud:
    """Two coloured plates of 10 x 10 points side by side: the first hundred points and the others."""
    u, v = np.meshgrid(np.arange(10), np.arange(20))
    xyz = np.stack([v.ravel() * 0.03, u.ravel() * 0.03, np.zeros(200)], axis=1).astype(np.float32)
    rgb = np.repeat(np.array([[200, 60, 50], [70, 90, 210]], np.uint8), 100, axis=0)
    normals = np.tile(np.array([0, 0, 1], np.float32), (200, 1))
    return Cloud(np.arange(200), xyz, rgb, normals, np.ones(200, np.float32))


def look(segmenter: Re0Segmenter, number: int, *images: list[int]) -> None:
    """A keyframe that sees row 0, 1, ... on these masks of each label image."""
    n = len(images[0])
    pixels = np.stack([np.arange(n), np.zeros(n)], axis=1).astype(np.float32)
    masks = tuple(Masks2D(np.array([image], np.int32), np.ones(max(image), np.float32)) for image in images)
    segmenter.observe(number, np.arange(n), pixels, np.ones(n, np.float32), masks)


ONE, TWO, NOTHING = [1] * 200, [1] * 100 + [2] * 100, [0] * 200


def sizes(segmenter: Re0Segmenter, cloud: Cloud) -> list[int]:
    return segment(segmenter, cloud).instances.sizes.tolist()


def test_what_one_mask_joined_is_split_when_the_evidence_turns_and_the_other_way_round() -> None:
    cloud = plates()
    for first, then, before, after in ((ONE, TWO, [200], [100, 100]), (TWO, ONE, [100, 100], [200])):
        segmenter = Re0Segmenter(Re0Config())
        for number in range(4):
            look(segmenter, number, first)
        assert sizes(segmenter, cloud) == before
        for number in range(4, 40):
            look(segmenter, number, then)
        assert sizes(segmenter, cloud) == after
    assert sizes(segmenter, cloud) == sizes(segmenter, cloud), "and looking changes nothing"


def test_each_label_image_of_a_keyframe_is_evidence() -> None:
    cloud = plates()
    both, alone = Re0Segmenter(Re0Config()), Re0Segmenter(Re0Config())
    for number in range(12):
        look(alone, number, ONE)
        look(both, number, ONE, *[TWO] * 3)
    assert (sizes(alone, cloud), sizes(both, cloud)) == ([200], [100, 100])
    assert segment(both, cloud).instances.scores.tolist() == [1, 1], "the best mask of any image counts"


def test_what_no_mask_shows_is_no_instance_seen_or_not() -> None:
    cloud = plates()
    segmenter = Re0Segmenter(Re0Config(min_points=1))
    assert sizes(segmenter, cloud) == []
    for number in range(5):
        look(segmenter, number, NOTHING, NOTHING)
    assert sizes(segmenter, cloud) == []
    look(segmenter, 5, [1] * 100 + [0] * 100)
    assert sizes(segmenter, cloud) == [], "five looks outweigh one"
    segmenter.reset()
    look(segmenter, 0, [1] * 100 + [0] * 100)
    assert sizes(segmenter, cloud) == [100], "the other plate was seen on no mask"
    segmenter.reset()
    look(segmenter, 0, [1] * 100)
    away = np.where(np.arange(200)[:, None] < 100, 0, 1).astype(np.float32)
    parted = Cloud(cloud.ids, cloud.xyz + away, cloud.rgb, cloud.normals, cloud.weight)
    assert sizes(segmenter, parted) == [100], "the other plate was not seen"


def test_a_hole_that_nobody_saw_belongs_to_what_is_around_it() -> None:
    cloud = plates()
    segmenter, hole = Re0Segmenter(Re0Config()), np.array([44, 45, 54, 55, 144, 145])
    rows = np.setdiff1d(np.arange(200), hole)
    pixels = np.stack([np.arange(len(rows)), np.zeros(len(rows))], axis=1)
    masks = Masks2D(np.array([np.array(TWO)[rows]], np.int32), np.ones(2, np.float32))
    for number in range(3):
        segmenter.observe(number, rows, pixels, np.ones(len(rows)), (masks,))
    assert sizes(segmenter, cloud) == [100, 100]


@every_reading
@pytest.mark.parametrize("normals", [True, False])
@pytest.mark.parametrize("where", ["apart", "in one place", "in two places", "one point", "on a line"])
def test_odd_clouds_give_finite_numbers(reading: str, normals: bool, where: str) -> None:
    n = 1 if where == "one point" else 60
    xyz = {
        "apart": np.random.default_rng(0).uniform(0, 50, (n, 3)),
        "in two places": np.repeat([[0.0, 0, 0], [0, 0, 1]], n // 2, axis=0) if n > 1 else None,
        "on a line": np.outer(np.arange(n), [0.02, 0, 0]),
    }.get(where, np.full((n, 3), 2.5))
    direction = np.tile(np.array([0, 0, float(normals)], np.float32), (n, 1))
    cloud = Cloud(np.arange(n), xyz.astype(np.float32), np.zeros((n, 3), np.uint8), direction, np.ones(n, np.float32))
    segmenter = Re0Segmenter(Re0Config(reading=reading, min_points=1))
    for number in range(4):
        look(segmenter, number, [1 + (p >= n // 2) for p in range(n)])
    result = segment(segmenter, cloud).instances
    assert len(result) > 0
    assert np.isfinite(result.scores).all()
    assert ((result.scores >= 0) & (result.scores <= 1)).all()
    assert result.sizes.sum() == n


def test_a_cloud_without_normals_and_colours_is_cut_into_cells_that_masks_tell_apart() -> None:
    u, v = np.meshgrid(np.arange(9), np.arange(18))
    cloud = make_cloud(np.stack([v.ravel() / 32, u.ravel() / 32, np.zeros(162)], axis=1))
    segmenter = Re0Segmenter(Re0Config())
    for number in range(6):
        look(segmenter, number, [1] * 81 + [2] * 81)
    assert sizes(segmenter, cloud) == [81, 81]


@every_reading
def test_masks_that_do_not_fit_are_refused_and_leave_no_trace(reading: str) -> None:
    segmenter = Re0Segmenter(Re0Config(reading=reading, min_points=1))
    rows, depths = np.array([0]), np.ones(1)
    masks = Masks2D(np.ones((4, 4), np.int32), np.ones(1, np.float32))
    with pytest.raises(FrameError, match="4 x 4") as caught:
        segmenter.observe(0, rows, np.array([[7.0, 1.0]]), depths, (masks,))
    assert caught.value.reason == "mask_size"
    with pytest.raises(FrameError, match="from 0 to 1"):
        segmenter.observe(0, rows, np.array([[1.0, 1.0]]), depths, (masks, Masks2D(masks.labels * 9, masks.scores)))
    with pytest.raises(FrameError, match="image of labels"):
        segmenter.observe(
            0, rows, np.array([[1.0, 1.0]]), depths, (masks, Masks2D(masks.labels, np.ones(4097, np.float32)))
        )
    assert len(segment(segmenter, make_cloud(np.eye(3))).instances) == 0
    assert all(len(array) == 0 for name, array in segmenter.state().items() if name.startswith("log_"))
    most = Masks2D(masks.labels * 4096, np.ones(4096, np.float32))
    segmenter.observe(0, rows, np.array([[1.0, 1.0]]), depths, (masks, most))
    assert len(segment(segmenter, make_cloud(np.eye(3))).instances) == 1


def test_a_pixel_that_rounds_over_the_border_belongs_to_the_border() -> None:
    segmenter = Re0Segmenter(Re0Config(min_points=1))
    masks = Masks2D(np.ones((4, 4), np.int32), np.ones(1, np.float32))
    segmenter.observe(0, np.array([0]), np.array([[3.5, 3.4999]], np.float32), np.ones(1), (masks,))
    assert len(segment(segmenter, make_cloud(np.eye(3))).instances) == 1


def test_true_masks_give_the_things_of_a_furnished_flat(shared_data: Path) -> None:
    scene = shared_data / "house" / "house1"
    with np.load(scene / "points.npz", allow_pickle=False) as data:
        xyz, instance = data["xyz"], data["instance"]
    about = json.loads((scene / "instances.json").read_text())["instances"]
    things = [int(i) for i, a in about.items() if not a["is_structure"] and not a["is_carpet"]]
    matrix = np.loadtxt(scene / "intrinsic" / "intrinsic_depth.txt")
    segmenter = Re0Segmenter(Re0Config())
    for i in range(0, 70, 2):
        depth = cv2.imread(str(scene / f"depth/{i}.png"), cv2.IMREAD_UNCHANGED) / 1000
        masks = Masks2D.from_labels(cv2.imread(str(scene / f"instance/{i}.png"), cv2.IMREAD_UNCHANGED))
        pose = np.loadtxt(scene / f"pose/{i}.txt")
        points = (xyz - pose[:3, 3]) @ pose[:3, :3]
        rows = np.flatnonzero(points[:, 2] > 0.1)
        uvw = points[rows] @ matrix[:3, :3].T
        pixels = uvw[:, :2] / uvw[:, 2:]
        inside = ((pixels >= -0.49) & (pixels < np.array(depth.shape[::-1]) - 0.51)).all(axis=1)
        rows, pixels, z = rows[inside], pixels[inside], uvw[inside, 2]
        measured = depth[tuple(np.rint(pixels).astype(int).T[::-1])]
        near = (measured > 0) & (np.abs(z - measured) < 0.02 + 0.01 * z)
        segmenter.observe(i, rows[near], pixels[near], z[near], (masks,))
    result = segment(segmenter, make_cloud(xyz)).instances
    truth = np.where(np.isin(instance, things), 1000 + instance, 0)
    partition = result.exclusive(np.arange(len(xyz)) * 3 + 5)
    scene_result = average_precision(
        [SceneEvaluation.from_partition(truth, partition, result.scores)], [1], agnostic=True
    )
    assert scene_result.ap50 >= 0.95


@every_reading
def test_scores_do_not_hang_on_whether_dead_rows_were_squeezed_out(reading: str) -> None:
    cloud, observations = random_stream(4)
    keep = np.arange(len(cloud)) % 3 > 0
    rest = cloud.select(keep)
    segmenter = stream(Re0Config(reading=reading, min_points=4), observations)
    before = segmenter.prepare(rest, np.flatnonzero(keep))()
    segmenter.remap(np.where(keep, np.cumsum(keep) - 1, -1))
    after = segmenter.prepare(rest, np.arange(len(rest)))()
    assert before.instances.point_ids.tobytes() == after.instances.point_ids.tobytes()
    assert before.instances.scores.tobytes() == after.instances.scores.tobytes()
    assert before.views == after.views


def test_a_segmentation_costs_by_labels_in_use_not_by_labels_ever_given() -> None:
    cloud, observations = random_stream(4)
    young, old = Re0Segmenter(Re0Config(min_points=4)), Re0Segmenter(Re0Config(min_points=4))
    old._next_label = 40_000_000
    sizes = []
    for segmenter in (young, old):
        for number, o in enumerate(observations):
            segmenter.observe(number, o.rows, o.pixels, np.ones(len(o.rows)), o.masks)
        job = segmenter.prepare(cloud, np.arange(len(cloud)))
        tracemalloc.start()
        result = job()
        sizes.append((tracemalloc.get_traced_memory()[1], result))
        tracemalloc.stop()
    assert sizes[0][1].instances.point_ids.tobytes() == sizes[1][1].instances.point_ids.tobytes()
    assert sizes[1][0] < sizes[0][0] + 10_000_000
