"""RE0 as a stream: what holds in every reading, and the default against its rules, one point and mask at a time."""

from __future__ import annotations

import json
import tracemalloc
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
    masks: Masks2D


def make_cloud(xyz: np.ndarray) -> Cloud:
    n = len(xyz)
    zeros = np.zeros((n, 3), np.float32)
    return Cloud(np.arange(n) * 3 + 5, xyz.astype(np.float32), zeros.astype(np.uint8), zeros, np.ones(n, np.float32))


def random_stream(seed: int, points: int = 240, keyframes: int = 14) -> tuple[Cloud, list[Observation]]:
    """Blobs of a plane seen through a sliding window, with masks that drop, merge and split them."""
    rng = np.random.default_rng(seed)
    xyz = np.column_stack([rng.uniform(0, 3, (points, 2)), rng.normal(0, 0.01, points)])
    truth = (xyz[:, 0] * 2).astype(int) * 4 + (xyz[:, 1] * 1.2).astype(int) + 1
    observations = []
    for t in range(keyframes):
        left = 2 * t / keyframes
        rows = np.flatnonzero((xyz[:, 0] >= left) & (xyz[:, 0] < left + 1.3) & (rng.random(points) < 0.8))
        naming = np.where(rng.random(40) < 0.15, 0, np.arange(40))
        naming = np.where(rng.random(40) < 0.2, np.roll(naming, 1), naming)
        labels = np.zeros((SIZE, SIZE), np.int32)
        pixels = np.stack(np.divmod(np.arange(len(rows)), SIZE)[::-1], axis=1).astype(np.float32)
        wrong = rng.random(len(rows)) < 0.1
        on = np.where(wrong, rng.integers(0, 20, len(rows)), truth[rows])
        labels[pixels[:, 1].astype(int), pixels[:, 0].astype(int)] = naming[on]
        observations.append(Observation(rows, pixels, Masks2D.from_labels(labels)))
    return make_cloud(xyz), observations


def stream(config: Re0Config, observations: list[Observation]) -> Re0Segmenter:
    segmenter = Re0Segmenter(config)
    for number, o in enumerate(observations):
        segmenter.observe(number, o.rows, o.pixels, np.ones(len(o.rows), np.float32), o.masks)
    return segmenter


def segment(segmenter: Re0Segmenter, cloud: Cloud) -> Re0Segmentation:
    return segmenter.prepare(cloud, np.arange(len(cloud)))()


def majority(votes: dict[int, int]) -> int:
    return max(((count, label) for label, count in votes.items()), default=(0, 0))[1]


def literal_align(current: list[int], masks: dict[int, list[int]], config: Re0Config, fresh: int) -> dict[int, int]:
    """Mask number -> label; `current` labels of all points, `masks` number -> points."""
    shared = {m: {} for m in masks}
    for m, points in masks.items():
        for p in points:
            if current[p] >= 2:
                shared[m][current[p]] = shared[m].get(current[p], 0) + 1
    labelled = {m: sum(shared[m].values()) for m in masks}
    taken: dict[int, int] = {}
    visible: dict[int, int] = {}
    for counts in shared.values():
        for label, count in counts.items():
            visible[label] = visible.get(label, 0) + count
    pairs = []
    for m in masks:
        for label, c in shared[m].items():
            if m and (c / labelled[m] > config.k_align or c / visible[label] > config.k_align):
                pairs.append((-c / (labelled[m] + visible[label] - c), -label, m))
    for _, label, m in sorted(pairs):
        if m not in taken and -label not in taken.values():
            taken[m] = -label
    for m in sorted(masks):
        if m and m not in taken:
            taken[m] = fresh
            fresh += 1
    return taken


def literal_merge(labels: list[int], frames: list[dict[int, list[int]]], config: Re0Config) -> None:
    """Equations 3 to 5, in place."""

    def mask_of(label: int, masks: dict[int, list[int]]) -> int:
        size = labels.count(label)
        on = {m: sum(labels[p] == label for p in points) for m, points in masks.items()}
        visible = sum(on.values())
        best = min((m for m in on if m), key=lambda m: (-on[m], m), default=0)
        if not best or visible / size <= config.k_proj or on[best] / visible <= config.k_mask:
            return 0
        return best

    for masks in frames:
        names = sorted({labels[p] for points in masks.values() for p in points} - {0, 1})
        for i in names:
            for j in names:
                if (
                    i < j
                    and i in labels
                    and j in labels
                    and mask_of(i, masks)
                    and mask_of(i, masks) == mask_of(j, masks)
                ):
                    labels[:] = [i if label == j else label for label in labels]


def literal_fill(labels: list[int], seen: list[bool], xyz: np.ndarray) -> None:
    holes = [p for p in range(len(labels)) if not seen[p]]
    labels[:] = [1 if seen[p] and labels[p] == 0 else labels[p] for p in range(len(labels))]
    if not holes or len(holes) == len(labels):
        return
    distance = np.linalg.norm(xyz[:, None] - xyz[None], axis=2)
    near = {p: np.argsort(distance[p], kind="stable")[1:9] for p in holes}
    reach = 3 * np.median([distance[p, near[p][0]] for p in holes])
    for _ in range(3):
        before = list(labels)
        for p in holes:
            votes: dict[int, int] = {}
            for q in near[p]:
                if distance[p, q] <= reach and before[q]:
                    votes[before[q]] = votes.get(before[q], 0) + 1
            labels[p] = before[p] or majority(votes)


