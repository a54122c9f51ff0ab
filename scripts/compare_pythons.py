#!/usr/bin/env python3
# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Maps one scene with several Python versions and tells whether every array, picture and instance has the same bytes.

    python scripts/compare_pythons.py [--scene examples/studio] [--folder DIR] [python3.10 python3.11 python3.12]

Each interpreter gets an environment of its own in the folder, with the same versions of the libraries that compute:
the newest that are there for all of Python 3.10 to 3.12. Run it where seg3d is installed, for its list of requirements.
Ends with 1 where bytes differ.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PINS = ("numpy==2.2.6", "scipy==1.15.3", "numba==0.61.2", "opencv-python-headless==4.12.0.88", "pillow==11.3.0")


def environment(interpreter: str, folder: Path) -> Path:
    """The Python of an environment with all that seg3d needs, made where it is not there yet."""
    python = folder / interpreter.replace("/", "_").lstrip("_") / "bin" / "python"
    if (python.parent / ".complete").exists():
        return python
    subprocess.run([interpreter, "-m", "venv", "--clear", python.parents[1]], check=True)
    pins = folder / "pins.txt"
    pins.write_text("\n".join(PINS))
    needed = [line for line in importlib.metadata.requires("seg3d") or () if "extra ==" not in line]
    subprocess.run([python, "-m", "pip", "install", "-q", "-c", pins, *needed], check=True)
    (python.parent / ".complete").touch()
    return python


def digests(python: Path, scene: str, settings: list[str]) -> dict[str, str]:
    words = [word for setting in settings for word in ("--set", setting)]
    done = subprocess.run(
        [python, ROOT / "scripts" / "digest.py", scene, *words],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        check=True,
    )
    return json.loads(done.stdout)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pythons", nargs="*", default=["python3.10", "python3.11", "python3.12"])
    parser.add_argument("--scene", default=str(ROOT / "examples" / "studio"), help="what `seg3d run` takes")
    parser.add_argument("--folder", type=Path, default=ROOT / "out" / "pythons", help="where the environments lie")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting")
    options = parser.parse_args()
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    first: dict[str, str] = {}
    differ = False
    for interpreter in options.pythons:
        python = environment(interpreter, folder)
        found = digests(python, options.scene, options.set)
        first = first or found
        other = sorted(name for name in first.keys() | found.keys() if first.get(name) != found.get(name))
        differ |= bool(other)
        version = subprocess.run([python, "-V"], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
        same = f"differs in {', '.join(other)}" if other else "the same bytes"
        print(f"{version}: {len(found)} parts, {found['instances']} instances, {same}", flush=True)
    return int(differ)


if __name__ == "__main__":
    sys.exit(main())
