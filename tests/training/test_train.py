# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Settings of a run, the two commands, and the release's defects of evaluation and export."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from golden import find  # noqa: E402

from seg3d_core.errors import ConfigError, Seg3DError  # noqa: E402
from seg3d_core.metrics.boxes import evaluate_boxes  # noqa: E402
from seg3d_core.metrics.protocols import evaluate as evaluate_protocols  # noqa: E402
from seg3d_core.models.architecture import PUBLISHED  # noqa: E402
from seg3d_core.models.checkpoint import Weights, to_bytes  # noqa: E402
from seg3d_core.models.postprocess import ScenePredictions, empty_predictions  # noqa: E402
from seg3d_core.models.segdino3d import SegDino3D  # noqa: E402
from training.config import RECIPES, TrainingConfig, build, change, iterate, read_config, read_values, to_json  # noqa: E402
from training.dataset import Targets, TrainingScene  # noqa: E402
from training.evaluate import main as evaluate_main  # noqa: E402
from training.evaluate import predictions_of, scene_boxes, scene_evaluation  # noqa: E402
from training.readers_cache import CachedScene, write_scene  # noqa: E402
from training.readers_labels import classes_of  # noqa: E402
from training.tables import markdown  # noqa: E402
from training.train import main as train_main  # noqa: E402

TINY = {
    "data.benchmark": "scannet20", "data.image_features": False, "data.object_queries": False, "data.batch_size": 1,
    "model.image_features": False, "model.object_queries": False, "model.backbone": "mlp", "model.feature_channels": 8,
    "model.width": 16, "model.heads": 2, "model.layers": 1, "model.feed_forward_width": 16, "run.epochs": 1,
    "run.evaluate_every": 0, "run.device": "cpu", "run.tensorboard": False,
}  # fmt: skip


@pytest.mark.parametrize("name", ["scannet200", "scannetv2", "baseline200"])
def test_the_recipes_are_the_published_networks(name) -> None:
    assert build(recipe=name).architecture() == PUBLISHED[name]


def test_both_lengths_are_named_of_paper_and_release() -> None:
    assert build(recipe="scannet200").run.epochs == 129 and build(recipe="scannet200-paper").run.epochs == 88
    assert build(recipe="scannetv2").run.epochs == 500 and build(recipe="scannetv2-paper").run.epochs == 88
    # 300 steps per epoch of 1201 scenes in batches of 4.
    assert build(recipe="scannetv2").optimiser.schedule_epochs * 300 == 153_600


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_settings_come_back_from_their_file(name, tmp_path) -> None:
    config = build({"data.augment.scale": [0.9, 1.1]}, name)
    (tmp_path / "config.json").write_text(to_json(config))
    assert read_config(tmp_path / "config.json") == config


def test_settings_of_an_older_run_are_read(tmp_path) -> None:
    tree = json.loads(to_json(build()))
    tree["segmentation"]["point_features_mb"] = 768.0
    (tmp_path / "config.json").write_text(json.dumps(tree))
    assert read_config(tmp_path / "config.json") == build()
    tree["segmentation"]["unheard_of"] = 1
    (tmp_path / "config.json").write_text(json.dumps(tree))
    with pytest.raises(ConfigError, match=r"segmentation\.unheard_of"):
        read_config(tmp_path / "config.json")


def test_a_file_of_settings_may_be_nested(tmp_path) -> None:
    (tmp_path / "a.yaml").write_text("data: {augment: {rotation: 1.0}, batch_size: 3}\nrun.epochs: 7\n")
    config = build(read_values(tmp_path / "a.yaml"))
    assert (config.data.augment.rotation, config.data.batch_size, config.run.epochs) == (1.0, 3, 7)


def test_every_setting_is_described() -> None:
    assert all(field.description for name, _, field in iterate(TrainingConfig()) if name != "recipe")


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"data.batch": 2}, r"no setting 'data\.batch'; did you mean 'data\.batch_size'"),
        ({"data.batch_size": 0}, r"data\.batch_size = 0: .*greater than or equal to 1"),
        ({"data.image_features": False}, r"model\.image_features needs data\.image_features"),
        ({"optimiser.precision": "fp16"}, r"optimiser\.precision = 'fp16'"),
    ],
)
def test_a_wrong_setting_is_named_with_what_is_allowed(values, sentence) -> None:
    with pytest.raises(ConfigError, match=sentence):
        build(values)
    with pytest.raises(ConfigError, match=sentence):
        change(build(), values)


def test_an_unknown_recipe_names_those_that_exist() -> None:
    with pytest.raises(ConfigError, match="scannetv2-paper"):
        build(recipe="scannet")


