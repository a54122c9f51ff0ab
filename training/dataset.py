# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Training scenes out of the cache that `training.prepare` makes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from seg3d_core.errors import Seg3DError
from seg3d_core.models.backbones.scene import Points, normalise_colours
from seg3d_core.models.segdino3d import SceneInput
from seg3d_core.types import Array

from .augment import Sample, augment, drop_queries
from .data_config import DataConfig
from .readers_cache import CachedScene, SceneFeatures, read_scene, read_split
from .readers_features import check_features, features_id, read_features
from .readers_labels import Classes, classes_of


@dataclass(frozen=True, eq=False)
class Targets:
    """Ground truth of one scene: K things, S superpoints, N points, G semantic classes of which C = G - 2 are things.

    Args:
        labels: (K,) int64, 0 .. C - 1.
        instance_masks: (K, S) bool: more than half of the superpoint's points lie in the thing.
        semantic: (S,) int64, 0 .. G - 1, the class of more than half of its points; G where none has so many.
        centres, sizes: (K, 3) float32 metres, middle and extent of the thing's points as the backbone sees them (in
            training elastically moved).
        instance_of_point: (N,) int64, 0 .. K - 1; -1 none.
        semantic_of_point: (N,) int64, 0 .. G, G unlabelled.
    """

    labels: Tensor
    instance_masks: Tensor
    semantic: Tensor
    centres: Tensor
    sizes: Tensor
    instance_of_point: Tensor
    semantic_of_point: Tensor

    def __len__(self) -> int:
        """K."""
        return len(self.labels)

    def evaluation_masks(self) -> tuple[Tensor, Tensor]:
        """Masks bool (K', N) and labels int64 (K',), 0 .. G - 1: wall and floor where present, then the things.

        What `seg3d_core.metrics.ground_truth.truth_from_masks` takes.
        """
        stuff = [c for c in (0, 1) if (self.semantic_of_point == c).any()]
        parts = [self.semantic_of_point == c for c in stuff]
        parts += [self.instance_of_point == k for k in range(len(self))]
        masks = torch.stack(parts) if parts else self.instance_of_point.new_zeros((0, len(self.instance_of_point))) > 0
        return masks, torch.cat((self.labels.new_tensor(stuff), self.labels + 2))


