# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Entity post-processing agrees with the public code; its savings change nothing."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from seg3d_core.errors import ConfigError, FrameError  # noqa: E402
from seg3d_core.perception.cropformer import images, postprocess  # noqa: E402
from seg3d_core.perception.cropformer.images import View  # noqa: E402

SIZE = (60, 82)
FULL = View((0, 0, 82, 60), (30, 41))
PADDED = (32, 48)


def planes(array: np.ndarray):
    """`mask_logits` of stored logits (Q, V, h, w)."""
    tensor = torch.from_numpy(array)
    return lambda queries: tensor[queries]


def of_golden(golden, kind: str, confidence: float, scoring: str = "published", logits=None, prune: bool = True):
    g = golden("d_postprocess")
    logits = torch.from_numpy(g[f"{kind}_cls"] if logits is None else logits)
    queries, p = postprocess.candidates(logits, confidence if prune else 0.0, 10 if kind == "m2f" else None)
    if kind == "m2f":
        upsample = postprocess.image_upsampler(planes(g["m2f_masks"][:, None]), PADDED, FULL)
    else:
        views = [FULL, *(View(tuple(int(v) for v in box), (30, 42)) for box in g["crop_regions"])]
        upsample = postprocess.crops_upsampler(planes(g["crop_masks"]), PADDED, views)
    return postprocess.claim(queries, p, upsample, SIZE, is_probability=kind == "crop", scoring=scoring)


def masks_of(found: postprocess.EntityMasks) -> np.ndarray:
    return found.owner.numpy()[None] == np.arange(len(found.scores))[:, None, None]


def maskclustering(found: postprocess.EntityMasks, threshold: float, least: int = 400) -> np.ndarray:
    """The label image of MaskClustering's driver: kept masks in ascending score, small ones skipped."""
    image, number = np.zeros(found.owner.shape, np.uint8), 1
    for place in np.argsort(found.scores.numpy(), kind="stable"):
        inside = found.owner.numpy() == place
        if found.scores[place] < threshold or inside.sum() < least:
            continue
        image[inside] = number
        number += 1
    return image


def check(found: postprocess.EntityMasks, g, prefix: str, bits, thresholds: tuple[int, ...], width: int) -> None:
    wanted = bits(g[f"{prefix}masks_bits"], width)
    assert (masks_of(found) != wanted).sum() <= 5
    np.testing.assert_allclose(found.scores.numpy(), g[f"{prefix}scores"], rtol=0, atol=1e-6)
    assert np.abs(found.areas.numpy() - wanted.sum((1, 2))).max() <= 5
    for threshold in thresholds:
        labels = postprocess.finish(found, threshold / 100)[0].labels
        assert (labels != g[f"{prefix}label_demo_{threshold}"]).sum() <= 5
        assert (maskclustering(found, threshold / 100) != g[f"{prefix}label_mc_{threshold}"]).sum() <= 5


