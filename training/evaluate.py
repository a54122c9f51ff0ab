# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""How good a network is on prepared scenes: the benchmarks' tables, and their submission format.

python -m training.evaluate RUN_OR_WEIGHTS [--set data.root=CACHE] [--split val] [--out FOLDER] [--export FOLDER]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch

from seg3d_core.cli.console import console, errors, progress
from seg3d_core.config import parse_assignments
from seg3d_core.errors import ConfigError, Seg3DError
from seg3d_core.metrics.benchmark_text import write_predictions_text
from seg3d_core.metrics.boxes import Kind, SceneBoxes, boxes_around, evaluate_boxes
from seg3d_core.metrics.ground_truth import truth_from_masks
from seg3d_core.metrics.predictions import Predictions
from seg3d_core.metrics.protocols import Result, evaluate
from seg3d_core.metrics.scene_counts import SceneEvaluation
from seg3d_core.models.checkpoint import check_features, describe, load_model, read_weights
from seg3d_core.models.postprocess import ScenePredictions
from seg3d_core.models.segdino3d import SceneResult, SegDino3D, segment

from . import checkpoints
from .config import TrainingConfig, build, change, read_config
from .data_config import DataConfig
from .dataset import SceneDataset, TrainingScene
from .readers_labels import Classes, classes_of
from .tables import markdown, print_results, to_dict

PROTOCOLS = {"scannet20": ("scannet18", "agnostic-scannet18"), "scannet200": ("scannet200", "agnostic-scannet200")}
_CHAIR, _RELEASED_CHAIR = 2, 3

OnScene = Callable[[TrainingScene, SceneResult], None]


def evaluate_scenes(
    model: SegDino3D, scenes: Iterable[TrainingScene], config: TrainingConfig, on_scene: OnScene | None = None
) -> list[Result]:
    """Results of a model in evaluation mode, class by class first, with and without duplicate predictions; then those
    of boxes.

    Scenes are held one at a time. Raises Seg3DError for a scene without annotation.
    """
    device = next(model.parameters()).device
    boxes: dict[Kind, list[tuple[str, SceneBoxes]]] = {"boxes": [], "mask-boxes": []}
    kinds: tuple[Kind, ...] = ("boxes", "mask-boxes") if model.settings.box_regression else ("mask-boxes",)
    classes = classes_of(config.data.benchmark)

    def results() -> Iterable[tuple[str, SceneEvaluation]]:
        for scene in scenes:
            found = segment(model, scene.to(device).inputs, config.segmentation)
            if on_scene is not None:
                on_scene(scene, found)
            masks = scene_evaluation(scene, found.instances, config)
            for kind in kinds:
                boxes[kind].append((scene.name, scene_boxes(scene, found.instances, masks, classes, kind)))
            yield scene.name, masks

    protocols = PROTOCOLS[config.data.benchmark]
    out = evaluate(results(), protocols)
    return [*out, *(each for kind in kinds for each in evaluate_boxes(boxes[kind], protocols[0], kind))]


def scene_evaluation(scene: TrainingScene, found: ScenePredictions, config: TrainingConfig) -> SceneEvaluation:
    """Predictions and truth of one scene, as the core's evaluator takes them. Raises Seg3DError."""
    if scene.targets is None:
        raise Seg3DError(f"{scene.name} has no annotation to compare with: evaluate another split, or only --export")
    classes = classes_of(config.data.benchmark)
    masks, labels = scene.targets.evaluation_masks()
    defect = config.evaluation.release_label_defect
    truth = truth_from_masks(masks.numpy(), labels.numpy(), classes.thing_ids, release_label_defect=defect)
    ids = np.array(classes.thing_ids, np.int64)[found.labels.cpu().numpy()]
    members = (found.indptr.cpu().numpy(), found.point_ids.cpu().numpy())
    return SceneEvaluation(truth.ids, *members, ids, found.scores.cpu().numpy())


def scene_boxes(
    scene: TrainingScene, found: ScenePredictions, masks: SceneEvaluation, classes: Classes, kind: Kind
) -> SceneBoxes:
    """The boxes of the same predictions, as the network regresses them or around their masks, and of the things."""
    targets = scene.targets
    assert targets is not None
    truth = torch.cat((targets.centres, targets.sizes), dim=1).numpy()
    labels = np.array(classes.thing_ids, np.int64)[targets.labels.numpy()]
    if kind == "boxes":
        boxes = found.boxes.cpu().numpy()
    else:
        boxes = boxes_around(scene.xyz.numpy(), masks.indptr, masks.members)
    return SceneBoxes(truth, labels, boxes, masks.labels, masks.scores)


def predictions_of(scene: TrainingScene, found: ScenePredictions, config: TrainingConfig) -> Predictions:
    """With the data set's class ids, for a submission. `evaluation.release_chair_defect`: chairs become floor."""
    thing_ids = np.array(classes_of(config.data.benchmark).thing_ids, np.int64)
    if config.evaluation.release_chair_defect and config.data.benchmark == "scannet200":
        thing_ids[thing_ids == _CHAIR] = _RELEASED_CHAIR
    labels = thing_ids[found.labels.cpu().numpy()]
    members = (found.indptr.cpu().numpy(), found.point_ids.cpu().numpy())
    return Predictions(len(scene.xyz), *members, labels, found.scores.cpu().numpy().astype(float))


