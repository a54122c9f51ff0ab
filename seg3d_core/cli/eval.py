# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""`seg3d eval`: average precision of predictions against ground truth, each number with its protocol."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from .. import __version__
from ..archive import write_error
from ..build import build_query, rebuild_scene
from ..config import MapConfig, build, parse_assignments
from ..errors import Seg3DError
from ..mapping.points_file import read_points
from ..metrics.classes import class_lists
from ..metrics.ground_truth import GroundTruth
from ..metrics.predictions import Predictions
from ..metrics.protocols import PROTOCOLS, Result, evaluate
from ..metrics.scene_counts import SceneEvaluation
from ..metrics.scene_files import SceneFile, find_predictions, find_truth, pair, read_predictions, read_truth
from ..metrics.transfer import TRANSFER_VOXELS, Transfer, on_vertices
from ..query.text import load_vocabulary
from ..storage import config_of, read_scene
from ..types import Snapshot
from .console import console, progress
from .results import finish

_HOMES = "Homes: things have labels by category; structure and carpets are void."


def run_eval(
    predictions: Path,
    truth: Path,
    protocols: Sequence[str],
    *,
    radius: float | None = None,
    points: Path | None = None,
    only_common: bool = False,
    vocabulary: str | None = None,
    assignments: Sequence[str] = (),
    out: Path | None = None,
) -> int:
    """Exit code 0. Raises Seg3DError for what cannot be evaluated."""
    for name in protocols:
        if name not in PROTOCOLS:
            raise Seg3DError(f"no protocol {name!r}: choose among {', '.join(PROTOCOLS)}")
    if radius is not None and not (math.isfinite(radius) and radius > 0):
        raise Seg3DError(f"--radius {radius} is no distance: metres above 0 are wanted")
    if out is not None and not out.parent.is_dir():
        raise Seg3DError(f"cannot write {out}: the folder {out.parent} does not exist, make it first")
    for folder in (predictions, *predictions.glob("*")):
        with suppress(OSError):  # where nothing may be written, what is there is read
            finish(folder)
    try:
        pairs = pair(find_predictions(predictions), find_truth(truth), only_common=only_common)
    except OSError as error:
        raise Seg3DError(f"cannot look into {error.filename}: {error.strerror}; check its permissions") from None
    naming = None if vocabulary is None else Naming(vocabulary, assignments)
    if naming and not any(file.kind == "map" for file, _ in pairs):
        raise Seg3DError(f"--vocabulary names the instances of saved maps, but {predictions} holds none")
    transfers: dict[str, Transfer] = {}
    results = evaluate(_scenes(pairs, radius, points, naming, transfers), list(dict.fromkeys(protocols)))
    if out is not None:
        _write_json(out, predictions, truth, results, transfers, naming)
    _print(results, transfers)
    for note in (naming.note if naming else "", _HOMES if any(file.kind == "house" for _, file in pairs) else ""):
        if note:
            console.print(note, markup=False, highlight=False, style="dim")
    return 0


class Naming:
    """Names the instances of saved maps anew, each by the vocabulary's nearest entry, for RE0's mAP (sec. 4.1.2)."""

    def __init__(self, vocabulary: str, assignments: Sequence[str]):
        """`vocabulary`: a class list's key, or a file with one label per line. Raises Seg3DError."""
        listed = class_lists().get(vocabulary)
        self._entries = tuple(listed.names.values()) if listed else load_vocabulary(vocabulary)
        self._query = build_query(build(parse_assignments(assignments)))
        self.vocabulary, self.encoder_id = vocabulary, self._query.encoder_id
        if not self.encoder_id:
            raise Seg3DError(
                "--vocabulary needs a text encoder; for the offline stand-in: pip install "
                "'seg3d[offline]', then `seg3d models fetch offline`; or --set query.open_clip_weights=FILE"
            )

    @property
    def note(self) -> str:
        return (
            f"Instances of maps are named by the nearest of {len(self._entries)} entries of {self.vocabulary}, "
            f"encoder {self.encoder_id}."
        )

    def __call__(self, snapshot: Snapshot) -> Snapshot:
        if not len(snapshot.instances):
            return snapshot
        similarity, seen = self._query.compare(self._entries, snapshot)
        names = (self._entries[n] if s else "" for n, s in zip(similarity.argmax(axis=1), seen, strict=True))
        return replace(snapshot, names=tuple(names))


def _scenes(
    pairs: Sequence[tuple[SceneFile, SceneFile]],
    radius: float | None,
    points: Path | None,
    naming: Naming | None,
    transfers: dict[str, Transfer],
) -> Iterator[tuple[str, SceneEvaluation]]:
    """One scene at a time; `transfers` is filled on the way."""
    category_ids: dict[str, int] = {}
    with progress() as bar:
        task = bar.add_task("scenes", total=len(pairs), note="")
        for prediction_file, truth_file in pairs:
            bar.update(task, note=truth_file.scene)
            predictions = _read_predictions(prediction_file, naming)
            truth = read_truth(truth_file, category_ids)
            if points is not None:
                truth = _with_positions(truth, points, truth_file.scene)
            voxel = predictions.voxel_size or MapConfig().voxel_size
            try:
                scene, transfers[truth_file.scene] = on_vertices(predictions, truth, radius or TRANSFER_VOXELS * voxel)
            except Seg3DError as error:
                raise Seg3DError(f"{prediction_file.path} and {truth_file.path}: {error}") from None
            yield truth_file.scene, scene
            bar.advance(task)


