# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Scene: the map, what images said about it, the segmenter and the ids, in one object.

Plain, single-threaded and deterministic: the same frames in the same order give the same bytes. The way of
a frame is `add_frame`, then (for keyframes, when their 2D masks are ready) `add_observation`, and now and
then `segment`. A live program splits the last one: `begin_segmentation` copies what is needed,
`SegmentationJob.run` may go on in any thread, `finish_segmentation` settles the ids.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from .budgets import Holder, Shrinking, Use, megabytes, use_of
from .config import Config
from .errors import FrameError, MapFileError, printable
from .frame_choice import RESTART, KeyframeChoice, PoseGate
from .geometry import checked_pose
from .lifting.keyframe_poses import KeyframePoses
from .lifting.views import ImageStore
from .mapping.base import BaseMap
from .mapping.corrections import CorrectionOutcome
from .mapping.corrector import Corrector
from .mapping.point_map import PointMap
from .segmenters.base import ObjectSegmenter, Segmentation, Segmenter
from .segmenters.identity import IdentityTracker
from .types import (
    Array,
    Cloud,
    Frame,
    IdentityChange,
    Instances,
    Masks2D,
    Objects2D,
    PoseCorrection,
    Snapshot,
    Visible,
    places_among,
)

log = logging.getLogger(__name__)

# Of an instance's points along an axis that lie below its box, and below its upper side.
_BOX_SHARES = np.array([0.01, 0.99])
# 70 % of 70 % and so on: a 16th, below which no budget goes.
_SHRINK_ROUNDS = 10


@dataclass(frozen=True, eq=False)
class Segmented:
    """What a segmentation found, with all that can be said of it before its instances have ids.

    `numbers` int32 (N,): instance number + 1 of each point of the job's cloud; boxes as in `Snapshot`.
    """

    outcome: Segmentation
    numbers: Array
    centres: Array
    extents: Array


@dataclass(frozen=True, eq=False)
class SegmentationJob:
    """Copied state of one segmentation; `run` may be called in any thread, once."""

    cloud: Cloud
    stamp: float
    version: tuple[int, int]
    segment: Callable[[], Segmentation]

    def run(self) -> Segmented:
        outcome = self.segment()
        numbers = outcome.instances.exclusive(self.cloud.ids)
        return Segmented(outcome, numbers, *boxes_of(outcome.instances, self.cloud))


