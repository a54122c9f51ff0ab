# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""The network behind numpy arrays, from a file of weights to instances in a scene."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from seg3d_core.build import build_scene  # noqa: E402
from seg3d_core.config import SegDino3DConfig, build  # noqa: E402
from seg3d_core.errors import Seg3DError, WeightsError  # noqa: E402
from seg3d_core.models import checkpoint  # noqa: E402
from seg3d_core.models.architecture import PUBLISHED, same_source  # noqa: E402
from seg3d_core.models.predictions import CloudInput, Predictions  # noqa: E402
from seg3d_core.models.predictor import NetworkPredictor  # noqa: E402
from seg3d_core.models.random_weights import ARCHITECTURE, random_weights  # noqa: E402
from seg3d_core.models.segdino3d import SegDino3D, prepare_scene, segment  # noqa: E402
from seg3d_core.runtime.offline import run_offline  # noqa: E402
from seg3d_core.types import FeatureMap, Masks2D, ObjectQueries2D  # noqa: E402

BASELINE = dataclasses.replace(
    PUBLISHED["baseline200"], backbone="mlp", feature_channels=16, layers=1, feed_forward_width=16, thing_classes=18
)


def cloud(points: int = 120, parts: int = 40, queries: int = 5) -> CloudInput:
    draw = np.random.default_rng(0)
    return CloudInput(
        draw.random((points, 3)).astype(np.float32),
        draw.integers(0, 256, (points, 3), dtype=np.uint8),
        (np.arange(points) % parts).astype(np.int32),
        draw.normal(size=(points, 256)).astype(np.float32),
        draw.normal(size=(queries, 256)).astype(np.float32),
        draw.random((queries, 3)).astype(np.float32),
    )


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "random.safetensors"
    path.write_bytes(random_weights("toy"))
    return path


def predictor_of(path, **settings) -> NetworkPredictor:
    config = SegDino3DConfig(min_points=0, **settings)
    return NetworkPredictor(checkpoint.load_model(path, config), config)


def test_the_random_network_is_the_same_each_time_and_says_what_it_is(weights, tmp_path) -> None:
    state = checkpoint.read_weights(weights).state
    for seed, is_same in ((0, True), (1, False)):
        (tmp_path / "again.safetensors").write_bytes(random_weights("toy", seed))
        again = checkpoint.read_weights(tmp_path / "again.safetensors").state
        assert all(torch.equal(value, state[name]) for name, value in again.items()) == is_same
    predictor = predictor_of(weights)
    assert (predictor.classes, predictor.class_names, predictor.features_2d) == (18, (), "toy")
    assert predictor.needs_objects and predictor.needs_image_features and predictor.regresses_boxes


def test_arrays_go_in_and_come_out_as_from_the_network(weights) -> None:
    predictor, given = predictor_of(weights), cloud()
    found = predictor.predict(given)
    scene = prepare_scene(*(torch.from_numpy(np.asarray(getattr(given, f.name))) for f in dataclasses.fields(given)))
    loaded = checkpoint.load_model(weights, SegDino3DConfig())
    expected = segment(loaded.model, scene, SegDino3DConfig(min_points=0)).instances
    assert len(found) == len(expected) > 0
    for name, ours in (("labels", "labels"), ("scores", "scores"), ("boxes", "boxes"), ("point_ids", "points")):
        assert np.array_equal(getattr(found, ours), getattr(expected, name).numpy()), name


@pytest.mark.parametrize(("points", "parts", "queries"), [(1, 1, 0), (20, 1, 3), (99, 33, 0)])
def test_small_scenes_have_results(weights, points, parts, queries) -> None:
    """Fewer than 34 superpoints; no 2D query; one point."""
    found = predictor_of(weights).predict(cloud(points, parts, queries))
    assert isinstance(found, Predictions) and len(found) <= parts * 18
    assert np.isfinite(found.scores).all() and (found.points < points).all()


def test_a_network_on_colours_alone_takes_a_scene_without_2d(tmp_path) -> None:
    (tmp_path / "b.safetensors").write_bytes(random_weights("", architecture=BASELINE))
    predictor = predictor_of(tmp_path / "b.safetensors", features_2d="")
    assert predictor.features_2d is None and not (predictor.needs_objects or predictor.needs_image_features)
    given = dataclasses.replace(cloud(), image_features=np.empty((120, 0), np.float32))
    assert not predictor.predict(given).boxes.any()


