# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Where MobileSAM is asked, which answers are kept, and what comes out for images of every kind."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

torch = pytest.importorskip("torch", reason="needs torch: pip install 'seg3d[sam]'")

from seg3d_core import build  # noqa: E402
from seg3d_core.config import build as build_config  # noqa: E402
from seg3d_core.errors import FrameError, WeightsError  # noqa: E402
from seg3d_core.perception import weights  # noqa: E402
from seg3d_core.perception.mobile_sam import automatic, backends, generator, network  # noqa: E402
from seg3d_core.perception.several import NewestMasks, SeveralMasks  # noqa: E402
from seg3d_core.types import Camera, Frame, Masks2D  # noqa: E402

SMALL = {"perception.masks": "mobile_sam", "perception.sam_side": 128, "perception.sam_prompts": 12}
LIMITS = automatic.Limits()


def frame_of(rgb: np.ndarray, depth: float = 2.0) -> Frame:
    height, width = rgb.shape[:2]
    camera = Camera(width, height, width, width, width / 2, height / 2)
    return Frame(0, 0.0, rgb, np.full((height, width), depth, np.float32), camera, np.eye(4))


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height).integers(0, 255, (height, width, 3), np.uint8)


# ---------------------------------------------------------------- where clicks go


@settings(max_examples=60, deadline=None)
@given(arrays.arrays(np.int32, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 4)))
def test_every_segment_has_one_point_inside_itself(labels) -> None:
    points = automatic.interior_points(labels)
    found = [int(labels[int(y), int(x)]) for x, y in points]
    assert sorted(found) == sorted(set(labels.ravel().tolist()) - {0})
    sizes = [int((labels == label).sum()) for label in found]
    assert sizes == sorted(sizes, reverse=True)


def test_the_point_is_far_from_the_segments_edge() -> None:
    labels = np.zeros((40, 60), np.int32)
    labels[5:36, 3:10] = 1
    labels[5:36, 10:41] = 2
    (x2, y2), (x1, y1) = automatic.interior_points(labels)
    assert abs(x2 - 25) <= 1 and abs(y2 - 20) <= 1
    assert abs(x1 - 6) <= 1 and 8 <= y1 <= 32


def test_grid_points_are_cell_centres() -> None:
    points = automatic.grid_points(2, 4, 8)
    assert points.tolist() == [[1.5, 0.5], [5.5, 0.5], [1.5, 2.5], [5.5, 2.5]]


class Disks:
    """Stands for the network: one sure mask around every click, with two of low predicted IoU."""

    def __init__(self, size: int, radius: float):
        self.size, self.radius, self.clicks = size, radius, []

    def __call__(self, points):
        self.clicks += points.tolist()
        v, u = np.mgrid[: self.size, : self.size]
        distance = np.hypot(u - points[:, 0, None, None], v - points[:, 1, None, None])
        logits = np.repeat(10 * (self.radius - distance)[:, None], 3, 1).astype(np.float32)
        iou = np.tile(np.float32([0.95, 0.3, 0.3]), (len(points), 1))
        return logits, iou, np.zeros((len(points), 3, 256), np.float32)


def run(click, rounds, budget=100, batch=1, limits=LIMITS):
    return automatic.find_candidates(click, rounds, (64, 64), budget, batch, limits)


def test_points_inside_kept_masks_are_left_out() -> None:
    click = Disks(64, 40.0)
    found, spent = run(click, [np.float32([[10, 10]]), automatic.grid_points(4, 64, 64)])
    assert spent == len(click.clicks) < 17
    first = np.hypot(*(np.array(click.clicks[1:]) - 10).T)
    assert (first > 39).all()
    assert len(found) == spent and (found.output == 0).all()


def test_the_budget_of_clicks_is_kept() -> None:
    click = Disks(64, 1.0)
    loose = automatic.Limits(least_area=0.0, least_stability=0.0)
    assert run(click, [automatic.grid_points(8, 64, 64)], 10, 4, loose)[1] == len(click.clicks) == 10


