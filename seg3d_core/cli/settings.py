# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""`seg3d settings`: the whole tree of settings."""

from __future__ import annotations

from rich.padding import Padding
from rich.text import Text

from ..config import build, iterate
from .console import console


def print_settings(profile: str) -> None:
    """Two lines each, name with value and meaning, so that a narrow terminal shows all of it."""
    console.print(f"Settings of the profile {profile}; change one with --set name=value\n", highlight=False)
    for name, value, field in iterate(build(profile=profile)):
        extra = field.json_schema_extra
        unit = str(extra.get("unit", "")) if isinstance(extra, dict) else ""
        bounds = limits(field.metadata)
        line = Text.assemble((name, "bold"), f" = {value!r}", f" {unit}" if unit else "")
        line.append(f"  ({bounds})" if bounds else "", "dim")
        console.print(line)
        console.print(Padding(Text(field.description or ""), (0, 0, 0, 4)))


def limits(metadata: list[object]) -> str:
    """`0.002 to 0.5` from pydantic's bounds."""
    bounds = {key: getattr(m, key) for m in metadata for key in ("ge", "gt", "le", "lt") if hasattr(m, key)}
    low = bounds.get("ge", bounds.get("gt"))
    high = bounds.get("le", bounds.get("lt"))
    return "" if low is None and high is None else f"{low} to {high}"
