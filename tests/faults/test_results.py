# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""`seg3d run` under fire: whatever ends it, its folder holds the old results or the new ones, and all of one run."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

from seg3d_core.cli import main, results
from seg3d_core.cli.query import load_snapshot

SMALL = ("--set", "map.voxel_size=0.05", "--set", "re0.min_points=20", "--set", "query.encoder=none")
NAMES = {"map.seg3d", "instances.npz", "picture.png", "report.json"}
# What Python itself makes of a signal while it starts, before any of our code runs, and what we make of it.
CODES = {signal.SIGINT: (130, -signal.SIGINT), signal.SIGTERM: (143, -signal.SIGTERM)}


def command(scene: Path, out: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "seg3d_core.cli", "run", str(scene), "--out", str(out), "--overwrite", *SMALL, *more]


def visible(out: Path) -> set[str]:
    return {path.name for path in out.iterdir() if not path.name.startswith(".")} if out.is_dir() else set()


def points_everywhere(out: Path) -> int:
    """The number of points, which map, table of points and report agree on."""
    snapshot = load_snapshot(out)  # as `seg3d query` does: what a dead run had finished is put into place first
    assert visible(out) - {"recording.rrd"} == NAMES
    counts = {
        len(snapshot.cloud),
        len(np.load(out / "instances.npz")["xyz"]),
        json.loads((out / "report.json").read_text())["points"],
    }
    assert len(counts) == 1, counts
    return counts.pop()


@pytest.fixture(scope="module")
def two_results(box_room_folder, tmp_path_factory) -> tuple[Path, Path, set[int]]:
    """A scene, and the results of 3 and of 9 of its frames in one folder's two states."""
    folder = tmp_path_factory.mktemp("fire")
    counts = set()
    for frames in ("3", "9"):
        subprocess.run(command(box_room_folder, folder / frames, "--max-frames", frames), check=True, timeout=120,
                       capture_output=True)  # fmt: skip
        counts.add(points_everywhere(folder / frames))
    assert len(counts) == 2
    return folder / "3", folder / "9", counts


class Killed(BaseException):
    """Stands for SIGKILL at one system call: nothing after it happens."""


