# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""The whole network on small, broken or empty scenes, in batches, and with the ablations around the decoder."""

from __future__ import annotations

import dataclasses
import logging

import pytest

torch = pytest.importorskip("torch")

from seg3d_core.config import SegDino3DConfig  # noqa: E402
from seg3d_core.errors import Seg3DError  # noqa: E402
from seg3d_core.models.architecture import PUBLISHED, Architecture  # noqa: E402
from seg3d_core.models.segdino3d import SceneInput, SegDino3D, prepare_scene, segment  # noqa: E402

SMALL = {"layers": 2, "feed_forward_width": 32, "thing_classes": 5, "semantic_classes": 7}
MLP = dataclasses.replace(PUBLISHED["scannet200"], backbone="mlp", feature_channels=24, **SMALL)
MINKOWSKI = dataclasses.replace(PUBLISHED["scannet200"], **SMALL)
SPCONV = dataclasses.replace(PUBLISHED["scannetv2"], **SMALL)
SETTINGS = SegDino3DConfig(min_points=0)


def model_of(architecture: Architecture) -> SegDino3D:
    torch.manual_seed(0)
    return SegDino3D(architecture).eval()


def arrays(points: int = 200, superpoints: int = 20, queries_2d: int = 6, seed: int = 0) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return {
        "xyz": torch.rand(points, 3, generator=draw),
        "rgb": 255 * torch.rand(points, 3, generator=draw),
        "superpoints": torch.arange(points) % superpoints,
        "image_features": torch.randn(points, 256, generator=draw),
        "queries_2d": torch.randn(queries_2d, 256, generator=draw),
        "query_2d_positions": torch.rand(queries_2d, 3, generator=draw),
    }


def scene(**options: int) -> SceneInput:
    return prepare_scene(**arrays(**options))


@pytest.mark.parametrize("architecture", [MINKOWSKI, SPCONV, MLP], ids=["minkowski", "spconv", "mlp"])
@pytest.mark.parametrize(("points", "superpoints", "queries_2d"), [(1, 1, 0), (30, 1, 3), (90, 33, 0)])
def test_small_scenes_have_results(architecture, points, superpoints, queries_2d) -> None:
    """One point; one superpoint; fewer than 34 superpoints, whose pairs with 18 classes are less than 600."""
    result = segment(
        model_of(architecture), scene(points=points, superpoints=superpoints, queries_2d=queries_2d), SETTINGS
    )
    for values in (result.semantic, result.panoptic_semantic, result.panoptic_instance):
        assert values.shape == (points,)
    assert result.instances.masks(points).shape == (len(result.instances), points)
    assert len(result.instances) <= superpoints * 5
    assert torch.isfinite(result.instances.scores).all()


def test_a_map_without_points_has_no_instances() -> None:
    result = segment(model_of(MLP), None, SETTINGS)
    assert len(result.instances) == len(result.semantic) == len(result.panoptic_instance) == 0


def test_superpoint_ids_may_be_any_numbers() -> None:
    given = arrays()
    odd = {**given, "superpoints": given["superpoints"] * 1000 - 7}
    model = model_of(MLP)
    one, two = (segment(model, prepare_scene(**x), SETTINGS) for x in (given, odd))
    assert torch.equal(one.semantic, two.semantic)
    assert torch.allclose(one.instances.scores, two.instances.scores)


def test_a_point_that_no_view_saw_has_zeros_and_a_result() -> None:
    given = arrays()
    given["image_features"][10:20] = 0
    assert torch.isfinite(segment(model_of(MLP), prepare_scene(**given), SETTINGS).instances.scores).all()


def test_what_is_not_finite_is_left_out_and_counted(caplog) -> None:
    given = arrays(queries_2d=4)
    given["image_features"][3, 7] = float("nan")
    given["queries_2d"][1, 0] = float("inf")
    given["query_2d_positions"][2, 0] = float("nan")
    with caplog.at_level(logging.WARNING):
        found = prepare_scene(**given)
    assert (found.points.image_features[3] == 0).all()
    assert torch.equal(found.queries_2d, given["queries_2d"][[0, 3]])
    assert "1 points have image features" in caplog.text
    assert "2 2D object queries are not finite" in caplog.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"superpoints": torch.zeros(3, dtype=torch.int64)}, "200 points, 200 colours and 3 superpoint ids"),
        ({"xyz": torch.full((200, 3), float("nan"))}, "no finite position"),
        ({"query_2d_positions": torch.zeros(2, 3)}, "6 2D object queries have 2 centres"),
    ],
)
def test_scenes_that_contradict_themselves_are_refused(change, message) -> None:
    with pytest.raises(Seg3DError, match=message):
        prepare_scene(**{**arrays(), **change})


def test_a_network_on_image_features_refuses_a_scene_without_them() -> None:
    given = {**arrays(), "image_features": None}
    with pytest.raises(Seg3DError, match="takes 256 image features per point, the scene has none"):
        segment(model_of(MLP), prepare_scene(**given), SETTINGS)
    colours = model_of(dataclasses.replace(MLP, image_features=False, object_queries=False))
    result = segment(colours, prepare_scene(**given), SETTINGS)
    assert torch.equal(segment(colours, scene(), SETTINGS).semantic, result.semantic)


@pytest.mark.parametrize("architecture", [MINKOWSKI, MLP], ids=["minkowski", "mlp"])
def test_scenes_of_a_batch_do_not_see_each_other(architecture) -> None:
    model, scenes = model_of(architecture), [scene(seed=1), scene(points=120, superpoints=9, queries_2d=0, seed=2)]
    with torch.no_grad():
        together = model(scenes)
        alone = [model([each])[0] for each in scenes]
    for one, two in zip(together, alone, strict=True):
        assert torch.allclose(one.final.mask_logits, two.final.mask_logits, rtol=1e-3, atol=1e-4)


def test_fewer_queries_than_superpoints_leave_the_rest_unlabelled() -> None:
    result = segment(model_of(MLP), scene(), SegDino3DConfig(min_points=0, max_queries=4))
    assert len(result.instances.queries.unique()) <= 4
    assert int((result.semantic == 7).sum()) == 160


def test_late_image_features_enter_after_the_backbone() -> None:
    late = model_of(dataclasses.replace(MLP, image_features=False, late_image_features=True, object_queries=False))
    assert late.backbone.in_channels == 3
    given = arrays()
    one = late([prepare_scene(**given)])[0].final.class_logits
    two = late([prepare_scene(**{**given, "image_features": -given["image_features"]})])[0].final.class_logits
    assert not torch.allclose(one, two)
    with pytest.raises(Seg3DError, match="takes 256 image features"):
        late([prepare_scene(**{**given, "image_features": None})])


def test_a_backbone_of_ones_own_takes_the_place_of_ours() -> None:
    class Constant(torch.nn.Module):
        convention, in_channels = "minkowski", 259

        def forward(self, x):
            return x.replace(torch.ones(len(x.features), 24))

    torch.manual_seed(0)
    model = SegDino3D(MLP, backbone=Constant()).eval()
    (superpoints,) = model.encode([scene()])
    assert torch.equal(superpoints.features, torch.ones(20, 24))


def test_one_training_step_reaches_backbone_and_decoder() -> None:
    model = model_of(MLP).train()
    scenes = [scene(seed=3), scene(seed=4)]
    outputs = model(scenes, query_ids=[torch.tensor([3, 1, 8]), None], auxiliary=True)
    assert outputs[0].final.mask_logits.shape == (3, 20)
    sum(output.final.mask_logits.square().mean() for output in outputs).backward()
    assert all(p.grad is not None for p in model.backbone.parameters())
