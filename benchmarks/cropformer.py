# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Seconds per 320x240 frame of the built-in CropFormer and its plain Mask2Former, part by part.

    python benchmarks/cropformer.py [--cases hornet:plain:240 hornet:crops:240 ...] [--device cpu|cuda] [--out FILE]

A case is backbone (hornet, swin), plain or crops, short side. Weights are random, which costs what trained ones cost
except in post-processing; there `--masks` (100) queries of random smooth masks compete for the pixels. On a CPU one
core's time is counted, on a GPU the clock, with bfloat16 where the release's own code would allow it. Prints a table
and writes docs/results/cropformer.md, of a GPU cropformer_gpu.md (or `--out`).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from common import RESULTS, about, timer, write_page

from seg3d_core.perception.cropformer import images, postprocess
from seg3d_core.perception.cropformer.decoder import Predictions
from seg3d_core.perception.cropformer.hornet import HorNetShape
from seg3d_core.perception.cropformer.network import EntityNetwork, NetworkShape
from seg3d_core.perception.cropformer.swin import SwinShape

HEIGHT, WIDTH = 240, 320
CASES = [f"swin:{kind}:240" for kind in ("plain", "crops")]
CASES += [f"hornet:{case}" for case in ("plain:240", "crops:240", "plain:480", "plain:800")]


def random_network(backbone: str, crops: bool, device: str) -> EntityNetwork:
    shapes = {"hornet": NetworkShape(HorNetShape(), associates=crops)}
    shapes["swin"] = NetworkShape(SwinShape(), queries=100, associates=crops)
    with torch.device("meta"):
        network = EntityNetwork(shapes[backbone])
    network = network.to_empty(device=device).eval().requires_grad_(False)
    torch.manual_seed(0)
    for parameter in network.parameters():
        if parameter.dim() > 1:
            parameter.normal_(0, parameter[0].numel() ** -0.5)
        else:
            parameter.fill_(1.0)
    return network


def seconds(function: Callable[[], object], device: str) -> tuple[float, object]:
    """The better of two runs after a first one; and the result."""
    result, best, now = function(), float("inf"), timer(device)
    for _ in range(2):
        start = now()
        result = function()
        best = min(best, now() - start)
    return best, result


def claim(views: list[images.View], padded: tuple[int, int], crops: bool, count: int, device: str) -> int:
    """Post-processing of `count` smooth random masks that leave some pixels free."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(len(views), 256, 8, 10, generator=generator)
    features = torch.nn.functional.interpolate(coarse, size=(padded[0] // 4, padded[1] // 4), mode="bilinear")
    features = torch.cat([features, torch.ones(len(views), 1, *features.shape[2:])], 1)
    vectors = torch.cat([0.3 * torch.randn(count, 256, generator=generator), torch.full((count, 1), -6.0)], 1)
    logits = torch.tensor([3.0, -3.0]).expand(count, 2)
    found = Predictions(*(each.to(device) for each in (logits, vectors, vectors, features)))
    queries, p = postprocess.candidates(found.class_logits, 0.25, None)
    upsample = (
        postprocess.crops_upsampler(found.mask_logits, padded, views)
        if crops
        else postprocess.image_upsampler(found.mask_logits, padded, views[0])
    )
    return len(
        postprocess.claim(queries, p, upsample, (HEIGHT, WIDTH), is_probability=crops, scoring="published").areas
    )


def row(case: str, masks: int, device: str) -> str:
    backbone, kind, side = case.split(":")
    crops = kind == "crops"
    network = random_network(backbone, crops, device)
    head = network.sem_seg_head
    rgb = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
    views = images.views_of(rgb, crops, int(side))
    batch = images.network_input(rgb, views).to(device)
    padded = (int(batch.shape[2]), int(batch.shape[3]))
    with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
        first, maps = seconds(lambda: network.backbone(batch), device)
        second, pixels = seconds(lambda: head.pixel_decoder(maps), device)
        third, _ = seconds(lambda: head.predictor(*pixels), device)
    fourth, _ = seconds(lambda: claim(views, padded, crops, masks, device), device)
    times = (first, second, third, fourth, first + second + third + fourth)
    cells = [f"{backbone}, {kind}", side, f"{len(views)} x {padded[0]} x {padded[1]}", *(f"{t:.3f}" for t in times)]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", default=CASES)
    parser.add_argument("--masks", type=int, default=100, help="queries that compete in post-processing")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    on_gpu = arguments.device == "cuda"
    where = f"{torch.cuda.get_device_name()}, bfloat16, by the clock" if on_gpu else "One core, CPU time"
    lines = [
        "# Seconds of CropFormer per 320x240 frame",
        "",
        about(f"torch {torch.__version__}"),
        f"{where}; random weights, {arguments.masks} masks.",
        "",
        "| network | short side | input | backbone | pixel decoder | decoder | post-processing | all |",
        "|---|---|---|---|---|---|---|---|",
    ]
    with torch.inference_mode():
        for case in arguments.cases:
            lines.append(row(case, arguments.masks, arguments.device))
            print(lines[-1], flush=True)
    write_page(arguments.out or RESULTS / f"cropformer{'_gpu' if on_gpu else ''}.md", "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
