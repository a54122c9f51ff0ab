# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""SIGINT and SIGTERM end a process with exit code 0, whenever they come.

Installed before anything heavy is imported, hence standard library only.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import sys
import threading

GRACE = 4.0  # seconds from the signal to the forced end, should something hang


class Stop(threading.Event):
    """Set by a signal. While `starting`, there is nothing to take down yet, so a signal ends the process at once."""

    starting = True

    def _on_signal(self, *_: object) -> None:
        if self.starting:
            os._exit(0)
        self.set()


def install() -> Stop:
    """Call it first thing in the main thread; set `starting = False` before the first ROS object is made."""
    stop = Stop()
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop._on_signal)
    # Python runs handlers between bytecodes of the main thread: one long call into C would delay them.
    threading.Thread(target=_watch, args=(read_end, stop), name="stop-watch", daemon=True).start()
    return stop


def finish() -> None:
    """Last thing before the interpreter ends: it takes our handlers away, and a second signal would kill it."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _watch(read_end: int, stop: Stop) -> None:
    """Forces the end when something hangs. All that is ever left behind is whole: a map that is not is removed."""
    while True:
        numbers = os.read(read_end, 16)
        if any(n in (signal.SIGINT, signal.SIGTERM) for n in numbers):
            break
    if stop.starting:
        os._exit(0)
    stop.set()
    threading.Event().wait(GRACE)
    print(f"did not come down within {GRACE:.0f} s of the signal; ending now", file=sys.stderr, flush=True)
    faulthandler.dump_traceback(sys.stderr)
    _remove_unfinished()
    os._exit(0)


def _remove_unfinished() -> None:
    archive = sys.modules.get("seg3d_core.archive")
    for path in list(archive.unfinished) if archive is not None else ():
        with contextlib.suppress(OSError):
            path.unlink()
