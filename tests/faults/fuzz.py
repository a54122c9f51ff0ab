# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Runs spoiled files through a reader, in a process of its own with a bound on memory.

A spoiled file may be refused with a Seg3DError, or be read. Anything else is a failure: another exception, more than
the limit of processor time or of memory, a file written elsewhere, a pickle or a program executed, the process gone.
The number of a case, the reader's name and the seed make the spoiled file: `python fuzz.py --reader NAME --case N`.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SEED = 20260
MEMORY = 256 << 20  # bytes above what the good sample takes
HANGS = 300.0  # seconds without news from the child, its start included


@dataclass
class Outcome:
    """What became of the cases of one reader."""

    reader: str
    tried: int = 0
    refused: int = 0
    read: int = 0
    slowest: float = 0.0
    largest_mb: float = 0.0
    failures: list[dict[str, Any]] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.reader}: {self.tried} tried, {self.refused} refused, {self.read} read, "
            f"{len(self.failures)} failed; slowest {self.slowest:.2f} s, most memory {self.largest_mb:.0f} MB"
        )


def run(plan: Mapping[str, Sequence[int]], *, seed: int = SEED, seconds: float = 1.0) -> dict[str, Outcome]:
    """Tries the cases of each reader, in one child as long as it lives.

    A child that dies is a failure of the case that it was at, and the next goes on after it.
    """
    outcomes = {reader: Outcome(reader) for reader in plan}
    left = [(reader, case) for reader, cases in plan.items() for case in cases]
    while left:
        left = left[_one_child(left, seed, seconds, outcomes) :]
    return outcomes


def _one_child(cases: list[tuple[str, int]], seed: int, seconds: float, outcomes: dict[str, Outcome]) -> int:
    """How many cases were begun."""
    command = [sys.executable, str(Path(__file__)), "--child", "--seed", str(seed), "--seconds", str(seconds)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    with tempfile.TemporaryDirectory(prefix="seg3d_fuzz_") as folder:
        child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=folder
        )
        assert child.stdin is not None and child.stdout is not None
        child.stdin.write(json.dumps(cases))
        child.stdin.close()
        begun, done = 0, 0
        watchdog = _Watchdog(child)
        for line in child.stdout:
            watchdog.touch()
            news = json.loads(line)
            if "begin" in news:
                begun += 1
            else:
                done += 1
                _count(outcomes[cases[begun - 1][0]], news)
        code = child.wait()
        watchdog.cancel()
        if done == begun < len(cases):
            raise RuntimeError(f"{cases[begun][0]}: the good sample cannot be read (exit code {code})")
        if done < begun:
            reader, case = cases[begun - 1]
            kind = "hung" if watchdog.fired else f"died ({code})"
            outcomes[reader].tried += 1
            outcomes[reader].failures.append({"case": case, "kind": kind, "where": ""})
    return begun


def _count(outcome: Outcome, news: dict[str, Any]) -> None:
    outcome.tried += 1
    outcome.slowest = max(outcome.slowest, news["seconds"])
    outcome.largest_mb = max(outcome.largest_mb, news["megabytes"])
    if news["outcome"] == "failure":
        outcome.failures.append({"case": news["case"], "kind": news["kind"], "where": news["where"]})
    else:
        setattr(outcome, news["outcome"], getattr(outcome, news["outcome"]) + 1)


class _Watchdog:
    """Kills a child that says nothing for long."""

    def __init__(self, child: subprocess.Popen[str]):
        import threading

        self.fired, self._child, self._at, self._over = False, child, time.monotonic(), threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def touch(self) -> None:
        self._at = time.monotonic()

    def cancel(self) -> None:
        self._over.set()

    def _watch(self) -> None:
        while not self._over.wait(1.0):
            if time.monotonic() - self._at > HANGS:
                self.fired = True
                self._child.kill()
                return


# --- the child --------------------------------------------------------------------------------------


class Guard:
    """Notes what a reader must not do: write outside of a folder, execute a program or a pickle, use the network."""

    FORBIDDEN = ("os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "os.fork", "pickle.find_class",
                 "socket.connect", "shutil.rmtree")  # fmt: skip
    MOVING = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod")

    def __init__(self) -> None:
        self.folder, self.active, self.seen = "", False, ""
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.active:
            return
        if event == "pickle.find_class" and _is_called_by_numba():
            return
        if event in self.FORBIDDEN:
            self.seen = f"{event} {str(arguments)[:100]}"
        elif event in self.MOVING:
            self._check(event, arguments[0])
        elif event == "open" and isinstance(arguments[0], str | bytes):
            mode, flags = arguments[1] or "", arguments[2] or 0
            if any(c in str(mode) for c in "wax+") or flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                self._check(event, arguments[0])

    def _check(self, event: str, path: Any) -> None:
        path = os.path.realpath(os.fsdecode(path))
        # Kernels that are compiled on the way are cached beside their modules.
        if not path.startswith(self.folder) and "__pycache__" not in path and path != "/dev/null":
            self.seen = f"{event} {path}"


