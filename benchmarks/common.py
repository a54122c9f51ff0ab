# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""What every page of results is made of: when, where, from which commit and by which command; tables, times, frames."""

from __future__ import annotations

import datetime
import os
import platform
import shlex
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from seg3d_core.types import Frame

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results"


def machine() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    return f"{os.cpu_count()} cores of {name}, Python {platform.python_version()}"


def commit() -> str:
    """Short hash, with `-dirty` where something other than the results differs from it."""
    git = ["git", "-C", str(ROOT)]
    done = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    if done.returncode:
        return "unknown"
    changed = [*git, "status", "--porcelain", "--", ".", ":!docs/results"]
    is_dirty = subprocess.run(changed, capture_output=True, text=True, check=False).stdout.strip()
    return done.stdout.strip() + ("-dirty" if is_dirty else "")


def load() -> str:
    return f"{os.getloadavg()[0]:.1f}; above {os.cpu_count()}, others were at work too: compare CPU times"


def command() -> str:
    """The command that runs, to be typed again. Of absolute paths the last name: the rest is of this machine."""
    words = [Path(word).name if word.startswith("/") else word for word in sys.argv[1:]]
    return shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *words])


def about(besides: str = "", with_load: bool = False) -> str:
    """The line under a page's title; `besides` is what else the numbers were made with."""
    parts = [datetime.date.today().isoformat(), machine(), *([besides] if besides else []), f"commit {commit()}"]
    loaded = f"; load average {load()}" if with_load else ""
    return f"{', '.join(parts)}{loaded};\nwritten by `{command()}`."


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """In Markdown."""
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *(f"| {' | '.join(map(str, row))} |" for row in rows)])


def percents(values: Iterable[float]) -> str:
    """Fractions of 1, such as AP, AP50 and AP25, in one cell."""
    return " / ".join(f"{100 * value:.1f}" for value in values)


def write_page(path: Path, text: str) -> None:
    """And shows it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    print(text)


def timer(device: str) -> Callable[[], float]:
    """Reads seconds: of the CPU; where a GPU works (`cuda`), by the clock once it is done."""
    if device == "cpu":
        return time.process_time
    import torch

    def now() -> float:
        torch.cuda.synchronize()
        return time.perf_counter()

    return now


class Clock:
    """Seconds by part, one value for each time that it ran: of the CPU, or by the clock where a GPU works."""

    def __init__(self, now: Callable[[], float] = time.process_time):
        self.now = now
        self.seconds: dict[str, list[float]] = defaultdict(list)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        start = self.now()
        try:
            yield
        finally:
            self.seconds[name].append(self.now() - start)

    def median(self, name: str) -> float:
        return float(np.median(self.seconds[name]))

    def take(self) -> dict[str, float]:
        """The sum of each part since the last call."""
        sums = {name: sum(values) for name, values in self.seconds.items()}
        self.seconds.clear()
        return sums


def enlarged(frame: Frame, width: int, height: int) -> Frame:
    """The frame at another size. Inverse depth is interpolated, which is exact on planes; across depth edges
    the nearest pixel is taken, so that none lies between two surfaces. Rounded to millimetres, as sensors do."""
    if frame.camera.size == (width, height):
        return frame
    depth, kernel = frame.depth, np.ones((3, 3), np.uint8)
    nearest = cv2.resize(depth, (width, height), interpolation=cv2.INTER_NEAREST)
    with np.errstate(divide="ignore"):
        inverse = cv2.resize(np.where(depth > 0, 1 / depth, 0), (width, height), interpolation=cv2.INTER_LINEAR)
    is_edge = cv2.dilate(depth, kernel) > 1.05 * cv2.erode(depth, kernel)
    is_edge = cv2.resize(is_edge.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST) > 0
    smooth = np.where(is_edge | (inverse <= 0), nearest, 1 / np.maximum(inverse, 1e-6))
    return replace(
        frame,
        depth=(np.rint(smooth * 1000) / 1000).astype(np.float32),
        rgb=cv2.resize(frame.rgb, (width, height), interpolation=cv2.INTER_LINEAR),
        camera=frame.camera.scaled(width, height),
    )
