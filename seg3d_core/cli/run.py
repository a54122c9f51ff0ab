"""`seg3d run`: a recording in, a folder of results out, without ROS."""

from __future__ import annotations

import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..build import build_masks, build_query, build_scene
from ..config import Config
from ..errors import Seg3DError, SourceError
from ..perception.label_files import LabelFiles
from ..query.text import TextQuery
from ..runtime import OfflineResult, run_offline
from ..runtime.offline import Observer
from ..scene import Scene
from ..sources.base import Source
from ..sources.guess import open_source
from ..storage import copy_scene, write_scene
from ..types import Snapshot
from .console import console, errors, instances_table, print_json, progress
from .results import prepare_folder, report, write_instances, write_report


def run(
    path: str,
    out: Path,
    config: Config,
    *,
    points: Path | None,
    record: bool,
    overwrite: bool,
    json_output: bool,
    source_options: dict[str, Any],
) -> int:
    """Exit code: 0, or 130 after Ctrl-C (what was seen until then is saved)."""
    prepare_folder(out, overwrite=overwrite)
    source = open_source(path, **source_options)
    masks = build_masks(config)
    if isinstance(masks, LabelFiles):
        masks.check_against(source.frame_names)
    scene = build_scene(config, points)
    recording = _recording(out, record)
    start = time.perf_counter()
    interrupt = _Interrupt()
    result = _process(scene, source, masks, recording, interrupt)
    if not result.statistics.counters.get("frames"):
        raise SourceError(
            f"no frame of {path} could be used ({result.statistics.drops or 'it is empty'}); "
            f"`seg3d check {path}` tells more"
        )
    query = build_query(config)
    snapshot = result.snapshot if interrupt.set else _named(query, config.query.labels, result.snapshot)
    recording.snapshot(snapshot)
    recording.close()
    data = report(
        {"path": str(path), "kind": source.kind, "name": source.name, "frames": len(source)},
        config,
        snapshot,
        result.statistics,
        encoder_id=query.encoder_id,
        seconds=round(time.perf_counter() - start, 2),
        interrupted=interrupt.set,
    )
    names = {int(i): n for i, n in zip(snapshot.instances.ids, snapshot.names, strict=False) if n}
    write_scene(out / "map.seg3d", copy_scene(scene, names, query.encoder_id), overwrite=overwrite)
    write_instances(out / "instances.npz", snapshot)
    write_report(out / "report.json", data)
    _picture(out / "picture.png", snapshot, scene, source.name)
    if json_output:
        print_json(data)
    else:
        _tell(data, snapshot, out)
    return 130 if interrupt.set else 0


class _Interrupt:
    """The first Ctrl-C ends the run after the current frame; a second one ends the program."""

    def __init__(self) -> None:
        self.set = False
        self._before = signal.signal(signal.SIGINT, self._on_signal)

    def _on_signal(self, *_: object) -> None:
        self.set = True
        signal.signal(signal.SIGINT, self._before)
        errors.print("stopping after this frame and saving; Ctrl-C again to stop at once")


def _recording(out: Path, record: bool) -> Any:
    from ..viz import NoRecording, Recording

    return Recording(out / "recording.rrd") if record else NoRecording()


def _process(scene: Scene, source: Source, masks: Any, recording: Observer, interrupt: _Interrupt) -> OfflineResult:
    with progress() as bar:
        task = bar.add_task(f"{source.kind}: {source.name}", total=len(source), note="")

        def show(done: int, points: int) -> None:
            bar.update(task, completed=done, note=f"{points:,} points, {len(scene.snapshot.instances)} instances")

        return run_offline(
            scene, source, masks, observers=(recording,), on_frame=show, should_stop=lambda: interrupt.set
        )


def _named(query: TextQuery, wanted: bool, snapshot: Snapshot) -> Snapshot:
    """Labels by the text encoder, where there is one; a failing one costs the labels, not the run."""
    if not wanted or not query.encoder_id or not len(snapshot.instances):
        return snapshot
    try:
        with errors.status("naming the instances") if errors.is_terminal else _silence():
            return replace(snapshot, names=query.labels(snapshot))
    except Seg3DError as error:
        errors.print(f"[yellow]no labels: {error}[/yellow]")
        return snapshot


def _silence() -> Any:
    from contextlib import nullcontext

    return nullcontext()


def _picture(path: Path, snapshot: Snapshot, scene: Scene, title: str) -> None:
    from ..viz import render_instances

    render_instances(snapshot, path, title=title, cameras=scene.camera_poses)


def _tell(data: dict[str, Any], snapshot: Snapshot, out: Path) -> None:
    if len(snapshot.instances):
        console.print(instances_table(snapshot))
    else:
        console.print("No instances: were there keyframes with masks? The report counts them.")
    dropped = ", ".join(f"{n} {reason}" for reason, n in data["drops"].items())
    console.print(
        f"{data['frames']} frames ({data['keyframes']} keyframes) in {data['seconds']} s, {data['points']:,} points"
        + (f"; dropped: {dropped}" if dropped else "")
    )
    if not data["text_encoder"]:
        console.print("No text encoder is installed, so instances have no names: see `seg3d models list`.")
    console.print(f'Look at {out / "picture.png"}, or ask: seg3d query {out} "the sofa"', highlight=False)
