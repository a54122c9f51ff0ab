# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Which faults would the tests miss? cosmic-ray spoils one place of the code at a time, and the tests of its room run.

    python benchmarks/mutation.py [--rooms lifting ...] [--mutants 60] [--seed 0] [--again] [--out FILE]

Works in a copy of the tree. A place is drawn by what stands there: after changes elsewhere the same ones are drawn.
Every mutant has a limit of processor time; one that reaches it counts as found. `--again` tries what survived the last
run, which is kept in out/mutation, against the tests of now. Prints a table and writes docs/results/mutation.md.
"""

from __future__ import annotations

import argparse
import ast
import filecmp
import hashlib
import os
import resource
import shlex
import shutil
import sqlite3
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from common import RESULTS, ROOT, about, table, write_page
from cosmic_ray.config import serialize_config
from cosmic_ray.work_db import use_db
from cosmic_ray.work_item import MutationSpec, TestOutcome, WorkerOutcome

Place = tuple[int, int]  # line and column

SESSIONS = ROOT / "out" / "mutation"
_SECONDS = 20  # of processor time, on top of three times what the tests take


@dataclass(frozen=True)
class Room:
    """`kernels`: Numba is `off`, keeps what it compiled (`cached`), or compiles all `afresh` for each mutant."""

    name: str
    modules: tuple[str, ...]
    tests: tuple[str, ...]
    kernels: str
    without: tuple[str, ...] = ()

    @property
    def session(self) -> Path:
        """What cosmic-ray knows of its mutants."""
        return SESSIONS / f"{self.name.replace(', ', '_').replace(' ', '_')}.sqlite"

    @property
    def first(self) -> Path:
        """The session as it was before the first `--again`."""
        return self.session.with_suffix(".first.sqlite")


# Kernels that other files call are part of those files' compiled code too, which Numba does not see as changed.
_SHARED_KERNELS = ("seg3d_core/mapping/block_index.py", "seg3d_core/mapping/neighbours.py")
ROOMS = (
    Room("lifting", ("seg3d_core/lifting",), ("tests/lifting",), "off"),
    Room("metrics", ("seg3d_core/metrics",), ("tests/metrics",), "cached"),
    Room(
        "storage",
        ("seg3d_core/storage.py", "seg3d_core/archive.py", "seg3d_core/array_file.py"),
        (
            "tests/test_archive.py",
            "tests/test_storage.py",
            "tests/test_outside_files.py",
            "tests/test_scene.py",
            "tests/test_corrected_scene.py::test_a_map_of_before_corrections_loads_and_says_that_it_stays",
        ),
        "cached",
    ),
    Room("mapping", ("seg3d_core/mapping",), ("tests/mapping",), "cached", _SHARED_KERNELS),
    Room(
        "mapping, shared kernels",
        _SHARED_KERNELS,
        (
            "tests/mapping/test_point_map_twin.py",
            "tests/mapping/test_neighbours.py",
            "tests/mapping/test_nearest_table.py",
            "tests/mapping/test_block_index.py",
        ),
        "afresh",
    ),
)


@dataclass(frozen=True, order=True)
class Survivor:
    module: str
    line: int
    definition: str
    before: str
    after: str


@dataclass(frozen=True)
class Score:
    """`first` is the share that was found before `--again`."""

    room: Room
    places: int
    tried: int
    first: str
    survivors: tuple[Survivor, ...]

    def cells(self) -> list[object]:
        survived = len(self.survivors)
        found = self.tried - survived
        return [self.room.name, self.places, self.tried, found, survived, self.first, share(self.tried, survived)]


def copy_tree() -> Path:
    """What git knows and what is new, below out/mutation. What is as it was keeps its time, and so its kernels."""
    listed = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, capture_output=True, text=True, check=True).stdout.split("\0")
    tree = SESSIONS / "tree"
    sources = {tree / name: ROOT / name for name in names if name and (ROOT / name).is_file()}
    for old in [path for path in tree.rglob("*") if path.is_file() and path not in sources]:
        old.unlink()
    for target, source in sources.items():
        target.parent.mkdir(parents=True, exist_ok=True)
        if not (target.is_file() and filecmp.cmp(source, target, shallow=False)):
            shutil.copyfile(source, target)
    return tree


def environment_of(room: Room, tree: Path) -> dict[str, str]:
    """Only the copy's code, no plugins, and the same examples of hypothesis every time (what CI stands for)."""
    return {
        **os.environ,
        "PYTHONPATH": str(tree),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "CI": "true",
        "NUMBA_CACHE_DIR": str(SESSIONS / f"kernels-{room.kernels}"),
        "NUMBA_DISABLE_JIT": str(int(room.kernels == "off")),
        "NUMBA_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
    }


