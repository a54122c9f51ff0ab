# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Memory that was freed goes back to the system now and then.

Each snapshot allocates some hundred MB in its own thread and frees them. The C library keeps that for the thread, cut
into pieces into which the next snapshot's arrays, which grew with the map, do not fit: resident memory creeps up though
nothing is held. To trim costs milliseconds; to map every large array anew, so that none stays, costs each snapshot a
sixth of its time in fresh pages.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from typing import Any

# Seconds between two trims: what is trimmed is soon allocated again, in fresh pages.
EVERY = 10.0


class FreeMemory:
    """Trims the C library's heaps, at most every `EVERY` seconds. Other libraries than glibc are left alone."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._next = clock() + EVERY
        self._trim = _glibc_trim()

    def give_back(self) -> bool:
        """Whether it was time, and the library gave something back."""
        now = self._clock()
        if self._trim is None or now < self._next:
            return False
        self._next = now + EVERY
        return bool(self._trim(0))


def _glibc_trim() -> Any:
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return None
    trim.argtypes, trim.restype = [ctypes.c_size_t], ctypes.c_int
    return trim