def scene_of(masks: np.ndarray, labels: np.ndarray) -> TrainingScene:
    """Points with the truth of masks (K, N) and labels 0 .. G - 1, stuff first."""
    n = masks.shape[1]
    semantic = torch.full((n,), 20)
    instance = torch.full((n,), -1)
    for mask, label in zip(masks, labels.tolist(), strict=True):
        semantic[torch.from_numpy(mask)] = label
    things = [(m, label) for m, label in zip(masks, labels.tolist(), strict=True) if label >= 2]
    for k, (mask, _) in enumerate(things):
        instance[torch.from_numpy(mask)] = k
    none, count = torch.zeros(0, dtype=torch.int64), len(things)
    boxes = torch.zeros(2, count, 3)
    thing_labels = torch.tensor([label - 2 for _, label in things])
    targets = Targets(thing_labels, torch.zeros(count, 1, dtype=torch.bool), none, *boxes, instance, semantic)
    features = torch.zeros(0, 256)
    xyz = torch.zeros(n, 3)
    return TrainingScene("s", xyz, xyz, torch.zeros(n).long(), None, features, features[:, :3], None, targets)


def predictions(masks: np.ndarray, labels: np.ndarray, scores: np.ndarray) -> ScenePredictions:
    rows, points = (torch.from_numpy(x) for x in np.nonzero(masks))
    indptr = torch.cat((torch.zeros(1).long(), torch.bincount(rows, minlength=len(masks)).cumsum(0)))
    queries = torch.arange(len(masks))
    values = torch.from_numpy(scores)
    return ScenePredictions(torch.from_numpy(labels), values, torch.zeros(len(masks), 6), queries, indptr, points)


@pytest.mark.parametrize("case", ["wall_and_floor", "wall_only", "floor_only", "neither", "neither_mixed"])
def test_things_do_not_become_void_unless_as_released(case) -> None:
    path = find("h_label_round_trip.npz")
    with np.load(path, allow_pickle=False) as file:
        golden = {key.removeprefix(f"{case}_"): file[key] for key in file.files if key.startswith(f"{case}_")}
    n = int(golden["N"])
    truth, found = (np.unpackbits(golden[f"{kind}_masks_bits"], axis=1)[:, :n].astype(bool) for kind in ("gt", "pred"))
    scene = scene_of(truth, golden["gt_labels"])
    guess = predictions(found, golden["pred_labels"], golden["pred_scores"])
    for defect, wanted in ((False, "corrected_all_ap"), (True, "release_all_ap")):
        config = build({"data.benchmark": "scannet20", "evaluation.release_label_defect": defect})
        result = evaluate_protocols([("s", scene_evaluation(scene, guess, config))], ["scannet18"])[0]
        np.testing.assert_allclose([result.ap, result.ap50, result.ap25], golden[wanted], atol=1e-6)


def test_a_chair_is_exported_as_a_chair_unless_as_released() -> None:
    masks = np.ones((2, 5), bool)
    scene = scene_of(masks[:0], np.zeros(0, int))
    found = predictions(masks, np.array([0, 1]), np.array([0.9, 0.8]))
    ours = predictions_of(scene, found, build())
    released = predictions_of(scene, found, build({"evaluation.release_chair_defect": True}))
    assert ours.labels.tolist() == [2, 4]
    assert released.labels.tolist() == [3, 4]
    smaller = build({"data.benchmark": "scannet20", "evaluation.release_chair_defect": True})
    assert predictions_of(scene, found, smaller).labels.tolist() == [3, 4]


