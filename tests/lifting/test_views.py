# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Best views of instances and the store of their images."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from seg3d_core.lifting.keyframe_log import LoggedKeyframe
from seg3d_core.lifting.views import ImageStore, sightings
from seg3d_core.types import View


def random_keyframes(rng: np.random.Generator, count: int, points: int, images: int = 1) -> list[LoggedKeyframe]:
    """Label image l has l + 3 masks."""
    frames = []
    for t in range(count):
        rows = np.flatnonzero(rng.random(points) < 0.5).astype(np.int32)
        masks = np.array([rng.integers(0, 4 + image, len(rows)) for image in range(images)], np.int16)
        pixels = rng.integers(0, 200, (len(rows), 2)).astype(np.uint16)
        frames.append(LoggedKeyframe(10 * t, rows, masks, pixels, tuple(range(3, 3 + images))))
    return frames


@pytest.mark.parametrize("images", [1, 3])
def test_sightings_agree_with_counting_by_hand(images: int) -> None:
    rng = np.random.default_rng(images)
    frames = random_keyframes(rng, 6, 80, images)
    by_row = rng.integers(-1, 5, 80).astype(np.int32)
    seen = sightings(frames, by_row, 4)
    for t, frame in enumerate(frames):
        for k in range(4):
            mine = by_row[frame.rows] == k + 1
            assert seen.visible[t, k] == mine.sum()
            all_masks = [
                (image == m) & (by_row[frame.rows] >= 0)
                for image, count in zip(frame.masks, frame.mask_counts, strict=True)
                for m in range(1, count + 1)
            ]
            assert len(all_masks) == {1: 3, 3: 12}[images]
            on = [int((mine & mask).sum()) for mask in all_masks]
            union = [int((mine | mask).sum()) for mask in all_masks]
            assert seen.beta[t, k] == pytest.approx(max(on) / mine.sum())
            assert seen.iou[t, k] == pytest.approx(max(a / b for a, b in zip(on, union, strict=True)))
            low, high = frame.pixels[mine].min(axis=0), frame.pixels[mine].max(axis=0)
            assert seen.boxes[t, k].tolist() == [*low.tolist(), *high.tolist()]
    assert seen.keyframes.tolist() == [0, 10, 20, 30, 40, 50]


def test_best_views_are_ranked_by_the_share_on_one_mask() -> None:
    rng = np.random.default_rng(1)
    seen = sightings(random_keyframes(rng, 12, 60), rng.integers(0, 4, 60).astype(np.int32), 3)
    for k, views in enumerate(seen.best_views(keep=5)):
        assert len(views) == 5
        assert [v.score for v in views] == sorted((v.score for v in views), reverse=True)
        assert views[0].score == pytest.approx(seen.beta[:, k].max())
        for view in views:
            assert view.box == tuple(seen.boxes[view.keyframe // 10, k].tolist())


def keyframe(number: int, *images: list[int]) -> LoggedKeyframe:
    """Rows 0, 1, ... on these masks, of two in each label image."""
    masks = np.array(images, np.int16)
    rows, pixels = np.arange(masks.shape[1], dtype=np.int32), np.zeros((masks.shape[1], 2), np.uint16)
    return LoggedKeyframe(number, rows, masks, pixels, (2,) * len(images))


def test_a_glimpse_is_no_view() -> None:
    (views,) = sightings([keyframe(0, [1] * 15 + [2] * 5), keyframe(1, [1] * 3)], np.ones(20, np.int32), 1).best_views()
    assert [v.keyframe for v in views] == [0]


def test_an_instance_that_nobody_saw_has_no_views_and_score_0() -> None:
    seen = sightings(random_keyframes(np.random.default_rng(0), 2, 10), np.ones(10, np.int32), 2)
    assert seen.best_views()[1] == ()
    assert seen.best_outlines(np.array([10, 60]))[1] == 0


def test_no_keyframes_no_views() -> None:
    seen = sightings([], np.zeros(5, np.int32), 2)
    assert seen.best_views() == ((), ())
    assert seen.best_outlines(np.array([5, 5])).tolist() == [0, 0]


def test_the_best_outline_of_any_label_image_of_any_sighting_counts_in_quarters() -> None:
    by_row = np.ones(20, np.int32)
    poor, half, good = [1] * 4 + [2] * 5 + [0] * 11, [1] * 9 + [0] * 11, [1] * 19 + [0]

    def outline(*keyframes: LoggedKeyframe) -> float:
        return float(sightings(keyframes, by_row, 1).best_outlines(np.array([20]))[0])

    assert outline(keyframe(0, poor)) == 0.25
    assert outline(keyframe(0, half)) == 0.5
    assert outline(keyframe(0, half), keyframe(1, good), keyframe(2, poor)) == 1
    assert outline(keyframe(0, half, good)) == outline(keyframe(0, good, half)) == 1
    assert outline(keyframe(0, [0] * 20)) == 0


def test_the_outline_of_a_glimpse_says_nothing() -> None:
    for shown, expected in ((19, 0), (20, 1)):
        seen = sightings([keyframe(0, [1] * shown)], np.ones(100, np.int32), 1)
        assert seen.best_outlines(np.array([100])).tolist() == [expected]
    huge = sightings([keyframe(0, [1] * 500)], np.ones(500, np.int32), 1)
    assert huge.best_outlines(np.array([1_000_000])).tolist() == [1]


def noise(seed: int, size: int = 64) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (size, size, 3), np.uint8)


def test_images_come_back_in_rgb() -> None:
    store = ImageStore(1.0, 95)
    rgb = np.zeros((32, 32, 3), np.uint8)
    rgb[..., 0] = 200
    store.add(3, rgb)
    data = store.get(3)
    assert data is not None
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert np.abs(decoded.astype(int) - rgb).max() < 6
    assert store.get(4) is None


def test_the_budget_holds_and_the_least_used_goes_first() -> None:
    store = ImageStore(1.0, 90)
    store.add(0, noise(0))
    one = store.memory_bytes
    store = ImageStore(3.5 * one / 1e6, 90)
    for keyframe in range(3):
        store.add(keyframe, noise(keyframe))
    box = (0.0, 0.0, 1.0, 1.0)
    store.rank([[View(0, box, 1.0), View(2, box, 0.9)], [View(0, box, 1.0)]])
    store.add(3, noise(3))
    assert sorted(store.images()) == [0, 2, 3]
    store.add(4, noise(4))
    assert sorted(store.images()) == [0, 3, 4]
    assert store.memory_bytes == sum(map(len, store.images().values())) <= store.budget_bytes


def test_unranked_images_go_oldest_first() -> None:
    store = ImageStore(1.0, 90)
    store.add(0, noise(0))
    store = ImageStore(2.5 * store.memory_bytes / 1e6, 90)
    for keyframe in range(4):
        store.add(keyframe, noise(keyframe))
    assert sorted(store.images()) == [2, 3]


def test_images_handed_out_do_not_change() -> None:
    store = ImageStore(1.0, 90)
    store.add(0, noise(0))
    images = store.images()
    store.add(1, noise(1))
    assert list(images) == [0]
    with pytest.raises(TypeError):
        images[5] = b""  # type: ignore[index]


def test_saved_images_come_back() -> None:
    store, other = ImageStore(1.0, 90), ImageStore(1.0, 90)
    store.add(0, noise(0))
    store.add(5, noise(5))
    for keyframe, data in store.images().items():
        other.restore_image(keyframe, data)
    assert dict(other.images()) == dict(store.images())
    assert other.memory_bytes == store.memory_bytes
    other.reset()
    assert (len(other), other.memory_bytes) == (0, 0)
