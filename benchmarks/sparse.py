# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""How fast is sparse convolution in plain torch, beside MinkowskiEngine, on the CPU? Writes docs/results/sparse.md.

Needs torch, and MinkowskiEngine (`make minkowski`). Both compute the same layers with the same weights in one process,
in turns; the number of threads is set before either starts, so there is one process per number of threads.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from common import RESULTS, ROOT, command, commit, load, machine, write_page

from seg3d_core.geometry import back_project, transform
from seg3d_core.sources.guess import open_source

VOXEL_SIZE = 0.02
# (what, kind, edge of the kernel, channels in and out)
LAYERS = [
    ("kernel map 3x3x3, and one channel", "map", 3, 1, 1),
    ("kernel map 5x5x5, and one channel", "map", 5, 1, 1),
    ("narrow, 3x3x3", "submanifold", 3, 32, 32),
    ("wide, 3x3x3", "submanifold", 3, 96, 96),
    ("widest at this level, 3x3x3", "submanifold", 3, 128, 96),
    ("stem on colours, 5x5x5", "submanifold", 5, 3, 32),
    ("stem on image features, 5x5x5", "submanifold", 5, 259, 32),
    ("down, 2x2x2", "down", 2, 32, 32),
    ("up, 2x2x2", "up", 2, 96, 96),
    ("narrow, 3x3x3, with gradients", "gradients", 3, 32, 32),
    ("wide, 3x3x3, with gradients", "gradients", 3, 96, 96),
]
NETWORKS = [("U-Net on image features", 259), ("U-Net on colours", 3)]


def scene(path: Path, voxels: int) -> np.ndarray:
    """(V, 4) voxels of a scanned scene: all frames, cut along x."""
    found = []
    for frame in open_source(path):
        points = back_project(frame.depth, frame.camera).reshape(-1, 3)
        points = transform(frame.T_world_camera, points[points[:, 2] > 0])
        found.append(np.unique(np.floor(points / VOXEL_SIZE).astype(np.int64), axis=0))
    unique = np.unique(np.concatenate(found), axis=0)
    if len(unique) < voxels:
        raise SystemExit(
            f"{path} has {len(unique)} voxels of {VOXEL_SIZE} m, fewer than {voxels}: --voxels {len(unique)}"
        )
    return np.pad(unique[:voxels], ((0, 0), (1, 0)))


