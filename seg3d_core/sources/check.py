# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Whether posed RGB-D can be used as it is, and if not, what is wrong with it: no model, no map, a few seconds.

`check_source` counts frames, looks at intrinsics, depth and poses one by one, and then asks what matters: does
depth of one frame, carried by the poses, agree with depth of another that sees the same place, and does colour go
with it? Where they disagree, the usual mistakes are tried (`hypotheses.py`), and the one that mends most is named.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import SourceError
from ..geometry import rotation_error
from ..types import Array, Camera
from .base import Source
from .consistency import (
    Agreement,
    Sample,
    Setup,
    agreement,
    choose_pairs,
    colour_likeness,
    make_sample,
    thumbnail,
)
from .hypotheses import HYPOTHESES, SHIFTS, Culprit, find_culprit
from .images import check_thinning

Progress = Callable[[int, int], None]
GOOD, POOR = 0.85, 0.65
_ROUNDS = 2
MOST_FRAMES = 400


@dataclass(frozen=True)
class Finding:
    """One sentence. `severity` is `error`, `warning` or `info`; `code` a short stable key."""

    severity: str
    code: str
    sentence: str


@dataclass(frozen=True)
class CheckReport:
    """What `check_source` found. `ok` is False when any finding is an error.

    counts: frames in the source, tried, read, and dropped by reason; rate in Hz; depth in metres (5th, 50th, 95th
    percentile) and the share of valid pixels; poses: steps in metres, turns in radians; agreement: as of
    `consistency.Agreement`, and the correlation of colour, None where it can't be told.
    """

    name: str
    kind: str
    counts: dict[str, Any]
    rate: float | None
    camera: dict[str, Any]
    depth: dict[str, Any]
    poses: dict[str, Any]
    agreement: dict[str, Any]
    findings: tuple[Finding, ...]
    ok: bool

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass
class _Gathered:
    """What one pass over the source leaves: small images, poses as given, and names."""

    depths: list[Array] = field(default_factory=list)
    greys: list[Array] = field(default_factory=list)
    poses: list[Array] = field(default_factory=list)
    stamps: list[float] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    camera: Camera | None = None
    small: Camera | None = None
    other_sizes: int = 0
    bad_poses: int = 0
    tried: int = 0