def moments(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """The `number`-th change of a file's place or name kills, before it is done."""
    left = [number]

    def guarded(function):
        def call(*args, **options):
            if left[0] == 0:
                raise Killed
            left[0] -= 1
            return function(*args, **options)

        return call

    for name in ("replace", "unlink", "rmdir", "mkdir"):
        monkeypatch.setattr(Path, name, guarded(getattr(Path, name)))
    monkeypatch.setattr(results.shutil, "rmtree", guarded(results.shutil.rmtree))


def every_state(old: Path, new: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder as each change leaves it, should the process die there."""
    for number in range(100):
        out = folder / str(number)
        out.mkdir()
        for file in old.iterdir():
            (out / file.name).write_bytes(file.read_bytes())
        (out / "recording.rrd").write_bytes(b"of the old run")
        died = False
        with monkeypatch.context() as patch:
            moments(patch, number)
            try:
                with results.claimed(out), results.staged(out) as staging:
                    for file in new.iterdir():
                        (staging / file.name).write_bytes(file.read_bytes())
            except Killed:
                died = True
        yield out
        if not died:
            return
    raise AssertionError("too many changes")


def test_a_kill_at_any_change_of_a_file_leaves_one_runs_results(two_results, tmp_path, monkeypatch):
    old, new, counts = two_results
    seen = []
    for out in every_state(old, new, tmp_path, monkeypatch):
        seen.append((points_everywhere(out), "recording.rrd" in visible(out)))
    few, many = sorted(counts)
    first_new = seen.index((many, False))
    assert seen == [(few, True)] * first_new + [(many, False)] * (len(seen) - first_new)
    assert first_new > 0 and len(seen) > 8


def test_what_an_earlier_run_left_beside_goes_and_what_others_put_there_stays(two_results, tmp_path):
    old, new, _ = two_results
    for name in ("recording.rrd", "instances-segdino3d.npz", "comparison.png", "notes.txt"):
        (tmp_path / name).write_text("x")
    for source in (old, new):
        with results.claimed(tmp_path), results.staged(tmp_path) as staging:
            for file in source.iterdir():
                (staging / file.name).write_bytes(file.read_bytes())
    assert {path.name for path in tmp_path.iterdir()} == NAMES | {"notes.txt"}


def test_a_disk_that_fills_at_any_byte_ends_a_run_with_a_sentence(
    two_results, box_room_folder, tmp_path, monkeypatch, capsys
):
    old, new, _ = two_results
    for file in old.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    largest = max(file.stat().st_size for file in new.iterdir())
    for limit in np.random.default_rng(0).integers(100, largest // 2, 4).tolist():
        monkeypatch.setattr(sys, "argv", ["seg3d", *command(box_room_folder, tmp_path)[3:]])
        with no_file_larger_than(limit), pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr().err
        assert ended.value.code == 2 and "no space left" in said and "Traceback" not in said, said
        assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


@contextmanager
def no_file_larger_than(size: int):
    """A disk that is nearly full, as far as this process can tell."""
    limits, ignored = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)


def started(scene: Path, out: Path, *more: str) -> subprocess.Popen[str]:
    """In a session of its own, so that orphans could be told."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command(scene, out, *more), start_new_session=True, **quiet)


def ended(child: subprocess.Popen[str]) -> tuple[float, str]:
    """Seconds of processor time from now to the end, and what was said: seconds of the clock grow with what others do.

    One that waits for ever uses none, and runs into the timeout.
    """
    if child.poll() is not None:
        return 0.0, child.communicate()[1]
    used, before = seconds_of(child.pid), seconds_of_ended()
    _, errors = child.communicate(timeout=60)
    return seconds_of_ended() - before - used, errors


def seconds_of(process: int) -> float:
    """Processor time of a process and of the children that it has waited for (fields 14 to 17 of its stat)."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def seconds_of_ended() -> float:
    """Processor time of all children that this process has waited for."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("seed", range(4))
def test_a_signal_at_any_time_ends_a_run_with_old_or_new_results(two_results, box_room_folder, tmp_path, number, seed):
    """At a random moment of starting, of mapping, of saving."""
    old, _, _ = two_results
    out = tmp_path / "out"
    out.mkdir()
    for file in old.iterdir():
        (out / file.name).write_bytes(file.read_bytes())
    before = (out / "report.json").read_bytes()
    child = started(box_room_folder, out)
    with suppress(subprocess.TimeoutExpired):
        child.wait(random.Random(f"{seed} {number}").uniform(0.05, 3.0))
    child.send_signal(number)
    seconds, errors = ended(child)
    assert child.returncode in (0, *CODES[number]), errors
    assert seconds < 5.0, "nothing long is begun after the signal"
    assert no_process_of(child.pid)
    assert {path.name for path in out.iterdir()} == NAMES, "no half file"
    points_everywhere(out)
    if child.returncode == 0:
        assert (out / "report.json").read_bytes() != before, "it was done already"


def no_process_of(session: int) -> bool:
    """Whether nobody of a session lives."""
    try:
        os.killpg(session, 0)
    except ProcessLookupError:
        return True
    return False


def test_ctrl_c_and_sigterm_in_the_middle_save_what_was_seen(studio, tmp_path, until):
    """Once frames go in, the first signal saves; both kinds with the exit code that shells give them."""
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        out = tmp_path / number.name
        child = started(studio, out, "--set", "runtime.autosave_minutes=0.001")
        assert until(lambda out=out: (out / "autosave.seg3d").exists()), "frames are in the map"
        child.send_signal(number)
        _, errors = ended(child)
        assert (child.returncode, "stopping after this frame and saving" in errors) == (code, True), errors
        assert json.loads((out / "report.json").read_text())["interrupted"] is True
        points_everywhere(out)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_at_once_and_leaves_nothing_half(studio, tmp_path, number):
    out = tmp_path / "out"
    child = started(studio, out)
    while not list(out.glob(".seg3d-new-*")):
        assert child.poll() is None
        time.sleep(0.01)
    child.send_signal(number)
    time.sleep(0.02)
    child.send_signal(number)
    seconds, errors = ended(child)
    assert child.returncode == 128 + number, errors
    assert seconds < 5.0
    assert visible(out) in (set(), NAMES) and {p.name for p in out.iterdir()} == visible(out)
