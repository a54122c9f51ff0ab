# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Seconds per keyframe of each profile's 2D models: encoder, decoder, post-processing, and features of crops.

    python benchmarks/perception.py [--path examples/studio] [--frames 12] [--size 640x480] [--device cpu|cuda]

Profiles whose weights are here are run; CropFormer, which `paper-re0` takes, has a table of its own (cropformer.py).
On a CPU one thread is used and its CPU time counted, on a GPU the clock. Prints a table and writes
docs/results/perception.md (or `--out`).
"""

from __future__ import annotations

import argparse
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from common import RESULTS, ROOT, Clock, about, enlarged, table, timer, write_page

from seg3d_core import readiness
from seg3d_core.build import build_encoder
from seg3d_core.config import Config, build
from seg3d_core.errors import WeightsError
from seg3d_core.perception import weights
from seg3d_core.perception.base import MaskGenerator
from seg3d_core.perception.geometric import GeometricMasks
from seg3d_core.perception.mobile_sam import backends, generator
from seg3d_core.sources.guess import open_source
from seg3d_core.types import Frame, Masks2D

ROWS = (
    ("cpu-geometric", {}),
    ("cpu", {}),
    ("cpu", {"perception.sam_side": 768}),
    ("cpu", {"perception.sam_side": 1024}),
    ("gpu", {}),
)
PARTS = ("depth segments", "encoder", "decoder", "post-processing")
CROPS = 8


class Timed:
    """A backend of MobileSAM whose steps are timed."""

    def __init__(self, backend: backends.Backend, clock: Clock):
        self._backend, self._clock = backend, clock
        self.name, self.batch = backend.name, backend.batch

    def encode(self, image: torch.Tensor) -> Any:
        with self._clock.part("encoder"):
            return self._backend.encode(image)

    def decode(self, embedding: Any, sparse: torch.Tensor) -> Any:
        with self._clock.part("decoder"):
            return self._backend.decode(embedding, sparse)


class TimedSegments:
    """Masks of depth alone, timed; MobileSAM is prompted by them."""

    id, chooses_keyframes = "depth", False

    def __init__(self, config: Config, clock: Clock):
        self._masks, self._clock = GeometricMasks(config.perception), clock

    def masks(self, frame: Frame) -> Masks2D:
        with self._clock.part("depth segments"):
            return self._masks.masks(frame)


def measure(config: Config, frames: list[Frame], clock: Clock) -> tuple[list[dict[str, float]], str]:
    """Seconds by part of each frame, and who ran the network. A frame before warms up and is not counted."""
    segments, choose, names = TimedSegments(config, clock), backends.choose_backend, []
    model: MaskGenerator = segments
    if config.perception.masks != "geometric":
        model = generator.load(config.perception, config.query.weights_dir, segments)

        def chosen(*arguments: Any) -> Timed:
            backend = choose(*arguments)
            names.append(backend.name)
            return Timed(backend, clock)

        generator.choose_backend = chosen
    rows = []
    # Not the first one twice: MobileSAM keeps the embedding of the frame before.
    for frame in [frames[-1], *frames]:
        start = clock.now()
        model.masks(frame)
        whole, found = clock.now() - start, clock.take()
        rows.append({**found, "post-processing": whole - sum(found.values())} if model is not segments else found)
    generator.choose_backend = choose
    return rows[1:], ", ".join(dict.fromkeys(names)) or "numba"


def table_row(profile: str, changes: dict[str, Any], rows: list[dict[str, float]], who: str) -> list[str]:
    parts = {name: np.median([row.get(name, 0.0) for row in rows]) for name in PARTS}
    total = np.median([sum(row.values()) for row in rows])
    what = ", ".join(f"{name}={value}" for name, value in changes.items()) or "as it is"
    cells = [f"{1000 * parts[name]:.0f}" if parts[name] else "" for name in PARTS]
    return [f"`{profile}`", what, who, *cells, f"{total:.3f}"]


def crops_text(frames: list[Frame], clock: Clock) -> str:
    """What the features of one crop cost, by the encoder that is here."""
    encoder = build_encoder(build())
    if encoder is None:
        return "No text encoder is here."
    side = min(frames[0].rgb.shape[:2]) // 2
    crops = [frame.rgb[:side, :side] for frame in frames[:CROPS]]
    encoder.encode_images(crops)
    start = clock.now()
    encoder.encode_images(crops)
    each = (clock.now() - start) / len(crops)
    return (
        f"Features of one crop, computed when asked or ahead in the text thread, by {encoder.id}: {1000 * each:.0f} ms."
    )


def read_frames(path: str, count: int, size: tuple[int, int]) -> list[Frame]:
    source = open_source(path)
    step = max(1, len(source) // count)
    return [enlarged(frame, *size) for frame in islice(source, 0, count * step, step)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--path", default=str(ROOT / "examples" / "studio"))
    parser.add_argument("--frames", type=int, default=12)
    parser.add_argument("--size", default="640x480")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--out", type=Path, default=RESULTS / "perception.md")
    arguments = parser.parse_args()
    if arguments.device == "cpu":
        torch.set_num_threads(1)
        cv2.setNumThreads(1)
        backends.network_threads = lambda: 1
    size = tuple(map(int, arguments.size.split("x")))
    frames, clock = read_frames(arguments.path, arguments.frames, size), Clock(timer(arguments.device))
    rows, notes = [], []
    for profile, changes in ROWS:
        if profile == "gpu" and arguments.device == "cpu":
            notes.append("The profile `gpu` is left open: `python benchmarks/perception.py --device cuda` on a GPU.")
            continue
        config = build({**changes, "perception.device": arguments.device, "query.encoder": "none"}, profile)
        missing = readiness.missing_parts(config)
        if missing:
            notes.append(f"`{profile}` was not run: {'; '.join(missing)}.")
            continue
        rows.append(table_row(profile, changes, *measure(config, frames, clock)))
        print(*rows[-1], flush=True)
    notes.append("CropFormer, the masks of `paper-re0`, on random weights: [cropformer.md](cropformer.md).")
    try:
        notes.append(crops_text(frames, clock))
    except WeightsError as error:
        notes.append(f"Features of crops were not timed: {error}.")
    kind = "clock" if arguments.device == "cuda" else "CPU time of one thread"
    heading = ["profile", "settings", "network run by", *(f"{part} (ms)" for part in PARTS), "in all (s)"]
    text = [
        "# Seconds per keyframe of the 2D models",
        "",
        about(with_load=True),
        f"{len(frames)} frames of {Path(arguments.path).name} at {arguments.size}, "
        f"medians, {kind}. MobileSAM's file has SHA-256 {weights.RECORDS['mobile_sam'].sha256[:12]}...",
        "",
        table(heading, rows),
        "",
        "\n\n".join(notes),
    ]
    write_page(arguments.out, "\n".join(text) + "\n")


if __name__ == "__main__":
    main()
