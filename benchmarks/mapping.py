# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""How fast is the map? `PointMap.integrate`, visibility included, beside Open3D's VoxelBlockGrid on the CPU.

    python benchmarks/mapping.py [--scene examples/studio] [--json FILE]

Both take the same frames in turn, in one process, with the same voxel size and range. Writes
docs/results/mapping.md and, where matplotlib is installed, mapping.png beside it.
"""

from __future__ import annotations

import argparse
import ctypes
import datetime
import gc
import json
import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from common import RESULTS, ROOT, command, commit, enlarged, load, machine, write_page

from seg3d_core.config import MapConfig
from seg3d_core.mapping import PointMap
from seg3d_core.sources.guess import open_source
from seg3d_core.types import Frame

SIZES = ((320, 240), (640, 480))
CURVE_POINTS = (100_000, 500_000, 2_000_000)
APART = 50.0  # metres between two copies of the scene: no frame sees two


@dataclass
class Row:
    """One line of the table: milliseconds per frame by the clock and (median) of all threads' CPU time, megabytes
    at the end. On a machine that others use too, CPU time is the one to compare."""

    what: str
    size: str
    median_ms: float
    p95_ms: float
    cpu_ms: float
    memory_mb: float
    note: str = ""

    @classmethod
    def of(cls, what: str, size: tuple[int, int], timings: Sequence[Timing], memory: float, note: str = "") -> Row:
        return cls(what, f"{size[0]}x{size[1]}", **summary(timings), memory_mb=memory / 1e6, note=note)


# Seconds by the clock, and of CPU time over all threads.
Timing = tuple[float, float]


def timed(call: Callable[..., Any], *arguments: Any) -> Timing:
    clock, cpu = time.perf_counter(), time.process_time()
    call(*arguments)
    return time.perf_counter() - clock, time.process_time() - cpu


def summary(timings: Sequence[Timing]) -> dict[str, float]:
    clock, cpu = np.asarray(timings).T * 1e3
    return {
        "median_ms": float(np.median(clock)),
        "p95_ms": float(np.percentile(clock, 95)),
        "cpu_ms": float(np.median(cpu)),
    }


class Open3DGrid:
    """Open3D's tensor VoxelBlockGrid (TSDF, weight, colour), as its tutorial sets it up, on the CPU."""

    def __init__(self, config: MapConfig, block_side: int) -> None:
        import open3d as o3d

        self.o3d, self.core, self.config, self.block_side = o3d, o3d.core, config, block_side
        self.device = self.core.Device("CPU:0")
        self.grid = o3d.t.geometry.VoxelBlockGrid(
            attr_names=("tsdf", "weight", "color"),
            attr_dtypes=(self.core.float32, self.core.uint16, self.core.uint16),
            attr_channels=((1,), (1,), (3,)),
            voxel_size=config.voxel_size,
            block_resolution=block_side,
            block_count=50_000 * 8**3 // block_side**3,
            device=self.device,
        )

    def converted(self, frame: Frame) -> tuple[Any, ...]:
        """The frame in Open3D's own types, made outside the timing: 16-bit millimetres, as a sensor sends."""
        tensor = self.core.Tensor
        millimetres = np.where(frame.depth <= self.config.depth_max, np.rint(frame.depth * 1000), 0).astype(np.uint16)
        image = self.o3d.t.geometry.Image
        return (
            image(tensor(millimetres)),
            image(tensor(np.ascontiguousarray(frame.rgb))),
            tensor(frame.camera.matrix),
            tensor(np.linalg.inv(frame.T_world_camera)),
        )

    def integrate(self, depth: Any, color: Any, intrinsic: Any, extrinsic: Any) -> None:
        far = self.config.depth_max
        blocks = self.grid.compute_unique_block_coordinates(depth, intrinsic, extrinsic, 1000.0, far)
        self.grid.integrate(blocks, depth, color, intrinsic, extrinsic, 1000.0, far)

    @property
    def memory_bytes(self) -> int:
        """Of the blocks in use: TSDF 4 bytes, weight 2, colour 6 a voxel."""
        return int(self.grid.hashmap().size()) * self.block_side**3 * 12


