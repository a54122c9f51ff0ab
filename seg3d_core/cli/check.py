# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""`seg3d check`: prints what `check_source` finds, as a table or as JSON."""

from __future__ import annotations

import json
import sys
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

_MARKS = {"error": "[bold red]error  [/]", "warning": "[yellow]warning[/]", "info": "[cyan]note   [/]"}


def check(path: str, json_output: bool = False, *, max_frames: int | None = None, **options: Any) -> int:
    """Checks the source at `path` and prints a report. Returns the exit code: 0 when fine, 1 when something is wrong.

    Raises SourceError where nothing can be opened. `options` are those of `open_source`; those that are None are
    left to the source.
    """
    from ..sources.check import check_source

    console = Console(stderr=True)
    given = {name: value for name, value in options.items() if value is not None}
    columns = TextColumn("checking"), BarColumn(), TextColumn("{task.completed}/{task.total}")
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None)
        report = check_source(
            path,
            max_frames=max_frames,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
            **given,
        )
    if json_output:
        sys.stdout.write(json.dumps(report.as_dict(), indent=2) + "\n")
    else:
        _print(report.as_dict())
    return 0 if report.ok else 1


def _print(report: dict[str, Any]) -> None:
    console = Console()
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for name, text in _rows(report):
        table.add_row(f"[bold]{name}[/]", escape(text))
    console.print(f"\n[bold]{escape(report['name'])}[/] ({escape(report['kind'])})\n")
    console.print(table)
    console.print()
    for finding in report["findings"]:
        console.print(f"{_MARKS[finding['severity']]}  {escape(finding['sentence'])}")
    count = sum(f["severity"] == "error" for f in report["findings"])
    warned = any(f["severity"] == "warning" for f in report["findings"])
    if count:
        console.print(f"\n[bold red]Not usable as it is:[/] {count} error{'s' if count > 1 else ''}.")
    else:
        console.print(f"[bold green]Fine[/]{', with warnings' if warned else ''}.")


def _rows(report: dict[str, Any]) -> list[tuple[str, str]]:
    counts, camera, depth = report["counts"], report["camera"], report["depth"]
    rate = f", {report['rate']:.3g} Hz by their stamps" if report["rate"] else ""
    rows = [("frames", f"{counts['frames']}, {counts['read']} read{rate}")]
    if camera:
        numbers = ", ".join(f"{name} {camera[name]:.5g}" for name in ("fx", "fy", "cx", "cy"))
        size = f"{camera['width']}x{camera['height']}"
        rows.append(("camera", f"{size}, {numbers}; field of view {camera['fov_degrees']:.0f} degrees"))
    if depth:
        span = f"{depth['p5']:.3g} to {depth['p95']:.3g} m, median {depth['median']:.3g} m"
        rows.append(("depth", f"{span}; {depth['valid']:.0%} of the pixels"))
    poses = report["poses"]
    if poses:
        turn = poses["turn_median"] * 57.29577951308232
        steps = f"{poses['path']:.3g} m in all, {poses['step_median']:.2g} m and {turn:.2g} degrees from frame to frame"
        rows.append(("poses", steps))
    return rows + _agreement_rows(report["agreement"])


def _agreement_rows(agreement: dict[str, Any]) -> list[tuple[str, str]]:
    if not agreement:
        return []
    text = f"{agreement['share']:.0%} of what both frames of a pair see ({agreement['pairs']} pairs)"
    rows = [("agreement", f"{text}, difference {agreement['median_error']:.2%} of depth")]
    if agreement["colour"] is not None:
        rows.append(("colour", f"correlation {agreement['colour']:.2f} between frames"))
    return rows