def test_unstable_small_large_and_unsure_masks_are_left_out() -> None:
    points = np.float32([[32, 32]])
    assert len(run(Disks(64, 10.0), [points])[0]) == 1
    assert len(run(Disks(64, 10.0), [points], limits=automatic.Limits(least_iou=0.96))[0]) == 0
    assert len(run(Disks(64, 10.0), [points], limits=automatic.Limits(least_area=0.5))[0]) == 0
    assert len(run(Disks(64, 100.0), [points])[0]) == 0
    assert len(run(Disks(64, 10.0), [points], limits=automatic.Limits(least_stability=0.99))[0]) == 0
    assert len(run(Disks(64, 10.0), [np.empty((0, 2), np.float32)])[0]) == 0


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 8), st.floats(0.1, 0.9), st.integers(0, 2**31))
def test_duplicates_go_as_a_plain_greedy_search_would_have_it(count, most, seed) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(count, 4, 4)).astype(np.float32)
    iou = np.sort(rng.random(count).astype(np.float32))[::-1]
    number = np.arange(count)
    found = automatic.Candidates(logits, iou, iou, np.zeros((count, 256), np.float32), number, number)
    kept = []
    for k in range(count):
        overlaps = [
            ((logits[k] > 0) & (logits[j] > 0)).sum() / max(((logits[k] > 0) | (logits[j] > 0)).sum(), 1) for j in kept
        ]
        if all(np.float32(overlap) <= np.float32(most) for overlap in overlaps):
            kept.append(k)
    assert automatic.without_duplicates(found, np.float32(most)).prompt.tolist() == kept


def test_masks_are_enlarged_before_they_are_cut() -> None:
    logits = np.float32([[[-1, 3], [-1, 3]]])
    mask = generator.full_size(logits, (2, 8))[0]
    assert mask[0].tolist() == [False, False, False, True, True, True, True, True]


# ---------------------------------------------------------------- whole frames


@pytest.fixture(scope="module")
def untrained() -> network.MobileSamNetwork:
    torch.manual_seed(0)
    net = network.MobileSamNetwork()
    net.prompt_encoder.pe_layer.positional_encoding_gaussian_matrix.normal_()
    network.fold_batch_norm(net)
    return net.eval().requires_grad_(False)


