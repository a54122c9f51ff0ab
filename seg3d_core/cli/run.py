# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""`seg3d run`: a recording in, a folder of results out, without ROS."""

from __future__ import annotations

import logging
import math
import shlex
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.markup import escape

from .. import readiness
from ..build import build_masks, build_query, build_scene
from ..config import Config
from ..errors import ConfigError, Seg3DError, SourceError, WeightsError
from ..perception.label_files import LabelFiles
from ..query.text import TextQuery
from ..runtime import OfflineResult, run_offline
from ..runtime.autosave import Autosaver
from ..runtime.correction_counts import why_nothing
from ..runtime.offline import Observer
from ..scene import Scene
from ..sources.base import Source
from ..sources.guess import open_source
from ..sources.tum import read_correction
from ..storage import copy_scene, write_scene
from ..types import PoseCorrection, Snapshot
from . import compare
from .console import console, errors, instances_table, print_json, progress, working
from .results import AUTOSAVE, claimed, prepare_folder, replacing, report, staged, write_instances, write_report

# Enough to see wrong poses, units and intrinsics in about a third of a second.
QUICK_FRAMES = 60
# Seconds for a save that has begun when the last frame is done.
_PATIENCE = 60.0


def run(
    path: str,
    out: Path,
    config: Config,
    *,
    profile: str = "cpu-geometric",
    other_cores: Sequence[str] = (),
    points: Path | None,
    corrections: Path | None = None,
    record: bool,
    overwrite: bool,
    json_output: bool,
    source_options: dict[str, Any],
) -> int:
    """Exit code: 0, or after Ctrl-C 130 and after SIGTERM 143 (what was seen until then is saved).

    `other_cores` are compared with the config's, whose results these are.
    """
    if config.perception.masks == "topic":
        raise ConfigError("perception.masks is `topic`, which only the ROS node has: name a folder with --masks")
    source = open_source(path, **source_options)
    correction = None if corrections is None else read_correction(corrections)
    if correction is not None and points is not None:
        raise ConfigError("--corrections moves the map, and a given cloud (--points) stays where it is: leave one out")
    missing = tell_parts(profile, config)
    try:
        masks, query = build_masks(config), build_query(config)
    except WeightsError as error:
        if str(error) not in missing:
            raise
        raise WeightsError("this profile cannot run without what is missing, see above") from None
    if isinstance(masks, LabelFiles):
        masks.check_against(source.frame_names)
    scene = build_scene(config, points, other_cores)
    prepare_folder(out, overwrite=overwrite)
    with claimed(out), _Interrupt() as interrupt, staged(out) as new:
        doubts = _tell_doubts(path, source)
        recording = _recording(new, record)
        start = time.perf_counter()
        with autosaving(out, config) as autosaver:
            result = _process(scene, source, masks, recording, interrupt, autosaver, correction)
        _refuse_nothing(path, points, config, result)
        doubts += _tell_correction(corrections, result)
        snapshot = result.snapshot if interrupt.set else _named(query, config.query.labels, result.snapshot)
        recording.snapshot(snapshot)
        data = report(
            {"path": str(path), "kind": source.kind, "name": source.name, "frames": len(source)},
            config,
            snapshot,
            result.statistics,
            encoder_id=query.encoder_id,
            seconds=round(time.perf_counter() - start, 2),
            interrupted=interrupt.set,
            warnings=doubts,
        )
        if other_cores:
            data["cores"] = _compare(new, scene, config, query, snapshot, data["source"]["name"])
        _write(new, scene, snapshot, data)
        recording.close()
    if json_output:
        print_json(data)
    else:
        _tell(data, snapshot, out)
    return interrupt.code


def _write(out: Path, scene: Scene, snapshot: Snapshot, data: dict[str, Any]) -> None:
    names = {int(i): n for i, n in zip(snapshot.instances.ids, snapshot.names, strict=False) if n}
    write_scene(out / "map.seg3d", copy_scene(scene, names, data["text_encoder"] or ""))
    write_instances(out / "instances.npz", snapshot)
    _picture(out / "picture.png", snapshot, scene, data["source"]["name"])
    data["files"] = sorted({file.name for file in out.iterdir()} | {"report.json"})
    write_report(out / "report.json", data)


