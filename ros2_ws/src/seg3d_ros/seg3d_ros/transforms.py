# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Poses over time: a small transform buffer, and the two ways in which a camera gets its pose. No ROS import."""

from __future__ import annotations

import bisect
import threading
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from seg3d_core.geometry import invert, quaternion_to_matrix

from . import validate


class TransformError(LookupError):
    """The message says which frame or time is missing."""


def slerp(a: Sequence[float], b: Sequence[float], fraction: float) -> np.ndarray:
    """Unit quaternion between two unit quaternions (x, y, z, w), along the shorter arc."""
    a, b = np.asarray(a, float), np.asarray(b, float)
    dot = float(a @ b)
    if dot < 0:
        b, dot = -b, -dot
    if dot > 0.9995:
        out = a + fraction * (b - a)
    else:
        angle = np.arccos(dot)
        out = (np.sin((1 - fraction) * angle) * a + np.sin(fraction * angle) * b) / np.sin(angle)
    return out / np.linalg.norm(out)


class Track:
    """One moving frame: poses by stamp, the last `cache` seconds; interpolates, never extrapolates."""

    def __init__(self, cache: float):
        self.cache = cache
        self.stamps: list[float] = []
        self.values: list[tuple[tuple[float, ...], tuple[float, ...]]] = []

    def add(self, stamp: float, translation: Sequence[float], quaternion: Sequence[float]) -> None:
        value = (tuple(translation), tuple(quaternion))
        at = bisect.bisect_left(self.stamps, stamp)
        if at < len(self.stamps) and self.stamps[at] == stamp:
            self.values[at] = value
            return
        self.stamps.insert(at, stamp)
        self.values.insert(at, value)
        old = bisect.bisect_left(self.stamps, self.stamps[-1] - self.cache)
        del self.stamps[:old], self.values[:old]

    def at(self, stamp: float, name: str) -> np.ndarray:
        """Pose (4, 4) at `stamp`; TransformError outside of what is known."""
        at = bisect.bisect_left(self.stamps, stamp)
        if at < len(self.stamps) and self.stamps[at] == stamp:
            return quaternion_to_matrix(*self.values[at])
        if at == 0 or at == len(self.stamps):
            raise TransformError(f"{name} {self._missing(stamp)}")
        (t0, q0), (t1, q1) = self.values[at - 1], self.values[at]
        f = (stamp - self.stamps[at - 1]) / (self.stamps[at] - self.stamps[at - 1])
        return quaternion_to_matrix((1 - f) * np.asarray(t0) + f * np.asarray(t1), slerp(q0, q1, f))

    def _missing(self, stamp: float) -> str:
        if not self.stamps:
            return "has not come yet"
        first, last = self.stamps[0], self.stamps[-1]
        gap = f"{first - stamp:.3f} s earlier" if stamp < first else f"{stamp - last:.3f} s later"
        return f"is known from {first:.3f} to {last:.3f}, not at {stamp:.3f}, {gap}"


class TransformBuffer:
    """What /tf and /tf_static said. Thread safe. A moving frame whose stamps jump back by more than
    `reset_after` seconds means that time started anew: all that moves is forgotten."""

    def __init__(self, cache: float = 30.0, reset_after: float = 1.0):
        self.cache, self.reset_after = cache, reset_after
        self.resets = 0
        self._lock = threading.RLock()
        self._parent: dict[str, str] = {}
        self._static: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {}
        self._moving: dict[str, Track] = {}

    def add(
        self,
        parent: str,
        child: str,
        stamp: float,
        translation: Sequence[float],
        quaternion: Sequence[float],
        *,
        static: bool = False,
    ) -> None:
        """Raises FrameError for what is no transform."""
        what = f"the transform {parent!r} -> {child!r}"
        validate.child_frame(parent, child, what)
        validate.rigid(translation, quaternion, what)
        parent, child = parent.lstrip("/"), child.lstrip("/")
        with self._lock:
            track = self._moving.get(child)
            if not static and track and track.stamps and stamp < track.stamps[-1] - self.reset_after:
                self.clear()
                self.resets += 1
            self._parent[child] = parent
            if static:
                self._static[child] = (tuple(translation), tuple(quaternion))
                return
            self._moving.setdefault(child, Track(self.cache)).add(stamp, translation, quaternion)

    def clear(self) -> None:
        """Forget what moves; static transforms stay."""
        with self._lock:
            self._moving.clear()
            self._parent = {c: p for c, p in self._parent.items() if c in self._static}

    def lookup(self, target: str, source: str, stamp: float) -> np.ndarray:
        """(4, 4) that maps points of `source` to `target` at `stamp`. TransformError where that is unknown."""
        target, source = target.lstrip("/"), source.lstrip("/")
        with self._lock:
            up_target, up_source = self._chain(target), self._chain(source)
            common = next((f for f in up_source if f in up_target), None)
            if common is None:
                raise TransformError(self._gap(up_target, up_source))
            to_common = self._compose(up_source, common, stamp)
            from_common = self._compose(up_target, common, stamp)
        return invert(from_common) @ to_common

    def explain(self, target: str, source: str, stamp: float | None) -> str:
        """The chain from `source` to `target` in words, and where it breaks; `stamp` None checks the chain alone."""
        target, source = target.lstrip("/"), source.lstrip("/")
        with self._lock:
            try:
                up_target, up_source = self._chain(target), self._chain(source)
            except TransformError as error:
                return str(error)
            common = next((f for f in up_source if f in up_target), None)
            if common is None:
                return self._gap(up_target, up_source)
            down = list(reversed(up_target[: up_target.index(common)]))
            path = " -> ".join([*up_source[: up_source.index(common) + 1], *down])
            if stamp is None:
                return f"complete: {path}"
            try:
                self.lookup(target, source, stamp)
            except TransformError as error:
                return f"{path}, but {error}"
            return f"complete: {path}"

    def _gap(self, up_target: list[str], up_source: list[str]) -> str:
        if not self._parent:
            return f"no transform has arrived at all; wanted {up_source[0]!r} to {up_target[0]!r}"
        known = {*self._parent, *self._parent.values()}
        unknown = [f for f in (up_source[0], up_target[0]) if f not in known]
        hint = f"; no transform mentions {' or '.join(map(repr, unknown))}" if unknown else ""
        return (
            f"no chain from {up_source[0]!r} to {up_target[0]!r}: {' -> '.join(up_source)} ends there, "
            f"{' -> '.join(up_target)} ends there{hint}; known frames: {', '.join(sorted(known)[:20])}"
        )

    def _chain(self, frame: str) -> list[str]:
        chain = [frame]
        while chain[-1] in self._parent:
            chain.append(self._parent[chain[-1]])
            if len(chain) > 100:
                raise TransformError(f"the transform tree has a loop at {frame!r}")
        return chain

    def _compose(self, chain: list[str], common: str, stamp: float) -> np.ndarray:
        out = np.eye(4)
        for frame in chain[: chain.index(common)]:
            if frame in self._static:
                step = quaternion_to_matrix(*self._static[frame])
            else:
                step = self._moving.get(frame, Track(self.cache)).at(stamp, f"the transform of {frame!r}")
            out = step @ out
        return out