def test_a_sample_is_upsampled_in_two_steps(golden) -> None:
    g = golden("d_postprocess")
    upsample = postprocess.image_upsampler(planes(g["m2f_masks"][:, None]), PADDED, FULL)
    np.testing.assert_allclose(upsample(torch.arange(3)), g["m2f_full_logits_sample"], rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", ["m2f", "crop"])
def test_made_logits_become_the_published_masks(golden, bits, kind: str) -> None:
    check(of_golden(golden, kind, 0.0), golden("d_postprocess"), f"{kind}_", bits, (25, 50), 82)


@pytest.mark.parametrize("kind", ["m2f", "crop"])
@pytest.mark.parametrize("threshold", [25, 50])
@pytest.mark.parametrize("scoring", ["published", "plain"])
def test_pruning_changes_nothing(golden, kind: str, threshold: int, scoring: str) -> None:
    least = postprocess.score_threshold(threshold / 100, scoring)
    pruned, whole = (of_golden(golden, kind, threshold / 100, scoring, prune=prune) for prune in (True, False))
    assert len(pruned.scores) < len(whole.scores) or (kind, threshold) == ("m2f", 25)
    a, b = (postprocess.finish(found, least)[0] for found in (pruned, whole))
    assert np.array_equal(a.labels, b.labels)
    np.testing.assert_allclose(a.scores, b.scores, rtol=0, atol=1e-6)
    if scoring == "published":
        assert (a.labels != golden("d_postprocess")[f"{kind}_label_demo_{threshold}"]).sum() <= 5


@pytest.mark.parametrize("kind", ["m2f", "crop"])
def test_chunks_change_nothing(golden, monkeypatch, kind: str) -> None:
    whole = of_golden(golden, kind, 0.0)
    monkeypatch.setattr(postprocess, "_CHUNK", 3)
    parts = of_golden(golden, kind, 0.0)
    assert torch.equal(whole.owner, parts.owner)
    np.testing.assert_allclose(whole.scores, parts.scores, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["m2f", "crop"])
@pytest.mark.parametrize("scoring", ["published", "plain"])
def test_claiming_agrees_with_painting(golden, kind: str, scoring: str) -> None:
    """A literal twin: paint every mask in ascending p, then measure what remained of each."""
    g, found = golden("d_postprocess"), of_golden(golden, kind, 0.0, scoring)
    if kind == "m2f":
        upsample = postprocess.image_upsampler(planes(g["m2f_masks"][:, None]), PADDED, FULL)
        full = upsample(found.queries).sigmoid().double().numpy()
    else:
        views = [FULL, *(View(tuple(int(v) for v in box), (30, 42)) for box in g["crop_regions"])]
        full = postprocess.crops_upsampler(planes(g["crop_masks"]), PADDED, views)(found.queries).double().numpy()
    p = torch.from_numpy(g[f"{kind}_cls"]).softmax(-1)[found.queries, 0].double().numpy()
    canvas = np.full(SIZE, -1)
    for place in reversed(range(len(full))):
        canvas[full[place] > 0.5] = place
    for place, plane in enumerate(full):
        inside = canvas == place
        values = plane[inside]
        values = 1 / (1 + np.exp(-values)) if scoring == "published" else values
        quality = values.mean() if inside.any() else 0.0
        assert found.scores[place] == pytest.approx(p[place] * quality, abs=1e-5)
        assert found.areas[place] == inside.sum()


def test_queries_that_are_no_entity_leave_an_empty_image(golden) -> None:
    hopeless = np.tile(np.float32([[-9, 9]]), (25, 1))
    for kind in ("m2f", "crop"):
        masks, places = postprocess.finish(of_golden(golden, kind, 0.25, logits=hopeless), 0.25)
        assert len(masks) == len(places) == 0
        assert masks.labels.shape == SIZE and not masks.labels.any()


def test_small_masks_are_dropped_and_the_rest_renumbered(golden) -> None:
    found = of_golden(golden, "m2f", 0.0)
    masks, places = postprocess.finish(found, 0.0, least_area=150)
    assert 0 < len(masks) < int((found.areas > 0).sum())
    assert np.array_equal(np.unique(masks.labels[masks.labels > 0]), np.arange(1, len(masks) + 1))
    assert (found.areas.numpy()[places] >= 150).all()


@pytest.mark.parametrize("confidence", [-0.1, 0.74, 1.0, float("nan")])
def test_a_confidence_that_nothing_reaches_is_refused(confidence: float) -> None:
    with pytest.raises(ConfigError, match=r"0\.731"):
        postprocess.score_threshold(confidence, "published")


def test_both_scorings_keep_a_certain_mask_at_the_same_probability() -> None:
    logits = torch.full((1, 1, 4, 4), 50.0)
    for p in (0.33, 0.35):
        for scoring in ("published", "plain"):
            upsample = postprocess.image_upsampler(lambda q: logits[q], (16, 16), View((0, 0, 16, 16), (16, 16)))
            found = postprocess.claim(
                torch.tensor([0]), torch.tensor([p]), upsample, (16, 16), is_probability=False, scoring=scoring
            )
            kept, _ = postprocess.finish(found, postprocess.score_threshold(0.25, scoring))
            assert len(kept) == int(p > 0.25 / postprocess.LARGEST_QUALITY)


def test_sizes_and_crops_are_those_of_the_public_code(golden) -> None:
    for row in golden("d_postprocess")["size_table"]:
        height, width, h, w, *rest = (int(v) for v in row)
        assert images.resized_size(height, width) == (h, w)
        if -1 in rest:
            continue
        boxes = [tuple(rest[4 * i : 4 * i + 4]) for i in range(4)]
        assert images.crop_boxes(height, width) == boxes
        x0, y0, x1, y1 = boxes[0]
        assert images.resized_size(y1 - y0, x1 - x0) == tuple(rest[16:18])


def test_images_are_resized_as_in_training(golden) -> None:
    g = golden("d_postprocess")
    assert np.array_equal(images.resize_image(g["resize_src"], (80, 114)), g["resize_80x114"])
    assert np.array_equal(images.resize_image(g["resize_src"], (30, 43)), g["resize_down_30x43"])


@pytest.mark.parametrize("size", [(4, 4), (5, 9), (37, 41), (240, 320), (481, 640)])
def test_crops_cover_the_image_with_at_least_one_corner_each(size: tuple[int, int]) -> None:
    boxes = images.crop_boxes(*size)
    assert len(boxes) == 4
    assert all(0 <= x0 < x1 <= size[1] and 0 <= y0 < y1 <= size[0] for x0, y0, x1, y1 in boxes)
    assert (boxes[0][:2], boxes[3][2:]) == ((0, 0), (size[1], size[0]))


def test_tiny_images_are_refused() -> None:
    with pytest.raises(FrameError, match="3x8") as caught:
        images.views_of(np.zeros((8, 3, 3), np.uint8), crops=True)
    assert caught.value.reason == "image_size"


@pytest.mark.parametrize("kind", ["mask2former", "cropformer"])
def test_from_an_image_to_labels(golden, request, reduced, bits, kind: str) -> None:
    crops = kind == "cropformer"
    g = golden("b_cropformer") if crops else request.getfixturevalue("golden_images")
    rgb, net = g["image_bgr"][:, :, ::-1], reduced(kind)
    views = images.views_of(rgb, crops, 96 if crops else 160)
    batch = images.network_input(rgb, views)
    with torch.no_grad():
        out = net(batch)
        queries, p = postprocess.candidates(out.class_logits, 0.0, None if crops else 12)
        padded = tuple(batch.shape[2:])
        make = postprocess.crops_upsampler if crops else postprocess.image_upsampler
        upsample = make(out.mask_logits, padded, views if crops else views[0])
        found = postprocess.claim(queries, p, upsample, rgb.shape[:2], is_probability=crops, scoring="published")
    check(found, g, "", bits, (25, 48) if crops else (25, 50), 170)
    assert np.abs(found.areas.numpy() - g["areas"]).max() <= 5