def _compare(
    out: Path, scene: Scene, config: Config, query: TextQuery, snapshot: Snapshot, title: str
) -> dict[str, dict[str, Any]]:
    with working("the other cores"):
        found = compare.snapshots_of(scene, config.core, snapshot)
    named = {n: s if s is snapshot else _named(query, config.query.labels, s) for n, s in found.items()}
    compare.write(out, scene, named, title)
    return compare.figures(scene, named)


def tell_parts(profile: str, config: Config) -> list[str]:
    """Says on standard error which profile runs and what of it is not here; gives the latter."""
    missing = readiness.missing_parts(config)
    # Unbroken lines: there are commands to copy in them.
    show = partial(errors.print, highlight=False, soft_wrap=True)
    show(escape(readiness.opening(profile, config)))
    for sentence in missing:
        show(f"[yellow]missing:[/yellow] {escape(sentence)}")
    better = readiness.better_profile(profile) if config.perception.masks == "geometric" else ""
    if better:
        show(f"{escape(better)}: --profile cpu")
    return missing


def _tell_doubts(path: str, source: Source) -> list[str]:
    doubts = quick_check(source)
    for sentence in doubts:
        errors.print(f"[yellow]warning:[/yellow] {escape(sentence)}", highlight=False)
    if doubts:
        errors.print(f"The map will be as wrong: seg3d check {escape(shlex.quote(path))}", highlight=False)
    return doubts


def _tell_correction(path: Path | None, result: OfflineResult) -> list[str]:
    """Says what the corrected poses did; gives what a report should warn of."""
    outcome = result.corrected
    if outcome is None:
        return []
    left_out = outcome.unknown + outcome.improper
    if outcome.state == "applied":
        errors.print(
            f"{path}: the map followed the corrected poses, by up to {100 * outcome.translation:.1f} cm and "
            f"{math.degrees(outcome.rotation):.2f} degrees; {outcome.merged:,} points merged",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
        doubts = [f"{left_out} poses of {path} are of no frame in the map, or no poses"] if left_out else []
    else:
        doubts = [f"{path} changed nothing: {why_nothing(outcome)}"]
    for sentence in doubts:
        errors.print(f"[yellow]warning:[/yellow] {escape(sentence)}", highlight=False, soft_wrap=True)
    return doubts


def quick_check(source: Source) -> list[str]:
    """What `seg3d check` would call an error in the first frames, as sentences; generated rooms are right."""
    if source.kind == "synthetic":
        return []
    from ..sources.check import check_source

    # The run itself logs what it drops; once is enough.
    logger = logging.getLogger("seg3d_core.sources")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        found = check_source(source, max_frames=QUICK_FRAMES)
    finally:
        logger.setLevel(level)
    if not found.counts["read"]:
        return []  # the run ends with that reason
    return [finding.sentence for finding in found.findings if finding.severity == "error"]


def _refuse_nothing(path: str, points: Path | None, config: Config, result: OfflineResult) -> None:
    """Raises SourceError where there is no map to save, or nothing of a given cloud was ever in sight."""
    statistics = result.statistics
    if not statistics.counters.get("frames"):
        dropped = dropped_text(statistics.drops) or "there is none"
        raise SourceError(f"no frame of {path} could be used ({dropped}); `seg3d check {shlex.quote(path)}` tells more")
    near, far = config.map.depth_min, config.map.depth_max
    if not statistics.points:
        raise SourceError(
            f"the frames of {path} gave no point: no depth between map.depth_min = {near:g} m and "
            f"map.depth_max = {far:g} m; `seg3d check {shlex.quote(path)}` tells more"
        )
    if points is not None and not statistics.counters.get("visible_points"):
        raise SourceError(
            f"no frame of {path} sees any of the {statistics.points:,} points of {points}: "
            "is the cloud in metres, and in the world of the poses?"
        )


def dropped_text(drops: Mapping[str, int]) -> str:
    """`7 depth_unreadable, 2 stamp`."""
    return ", ".join(f"{n} {reason.removeprefix('source: ')}" for reason, n in drops.items())


class _Interrupt:
    """The first Ctrl-C or SIGTERM ends the run after the current frame, and saves; a second one ends the program."""

    def __init__(self) -> None:
        self.code = 0
        self._before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    @property
    def set(self) -> bool:
        return self.code != 0

    def __enter__(self) -> _Interrupt:
        for number in self._before:
            signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, _: object) -> None:
        # As shells have it: 130 and 143.
        self.code = 128 + number
        self.__exit__()
        errors.print("stopping after this frame and saving; Ctrl-C again to stop at once")


