# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""The segmenter: what 2D models said of the map's points, kept up to date, and the network run on it when asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np

from ...budgets import Holder, megabytes
from ...config import MemoryConfig, SegDino3DConfig
from ...errors import FrameError, MapFileError, Seg3DError
from ...lifting.keyframe_log import KeyframeLog
from ...lifting.mask_lookup import masks_at
from ...lifting.object_queries import ObjectQueryBank
from ...lifting.point_features import PointFeatures, view_distances
from ...models.architecture import same_source
from ...models.predictions import Predictor
from ...types import Array, Cloud, Frame, MapCorrection, Masks2D, Objects2D
from .inference import CHANNELS, SegDino3DSegmentation, StateCopy, segment_cloud

# Features are averaged in pieces of this many points, so that no copy at full precision exists of all.
_CHUNK = 65_536


class SegDino3DSegmenter:
    """`segmenters.base.ObjectSegmenter` after SegDINO3D: nearest-view features, object queries and a log of keyframes.

    `depth_max` (m): depth beyond it places no object.
    """

    def __init__(
        self,
        config: SegDino3DConfig,
        predictor: Predictor,
        depth_max: float = np.inf,
        memory: MemoryConfig | None = None,
    ):
        self.config = config
        memory = memory or MemoryConfig()
        self._predictor = predictor
        self._features = PointFeatures(config.views_per_point, memory.point_features_mb, config.nearest_views)
        self._bank = ObjectQueryBank(config.object_score, config.objects_kept, depth_max, megabytes(memory.objects_mb))
        self._log = KeyframeLog(config.max_keyframes, megabytes(memory.keyframes_mb))
        self.wants_objects = predictor.needs_image_features or predictor.needs_objects

    @property
    def working_bytes(self) -> int:
        return 0

    def drop_working(self) -> None:
        """Nothing is kept from one snapshot to the next."""

    @property
    def holders(self) -> dict[str, Holder]:
        return {"votes and log": self._log, "point features": self._features, "2D objects": self._bank}

    def observe_objects(
        self, keyframe: int, frame: Frame, rows: Array, pixels: Array, depths: Array, objects: Objects2D
    ) -> None:
        """Features of the points that a keyframe sees, and its objects. Raises FrameError where they do not fit."""
        if not self.wants_objects:
            return
        self._check_source(objects)
        try:
            if self._predictor.needs_objects:
                self._bank.add(keyframe, frame, objects.queries)
            if self._predictor.needs_image_features and objects.levels:
                distances = view_distances(pixels, depths, frame.camera)
                self._features.observe(rows, pixels, distances, objects.levels)
        except Seg3DError as error:
            raise FrameError("objects", f"what the detector says of the frame does not fit: {error}") from None

    def _check_source(self, objects: Objects2D) -> None:
        wanted = self._predictor.features_2d
        ids = (objects.queries.encoder_id, *(level.encoder_id for level in objects.levels))
        if self.config.features_2d != "auto" or wanted is None:
            return
        for encoder in ids:
            if not same_source(wanted, encoder):
                raise FrameError(
                    "features_2d",
                    f"features of {encoder} came, the weights were trained with those of {wanted}; "
                    "where they are the same, say so: segdino3d.features_2d",
                )

    def observe(self, keyframe: int, rows: Array, pixels: Array, depths: Array, masks: tuple[Masks2D, ...]) -> None:
        """The masks say how well a keyframe shows an instance; later, when instances are known.

        Raises FrameError where they do not fit the pixels.
        """
        found = [masks_at(pixels, image) for image in masks]
        on_masks = np.stack([numbers for numbers, _ in found])
        self._log.append(keyframe, rows, on_masks, found[0][1], [len(image) for image in masks])

    def prepare(self, cloud: Cloud, rows: Array) -> Callable[[], SegDino3DSegmentation]:
        """Copies features, objects and the log; the returned function shares nothing else with this object."""
        state = StateCopy(
            cloud, rows.copy(), self._point_features(rows), self._bank.queries(len(self._bank)), tuple(self._log)
        )
        return partial(segment_cloud, self._predictor, self.config, state)

    def _point_features(self, rows: Array) -> Array:
        if not self._predictor.needs_image_features:
            return np.empty((len(rows), 0), np.float16)
        out = np.zeros((len(rows), self._features.channels or CHANNELS), np.float16)
        if self._features.channels:
            for begin in range(0, len(rows), _CHUNK):
                out[begin : begin + _CHUNK] = self._features.features(rows[begin : begin + _CHUNK])[0]
        return out

    def remap(self, new_rows: Array) -> None:
        self._features.remap(new_rows)
        self._log.remap(new_rows)

    def correct(self, correction: MapCorrection) -> None:
        self._features.merge(correction.gone_rows, correction.kept_rows)
        self._bank.move(correction.keyframes, correction.deltas)
        self._log.correct(correction)

    def reset(self) -> None:
        self._features.reset()
        self._bank.reset()
        self._log.reset()

    def state(self) -> dict[str, Array]:
        parts = (("features_", self._features), ("bank_", self._bank), ("log_", self._log))
        arrays = {prefix + name: array for prefix, part in parts for name, array in part.state().items()}
        return {**arrays, "source": np.array(self._predictor.features_2d or "")}

    def restore(self, state: Mapping[str, Array]) -> None:
        """From `state`. Raises MapFileError where arrays are missing, or are of other 2D features than the weights."""
        self.reset()
        try:
            source = str(state["source"])
            wanted = self._predictor.features_2d or ""
            if source != wanted and not same_source(source, wanted):
                raise MapFileError(
                    "wrong_kind",
                    f"the map holds 2D features of {source or 'no model'}, the weights want those of "
                    f"{wanted or 'none'}: load it with the weights that it was made with",
                )
            self._features.restore(_part(state, "features_"))
            self._bank.restore(_part(state, "bank_"))
            self._log.restore(_part(state, "log_"))
        except KeyError as error:
            raise MapFileError(
                "damaged", f"the map lacks {error} of the segdino3d core: was it made with another core?"
            ) from None


def _part(state: Mapping[str, Array], prefix: str) -> dict[str, Array]:
    return {name.removeprefix(prefix): array for name, array in state.items() if name.startswith(prefix)}
