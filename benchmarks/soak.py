# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Frames for an hour: does memory stay, does latency, do ids?

    python benchmarks/soak.py [--minutes 60] [--rate 5] [--scenes PATH...] [--masks geometric] [--ros] [--out DIR]

A stream that starts over: the scenes one after the other, each in a place of its own, then simulated time jumps back
and all comes anew, but for a box in each scene that has moved meanwhile. Frames go through the runtime of the node, or
with `--ros` over topics into the real node. Every few seconds: resident memory, p95 of each stage, instances; after
each lap, how many things still have the id that they had a lap before. Writes soak.md, soak.json and soak.png, with
`--ros` soak_ros; ends with 1 where memory grows by more than `--limit` MB per 10 minutes (`grows`) or over 1 % of ids
changed.

Memory is judged between laps, after a rest in which the runtime gives back what was freed, and when nothing runs: a
segmentation takes a few hundred MB for a second, and what the samples catch of that is chance. Beside it stands what
is held: what was asked of the C library and not freed. Resident memory is that and how the heaps lie, which differs by
tens of MB from lap to lap; a leak is in both.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from common import RESULTS, ROOT, about, table, write_page
from scipy.stats import linregress

from seg3d_core.config import build, parse_assignments
from seg3d_core.geometry import transform
from seg3d_core.runtime import LiveRuntime
from seg3d_core.runtime.free_memory import EVERY
from seg3d_core.sources.guess import open_source
from seg3d_core.types import Array, Frame

STEP, PAUSE = 0.2, 10.0  # seconds of simulated time between frames, and between scenes
APART = 100.0  # metres between the places of two scenes
BOX, BOX_ID, BOX_COLOUR = 0.4, 30_000, (200, 40, 40)
STAGES = ("integrate", "masks", "observe", "segment")
# A thing of at least so many points is the same one where its centre moved by less than this, in metres.
LEAST_POINTS, NEAR = 100, 0.1
MOST_RENAMED = 0.01
GROWTH = "MB per 10 min after warm-up, at rest"
ERROR, HELD = "its standard error", "the same of what is held, and its error"
Things = dict[int, tuple[Array, int]]  # id: centre, points


class Target(Protocol):
    """What takes the frames."""

    def submit(self, frame: Frame) -> None: ...
    def things(self) -> Things: ...
    def resident_mb(self) -> float: ...
    def held_mb(self) -> float:
        """NaN where that cannot be read."""

    def readings(self) -> dict[str, float]: ...
    def close(self) -> None: ...


class Runtime:
    """The runtime of the node in this process."""

    def __init__(self, settings: dict[str, object]):
        self.runtime = LiveRuntime(build(settings))
        self.runtime.start()

    def submit(self, frame: Frame) -> None:
        self.runtime.submit(frame)

    def things(self) -> Things:
        shown = self.runtime.segment_now(120.0)
        rows = zip(shown.instances.ids, shown.centres, shown.instances.sizes, strict=True)
        return {int(i): (centre, int(size)) for i, centre, size in rows}

    def resident_mb(self) -> float:
        return resident_mb("self")

    def held_mb(self) -> float:
        return held_mb()

    def readings(self) -> dict[str, float]:
        read = self.runtime.statistics()
        out: dict[str, float] = {f"{n} p95 ms": s.p95_ms for n, s in read.stages.items() if n in STAGES}
        out |= {"points": read.points, "instances": read.instances, "frames": read.counters.get("frames", 0)}
        out |= {f"{name} MB": round(use, 1) for name, use in read.memory_mb.items()}
        return out | {f"dropped: {reason}": n for reason, n in read.drops.items()} | self._counted(read.counters)

    def _counted(self, counters: dict[str, int]) -> dict[str, float]:
        return {name: n for name, n in counters.items() if "errors" in name or name == "time restarts"}

    def close(self) -> None:
        self.runtime.stop()


def resident_mb(process: str | int) -> float:
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * 4096 / 1e6


class _MallocInfo(ctypes.Structure):
    """glibc's `struct mallinfo2`."""

    _fields_ = [(name, ctypes.c_size_t) for name in (
        "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
    )]  # fmt: skip


