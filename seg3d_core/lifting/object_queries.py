# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""The bank of 2D object queries: objects that a detector found in keyframes, each at a place in the world.

SegDINO3D's object level. An object stands where the medoid of its back-projected pixels does; a scene gives those
that lie farthest from one another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..budgets import megabytes
from ..config import MemoryConfig
from ..errors import MapFileError, Seg3DError
from ..geometry import back_project, transform
from ..types import Array, Frame, Masks2D, ObjectQueries2D
from .point_sets import farthest_points, group_medoids


@dataclass(frozen=True, eq=False)
class SceneQueries:
    """O object queries: features float32 (O, C), centres float32 (O, 3) in the world, scores float32 (O,), and
    keyframes int64 (O,), where each was seen."""

    features: Array
    centres: Array
    scores: Array
    keyframes: Array

    def __len__(self) -> int:
        return len(self.scores)


class ObjectQueryBank:
    """Objects with a score above `min_score`, at most `capacity`, of one encoder; features at half precision.

    Beyond the capacity or `budget_bytes` the objects of lowest score leave, the older first. An object takes 2 C + 24
    bytes.
    """

    def __init__(
        self,
        min_score: float = 0.3,
        capacity: int = 20_000,
        depth_max: float = np.inf,
        budget_bytes: int = megabytes(MemoryConfig().objects_mb),
    ) -> None:
        self.min_score, self.capacity, self.depth_max = min_score, capacity, depth_max
        self.budget_bytes = budget_bytes
        self.reset()

    def reset(self) -> None:
        self.encoder_id = ""
        self.refused = 0
        """Objects left out because their features or places were no finite numbers, or no pixel had depth."""
        self.evicted = 0
        """Objects that left for capacity or budget."""
        self._features = np.empty((0, 0), np.float16)
        self._centres = np.empty((0, 3), np.float32)
        self._scores = np.empty(0, np.float32)
        self._keyframes = np.empty(0, np.int64)

    def __len__(self) -> int:
        return len(self._scores)

    @property
    def memory_bytes(self) -> int:
        return sum(a.nbytes for a in (self._features, self._centres, self._scores, self._keyframes))

    def add(self, keyframe: int, frame: Frame, queries: ObjectQueries2D) -> int:
        """Takes the objects of one keyframe, whose row k has label k + 1 in the masks; how many were taken.

        Raises Seg3DError for queries without masks, of another size than the frame or of another encoder.
        """
        masks = self._checked(frame, queries)
        chosen = np.flatnonzero(np.asarray(queries.scores) > self.min_score)
        centres, located = _centres(frame, masks, len(queries.scores), self.depth_max)
        with np.errstate(over="ignore"):
            features = np.asarray(queries.features, np.float32)[chosen].astype(np.float16)
        good = located[chosen] & np.isfinite(features).all(axis=1) & np.isfinite(centres[chosen]).all(axis=1)
        self.refused += int(len(chosen) - good.sum())
        kept = chosen[good]
        if not len(kept):
            return 0
        self.encoder_id = queries.encoder_id
        if not len(self):
            self._features = np.empty((0, features.shape[1]), np.float16)
        self._features = np.concatenate([self._features, features[good]])
        self._centres = np.concatenate([self._centres, centres[kept].astype(np.float32)])
        self._scores = np.concatenate([self._scores, np.asarray(queries.scores, np.float32)[kept]])
        self._keyframes = np.concatenate([self._keyframes, np.full(len(kept), keyframe, np.int64)])
        self.make_room()
        return len(kept)

    def _checked(self, frame: Frame, queries: ObjectQueries2D) -> Masks2D:
        masks, shape = queries.masks, np.shape(queries.features)
        if masks is None:
            raise Seg3DError(f"{queries.encoder_id}: objects without masks have no place in 3D: add a box segmenter")
        if len(shape) != 2 or len(masks) != shape[0] or len(queries.scores) != shape[0]:
            raise Seg3DError(
                f"{queries.encoder_id}: {len(masks)} masks and {len(queries.scores)} scores for features {shape}"
            )
        if masks.labels.shape != frame.depth.shape:
            raise Seg3DError(
                f"{queries.encoder_id}: masks {masks.labels.shape} for frame {frame.index} of {frame.depth.shape}"
            )
        if masks.labels.min(initial=0) < 0 or masks.labels.max(initial=0) > len(masks):
            raise Seg3DError(f"{queries.encoder_id}: the masks' labels are not 0 to {len(masks)}")
        if len(self) and (queries.encoder_id, shape[1]) != (self.encoder_id, self._features.shape[1]):
            raise Seg3DError(
                f"object queries of {queries.encoder_id} ({shape[1]} channels) do not compare with those of "
                f"{self.encoder_id} ({self._features.shape[1]}) in this map: start a new one"
            )
        return masks

    def make_room(self) -> None:
        per_object = self.memory_bytes // max(len(self), 1)
        surplus = len(self) - min(self.capacity, self.budget_bytes // max(per_object, 1))
        if surplus <= 0:
            return
        self.evicted += surplus
        # Stable, so that among equal scores the older stand first, and go first.
        self._take(np.sort(np.argsort(self._scores, kind="stable")[surplus:]))

    def _take(self, rows: Array) -> None:
        self._features, self._centres = self._features[rows], self._centres[rows]
        self._scores, self._keyframes = self._scores[rows], self._keyframes[rows]

    def move(self, keyframes: Array, deltas: Array) -> None:
        """Objects of the keyframes int64 (k,), ascending, move by deltas (k, 4, 4), since these were posed anew."""
        if not len(self) or not len(keyframes):
            return
        at = np.minimum(np.searchsorted(keyframes, self._keyframes), len(keyframes) - 1)
        moves = np.where((keyframes[at] == self._keyframes)[:, None, None], deltas[at], np.eye(4))
        centres = (moves[:, :3, :3] @ self._centres[:, :, None].astype(np.float64))[..., 0] + moves[:, :3, 3]
        self._centres = centres.astype(np.float32)

    def queries(self, count: int = 2048) -> SceneQueries:
        """Copies of `count` objects, each the farthest from those before it, starting with the oldest; or of all."""
        rows = farthest_points(self._centres, count) if len(self) > count else np.arange(len(self))
        return SceneQueries(
            self._features[rows].astype(np.float32), self._centres[rows], self._scores[rows], self._keyframes[rows]
        )

    def state(self) -> dict[str, Array]:
        """Arrays for `restore`."""
        return {
            "features": self._features.copy(),
            "centres": self._centres.copy(),
            "scores": self._scores.copy(),
            "keyframes": self._keyframes.copy(),
            "encoder_id": np.array(self.encoder_id),
        }

    def restore(self, state: Mapping[str, Array]) -> None:
        """From `state`; the capacity may be another than then. Raises MapFileError where arrays do not fit."""
        count = len(state["scores"])
        shapes = (state["features"].shape[:1], state["centres"].shape, state["keyframes"].shape)
        if shapes != ((count,), (count, 3), (count,)) or state["features"].ndim != 2:
            raise MapFileError("damaged", f"object queries of shapes {shapes} do not belong together")
        if not (np.isfinite(state["centres"]).all() and np.isfinite(state["features"]).all()):
            raise MapFileError("damaged", "object queries hold NaN or infinite numbers")
        self.reset()
        self.encoder_id = str(state["encoder_id"])
        self._features = state["features"].astype(np.float16)
        self._centres = state["centres"].astype(np.float32)
        self._scores = state["scores"].astype(np.float32)
        self._keyframes = state["keyframes"].astype(np.int64)
        self.make_room()


def _centres(frame: Frame, masks: Masks2D, count: int, depth_max: float) -> tuple[Array, Array]:
    """The medoid of each object's pixels with depth, float64 (count, 3) in the world, and which have one."""
    centres, located = np.zeros((count, 3)), np.zeros(count, bool)
    flat = np.flatnonzero((masks.labels > 0) & (frame.depth > 0) & (frame.depth <= depth_max))
    labels = masks.labels.ravel()[flat]
    flat = flat[np.argsort(labels, kind="stable")]
    sizes = np.bincount(labels, minlength=count + 1)[1:]
    if not len(flat):
        return centres, located
    points = back_project(frame.depth.astype(np.float64), frame.camera).reshape(-1, 3)[flat]
    located = sizes > 0
    best = group_medoids(points, np.append(0, np.cumsum(sizes[located])))
    centres[located] = transform(np.asarray(frame.T_world_camera, np.float64), points[best])
    return centres, located
