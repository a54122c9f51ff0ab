# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""`python -m training.prepare`: from downloaded scans to the cache that training reads.

    check RAW                what is there, what is missing
    scenes RAW CACHE         points, colours, superpoints, labels, poses
    features RAW CACHE       image features and object queries by a 2D model of the core
    rooms RAW                generated rooms as a raw release, in place of ScanNet

Each command goes on where it was stopped: files are whole or not there, and what is whole is left alone.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, get_args

import typer
from rich.logging import RichHandler

from seg3d_core.cli.console import console, errors, progress
from seg3d_core.cli.options import settings as core_settings
from seg3d_core.errors import Seg3DError

from .prepare_features import FeatureSettings, FeatureTask, detector_of, prepare_features
from .prepare_pool import Result, Task, run_tasks
from .prepare_scenes import Partition, PointSource, SceneSettings, SceneTask, prepare_scene
from .readers_labels import read_label_table
from .readers_scannet import SPLITS, ScanFiles, find_label_table, find_scans

_CPUS = os.cpu_count() or 1
_SHOWN = 10

app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__, rich_markup_mode=None)

Raw = Annotated[Path, typer.Argument(help="folder of the release: scans/, scans_test/, label table, split lists")]
Cache = Annotated[Path, typer.Argument(help="folder of the cache")]
Workers = Annotated[int, typer.Option(help="scenes at a time, each in its own process", min=1)]
WithRay = Annotated[bool, typer.Option("--ray", help="run on a Ray cluster in place of local processes")]
Splits = Annotated[list[str] | None, typer.Option("--split", help="only this split; may be given again")]
Only = Annotated[list[str] | None, typer.Option("--scene", help="only this scene; may be given again")]


@app.command()
def check(
    raw: Raw,
    images: Annotated[bool, typer.Option(help="ask for the .sens files")] = True,
) -> None:
    """Says what is there and what is missing; fails where something is."""
    with _sentences():
        table = read_label_table(find_label_table(raw))
        console.print(f"label table: {len(table)} raw categories")
        complete = True
        for split, scans in find_scans(raw).items():
            missing = {scan.scene: scan.missing(images) for scan in scans}
            lacking = {scene: names for scene, names in missing.items() if names}
            console.print(f"{split}: {len(scans) - len(lacking)} of {len(scans)} scans are complete")
            for scene, names in list(lacking.items())[:_SHOWN]:
                console.print(f"  {scene} lacks {', '.join(names)}", highlight=False)
            if len(lacking) > _SHOWN:
                console.print(f"  and {len(lacking) - _SHOWN} more")
            complete = complete and not lacking
        if not complete:
            raise typer.Exit(1)


@app.command()
def scenes(
    raw: Raw,
    cache: Cache,
    workers: Workers = _CPUS,
    ray: WithRay = False,
    split: Splits = None,
    scene: Only = None,
    frame_stride: Annotated[int, typer.Option(help="every how many-th frame is chosen for 2D features", min=1)] = 20,
    superpoints: Annotated[
        str, typer.Option(help="segments: those of the mesh; points: as the core has them")
    ] = "segments",
    images: Annotated[bool, typer.Option(help="read the .sens files; published features do without them")] = True,
    points: Annotated[
        str, typer.Option(help="mesh: its vertices; map: what the core fuses from the frames, with its superpoints")
    ] = "mesh",
    map_voxel: Annotated[float, typer.Option(help="edge of that map's voxels in metres", min=0.005, max=0.2)] = 0.02,
    keep_voxel: Annotated[
        float,
        typer.Option(help="keep one point of that map in each superpoint and cube of so many metres", min=0, max=1),
    ] = 0.0,
) -> None:
    """Makes cache/scenes/<scene>.npz of each scan, and cache/splits."""
    with _sentences():
        _choose("--superpoints", superpoints, get_args(Partition))
        _choose("--points", points, get_args(PointSource))
        partition: Any = "points" if points == "map" else superpoints
        settings = SceneSettings(frame_stride, partition, images, points, map_voxel, keep_voxel)  # type: ignore[arg-type]
        table = find_label_table(raw).resolve()
        read_label_table(table)
        found = _chosen(raw, split, scene)
        places = {s.scene: cache.resolve() / "scenes" / f"{s.scene}.npz" for scans in found.values() for s in scans}
        tasks = [SceneTask(s, table, places[s.scene], settings) for scans in found.values() for s in scans]
        failed = _run("scenes", prepare_scene, tasks, workers, ray)
        _write_splits(cache, find_scans(raw))
        _finish("scenes", tasks, failed)


@app.command()
def features(
    raw: Raw,
    cache: Cache,
    name: Annotated[str, typer.Option(help="of the features: cache/features/NAME")],
    assignments: Annotated[
        list[str] | None, typer.Option("--set", help="a setting of the core, such as perception.masks=mobile_sam")
    ] = None,
    profile: Annotated[str, typer.Option(help="of the core's settings")] = "cpu-geometric",
    workers: Workers = 1,
    ray: WithRay = False,
    split: Splits = None,
    scene: Only = None,
    views: Annotated[int, typer.Option(help="views of which a point takes the mean", min=1, max=16)] = 3,
    nearest: Annotated[bool, typer.Option("--nearest/--farthest", help="which views")] = True,
    object_score: Annotated[float, typer.Option(help="2D objects of a higher score become queries")] = 0.3,
    object_queries: Annotated[int, typer.Option(help="object queries of a scene at most", min=0)] = 2048,
) -> None:
    """Makes cache/features/NAME/<scene>.npz of each scene by the 2D model that `perception.masks` names."""
    with _sentences():
        config = core_settings(profile, None, assignments or []).model_dump_json()
        if not ray:
            detector_of(config)
        settings = FeatureSettings(views, nearest, object_score, object_queries)
        scans = [s for found in _chosen(raw, split, scene).values() for s in found]
        ready = [s for s in scans if (cache / "scenes" / f"{s.scene}.npz").is_file()]
        if not ready:
            raise Seg3DError(f"{cache} holds none of these scenes: python -m training.prepare scenes {raw} {cache}")
        if len(ready) < len(scans):
            errors.print(f"{len(scans) - len(ready)} scenes are not in the cache and are left out", style="yellow")
        tasks = [_feature_task(s, cache.resolve(), name, settings, config) for s in ready]
        _finish("features", tasks, _run(f"features {name}", prepare_features, tasks, workers, ray))