class Open3DProcess:
    """An Open3DGrid in a process of its own: Open3D heeds its number of threads only before its first use."""

    def __init__(self, frames: Sequence[Frame], config: MapConfig, block_side: int, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        arguments = (other, frames, config, block_side, threads)
        self._process = context.Process(target=_serve_open3d, args=arguments, daemon=True)
        self._process.start()
        self._pipe.recv()

    def integrate(self, number: int) -> Timing:
        """Of frame `number`, measured over there."""
        self._pipe.send(number)
        return self._pipe.recv()

    def close(self) -> int:
        """Bytes of the blocks in use."""
        self._pipe.send(None)
        used = self._pipe.recv()
        self._process.join()
        return used


def _serve_open3d(pipe: Any, frames: Sequence[Frame], config: MapConfig, block_side: int, threads: int) -> None:
    os.environ["OMP_DYNAMIC"] = "false"  # else it takes fewer threads on a machine that was busy a while ago
    load_open3d()
    import open3d as o3d

    o3d.utility.set_max_threads(threads)
    warm, grid = Open3DGrid(config, block_side), Open3DGrid(config, block_side)
    converted = [grid.converted(frame) for frame in frames]
    warm.integrate(*converted[0])
    pipe.send("ready")
    while (number := pipe.recv()) is not None:
        pipe.send(timed(grid.integrate, *converted[number]))
    pipe.send(grid.memory_bytes)


def load_open3d() -> str:
    """Open3D's version, or why it can't be had. Its library wants libusb, which a pip package brings."""
    try:
        import libusb_package

        ctypes.CDLL(str(libusb_package.get_library_path()), mode=ctypes.RTLD_GLOBAL)
    except (ImportError, OSError):
        pass
    try:
        import open3d

        return f"Open3D {open3d.__version__}"
    except (ImportError, OSError) as error:
        return f"missing ({error})"


def compare(frames: Sequence[Frame], config: MapConfig, has_open3d: bool, passes: int) -> list[Row]:
    """Each pass begins with empty maps; within it, every frame goes to each of the candidates in turn."""
    size = frames[0].camera.size
    cores = os.cpu_count() or 1
    kinds = ((8, 1), (8, cores), (16, cores)) if has_open3d else ()
    ours: list[Timing] = []
    theirs: dict[tuple[int, int], list[Timing]] = {kind: [] for kind in kinds}
    memory: dict[tuple[int, int], int] = {}
    PointMap(config).integrate(frames[0])
    for _ in range(passes):
        point_map = PointMap(config)
        grids = {kind: Open3DProcess(frames, config, *kind) for kind in kinds}
        for number, frame in enumerate(frames):
            ours.append(timed(point_map.integrate, frame))
            for kind, grid in grids.items():
                theirs[kind].append(grid.integrate(number))
        memory = {kind: grid.close() for kind, grid in grids.items()}
    rows = [
        Row.of(
            "PointMap.integrate, visibility included (1 thread)",
            size,
            ours,
            point_map.memory_bytes,
            f"{len(point_map):,} points",
        )
    ]
    for side, threads in kinds:
        name = f"Open3D VoxelBlockGrid, {side}^3 blocks ({threads} thread{'s' * (threads > 1)})"
        row = Row.of(name, size, theirs[side, threads], memory[side, threads])
        by_clock, by_cpu = row.median_ms / rows[0].median_ms, row.cpu_ms / rows[0].cpu_ms
        row.note = f"{by_clock:.1f} times ours by the clock, {by_cpu:.1f} in CPU; no visibility; MB of blocks in use"
        rows.append(row)
    return rows


def curve(frames: Sequence[Frame], config: MapConfig, passes: int) -> list[dict[str, float]]:
    """Cost of the same few frames while the map around them grows by copies of the scene set aside."""
    point_map = PointMap(config)
    used: list[Frame] = []
    for frame in frames:
        point_map.integrate(frame)
        used.append(frame)
        if len(point_map) >= CURVE_POINTS[0]:
            break
    out, copies = [], 0
    for target in CURVE_POINTS:
        while len(point_map) < target:
            copies += 1
            for frame in frames:
                if len(point_map) >= target:
                    break
                T = frame.T_world_camera.copy()
                T[0, 3] += APART * copies
                point_map.integrate(replace(frame, T_world_camera=T))
        timings = [timed(point_map.integrate, frame) for _ in range(passes + 1) for frame in used][len(used) :]
        out.append(
            {
                "points": len(point_map),
                **summary(timings),
                "memory_mb": point_map.memory_bytes / 1e6,
                "bytes_per_point": point_map.memory_bytes / len(point_map),
            }
        )
    return out


def report(meta: dict[str, str], rows: Sequence[Row], curves: dict[str, list[dict[str, float]]]) -> str:
    lines = ["# Mapping: time per frame, memory, and the size of the map", ""]
    lines += [f"- {key}: {value}" for key, value in meta.items()]
    lines += ["", "| what | size | median ms | p95 ms | CPU ms | MB | |", "|---|---|---|---|---|---|---|"]
    lines += [
        f"| {r.what} | {r.size} | {r.median_ms:.1f} | {r.p95_ms:.1f} | {r.cpu_ms:.1f} | {r.memory_mb:.0f} | {r.note} |"
        for r in rows
    ]
    lines += ["", "## The same frames in a growing map", ""]
    lines += ["| size | points | median ms | p95 ms | CPU ms | MB | bytes a point |", "|---|---|---|---|---|---|---|"]
    lines += [
        f"| {size} | {c['points']:,} | {c['median_ms']:.1f} | {c['p95_ms']:.1f} | {c['cpu_ms']:.1f} "
        f"| {c['memory_mb']:.0f} | {c['bytes_per_point']:.0f} |"
        for size, points in curves.items()
        for c in points
    ]
    lines += [
        "",
        "The map grows by copies of the scene set aside, so that the frames see as much as before. Bytes a point count "
        "room to grow (arrays double) and the buffers of one frame.",
    ]
    return "\n".join(lines) + "\n"


def draw(curves: dict[str, list[dict[str, float]]], path: Path) -> bool:
    try:
        import matplotlib as mpl

        mpl.use("Agg")
        import matplotlib.pyplot as plt
    except ImportError:
        return False
    figure, axes = plt.subplots(figsize=(5, 3), dpi=100)
    for size, points in curves.items():
        line = [c["cpu_ms"] for c in points]
        axes.plot([c["points"] / 1e6 for c in points], line, marker="o", label=size)
    axes.set(xlabel="million points in the map", ylabel="median CPU ms per frame", ylim=(0, None))
    axes.legend()
    figure.tight_layout()
    figure.savefig(path)
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scene", type=Path, default=ROOT / "examples" / "studio", help="any source of frames")
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    parser.add_argument("--passes", type=int, default=3, help="how often the scene is run")
    arguments = parser.parse_args()
    config = MapConfig()
    source = list(open_source(arguments.scene))
    open3d = load_open3d()
    rows: list[Row] = []
    curves = {}
    for width, height in SIZES:
        frames = [enlarged(frame, width, height) for frame in source]
        rows += compare(frames, config, not open3d.startswith("missing"), arguments.passes)
        gc.collect()
        curves[f"{width}x{height}"] = curve(frames, config, arguments.passes)
    meta = {
        "date": datetime.date.today().isoformat(),
        "machine": machine(),
        "load average": load(),
        "commit": commit(),
        "scene": f"{arguments.scene.name}, {len(source)} frames, {arguments.passes} passes; 640x480 is enlarged from "
        "320x240 (inverse depth interpolated, nearest at edges)",
        "settings": f"voxels of {config.voxel_size} m, range {config.depth_min} to {config.depth_max} m",
        "beside": open3d,
        "command": f"`{command()}`",
    }
    text = report(meta, rows, curves)
    RESULTS.mkdir(parents=True, exist_ok=True)
    if draw(curves, RESULTS / "mapping.png"):
        text += "\n![Milliseconds per frame against points in the map](mapping.png)\n"
    write_page(RESULTS / "mapping.md", text)
    if arguments.json:
        numbers = {"meta": meta, "rows": [asdict(row) for row in rows], "curves": curves}
        arguments.json.write_text(json.dumps(numbers, indent=1))


if __name__ == "__main__":
    main()
