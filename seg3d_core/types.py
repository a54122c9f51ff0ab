# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""The nouns that every room shares: frozen dataclasses of numpy arrays.

Units are metres, seconds and radians. A name carries its frame: `T_world_camera` maps camera points to
the world. Cameras are OpenCV optical frames (x right, y down, z forward), and the centre of pixel (0, 0)
lies at u = v = 0. The world is whatever the poses say; nothing here assumes that z is up. Ids are never
reused, and 0 means none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
# Ids that lie this many times as far apart as they are many are searched for, not looked up in a table.
_SPARSE = 8


@dataclass(frozen=True)
class Camera:
    """A pinhole camera. `distortion` is (k1, k2, p1, p2, k3) of the plumb-bob model, or None."""

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    distortion: tuple[float, ...] | None = None

    @classmethod
    def from_matrix(cls, matrix: Array, width: int, height: int, distortion: tuple[float, ...] | None = None) -> Camera:
        """From an intrinsic matrix (3, 3) or (4, 4)."""
        k = np.asarray(matrix, float)
        return cls(int(width), int(height), float(k[0, 0]), float(k[1, 1]), float(k[0, 2]), float(k[1, 2]), distortion)

    @property
    def matrix(self) -> Array:
        """The intrinsic matrix, float64 (3, 3)."""
        return np.array([[self.fx, 0.0, self.cx], [0.0, self.fy, self.cy], [0.0, 0.0, 1.0]])

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.width, self.height

    def scaled(self, width: int, height: int) -> Camera:
        """The same view at another resolution; pixel edges, not centres, stay where they are."""
        sx, sy = width / self.width, height / self.height
        return replace(
            self,
            width=int(width),
            height=int(height),
            fx=self.fx * sx,
            fy=self.fy * sy,
            cx=(self.cx + 0.5) * sx - 0.5,
            cy=(self.cy + 0.5) * sy - 0.5,
        )


@dataclass(frozen=True, eq=False)
class Frame:
    """One posed RGB-D image. Colour and depth share the camera and the size.

    rgb uint8 (H, W, 3); depth float32 (H, W) metres along the optical axis, 0 = none;
    T_world_camera float64 (4, 4); stamp in seconds. `name` is the file stem or message stamp by which masks
    made elsewhere are found; `instance` int32 (H, W) is ground truth where a source has it, 0 = none.
    """

    index: int
    stamp: float
    rgb: Array
    depth: Array
    camera: Camera
    T_world_camera: Array
    name: str = ""
    instance: Array | None = None


@dataclass(frozen=True, eq=False)
class Visible:
    """The map points that one frame sees: ids int64 (n,), pixels float32 (n, 2) as (u, v), depths float32 (n,).

    `rows` int64 (n,) are the points' rows in the map as it was at `epoch`; rows move only when the map is
    compacted, which raises its epoch. `PointMap.rows_of` gives the rows of today.
    """

    ids: Array
    pixels: Array
    depths: Array
    rows: Array
    epoch: int = 0

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, eq=False)
class PoseCorrection:
    """New poses for frames of before, as a loop closure gives them: stamps (n,) in seconds, poses T_world_camera
    (n, 4, 4). In any order, and as they came: whoever applies them refuses what is no pose."""

    stamps: Array
    poses: Array

    def __len__(self) -> int:
        return len(self.stamps)


@dataclass(frozen=True, eq=False)
class MapCorrection:
    """What corrected poses did to the map.

    Points fell into one voxel: `gone` are part of `kept` now, int64 (m,), both as ids and as map rows; each is gone
    once at most, and none that is kept is gone. `before` and `after` float32 (R, 3): where the points of the map's
    rows were, and are, merging apart. `keyframes` int64 (k,), ascending: those whose poses moved, by `deltas` float64
    (k, 4, 4).
    """

    gone_ids: Array
    kept_ids: Array
    gone_rows: Array
    kept_rows: Array
    before: Array
    after: Array
    keyframes: Array
    deltas: Array

    def renamed(self, ids: Array) -> Array:
        """Point ids int64 (n,) of before as they are called now."""
        if not len(self.gone_ids) or not len(ids):
            return ids
        order = np.argsort(self.gone_ids)
        gone = self.gone_ids[order]
        at = np.minimum(np.searchsorted(gone, ids), len(gone) - 1)
        return np.where(gone[at] == ids, self.kept_ids[order][at], ids)


@dataclass(frozen=True, eq=False)
class Cloud:
    """A snapshot of the map, ids ascending.

    ids int64 (N,); xyz float32 (N, 3); rgb uint8 (N, 3); normals float32 (N, 3), unit length or 0 where
    unknown; weight float32 (N,), the frames that saw the point, faded by those that saw through it.
    """

    ids: Array
    xyz: Array
    rgb: Array
    normals: Array
    weight: Array

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def empty(cls) -> Cloud:
        return cls(
            np.empty(0, np.int64),
            np.empty((0, 3), np.float32),
            np.empty((0, 3), np.uint8),
            np.empty((0, 3), np.float32),
            np.empty(0, np.float32),
        )

    def select(self, rows: Array) -> Cloud:
        """Copies of some points: numbers int (n,), ascending, or bool (N,)."""
        rows = np.flatnonzero(rows) if rows.dtype == np.bool_ else rows
        return Cloud(
            *(values.take(rows, axis=0) for values in (self.ids, self.xyz, self.rgb, self.normals, self.weight))
        )


