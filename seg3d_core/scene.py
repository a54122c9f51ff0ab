"""Scene: the map, what images said about it, the segmenter and the ids, in one object.

Plain, single-threaded and deterministic: the same frames in the same order give the same bytes. The way of
a frame is `add_frame`, then (for keyframes, when their 2D masks are ready) `add_observation`, and now and
then `segment`. A live program splits the last one: `begin_segmentation` copies what is needed,
`SegmentationJob.run` may go on in any thread, `finish_segmentation` settles the ids.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .budgets import Holder, Shrinking, Use, megabytes, use_of
from .config import Config, KeyframeConfig
from .errors import FrameError, MapFileError, printable
from .geometry import checked_pose, rotation_angle
from .lifting.keyframe_poses import KeyframePoses
from .lifting.views import ImageStore
from .mapping.base import BaseMap
from .mapping.corrections import CorrectionOutcome, Moves
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
    MapCorrection,
    Masks2D,
    Objects2D,
    PoseCorrection,
    Snapshot,
    Visible,
)

log = logging.getLogger(__name__)

# A relocalised camera is believed after this many frames that agree with each other.
_FRAMES_TO_TRUST_A_JUMP = 5
# 70 % of 70 % and so on: a 16th, below which no budget goes.
_SHRINK_ROUNDS = 10
# Stamps that run back by so many seconds are a bag that starts over or a simulator's restart: those are followed.
_RESTART = 1.0
# Of the cells in which the overlap of two frames is counted.
_CELLS_PER_WIDTH = 20


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
        if self.frames and frame.stamp <= self.stamp - _RESTART:
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


class KeyframeChoice:
    """Which frames 2D models look at: those that see something, and enough of it new or from elsewhere.

    A frame is compared with the last keyframe: how far the camera has moved and turned, and how much of the image
    shows what that keyframe saw too. Points are told by their ids, which outlive every compaction of the map.
    """

    def __init__(self, limits: KeyframeConfig):
        self._limits = limits
        self._last: tuple[float, Array, Array] | None = None

    def wants(self, frame: Frame, visible: Visible) -> bool:
        if not len(visible):
            return False
        if self._last is None:
            return True
        _, pose, ids = self._last
        if float(np.linalg.norm(frame.T_world_camera[:3, 3] - pose[:3, 3])) >= self._limits.translation:
            return True
        if rotation_angle(frame.T_world_camera, pose) >= self._limits.rotation:
            return True
        return share_seen_before(visible, ids, frame.camera.size) < self._limits.overlap

    def mark(self, frame: Frame, visible: Visible) -> None:
        self._last = frame.stamp, frame.T_world_camera, visible.ids

    def correct(self, moves: Moves, done: MapCorrection) -> None:
        """The last keyframe's pose was corrected, and some of its points merged."""
        if self._last is not None:
            stamp, pose, ids = self._last
            self._last = stamp, moves.moved(np.array([stamp]), pose[None])[0], np.unique(done.renamed(ids))


def share_seen_before(visible: Visible, ids: Array, size: tuple[int, int]) -> float:
    """The share of the seen image of `size` (width, height) that shows a point of `ids` (n,), ascending; 0 to 1.

    Counted in cells of a 20th of the image's width and not in points: before a camera that stands still, depth noise
    adds points around every surface for a hundred frames, and half of what is visible would soon count as new.
    """
    width, height = size
    side = max(1, width // _CELLS_PER_WIDTH)
    columns, rows = -(-width // side), -(-height // side)
    u, v = ((visible.pixels.T + 0.5) / side).astype(np.int32)
    cells = np.minimum(v, rows - 1) * columns + np.minimum(u, columns - 1)
    seen, known = np.zeros(rows * columns, bool), np.zeros(rows * columns, bool)
    seen[cells] = True
    known[cells[np.isin(visible.ids, ids, assume_unique=True)]] = True
    return int(known.sum()) / max(int(seen.sum()), 1)


class PoseGate:
    """Keeps teleporting poses out until several in a row agree with each other (a relocalised camera)."""

    def __init__(self, limits: KeyframeConfig):
        self._limit = limits.pose_jump
        self._last: tuple[float, Array] | None = None
        self._suspects: deque[tuple[float, Array]] = deque(maxlen=_FRAMES_TO_TRUST_A_JUMP)

    def check(self, stamp: float, pose: Array) -> None:
        """Raises FrameError for a stamp that is none or runs back a little, or a pose that jumps."""
        if not math.isfinite(stamp):
            raise FrameError("stamp", f"the stamp is {stamp}: a finite time in seconds is wanted")
        if self._last is not None:
            since = stamp - self._last[0]
            if -_RESTART < since < 0.0:
                raise FrameError("stamp", f"the stamp runs back by {-since:.3f} s")
            if self._jumps(self._last, stamp, pose) and not self._settled(stamp, pose):
                raise FrameError("pose_jump", f"the pose jumps by more than {self._limit} m within a second")

    def accept(self, stamp: float, pose: Array) -> None:
        """The frame was used: the next ones are compared with it."""
        self._suspects.clear()
        self._last = (stamp, pose)

    def correct(self, moves: Moves) -> None:
        """The last pose was corrected: what comes next is compared with where the camera really was."""
        self._suspects.clear()
        if self._last is not None:
            stamp, pose = self._last
            self._last = stamp, moves.moved(np.array([stamp]), pose[None])[0]

    def _jumps(self, before: tuple[float, Array], stamp: float, pose: Array) -> bool:
        distance = float(np.linalg.norm(pose[:3, 3] - before[1][:3, 3]))
        return distance > self._limit and abs(stamp - before[0]) <= 1.0

    def _settled(self, stamp: float, pose: Array) -> bool:
        if self._suspects and self._jumps(self._suspects[-1], stamp, pose):
            self._suspects.clear()
        self._suspects.append((stamp, pose))
        return len(self._suspects) == _FRAMES_TO_TRUST_A_JUMP


def boxes_of(instances: Instances, cloud: Cloud) -> tuple[Array, Array]:
    """Centres and extents float32 (K, 3) of axis-aligned boxes: the core's own ones, where it has any, else those
    that hold 98 % of the points along each axis."""
    if instances.boxes is not None:
        return instances.boxes[:, :3], instances.boxes[:, 3:]
    centres = np.zeros((len(instances), 3), np.float32)
    extents = np.zeros((len(instances), 3), np.float32)
    for k in range(len(instances)):
        members = cloud.xyz[np.searchsorted(cloud.ids, instances.members(k))]
        if len(members):
            low, high = np.percentile(members, [1, 99], axis=0)
            centres[k], extents[k] = (low + high) / 2, high - low
    return centres, extents
