# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""PointMap beside a slow, literal twin: pixel by pixel and point by point."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest

from seg3d_core.config import MapConfig
from seg3d_core.mapping import PointMap
from seg3d_core.mapping.fusion import TWIN
from seg3d_core.types import Frame

# Large voxels and a narrow margin, so that small frames meet the same voxels often.
CONFIG = MapConfig(voxel_size=0.05, depth_min=0.2, depth_max=3.0)


class Twin:
    """The map as a dictionary from voxel to point, pixel by pixel and point by point."""

    def __init__(self, config: MapConfig) -> None:
        self.config = config
        self.points: dict[tuple[int, int, int], dict] = {}
        self.next_id = 1

    def integrate(self, frame: Frame) -> tuple[list[tuple], list[int]]:
        c, camera = self.config, frame.camera
        h, w = frame.depth.shape
        depth = np.zeros((h, w), np.float32)
        for v in range(h):
            for u in range(w):
                d = frame.depth[v, u]
                if np.isfinite(d) and np.float32(c.depth_min) <= d <= np.float32(c.depth_max):
                    depth[v, u] = d

        def step(v: int, u: int, dv: int, du: int) -> np.float32 | None:
            if not (0 <= v + dv < h and 0 <= u + du < w) or depth[v + dv, u + du] <= 0:
                return None
            difference = depth[v + dv, u + du] - depth[v, u]
            return difference if dv + du > 0 else -difference

        def gradient(v: int, u: int, dv: int, du: int) -> np.float32 | None:
            steps = [s for s in (step(v, u, -dv, -du), step(v, u, dv, du)) if s is not None]
            return min(steps, key=abs) if steps else None

        r, t = frame.T_world_camera[:3, :3], frame.T_world_camera[:3, 3]
        sums: dict[tuple[int, int, int], list] = {}
        for v in range(h):
            before = target = None
            for u in range(w):
                d = float(depth[v, u])
                if d <= 0:
                    before = None
                    continue
                x, y = (u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy
                xyz = [d * (r[i, 0] * x + (r[i, 1] * y + r[i, 2])) + t[i] for i in range(3)]
                voxel = tuple(math.floor(p * (1.0 / c.voxel_size)) for p in xyz)
                gu, gv = gradient(v, u, 0, 1), gradient(v, u, 1, 0)
                normal = np.zeros(3)
                if gu is not None and gv is not None:
                    along_u = np.array([d / camera.fx + x * gu, y * gu, gu])
                    along_v = np.array([x * gv, d / camera.fy + y * gv, gv])
                    normal = np.cross(along_v, along_u)
                    normal /= np.linalg.norm(normal)
                if voxel != before:  # a run of pixels goes where its first one does
                    target = self.voxel_for(voxel, xyz)
                before = voxel
                sums.setdefault(target, []).append((xyz, frame.rgb[v, u].astype(float), normal))
        for voxel, seen in sums.items():
            point = self.points[voxel]
            point["weight"] = min(point["weight"] + 1, c.max_weight)
            mean = point["mean"].astype(float)
            frame_mean = np.concatenate([np.mean([s[i] for s in seen], axis=0) for i in range(2)])
            mean[:6] += (frame_mean - mean[:6]) / point["weight"]
            normal = r @ np.sum([s[2] for s in seen], axis=0)
            if np.linalg.norm(normal) > 0:
                mean[6:] += (normal / np.linalg.norm(normal) - mean[6:]) / point["weight"]
            low = np.array(voxel) * c.voxel_size
            mean[:3] = np.clip(mean[:3], low, low + c.voxel_size)
            point["mean"] = mean.astype(np.float32)
        return self.look(frame, depth, gradient, set(sums))

    def voxel_for(self, voxel: tuple[int, int, int], xyz: list[float]) -> tuple[int, int, int]:
        """The voxel whose point takes a position: its own, one beside it whose point is near, or its own anew."""
        if voxel in self.points:
            return voxel
        sides = [1 if p * (1.0 / self.config.voxel_size) - i >= 0.5 else -1 for p, i in zip(xyz, voxel, strict=True)]
        near = []
        for shift in itertools.product((0, 1), repeat=3):
            beside = tuple(i + s * side for i, s, side in zip(voxel, shift, sides, strict=True))
            if beside in self.points:
                away = np.linalg.norm(self.points[beside]["mean"][:3].astype(float) - xyz)
                if away < TWIN * self.config.voxel_size:
                    near.append((away, beside))
        if near:
            return min(near)[1]
        mean = np.concatenate([np.array(xyz, np.float32), np.zeros(6, np.float32)])
        self.points[voxel] = {"id": self.next_id, "mean": mean, "weight": 0.0}
        self.next_id += 1
        return voxel

    def look(self, frame: Frame, depth: np.ndarray, gradient, touched: set) -> tuple[list[tuple], list[int]]:
        c, camera = self.config, frame.camera
        h, w = depth.shape
        r, t = frame.T_world_camera[:3, :3], frame.T_world_camera[:3, 3]
        visible, removed = [], []
        for voxel, point in list(self.points.items()):
            x, y, z = r.T @ (point["mean"][:3].astype(float) - t)
            if not c.depth_min <= z <= c.depth_max:
                continue
            u = np.float32(x * camera.fx / z + camera.cx)
            v = np.float32(y * camera.fy / z + camera.cy)
            i, j = int(np.rint(v)), int(np.rint(u))
            if not (0 <= i < h and 0 <= j < w) or depth[i, j] <= 0:
                continue
            slope = sum(abs(g) for g in (gradient(i, j, 0, 1), gradient(i, j, 1, 0)) if g is not None)
            allowed = c.depth_tolerance + c.depth_tolerance_relative * z + c.slope_tolerance * float(slope)
            if abs(z - depth[i, j]) <= allowed:
                visible.append((point["id"], u, v, z))
                continue
            around = depth[max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2]
            clear = z + 3 * allowed + 0.05
            if c.fade > 0 and voxel not in touched and (around[around > 0] > clear).all():
                point["weight"] -= c.fade
                if point["weight"] <= 0:
                    removed.append(point["id"])
                    del self.points[voxel]
        return sorted(visible), sorted(removed)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("change", [{}, {"fade": 0.5, "max_weight": 2.0}, {"fade": 0.0, "slope_tolerance": 0.0}])
def test_agrees_with_the_twin(random_frame: Callable[..., Frame], seed: int, change: dict) -> None:
    config = MapConfig(**{**CONFIG.model_dump(), **change})
    fast, slow = PointMap(config), Twin(config)
    removed_at_all = 0
    for index in range(8):
        frame = random_frame(100 * seed + index)
        visible = fast.integrate(frame)
        seen, removed = slow.integrate(frame)
        assert visible.ids.tolist() == [s[0] for s in seen]
        np.testing.assert_allclose(visible.pixels, [s[1:3] for s in seen], atol=2e-4)
        np.testing.assert_allclose(visible.depths, [s[3] for s in seen], atol=1e-5)
        assert fast.removed_ids.tolist() == removed
        removed_at_all += len(removed)
        rows = fast.rows_of(visible)
        assert (np.diff(rows) > 0).all()
    cloud, _ = fast.snapshot()
    points = sorted(slow.points.values(), key=lambda p: p["id"])
    assert cloud.ids.tolist() == [p["id"] for p in points]
    np.testing.assert_allclose(cloud.xyz, [p["mean"][:3] for p in points], atol=1e-5)
    assert np.abs(cloud.rgb.astype(int) - np.rint([p["mean"][3:6] for p in points])).max() <= 1
    np.testing.assert_allclose(cloud.weight, [p["weight"] for p in points], atol=1e-5)
    normals = np.array([p["mean"][6:] for p in points])
    length = np.linalg.norm(normals, axis=1)
    firm = length > 0.2
    np.testing.assert_allclose(cloud.normals[firm], normals[firm] / length[firm, None], atol=1e-4)
    assert (removed_at_all > 0) == (config.fade > 0)
