# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""The settings of a training run: one typed tree, in the style of `seg3d_core.config`.

A recipe is a name for a set of values; a YAML file and `--set data.batch_size=2` come on top. The resolved tree is
saved beside every result.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ValidationError, model_validator
from pydantic.fields import FieldInfo

from seg3d_core.config import SegDino3DConfig, explain, load_file
from seg3d_core.errors import ConfigError, printable
from seg3d_core.models.architecture import Architecture

from .data_config import DataConfig, Group, setting
from .readers_labels import classes_of


class ModelConfig(Group):
    """The network; its switches are the paper's ablations (Tables 2, 3, 5, 6, 8)."""

    backbone: Literal["minkowski", "spconv", "mlp"] = setting("minkowski", "the 3D network; mlp: no global context")
    feature_channels: int = setting(0, "per superpoint; 0: as published with the backbone", "", ge=0, le=1024)
    levels: int = setting(5, "resolutions of the spconv backbone", "", ge=1, le=8)
    blocks: int = setting(2, "residual blocks of each of them, down and up", "", ge=1, le=8)
    image_features: bool = setting(True, "image features of points enter the backbone")
    late_image_features: bool = setting(False, "they are fused after the backbone instead (Table 8)")
    object_queries: bool = setting(True, "attention to 2D object queries")
    distance_mask: bool = setting(True, "a query sees the 2D objects near its mask alone")
    centre_encoding: bool = setting(True, "queries have positions")
    box_regression: bool = setting(True, "queries have sizes")
    box_modulation: bool = setting(True, "sizes modulate the attention")
    sizes: Literal["normalised", "metric"] = setting("normalised", "how boxes are sized")
    layers: int = setting(6, "of the decoder", "", ge=1, le=24)
    width: int = setting(256, "of the decoder", "channels", ge=8, le=4096)
    heads: int = setting(8, "of each attention", "", ge=1, le=64)
    feed_forward_width: int = setting(1024, "of the decoder's feed-forward", "channels", ge=8, le=16384)
    features_2d: str = setting("", "name of the 2D feature source that weights carry; empty: what the data says")
    start_backbone: str = setting("", "a file whose backbone training starts from")
    start_weights: str = setting("", "a file of whole weights that training starts from")
    sparse_backend: Literal["auto", "torch", "triton", "minkowski", "spconv"] = setting(
        "auto", "who computes sparse convolutions; auto: triton on a GPU where PyTorch brought it, else torch"
    )

    def architecture(self, benchmark: str, voxel_size: float) -> Architecture:
        """Of voxels of `voxel_size` metres. Raises WeightsError for switches that exclude each other."""
        things = classes_of(benchmark).things
        channels = self.feature_channels or {"minkowski": 96, "spconv": 32, "mlp": 96}[self.backbone]
        names = set(Architecture.__dataclass_fields__) & set(type(self).model_fields) - {"feature_channels"}
        if self.backbone != "spconv":
            names -= {"levels", "blocks"}
        chosen = {name: getattr(self, name) for name in names}
        return Architecture(
            thing_classes=things,
            semantic_classes=things + 2,
            feature_channels=channels,
            voxel_size=voxel_size,
            **chosen,
        )


class MatcherConfig(Group):
    """How queries are matched with ground truth, and what each part of the cost weighs."""

    kind: Literal["sparse", "hungarian"] = setting(
        "sparse", "sparse: each instance takes the cheapest query inside it; hungarian: the cheapest assignment in all"
    )
    release_ties: bool = setting(False, "sparse, as released: an instance whose two cheapest queries tie gets none")
    classes: float = setting(0.5, "weight of the class probability", "", ge=0, le=100)
    mask_bce: float = setting(1.0, "weight of the mask's cross-entropy", "", ge=0, le=100)
    mask_dice: float = setting(1.0, "weight of the mask's dice", "", ge=0, le=100)
    centre: float = setting(0.5, "weight of the centre's L1", "1/m", ge=0, le=100)
    size: float = setting(0.5, "weight of the size's L1", "1/m", ge=0, le=100)