def _read_predictions(file: SceneFile, naming: Naming | None) -> Predictions:
    if file.kind != "map":
        return read_predictions(file)
    saved = read_scene(file.path)
    snapshot = rebuild_scene(saved).segment()
    snapshot = naming(snapshot) if naming else snapshot.with_names(saved.names)
    return Predictions.from_snapshot(snapshot, config_of(saved).map.voxel_size)


def _with_positions(truth: GroundTruth, folder: Path, scene: str) -> GroundTruth:
    """The ground truth with the positions of a mesh or cloud, vertex by vertex."""
    mesh = f"{scene}_vh_clean_2.ply"
    candidates = [folder / name for name in (f"{scene}.ply", mesh, f"{scene}/{mesh}", f"{scene}.npz")]
    files = [folder] if folder.is_file() else [path for path in candidates if path.is_file()]
    if not files:
        raise Seg3DError(f"no positions of {scene} in {folder}: {scene}.ply, {mesh} or {scene}.npz is wanted")
    xyz, _, _ = read_points(files[0])
    if len(xyz) != len(truth.ids):
        raise Seg3DError(f"{files[0]} has {len(xyz):,} points, the ground truth of {scene} {len(truth.ids):,} vertices")
    return GroundTruth(truth.ids, xyz, truth.names)


def _print(results: Sequence[Result], transfers: Mapping[str, Transfer]) -> None:
    for name in dict.fromkeys(result.name for result in results):
        console.print(f"[bold]{name}[/bold]", highlight=False)
        table = Table(box=SIMPLE_HEAD, pad_edge=False)
        table.add_column("", no_wrap=True)
        for column in ("AP", "AP50", "AP25", "scenes", "predictions"):
            table.add_column(column, justify="right", no_wrap=True)
        for result in results:
            if result.name == name and (result.duplicates or result.repeated):
                _add_rows(table, result)
        console.print(table)
    for line in _notes(results, transfers):
        console.print(line, markup=False, highlight=False, style="dim")


def _add_rows(table: Table, result: Result) -> None:
    title = "no duplicates in it" if not result.repeated else "with duplicates" if result.duplicates else "without them"
    counts = (str(result.scenes), f"{result.predictions:,}")
    table.add_row(title, *_percent((result.ap, result.ap50, result.ap25)), *counts)
    for group, values in result.groups.items():
        table.add_row(f"  {group}", *_percent(values), "", "")


def _percent(values: Sequence[float]) -> list[str]:
    return ["–" if math.isnan(value) else f"{100 * value:.1f}" for value in values]


def _notes(results: Sequence[Result], transfers: Mapping[str, Transfer]) -> Iterator[str]:
    yield "Percent."
    moved = [t for t in transfers.values() if t.radius is not None]
    if moved:
        radii = sorted({round(t.radius, 6) for t in moved if t.radius is not None})
        beyond, vertices = sum(t.beyond for t in moved), sum(t.vertices for t in moved)
        yield (
            f"Predictions of {len(moved)} of {len(transfers)} scenes lie on points of their own: a vertex takes those "
            f"of the nearest point within {' or '.join(f'{100 * r:g}' for r in radii)} cm; "
            f"{100 * beyond / max(vertices, 1):.1f} % of the vertices have none."
        )
    for result in {result.protocol: result for result in results if result.duplicates}.values():
        yield from _notes_of(result)


def _notes_of(result: Result) -> Iterator[str]:
    if result.repeated:
        yield f"{result.protocol}: {result.repeated} duplicates: the mask of a better prediction of the same class."
    if result.unlisted:
        which = f"{result.protocol}: {result.unlisted} of {result.unlisted + result.predictions}"
        if PROTOCOLS[result.protocol].is_vote:
            yield f"{which} segments got no label of this list by the vote, and count nowhere."
        else:
            yield f"{which} predictions have no label of this list, and count nowhere; `agnostic` looks at no labels."
    if result.small:
        yield f"{result.protocol}: {result.small} more have fewer than 100 vertices, and do not take part."
    if math.isnan(result.ap):
        yield f"{result.protocol}: no ground truth of at least 100 vertices has a label of this list."


def _write_json(
    out: Path,
    predictions: Path,
    truth: Path,
    results: Sequence[Result],
    transfers: Mapping[str, Transfer],
    naming: Naming | None,
) -> None:
    data = {
        "seg3d": __version__,
        "predictions": str(predictions),
        "ground_truth": str(truth),
        "vocabulary": naming and {"name": naming.vocabulary, "encoder": naming.encoder_id},
        "results": [asdict(result) for result in results],
        "transfer": {scene: asdict(transfer) for scene, transfer in transfers.items()},
    }
    try:
        out.write_text(json.dumps(_without_nan(data), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise write_error(out, error) from None


def _without_nan(value: Any) -> Any:
    """JSON has no NaN: null stands for a number that does not exist."""
    if isinstance(value, dict):
        return {key: _without_nan(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(inner) for inner in value]
    return None if isinstance(value, float) and math.isnan(value) else value