@dataclass(frozen=True, eq=False)
class Masks2D:
    """Disjoint masks of one image: labels int32 (H, W), 0 = none, 1..m; scores float32 (m,) in [0, 1].

    `others`: further label images of the same frame and size, each evidence of its own; they have no `others`.
    """

    labels: Array
    scores: Array
    others: tuple[Masks2D, ...] = ()

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def label_images(self) -> tuple[Masks2D, ...]:
        """These masks and the others, in order."""
        return self, *self.others

    @property
    def memory_bytes(self) -> int:
        return sum(image.labels.nbytes + image.scores.nbytes for image in self.label_images)

    @classmethod
    def from_labels(cls, labels: Array, scores: Array | None = None) -> Masks2D:
        """Renumbers any non-negative label image (H, W) to 1..m in ascending order of the old labels.

        `scores`, if given, belong to the old labels in ascending order; 1 otherwise.
        """
        old, inverse = np.unique(labels, return_inverse=True)
        first = int(len(old) > 0 and old[0] == 0)
        new = (inverse.reshape(np.shape(labels)) + (1 - first)).astype(np.int32)
        count = len(old) - first
        return cls(new, np.ones(count, np.float32) if scores is None else np.asarray(scores, np.float32))


@dataclass(frozen=True, eq=False)
class FeatureMap:
    """Dense image features: values float (C, h, w), stride in pixels of the image, the encoder's id."""

    values: Array
    stride: float
    encoder_id: str


@dataclass(frozen=True, eq=False)
class ObjectQueries2D:
    """What a detector says of one image: features (n, C), boxes (n, 4) xyxy in pixels, scores (n,)."""

    features: Array
    boxes: Array
    scores: Array
    encoder_id: str
    labels: Array | None = None
    masks: Masks2D | None = None


@dataclass(frozen=True, eq=False)
class Objects2D:
    """What a detector says of one frame: its objects, with masks, and its dense features, fine to coarse."""

    queries: ObjectQueries2D
    levels: tuple[FeatureMap, ...] = ()


@dataclass(frozen=True, eq=False)
class Instances:
    """K instances over map points; overlaps are allowed. Members in CSR form.

    ids int32 (K,), 0 before identity is settled; scores float32 (K,) in [0, 1]; indptr int64 (K + 1,);
    point_ids int64 (M,): instance k holds `point_ids[indptr[k]:indptr[k + 1]]`, ascending.
    Of a core that knows classes: class_ids int32 (K,), and their names, K of them or none; of one that regresses
    boxes: boxes float32 (K, 6), axis-aligned centre and size in metres, which may reach beyond what was seen.
    """

    ids: Array
    scores: Array
    indptr: Array
    point_ids: Array
    class_ids: Array | None = None
    names: tuple[str, ...] = ()
    boxes: Array | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def empty(cls) -> Instances:
        return cls(np.empty(0, np.int32), np.empty(0, np.float32), np.zeros(1, np.int64), np.empty(0, np.int64))

    @classmethod
    def from_labels(cls, labels: Array, point_ids: Array, scores: Array, ids: Array | None = None) -> Instances:
        """From one label per point, int (N,), 0 = none, 1..K, and the points' ids (N,), ascending.

        `scores` float (K,). Instance k of the result is label k + 1; labels without points keep an empty row.
        """
        count = len(scores)
        order = _stable_order(labels, count)[np.count_nonzero(labels == 0) :]
        indptr = np.zeros(count + 1, np.int64)
        np.cumsum(np.bincount(labels[order] - 1, minlength=count), out=indptr[1:])
        return cls(
            np.zeros(count, np.int32) if ids is None else np.asarray(ids, np.int32),
            np.asarray(scores, np.float32),
            indptr,
            np.asarray(point_ids, np.int64)[order],
        )

    def members(self, k: int) -> Array:
        """Point ids of instance number k (not id), int64, ascending."""
        return self.point_ids[self.indptr[k] : self.indptr[k + 1]]

    @property
    def sizes(self) -> Array:
        """Points of each instance, int64 (K,)."""
        return np.diff(self.indptr)

    def select(self, keep: Array) -> Instances:
        """The instances whose numbers (or boolean mask) are given, in that order."""
        numbers = np.arange(len(self))[keep]
        parts = [self.members(int(k)) for k in numbers]
        indptr = np.zeros(len(numbers) + 1, np.int64)
        np.cumsum([len(p) for p in parts], out=indptr[1:])
        return Instances(
            self.ids[numbers],
            self.scores[numbers],
            indptr,
            np.concatenate(parts) if parts else np.empty(0, np.int64),
            None if self.class_ids is None else self.class_ids[numbers],
            tuple(self.names[k] for k in numbers) if self.names else (),
            None if self.boxes is None else self.boxes[numbers],
        )

    def exclusive(self, point_ids: Array) -> Array:
        """One instance number + 1 per point of `point_ids` (N,) ascending, int32 (N,), 0 = none.

        Where instances overlap, the one of higher score wins, then the earlier one.
        """
        out = np.zeros(len(point_ids), np.int32)
        if not len(self) or not len(point_ids):
            return out
        owner = np.repeat(np.arange(len(self)), self.sizes)
        rank = np.argsort(np.argsort(-self.scores, kind="stable"), kind="stable")
        row = places_among(point_ids, self.point_ids)
        row, owner = row[row >= 0], owner[row >= 0]
        last_wins = _stable_order(len(self) - 1 - rank[owner], len(self))
        out[row[last_wins]] = owner[last_wins] + 1
        return out