class LossConfig(Group):
    """Weights of the losses, and the release's defects, off by default."""

    classes: float = setting(0.5, "weight of the classes' cross-entropy", "", ge=0, le=100)
    mask_bce: float = setting(1.0, "weight of the masks' cross-entropy", "", ge=0, le=100)
    mask_dice: float = setting(1.0, "weight of the masks' dice", "", ge=0, le=100)
    centre: float = setting(0.5, "weight of the centres' L1", "1/m", ge=0, le=100)
    size: float = setting(0.5, "weight of the sizes' L1", "1/m", ge=0, le=100)
    semantic: float = setting(0.5, "weight of the semantic cross-entropy", "", ge=0, le=100)
    no_object: float = setting(0.1, "weight of the class `no object` in its cross-entropy", "", ge=0, le=100)
    dice_factor: float = setting(
        4.0, "the final dice times this, the auxiliary ones this over the batch", "", gt=0, le=100
    )
    release_empty_means: bool = setting(False, "as released: a scene without a match makes the loss NaN")
    release_lost_head: bool = setting(
        False, "as released: without boxes, the prediction before the last is not supervised"
    )


class OptimiserConfig(Group):
    """AdamW, its schedule, and what a step is."""

    learning_rate: float = setting(1e-4, "at the start", "", gt=0, le=1)
    backbone_learning_rate: float = setting(1e-4, "at the start, of the 3D network", "", ge=0, le=1)
    weight_decay: float = setting(0.05, "of all parameters", "", ge=0, le=1)
    power: float = setting(0.9, "of the polynomial schedule: rate * (1 - step / steps) ** power", "", ge=0, le=10)
    schedule_epochs: int = setting(0, "epochs until the rate is zero; 0: those of the run", "epochs", ge=0, le=100_000)
    clip_norm: float = setting(10.0, "largest norm of all gradients together; 0: no limit", "", ge=0, le=1e6)
    accumulate: int = setting(1, "batches per step", "batches", ge=1, le=1024)
    precision: Literal["float32", "bf16"] = setting("float32", "bf16: mixed precision")


class RunConfig(Group):
    """Length, seed, and what is written when."""

    epochs: int = setting(129, "passes over the training scenes", "epochs", ge=1, le=100_000)
    max_steps: int = setting(0, "stop after this many steps; 0: after the epochs", "steps", ge=0, le=100_000_000)
    most_queries: int = setting(
        0,
        "superpoints of a scene that become queries in a step, at most; 0: no limit, as published",
        "",
        ge=0,
        le=100_000,
    )
    full_batches: bool = setting(True, "leave out the last batch of an epoch where it is not full")
    seed: int = setting(10_000, "of weights, order, queries and augmentation", "", ge=0, le=2**31 - 1)
    device: Literal["auto", "cpu", "cuda"] = setting("auto", "where the network runs")
    threads: int = setting(0, "of PyTorch on the CPU; 0: its own choice", "", ge=0, le=1024)
    log_every: int = setting(20, "steps between two lines on the terminal", "steps", ge=1, le=100_000)
    save_every: int = setting(1, "epochs between two checkpoints", "epochs", ge=1, le=100_000)
    save_minutes: float = setting(30.0, "a checkpoint inside an epoch after this long; 0: none", "min", ge=0, le=1e5)
    evaluate_every: int = setting(
        10, "epochs between two evaluations; the last epoch has one; 0: none at all", "epochs", ge=0, le=100_000
    )
    evaluate_scenes: int = setting(0, "validation scenes looked at during training; 0: all", "scenes", ge=0, le=100_000)
    picture_every: int = setting(10, "evaluations between two pictures of a scene; 0: none", "", ge=0, le=100_000)
    tensorboard: bool = setting(True, "write TensorBoard's files where it is installed")


class EvaluationConfig(Group):
    """How results are counted."""

    release_label_defect: bool = setting(
        False, "as released: in a scene without wall or floor its first things count as void"
    )
    release_chair_defect: bool = setting(False, "as released: an export for ScanNet200 calls chairs 3, which is floor")


class TrainingConfig(Group):
    """Everything."""

    recipe: str = setting("scannet200", "the name of the set of values underneath")
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    matcher: MatcherConfig = MatcherConfig()
    loss: LossConfig = LossConfig()
    optimiser: OptimiserConfig = OptimiserConfig()
    run: RunConfig = RunConfig()
    segmentation: SegDino3DConfig = SegDino3DConfig()
    evaluation: EvaluationConfig = EvaluationConfig()

    @model_validator(mode="after")
    def _check(self) -> TrainingConfig:
        for name in ("image_features", "object_queries"):
            if getattr(self.model, name) and not getattr(self.data, name):
                raise ValueError(f"model.{name} needs data.{name}: switch both off, or the second on")
        return self

    def architecture(self) -> Architecture:
        """Raises WeightsError for switches that exclude each other."""
        return self.model.architecture(self.data.benchmark, self.data.voxel_size)