def training_data(config: TrainingConfig) -> SceneDataset:
    """The training split, with what the network takes. Raises Seg3DError."""
    return SceneDataset(config.data.root, config.data.train_split, needed(config), config.run.seed)


def evaluation_data(config: TrainingConfig, split: str | Sequence[str]) -> SceneDataset:
    """A split, or scenes by name, as evaluation sees them, with what the network takes. Raises Seg3DError."""
    return SceneDataset(config.data.root, split, needed(config).model_copy(update={"train_split": ""}))


def needed(config: TrainingConfig) -> DataConfig:
    """The settings of data without what the network does not look at. Raises ConfigError where it would miss some."""
    model = config.model
    needs = {
        "image_features": model.image_features or model.late_image_features,
        "object_queries": model.object_queries,
    }
    if any(needs.values()) and not config.data.features:
        raise ConfigError(
            "this network takes 2D features, but data.features names none: set it, or switch model.image_features and "
            "model.object_queries off"
        )
    if not config.data.root:
        raise ConfigError("data.root is empty: name the folder that `python -m training.prepare` has filled")
    return config.data.model_copy(update=needs)


def scene_loader(scenes: SceneDataset, workers: int) -> Iterable[TrainingScene]:
    """One by one, in order."""
    return torch.utils.data.DataLoader(scenes, batch_size=None, num_workers=workers)


def settings_of(path: Path, recipe: str | None, assignments: Sequence[str]) -> TrainingConfig:
    """A run's own settings or a recipe's, with `--set` on top; without either, those that fit the weights."""
    values = parse_assignments(assignments)
    beside = (path if path.is_dir() else path.parent) / "config.json"
    if recipe is None and beside.is_file():
        return change(read_config(beside), values)
    if recipe is None:
        architecture, _, _ = describe(read_weights(checkpoints.find_weights(path)))
        recipe = "scannetv2" if architecture.thing_classes == classes_of("scannet20").things else "scannet200"
        if not architecture.box_regression:
            recipe = "baseline200"
    return build(values, recipe)


def run(options: argparse.Namespace) -> None:
    """The command. Raises Seg3DError."""
    path = Path(options.weights)
    config = settings_of(path, options.recipe, options.set)
    weights = checkpoints.find_weights(path)
    loaded = load_model(weights, config.segmentation)
    architecture = loaded.model.settings
    things = classes_of(config.data.benchmark).things
    if architecture.thing_classes != things:
        raise Seg3DError(
            f"{weights} knows {architecture.thing_classes} classes, {config.data.benchmark} has {things}: set "
            "data.benchmark to the other one"
        )
    switches = {
        name: getattr(architecture, name) for name in ("image_features", "late_image_features", "object_queries")
    }
    config = config.model_copy(update={"model": config.model.model_copy(update=switches)})
    if config.run.threads:
        torch.set_num_threads(config.run.threads)
    gpu = torch.cuda.is_available() and config.run.device != "cpu"
    model = loaded.model.to("cuda" if gpu else "cpu")
    split = options.split or config.data.val_split
    scenes = evaluation_data(config, split)
    if loaded.features_2d is not None:
        check_features(loaded.features_2d, scenes.encoder_id)
    export = None if options.export is None else Path(options.export)
    if options.only_export and export is None:
        raise Seg3DError("--only-export needs --export FOLDER")
    with progress() as bar:
        task = bar.add_task(f"scenes of {split}", total=len(scenes), note="")

        def after(scene: TrainingScene, found: SceneResult) -> None:
            if export is not None:
                export.mkdir(parents=True, exist_ok=True)
                write_predictions_text(export, scene.name, predictions_of(scene, found.instances, config), decimals=4)
            bar.update(task, advance=1, note=scene.name)

        loader = scene_loader(scenes, config.data.workers)
        if options.only_export:
            for scene in loader:
                device = next(model.parameters()).device
                after(scene, segment(model, scene.to(device).inputs, config.segmentation))
            return
        results = evaluate_scenes(model, loader, config, after)
    print_results(console, results)
    if options.out is not None:
        _write(Path(options.out), weights, split, config, results)


def _write(out: Path, weights: Path, split: str, config: TrainingConfig, results: Sequence[Result]) -> None:
    about = {"weights": str(weights), "split": split, "settings": config.model_dump(mode="json")}
    checkpoints.write_json(out / "results.json", {**about, "results": [to_dict(result) for result in results]})
    checkpoints.write(out / "results.md", markdown(results, f"{weights.name}, split {split}").encode())


def parser() -> argparse.ArgumentParser:
    out = argparse.ArgumentParser(prog="python -m training.evaluate", description=(__doc__ or "").splitlines()[0])
    out.add_argument("weights", help="folder of a run, or a file of weights, ours or as published")
    out.add_argument("--recipe", help="settings to start from, where no run's are wanted")
    out.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting")
    out.add_argument("--split", help="scenes to evaluate; otherwise data.val_split")
    out.add_argument("--out", help="folder for results.json and results.md")
    out.add_argument("--export", help="folder for the benchmark server's submission format")
    out.add_argument("--only-export", action="store_true", help="export scenes that have no annotation")
    return out


def main(arguments: Sequence[str] | None = None) -> int:
    try:
        run(parser().parse_args(arguments))
    except Seg3DError as error:
        errors.print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
