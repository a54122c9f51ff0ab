# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Tables and progress on a terminal; silence elsewhere. Logs and progress go to standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table

from ..types import QueryResult, Snapshot

console = Console()
errors = Console(stderr=True)


def progress() -> Progress:
    """A bar on standard error that hides itself where no terminal is."""
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=errors,
        transient=True,
        disable=not errors.is_terminal,
    )


@contextmanager
def downloading(name: str) -> Iterator[Callable[[int, int], None]]:
    """A bar of bytes on standard error, moved by (done, total), 0 where unknown; nothing where no terminal is."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal) as bar:
        task = bar.add_task(name, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total or None)


def working(text: str) -> AbstractContextManager[object]:
    """A spinner on standard error while something goes on; nothing where no terminal is."""
    return errors.status(text) if errors.is_terminal else nullcontext()


def print_json(data: Mapping[str, Any]) -> None:
    json.dump(data, sys.stdout, ensure_ascii=False)
    sys.stdout.write("\n")


def vector(values: Sequence[float]) -> str:
    return " ".join(f"{v:.2f}" for v in values)


def print_answers(results: Sequence[QueryResult]) -> None:
    """A table with one row per answer, and below it why a text has none."""
    table = Table(title="Answers", title_justify="left", box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for name, justify in (("text", "left"), ("id", "right"), ("label", "left"), ("score", "right")):
        table.add_column(name, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    table.add_column("centre (m)", no_wrap=True)
    table.add_column("size (m)", no_wrap=True)
    for result in results:
        if not result.answers:
            table.add_row(result.text, "–", "nothing matched", "", "", "")
        for number, answer in enumerate(result.answers):
            table.add_row(
                result.text if number == 0 else "",
                str(answer.instance_id),
                answer.label,
                f"{answer.score:.2f}",
                vector(answer.centre),
                vector(answer.extent),
            )
    console.print(table)
    for message in dict.fromkeys(r.message for r in results if not r.answers):
        console.print(message, markup=False, highlight=False, style="dim")
    if any(r.approximate for r in results):
        console.print("Answers are approximate: the offline stand-in compared, not CLIP.", style="dim")


def instances_table(snapshot: Snapshot, limit: int = 15) -> Table:
    """The biggest instances: id, label, score, points, centre, size."""
    table = Table(
        title=f"Instances ({len(snapshot.instances)})",
        title_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    for name, justify in (("id", "right"), ("label", "left"), ("score", "right"), ("points", "right")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    table.add_column("centre (m)", no_wrap=True)
    table.add_column("size (m)", no_wrap=True)
    sizes = snapshot.instances.sizes
    for k in sorted(range(len(sizes)), key=lambda k: -int(sizes[k]))[:limit]:
        table.add_row(
            str(snapshot.instances.ids[k]),
            snapshot.names[k] if snapshot.names else "",
            f"{snapshot.instances.scores[k]:.2f}",
            str(sizes[k]),
            vector(snapshot.centres[k]),
            vector(snapshot.extents[k]),
        )
    if len(sizes) > limit:
        table.caption = f"and {len(sizes) - limit} smaller ones: report.json, instances.npz"
        table.caption_justify = "left"
    return table
