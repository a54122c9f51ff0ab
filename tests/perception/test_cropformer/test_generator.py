# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""The generator: masks and queries of frames, settings, odd input."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from seg3d_core import build, config  # noqa: E402
from seg3d_core.errors import ConfigError, FrameError, WeightsError  # noqa: E402
from seg3d_core.perception.cropformer import generator  # noqa: E402
from seg3d_core.perception.cropformer.checkpoint import network_of  # noqa: E402
from seg3d_core.types import Camera, Frame  # noqa: E402

OPTIONS = generator.EntityOptions(short_side=96)


def frame(rgb: np.ndarray) -> Frame:
    h, w = rgb.shape[:2]
    return Frame(0, 0.0, rgb, np.ones((h, w), np.float32), Camera(w, h, 50, 50, w / 2, h / 2), np.eye(4))


@pytest.fixture(scope="module")
def picture(golden) -> np.ndarray:
    return np.ascontiguousarray(golden("b_cropformer")["image_bgr"][:, :, ::-1])


def make(reduced, kind: str = "cropformer", **options) -> generator.CropFormerMasks:
    return generator.CropFormerMasks(reduced(kind), replace(OPTIONS, **options), "cpu")


def test_cropformer_gives_the_published_labels(golden, reduced, picture) -> None:
    masks = make(reduced).masks(frame(picture))
    assert (masks.labels != golden("b_cropformer")["label_demo_25"]).sum() <= 5
    assert masks.labels.dtype == np.int32
    assert len(masks) == masks.labels.max()
    assert ((masks.scores >= 0.25) & (masks.scores <= 0.7311)).all()


def test_the_plain_mask2former_gives_the_published_labels(golden_images, reduced, monkeypatch) -> None:
    monkeypatch.setattr(generator, "BEST_QUERIES", 12)
    rgb = golden_images["image_bgr"][:, :, ::-1]
    masks = make(reduced, "mask2former", short_side=160).masks(frame(rgb))
    assert (masks.labels != golden_images["label_demo_25"]).sum() <= 5


def test_a_plain_mask2former_looks_at_its_best_queries_only(reduced, picture, monkeypatch) -> None:
    whole = make(reduced, "mask2former", confidence=0.0).masks(frame(picture))
    monkeypatch.setattr(generator, "BEST_QUERIES", 2)
    best = make(reduced, "mask2former", confidence=0.0).masks(frame(picture))
    assert len(best) <= 2 < len(whole)
    assert np.array_equal(best.labels > 0, np.isin(whole.labels, (1, 2)))


def test_without_crops_the_whole_image_alone_is_looked_at(reduced, picture) -> None:
    seen = []
    net = reduced("cropformer")
    handle = net.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    with_crops, without = (make(reduced, crops=crops).masks(frame(picture)) for crops in (True, False))
    handle.remove()
    assert seen == [5, 1]
    assert not np.array_equal(with_crops.labels, without.labels)


def test_queries_boxes_and_features_belong_to_the_masks(reduced, picture) -> None:
    made = make(reduced)
    queries, features = made.detect(frame(picture))
    masks = queries.masks
    assert masks is not None and len(masks) > 1
    assert queries.features.shape == (len(masks), 64)
    assert np.array_equal(queries.scores, masks.scores)
    assert np.array_equal(masks.labels, made.masks(frame(picture)).labels)
    for k, (x0, y0, x1, y1) in enumerate(queries.boxes.astype(int), 1):
        rows, columns = np.nonzero(masks.labels == k)
        assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (x0, y0, x1, y1)
    assert features.values.shape == (32, 24, 34)
    assert features.stride == pytest.approx(4 * 170 / 136)
    assert queries.encoder_id != features.encoder_id


def test_the_identity_tells_weights_apart(reduced, recipe, models) -> None:
    assert make(reduced).id == make(reduced).id
    assert make(reduced).id.startswith("cropformer-hornet-")
    state = recipe.state(models["reduced_cropformer_hornet"])
    state["sem_seg_head.predictor.query_feat.weight"] += 1
    assert generator.CropFormerMasks(network_of(state, "other"), OPTIONS, "cpu").id != make(reduced).id


@pytest.mark.parametrize("kind", ["mask2former", "cropformer"])
@pytest.mark.parametrize("size", [(37, 53), (4, 4), (5, 160), (161, 7), (95, 33)])
def test_odd_sizes(reduced, kind, size) -> None:
    rgb = np.random.default_rng(1).integers(0, 255, (*size, 3), np.uint8)
    queries, features = make(reduced, kind, short_side=64).detect(frame(rgb))
    assert queries.masks is not None
    assert queries.masks.labels.shape == size
    assert len(queries.boxes) == len(queries.masks)
    assert np.isfinite(features.values).all()


def test_a_constant_image_is_no_trouble(reduced) -> None:
    masks = make(reduced).masks(frame(np.full((60, 80, 3), 255, np.uint8)))
    assert masks.labels.shape == (60, 80)