def test_features_of_another_width_are_refused(weights) -> None:
    given = dataclasses.replace(cloud(), image_features=np.zeros((120, 64), np.float32))
    with pytest.raises(Seg3DError, match="takes 256 image features per point, the scene has 64"):
        predictor_of(weights).predict(given)


def test_a_gpu_that_is_not_there_is_missed(weights, monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(WeightsError, match="set it to `auto` or `cpu`"):
        predictor_of(weights, device="cuda")


@pytest.mark.gpu
@pytest.mark.parametrize("backbone", ["minkowski", "spconv"])
@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-3), ("half", 0.05)])
def test_a_gpu_predicts_what_a_cpu_predicts(tmp_path, backbone, precision, tolerance) -> None:
    """By plain torch and by Triton, where PyTorch brought it."""
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    channels = {"minkowski": 96, "spconv": 32}[backbone]
    shape = dataclasses.replace(ARCHITECTURE, backbone=backbone, feature_channels=channels)
    (tmp_path / "w.safetensors").write_bytes(random_weights("toy", architecture=shape))
    seen, found = cloud(6000, 200, 40), {}
    arrays = (3 * seen.xyz, seen.rgb, seen.superpoints, seen.image_features, seen.queries, 3 * seen.query_centres)
    for device, sparse in (("cpu", "torch"), ("cuda", "torch"), ("cuda", "auto")):
        settings = SegDino3DConfig(min_points=0, precision=precision, sparse_backend=sparse)
        model = checkpoint.load_model(tmp_path / "w.safetensors", settings).model.to(device)
        scene = prepare_scene(*(torch.from_numpy(each).to(device) for each in arrays))
        assert len(segment(model, scene, settings).instances)
        with torch.no_grad(), torch.autocast(device, torch.float16, enabled=precision == "half" and device == "cuda"):
            found[device, sparse] = model([scene])[0].float().final.mask_logits.cpu()
    wanted = found.pop(("cpu", "torch"))
    for logits in found.values():
        assert (logits - wanted).norm() < tolerance * wanted.norm()


def test_class_names_go_with_the_weights(tmp_path) -> None:
    architecture = dataclasses.replace(ARCHITECTURE, thing_classes=2, layers=1)
    state = SegDino3D(architecture).state_dict()
    names = ("cup", "saucer")
    (tmp_path / "w.safetensors").write_bytes(checkpoint.to_bytes(checkpoint.Weights(state, architecture, "toy", names)))
    assert predictor_of(tmp_path / "w.safetensors").class_names == names
    data, _ = checkpoint.convert(tmp_path / "w.safetensors")
    (tmp_path / "c.safetensors").write_bytes(data)
    assert checkpoint.read_weights(tmp_path / "c.safetensors").class_names == names
    wrong = checkpoint.Weights(state, architecture, "toy", ("cup",))
    (tmp_path / "x.safetensors").write_bytes(checkpoint.to_bytes(wrong))
    with pytest.raises(WeightsError, match="names other classes than the network has"):
        checkpoint.read_weights(tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("grounding-dino", "grounding-dino", True),
        ("grounding-dino", "grounding-dino-1f3a", True),
        ("grounding-dino-1f3a", "grounding-dino", True),
        ("grounding-dino-1f3a", "grounding-dino-77aa", False),
        ("dino", "dinosaur", False),
        ("dino-x", "", False),
    ],
)
def test_names_of_feature_sources(one, other, same) -> None:
    assert same_source(one, other) == same_source(other, one) == same


# --- from settings ---------------------------------------------------------------------------


class Toy:
    """The true masks as objects, with noise as features."""

    id, chooses_keyframes = "toy", False

    def masks(self, frame):
        return Masks2D.from_labels(frame.instance)

    def detect(self, frame):
        draw, masks = np.random.default_rng(frame.index), self.masks(frame)
        features = draw.normal(size=(len(masks), 256)).astype(np.float32)
        scores = np.ones(len(masks), np.float32)
        level = FeatureMap(draw.normal(size=(256, 8, 10)).astype(np.float32), 8.0, "toy-f")
        return ObjectQueries2D(features, np.zeros((len(masks), 4)), scores, "toy-q", None, masks), level


