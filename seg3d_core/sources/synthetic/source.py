# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""The source that makes its own rooms."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np

from ...errors import SourceError
from ...geometry import invert, project, transform
from ...types import Array, Camera, Frame
from ..images import check_rate
from .camera_path import MOTIONS, plan_poses
from .classes import CARPETS, STRUCTURE, class_id
from .layout import build_room
from .noise import drifting_poses, kinect_depth
from .raycast import require_caster
from .render import Picture, Scene, to_srgb
from .room import Room

_SEEN_WITHIN = 0.006
_FARTHEST = 10.0


class SyntheticSource:
    """Frames of a furnished room drawn by chance, with exact ground truth. A `Source`.

    The same arguments give the same bytes on one machine, whatever was rendered before. `frames` images of `width` x
    `height` pixels come at `rate` per second; without `camera` the view is that of fx = 277 pixels at 320 x 240.
    `motion` is `keyframe` (steps of up to 0.32 m through the whole room) or `video` (up to 6 cm and a few degrees);
    every `stride`-th step is a frame, so that few frames may see the whole room.
    `noisy` gives the depth of a structured-light camera and poses that drift by a few centimetres. The world is z up
    with the floor at z = 0. `SourceError` for arguments out of range and where no ray caster is installed.
    """

    kind = "synthetic"

    def __init__(
        self,
        seed: int = 0,
        frames: int = 60,
        width: int = 320,
        height: int = 240,
        noisy: bool = False,
        rate: float = 5.0,
        motion: str = "keyframe",
        camera: Camera | None = None,
        stride: int = 1,
    ):
        require_caster()
        if seed < 0:
            raise SourceError(f"seed must be 0 or more for a synthetic room, not {seed}")
        if frames < 1 or not (8 <= width <= 4096 and 8 <= height <= 4096):
            raise SourceError(
                f"a synthetic room needs 1 frame or more of 8 to 4096 pixels a side, not {frames} of {width}x{height}"
            )
        if stride < 1:
            raise SourceError(f"stride must be 1 step of the walk or more, not {stride}")
        check_rate(rate)
        if motion not in MOTIONS:
            raise SourceError(f"motion must be one of {', '.join(MOTIONS)}, not '{motion}'")
        if camera is not None and camera.distortion is not None:
            raise SourceError("a synthetic camera has no distortion: leave it out")
        self.seed, self.frames, self.noisy, self.rate, self.motion = seed, frames, noisy, rate, motion
        self.stride = stride
        self.camera = camera or Camera(320, 240, 277.0, 277.0, 159.5, 119.5).scaled(width, height)
        self.name = f"synthetic-{seed}"
        self.drops: dict[str, int] = {}

    @cached_property
    def room(self) -> Room:
        """What stands where."""
        return build_room(self.seed)

    @cached_property
    def scene(self) -> Scene:
        """The triangles and their looks."""
        return Scene(self.room)

    @cached_property
    def poses(self) -> Array:
        """Exact T_world_camera of all frames, float64 (frames, 4, 4)."""
        steps = self.frames * self.stride
        return plan_poses(self.room, self.scene, self.camera, steps, self.motion, self.seed)[:: self.stride]

    @cached_property
    def _told_poses(self) -> Array:
        return drifting_poses(self.poses, np.random.default_rng([self.seed, 3])) if self.noisy else self.poses

    @property
    def instances(self) -> dict[int, dict[str, Any]]:
        """Instance id -> `label`, `class_id`, `is_structure` (doors, windows) and `is_carpet` (flat on the floor)."""
        return {
            p.id: {
                "label": p.label,
                "class_id": class_id(p.label),
                "is_structure": p.label in STRUCTURE,
                "is_carpet": p.label in CARPETS,
            }
            for p in self.room.pieces
        }

    def __len__(self) -> int:
        return self.frames

    @property
    def frame_names(self) -> list[str]:
        return [str(index) for index in range(self.frames)]

    def __iter__(self) -> Iterator[Frame]:
        return (self[index] for index in range(self.frames))

    def __getitem__(self, index: int) -> Frame:
        """Frame number `index`, from 0; any order gives the same frames."""
        if not 0 <= index < self.frames:
            raise IndexError(f"frame {index} of {self.frames}")
        picture = self._picture(index)
        depth = np.where(picture.depth <= _FARTHEST, picture.depth, np.float32(0))
        if self.noisy:
            depth = kinect_depth(depth, picture.cosine, np.random.default_rng([self.seed, 4, index]))
        stamp = index * self.stride / self.rate
        return Frame(
            index, stamp, picture.rgb, depth, self.camera, self._told_poses[index].copy(), str(index),
            picture.instance,
        )  # fmt: skip

    def _picture(self, index: int) -> Picture:
        return self.scene.render(self.camera, self.poses[index])

    def surface_points(self, count: int, seed: int = 0) -> tuple[Array, Array, Array, Array]:
        """Points drawn evenly by area from the surfaces that frames see, in the exact world.

        Returns xyz float32 (count, 3), rgb uint8 (count, 3), normals float32 (count, 3) towards a camera that sees
        the point, and instance int32 (count,), 0 = wall, floor or ceiling.
        """
        if count < 1:
            raise SourceError(f"count must be 1 or more, not {count}")
        rng = np.random.default_rng([self.seed, 5, seed])
        parts: list[tuple[Array, Array, Array, Array]] = []
        found = 0
        for _ in range(200):
            parts.append(self._seen_points(max(2 * count, 4096), rng))
            found += len(parts[-1][0])
            if found >= count:
                break
        else:
            raise SourceError(f"the frames of {self.name} see too little for {count} surface points: add frames")
        joined = [np.concatenate(columns) for columns in zip(*parts, strict=True)]
        keep = np.sort(rng.permutation(found)[:count])
        xyz, rgb, normals, instance = (column[keep] for column in joined)
        return xyz, rgb, normals, instance

    def _seen_points(self, count: int, rng: np.random.Generator) -> tuple[Array, Array, Array, Array]:
        """Those of `count` random surface points that some frame sees."""
        triangle, weights, points = self._random_points(count, rng)
        viewer, depth = self.viewers(points)
        rows = np.flatnonzero(viewer >= 0)
        points, triangle = points[rows].astype(np.float32), triangle[rows]
        view = self.poses[viewer[rows], :3, 3].astype(np.float32) - points
        view /= np.linalg.norm(view, axis=1, keepdims=True)
        width = depth[rows] / np.float32(self.camera.fx)
        colour, normals = self.scene.shade(triangle, weights[rows], points, view, width)
        return points, to_srgb(colour), normals.astype(np.float32), self.scene.instance[triangle]

    def viewers(self, points: Array) -> tuple[Array, Array]:
        """The first frame to see each surface point (n, 3), int (n,), -1 = none, and its depth there, float32 (n,)."""
        viewer = np.full(len(points), -1)
        depth = np.ones(len(points), np.float32)
        for index, pose in enumerate(self.poses):
            rows = np.flatnonzero(viewer < 0)
            pixels, z = project(transform(invert(pose), points[rows]), self.camera)
            limit = np.array(self.camera.size) - 0.5
            inside = (z > 0.1) & (z < _FARTHEST) & (pixels >= -0.5).all(1) & (pixels < limit).all(1)
            rows, pixels, z = rows[inside], pixels[inside], z[inside]
            seen = np.abs(self.scene.depth(self.camera, pose, pixels) - z) < _SEEN_WITHIN
            viewer[rows[seen]] = index
            depth[rows[seen]] = z[seen]
        return viewer, depth

    def _random_points(self, count: int, rng: np.random.Generator) -> tuple[Array, Array, Array]:
        """Triangles (n,), barycentric weights float32 (n, 2) and points (n, 3), evenly spread by area."""
        t = self.scene.triangles.astype(np.float64)
        area = np.cumsum(np.linalg.norm(np.cross(t[:, 1] - t[:, 0], t[:, 2] - t[:, 0]), axis=1))
        at = (np.arange(count) + rng.random(count)) * (area[-1] / count)
        triangle = np.minimum(np.searchsorted(area, at, side="right"), len(t) - 1)
        weights = rng.random((count, 2))
        weights = np.where((weights.sum(1) > 1)[:, None], 1 - weights, weights)
        corners = t[triangle]
        points = corners[:, 0] + (weights[:, :, None] * (corners[:, 1:] - corners[:, :1])).sum(1)
        return triangle, weights.astype(np.float32), points