def test_a_scene_without_annotation_is_not_evaluated() -> None:
    scene = scene_of(np.ones((1, 5), bool), np.array([2]))
    bare = TrainingScene(*(getattr(scene, name) for name in list(scene.__dataclass_fields__)[:-1]), None)
    with pytest.raises(Seg3DError, match="no annotation"):
        scene_evaluation(bare, empty_predictions(), build({"data.benchmark": "scannet20"}))


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("cache")
    draw = np.random.default_rng(0)
    for name in ("scene0000_00", "scene0001_00"):
        xyz = draw.random((900, 3)).astype(np.float32)
        instance = (np.arange(900) // 300).astype(np.int32)
        scene = CachedScene(
            xyz, draw.integers(0, 255, (900, 3)).astype(np.uint8), (np.arange(900) // 60).astype(np.int32), instance,
            np.array([2, 5, 7], np.int16)[instance], np.array([3, 2, 4], np.int16)[instance], np.zeros(1, np.int32),
            np.eye(4)[None], np.eye(4), np.eye(4), np.array([[4, 3], [4, 3]], np.int32),
        )  # fmt: skip
        write_scene(root / "scenes" / f"{name}.npz", scene)
    (root / "splits").mkdir()
    (root / "splits" / "train.txt").write_text("scene0000_00\n")
    (root / "splits" / "val.txt").write_text("scene0001_00\n")
    return root


def flags(cache: Path, **more: object) -> list[str]:
    values = {**TINY, "data.root": str(cache), **{name.replace("__", "."): value for name, value in more.items()}}
    return [word for name, value in values.items() for word in ("--set", f"{name}={value}")]


def test_the_commands_train_go_on_evaluate_and_export(cache, tmp_path, capsys) -> None:
    run = tmp_path / "run"
    train = ["--recipe", "small", "--out", str(run)]
    assert train_main([*train, *flags(cache)]) == 0
    assert train_main([*train, *flags(cache)]) == 1
    assert "--resume" in capsys.readouterr().err
    assert train_main(["--out", str(run), "--resume", "--set", "run.epochs=2"]) == 0
    assert read_config(run / "config.json").run.epochs == 2
    assert json.loads((run / "last.json").read_text())["epoch"] == 2
    out, export = tmp_path / "result", tmp_path / "export"
    choice = ["--set", "segmentation.min_points=0", "--set", "segmentation.box_filter=false"]
    assert evaluate_main([str(run), "--out", str(out), "--export", str(export), *choice]) == 0
    results = json.loads((out / "results.json").read_text())
    masks = ["scannet18"] * 2 + ["agnostic-scannet18"] * 2
    assert [r["protocol"] for r in results["results"]] == [
        *masks,
        *(f"{kind}-{how}scannet18" for kind in ("boxes", "mask-boxes") for how in ("", "agnostic-")),
    ]
    assert results["settings"]["segmentation"]["min_points"] == 0
    assert "| chair |" in (out / "results.md").read_text()
    lines = (export / "scene0001_00.txt").read_text().splitlines()
    assert lines and all(line.startswith("predicted_masks/scene0001_00_") for line in lines)
    assert len(lines[0].split()[2].split(".")[1]) == 4


def test_a_file_of_weights_is_evaluated_without_a_run(cache, tmp_path) -> None:
    config = build({**TINY, "data.root": str(cache)}, "small")
    model = SegDino3D(config.architecture())
    path = tmp_path / "weights.safetensors"
    path.write_bytes(to_bytes(Weights(model.state_dict(), config.architecture())))
    words = ["--set", f"data.root={cache}", "--set", "data.workers=0"]
    for name in ("data.image_features", "data.object_queries", "model.image_features", "model.object_queries"):
        words += ["--set", f"{name}=false"]
    assert evaluate_main([str(path), *words]) == 0
    assert evaluate_main([str(path), *words, "--set", "data.benchmark=scannet200"]) == 1


def test_commands_say_what_is_missing(cache, tmp_path, capsys) -> None:
    assert train_main(["--out", str(tmp_path / "x"), "--set", "data.features=dino"]) == 1
    assert "data.root is empty" in " ".join(capsys.readouterr().err.split())
    assert train_main(["--out", str(tmp_path / "x"), "--set", f"data.root={cache}"]) == 1
    assert "data.features names none" in " ".join(capsys.readouterr().err.split())
    assert evaluate_main([str(tmp_path)]) == 1
    assert "holds no checkpoint" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(("kind", "ap"), [("boxes", 0), ("mask-boxes", 1)])
def test_boxes_are_those_of_the_network_or_lie_around_masks(kind, ap) -> None:
    scene = scene_of(np.ones((1, 300), bool), np.array([2]))
    xyz = torch.rand(300, 3)
    low, high = xyz.amin(dim=0), xyz.amax(dim=0)
    targets = replace(scene.targets, centres=((low + high) / 2)[None], sizes=(high - low)[None])
    scene = replace(scene, xyz=xyz, targets=targets)
    found = predictions(np.ones((1, 300), bool), np.array([0]), np.array([0.9]))
    found = replace(found, boxes=torch.tensor([[9.0, 9, 9, 1, 1, 1]]))
    masks = scene_evaluation(scene, found, build())
    boxes = scene_boxes(scene, found, masks, classes_of("scannet200"), kind)
    by_class, agnostic = evaluate_boxes([("s", boxes)], "scannet200", kind)
    assert by_class.protocol == f"{kind}-scannet200"
    assert by_class.per_class == {"chair": (ap,) * 3} and agnostic.ap == ap


def test_a_table_has_rows_for_head_common_and_tail() -> None:
    scene = scene_of(np.ones((1, 300), bool), np.array([2]))
    scene.targets.semantic_of_point.fill_(2)
    found = predictions(np.ones((1, 300), bool), np.array([0]), np.array([0.9]))
    results = evaluate_protocols([("s", scene_evaluation(scene, found, build()))], ["scannet200"])
    page = markdown(results, "test")
    assert "| all | 100.0 | 100.0 | 100.0 |" in page
    assert "| head | 100.0 | 100.0 | 100.0 |" in page and "| tail | – | – | – |" in page
    assert "| chair | 100.0 | 100.0 | 100.0 |" in page