@dataclass(frozen=True, eq=False)
class TrainingScene:
    """One scene for the network, with its ground truth.

    Args:
        name: of the scene.
        xyz: (N, 3) float32 metres.
        rgb: (N, 3) float32, 0 to 255; `inputs` normalises.
        superpoints: (N,) int64, 0 .. S - 1, each used.
        image_features: (N, C), at the precision of the file, which `inputs` makes single where the scene then is; zeros
            where no view saw the point; None for a network on colours alone.
        queries_2d, query_2d_positions: (O, C), (O, 3) float32, the 2D object queries and their centres in metres.
        warped: (N, 3) float32 elastically moved positions in voxel units; None in evaluation.
        targets: None where the scene has no annotation.
    """

    name: str
    xyz: Tensor
    rgb: Tensor
    superpoints: Tensor
    image_features: Tensor | None
    queries_2d: Tensor
    query_2d_positions: Tensor
    warped: Tensor | None
    targets: Targets | None

    @property
    def superpoint_count(self) -> int:
        """S."""
        return int(self.superpoints.max()) + 1

    @property
    def inputs(self) -> SceneInput:
        """What `seg3d_core.models.segdino3d.SegDino3D` takes."""
        colours = normalise_colours(self.rgb)
        features = None if self.image_features is None else self.image_features.float()
        points = Points(self.xyz, colours, self.superpoints, features, self.warped)
        return SceneInput(points, self.queries_2d, self.query_2d_positions)

    def to(self, device: torch.device | str) -> TrainingScene:
        return _map_tensors(self, lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> TrainingScene:
        return _map_tensors(self, lambda tensor: tensor.pin_memory())


def _map_tensors(value: Any, function: Any) -> Any:
    """The same dataclass with `function` applied to its tensors, those of dataclasses inside it too."""
    changed: dict[str, Any] = {}
    for field in fields(value):
        part = getattr(value, field.name)
        if isinstance(part, Tensor):
            changed[field.name] = function(part)
        elif isinstance(part, Targets):
            changed[field.name] = _map_tensors(part, function)
    return replace(value, **changed)


class SceneDataset(Dataset[TrainingScene]):
    """The scenes of a split, augmented where `training`.

    Random numbers come from (`seed`, epoch, index) alone: any number of workers, in any order, gives the same scenes.
    `encoder_id` is the 2D model that the features are of. Raises Seg3DError for a cache that lacks a scene or its
    features, with the command that makes them.
    """

    def __init__(self, root: str | Path, split: str | Sequence[str], config: DataConfig, seed: int = 0):
        self.root, self.config, self.seed = Path(root), config, seed
        self.classes = classes_of(config.benchmark)
        self.names = read_split(self.root, split) if isinstance(split, str) else list(split)
        self.training = split == config.train_split
        # In shared memory, so that workers which live on see it change.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()
        self.encoder_id = self._check()

    def _check(self) -> str:
        """The id of the 2D features, "" without any."""
        if not self.names:
            raise Seg3DError(f"the split holds no scene: name some in {self.root}/splits")
        for name in self.names:
            if not (self.root / "scenes" / f"{name}.npz").is_file():
                raise Seg3DError(
                    f"{self.root}/scenes has no {name}.npz: python -m training.prepare scenes RAW {self.root}"
                )
        if not self.wants_features:
            return ""
        if not self.config.features:
            raise Seg3DError(
                "data.features names no 2D features: name those that `python -m training.prepare features` made, or "
                "switch data.image_features and data.object_queries off"
            )
        for name in self.names:
            check_features(self.root, self.config.features, name)
        return features_id(self.root, self.config.features, self.names[0])

    @property
    def wants_features(self) -> bool:
        return self.config.image_features or self.config.object_queries

    def __len__(self) -> int:
        return len(self.names)

    def set_epoch(self, epoch: int) -> None:
        """Which random numbers come next; a resumed run goes on with those that it would have had."""
        self._epoch.fill_(epoch)

    def random(self, index: int) -> np.random.RandomState:
        """The random numbers of scene `index` in this epoch."""
        seeds = np.random.SeedSequence((self.seed, int(self._epoch), index))
        return np.random.RandomState(np.random.MT19937(seeds))

    def __getitem__(self, index: int) -> TrainingScene:
        scene = read_scene(self.root / "scenes" / f"{self.names[index]}.npz")
        features = None
        if self.wants_features:
            features = read_features(self.root, self.config.features, self.names[index], len(scene.xyz))
            if features.encoder_id != self.encoder_id:
                raise Seg3DError(
                    f"2D features of {self.names[index]} are of {features.encoder_id}, those of {self.names[0]} of "
                    f"{self.encoder_id}: make all by one 2D model"
                )
        random = self.random(index) if self.training else None
        return make_scene(self.names[index], scene, features, self.classes, self.config, random)


def make_scene(
    name: str,
    scene: CachedScene,
    features: SceneFeatures | None,
    classes: Classes,
    config: DataConfig,
    random: np.random.RandomState | None = None,
) -> TrainingScene:
    """A scene for training where `random` is given, for evaluation otherwise (SegDINO3D sec. 3, appendix)."""
    image_features, queries, positions = _features(features, config)
    if random is not None:
        chosen = drop_queries(len(queries), config.query_dropout, random) if len(queries) else slice(None)
        queries, positions = queries[chosen], positions[chosen]
    sample = Sample(scene.xyz.astype(np.float32), positions.astype(np.float32))
    if random is not None:
        sample = augment(sample, random, config.augment, config.voxel_size)
    superpoints = torch.from_numpy(scene.superpoints.astype(np.int64))
    xyz = torch.from_numpy(sample.xyz)
    warped = None if sample.warped is None else torch.from_numpy(sample.warped)
    targets = None
    if scene.is_annotated:
        moved = xyz if warped is None else warped * config.voxel_size
        targets = make_targets(scene, superpoints, moved, classes, config.release_first_instance_defect)
    return TrainingScene(
        name,
        xyz,
        torch.from_numpy(scene.rgb.astype(np.float32)),
        superpoints,
        None if image_features is None else torch.from_numpy(image_features),
        torch.from_numpy(queries).float(),
        torch.from_numpy(sample.query_positions),
        warped,
        targets,
    )


def _features(features: SceneFeatures | None, config: DataConfig) -> tuple[Array | None, Array, Array]:
    none = np.zeros((0, 256), np.float32), np.zeros((0, 3), np.float32)
    if features is None:
        return None, *none
    queries, positions = (features.queries, features.query_positions) if config.object_queries else none
    return (features.image_features if config.image_features else None), queries, positions


def make_targets(
    scene: CachedScene, superpoints: Tensor, moved: Tensor, classes: Classes, first_instance_defect: bool = False
) -> Targets:
    """Ground truth of a scene; `moved` float (N, 3) are its points in metres as the backbone sees them."""
    semantic = classes.of_ids(scene.ids(classes.benchmark))
    instance = number_instances(scene.instance, semantic, classes, first_instance_defect)
    count = int(instance.max(initial=-1)) + 1
    _, first = np.unique(instance[instance >= 0], return_index=True)
    labels = torch.from_numpy(semantic[instance >= 0][first] - 2)
    of_point, semantic_of_point = torch.from_numpy(instance), torch.from_numpy(semantic)
    n = int(superpoints.max()) + 1
    owner = majority(superpoints, of_point, n, count)
    masks = owner[None, :] == torch.arange(count)[:, None]
    by_class = majority(superpoints, semantic_of_point, n, classes.semantic)
    by_class = torch.where(by_class < 0, classes.semantic, by_class)
    centres, sizes = instance_boxes(moved, of_point, count)
    return Targets(labels, masks, by_class, centres, sizes, of_point, semantic_of_point)


def number_instances(raw: Array, semantic: Array, classes: Classes, first_instance_defect: bool = False) -> Array:
    """Things 0 .. K - 1 in ascending order of their raw ids int (N,), int64 (N,); -1 for stuff and what is no object.

    `first_instance_defect`: as the release, which takes the lowest number for the background; where no point is
    background or stuff, the first thing is lost to it.
    """
    is_thing = (raw > 0) & (semantic >= 2) & (semantic < classes.semantic)
    old, numbers = np.unique(np.where(is_thing, raw, -1), return_inverse=True)
    has_background = len(old) > 0 and old[0] == -1
    return numbers.reshape(-1).astype(np.int64) - int(has_background or first_instance_defect)


def majority(groups: Tensor, values: Tensor, group_count: int, value_count: int) -> Tensor:
    """(group_count,) int64: the value that more than half of a group's members have; -1 where none has so many.

    values (N,) below 0 or from `value_count` are no value, and count as members.
    """
    members = torch.bincount(groups, minlength=group_count)
    known = (values >= 0) & (values < value_count)
    result = torch.full((group_count,), -1, dtype=torch.int64)
    keys, counts = torch.unique(groups[known] * max(value_count, 1) + values[known], return_counts=True)
    group = torch.div(keys, max(value_count, 1), rounding_mode="floor")
    most = 2 * counts > members[group]
    result[group[most]] = (keys % max(value_count, 1))[most]
    return result


def instance_boxes(points: Tensor, instance: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Middle and extent (count, 3) of the points (N, 3) of each instance int64 (N,), -1 = none."""
    known = instance >= 0
    rows = instance[known][:, None].expand(-1, 3)
    low, high = points.new_zeros(count, 3), points.new_zeros(count, 3)
    low = low.scatter_reduce(0, rows, points[known], "amin", include_self=False)
    high = high.scatter_reduce(0, rows, points[known], "amax", include_self=False)
    return (high + low) / 2, high - low
