# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""How fast training goes on a prepared cache, and where the time goes.

    python benchmarks/training_speed.py CACHE --features mobile_sam [--recipe small] [--scenes 12] [--device cpu|cuda]

Each training scene is loaded and learned from once, by one thread; times are medians over the scenes, of the CPU, and
of steps on a GPU by the clock. Prints the tables and writes docs/results/training_speed.md, of a GPU
training_speed_gpu.md (or `--out`).
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import RESULTS, Clock, about, timer, write_page

from seg3d_core.models.backbones.scene import point_features
from seg3d_core.models.segdino3d import SegDino3D
from seg3d_core.models.sparse import distinct_voxels, find_backend
from training.collate import Batch, collate
from training.config import TrainingConfig, build, change
from training.dataset import make_scene
from training.evaluate import training_data
from training.learner import Learner
from training.processes import Processes
from training.readers_cache import read_scene
from training.readers_features import read_features

_TURNS = 3


def allocator() -> str:
    keeps = "MALLOC_MMAP_THRESHOLD_" in os.environ and "MALLOC_TRIM_THRESHOLD_" in os.environ
    return f"The C library {'keeps' if keeps else 'gives back'} the memory of large arrays (training/runs/smoke_cpu.sh)"


def measure(config: TrainingConfig, count: int) -> tuple[Clock, list[int], list[int]]:
    """Times of loading and of a step, over `count` scenes; their points and superpoints."""
    data, device = training_data(config), config.run.device
    times = Clock(timer(device))
    backend = find_backend(config.model.sparse_backend, config.model.backbone)
    model = SegDino3D(config.architecture(), sparse_backend=backend).to(device)
    learner = Learner(model, config, 10_000, Processes.join(device))
    learner.step([collate([data[0]]).to(device)], 0)
    points, superpoints = [], []
    for number, name in enumerate(data.names[:count]):
        with times.part("load: read points and labels"):
            cached = read_scene(data.root / "scenes" / f"{name}.npz")
        with times.part("load: read 2D features"):
            features = read_features(data.root, config.data.features, name, len(cached.xyz))
        with times.part("load: augment, and make targets"):
            scene = make_scene(name, cached, features, data.classes, config.data, data.random(number))
        _step(learner, collate([scene]), number, times)
        points.append(len(scene.xyz))
        superpoints.append(scene.superpoint_count)
    return times, points, superpoints


def _step(learner: Learner, batch: Batch, number: int, times: Clock) -> None:
    model, config = learner.model.train(), learner.config
    with times.part("step: to the device, features at single precision"):
        batch = batch.to(learner.processes.device)
        inputs, scene = batch.inputs, batch.scenes[0]
    assert scene.targets is not None
    with torch.autocast(config.run.device, torch.bfloat16, enabled=config.optimiser.precision == "bf16"):
        with times.part("step: voxels, 3D network and superpoints, forward"):
            (encoded,) = model.encode(inputs)
        with times.part("step: decoder, forward"):
            (queries,) = learner.draw(batch, number, 0)
            output = model.decoder(encoded, queries, True)
    with times.part("step: matching and losses"):
        loss = learner.criterion([output.float()], [scene.targets])
    with times.part("step: backward"):
        loss.total.backward()
    with times.part("step: clipping and AdamW"):
        learner.update(number, {})


def least(call: Callable[[], Any]) -> float:
    """CPU seconds, the least of a few turns."""
    found = []
    for _ in range(_TURNS):
        begin = time.process_time()
        call()
        found.append(time.process_time() - begin)
    return min(found)


