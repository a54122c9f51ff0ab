# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Trains a network.

python -m training.train --recipe scannet200 --set data.root=CACHE --set data.features=dino-x --out runs/first
torchrun --nproc-per-node 4 -m training.train ...      several GPUs; --nnodes and friends for several machines
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from seg3d_core.cli.console import errors
from seg3d_core.config import parse_assignments
from seg3d_core.errors import Seg3DError

from .config import RECIPES, build, change, read_config, read_values
from .engine import Trainer
from .processes import Processes


def run(options: argparse.Namespace) -> None:
    """The command. Raises Seg3DError."""
    out = Path(options.out)
    values = {**(read_values(options.config) if options.config else {}), **parse_assignments(options.set)}
    beside = out / "config.json"
    if options.resume and beside.is_file() and options.recipe is None:
        config = change(read_config(beside), values)
    else:
        config = build(values, options.recipe or "scannet200")
    processes = Processes.join(config.run.device)
    try:
        trainer = Trainer(config, out, processes, options.resume)
        trainer.run(_say if processes.is_first else _be_silent)
    finally:
        processes.leave()


def _say(text: str) -> None:
    errors.print(text, markup=False, highlight=False, soft_wrap=True)


def _be_silent(text: str) -> None:
    """All but the first process."""


def parser() -> argparse.ArgumentParser:
    out = argparse.ArgumentParser(prog="python -m training.train", description=(__doc__ or "").splitlines()[0])
    out.add_argument("--recipe", help=f"settings to start from: {', '.join(RECIPES)}; scannet200 where none is named")
    out.add_argument("--config", help="YAML file of settings on top")
    out.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting on top of all")
    out.add_argument("--out", required=True, help="folder of the run")
    out.add_argument("--resume", action="store_true", help="go on where the run in --out stands, or begin it")
    return out


def main(arguments: Sequence[str] | None = None) -> int:
    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s")
    try:
        run(parser().parse_args(arguments))
    except Seg3DError as error:
        errors.print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        errors.print("stopped; the same command with --resume goes on from the last checkpoint", style="yellow")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