def test_command(room: Room, seconds: int) -> list[str]:
    pytest = f"{sys.executable} -m pytest -x -q -W ignore {' '.join(room.tests)}"
    afresh = 'rm -rf "$NUMBA_CACHE_DIR"; ' if room.kernels == "afresh" else ""
    return ["sh", "-c", f"ulimit -t {seconds}; {afresh}exec {pytest}"]


def seconds_allowed(room: Room, tree: Path, times: int) -> int:
    """Runs the tests on the code as it is; the first time compiles."""
    for _ in range(times):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            test_command(room, 600), cwd=tree, env=environment_of(room, tree), capture_output=True, text=True
        )
        if done.returncode:
            raise SystemExit(f"the tests of {room.name} fail without any mutant:\n{done.stdout[-3000:]}")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return round(_SECONDS + 3 * (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime))


def cosmic_ray(step: str, room: Room, tree: Path, seconds: int) -> None:
    config = {
        "module-path": list(room.modules),
        "excluded-modules": list(room.without),
        "test-command": shlex.join(test_command(room, seconds)),
        "timeout": 20.0 * seconds,
        "distributor": {"name": "local"},
    }
    file = tree / "cosmic-ray.toml"
    file.write_text(serialize_config(config), encoding="utf-8")
    program = [str(Path(sys.executable).with_name("cosmic-ray")), step, str(file), str(room.session)]
    subprocess.run(program, cwd=tree, env=environment_of(room, tree), check=True)


def declared_only(source: str) -> list[tuple[Place, Place]]:
    """Where decorators and annotations begin and end: a change there changes nothing that runs."""
    parts: list[ast.expr | None] = []
    for node in ast.walk(ast.parse(source)):
        parts += [
            *getattr(node, "decorator_list", []),
            getattr(node, "annotation", None),
            getattr(node, "returns", None),
        ]
    return [
        # A decorator's @ stands before it.
        ((part.lineno, part.col_offset - 1), (part.end_lineno or 0, part.end_col_offset or 0))
        for part in parts
        if part is not None
    ]


def draw(room: Room, count: int, seed: int, tree: Path) -> None:
    """One mutant at each of `count` places; all others are marked as skipped."""
    with use_db(str(room.session)) as db:
        items = [(item.job_id, item.mutations[0]) for item in db.work_items]
    sources = {path: (tree / path).read_text(encoding="utf-8") for path in {place.module_path for _, place in items}}
    declared = {path: declared_only(source) for path, source in sources.items()}
    lines = {path: source.splitlines() for path, source in sources.items()}

    def rank(item: tuple[str, MutationSpec]) -> str:
        place = item[1]
        text = lines[place.module_path][place.start_pos[0] - 1].strip()
        words = (seed, place.module_path, place.definition_name, place.operator_name, place.operator_args, text)
        return hashlib.sha256(repr((*map(str, words), place.start_pos[1])).encode()).hexdigest()

    drawn: dict[tuple[Path, Place], str] = {}
    for job, place in sorted(items, key=rank):
        if not any(start <= place.start_pos < end for start, end in declared[place.module_path]):
            drawn.setdefault((place.module_path, place.start_pos), job)
    kept = set(list(drawn.values())[:count])
    skipped = [(job, WorkerOutcome.SKIPPED.name, len(drawn)) for job, _ in items if job not in kept]
    with sqlite3.connect(room.session) as session:
        session.executemany("INSERT INTO work_results (job_id, worker_outcome, output) VALUES (?, ?, ?)", skipped)


