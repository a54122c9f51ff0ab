# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""What was freed goes back to the system, and not at every turn."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from seg3d_core.runtime import free_memory
from seg3d_core.runtime.free_memory import EVERY, FreeMemory

GLIBC = free_memory._glibc_trim() is not None
# Pieces of 100 kB are taken from the heap; every hundredth stays, so that the heap cannot shrink by itself.
PIECES = """
from pathlib import Path
import numpy as np
from seg3d_core.runtime.free_memory import EVERY, FreeMemory

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

now = [0.0]
memory = FreeMemory(lambda: now[0])
pieces = [np.ones(100_000, np.uint8) for _ in range(1000)]
held = pieces[::100]
del pieces
before = resident()
now[0] += EVERY
assert memory.give_back()
print(before - resident())
"""


@pytest.mark.skipif(not GLIBC, reason="needs glibc")
def test_resident_memory_shrinks() -> None:
    done = subprocess.run([sys.executable, "-c", PIECES], capture_output=True, text=True, check=True, timeout=120)
    assert int(done.stdout) > 50e6


def test_it_is_trimmed_once_in_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    monkeypatch.setattr(free_memory, "_glibc_trim", lambda: lambda pad: calls.append(pad) or 1)
    now = 100.0
    memory = FreeMemory(lambda: now)
    times = []
    for now in np.arange(100.0, 100.0 + 3.5 * EVERY, EVERY / 8):
        if memory.give_back():
            times.append(now)
    assert times == [100 + EVERY, 100 + 2 * EVERY, 100 + 3 * EVERY]
    assert calls == [0, 0, 0]


def test_other_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(free_memory.ctypes, "CDLL", lambda name: object())
    now = 0.0
    memory = FreeMemory(lambda: now)
    now = 10 * EVERY
    assert not memory.give_back()
