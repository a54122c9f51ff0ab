"""`seg3d settings`: the whole tree of settings as a table."""

from __future__ import annotations

from rich.table import Table

from ..config import build, iterate
from .console import console


def print_settings(profile: str) -> None:
    table = Table(title=f"Settings of the profile {profile}; change one with --set name=value", title_justify="left")
    for name in ("name", "value", "unit", "range", "meaning"):
        table.add_column(name)
    for name, value, field in iterate(build(profile=profile)):
        extra = field.json_schema_extra
        unit = str(extra.get("unit", "")) if isinstance(extra, dict) else ""
        table.add_row(name, repr(value), unit, limits(field.metadata), field.description or "")
    console.print(table)


def limits(metadata: list[object]) -> str:
    """`0.002 to 0.5` from pydantic's bounds."""
    bounds = {key: getattr(m, key) for m in metadata for key in ("ge", "gt", "le", "lt") if hasattr(m, key)}
    low = bounds.get("ge", bounds.get("gt"))
    high = bounds.get("le", bounds.get("lt"))
    return "" if low is None and high is None else f"{low} to {high}"
