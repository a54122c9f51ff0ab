# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Recordings of a run that the rerun viewer plays: frames, masks, the growing map and its instances."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ..errors import Seg3DError
from ..types import Array, Cloud, Frame, Masks2D, Snapshot
from .colours import id_colours

_TIMELINE = "stream_time"
_JPEG_QUALITY = 75
_IMAGE_WIDTH = 320
_POINTS_ON_THE_WAY = 40_000
# Stamps above this are seconds since 1970, smaller ones seconds since the start.
_EPOCH_STAMPS_FROM = 1e8


class NoRecording:
    """Takes what `Recording` takes and keeps nothing, so that callers need not ask whether one is wanted."""

    def frame(self, frame: Frame, masks: Masks2D | None = None) -> None:
        """Nothing is kept."""

    def snapshot(self, snapshot: Snapshot) -> None:
        """Nothing is kept."""

    def close(self) -> None:
        """Nothing to close."""


class Recording(NoRecording):
    """An .rrd file: entity paths follow the frames, time is the stream's own.

    Kept small: images at most 320 pixels wide and JPEG-compressed, the map thinned to 40 000 points at every
    snapshot and whole once, at `close`. Needs `rerun-sdk` (extra `viz`); raises Seg3DError without it or
    when the file can't be written.
    """

    def __init__(self, path: str | Path):
        try:
            import rerun
        except ImportError:
            raise Seg3DError("recordings need rerun: pip install 'seg3d[viz]', or run without a recording") from None
        self._rr: Any = rerun
        self._stream: Any = rerun.RecordingStream("seg3d")
        self._last: Snapshot | None = None
        self._annotated = 0
        self._since_epoch: bool | None = None
        try:
            Path(path).open("wb").close()  # rerun reports a bad path on a thread of its own, too late
            self._stream.save(str(path))
        except (OSError, RuntimeError) as error:
            raise Seg3DError(f"cannot write the recording {path}: {error}; check that its folder exists") from error
        self._stream.send_blueprint(_blueprint(rerun))

    def frame(self, frame: Frame, masks: Masks2D | None = None) -> None:
        """One frame: pose, pinhole, colour, depth, and the masks if it has some."""
        rr, log = self._rr, self._stream.log
        self._set_time(frame.stamp)
        height, width = frame.depth.shape
        shrink = max(1, -(-width // _IMAGE_WIDTH))
        size = max(1, width // shrink), max(1, height // shrink)
        camera = frame.camera.scaled(*size)
        pose = np.asarray(frame.T_world_camera, float)
        log("world/camera", rr.Transform3D(translation=pose[:3, 3], mat3x3=pose[:3, :3]))
        log(
            "world/camera/image",
            rr.Pinhole(image_from_camera=camera.matrix, resolution=size, camera_xyz=rr.ViewCoordinates.RDF),
        )
        rgb = cv2.resize(frame.rgb, size, interpolation=cv2.INTER_AREA)
        log("world/camera/image/rgb", rr.Image(rgb).compress(jpeg_quality=_JPEG_QUALITY))
        log(
            "world/camera/image/depth",
            self._depth_image(cv2.resize(frame.depth, size, interpolation=cv2.INTER_NEAREST)),
        )
        if masks is not None:
            self._annotate(len(masks))
            labels = cv2.resize(masks.labels.astype(np.float32), size, interpolation=cv2.INTER_NEAREST)
            log("world/camera/image/masks", rr.SegmentationImage(labels.astype(np.uint16)))

    def snapshot(self, snapshot: Snapshot) -> None:
        """The map, its instances as points and labelled boxes, and what happened to their ids."""
        self._set_time(snapshot.stamp)
        self._last = snapshot
        self._log_points(snapshot, _POINTS_ON_THE_WAY)
        self._log_boxes(snapshot)
        for change in snapshot.changes:
            sources, targets = (", ".join(f"#{i}" for i in ids) for ids in (change.sources, change.targets))
            text = f"{sources} {change.kind} into {targets}"
            self._stream.log("changes", self._rr.TextLog(text, level=self._rr.TextLogLevel.INFO))

    def close(self) -> None:
        """Logs the last snapshot with all its points and finishes the file. Closing twice is fine."""
        if self._stream is None:
            return
        if self._last is not None:
            self._set_time(self._last.stamp)
            self._log_points(self._last, len(self._last.cloud))
        try:
            self._stream.flush()
            self._stream.disconnect()
        except RuntimeError as error:
            raise Seg3DError(f"the recording is not complete: {error}; is there space left on the disk?") from error
        finally:
            self._stream = self._last = None

    def _set_time(self, stamp: float) -> None:
        if self._since_epoch is None:  # rerun refuses a timeline of two kinds, whatever later stamps say
            self._since_epoch = stamp >= _EPOCH_STAMPS_FROM
        if self._since_epoch:
            self._stream.set_time(_TIMELINE, timestamp=float(stamp))
        else:
            self._stream.set_time(_TIMELINE, duration=float(stamp))

    def _depth_image(self, depth: Array) -> Any:
        """Millimetres in a 16-bit PNG, or uncompressed where this rerun can't show PNG depth."""
        millimetres = np.clip(np.rint(depth * 1000), 0, 65535).astype(np.uint16)
        encoded = getattr(self._rr, "EncodedDepthImage", None)
        if encoded is None:
            return self._rr.DepthImage(millimetres, meter=1000.0)
        png = cv2.imencode(".png", millimetres)[1].tobytes()
        return encoded(blob=png, media_type="image/png", meter=1000.0)

    def _annotate(self, count: int) -> None:
        """Gives mask numbers up to `count` the colours that ids have everywhere."""
        if count <= self._annotated:
            return
        self._annotated = max(count, 64, 2 * self._annotated)
        numbers = np.arange(1, self._annotated + 1)
        rgb = id_colours(numbers).tolist()
        context = [
            self._rr.AnnotationInfo(id=0, color=(0, 0, 0, 0)),
            *(self._rr.AnnotationInfo(id=int(i), color=tuple(c)) for i, c in zip(numbers, rgb, strict=True)),
        ]
        self._stream.log("world/camera/image/masks", self._rr.AnnotationContext(context), static=True)

    def _log_points(self, snapshot: Snapshot, limit: int) -> None:
        cloud = snapshot.cloud
        radius = 0.009
        rows = _thinned(np.arange(len(cloud)), limit)
        self._stream.log("world/map", self._rr.Points3D(cloud.xyz[rows], colors=cloud.rgb[rows], radii=radius))
        rows = _thinned(_labelled(cloud, snapshot.labels), limit)
        colours = id_colours(snapshot.labels[rows])
        self._stream.log(
            "world/instances/points", self._rr.Points3D(cloud.xyz[rows], colors=colours, radii=1.4 * radius)
        )

    def _log_boxes(self, snapshot: Snapshot) -> None:
        ids = snapshot.instances.ids
        names = snapshot.names if len(snapshot.names) == len(ids) else ("",) * len(ids)
        labels = [f"#{i} {name}".strip() for i, name in zip(ids.tolist(), names, strict=True)]
        boxes = self._rr.Boxes3D(
            centers=snapshot.centres,
            half_sizes=snapshot.extents / 2,
            colors=id_colours(ids),
            labels=labels,
            radii=0.004,
        )
        self._stream.log("world/instances/boxes", boxes)


def _labelled(cloud: Cloud, labels: Array) -> Array:
    return np.flatnonzero(labels[: len(cloud)] > 0)


def _thinned(rows: Array, limit: int) -> Array:
    """At most `limit` of the rows, evenly spread."""
    return rows[:: max(1, -(-len(rows) // max(1, limit)))]


def _blueprint(rr: Any) -> Any:
    """3D on the left; image with masks, depth and the log of identity changes on the right."""
    import rerun.blueprint as rrb

    images = "world/camera/image"
    return rrb.Blueprint(
        rrb.Horizontal(
            rrb.Spatial3DView(
                origin="world",
                name="Map and instances",
                contents=["+ $origin/**", f"- /{images}/depth", f"- /{images}/masks"],
            ),
            rrb.Vertical(
                rrb.Spatial2DView(origin=images, name="Image and masks", contents=["+ $origin/rgb", "+ $origin/masks"]),
                rrb.Spatial2DView(origin=images, name="Depth", contents=["+ $origin/depth"]),
                rrb.TextLogView(origin="changes", name="Identity changes"),
            ),
            column_shares=[3, 1],
        ),
        rrb.TimePanel(timeline=_TIMELINE),
        collapse_panels=True,
    )