def largest_part(config: TrainingConfig) -> list[str]:
    """What was done about the largest part, each way timed on one scene."""
    data = training_data(config)
    scene = max((data[i] for i in range(min(len(data), 4))), key=lambda each: len(each.xyz))
    points = scene.inputs.points
    cells = torch.nn.functional.pad((points.xyz / config.data.voxel_size).floor().long(), (1, 0))
    rows = distinct_voxels(cells)[1]
    order = rows.argsort(stable=True)
    begins = torch.nn.functional.pad(torch.bincount(rows).cumsum(0), (1, 0))

    def means(values: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.embedding_bag(order, values, begins, mode="mean", include_last_offset=True)

    columns = [points.colours, points.xyz, *([] if points.image_features is None else [points.image_features])]
    pairs = [
        (
            "distinct voxels",
            "rows compared (`torch.unique(dim=0)`)",
            lambda: torch.unique(cells, dim=0, return_inverse=True),
        ),
        ("", "one integer a row", lambda: distinct_voxels(cells)),
        ("voxel means", "columns joined, then averaged", lambda: means(point_features(points, "spconv"))),
        ("", "averaged, then joined", lambda: torch.cat([means(part) for part in columns], dim=1)),
    ]
    lines = [f"On one scene of {len(points.xyz)} points, {int(rows.max()) + 1} voxels:", ""]
    lines += ["| what | how | CPU ms |", "|---|---|---|"]
    return lines + [f"| {what} | {how} | {1000 * least(call):.1f} |" for what, how, call in pairs]


VARIANTS: dict[str, dict[str, Any]] = {
    "as the recipe says": {},
    "all queries drawn (`run.most_queries=0`)": {"run.most_queries": 0},
    "five levels of two blocks, as published": {"model.levels": 5, "model.blocks": 2},
    "voxels of 2 cm, as published": {"data.voxel_size": 0.02},
}
GPU_VARIANTS: dict[str, dict[str, Any]] = {
    "sparse convolutions by plain torch (`model.sparse_backend=torch`)": {"model.sparse_backend": "torch"},
    "bf16 (`optimiser.precision=bf16`)": {"optimiser.precision": "bf16"},
}


def variants(config: TrainingConfig, count: int) -> list[str]:
    """A step of the recipe, and of what it leaves out."""
    is_gpu = config.run.device == "cuda"
    lines = [f"| a step | {'ms by the clock' if is_gpu else 'CPU ms'} a scene |", "|---|---|"]
    for title, values in {**VARIANTS, **(GPU_VARIANTS if is_gpu else {})}.items():
        times, _, _ = measure(change(config, values), count)
        whole = sum(times.median(name) for name in times.seconds if name.startswith("step"))
        lines.append(f"| {title} | {1000 * whole:.0f} |")
    return lines


def page(config: TrainingConfig, times: Clock, points: list[int], superpoints: list[int]) -> str:
    names, is_gpu = list(times.seconds), config.run.device == "cuda"
    gpu, kind = (f"{torch.cuda.get_device_name()}, ", "ms by the clock") if is_gpu else ("", "CPU ms")
    total = {kind: sum(times.median(n) for n in names if n.startswith(kind)) for kind in ("load", "step")}
    lines = [
        "# How fast training goes",
        "",
        about(f"{gpu}PyTorch {torch.__version__}, one thread", with_load=True),
        f"{allocator()}.",
        "",
        f"Recipe `{config.recipe}`, {len(points)} scenes of {np.median(points):.0f} points and "
        f"{np.median(superpoints):.0f} superpoints (medians), one scene a step. Medians of {kind}: "
        "scenes a second are those of one core on which nobody else is at work.",
        "",
        f"| part | {kind} a scene | share |",
        "|---|---|---|",
    ]
    everything = sum(total.values())
    lines += [f"| {n} | {1000 * times.median(n):.0f} | {times.median(n) / everything:.0%} |" for n in names]
    lines += [
        f"| **loading** | **{1000 * total['load']:.0f}** | **{1 / total['load']:.1f} scenes/s** |",
        f"| **a step** | **{1000 * total['step']:.0f}** | **{1 / total['step']:.1f} scenes/s** |",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("cache")
    parser.add_argument("--features", required=True)
    parser.add_argument("--recipe", default="small")
    parser.add_argument("--scenes", type=int, default=12)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    values = {"data.root": options.cache, "data.features": options.features, "run.device": options.device}
    config = build(values, options.recipe)
    text = page(config, *measure(config, options.scenes))
    parts = [] if options.device == "cuda" else [*largest_part(config), ""]
    parts += [*variants(config, max(options.scenes // 3, 1)), ""]
    text += "\n".join(["", "## What was done about the largest parts", "", *parts])
    write_page(options.out or RESULTS / f"training_speed{'_gpu' if options.device == 'cuda' else ''}.md", text)


if __name__ == "__main__":
    main()
