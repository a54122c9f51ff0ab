# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""One segmentation: superpoints of the cloud, the network on it or on its tiles, and instances of the map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...config import SegDino3DConfig
from ...lifting.keyframe_log import LoggedKeyframe
from ...lifting.object_queries import SceneQueries
from ...lifting.point_sets import farthest_points
from ...lifting.view_shapes import with_shapes
from ...lifting.views import sightings
from ...mapping.neighbours import map_neighbours
from ...mapping.superpoints import superpoints
from ...metrics.classes import class_lists
from ...models.predictions import CloudInput, Predictions, Predictor
from ...types import Array, Cloud, Instances, View
from . import tiles as tiling

CHANNELS = 256
"""Of image features, where no frame has said."""
_REACH = 0.5
"""Metres: objects this far outside of a tile's points still go with it."""


@dataclass(frozen=True, eq=False)
class StateCopy:
    """What a segmentation works on: the cloud, the map rows of its points int64 (N,), their image features float16
    (N, C), all objects, and the log."""

    cloud: Cloud
    rows: Array
    features: Array
    objects: SceneQueries
    keyframes: tuple[LoggedKeyframe, ...]


@dataclass(frozen=True, eq=False)
class SegDino3DSegmentation:
    """Instances (ids 0), best first, over the cloud's point ids, and the best views of each, best first."""

    instances: Instances
    views: tuple[tuple[View, ...], ...]


def segment_cloud(predictor: Predictor, config: SegDino3DConfig, state: StateCopy) -> SegDino3DSegmentation:
    """The network on the state. A cloud without points has no instances and is not shown to it."""
    found = predict(predictor, config, state)
    instances = as_instances(found, predictor, state.cloud.ids)
    return SegDino3DSegmentation(instances, _best_views(instances, state))


def predict(predictor: Predictor, config: SegDino3DConfig, state: StateCopy) -> Predictions:
    """Predictions over the cloud's points that pass the config's limits, best first."""
    if not len(state.cloud):
        return Predictions.empty()
    parts = superpoints(state.cloud, map_neighbours(state.cloud.xyz))
    budget = tiling.TileBudget(config.tile_points, config.tile_voxels, config.tile_overlap)
    tiles = tiling.cut(state.cloud.xyz, budget)
    found = []
    for rows in tiles:
        of_tile = predictor.predict(_input(state, parts, rows, config.object_queries))
        good = (of_tile.scores > config.instance_score) & (of_tile.sizes > 0)
        found.append(tiling.select(of_tile, np.flatnonzero(good)))
    return tiling.distinct(tiling.merge(found, tiles, len(state.cloud)), config.instance_overlap)


def _input(state: StateCopy, parts: Array, rows: Array, most_objects: int) -> CloudInput:
    xyz = state.cloud.xyz[rows]
    centres = state.objects.centres
    near = np.flatnonzero(((centres >= xyz.min(axis=0) - _REACH) & (centres <= xyz.max(axis=0) + _REACH)).all(axis=1))
    if len(near) > most_objects:
        near = near[farthest_points(centres[near], most_objects)]
    return CloudInput(
        xyz,
        state.cloud.rgb[rows],
        parts[rows],
        state.features[rows].astype(np.float32),
        state.objects.features[near].reshape(len(near), -1 if len(near) else CHANNELS),
        centres[near],
    )


def as_instances(found: Predictions, predictor: Predictor, point_ids: Array) -> Instances:
    """Predictions over rows of a cloud as instances over its point ids (N,)."""
    ids, names = class_ids_and_names(predictor.classes, predictor.class_names)
    return Instances(
        np.zeros(len(found), np.int32),
        np.clip(found.scores, 0, 1).astype(np.float32),
        found.indptr,
        point_ids[found.points],
        ids[found.labels],
        tuple(names[label] for label in found.labels),
        found.boxes.astype(np.float32) if predictor.regresses_boxes else None,
    )


def class_ids_and_names(count: int, own: Sequence[str] = ()) -> tuple[Array, tuple[str, ...]]:
    """Ids int32 (count,) and names of a network's classes, in its order.

    Its own names, where its weights say them, are numbered from 1. ScanNet's 18 and ScanNet200's 198 things, known by
    their number, have the benchmarks' ids; both lists stand in the networks' order. Others are `class 1` and so on.
    """
    for known in class_lists().values():
        if count == len(known.ids) and tuple(own) in ((), tuple(known.names.values())):
            return np.array(known.ids, np.int32), tuple(known.names.values())
    numbers = np.arange(1, count + 1, dtype=np.int32)
    return numbers, tuple(own) or tuple(f"class {number}" for number in numbers)


def _best_views(instances: Instances, state: StateCopy) -> tuple[tuple[View, ...], ...]:
    """By one instance per point: where they overlap, the better one is seen."""
    if not len(instances):
        return ()
    top = max([int(state.rows.max(initial=-1)), *(int(k.rows.max(initial=-1)) for k in state.keyframes)]) + 1
    by_row = np.full(top, -1, np.int32)
    by_row[state.rows] = instances.exclusive(state.cloud.ids)
    seen = sightings(state.keyframes, by_row, len(instances))
    return with_shapes(seen.best_views(), state.keyframes, by_row)