def check_source(
    source: Source | str | Path,
    *,
    max_frames: int | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> CheckReport:
    """Looks at the first `max_frames` frames (400 unless given) of a source, or of what lies at a path.

    `options` are those of `open_source`. `progress` is called with (done, total). Raises SourceError where nothing
    can be opened; a source without a usable frame is reported, not raised.
    """
    if isinstance(source, (str, Path)):
        from .guess import open_source

        source = open_source(source, **options)
    elif options:
        raise SourceError(f"options {', '.join(options)} go with a path, not with a source that is open already")
    check_thinning(1, max_frames)
    max_frames = max_frames or MOST_FRAMES
    steps = min(len(source), max_frames) + _ROUNDS * len(HYPOTHESES) + 1
    done = 0

    def tick() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(min(done, steps), steps)

    data = _gather(source, max_frames, tick)
    findings = _count_findings(source, data)
    if data.camera is None or data.small is None:
        return _report(source, data, findings, {}, {}, {})
    findings += _camera_findings(data.camera)
    depth = _depth_numbers(data)
    findings += _depth_findings(depth)
    poses = _pose_numbers(data)
    findings += _pose_findings(poses, data)
    sample = make_sample(data.depths, data.greys, data.poses, data.small)
    scale = float(getattr(source, "depth_scale", None) or 1000.0)
    numbers, more = _consistency(sample, scale, data, poses, tick)
    if progress is not None:
        progress(steps, steps)
    return _report(source, data, findings + more, depth, poses, numbers)


def _gather(source: Source, max_frames: int, tick: Callable[[], None]) -> _Gathered:
    data = _Gathered()
    for frame in source:
        data.tried = frame.index + 1
        tick()
        pose = np.asarray(frame.T_world_camera, float)
        if pose.shape != (4, 4) or rotation_error(pose) > 0.1 or not np.isfinite(pose).all():
            data.bad_poses += 1
        elif data.camera is not None and frame.camera != data.camera:
            data.other_sizes += 1
        else:
            depth, grey, small = thumbnail(frame)
            data.camera, data.small = frame.camera, small
            data.depths.append(depth)
            data.greys.append(grey)
            data.poses.append(pose)
            data.stamps.append(frame.stamp)
            data.names.append(frame.name or str(frame.index))
        if len(data.poses) >= max_frames:
            break
    else:
        data.tried = len(source)
    return data


def _report(
    source: Source,
    data: _Gathered,
    findings: list[Finding],
    depth: dict[str, Any],
    poses: dict[str, Any],
    numbers: dict[str, Any],
) -> CheckReport:
    order = {"error": 0, "warning": 1, "info": 2}
    c = data.camera
    camera = {} if c is None else {"width": c.width, "height": c.height, "fx": c.fx, "fy": c.fy, "cx": c.cx, "cy": c.cy}
    if c is not None:
        camera["fov_degrees"] = round(_fov(c), 1)
    counts = {"frames": len(source), "tried": data.tried, "read": len(data.poses), "drops": dict(source.drops)}
    gaps = np.diff(data.stamps)
    rate = float(1 / np.median(gaps)) if len(gaps) and np.median(gaps) > 0 else None
    found = tuple(sorted(findings, key=lambda f: order[f.severity]))
    ok = not any(f.severity == "error" for f in found)
    return CheckReport(source.name, source.kind, counts, rate, camera, depth, poses, numbers, found, ok)


def _count_findings(source: Source, data: _Gathered) -> list[Finding]:
    out = []
    read, dropped = len(data.poses), sum(source.drops.values())
    if read == 0:
        reasons = ", ".join(f"{reason} {n}" for reason, n in source.drops.items()) or "it holds none"
        return [Finding("error", "no_frames", f"not one of {len(source)} frames can be used: {reasons}")]
    if dropped:
        reasons = ", ".join(f"{reason} {n}" for reason, n in sorted(source.drops.items()))
        severity = "error" if dropped > read else "warning"
        out.append(Finding(severity, "drops", f"{dropped} of {data.tried} frames were dropped: {reasons}"))
    if data.bad_poses:
        out.append(Finding("error", "bad_poses", f"{data.bad_poses} poses are no rigid transforms"))
    if data.other_sizes:
        out.append(Finding("warning", "sizes", f"{data.other_sizes} frames have another camera than the first"))
    if data.tried < len(source):
        out.append(Finding("info", "partial", f"the first {data.tried} of {len(source)} frames were checked"))
    if np.any(np.diff(data.stamps) < 0):
        out.append(Finding("error", "stamps", "stamps run backwards"))
    return out


def _fov(camera: Camera) -> float:
    return float(np.degrees(2 * np.arctan(camera.width / (2 * camera.fx))))


def _camera_findings(c: Camera) -> list[Finding]:
    out = []
    if not 30 < _fov(c) < 130:
        sentence = f"fx = {c.fx:g} at {c.width} pixels is a view of {_fov(c):.0f} degrees: unlikely for an RGB-D camera"
        out.append(Finding("warning", "field_of_view", sentence))
    ratios = (2 * c.cx + 1) / c.width, (2 * c.cy + 1) / c.height
    if max(ratios) > 1.4 or min(ratios) < 0.7:
        alike = abs(ratios[0] - ratios[1]) < 0.15 * max(ratios)
        made = f": made for {2 * c.cx + 1:.0f}x{2 * c.cy + 1:.0f}?" if alike else ""
        sentence = f"cx = {c.cx:g}, cy = {c.cy:g} is far from the middle of {c.width}x{c.height} images{made}"
        severity = "error" if alike and (ratios[0] > 1.7 or ratios[0] < 0.6) else "warning"
        out.append(Finding(severity, "centre", sentence))
    if not 0.8 < c.fx / c.fy < 1.25:
        out.append(Finding("warning", "pixels", f"fx = {c.fx:g} and fy = {c.fy:g} differ: pixels are rarely so oblong"))
    return out


def _depth_numbers(data: _Gathered) -> dict[str, Any]:
    values = np.concatenate([d[::3, ::3].ravel() for d in data.depths])
    valid = values[values > 0]
    low, middle, high = (float(q) for q in np.percentile(valid, (5, 50, 95))) if len(valid) else (0.0, 0.0, 0.0)
    empty = sum(not d.any() for d in data.depths)
    return {"p5": low, "median": middle, "p95": high, "valid": len(valid) / max(1, len(values)), "empty_frames": empty}


def _depth_findings(depth: dict[str, Any]) -> list[Finding]:
    out = []
    if depth["valid"] < 0.02:
        out.append(Finding("error", "no_depth", f"only {depth['valid']:.1%} of the depth pixels hold a value"))
    elif depth["valid"] < 0.3:
        out.append(Finding("warning", "little_depth", f"only {depth['valid']:.0%} of the depth pixels hold a value"))
    if depth["empty_frames"] and depth["valid"] >= 0.02:
        out.append(Finding("warning", "empty_depth", f"{depth['empty_frames']} frames have no depth at all"))
    if depth["median"] and not 0.1 < depth["median"] < 20:
        sentence = f"depth is {depth['median']:.3g} m in the median: not a room's; another unit?"
        out.append(Finding("error", "depth_range", sentence))
    return out


def _pose_numbers(data: _Gathered) -> dict[str, Any]:
    poses = np.stack(data.poses)
    relative = np.linalg.inv(poses[:-1]) @ poses[1:]
    steps = np.linalg.norm(relative[:, :3, 3], axis=1)
    turns = np.arccos(np.clip((np.trace(relative[:, :3, :3], axis1=1, axis2=2) - 1) / 2, -1, 1))
    return {
        "path": float(steps.sum()),
        "step_median": float(np.median(steps)) if len(steps) else 0.0,
        "step_max": float(steps.max(initial=0.0)),
        "turn_median": float(np.median(turns)) if len(turns) else 0.0,
        "turn_max": float(turns.max(initial=0.0)),
        "rotation_error": max(rotation_error(pose) for pose in poses),
        "digits": written_digits(poses[:, :3, 3]),
        "all_equal": len(poses) > 1 and bool(np.ptp(poses, axis=0).max() < 1e-9),
    }


def written_digits(translations: Array) -> int | None:
    """Decimal digits of the coordinates (n, 3), at most 6; None where too few of them differ to tell."""
    varied = [axis for axis in translations.T if len(np.unique(axis)) >= 5]
    if len(varied) < 2:
        return None
    values = np.stack(varied)
    # What was printed as a 32-bit float differs from the round number by about 1e-7 of itself.
    slack = 1e-9 + 3e-7 * np.abs(values)
    return next((d for d in range(6) if (np.abs(values - values.round(d)) <= slack).all()), 6)


def _pose_findings(poses: dict[str, Any], data: _Gathered) -> list[Finding]:
    out = []
    if poses["rotation_error"] > 0.002:
        sentence = f"rotations are orthonormal to {poses['rotation_error']:.1g} only: rounded, or not rotations"
        out.append(Finding("warning", "rotations", sentence))
    track = np.stack(data.poses)[:, :3, 3]
    steps = np.linalg.norm(np.diff(track, axis=0), axis=1)
    jumps = np.flatnonzero(steps > max(1.0, 10 * poses["step_median"]))
    if len(jumps):
        first = data.names[jumps[0] + 1]
        sentence = f"the pose jumps {len(jumps)} times, first by {steps[jumps[0]]:.2f} m at frame {first}"
        out.append(Finding("warning", "jumps", sentence))
    return out


def _consistency(
    sample: Sample, scale: float, data: _Gathered, poses: dict[str, Any], tick: Callable[[], None]
) -> tuple[dict[str, Any], list[Finding]]:
    """Agreement of depth and colour between frames, as numbers and as findings."""
    pairs = choose_pairs(sample.poses)
    setup = Setup(sample.poses)
    first = agreement(sample, pairs, setup)
    if len(sample) < 2:
        return {}, [Finding("info", "one_frame", "with one frame nothing can be said of poses")]
    numbers: dict[str, Any] = {**asdict(first), "colour": None}
    if poses["all_equal"]:
        return numbers, [_equal_poses(first)]
    culprits: list[Culprit] = []
    for _ in range(_ROUNDS):
        culprit = find_culprit(sample, pairs, setup, scale, tick)
        if culprit is None:
            break
        culprits.append(culprit)
        setup = culprit.reading.setup
    last = culprits[-1].after if culprits else first
    findings = [_culprit_finding(c, data) for c in culprits]
    findings += _agreement_findings(sample, pairs, setup, last, bool(culprits))
    findings += _rounding_findings(poses, last)
    colour = _colour_findings(sample, pairs, setup, last, data)
    numbers["colour"] = colour[0]
    return numbers, findings + colour[1]


def _equal_poses(first: Agreement) -> Finding:
    if first.share < 0.9:
        sentence = f"all poses are equal, but the camera moves: depth agrees on {first.share:.0%} of the pixels only"
        return Finding("error", "equal_poses", sentence)
    return Finding("warning", "static", "the camera stands still: nothing can be told of poses, intrinsics and units")


def _culprit_finding(culprit: Culprit, data: _Gathered) -> Finding:
    reading = culprit.reading
    before, after = culprit.before, culprit.after
    sentence = f"{reading.cause}: {reading.cure} raises agreement from {before.share:.0%} to {after.share:.0%}"
    return Finding("error" if before.share < 0.85 else "warning", reading.name.split(":")[0], sentence)


def _agreement_findings(sample: Sample, pairs: Array, setup: Setup, last: Agreement, mended: bool) -> list[Finding]:
    still = "even so, " if mended else ""
    if last.overlap < 0.05 or last.pairs < 3:
        sentence = f"{still}neighbouring frames hardly overlap ({last.overlap:.0%} of the pixels): little can be told"
        return [Finding("warning", "little_overlap", sentence)]
    if last.share < POOR:
        sentence = (
            f"{still}depth carried between neighbouring frames agrees on {last.share:.0%} of the pixels only, and none "
            "of the usual mistakes explains it: look at the poses' accuracy and at the pairing of stamps"
        )
        return [Finding("error", "disagreement", sentence)]
    if last.share < GOOD:
        sentence = f"{still}depth agrees on {last.share:.0%} of the overlapping pixels: drift, noise, or moving things"
        return [Finding("warning", "disagreement", sentence)]
    moves = last.share - agreement(sample, pairs, Setup(setup.poses, setup.depth_factor * 2, setup.camera_factor)).share
    if moves < 0.05:
        return [Finding("info", "little_motion", "the camera hardly moves: the unit of depth can't be judged by it")]
    return []


def _rounding_findings(poses: dict[str, Any], last: Agreement) -> list[Finding]:
    digits = poses["digits"]
    # A path on a grid of centimetres is possible; then depth agrees to less than the rounding could.
    if digits is None or digits > 2 or last.median_error < 0.0015:
        return []
    sentence = (
        f"the poses are rounded to {digits} digits (steps of {10.0**-digits:g} m), and depth of neighbouring frames "
        f"differs by {last.median_error:.1%} in the median: write at least 6 digits"
    )
    return [Finding("error", "rounded_poses", sentence)]


def _colour_findings(
    sample: Sample, pairs: Array, setup: Setup, last: Agreement, data: _Gathered
) -> tuple[float | None, list[Finding]]:
    """The correlation of colour at the two ends, and a shift in time if another frame's colour fits better."""
    here = colour_likeness(sample, pairs, setup)
    if last.share < POOR or np.isfinite(here).sum() < 5:
        return None, []
    reach = min(SHIFTS, len(sample) // 3)
    best, best_gain, best_like, best_here = 0, 0.0, 0.0, 0.0
    for shift in [k for k in range(-reach, reach + 1) if k]:
        there = colour_likeness(
            sample, pairs, Setup(setup.poses, setup.depth_factor, setup.camera_factor, shift, setup.known)
        )
        both = np.isfinite(here) & np.isfinite(there)
        if both.sum() < 5:
            continue
        gains = there[both] - here[both]
        gain = float(gains.mean())
        if gain > best_gain and gain > 3 * gains.std() / np.sqrt(len(gains)):
            best, best_gain, best_like, best_here = shift, gain, float(there[both].mean()), float(here[both].mean())
    mean = float(np.nanmean(here))
    if best and best_gain > 0.1 and best_like > 0.5:
        frames = f"{abs(best)} frame{'s' if abs(best) > 1 else ''}"
        gap = np.median(np.diff(data.stamps)) * abs(best)
        side = "later" if best > 0 else "earlier"
        sentence = (
            f"colour and depth are shifted in time by {frames} ({gap:.2g} s): taking colour {frames} {side} "
            f"raises the likeness of carried colours from {best_here:.2f} to {best_like:.2f}"
        )
        return mean, [Finding("error", "colour_shifted", sentence)]
    if mean < 0.3:
        sentence = f"colour carried by depth and poses hardly resembles what is there (correlation {mean:.2f})"
        return mean, [Finding("warning", "colour", sentence + ": is depth registered to colour?")]
    return mean, []