@app.command()
def rooms(
    raw: Annotated[Path, typer.Argument(help="folder of the release that is made")],
    train: Annotated[int, typer.Option(help="rooms to train on", min=0)] = 300,
    val: Annotated[int, typer.Option(help="rooms to evaluate on", min=0)] = 50,
    test: Annotated[int, typer.Option(help="rooms without annotation", min=0)] = 0,
    first_seed: Annotated[int, typer.Option(help="of the first room; they are numbered on", min=0)] = 1000,
    workers: Workers = _CPUS,
    ray: WithRay = False,
    frames: Annotated[int, typer.Option(help="images of each room", min=1)] = 60,
    width: Annotated[int, typer.Option(help="of images, in pixels")] = 320,
    height: Annotated[int, typer.Option(help="of images, in pixels")] = 240,
    walk_stride: Annotated[
        int,
        typer.Option(
            help="every how many-th step of the walk (0.3 m) is an image; few images then see a whole room", min=1
        ),
    ] = 1,
    noisy: Annotated[bool, typer.Option(help="depth of a structured-light camera, and poses that drift")] = False,
    edge: Annotated[float, typer.Option(help="longest side of the mesh's triangles, in metres", min=0.005)] = 0.05,
) -> None:
    """Makes generated rooms in the layout and the formats of a ScanNet v2 release."""
    from .prepare_rooms import RoomSettings, make_room, room_tasks

    with _sentences():
        counts = {name: count for name, count in (("train", train), ("val", val), ("test", test)) if count}
        settings = RoomSettings(frames, width, height, noisy, edge, walk_stride)
        tasks = room_tasks(raw.resolve(), counts, first_seed, settings)
        _finish("rooms", tasks, _run("rooms", make_room, tasks, workers, ray))


def _feature_task(scan: ScanFiles, cache: Path, name: str, settings: FeatureSettings, config: str) -> FeatureTask:
    scene, target = cache / "scenes" / f"{scan.scene}.npz", cache / "features" / name / f"{scan.scene}.npz"
    return FeatureTask(scan.scene, scene, scan.sens.resolve(), target, settings, config)


def _chosen(raw: Path, splits: list[str] | None, scenes: list[str] | None) -> dict[str, list[ScanFiles]]:
    found = find_scans(raw.resolve(), tuple(splits or SPLITS))
    if scenes:
        found = {split: [s for s in scans if s.scene in scenes] for split, scans in found.items()}
        unknown = set(scenes) - {s.scene for scans in found.values() for s in scans}
        if unknown:
            raise Seg3DError(f"no split lists {', '.join(sorted(unknown))}")
    return found


def _run(title: str, function: Callable[[Any], Any], tasks: Sequence[Task], workers: int, ray: bool) -> dict[str, str]:
    """Runs all; the errors by scene."""
    failed: dict[str, str] = {}
    made = kept = 0
    with progress() as bar:
        line = bar.add_task(title, total=len(tasks), note="")
        for result in run_tasks(function, tasks, min(workers, len(tasks)), ray):
            _tell(result)
            if result.outcome is None:
                failed[result.name] = result.error
            made += result.outcome is not None and result.outcome.made
            kept += result.outcome is not None and not result.outcome.made
            bar.update(line, advance=1, note=f"{len(failed)} failed" if failed else "")
    console.print(json.dumps({"what": title, "made": made, "kept": kept, "failed": len(failed)}), highlight=False)
    return failed


def _tell(result: Result) -> None:
    if result.outcome is None:
        errors.print(f"{result.name}: {result.error}", style="red", highlight=False, soft_wrap=True)
        return
    for note in result.outcome.notes:
        errors.print(f"{result.name}: {note}", style="yellow", highlight=False, soft_wrap=True)


def _choose(option: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise Seg3DError(f"{option} {value!r}: choose one of {', '.join(known)}")


def _write_splits(cache: Path, found: dict[str, list[ScanFiles]]) -> None:
    """The splits as far as they are prepared."""
    (cache / "splits").mkdir(parents=True, exist_ok=True)
    for split, scans in found.items():
        ready = [s.scene for s in scans if (cache / "scenes" / f"{s.scene}.npz").is_file()]
        (cache / "splits" / f"{split}.txt").write_text("".join(f"{name}\n" for name in ready), encoding="utf-8")


def _finish(what: str, tasks: Sequence[Task], failed: dict[str, str]) -> None:
    if failed:
        errors.print(f"{len(failed)} of {len(tasks)} {what} failed; the others are done and stay", style="red")
        raise typer.Exit(1)


@contextmanager
def _sentences() -> Iterator[None]:
    """What a person can mend is told in a sentence, not as a traceback."""
    try:
        yield
    except Seg3DError as error:
        errors.print(f"error: {error}", style="red", highlight=False, soft_wrap=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        errors.print("stopped; what is done stays done, the same command goes on", style="yellow")
        raise typer.Exit(130) from None


def main() -> None:
    handler = RichHandler(console=errors, show_path=False, show_time=False)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[handler])
    app()


if __name__ == "__main__":
    main()