class PoseProvider(Protocol):
    """Where a camera's pose comes from."""

    def lookup(self, camera_frame: str, stamp: float) -> np.ndarray:
        """T_world_camera (4, 4) at `stamp`; TransformError where that is unknown."""
        ...

    def explain(self, camera_frame: str, stamp: float | None) -> str: ...


class TfPoses:
    """The pose from the transform tree."""

    def __init__(self, buffer: TransformBuffer, map_frame: str):
        self.buffer, self.map_frame = buffer, map_frame

    def lookup(self, camera_frame: str, stamp: float) -> np.ndarray:
        return self.buffer.lookup(self.map_frame, camera_frame, stamp)

    def explain(self, camera_frame: str, stamp: float | None) -> str:
        return self.buffer.explain(self.map_frame, camera_frame, stamp)


class TopicPoses:
    """The pose from a PoseStamped or Odometry topic, between its stamps by interpolation.

    The topic gives the pose of `pose_frame` (empty: of the camera itself) in `map_frame`; from `pose_frame` to
    the camera leads the transform tree, usually a static one.
    """

    def __init__(self, buffer: TransformBuffer, map_frame: str, pose_frame: str = "", reset_after: float = 1.0):
        self.buffer, self.map_frame, self.pose_frame = buffer, map_frame.lstrip("/"), pose_frame.lstrip("/")
        self.reset_after = reset_after
        self._track = Track(buffer.cache)
        self._lock = threading.Lock()

    def add(self, parent: str, stamp: float, translation: Sequence[float], quaternion: Sequence[float]) -> None:
        """Raises FrameError for a pose that is none or that is given in another frame than `map_frame`."""
        validate.rigid(translation, quaternion, "the pose topic")
        if parent.lstrip("/") != self.map_frame:
            raise validate.FrameError(
                "pose_frame",
                f"the pose topic speaks of the frame {parent!r}, the parameter map_frame is {self.map_frame!r}: "
                f"set map_frame to {parent!r}, or take the pose from tf",
            )
        with self._lock:
            if self._track.stamps and stamp < self._track.stamps[-1] - self.reset_after:
                self._track = Track(self.buffer.cache)
            self._track.add(stamp, translation, quaternion)

    def lookup(self, camera_frame: str, stamp: float) -> np.ndarray:
        with self._lock:
            pose = self._track.at(stamp, "the pose")
        if self.pose_frame in ("", camera_frame.lstrip("/")):
            return pose
        return pose @ self.buffer.lookup(self.pose_frame, camera_frame, stamp)

    def explain(self, camera_frame: str, stamp: float | None) -> str:
        """`complete: ...`, or what is missing; `stamp` None asks for the newest pose."""
        with self._lock:
            if not self._track.stamps:
                return "no pose has come yet"
            stamp = self._track.stamps[-1] if stamp is None else stamp
        try:
            self.lookup(camera_frame, stamp)
        except TransformError as error:
            return str(error)
        return f"complete: {camera_frame} -> {self.map_frame}"
