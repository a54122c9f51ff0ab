# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""The trained core on a GPU: sparse layers, U-Net, the whole ScanNet200 network, and training steps.

    python benchmarks/gpu.py [--voxels 120000] [--superpoints 2000] [--path examples/studio] [--out docs/results/gpu.md]

Voxels are those of a scanned flat, weights random. Times are medians by the GPU's own clock; each sparse backend runs
in turn in one process, and its numbers are compared with those of float32 on the CPU. Memory is the most that
PyTorch's allocator held.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import RESULTS, ROOT, about, table, write_page
from scipy.spatial import cKDTree
from sparse import VOXEL_SIZE, scene
from torch import Tensor

from seg3d_core.config import SegDino3DConfig
from seg3d_core.models.architecture import PUBLISHED
from seg3d_core.models.backbones import MinkUNet, SpConvUNet
from seg3d_core.models.segdino3d import SceneInput, SegDino3D, prepare_scene, segment
from seg3d_core.models.sparse import (
    Backend,
    CoordinateSet,
    SparseTensor,
    StridedConvolution,
    SubmanifoldConvolution,
    TransposedConvolution,
    find_backend,
)
from training.collate import collate
from training.config import build
from training.dataset import Targets, TrainingScene, instance_boxes
from training.learner import Learner
from training.processes import Processes

BACKENDS = ("torch", "triton")
LAYERS = [
    ("narrow, 3x3x3", SubmanifoldConvolution, 3, 32, 32),
    ("wide, 3x3x3", SubmanifoldConvolution, 3, 96, 96),
    ("stem on image features, 5x5x5", SubmanifoldConvolution, 5, 259, 32),
    ("down, 2x2x2", StridedConvolution, 2, 32, 32),
    ("up, 2x2x2", TransposedConvolution, 2, 96, 96),
]
# Sparse backend, name of the numbers, how torch multiplies single precision, what the recipe says.
TRAININGS = [
    ("torch", "float32", "highest", "float32"),
    ("triton", "float32", "highest", "float32"),
    ("triton", "TF32", "high", "float32"),
    ("triton", "bf16", "highest", "bf16"),
]
DEVICE = "cuda"
THINGS = 30  # in the made-up annotation of the flat


@dataclass(frozen=True)
class Numbers:
    """How products of single precision are made, and what a network computes in."""

    name: str
    matmul: str = "highest"
    autocast: torch.dtype | None = None

    @contextmanager
    def chosen(self) -> Iterator[None]:
        torch.set_float32_matmul_precision(self.matmul)
        with torch.autocast(DEVICE, self.autocast or torch.bfloat16, enabled=self.autocast is not None):
            yield
        torch.set_float32_matmul_precision("highest")


FLOAT32, TF32 = Numbers("float32"), Numbers("TF32", "high")
HALF = Numbers("half", autocast=torch.float16)


def milliseconds(function: Callable[[], object], repeats: int = 10) -> float:
    """The median by the GPU's clock, after two runs."""
    for _ in range(2):
        function()
    times = []
    for _ in range(repeats):
        torch.cuda.synchronize()
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        function()
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end))
    return float(np.median(times))


def megabytes(function: Callable[[], object]) -> float:
    """The most that was allocated at once, with what stood before."""
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    function()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() / 1e6


def difference(found: Tensor, wanted: Tensor) -> str:
    """Relative, by norms."""
    found, wanted = found.double().cpu(), wanted.double().cpu()
    return f"{float((found - wanted).norm() / wanted.norm()):.1e}"


def layers(indices: Tensor) -> str:
    rows = []
    for what, kind, size, channels_in, channels_out in LAYERS:
        torch.manual_seed(0)
        layer = kind(channels_in, channels_out, size).to(DEVICE)
        for numbers in (FLOAT32, TF32, HALF):
            cells = []
            for name in BACKENDS:
                forward, step = layer_calls(layer, indices, find_backend(name, "minkowski"), channels_in)
                with numbers.chosen():
                    with torch.no_grad():
                        cells.append(milliseconds(forward))
                    cells.append(milliseconds(step))
            ratios = [f"{cells[i] / cells[i + 2]:.1f}" for i in (0, 1)]
            rows.append([what, f"{channels_in} to {channels_out}", numbers.name, *(f"{c:.2f}" for c in cells), *ratios])
    head = [
        "layer",
        "channels",
        "numbers",
        "torch ms",
        "with gradients",
        "triton ms",
        "with gradients",
        "times",
        "times",
    ]
    return table(head, rows)