def measured(functions: dict[str, Callable[[], Any]], repeats: int) -> dict[str, dict[str, float]]:
    """Milliseconds by the clock and of CPU, the least of all turns: what others do at the time only adds to it."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in functions}
    for turn in range(repeats + 1):
        for name, function in functions.items():
            wall, cpu = time.perf_counter(), time.process_time()
            function()
            if turn:
                times[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    return {
        name: {"wall": 1e3 * min(w for w, _ in pairs), "cpu": 1e3 * min(c for _, c in pairs)}
        for name, pairs in times.items()
    }


def layer_functions(indices: Any, kind: str, edge: int, channels_in: int, channels_out: int) -> dict[str, Callable]:
    import torch

    from seg3d_core.models import sparse

    classes = {"down": sparse.StridedConvolution, "up": sparse.TransposedConvolution}
    layer = classes.get(kind, sparse.SubmanifoldConvolution)(channels_in, channels_out, edge)
    features = torch.randn(len(indices), channels_in)

    def function(backend: sparse.Backend) -> Callable[[], Any]:
        x = sparse.SparseTensor(features, sparse.CoordinateSet(indices), backend)
        if kind == "map":
            return lambda: layer(sparse.SparseTensor(features, sparse.CoordinateSet(indices), backend))
        if kind == "up":
            parents = backend.parents(x.coordinates, edge)
            coarse = sparse.SparseTensor(torch.randn(len(parents), channels_in), parents, backend)
            return lambda: layer(coarse, x)
        if kind != "gradients":
            return lambda: layer(x)

        def step() -> None:
            with torch.enable_grad():
                y = layer(x.replace(features.detach().requires_grad_()))
                y.features.backward(torch.ones_like(y.features))

        return step

    return {name: function(sparse.find_backend(name, "minkowski")) for name in ("torch", "minkowski")}


def network_functions(indices: Any, channels: int, is_fresh: bool) -> dict[str, Callable]:
    import torch

    from seg3d_core.models import sparse
    from seg3d_core.models.backbones import MinkUNet

    network, features = MinkUNet(channels).eval(), torch.randn(len(indices), channels)

    def function(backend: sparse.Backend) -> Callable[[], Any]:
        kept = sparse.CoordinateSet(indices)
        return lambda: network(
            sparse.SparseTensor(features, sparse.CoordinateSet(indices) if is_fresh else kept, backend)
        )

    return {name: function(sparse.find_backend(name, "minkowski")) for name in ("torch", "minkowski")}


def run(path: Path, voxels: int, threads: int, repeats: int) -> list[dict[str, Any]]:
    import torch

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    indices = torch.from_numpy(scene(path, voxels))
    rows = []
    with torch.no_grad():
        for what, kind, edge, channels_in, channels_out in LAYERS:
            functions = layer_functions(indices, kind, edge, channels_in, channels_out)
            channels = "" if kind == "map" else f"{channels_in} to {channels_out}"
            rows.append({"what": what, "channels": channels, **measured(functions, repeats)})
        for what, channels in NETWORKS:
            for is_fresh in (True, False):
                name = f"{what}, maps {'made anew' if is_fresh else 'at hand'}"
                functions = network_functions(indices, channels, is_fresh)
                rows.append({"what": name, "channels": f"{channels} to 96", **measured(functions, max(repeats - 1, 2))})
    return rows


def table(rows: list[dict[str, Any]]) -> list[str]:
    lines = [
        "| what | channels | ours ms | MinkowskiEngine ms | ratio by the clock | ratio in CPU |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        ours, theirs = row["torch"], row["minkowski"]
        lines.append(
            f"| {row['what']} | {row['channels']} | {ours['wall']:.0f} | {theirs['wall']:.0f} "
            f"| {theirs['wall'] / ours['wall']:.1f} | {theirs['cpu'] / ours['cpu']:.1f} |"
        )
    return lines


def child(arguments: argparse.Namespace, threads: int) -> list[dict[str, Any]]:
    variables = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    # Threads of OpenMP spin while they wait for each other. Where other programs want the cores too, that costs whole
    # time slices at each of our many small products, twenty times the work itself: here they sleep instead.
    environment = os.environ | dict.fromkeys(variables, str(threads)) | {"OMP_WAIT_POLICY": "PASSIVE"}
    words = [sys.executable, __file__, "--threads", str(threads), "--voxels", str(arguments.voxels)]
    words += ["--repeats", str(arguments.repeats), "--scene", str(arguments.scene)]
    done = subprocess.run(words, env=environment, stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scene", type=Path, default=ROOT / "examples" / "studio")
    parser.add_argument("--voxels", type=int, default=120_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, help="measure with this many, print JSON and write nothing")
    arguments = parser.parse_args()
    if arguments.threads:
        print(json.dumps(run(arguments.scene, arguments.voxels, arguments.threads, arguments.repeats)))
        return

    import torch

    lines = [
        "# Sparse convolution in plain torch, beside MinkowskiEngine, on the CPU",
        "",
        f"- date: {date.today()}",
        f"- machine: {machine()}, torch {torch.__version__}, MinkowskiEngine 0.5.4 with OpenBLAS",
        f"- load average: {load()}",
        f"- commit: {commit()}",
        f"- scene: {arguments.scene.name}, {arguments.voxels:,} voxels of {VOXEL_SIZE} m; float32, no gradients "
        "unless said",
        "- a ratio above 1: ours is faster. Both in one process, in turns, the least time of each; the same "
        "network and weights, the backend exchanged. Ours applies batch norm in the same pass as the convolution, "
        "MinkowskiEngine cannot.",
        "- OpenMP's threads sleep while they wait (`OMP_WAIT_POLICY=PASSIVE`, as in command and node): spinning "
        "ones, which are the default, cost whole time slices on cores that other programs want too.",
        f"- command: `{command()}`",
    ]
    for threads in (1, 2):
        lines += ["", f"## {threads} thread{'s' if threads > 1 else ''}", "", *table(child(arguments, threads))]
    write_page(RESULTS / "sparse.md", "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