def held_mb() -> float:
    """What this process has asked of the C library and not freed; NaN without glibc 2.33 or later."""
    gc.collect()
    read = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if read is None:
        return float("nan")
    read.restype = _MallocInfo
    found = read()
    return (found.uordblks + found.hblkhd) / 1e6


class Lap:
    """The scenes once. `number` says where the boxes stand."""

    def __init__(self, paths: list[str], stride: int):
        self.sources = [open_source(path, stride=stride) for path in paths]
        self.spots = [self._spots(list(source)) for source in self.sources]

    def _spots(self, frames: list[Frame]) -> list[Array]:
        """Two places in sight, in the air before what a frame at a third and at two thirds of the way sees."""
        out = []
        for frame in (frames[len(frames) // 3], frames[2 * len(frames) // 3]):
            h, w = frame.depth.shape
            middle = frame.depth[h // 3 : 2 * h // 3, w // 3 : 2 * w // 3]
            away = 0.6 * float(np.median(middle[middle > 0])) if (middle > 0).any() else 1.0
            out.append(transform(frame.T_world_camera, np.array([[0.0, 0.0, away]]))[0])
        return out

    def frames(self, number: int) -> Iterator[Frame]:
        index, stamp = 0, 100.0
        for place, (source, spots) in enumerate(zip(self.sources, self.spots, strict=True)):
            for frame in source:
                shown = with_box(frame, spots[number % len(spots)])
                pose = shown.T_world_camera.copy()
                pose[0, 3] += APART * place
                yield replace(shown, index=index, stamp=stamp, name=str(index), T_world_camera=pose)
                index, stamp = index + 1, stamp + STEP
            stamp += PAUSE


def with_box(frame: Frame, centre: Array) -> Frame:
    """The frame with a box of 40 cm in the world, where it is nearer than what the frame sees (slab test)."""
    v, u = np.mgrid[: frame.camera.height, : frame.camera.width]
    camera = frame.camera
    rays = np.stack([(u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy, np.ones(u.shape)], axis=-1)
    pose = frame.T_world_camera
    with np.errstate(divide="ignore", invalid="ignore"):
        inverse = 1 / (rays @ pose[:3, :3].T)
        a, b = (centre - BOX / 2 - pose[:3, 3]) * inverse, (centre + BOX / 2 - pose[:3, 3]) * inverse
        near, far = np.minimum(a, b).max(axis=-1), np.maximum(a, b).min(axis=-1)
    hit = (near < far) & (near > 0.1) & ((near < frame.depth) | (frame.depth == 0))
    rgb, depth = frame.rgb.copy(), frame.depth.copy()
    rgb[hit], depth[hit] = BOX_COLOUR, near[hit]
    instance = None if frame.instance is None else np.where(hit, BOX_ID, frame.instance)
    return replace(frame, rgb=rgb, depth=depth.astype(np.float32), instance=instance)


@dataclass
class Record:
    """What was read on the way: `samples` by time, `laps` by number."""

    samples: list[dict[str, float]] = field(default_factory=list)
    laps: list[dict[str, float]] = field(default_factory=list)


def soak(target: Target, lap: Lap, minutes: float, rate: float, every: float, rest: float) -> Record:
    out, start = Record(), time.monotonic()
    before: Things = {}
    sampled, number = start, 0
    due = start
    while time.monotonic() - start < 60 * minutes:
        for frame in lap.frames(number):
            target.submit(frame)
            now = time.monotonic()
            if now - sampled >= every:
                sampled = now
                out.samples.append({"s": now - start, "resident MB": target.resident_mb(), **target.readings()})
            # One that is late is not made up for: the machine's other work must not become a burst.
            due = max(due + 1 / rate, now)
            time.sleep(due - now)
        target.things()
        time.sleep(rest)
        things = target.things()
        time.sleep(min(rest, 0.5))
        at_rest = {"s": time.monotonic() - start, "lap": number, "resident at rest MB": target.resident_mb()}
        at_rest["held at rest MB"] = target.held_mb()
        accounted = sum(value for name, value in target.readings().items() if name.endswith(" MB"))
        out.laps.append({**at_rest, "accounted MB": accounted, **compare(before, things)})
        before, number = things, number + 1
    return out


def compare(before: Things, after: Things) -> dict[str, float]:
    """Of the things of a lap before: how many have their id still, how many have a new one, how many are gone.

    What moved, was hidden, or is a part of a neighbour now is gone: it has no id to keep.
    """
    big = {i: centre for i, (centre, points) in before.items() if points >= LEAST_POINTS}
    kept = sum(i in after and np.linalg.norm(after[i][0] - centre) < NEAR for i, centre in big.items())
    new = [centre for i, (centre, points) in after.items() if i not in before and points >= LEAST_POINTS / 2]
    renamed = sum(i not in after and any(np.linalg.norm(c - centre) < NEAR for c in new) for i, centre in big.items())
    return {
        "things": len(big),
        "kept": int(kept),
        "renamed": int(renamed),
        "gone or grown": int(len(big) - kept - renamed),
        "largest id": max(after, default=0),
    }


def slope(samples: list[dict[str, float]], name: str, warm_up: float) -> tuple[float, float]:
    """Least squares growth per 10 minutes of what was read after `warm_up` seconds, and its standard error; NaN where
    that is too little."""
    late = np.array([(s["s"], s[name]) for s in samples if s["s"] >= warm_up and name in s])
    if len(late) < 4 or np.isnan(late).any():
        return float("nan"), float("nan")
    fitted = linregress(late[:, 0] / 600, late[:, 1])
    return float(fitted.slope), float(fitted.stderr)


def summary(record: Record, warm_up: float) -> dict[str, Any]:
    samples, laps = record.samples, [lap for lap in record.laps if lap["things"]]
    late = [s for s in samples if s["s"] >= warm_up] or samples
    settled = [lap for lap in laps if lap["s"] >= warm_up] or laps
    out: dict[str, Any] = {
        "minutes": record.laps[-1]["s"] / 60,
        "laps": len(record.laps),
        "resident MB at rest, at the end": record.laps[-1]["resident at rest MB"],
        GROWTH: slope(record.laps, "resident at rest MB", warm_up)[0],
        ERROR: slope(record.laps, "resident at rest MB", warm_up)[1],
        HELD: slope(record.laps, "held at rest MB", warm_up),
        "the same of what the node counts itself, and its error": slope(record.laps, "accounted MB", warm_up),
        "MB per 10 min after warm-up, all samples": slope(samples, "resident MB", warm_up)[0],
        "growth after warm-up MB": late[-1]["resident MB"] - late[0]["resident MB"],
        "things compared": sum(lap["things"] for lap in settled),
        "ids kept": sum(lap["kept"] for lap in settled),
        "ids changed": sum(lap["renamed"] for lap in settled),
    }
    for stage in STAGES:
        read = [s[f"{stage} p95 ms"] for s in late if f"{stage} p95 ms" in s]
        if read:
            out[f"{stage} p95 ms, first and last third"] = (
                float(np.median(read[: max(1, len(read) // 3)])),
                float(np.median(read[-max(1, len(read) // 3) :])),
            )
    return out


def grows(found: dict[str, Any], limit: float) -> bool:
    """More than `limit` MB per 10 minutes: of what is held, or of what is resident beyond two standard errors; of that
    as it is, where what is held cannot be read. What could not be measured counts as growth."""
    resident, error, (held, _) = found[GROWTH], found[ERROR], found[HELD]
    if math.isnan(held):
        return not resident <= limit
    return not (held <= limit and resident - 2 * error <= limit)


def draw(record: Record, warm_up: float, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(3, 1, figsize=(9, 9), sharex=True)
    minutes = [s["s"] / 60 for s in record.samples]
    axes[0].plot(minutes, [s["resident MB"] for s in record.samples], color="0.7", label="every sample")
    at_rest = [lap["resident at rest MB"] for lap in record.laps]
    axes[0].plot([lap["s"] / 60 for lap in record.laps], at_rest, ".-", label="at rest, between laps")
    held = [lap["held at rest MB"] for lap in record.laps]
    axes[0].plot([lap["s"] / 60 for lap in record.laps], held, ".-", label="held, between laps")
    axes[0].legend(loc="lower right")
    axes[0].set_ylabel("memory, MB")
    for stage in STAGES:
        axes[1].plot(minutes, [s.get(f"{stage} p95 ms", np.nan) for s in record.samples], label=stage)
    axes[1].set_ylabel("p95 of the newest 1000, ms")
    axes[1].legend()
    laps = [lap for lap in record.laps if lap["things"]]
    for name in ("things", "kept", "renamed"):
        axes[2].plot([lap["s"] / 60 for lap in laps], [lap[name] for lap in laps], ".-", label=name)
    axes[2].set_ylabel("things of the lap before")
    axes[2].set_xlabel("minutes")
    axes[2].legend()
    for each in axes:
        each.axvline(warm_up / 60, color="0.7", linestyle=":")
        each.set_ylim(bottom=0)
        each.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


def text_of(found: dict[str, Any], last: dict[str, float], options: argparse.Namespace, name: str) -> str:
    def shown(value: object) -> str:
        if isinstance(value, tuple):
            return ", ".join(f"{v:.2f}" for v in value)
        return f"{value:.2f}" if isinstance(value, float) else f"{value:,}"

    rows = [(key, shown(value)) for key, value in found.items()]
    counted = ", ".join(f"{key} {int(n):,}" for key, n in last.items() if "p95" not in key and key != "s")
    scenes = ", ".join(Path(path).name for path in options.scenes)
    settings = "".join(f", {assignment}" for assignment in options.set)
    through = "the node, over topics" if options.ros else "the node's runtime"
    return f"""# A soak of {options.minutes:g} minutes

{about(with_load=True)}
{scenes} through {through}, {options.rate:g} frames a second offered, masks {options.masks}{settings}.
A box in each scene moves from lap to lap; each lap begins with simulated time that jumps back.
Warm-up is the first {100 * options.warm_up:.0f} %, left of the dotted line.

{table(["", ""], rows)}

At the end: {counted}.

![curves]({name}.png)
"""


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--rate", type=float, default=5.0, help="frames per second that are offered")
    studio = str(ROOT / "examples" / "studio")
    parser.add_argument("--scenes", nargs="+", default=[studio], help="what `seg3d run` takes")
    parser.add_argument("--stride", type=int, default=1, help="every that many-th frame")
    parser.add_argument("--masks", default="geometric", help="perception.masks: ground_truth, geometric, ...")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting")
    parser.add_argument("--warm-up", type=float, default=0.25, help="share of the time that is not judged")
    parser.add_argument("--every", type=float, default=10.0, help="seconds between two samples")
    parser.add_argument("--rest", type=float, default=EVERY + 0.5, help="seconds without frames after a lap")
    parser.add_argument("--limit", type=float, default=1.0, help="MB per 10 minutes")
    parser.add_argument("--ros", action="store_true", help="through the real node in a process of its own")
    parser.add_argument("--no-picture", action="store_true", help="without matplotlib")
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser.parse_args()


def main() -> int:
    options = parse()
    settings = {"perception.masks": options.masks, "query.encoder": "none", **parse_assignments(options.set)}
    lap = Lap(options.scenes, options.stride)
    if options.ros:
        from ros_processes import Node

        target: Target = Node(settings)
    else:
        target = Runtime(settings)
    try:
        record = soak(target, lap, options.minutes, options.rate, options.every, options.rest)
    finally:
        target.close()
    warm_up = 60 * options.minutes * options.warm_up
    found, name = summary(record, warm_up), "soak_ros" if options.ros else "soak"
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / f"{name}.json").write_text(json.dumps({"summary": found, **vars(record)}))
    if not options.no_picture:
        draw(record, warm_up, options.out / f"{name}.png")
    write_page(options.out / f"{name}.md", text_of(found, record.samples[-1], options, name))
    return int(grows(found, options.limit) or found["ids changed"] > MOST_RENAMED * found["things compared"])


if __name__ == "__main__":
    sys.exit(main())
