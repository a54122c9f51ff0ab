"""From command-line words to settings and source options."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..config import Config, build, load_file, parse_assignments


def source_options(
    kind: str | None, stride: int, max_frames: int | None, depth_scale: float | None, options: Sequence[str]
) -> dict[str, Any]:
    """Keyword arguments of `sources.guess.open_source`."""
    return {
        "kind": kind,
        "stride": stride,
        "max_frames": max_frames,
        "depth_scale": depth_scale,
        **parse_assignments(options, "--option"),
    }


def settings(profile: str, file: Path | None, assignments: Sequence[str], masks: Path | None = None) -> Config:
    """Profile, then file, then `--set`, then `--masks`."""
    values = load_file(file) if file else {}
    values.update(parse_assignments(assignments))
    if masks is not None:
        values.update({"perception.masks": "files", "perception.masks_dir": str(masks)})
    return build(values, profile)
