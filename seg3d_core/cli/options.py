# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""From command-line words to settings and source options."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from ..config import Config, build, load_file, parse_assignments
from ..errors import ConfigError


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


def settings(
    profile: str, file: Path | None, assignments: Sequence[str], masks: Path | None = None, core: str = ""
) -> Config:
    """Profile, then file, then `--set`, then `--masks` and `--core`."""
    values = load_file(file) if file else {}
    values.update(parse_assignments(assignments))
    if masks is not None:
        values.update({"perception.masks": "files", "perception.masks_dir": str(masks)})
    if core:
        values["core"] = core
    return build(values, profile)


def cores(text: str | None) -> tuple[str, ...]:
    """`re0,segdino3d` as names; none for none. Raises ConfigError for an unknown one, or one named twice."""
    names = tuple(name.strip() for name in text.split(",")) if text else ()
    known = get_args(Config.model_fields["core"].annotation)
    if not set(names) <= set(known) or len(set(names)) < len(names):
        raise ConfigError(f"--core {text}: one of {', '.join(known)}, or several of them to compare, each once")
    return names
