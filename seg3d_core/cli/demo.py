# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""`python -m seg3d_core.cli.demo`: the demo where no ROS 2 can be had, and what both demos share."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

from .. import readiness
from ..build import build_query, rebuild_scene
from ..config import build
from ..errors import QueryError, Seg3DError
from ..runtime import Statistics
from ..storage import read_scene
from ..types import QueryResult, Snapshot
from .console import console, print_answers
from .results import report, write_instances, write_report

QUESTIONS = ("the stove", "a bookshelf", "an elephant")
SETTINGS = {"runtime.segment_every": 10}
# Frames per second: what two cores keep up with when every frame is a keyframe, as in the flat that comes along.
RATE, RATE_WITH_MOBILE_SAM = 5.0, 2.5


def arguments(words: Sequence[str] | None, about: str) -> argparse.Namespace:
    """SCENE, --out, --rate, --weights-dir and --ask."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("scene", nargs="?", default="examples/studio", help="folder, bag, or synthetic[:SEED[:noisy]]")
    parser.add_argument("--out", type=Path, default=Path("out/demo"), help="where the results go (replaced)")
    parser.add_argument(
        "--rate", type=float, help=f"frames per second; {RATE}, or {RATE_WITH_MOBILE_SAM} with MobileSAM's masks"
    )
    parser.add_argument("--weights-dir", default="", help="where weights lie that are not in the cache folder")
    parser.add_argument("--ask", nargs="+", default=list(QUESTIONS), metavar="TEXT", help="what to look for")
    return parser.parse_args(words)


def choose_profile(options: argparse.Namespace) -> tuple[str, dict[str, object]]:
    """The best profile of which all is here, and the settings on top of it; says what a better one lacks.

    Fills in the rate.
    """
    profile, absent = readiness.best_profile(options.weights_dir)
    settings = {**SETTINGS, **({"query.weights_dir": options.weights_dir} if options.weights_dir else {})}
    for sentence in absent:
        console.print(f"better masks: {sentence}", highlight=False, soft_wrap=True, markup=False)
    options.rate = options.rate or (RATE if absent else RATE_WITH_MOBILE_SAM)
    return profile, settings


def leave_results(
    out: Path, source: dict[str, object], statistics: Statistics, answers: Sequence[QueryResult], **more: object
) -> Snapshot:
    """Picture, instances and report from the saved map in `out`; returns its snapshot."""
    from ..viz import render_instances

    saved = read_scene(out / "map.seg3d")
    scene = rebuild_scene(saved)
    snapshot = scene.segment().with_names(saved.names)
    write_instances(out / "instances.npz", snapshot)
    render_instances(snapshot, out / "picture.png", title=str(source.get("name", "")), cameras=scene.camera_poses)
    data = report(dict(source), scene.config, snapshot, statistics, answers, saved.encoder_id, **more)
    write_report(out / "report.json", data)
    return snapshot


def tell(out: Path, snapshot: Snapshot, answers: Sequence[QueryResult]) -> None:
    """The table, and what to try next."""
    print_answers(answers)
    if not any(a.encoder_id for a in answers):
        console.print("No text encoder is installed, so things are found by label or id only: seg3d models list")
    console.print(f"{len(snapshot.cloud):,} points, {len(snapshot.instances)} instances; look at {out / 'picture.png'}")
    console.print(f"Next: {_command()} view {out}, or your own: make demo SCENE=FOLDER_OR_BAG", highlight=False)


def _command() -> str:
    """`seg3d` as a person has to type it here: the environment that `make` filled may not be active."""
    if shutil.which("seg3d"):
        return "seg3d"
    beside = Path(sys.executable).with_name("seg3d")
    return str(beside.relative_to(Path.cwd()) if beside.is_relative_to(Path.cwd()) else beside)


def main(words: Sequence[str] | None = None) -> int:
    """The demo without ROS: the same scene through `seg3d run`, then the questions."""
    options = arguments(words, main.__doc__ or "")
    from .run import run

    console.print("The demo without ROS 2: the same map, masks and questions in one process.", highlight=False)
    profile, settings = choose_profile(options)
    config = build(settings, profile)
    run(
        options.scene,
        options.out,
        config,
        profile=profile,
        points=None,
        record=find_spec("rerun") is not None,
        overwrite=True,
        json_output=False,
        source_options={},
    )
    saved = read_scene(options.out / "map.seg3d")
    snapshot = rebuild_scene(saved).segment().with_names(saved.names)
    query = build_query(config)
    answers = []
    for text in options.ask:
        try:
            answers.append(query.answer(text, snapshot))
        except QueryError as error:
            answers.append(QueryResult(text, (), False, str(error), query.encoder_id))
    file = options.out / "report.json"
    write_report(file, {**json.loads(file.read_text()), "answers": [asdict(answer) for answer in answers]})
    tell(options.out, snapshot, answers)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Seg3DError as error:
        sys.exit(f"seg3d: {error}")