def try_mutants(room: Room, count: int, seed: int, again: bool, tree: Path) -> None:
    """Runs what is pending in the room's session, a new one unless `again`."""
    SESSIONS.mkdir(parents=True, exist_ok=True)
    seconds = seconds_allowed(room, tree, times=1 if again else 2)
    if not again:
        room.session.unlink(missing_ok=True)
        room.first.unlink(missing_ok=True)
        cosmic_ray("init", room, tree, seconds)
        draw(room, count, seed, tree)
    elif not room.session.is_file():
        raise SystemExit(f"no run of {room.name} before this one: leave --again away")
    else:
        retry_survivors(room)
    cosmic_ray("exec", room, tree, seconds)


def retry_survivors(room: Room) -> None:
    if not room.first.exists():
        shutil.copyfile(room.session, room.first)
    with sqlite3.connect(room.session) as session:
        session.execute("DELETE FROM work_results WHERE test_outcome = 'SURVIVED'")


def score_of(room: Room) -> Score:
    tried, places, survivors = outcomes(room.session)
    first_tried, _, first = outcomes(room.first) if room.first.exists() else (tried, places, survivors)
    return Score(room, places, tried, share(first_tried, len(first)), tuple(survivors))


def share(tried: int, survived: int) -> str:
    return f"{100 * (tried - survived) / tried:.0f} %" if tried else "-"


def outcomes(session: Path) -> tuple[int, int, list[Survivor]]:
    """How many mutants were tried, at how many places there could have been one, and which of them survived."""
    tried = (
        "SELECT test_outcome, module_path, start_pos_row, definition_name, diff "
        "FROM work_results JOIN mutation_specs USING (job_id) WHERE worker_outcome = ?"
    )
    with sqlite3.connect(session) as rows:
        results = rows.execute(tried, (WorkerOutcome.NORMAL.name,)).fetchall()
        skipped = "SELECT output FROM work_results WHERE worker_outcome = ?"
        places = rows.execute(skipped, (WorkerOutcome.SKIPPED.name,)).fetchone()
    survivors = [described(*row) for outcome, *row in results if outcome == TestOutcome.SURVIVED.name]
    return len(results), int(places[0]) if places else len(results), sorted(survivors)


def described(module: str, line: int, definition: str | None, diff: str) -> Survivor:
    changed = [text for text in diff.splitlines() if not text.startswith(("---", "+++"))]
    before, after = ("".join(text[1:].strip() for text in changed if text.startswith(sign)) for sign in "-+")
    return Survivor(module, line, definition or "", before, after)


def report(scores: list[Score], seed: int) -> str:
    head = ["room", "places", "tried", "found", "survived", "found at first", "found now"]
    lists = "\n\n".join(f"## What survived: {score.room.name}\n\n{survivor_table(score)}" for score in scores)
    return f"""# Mutation testing

{about("cosmic-ray " + version("cosmic-ray"))}

At places of each room, drawn with seed {seed}, one change: another operator, comparison or number, `not` before a
condition, `break` for `continue`, a loop that does not run, another exception caught. Then the room's own tests run
until one fails: the change is *found*, as is one that takes {_SECONDS} s and three times the time of the tests.
Decorators and annotations are left out. *At first*: before the tests that were written after a look at the survivors.

{table(head, (score.cells() for score in scores))}

{lists}
"""


def survivor_table(score: Score) -> str:
    def code(text: str) -> str:
        return f"`` {text.replace('|', chr(92) + '|')} ``"

    rows = ([f"{Path(s.module).name}:{s.line}", s.definition, code(s.before), code(s.after)] for s in score.survivors)
    return table(["where", "in", "code", "mutant"], rows) if score.survivors else "Nothing."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rooms", nargs="+", choices=[room.name for room in ROOMS], help="all by default")
    parser.add_argument("--mutants", type=int, default=60, help="of each room")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--again", action="store_true", help="only what survived the last run")
    parser.add_argument("--out", type=Path, default=RESULTS / "mutation.md")
    arguments = parser.parse_args()
    for room in ROOMS:
        if room.name in (arguments.rooms or [room.name]):
            try_mutants(room, arguments.mutants, arguments.seed, arguments.again, copy_tree())
    write_page(arguments.out, report([score_of(room) for room in ROOMS if room.session.exists()], arguments.seed))


if __name__ == "__main__":
    main()