class Scene:
    """See the module. Raises `FrameError` for a frame that must be dropped; the scene is then unchanged."""

    def __init__(self, config: Config, point_map: BaseMap, segmenter: Segmenter, images: ImageStore):
        self.config = config
        self.map = point_map
        self.segmenter = segmenter
        self.images = images
        self.identity = self._new_identity()
        self._poses = PoseGate(config.keyframes)
        self._keyframe_poses = KeyframePoses(megabytes(config.memory.poses_mb))
        self._keyframe_choice = KeyframeChoice(config.keyframes)
        self._shrinking = Shrinking(self.holders)
        self.corrector = Corrector(point_map, config.corrections)
        self.generation = 0
        self.frames = 0
        self.keyframes = 0
        self.sequence = 0
        self.stamp = 0.0
        self.snapshot = Snapshot.empty()

    # --- frames ------------------------------------------------------------------------------

    def add_frame(self, frame: Frame) -> Visible:
        """Fuses one frame and says which map points it sees."""
        if self.frames and frame.stamp <= self.stamp - RESTART:
            self.corrector.time_ran_back()
        pose = self.corrector.posed(frame.stamp, checked_pose(frame.T_world_camera))
        self._poses.check(frame.stamp, pose)
        self._compact()
        visible = self.map.integrate(replace(frame, T_world_camera=pose))
        self._poses.accept(frame.stamp, pose)
        if self.frames and frame.stamp <= self.stamp:
            self._keyframe_poses.time_ran_back()
        self.frames += 1
        self.stamp = frame.stamp
        return visible

    def is_keyframe(self, frame: Frame, visible: Visible) -> bool:
        """Whether 2D models should look at a frame, of which `add_frame` gave `visible`: see `KeyframeChoice`."""
        return self._keyframe_choice.wants(frame, visible)

    def mark_keyframe(self, frame: Frame, visible: Visible) -> None:
        """The frame goes to the 2D models: the next keyframe is measured from here."""
        self._keyframe_choice.mark(frame, visible)

    @property
    def wants_objects(self) -> bool:
        """Whether observations should come with a detector's objects."""
        return isinstance(self.segmenter, ObjectSegmenter) and self.segmenter.wants_objects

    def add_observation(self, frame: Frame, visible: Visible, masks: Masks2D, objects: Objects2D | None = None) -> None:
        """What the 2D models said of a frame that was fused before, maybe a while ago.

        Raises FrameError when the masks do not fit the frame; the scene is then unchanged.
        """
        for image in masks.label_images:
            if image.labels.shape != frame.depth.shape:
                raise FrameError("mask_size", f"masks of {image.labels.shape}, but the frame is {frame.depth.shape}")
        rows = self.map.rows_of(visible)
        alive = rows >= 0
        number = self.keyframes
        points = rows[alive], visible.pixels[alive], visible.depths[alive]
        frame = self.corrector.as_posed_now(frame, visible)
        if objects is not None and isinstance(self.segmenter, ObjectSegmenter):
            self.segmenter.observe_objects(number, frame, *points, objects)
        self.segmenter.observe(number, *points, masks.label_images)
        # Before the image: where memory runs out for that, the number is taken nevertheless.
        self.keyframes += 1
        self._keyframe_poses.add(number, frame.T_world_camera, frame.stamp)
        self.images.add(number, frame.rgb)

    # --- corrected poses ---------------------------------------------------------------------

    def offer_correction(self, correction: PoseCorrection, until: float | None = None) -> CorrectionOutcome:
        """Takes new poses for frames of before; they are applied before the next segmentation, of several the newest.

        `until`: frames of a later stamp are posed in the corrected world already; the last frame's if left out.
        """
        return self.corrector.offer(correction, self.stamp if until is None else until)

    def apply_correction(self) -> CorrectionOutcome | None:
        """Moves points, keyframes and all that refers to them as the waiting correction says; None where none waits.

        Instance ids and the last snapshot stay; the next segmentation follows what moved.
        """
        applied = self.corrector.apply()
        if applied is None:
            return None
        outcome, moves, done = applied
        numbers, deltas = self._keyframe_poses.correct(moves.moved)
        done = replace(done, keyframes=numbers, deltas=deltas)
        self.identity.correct(done, self.map.snapshot()[0])
        self._poses.correct(moves)
        self._keyframe_choice.correct(moves, done)
        try:
            self.segmenter.correct(done)
        except MemoryError:
            log.error("memory ran out while poses were corrected: what images said of the map is forgotten")
            self.segmenter.reset()
            raise
        return outcome

    def correct(self, correction: PoseCorrection) -> CorrectionOutcome:
        """Both steps at once."""
        outcome = self.offer_correction(correction)
        return self.apply_correction() or outcome

    # --- segmentation ------------------------------------------------------------------------

    def begin_segmentation(self) -> SegmentationJob:
        """Copies what a segmentation needs, so that it can run beside the next frames. Corrected poses that wait are
        applied first."""
        self.apply_correction()
        self._compact()
        cloud, rows = self.map.snapshot()
        return SegmentationJob(cloud, self.stamp, self._version, self.segmenter.prepare(cloud, rows))

    def is_current(self, job: SegmentationJob) -> bool:
        """Whether the scene is the one that the job copied, neither reset nor corrected since."""
        return job.version == self._version

    @property
    def _version(self) -> tuple[int, int]:
        return self.generation, self.corrector.count

    def finish_segmentation(self, job: SegmentationJob, found: Segmented) -> Snapshot:
        """Settles ids and makes the snapshot. What was begun before a reset or a correction changes nothing."""
        if not self.is_current(job):
            return self.snapshot
        instances, changes = self.identity.assign(found.outcome.instances, job.cloud)
        self.sequence += 1
        self.images.rank(found.outcome.views)
        self.snapshot = self._snapshot(job, found, instances, changes)
        return self.snapshot

    def _snapshot(
        self, job: SegmentationJob, found: Segmented, instances: Instances, changes: tuple[IdentityChange, ...]
    ) -> Snapshot:
        ids = np.concatenate([np.zeros(1, np.int32), instances.ids])
        return Snapshot(
            self.sequence,
            job.stamp,
            job.cloud,
            instances,
            ids[found.numbers],
            found.centres,
            found.extents,
            views={int(i): v for i, v in zip(instances.ids, found.outcome.views, strict=True)},
            images=self.images.images(),
            names=instances.names or ("",) * len(instances),
            changes=changes,
        )

    def segment(self) -> Snapshot:
        """Both steps at once."""
        job = self.begin_segmentation()
        return self.finish_segmentation(job, job.run())

    def segment_otherwise(self, prepare: Callable[[Cloud, Array], Callable[[], Segmentation]]) -> Snapshot:
        """The map as another core sees it, whose `Segmenter.prepare` is given; the scene stays as it is.

        What overlaps an instance of the last segmentation has its id.
        """
        self._compact()
        cloud, rows = self.map.snapshot()
        job = SegmentationJob(cloud, self.stamp, self._version, prepare(cloud, rows))
        found = job.run()
        identity = self._new_identity()
        identity.restore(self.identity.state())
        return self._snapshot(job, found, *identity.assign(found.outcome.instances, cloud))

    def _new_identity(self) -> IdentityTracker:
        return IdentityTracker(megabytes(self.config.memory.instances_mb), self.config.map.voxel_size)

    def _compact(self) -> None:
        """Dead rows must not pile up where there is no segmentation: before a camera that stands still."""
        new_rows = self.map.compact()
        if new_rows is None:
            return
        try:
            self.segmenter.remap(new_rows)
        except MemoryError:
            # What cannot follow would speak of other points from now on.
            log.error("memory ran out while the map was squeezed: what images said of it is forgotten")
            self.segmenter.reset()
            raise

    # --- state -------------------------------------------------------------------------------

    def reset(self) -> None:
        """Forgets everything but the ids that were given out."""
        self.generation += 1
        self.map.reset()
        self.segmenter.reset()
        self.images.reset()
        self.identity.reset()
        self._poses = PoseGate(self.config.keyframes)
        self._keyframe_choice = KeyframeChoice(self.config.keyframes)
        self._keyframe_poses.reset()
        self.corrector.reset()
        self.frames = self.keyframes = 0
        self.stamp = 0.0
        self.snapshot = Snapshot.empty()

    def state(self) -> tuple[dict[str, Any], dict[str, Array], dict[str, bytes]]:
        """(meta, arrays, blobs) from which `restore` continues: same ids, same answers."""
        arrays: dict[str, Array] = {}
        for room, part in self._rooms.items():
            arrays.update({f"{room}/{name}": value for name, value in part.state().items()})
        meta = {
            "frames": self.frames,
            "keyframes": self.keyframes,
            "sequence": self.sequence,
            "stamp": self.stamp,
        }
        blobs = {f"views/{number}.jpg": data for number, data in self.images.images().items()}
        return meta, arrays, blobs

    def restore(self, meta: Mapping[str, Any], arrays: Mapping[str, Array], blobs: Mapping[str, bytes]) -> None:
        """Takes a saved state. On `MapFileError` the scene is empty, never half."""
        self.reset()
        try:
            self._restore(meta, arrays, blobs)
        except MapFileError:
            self.reset()
            raise
        except (KeyError, ValueError, TypeError, IndexError, OverflowError) as error:
            self.reset()
            reason = printable(repr(error), 200)
            raise MapFileError("damaged", f"the map's parts do not fit together: {reason}") from None

    def _restore(self, meta: Mapping[str, Any], arrays: Mapping[str, Array], blobs: Mapping[str, bytes]) -> None:
        for room, part in self._rooms.items():
            part.restore({n[len(room) + 1 :]: a for n, a in arrays.items() if n.startswith(room + "/")})
        for name, data in blobs.items():
            self.images.restore_image(int(name.removeprefix("views/").removesuffix(".jpg")), data)
        self.frames, self.keyframes = int(meta["frames"]), int(meta["keyframes"])
        self.sequence, self.stamp = int(meta["sequence"]), float(meta["stamp"])

    @property
    def _rooms(self) -> dict[str, Any]:
        """What is saved, by the first part of its arrays' names."""
        return {
            "map": self.map,
            "segmenter": self.segmenter,
            "identity": self.identity,
            "keyframes": self._keyframe_poses,
        }

    # --- memory ------------------------------------------------------------------------------

    @property
    def holders(self) -> dict[str, Holder]:
        """Everything that a scene keeps within a budget, by a name for people."""
        return {
            "map": self.map,
            **self.segmenter.holders,
            "views": self.images,
            "keyframe poses": self._keyframe_poses,
            **({"pose history": self.map.poses} if isinstance(self.map, PointMap) else {}),
            "past instances": self.identity,
        }

    @property
    def memory(self) -> dict[str, Use]:
        """What the parts hold now; superpoints, snapshot and working arrays go with the map and with the frames."""
        held = {name: use_of(holder) for name, holder in self.holders.items()}
        cloud, found = self.snapshot.cloud, self.snapshot.instances
        shown = (cloud.ids, cloud.xyz, cloud.rgb, cloud.normals, cloud.weight, self.snapshot.labels, found.point_ids)
        return {
            **held,
            "superpoints": Use(self.segmenter.working_bytes / 1e6),
            "snapshot": Use(sum(array.nbytes for array in shown) / 1e6),
            "frames": Use(self.map.working_bytes / 1e6),
        }

    @property
    def memory_mb(self) -> dict[str, float]:
        """The same in plain numbers."""
        return {name: use.used_mb for name, use in self.memory.items()}

    def shrink(self) -> None:
        """Memory ran out: all budgets become smaller than what is held, for good, and what is too much goes now, with
        what the segmenter keeps only to be quicker."""
        self.segmenter.drop_working()
        for times in range(1, _SHRINK_ROUNDS):
            try:
                self._shrinking.shrink(self.holders, times)
                self._compact()
            except MemoryError:  # squeezing the map needs some, too: the less the smaller it becomes
                continue
            return

    @property
    def camera_poses(self) -> list[Array]:
        """T_world_camera (4, 4) of the keyframes, in order."""
        return self._keyframe_poses.in_order()


def boxes_of(instances: Instances, cloud: Cloud) -> tuple[Array, Array]:
    """Centres and extents float32 (K, 3) of axis-aligned boxes: the core's own ones, where it has any, else those
    that hold 98 % of the points along each axis."""
    if instances.boxes is not None:
        return instances.boxes[:, :3], instances.boxes[:, 3:]
    columns = np.ascontiguousarray(cloud.xyz.T).take(places_among(cloud.ids, instances.point_ids), axis=1)
    for begin, end in pairwise(instances.indptr.tolist()):
        columns[:, begin:end].sort(axis=1)
    held = np.flatnonzero(instances.sizes)
    begin, last = instances.indptr[held], instances.sizes[held] - 1
    # As numpy's percentile, at which one at a time costs several times as much.
    place = np.multiply.outer(_BOX_SHARES, last)
    before = place.astype(np.int64)
    a, b = columns[:, begin + before], columns[:, begin + np.minimum(before + 1, last)]
    share, step = place - before, b - a
    low, high = np.where(share < 0.5, a + step * share, b - step * (1 - share)).transpose(1, 2, 0)
    centres, extents = np.zeros((2, len(instances), 3), np.float32)
    centres[held], extents[held] = (low + high) / 2, high - low
    return centres, extents
