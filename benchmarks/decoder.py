# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""How fast and how large is the decoder? Ours beside a straightforward dense one with the same parameters.

    python benchmarks/decoder.py [--superpoints 1000 4000] [--queries-2d 2048] [--threads 1]

Each runs in its own process, in turn; memory is the peak beyond what stood before the first call. Writes
docs/results/decoder.md.
"""

from __future__ import annotations

import argparse
import datetime
import multiprocessing
import resource
import time
from dataclasses import dataclass

import torch
from common import RESULTS, command, commit, load, machine, write_page
from dense_decoder import DenseDecoder

from seg3d_core.models.architecture import PUBLISHED
from seg3d_core.models.decoder import Decoder, DecoderInput

_HEADER = """# The decoder: time and memory against a dense twin

- date: {date}
- machine: {machine}, PyTorch {torch}, {threads} thread(s)
- load average: {load}
- commit: {commit}
- what: the six layers of the `scannet200` configuration with random weights, every superpoint a query, {queries} 2D
  object queries; about half of all superpoints are in a query's mask, so nothing is won by small masks
- beside: `benchmarks/dense_decoder.py`, the same parameters with dense attention weights and a dense 2D mask per layer
- command: `{command}`

| superpoints | ours s | dense s | times faster | ours MB | dense MB | times less memory | largest difference |
|---|---|---|---|---|---|---|---|
"""


@dataclass(frozen=True)
class Measured:
    """Seconds of CPU time (all threads) of the best run, peak megabytes, and the mask logits of some queries."""

    seconds: float
    megabytes: float
    sample: torch.Tensor


def room(superpoints: int, queries_2d: int) -> DecoderInput:
    """Superpoints on the floor and walls of a flat of 8 x 6 x 2.6 m, 2D queries beside some of them."""
    draw = torch.Generator().manual_seed(0)
    size = torch.tensor([8.0, 6.0, 2.6])
    positions = torch.rand(superpoints, 3, generator=draw) * size
    flat = torch.randint(0, 3, (superpoints,), generator=draw)
    positions[torch.arange(superpoints), flat] = 0.0
    beside = positions[torch.randint(0, superpoints, (queries_2d,), generator=draw)]
    return DecoderInput(
        torch.randn(superpoints, 96, generator=draw),
        positions,
        positions,
        torch.zeros(3),
        size,
        torch.randn(queries_2d, 256, generator=draw),
        beside + 0.1 * torch.randn(queries_2d, 3, generator=draw),
    )


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(is_dense: bool, superpoints: int, queries_2d: int, threads: int, repeats: int) -> Measured:
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    decoder = Decoder(PUBLISHED["scannet200"]).eval()
    scene = room(superpoints, queries_2d)
    small = room(64, 16)
    run = DenseDecoder(decoder) if is_dense else (lambda s: decoder(s).final.mask_logits)
    with torch.no_grad():
        run(small)
        before, seconds = peak_mb(), []
        for _ in range(repeats):
            begin = time.process_time()
            found = run(scene)
            seconds.append(time.process_time() - begin)
    logits = found[1] if is_dense else found
    return Measured(min(seconds), peak_mb() - before, logits[:: max(len(logits) // 50, 1)].clone())


def in_process(*arguments: object) -> Measured:
    """A fresh process, so that nobody inherits another's peak."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measure, arguments)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--superpoints", type=int, nargs="+", default=[1000, 2000, 4000])
    parser.add_argument("--queries-2d", type=int, default=2048)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=2)
    options = parser.parse_args()
    lines = []
    for count in options.superpoints:
        ours, dense = (
            in_process(is_dense, count, options.queries_2d, options.threads, options.repeats)
            for is_dense in (False, True)
        )
        difference = (ours.sample - dense.sample).abs().max() / dense.sample.abs().max()
        lines.append(
            f"| {count} | {ours.seconds:.2f} | {dense.seconds:.2f} | {dense.seconds / ours.seconds:.1f} "
            f"| {ours.megabytes:.0f} | {dense.megabytes:.0f} | {dense.megabytes / ours.megabytes:.1f} "
            f"| {difference:.0e} |"
        )
        print(lines[-1], flush=True)
    header = _HEADER.format(
        date=datetime.date.today(),
        machine=machine(),
        torch=torch.__version__,
        threads=options.threads,
        load=load(),
        commit=commit(),
        command=command(),
        queries=options.queries_2d,
    )
    note = "\nSeconds are CPU time of the better run. The difference is relative, of a sample of mask logits.\n"
    write_page(RESULTS / "decoder.md", header + "\n".join(lines) + "\n" + note)


if __name__ == "__main__":
    main()