def layer_calls(
    layer: Any, indices: Tensor, backend: Backend, channels: int
) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Forward, and forward with backward, on maps that are at hand."""
    voxels = CoordinateSet(indices)
    x = SparseTensor(torch.randn(len(indices), channels, device=DEVICE), voxels, backend)
    if isinstance(layer, TransposedConvolution):
        parents = backend.parents(voxels, layer.size)
        coarse = torch.randn(len(parents), channels, device=DEVICE)

        def forward(features: Tensor = coarse) -> Tensor:
            return layer(SparseTensor(features, parents, backend), x).features

        given = coarse
    else:

        def forward(features: Tensor = x.features) -> Tensor:
            return layer(x.replace(features)).features

        given = x.features

    def step() -> None:
        y = forward(given.detach().requires_grad_())
        y.backward(torch.ones_like(y))

    return forward, step


def networks(indices: Tensor) -> str:
    """U-Nets of both families on image features."""
    rows = []
    indices = indices - torch.cat([indices[:1, :1] * 0, indices[:, 1:].amin(dim=0, keepdim=True)], dim=1)
    extents = tuple(max(int(value) + 1, 128) for value in indices[:, 1:].amax(dim=0))
    for title, make, channels, bounds in (
        ("Minkowski U-Net", MinkUNet, 259, None),
        ("spconv U-Net", SpConvUNet, 262, extents),
    ):
        torch.manual_seed(0)
        network = make(channels).eval()
        features = torch.randn(len(indices), channels)
        with torch.no_grad():
            wanted = network(SparseTensor(features, CoordinateSet(indices.cpu(), extents=bounds))).features
        network, features = network.to(DEVICE), features.to(DEVICE)
        for name in BACKENDS:
            backend = find_backend(name, network.convention)
            for numbers in (FLOAT32, TF32, HALF):
                kept = CoordinateSet(indices, extents=bounds)

                def run(voxels: CoordinateSet | None = kept, network: Any = network, features: Tensor = features,
                        backend: Backend = backend, bounds: Any = bounds) -> Tensor:  # fmt: skip
                    voxels = voxels or CoordinateSet(indices, extents=bounds)
                    return network(SparseTensor(features, voxels, backend)).features

                with torch.no_grad(), numbers.chosen():
                    found = run()
                    anew, at_hand = milliseconds(lambda run=run: run(None)), milliseconds(run)
                    memory = megabytes(lambda run=run: run(None))
                    times = [f"{anew:.1f}", f"{at_hand:.1f}", f"{memory:.0f}"]
                    rows.append([title, name, numbers.name, *times, difference(found, wanted)])
    return table(["network", "sparse", "numbers", "ms, maps made anew", "ms, maps at hand", "MB", "difference"], rows)


def flat(path: Path, voxels: int, superpoints: int, objects: int) -> dict[str, Any]:
    """Points in the voxels of a scanned flat, about 1.3 a voxel, superpoints about random seeds, 2D features drawn."""
    random = np.random.default_rng(0)
    cells = scene(path, voxels)[:, 1:]
    cells = np.concatenate([cells, cells[random.random(len(cells)) < 0.3]])
    xyz = ((cells + random.random(cells.shape)) * VOXEL_SIZE).astype(np.float32)
    seeds = xyz[random.choice(len(xyz), superpoints, replace=False)]
    ids = cKDTree(seeds).query(xyz)[1]
    centres = xyz[random.choice(len(xyz), objects, replace=False)]
    arrays = {
        "xyz": xyz,
        "rgb": random.uniform(0, 255, xyz.shape).astype(np.float32),
        "superpoints": ids.astype(np.int64),
        "image_features": random.normal(size=(len(xyz), 256)).astype(np.float32),
        "queries_2d": random.normal(size=(objects, 256)).astype(np.float32),
        "query_2d_positions": centres,
    }
    return {name: torch.from_numpy(values).to(DEVICE) for name, values in arrays.items()}


def whole(arrays: dict[str, Any]) -> str:
    """The published networks from points on the GPU to instances on it."""
    rows = []
    for recipe in ("scannet200", "scannetv2"):
        architecture = PUBLISHED[recipe]
        for name in BACKENDS:
            torch.manual_seed(0)
            model = SegDino3D(architecture, sparse_backend=find_backend(name, architecture.backbone)).eval().to(DEVICE)
            for numbers in (FLOAT32, TF32, HALF):
                settings = SegDino3DConfig(precision="half" if numbers is HALF else "float32")

                def run(model: Any = model, settings: SegDino3DConfig = settings) -> object:
                    return segment(model, prepare_scene(**arrays), settings)

                with torch.no_grad(), numbers.chosen():
                    given: SceneInput = prepare_scene(**arrays)
                    (encoded,) = model.encode([given])
                    encode = milliseconds(lambda model=model, given=given: model.encode([given]))
                    decode = milliseconds(lambda model=model, encoded=encoded: model.decoder(encoded))
                    everything, memory = milliseconds(run), megabytes(run)
                times = [f"{encode:.1f}", f"{decode:.1f}", f"{everything:.1f}", f"{memory / 1000:.2f}"]
                rows.append([recipe, name, numbers.name, *times])
    head = ["network", "sparse", "numbers", "points to superpoints ms", "decoder ms", "all, with instances ms", "GB"]
    return table(head, rows)


def annotated(arrays: dict[str, Any], classes: int, name: str) -> TrainingScene:
    """The flat as a training scene: a thing is superpoints drawn at random."""
    ids = arrays["superpoints"]
    count = int(ids.max()) + 1
    generator = torch.Generator().manual_seed(0)
    owner = (torch.randperm(count, generator=generator) % THINGS).to(DEVICE)
    masks = owner[None, :] == torch.arange(THINGS, device=DEVICE)[:, None]
    labels = torch.randint(0, classes, (THINGS,), generator=generator).to(DEVICE)
    points = owner[ids]
    xyz = arrays["xyz"]
    middle, extent = instance_boxes(xyz, points, THINGS)
    semantic = labels[owner] + 2
    targets = Targets(labels, masks, semantic, middle, extent, points, semantic[ids])
    warped = xyz / VOXEL_SIZE
    return TrainingScene(
        name, xyz, arrays["rgb"], ids, arrays["image_features"].half(), arrays["queries_2d"],
        arrays["query_2d_positions"], warped, targets,
    )  # fmt: skip


def steps(arrays: dict[str, Any]) -> str:
    """A training step of the published recipes, all of it but loading."""
    rows = []
    for recipe, scenes in (("scannet200", 1), ("scannet200", 4), ("scannetv2", 1), ("scannetv2", 4)):
        for name, kind, matmul, precision in TRAININGS:
            torch.manual_seed(0)
            torch.set_float32_matmul_precision(matmul)
            config = build({"optimiser.precision": precision, "model.sparse_backend": name}, recipe)
            architecture = config.architecture()
            model = SegDino3D(architecture, sparse_backend=find_backend(name, architecture.backbone)).to(DEVICE)
            learner = Learner(model, config, 10_000, Processes.join(DEVICE))
            batch = collate([annotated(arrays, architecture.thing_classes, f"flat {i}") for i in range(scenes)])
            losses = []

            def run(learner: Learner = learner, batch: Any = batch, losses: list[float] = losses) -> None:
                parts, _ = learner.step([batch], len(losses))
                losses.append(parts["total"])

            spent, memory = milliseconds(run, 5), megabytes(run)
            assert all(math.isfinite(loss) for loss in losses)
            fell = f"{losses[0]:.1f} to {losses[-1]:.1f}"
            rate = f"{1000 * scenes / spent:.1f}"
            rows.append([recipe, scenes, name, kind, f"{spent:.0f}", rate, f"{memory / 1000:.1f}", fell])
            torch.set_float32_matmul_precision("highest")
            del learner, model
    head = ["recipe", "scenes a step", "sparse", "numbers", "ms a step", "scenes/s", "GB", "loss, first and last"]
    return table(head, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--path", type=Path, default=ROOT / "examples" / "studio")
    parser.add_argument("--voxels", type=int, default=120_000)
    parser.add_argument("--superpoints", type=int, default=2000)
    parser.add_argument("--objects", type=int, default=2048, help="2D object queries")
    parser.add_argument("--out", type=Path, default=RESULTS / "gpu.md")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("PyTorch sees no GPU here")
    indices = torch.from_numpy(scene(arguments.path, arguments.voxels)).to(DEVICE)
    arrays = flat(arguments.path, arguments.voxels, arguments.superpoints, arguments.objects)
    points = len(arrays["xyz"])
    lines = [
        "# The trained core on a GPU",
        "",
        about(f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}"),
        "",
        f"{arguments.path.name}, {arguments.voxels:,} voxels of {VOXEL_SIZE} m, {points:,} points, "
        f"{arguments.superpoints:,} superpoints, {arguments.objects:,} 2D object queries; random weights. "
        "`TF32` is `torch.set_float32_matmul_precision('high')`. Differences are from float32 on the CPU, relative.",
    ]
    for title, measured in (
        ("U-Nets", lambda: networks(indices)),
        ("The whole network", lambda: whole(arrays)),
        ("Training steps", lambda: steps(arrays)),
        ("Layers", lambda: layers(indices)),
    ):
        lines += ["", f"## {title}", "", measured()]
        print("\n".join(lines[-4:]), flush=True)
    write_page(arguments.out, "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
