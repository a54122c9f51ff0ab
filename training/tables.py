# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Results as tables: for a terminal, for a page, for a file."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from seg3d_core.metrics.protocols import Result, Triple


def print_results(console: Console, results: Sequence[Result], per_class: bool = True) -> None:
    """One table per protocol, and one of the classes."""
    for name in dict.fromkeys(result.name for result in results):
        table = Table(title=name, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
        table.add_column("", no_wrap=True)
        for column in ("AP", "AP50", "AP25"):
            table.add_column(column, justify="right")
        for title, triple in rows(results, name):
            table.add_row(title, *percent(triple))
        if per_class:
            for title, triple in next(r.per_class for r in results if r.name == name).items():
                table.add_row(title, *percent(triple), style="dim")
        console.print(table)


def rows(results: Sequence[Result], name: str) -> Iterator[tuple[str, Triple]]:
    """All of a protocol's means: with duplicate predictions and their groups, and without duplicates."""
    for result in results:
        if result.name != name:
            continue
        kept = "all" if result.duplicates else f"all, without {result.repeated} duplicates"
        yield kept, (result.ap, result.ap50, result.ap25)
        if result.duplicates:
            yield from result.groups.items()


def markdown(results: Sequence[Result], title: str) -> str:
    """The same as a page."""
    lines = [f"# Average precision: {title}", "", "Percent; AP is the mean over IoU 0.50, 0.55, .. 0.90."]
    for name in dict.fromkeys(result.name for result in results):
        chosen = next(result for result in results if result.name == name)
        lines += ["", f"## {name}", "", f"{chosen.scenes} scenes, {chosen.predictions} predictions.", "", _HEADER]
        lines += [_line(title, triple) for title, triple in rows(results, name)]
        if chosen.per_class:
            lines += ["", "| class | AP | AP50 | AP25 |", "|---|---|---|---|"]
            lines += [_line(title, triple) for title, triple in chosen.per_class.items()]
    return "\n".join(lines) + "\n"


def to_dict(result: Result) -> dict[str, Any]:
    """For JSON, where null stands for a number that does not exist."""
    return {name: without_nan(value) for name, value in asdict(result).items()}


def without_nan(value: Any) -> Any:
    """NaN as None, however deep."""
    if isinstance(value, Mapping):
        return {key: without_nan(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nan(inner) for inner in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def percent(values: Sequence[float]) -> list[str]:
    return ["–" if math.isnan(value) else f"{100 * value:.1f}" for value in values]


_HEADER = "| | AP | AP50 | AP25 |\n|---|---|---|---|"


def _line(title: str, triple: Triple) -> str:
    return "| " + " | ".join((title, *percent(triple))) + " |"
