#!/usr/bin/env python3
# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Builds sdist and wheel, installs the wheel into an empty environment of each Python, and uses it as a stranger would.

    python scripts/smoke_wheel.py                       # this Python
    python scripts/smoke_wheel.py python3.10 python3.12 # these, one after the other
    python scripts/smoke_wheel.py --constraint constraints-lowest.txt python3.10

`seg3d check`, `run`, `export` and `eval` on examples/studio run from another folder, with a read-only home and a
read-only installation, and their results are looked at; an optional dependency that is missing must end in a sentence.
Needs the standard library and what pip is configured for. Prints one line per step; exit code 1 at the first failure.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
STUDIO = ROOT / "examples" / "studio"
DATA_SUFFIXES = {".json", ".txt"}
# Where root may write everything, this takes that right away, so that read-only folders are read-only for it too.
NO_OVERRIDE = ["setpriv", "--bounding-set=-dac_override", "--inh-caps=-dac_override"]
# Commands that need what the wheel alone does not bring: (arguments, exit code, a part of the sentence).
MISSING = (
    (["run", "synthetic", "--out", "{out}/room"], 2, "seg3d[synthetic]"),
    (["run", "{studio}", "--out", "{out}/recorded", "--record", "--max-frames", "3"], 2, "seg3d[viz]"),
    (["view", "{out}/map"], 2, "seg3d[viz]"),
    (["query", "{out}/map", "the sofa"], 1, "seg3d[offline]"),
    (["run", "{studio}", "--out", "{out}/sam", "--profile", "cpu"], 2, "seg3d[sam]"),
    (["run", "{studio}", "--out", "{out}/trained", "--core", "segdino3d"], 2, "segdino3d"),
    (["models", "random", "{out}/random.safetensors"], 2, "seg3d[segdino3d]"),
)


class SmokeError(Exception):
    """A step did not do what it must."""


def say(text: str) -> None:
    print(text, flush=True)


def call(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
    """Runs to the end; raises SmokeError with what was printed when it fails."""
    done = subprocess.run(command, capture_output=True, text=True, **options)  # type: ignore[call-overload]
    if done.returncode:
        raise SmokeError(
            f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-4000:]}"
        )
    return done


def build(folder: Path) -> Path:
    """The wheel made from the sdist, after it was compared with the one made from the source tree."""
    tools = folder / "tools"
    call([sys.executable, "-m", "venv", str(tools)])
    python = str(tools / "bin" / "python")
    call([python, "-m", "pip", "install", "-q", "build"])
    call([python, "-m", "build", "--outdir", str(folder / "dist"), str(ROOT)])
    call([python, "-m", "build", "--wheel", "--outdir", str(folder / "direct"), str(ROOT)])
    (wheel,), (direct,) = (list((folder / name).glob("*.whl")) for name in ("dist", "direct"))
    if contents(wheel) != contents(direct):
        differing = sorted(contents(wheel).items() ^ contents(direct).items())
        raise SmokeError(f"the wheel from the sdist differs from the one from the source tree: {differing[:10]}")
    say(f"built {wheel.name}, {wheel.stat().st_size // 1024} KB; the sdist builds the same")
    return wheel


def contents(wheel: Path) -> dict[str, int]:
    """Names and checksums of all files."""
    with zipfile.ZipFile(wheel) as archive:
        # RECORD lists the others in an order of its own.
        return {info.filename: info.CRC for info in archive.infolist() if not info.filename.endswith("/RECORD")}


def check_data_files(wheel: Path) -> None:
    """Every data file of the packages is in the wheel."""
    packages = [ROOT / "seg3d_core", ROOT / "training"]
    wanted = {
        path.relative_to(ROOT).as_posix()
        for package in packages
        for path in package.rglob("*")
        if path.suffix in DATA_SUFFIXES or path.name == "py.typed"
    }
    missing = wanted - set(contents(wheel))
    if missing:
        raise SmokeError(f"{wheel.name} lacks {', '.join(sorted(missing))}")
    say(f"{len(wanted)} data files are in it")


def install(python: str, wheel: Path, folder: Path, constraint: Path | None) -> Path:
    """A fresh environment with the wheel; returns its bin folder."""
    call([python, "-m", "venv", str(folder)])
    command = [str(folder / "bin" / "python"), "-m", "pip", "install", "-q", str(wheel)]
    call(command + (["-c", str(constraint)] if constraint else []))
    call([str(folder / "bin" / "python"), "-m", "pip", "check"])
    return folder / "bin"


def make_read_only(folder: Path) -> None:
    for path in [folder, *folder.rglob("*")]:
        if not path.is_symlink():
            path.chmod(path.stat().st_mode & ~(stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH))


def make_writable(folder: Path) -> None:
    for path in [folder, *folder.rglob("*")]:
        if path.is_dir() and not path.is_symlink():
            path.chmod(path.stat().st_mode | stat.S_IWUSR)