def literal_labels(config: Re0Config, cloud: Cloud, observations: list[Observation]) -> list[int]:
    """The label of every point at the end, with unbounded histograms."""
    votes: list[dict[int, int]] = [{} for _ in cloud.ids]
    seen = [False] * len(votes)
    frames, fresh = [], 2
    for o in observations:
        masks: dict[int, list[int]] = {}
        for row, (u, v) in zip(o.rows.tolist(), o.pixels.astype(int).tolist(), strict=True):
            masks.setdefault(int(o.masks.labels[v, u]), []).append(row)
            seen[row] = True
        taken = literal_align([majority(v) for v in votes], masks, config, fresh)
        fresh = max([fresh - 1, *taken.values()]) + 1
        for m, points in masks.items():
            label = taken[m] if m else 1
            for p in points:
                votes[p][label] = votes[p].get(label, 0) + 1
        frames.append(masks)
    labels = [majority(v) for v in votes]
    if config.merge:
        literal_merge(labels, frames, config)
    literal_fill(labels, seen, cloud.xyz.astype(float))
    return labels


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("merge", [False, True])
def test_agrees_with_the_literal_reading(seed: int, merge: bool) -> None:
    config = Re0Config(slots=16, merge=merge, min_points=4)
    cloud, observations = random_stream(seed)
    result = segment(stream(config, observations), cloud).instances
    literal = np.array(literal_labels(config, cloud, observations))
    kept = [label for label in np.unique(literal) if label >= 2 and (literal == label).sum() >= 4]
    assert len(result) == len(kept) > 3
    for k, label in enumerate(kept):
        assert result.members(k).tolist() == cloud.ids[literal == label].tolist()


def test_the_merge_changes_something_in_these_streams() -> None:
    cloud, observations = random_stream(0)
    apart, merged = (stream(Re0Config(merge=m, min_points=4), observations) for m in (False, True))
    assert len(segment(merged, cloud).instances) < len(segment(apart, cloud).instances)


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
    rest = Cloud(cloud.ids[keep], cloud.xyz[keep], cloud.rgb[keep], cloud.normals[keep], cloud.weight[keep])
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
    ("name", "value"),
    [
        ("votes_weights", np.zeros((1, 1), np.uint16)),
        ("votes_labels", None),
        ("log_rows", None),
        ("log_masks", "large"),
        ("log_rows", "large"),
        ("votes_labels", "negative"),
    ],
)
def test_a_damaged_state_is_refused(name: str, value: object) -> None:
    _, observations = random_stream(5)
    state = stream(Re0Config(), observations[:3]).state()
    if value is None:
        del state[name]
    elif isinstance(value, str):
        state[name] = state[name].copy()
        state[name][:] = 30_000 if value == "large" else -5
    else:
        state[name] = value
    segmenter = Re0Segmenter(Re0Config())
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
    segmenter.observe(0, np.empty(0, np.int64), np.empty((0, 2), np.float32), np.empty(0, np.float32), none)
    segmenter.observe(1, np.array([2]), np.array([[3.0, 3.0]]), np.array([1.0]), none)
    result = segment(segmenter, make_cloud(np.eye(3)))
    assert (len(result.instances), result.views) == (0, ())


@every_reading
def test_masks_that_do_not_fit_are_refused_and_leave_no_trace(reading: str) -> None:
    segmenter = Re0Segmenter(Re0Config(reading=reading, min_points=1))
    rows, depths = np.array([0]), np.ones(1)
    masks = Masks2D(np.ones((4, 4), np.int32), np.ones(1, np.float32))
    with pytest.raises(FrameError, match="4 x 4") as caught:
        segmenter.observe(0, rows, np.array([[7.0, 1.0]]), depths, masks)
    assert caught.value.reason == "mask_size"
    with pytest.raises(FrameError, match="from 0 to 1"):
        segmenter.observe(0, rows, np.array([[1.0, 1.0]]), depths, Masks2D(masks.labels * 9, masks.scores))
    with pytest.raises(FrameError, match="image of labels"):
        segmenter.observe(0, rows, np.array([[1.0, 1.0]]), depths, Masks2D(masks.labels, np.ones(20_000, np.float32)))
    assert len(segment(segmenter, make_cloud(np.eye(3))).instances) == 0


def test_a_pixel_that_rounds_over_the_border_belongs_to_the_border() -> None:
    segmenter = Re0Segmenter(Re0Config(min_points=1))
    masks = Masks2D(np.ones((4, 4), np.int32), np.ones(1, np.float32))
    segmenter.observe(0, np.array([0]), np.array([[3.5, 3.4999]], np.float32), np.ones(1), masks)
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
        segmenter.observe(i, rows[near], pixels[near], z[near], masks)
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
    rest = Cloud(cloud.ids[keep], cloud.xyz[keep], cloud.rgb[keep], cloud.normals[keep], cloud.weight[keep])
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