def test_grey_and_16_bit_images_are_taken(reduced, picture) -> None:
    grey = picture[:, :, 0]
    wanted = make(reduced).masks(frame(np.repeat(grey[:, :, None], 3, 2))).labels
    for image in (grey, grey.astype(np.uint16) << 8, np.dstack([grey] * 4)):
        assert np.array_equal(make(reduced).masks(frame(image)).labels, wanted)


def test_tiny_and_unreadable_images_are_refused(reduced) -> None:
    for image, reason in (
        (np.zeros((3, 9, 3), np.uint8), "image_size"),
        (np.zeros((9, 9, 3), np.float32), "bad_colour"),
    ):
        with pytest.raises(FrameError) as caught:
            make(reduced).masks(frame(image))
        assert caught.value.reason == reason


@pytest.mark.parametrize("kind", ["mask2former", "cropformer"])
def test_nothing_found_is_an_empty_observation(recipe, models, picture, kind) -> None:
    state = recipe.state(models[f"reduced_{kind}_hornet"])
    state["sem_seg_head.predictor.class_embed.bias"] = np.float32([-99, 99])
    queries, features = generator.CropFormerMasks(network_of(state, "blind"), OPTIONS, "cpu").detect(frame(picture))
    assert queries.masks is not None
    assert len(queries.masks) == 0 and not queries.masks.labels.any()
    assert queries.features.shape == (0, 64) and queries.boxes.shape == (0, 4)
    assert features.values.any()


def test_small_masks_are_dropped(reduced, picture) -> None:
    masks = make(reduced, min_area=0.02).masks(frame(picture))
    assert 0 < len(masks) < len(make(reduced).masks(frame(picture)))
    assert (np.bincount(masks.labels.ravel())[1:] >= 0.02 * 120 * 170).all()


def test_half_precision_runs_and_stays_close(reduced, picture) -> None:
    views = generator.images.views_of(picture, False, 96)
    batch = generator.images.network_input(picture, views)
    net = reduced("mask2former")
    with torch.no_grad():
        wanted = net.sem_seg_head.pixel_decoder(net.backbone(batch))[0]
        with torch.autocast("cpu", torch.bfloat16):
            found = net.sem_seg_head.pixel_decoder(net.backbone(batch))[0]
    assert found.dtype == torch.float32
    assert (found - wanted).abs().mean() < 0.1 * wanted.abs().mean()
    masks = make(reduced, half=True).masks(frame(picture))
    assert masks.labels.shape == picture.shape[:2]
    assert masks.labels.max() == len(masks)


@pytest.mark.parametrize("device", ["cuda:99", "nonsense"])
def test_a_device_that_is_not_there_is_refused(reduced, device) -> None:
    with pytest.raises(ConfigError, match=device):
        generator.CropFormerMasks(reduced("mask2former"), OPTIONS, device)


@pytest.fixture
def weights_file(recipe, models, tmp_path) -> str:
    path = tmp_path / "reduced.pth"
    state = recipe.state(models["reduced_cropformer_hornet"])
    torch.save({"model": {n: torch.from_numpy(a) for n, a in state.items()}}, path)
    return str(path)


def test_the_settings_build_it(golden, weights_file, picture) -> None:
    made = build.build_masks(
        config.build(
            {
                "perception.masks": "cropformer",
                "perception.cropformer_weights": weights_file,
                "perception.cropformer_short_side": 96,
                "perception.cropformer_device": "cpu",
                "perception.min_area": 0.0,
            }
        )
    )
    masks = made.masks(frame(picture))
    assert masks is not None
    assert (masks.labels != golden("b_cropformer")["label_demo_25"]).sum() <= 5


def test_plain_scores_are_a_setting(weights_file, picture) -> None:
    values = {"perception.masks": "cropformer", "perception.cropformer_weights": weights_file}
    values |= {"perception.cropformer_short_side": 96, "perception.cropformer_device": "cpu"}
    published, plain = (
        build.build_masks(config.build({**values, "perception.cropformer_score": s})).masks(frame(picture))
        for s in ("published", "plain")
    )
    assert published is not None and plain is not None
    assert plain.scores.max() > published.scores.max()


def test_weights_that_are_not_here_are_said(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(WeightsError, match=r"fetch cropformer_hornet --from .*CC BY-NC"):
        build.build_masks(config.build({"perception.masks": "cropformer"}))
    with pytest.raises(WeightsError, match=r"'nowhere\.pth'"):
        build.build_masks(
            config.build({"perception.masks": "cropformer", "perception.cropformer_weights": "nowhere.pth"})
        )


def test_a_confidence_out_of_reach_is_refused() -> None:
    with pytest.raises(ConfigError, match="cropformer_confidence"):
        config.build({"perception.cropformer_confidence": 0.74})