def _is_called_by_numba() -> bool:
    """Its cache of compiled kernels is pickled; it lies beside the modules, where no reader looks."""
    frame = sys._getframe()
    while frame is not None:
        if frame.f_globals.get("__name__", "").startswith("numba."):
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False


def _peak_mb() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    return 0.0


def _reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def child(seed: int, seconds: float) -> None:
    sys.path.insert(0, str(HERE))
    import logging

    cases = json.load(sys.stdin)
    # Decoders write their complaints straight to the descriptors.
    news = os.fdopen(os.dup(1), "w")
    for descriptor in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
    logging.disable(logging.CRITICAL)
    guard, samples = Guard(), Path.cwd().resolve()
    for name, case in cases:
        sample = samples / str(zlib.crc32(name.encode()))
        if not sample.exists():
            _prepare(name, sample)
        print(json.dumps({"begin": case}), file=news, flush=True)
        folder = samples / "case"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(sample, folder)
        reader = _reader(name)
        spoil(folder, name, reader, case, seed)
        print(json.dumps({"case": case, **_try(reader, folder, guard, seconds)}), file=news, flush=True)


def _reader(name: str) -> Any:
    import readers

    return readers.READERS[name]


def _prepare(name: str, sample: Path) -> None:
    """Writes the good sample, reads it twice so that all is loaded and compiled, and bounds the memory from there."""
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    reader = _reader(name)
    sample.mkdir()
    reader.make(sample)
    for number in range(2):
        good = sample.with_name(f"{sample.name}.{number}")
        shutil.copytree(sample, good)
        reader.read(good)
    memory = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (memory + 4 * MEMORY, resource.RLIM_INFINITY))


def spoil(folder: Path, name: str, reader: Any, case: int, seed: int) -> None:
    """Writes the case's content over one of the sample's files."""
    import mutations
    import numpy as np

    rng = np.random.default_rng([seed, zlib.crc32(name.encode()), case])
    files = [sorted(p for p in folder.glob(pattern) if p.is_file()) for pattern in reader.spoilt]
    if case < len(reader.hostile):
        files[0][0].write_bytes(reader.hostile[case])
        return
    chosen = files[int(rng.integers(len(files)))]
    file = chosen[int(rng.integers(len(chosen)))]
    file.write_bytes(mutations.mutate(file.read_bytes(), rng))


def _try(reader: Any, folder: Path, guard: Guard, seconds: float) -> dict[str, Any]:
    from seg3d_core.errors import Seg3DError

    kind, where, outcome = "", "", "read"
    _reset_peak()
    guard.folder, guard.seen, guard.active = str(folder), "", True
    before, start = _peak_mb(), time.process_time()
    try:
        reader.read(folder)
    except Seg3DError as error:
        outcome = "refused"
        if len(str(error)) > 4000:
            outcome, kind, where = "failure", f"a message of {len(str(error))} characters", str(error)[:200]
    except BaseException as error:
        outcome, kind = "failure", f"{type(error).__name__}: {str(error)[:160]}"
        ours = [
            f for f in traceback.extract_tb(error.__traceback__) if "seg3d" in f.filename or "training" in f.filename
        ]
        where = " < ".join(f"{Path(f.filename).name}:{f.lineno}" for f in ours[::-1][:4])
    finally:
        guard.active = False
    spent, taken = time.process_time() - start, _peak_mb() - before
    if guard.seen:
        outcome, kind, where = "failure", "forbidden", guard.seen
    elif spent > seconds:
        outcome, kind, where = "failure", f"{spent:.1f} s", f"{where} {kind}"
    elif taken > MEMORY / 2**20:
        outcome, kind, where = "failure", f"{taken:.0f} MB", f"{where} {kind}"
    return {"outcome": outcome, "kind": kind, "where": where, "seconds": spent, "megabytes": taken}


def names() -> list[str]:
    sys.path.insert(0, str(HERE))
    import readers

    return list(readers.READERS)


def failures(outcomes: Iterable[Outcome]) -> Iterator[str]:
    for outcome in outcomes:
        for failure in outcome.failures:
            yield f"{outcome.reader}, case {failure['case']}: {failure['kind']} {failure['where']}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reader", help="all if left out")
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--case", type=int, help="only this one")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.seed, options.seconds)
        return
    cases = list(range(options.count)) if options.case is None else [options.case]
    for name in [options.reader] if options.reader else names():
        start = time.monotonic()
        (outcome,) = run({name: cases}, seed=options.seed, seconds=options.seconds).values()
        print(f"{outcome}; {time.monotonic() - start:.0f} s", flush=True)
        for line in failures([outcome]):
            print("  " + line, flush=True)


if __name__ == "__main__":
    main()
