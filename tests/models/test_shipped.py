# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""The small network that comes with the package."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from seg3d_core import readiness  # noqa: E402
from seg3d_core.build import build_scene  # noqa: E402
from seg3d_core.config import SegDino3DConfig, build  # noqa: E402
from seg3d_core.errors import WeightsError  # noqa: E402
from seg3d_core.models.checkpoint import load_model  # noqa: E402
from seg3d_core.models.shipped import WEIGHTS, shipped_weights  # noqa: E402
from seg3d_core.runtime.offline import run_offline  # noqa: E402
from seg3d_core.types import FeatureMap, Masks2D, ObjectQueries2D  # noqa: E402

SETTINGS = {"core": "segdino3d", "perception.masks": "mobile_sam"}


class Frames(list):
    name, kind, frame_names = "frames", "list", ()
    drops: dict = {}


class LikeMobileSam:
    """The true masks as objects under its name, with noise as features: what is found is of no matter."""

    id, chooses_keyframes = "mobile_sam-512-v1", False

    def masks(self, frame):
        return Masks2D.from_labels(frame.instance)

    def detect(self, frame):
        draw, masks = np.random.default_rng(frame.index), self.masks(frame)
        features = draw.normal(size=(len(masks), 256)).astype(np.float32)
        level = FeatureMap(draw.normal(size=(256, 8, 10)).astype(np.float32), 8.0, self.id)
        scores = np.ones(len(masks), np.float32)
        return ObjectQueries2D(features, np.zeros((len(masks), 4)), scores, self.id, None, masks), level


def test_it_is_small_says_what_it_is_and_has_a_card() -> None:
    loaded = load_model(WEIGHTS, SegDino3DConfig(features_2d="mobile_sam"))
    assert loaded.features_2d == "mobile_sam-512-v1" and not loaded.notes
    assert len(loaded.class_names) == loaded.model.settings.thing_classes == 198 and "chair" in loaded.class_names
    assert WEIGHTS.stat().st_size < 5_000_000
    card = (WEIGHTS.parent / "README.md").read_text(encoding="utf-8")
    assert all(word in card for word in ("Data", "Command", "Numbers", "Limits", WEIGHTS.name))


def test_it_runs_where_no_weights_are_named_and_mobile_sam_runs(box_room) -> None:
    assert not any("segdino3d" in sentence for sentence in readiness.missing_parts(build(SETTINGS)))
    scene = build_scene(
        build({**SETTINGS, "map.voxel_size": 0.04, "segdino3d.instance_score": 0.0, "segdino3d.min_points": 20})
    )
    result = run_offline(scene, Frames(box_room(4)), LikeMobileSam())
    assert not result.statistics.drops and result.statistics.counters["keyframes"] == 4
    found = result.snapshot.instances
    assert len(found) > 0 and all(result.snapshot.names) and len(found.boxes) == len(found)


@pytest.mark.parametrize("masks", ["geometric", "both", "files"])
def test_it_is_refused_with_the_reason_where_nothing_gives_its_features(masks) -> None:
    config = build({"core": "segdino3d", "perception.masks": masks})
    with pytest.raises(WeightsError, match=r"no model runs that gives any: set perception\.masks to mobile_sam"):
        build_scene(config)
    assert any("set perception.masks to mobile_sam" in sentence for sentence in readiness.missing_parts(config))


@pytest.mark.parametrize("running", ["grounding-dino-1f3a", "mobile", "dino-x"])
def test_it_is_refused_for_features_of_another_model(running) -> None:
    with pytest.raises(WeightsError, match=f"mobile_sam alone, while those of {running} run"):
        shipped_weights(running)


def test_a_larger_image_gives_other_features_and_is_told(box_room) -> None:
    class Larger(LikeMobileSam):
        id = "mobile_sam-1024-v1"

    result = run_offline(build_scene(build(SETTINGS)), Frames(box_room(2)), Larger())
    assert result.statistics.drops.get("features_2d") == 2