class Frames(list):
    name, kind, frame_names = "frames", "list", ()
    drops: dict = {}


@pytest.mark.parametrize("tile_points", [500_000, 2000])
def test_settings_and_a_file_of_weights_make_a_scene_with_instances(weights, box_room, tile_points) -> None:
    settings = {"core": "segdino3d", "segdino3d.weights": str(weights), "segdino3d.features_2d": "toy"}
    more = {"map.voxel_size": 0.05, "segdino3d.min_points": 20}
    # Random boxes lie anywhere: they would leave nothing of random masks.
    more |= {"segdino3d.instance_score": 0, "segdino3d.box_filter": False}
    scene = build_scene(build({**settings, **more, "segdino3d.tile_points": tile_points}))
    result = run_offline(scene, Frames(box_room(4)), Toy())
    assert not result.statistics.drops and result.statistics.counters["keyframes"] == 4
    snapshot = result.snapshot
    assert len(snapshot.instances) > 0 and all(snapshot.names)
    assert len(snapshot.instances.class_ids) == len(snapshot.instances.boxes) == len(snapshot.instances)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, r"segdino3d.weights names no file.*no model runs that gives any: set perception.masks to mobile_sam"),
        ({"segdino3d.features_2d": "dino-x"}, "knows 2D features of mobile_sam alone, while those of dino-x run"),
        ({"segdino3d.weights": "/nowhere.pth"}, "cannot read weights at /nowhere.pth"),
        ({"segdino3d.weights": "W"}, "features of toy, and no model runs that gives any: set perception.masks"),
        (
            {"segdino3d.weights": "W", "perception.masks": "mobile_sam"},
            "features of toy, but those of mobile_sam run; another network's features mean nothing",
        ),
    ],
)
def test_missing_and_unfitting_weights_are_refused_with_what_to_do(weights, settings, message) -> None:
    values = {name: str(weights) if value == "W" else value for name, value in settings.items()}
    with pytest.raises(WeightsError, match=message):
        build_scene(build({"core": "segdino3d", **values}))


def test_the_sparse_backend_of_the_settings_is_taken(tmp_path, monkeypatch) -> None:
    asked = []

    def find(name, convention):
        asked.append((name, convention))
        raise WeightsError("stop here")

    small = {"layers": 1, "feed_forward_width": 16, "thing_classes": 18, "semantic_classes": 20}
    architecture = dataclasses.replace(PUBLISHED["scannetv2"], **small)
    (tmp_path / "s.safetensors").write_bytes(random_weights("toy", architecture=architecture))
    monkeypatch.setattr(checkpoint, "find_backend", find)
    config = {"segdino3d.weights": str(tmp_path / "s.safetensors"), "segdino3d.features_2d": "toy"}
    with pytest.raises(WeightsError, match="stop here"):
        build_scene(build({"core": "segdino3d", "segdino3d.sparse_backend": "spconv", **config}))
    assert asked == [("spconv", "spconv")]


def test_the_node_runs_the_trained_core_in_its_worker(tmp_path, box_room, until) -> None:
    from seg3d_core.runtime.live import LiveRuntime

    torch.set_num_threads(1)
    (tmp_path / "b.safetensors").write_bytes(random_weights("", architecture=BASELINE))
    settings = {"core": "segdino3d", "segdino3d.weights": str(tmp_path / "b.safetensors"), "query.encoder": "none"}
    more = {"map.voxel_size": 0.1, "segdino3d.instance_score": 0, "segdino3d.min_points": 5}
    runtime = LiveRuntime(build({**settings, **more, "perception.masks": "ground_truth"}))
    runtime.start()
    try:
        for frame in box_room(3):
            runtime.submit(frame)
        assert until(lambda: runtime.statistics().counters.get("keyframes"))
        snapshot = runtime.segment_now(timeout=120)
        assert len(snapshot.cloud) > 0 and len(snapshot.names) == len(snapshot.instances)
        counters = runtime.statistics().counters
        assert counters["segmentations"] > 0 and not {"segmentation errors", "scene errors"} & counters.keys()
    finally:
        runtime.stop()