def places_among(ids: Array, wanted: Array) -> Array:
    """Where each of the `wanted` ids int64 (m,) stands among `ids` int64 (n,), ascending, each once: int (m,), -1 =
    nowhere."""
    if not len(ids) or not len(wanted):
        return np.full(len(wanted), -1)
    first, last = int(ids[0]), int(ids[-1])
    if last - first >= _SPARSE * (len(ids) + len(wanted)):
        place = np.minimum(np.searchsorted(ids, wanted), len(ids) - 1)
        return np.where(ids[place] == wanted, place, -1)
    # A look-up of each is several times cheaper than a search. The last entry is for what lies outside.
    table = np.full(last - first + 2, -1, np.int32)
    table[ids - first] = np.arange(len(ids), dtype=np.int32)
    inside = (wanted >= first) & (wanted <= last)
    return table[wanted - first if inside.all() else np.where(inside, wanted - first, -1)]


def _stable_order(values: Array, most: int) -> Array:
    """A stable argsort of values int (n,) in 0..most: numpy counts those of 16 bits, and compares longer ones."""
    return np.argsort(values.astype(np.min_scalar_type(most)), kind="stable")


@dataclass(frozen=True)
class View:
    """Where an instance was seen well: keyframe number, box xyxy in pixels, mask score in [0, 1].

    `shape`: which of 16 x 16 cells of the box show the instance, row by row, as `np.packbits` packs them; b"" where
    unknown.
    """

    SHAPE_CELLS: ClassVar[int] = 16

    keyframe: int
    box: tuple[float, float, float, float]
    score: float
    shape: bytes = b""


@dataclass(frozen=True)
class IdentityChange:
    """What happened to ids between two segmentations: `kind` is `merged` or `split`.

    merged: `sources` are the ids that went into `targets[0]`; split: `sources[0]` fell into `targets`.
    """

    kind: str
    sources: tuple[int, ...]
    targets: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Snapshot:
    """An immutable picture of the scene after a segmentation; any thread may read it.

    `labels` int32 (N,): the instance *id* of each point of `cloud`, 0 = none. `centres`, `extents`
    float32 (K, 3): axis-aligned boxes in the map frame. `views`: instance id -> best views, best first.
    `images`: keyframe number -> JPEG bytes. `names`: one label per instance, "" where unknown.
    """

    sequence: int
    stamp: float
    cloud: Cloud
    instances: Instances
    labels: Array
    centres: Array
    extents: Array
    views: Mapping[int, tuple[View, ...]] = field(default_factory=dict)
    images: Mapping[int, bytes] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    changes: tuple[IdentityChange, ...] = ()

    def with_names(self, names: Mapping[int, str]) -> Snapshot:
        """The same snapshot with labels by instance id; where `names` has none, the core's own class name or ""."""
        own = self.instances.names or ("",) * len(self.instances)
        labels = (names.get(int(i)) or name for i, name in zip(self.instances.ids, own, strict=True))
        return replace(self, names=tuple(labels))

    @classmethod
    def empty(cls) -> Snapshot:
        none = np.empty((0, 3), np.float32)
        return cls(0, 0.0, Cloud.empty(), Instances.empty(), np.empty(0, np.int32), none, none)


@dataclass(frozen=True)
class Answer:
    """One instance as answer to a text. `score` in [0, 1] is calibrated where `QueryResult.calibrated`."""

    instance_id: int
    score: float
    centre: tuple[float, float, float]
    extent: tuple[float, float, float]
    label: str = ""


@dataclass(frozen=True)
class QueryResult:
    """Answers, best first; empty with `matched` False when nothing in the map fits the text.

    `encoder_id` says which encoder compared; `approximate` is True for stand-ins that are no CLIP.
    """

    text: str
    answers: tuple[Answer, ...]
    matched: bool
    message: str
    encoder_id: str
    approximate: bool = False
    calibrated: bool = False