def _recording(out: Path, record: bool) -> Any:
    from ..viz import NoRecording, Recording

    return Recording(out / "recording.rrd") if record else NoRecording()


@contextmanager
def autosaving(out: Path, config: Config) -> Iterator[Autosaver | None]:
    """Saves `autosave.seg3d` in the folder now and then while frames go in; a finished run takes it away."""
    if not config.runtime.autosave_minutes:
        yield None
        return
    autosaver = Autosaver(out / AUTOSAVE, 60 * config.runtime.autosave_minutes)
    try:
        yield autosaver
    finally:
        autosaver.stop(_PATIENCE)


def _process(
    scene: Scene,
    source: Source,
    masks: Any,
    recording: Observer,
    interrupt: _Interrupt,
    autosaver: Autosaver | None = None,
    correction: PoseCorrection | None = None,
) -> OfflineResult:
    with progress() as bar:
        task = bar.add_task(f"{source.kind}: {source.name}", total=len(source), note="")

        def show(done: int, points: int) -> None:
            bar.update(task, completed=done, note=f"{points:,} points, {len(scene.snapshot.instances)} instances")
            if autosaver is not None and scene.frames:
                autosaver.offer(lambda: copy_scene(scene, {}, ""), done)

        return run_offline(
            scene,
            source,
            masks,
            observers=(recording,),
            on_frame=show,
            should_stop=lambda: interrupt.set,
            correction=correction,
        )


def _named(query: TextQuery, wanted: bool, snapshot: Snapshot) -> Snapshot:
    """Labels by the text encoder, where there is one; a failing one costs the labels, not the run."""
    if not wanted or not query.encoder_id or not len(snapshot.instances):
        return snapshot
    try:
        with working("naming the instances"):
            return replace(snapshot, names=query.labels(snapshot))
    except Seg3DError as error:
        errors.print(f"[yellow]no labels:[/yellow] {escape(str(error))}")
        return snapshot


def _picture(path: Path, snapshot: Snapshot, scene: Scene, title: str) -> None:
    from ..viz import render_instances

    with replacing(path) as temporary:
        render_instances(snapshot, temporary, title=title, cameras=scene.camera_poses)


def _tell(data: dict[str, Any], snapshot: Snapshot, out: Path) -> None:
    if len(snapshot.instances):
        console.print(instances_table(snapshot))
    else:
        console.print(_why_no_instances(data))
    if "cores" in data:
        console.print(compare.table(data["cores"]))
    dropped = dropped_text(data["drops"])
    console.print(
        f"{_counted(data['frames'], 'frame')} ({_counted(data['keyframes'], 'keyframe')}) in {data['seconds']} s, "
        f"{data['points']:,} points" + (f"; dropped: {dropped}" if dropped else ""),
        highlight=False,
    )
    console.print(memory_text(data["budgets"]), highlight=False)
    if not data["text_encoder"] and data["config"]["query.encoder"] != "none":
        console.print("No text encoder is installed, so instances have no names: see `seg3d models list`.")
    where = shlex.quote(str(out))
    console.print(
        f'Look at {out / "picture.png"}, or ask: seg3d query {where} "the sofa"', highlight=False, markup=False
    )


def memory_text(budgets: Mapping[str, Mapping[str, float]]) -> str:
    """`Memory: map 12.3 of 500 MB (3,400 evicted), views 1.0 of 200 MB`."""
    parts = []
    for name, use in budgets.items():
        gone = f" ({use['evicted']:,} evicted)" if use["evicted"] else ""
        parts.append(f"{name} {use['used_mb']:.1f} of {use['limit_mb']:g} MB{gone}")
    return "Memory: " + ", ".join(parts)


def _why_no_instances(data: dict[str, Any]) -> str:
    kind = data["config"]["perception.masks"]
    if not data["keyframes"]:
        wanted = {"files": "readable masks in the folder", "ground_truth": "ground truth of its own"}
        return f"No instances: no frame had {wanted.get(kind, 'masks')}."
    if not data["counters"].get("masks"):
        return f"No instances: the masks ({kind}) of {_counted(data['keyframes'], 'keyframe')} are all empty."
    if data["config"]["core"] == "segdino3d":
        return "No instances: the network is sure of none (segdino3d.instance_score, segdino3d.min_points)."
    return "No instances: what the masks show is smaller than re0.min_points."


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