class Stranger:
    """Runs `seg3d` from another folder, without our environment, with a home that cannot be written."""

    def __init__(self, bin_folder: Path, folder: Path):
        self.command = str(bin_folder / "seg3d")
        self.python = str(bin_folder / "python")
        self.out = folder / "out"
        home, temporary = folder / "home", folder / "tmp"
        for each in (self.out, home, temporary):
            each.mkdir()
        home.chmod(0o555)
        self.environment = {"PATH": "/usr/bin:/bin", "HOME": str(home), "TMPDIR": str(temporary), "LANG": "C.UTF-8"}
        self.prefix = NO_OVERRIDE if os.getuid() == 0 else []
        if self.prefix and not shutil.which("setpriv"):
            raise SmokeError("as root, a read-only home needs setpriv (util-linux) to be read-only")

    def call(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        where = {"cwd": "/", "env": self.environment}
        return subprocess.run([*self.prefix, *command], capture_output=True, text=True, **where)  # type: ignore[call-overload]

    def seg3d(self, *arguments: str) -> str:
        """Standard output; raises SmokeError on any exit code but 0."""
        done = self.call([self.command, *arguments])
        if done.returncode:
            raise SmokeError(f"seg3d {' '.join(arguments)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done.stdout

    def refuses(self, arguments: list[str], code: int, sentence: str) -> None:
        places = {"out": str(self.out), "studio": str(STUDIO)}
        done = self.call([self.command, *(part.format(**places) for part in arguments)])
        said = done.stdout + done.stderr
        if done.returncode != code or "Traceback" in said or sentence not in " ".join(said.split()):
            wanted = f"must end with {code} and name {sentence}"
            raise SmokeError(f"seg3d {' '.join(arguments)} {wanted}; {done.returncode}:\n{said}")


def expect(condition: bool, text: str) -> None:
    if not condition:
        raise SmokeError(text)


def use(stranger: Stranger) -> None:
    """Raises SmokeError at the first thing that is not as it must be."""
    wrote = stranger.call(["sh", "-c", 'touch "$HOME/x" 2>/dev/null'])
    expect(wrote.returncode != 0, "the home can be written: this run shows nothing")
    version = stranger.seg3d("--version").split()[1]
    checked = json.loads(stranger.seg3d("check", str(STUDIO), "--json"))
    expect(checked["ok"] and checked["counts"]["read"] == checked["counts"]["frames"], f"seg3d check: {checked}")
    out = stranger.out / "map"
    report = json.loads(stranger.seg3d("run", str(STUDIO), "--out", str(out), "--json"))
    expect(report["seg3d"] == version and report["points"] > 100_000, f"seg3d run: {report['points']} points")
    expect(len(report["instances"]) > 10, f"seg3d run: {len(report['instances'])} instances")
    for name in ("map.seg3d", "report.json", "picture.png", "instances.npz"):
        expect((out / name).stat().st_size > 1000, f"{name} is empty")
    kernels = list((stranger.out.parent / "tmp").rglob("*.nbi"))
    expect(bool(kernels), "no compiled kernel was kept in the temporary folder")
    stranger.seg3d("export", str(out), "--out", str(stranger.out / "map.ply"))
    scores = stranger.out / "scores.json"
    stranger.seg3d("eval", str(out), str(STUDIO), "--protocol", "own", "--json", str(scores))
    expect(bool(json.loads(scores.read_text())), "seg3d eval wrote nothing")
    stranger.seg3d("models", "list")
    for missing in MISSING:
        stranger.refuses(*missing)
    say(
        f"  check, run, export, eval: {report['points']} points, {len(report['instances'])} instances, "
        f"{len(kernels)} kernels kept; {len(MISSING)} missing extras each end in a sentence"
    )


def smoke(python: str, wheel: Path, folder: Path, constraint: Path | None) -> None:
    say(f"{call([python, '--version']).stdout.strip()}, {python}")
    environment = folder / "environment"
    bin_folder = install(python, wheel, environment, constraint)
    make_read_only(environment)
    try:
        use(Stranger(bin_folder, folder))
    finally:
        make_writable(folder)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pythons", nargs="*", default=[sys.executable])
    parser.add_argument("--constraint", type=Path, help="a constraints file for pip")
    parser.add_argument("--keep", type=Path, help="put sdist and wheel into this folder")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="seg3d-wheel-") as name:
        folder = Path(name)
        try:
            wheel = build(folder)
            check_data_files(wheel)
            for number, python in enumerate(arguments.pythons):
                place = folder / str(number)
                place.mkdir()
                smoke(python, wheel, place, arguments.constraint and arguments.constraint.resolve())
        except SmokeError as error:
            say(f"FAILED: {error}")
            return 1
        if arguments.keep:
            shutil.copytree(folder / "dist", arguments.keep, dirs_exist_ok=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