@pytest.fixture(autouse=True)
def only_torch(monkeypatch, tmp_path_factory) -> None:
    """Neither timing nor export, which the other file tests."""
    monkeypatch.setattr(backends, "_possible", lambda: ["torch"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def sam(net, **changes) -> generator.MobileSam:
    loose = {"perception.sam_iou": 0.0, "perception.sam_stability": 0.0, "perception.min_area": 0.0}
    return generator.MobileSam(net, build_config({**SMALL, **loose, **changes}).perception)


@pytest.mark.parametrize("shape", [(33, 57), (57, 33), (64, 64), (1, 40), (200, 90)])
def test_images_of_any_size_have_disjoint_masks(untrained, shape) -> None:
    model, frame = sam(untrained), frame_of(picture(*shape))
    masks = model.masks(frame)
    assert masks.labels.shape == shape and masks.labels.dtype == np.int32
    assert set(np.unique(masks.labels)) <= set(range(len(masks) + 1))
    assert ((masks.scores >= 0) & (masks.scores <= 1)).all()


def test_wholes_and_parts_are_label_images_of_their_own(untrained, monkeypatch) -> None:
    """A large square with a small one on it, and one that nothing overlaps."""
    logits = np.full((3, 12, 16), -9.0, np.float32)
    logits[0, :9, :9], logits[1, 3:6, 3:6], logits[2, :4, 12:] = 9, 9, 9
    numbers, iou = np.arange(3), np.float32([0.7, 0.8, 0.9])
    nested = automatic.Candidates(logits, iou, iou, np.zeros((3, 256), np.float32), numbers, numbers)
    monkeypatch.setattr(generator.MobileSam, "nested", lambda *_: nested)
    frame = frame_of(picture(48, 64))
    parts, wholes = sam(untrained).masks(frame).label_images
    assert len(np.unique(parts.labels)) == 4 and len(parts) == 3
    assert len(np.unique(wholes.labels)) == 3 and len(wholes) == 2
    assert parts.labels[18, 18] != parts.labels[2, 2] and wholes.labels[18, 18] == wholes.labels[2, 2] > 0
    assert np.array_equal(parts.labels > 0, wholes.labels > 0)
    assert parts.scores[parts.labels[18, 18] - 1] == iou[1] and wholes.scores[wholes.labels[18, 18] - 1] == iou[0]
    alone = sam(untrained, **{"perception.sam_nested": False}).masks(frame)
    assert not alone.others and np.array_equal(alone.labels, parts.labels)
    assert not sam(untrained, **{"perception.sam_nested": False}).detect(frame)[0].masks.others
    queries, _ = sam(untrained).detect(frame)
    assert len(queries.features) == len(queries.boxes) == len(parts)
    for image, expected in zip(queries.masks.label_images, (parts, wholes), strict=True):
        assert np.array_equal(image.labels, expected.labels) and np.array_equal(image.scores, expected.scores)


def test_objects_and_features_belong_to_the_frame(untrained) -> None:
    model, frame = sam(untrained), frame_of(picture(60, 80))
    queries, features = model.detect(frame)
    assert queries.masks is not None and len(queries.scores) == len(queries.masks) == len(queries.features)
    assert queries.features.shape[1:] == (256,) and queries.boxes.shape == (len(queries.scores), 4)
    for number, (x1, y1, x2, y2) in enumerate(queries.boxes, 1):
        rows, columns = np.nonzero(queries.masks.labels == number)
        assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (x1, y1, x2, y2)
    assert features.values.shape == (256, 6, 8) and features.stride == 10.0
    assert features.encoder_id != queries.encoder_id


def test_grey_and_16_bit_images_are_taken_as_colour(untrained) -> None:
    model, colour = sam(untrained), picture(30, 40)
    colour[:, :, 1:] = colour[:, :, :1]
    expected = model.masks(frame_of(colour)).labels
    for other in (colour[:, :, 0], colour[:, :, :1], colour.astype(np.uint16) * 257):
        assert np.array_equal(model.masks(replace(frame_of(colour), rgb=other)).labels, expected)
    with pytest.raises(FrameError, match="8 or 16 bit"):
        model.feature_map(replace(frame_of(colour), rgb=colour.astype(np.float32)))


def test_an_image_may_have_no_masks_at_all(untrained) -> None:
    model = sam(untrained, **{"perception.sam_iou": 1.0})
    queries, features = model.detect(frame_of(np.zeros((48, 64, 3), np.uint8), 0.0))
    assert queries.features.shape == (0, 256) and queries.boxes.shape == (0, 4)
    assert len(queries.masks) == 0 and not queries.masks.labels.any()
    assert features.values.shape[0] == 256


def test_the_same_frame_gives_the_same_masks(untrained) -> None:
    model, frame = sam(untrained), frame_of(picture(60, 80))
    first = model.masks(frame)
    model.masks(frame_of(picture(61, 80)))
    second = model.masks(frame)
    assert np.array_equal(first.labels, second.labels) and np.array_equal(first.scores, second.scores)


def test_boxes_of_any_number_have_masks_of_their_own(untrained) -> None:
    model, frame = sam(untrained), frame_of(picture(45, 77))
    boxes = np.random.default_rng(0).uniform(0, 40, (11, 4)).astype(np.float32)
    boxes[:, 2:] += boxes[:, :2]
    masks, quality = model.masks_of_boxes(frame, boxes)
    assert masks.shape == (11, 45, 77) and masks.dtype == bool
    assert quality.shape == (11,) and ((quality >= 0) & (quality <= 1)).all()
    each = [model.masks_of_boxes(frame, box[None])[0][0] for box in boxes]
    assert (np.array(each) == masks).mean() > 0.999, "a box does not depend on the others of its batch"
    none, qualities = model.masks_of_boxes(frame, np.empty((0, 4)))
    assert none.shape == (0, 45, 77) and qualities.shape == (0,)


def test_depth_is_segmented_once_for_prompts_and_masks(untrained) -> None:
    class Segments:
        id, chooses_keyframes, asked = "segments", False, 0

        def masks(self, frame):
            self.asked += 1
            return Masks2D.from_labels((frame.rgb[:, :, 0] > 127).astype(np.int32))

    inner = Segments()
    by_depth = NewestMasks(inner)
    config = build_config({**SMALL, "perception.sam_iou": 0.0, "perception.sam_stability": 0.0}).perception
    both = SeveralMasks((generator.MobileSam(untrained, config, by_depth), by_depth))
    for number in (1, 2):
        frame = frame_of(picture(40 + number, 50))
        found = both.masks(frame)
        assert inner.asked == number
        assert len(found.label_images) == 3 and not any(image.others for image in found.others)
        assert np.array_equal(found.others[1].labels, frame.rgb[:, :, 0] > 127)


# ---------------------------------------------------------------- how it runs


def test_the_faster_backend_is_timed_once_and_remembered(untrained, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(backends, "_possible", lambda: ["onnx", "torch"])
    monkeypatch.setattr(backends, "_made", lambda name, *_: name)
    timed = []
    monkeypatch.setattr(
        backends, "_timed", lambda backend, *_: timed.append(backend) or {"onnx": 0.2, "torch": 0.1}[backend]
    )
    assert backends.choose_backend(untrained, (96, 128), 128, "cpu") == "torch"
    assert backends.choose_backend(untrained, (96, 128), 128, "cpu") == "torch"
    assert timed == ["onnx", "torch"]
    backends.choose_backend(untrained, (128, 128), 128, "cpu")
    assert len(timed) == 4
    (tmp_path / "seg3d" / "mobile_sam_backends.json").write_text("{")
    backends.choose_backend(untrained, (96, 128), 128, "cpu")
    assert len(timed) == 6


def test_a_gpu_that_is_not_there_is_said(untrained) -> None:
    with pytest.raises(WeightsError, match=r"perception\.device"):
        backends.choose_backend(untrained, (96, 128), 128, "cuda")


@pytest.mark.parametrize("masks", ["mobile_sam", "fused", "both"])
def test_missing_weights_name_the_command_that_mends_it(monkeypatch, tmp_path, masks) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(weights, "_installed", lambda entry: [])
    with pytest.raises(WeightsError, match="seg3d models fetch mobile_sam"):
        build.build_masks(build_config({"perception.masks": masks}))


def test_official_weights_cut_the_cup_out_of_its_box(shared_data) -> None:
    cv2 = pytest.importorskip("cv2")
    path = weights.find("mobile_sam")
    if path is None:
        pytest.skip("needs the official weights: seg3d models fetch mobile_sam")
    rgb = cv2.imread(str(shared_data / "real" / "photos" / "coffee.jpg"))[:, :, ::-1].copy()
    model = generator.load(build_config({"perception.sam_side": 512}).perception)
    by_clicks = model.detect(frame_of(rgb, 0.0))[0]
    large = [
        k for k, (x0, y0, x1, y1) in enumerate(by_clicks.boxes) if 0.02 < (x1 - x0) * (y1 - y0) / rgb[..., 0].size < 0.5
    ]
    masks, quality = model.masks_of_boxes(frame_of(rgb, 0.0), by_clicks.boxes[large])
    for (x0, y0, x1, y1), mask in zip(by_clicks.boxes[large].astype(int), masks, strict=True):
        assert mask[max(y0 - 3, 0) : y1 + 3, max(x0 - 3, 0) : x1 + 3].sum() > 0.95 * mask.sum() > 0
    assert quality.mean() > 0.8


def test_official_weights_find_the_cup(shared_data) -> None:
    cv2 = pytest.importorskip("cv2")
    path = weights.find("mobile_sam")
    if path is None:
        pytest.skip("needs the official weights: seg3d models fetch mobile_sam")
    rgb = cv2.imread(str(shared_data / "real" / "photos" / "coffee.jpg"))[:, :, ::-1].copy()
    config = build_config({"perception.masks": "mobile_sam", "perception.sam_side": 512}).perception
    masks = generator.load(config).masks(frame_of(rgb, 0.0))
    areas = np.bincount(masks.labels.ravel())[1:] / masks.labels.size
    assert len(masks) >= 4
    assert ((areas > 0.02) & (areas < 0.5)).sum() >= 2