_WITHOUT_2D_AND_BOXES = {
    f"model.{name}": False
    for name in ("image_features", "object_queries", "centre_encoding", "box_regression", "box_modulation")
}

RECIPES: dict[str, dict[str, Any]] = {
    "scannet200": {"run.epochs": 129},
    "scannet200-paper": {"run.epochs": 88},
    "scannetv2": {
        "data.benchmark": "scannet20",
        "data.query_dropout": 0.1,
        "model.backbone": "spconv",
        "model.sizes": "metric",
        "run.epochs": 500,
        "optimiser.schedule_epochs": 512,
    },
    "scannetv2-paper": {
        "data.benchmark": "scannet20",
        "data.query_dropout": 0.1,
        "model.backbone": "spconv",
        "model.sizes": "metric",
        "run.epochs": 88,
    },
    "baseline200": {"run.epochs": 129, "segmentation.box_filter": False, **_WITHOUT_2D_AND_BOXES},
    # One busy core trains it: coarse voxels, a narrow and shallow U-Net, few queries in a step.
    "small": {
        "data.batch_size": 1,
        "data.workers": 0,
        "data.query_dropout": 0.5,
        "data.voxel_size": 0.08,
        # Its noise is in voxels, which are four times the published ones here.
        "data.augment.elastic_probability": 0.0,
        "model.backbone": "spconv",
        "model.feature_channels": 16,
        "model.levels": 4,
        "model.blocks": 1,
        "model.width": 64,
        "model.heads": 4,
        "model.layers": 3,
        "model.feed_forward_width": 128,
        "optimiser.learning_rate": 2e-3,
        "optimiser.backbone_learning_rate": 2e-3,
        "run.most_queries": 300,
        "run.epochs": 30,
        "run.evaluate_every": 10,
        "run.picture_every": 1,
    },
}
"""`scannet200` and `scannetv2` are the release's lengths (129 and 500 epochs), `-paper` those of the paper (88)."""


def iterate(group: BaseModel, prefix: str = "") -> Iterator[tuple[str, Any, FieldInfo]]:
    """Every setting as (dotted name, value, pydantic field), in order."""
    for name, field in type(group).model_fields.items():
        value = getattr(group, name)
        if isinstance(value, BaseModel):
            yield from iterate(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value, field


def build(values: Mapping[str, Any] | None = None, recipe: str = "scannet200") -> TrainingConfig:
    """A config from a recipe and dotted names on top, e.g. {"data.batch_size": 2}. Raises ConfigError."""
    if recipe not in RECIPES:
        raise ConfigError(f"no recipe {recipe!r}: choose one of {', '.join(RECIPES)}")
    return change(TrainingConfig(recipe=recipe), {**RECIPES[recipe], **(values or {})})


def read_values(path: str | Path) -> dict[str, Any]:
    """A YAML file of settings, nested or dotted, as dotted names. Raises ConfigError."""
    return dict(_flat(load_file(path)))


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def change(config: TrainingConfig, values: Mapping[str, Any]) -> TrainingConfig:
    """The config with dotted names set anew. Raises ConfigError naming the setting, the value and what is allowed."""
    known = [name for name, _, _ in iterate(config)]
    tree = config.model_dump()
    for name, value in values.items():
        if name not in known or name == "recipe":
            close = difflib.get_close_matches(name, known, 1)
            raise ConfigError(f"no setting {name!r}" + (f"; did you mean {close[0]!r}?" if close else ""))
        *groups, last = name.split(".")
        place = tree
        for group in groups:
            place = place[group]
        place[last] = value
    return _validate(tree)


def to_json(config: TrainingConfig) -> str:
    """What `read_config` reads."""
    return json.dumps(config.model_dump(mode="json"), indent=1) + "\n"


def read_config(path: str | Path) -> TrainingConfig:
    """The resolved config that stands beside a result. Raises ConfigError."""
    try:
        tree = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"cannot read the settings of a run from {path}: {printable(str(error), 200)}") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} holds no settings of a run")
    if isinstance(segmentation := tree.get("segmentation"), dict):
        # It went to the core's `memory`, and no run on prepared scenes depends on it.
        segmentation.pop("point_features_mb", None)
    return _validate(tree)


def _validate(tree: Mapping[str, Any]) -> TrainingConfig:
    try:
        return TrainingConfig.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(explain(error)) from None
