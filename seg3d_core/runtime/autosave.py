# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Saves a scene now and then, beside the mapping: only the copy is made by the thread that owns the scene."""

from __future__ import annotations

import logging
import os
import shutil
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ..archive import write_error
from ..errors import MapFileError
from ..storage import SavedScene, write_scene
from .statistics import Save

log = logging.getLogger(__name__)

_PREVIOUS, _NEW = ".previous", ".new"


class Autosaver:
    """Every `interval` seconds it wants a copy of the scene, which it writes in a thread of its own.

    `wake` is called, from that thread, when a copy is wanted; the scene's owner then calls `offer`, where it costs
    nothing as long as none is. The file before stays as NAME.previous.seg3d. A failure is logged and kept in `state`
    until a save succeeds; the files are as before then.
    """

    def __init__(self, path: Path, interval: float, wake: Callable[[], None] = lambda: None):
        self.state = Save(str(path))
        self._path, self._interval, self._wake = path, interval, wake
        self._wanted, self._stopping = False, False
        self._saved: SavedScene | None = None
        self._change: object = None
        self._ready = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="seg3d-autosave", daemon=True)
        self._thread.start()

    def offer(self, copy: Callable[[], SavedScene], change: object) -> None:
        """From the thread that owns the scene. `change` differs where the scene has seen something new.

        Nothing is copied while no save is due, nor where nothing has changed.
        """
        if not self._wanted or change == self._change:
            return
        self._wanted = False
        saved = copy()
        with self._ready:
            self._saved, self._change = saved, change
            self._ready.notify()

    def stop(self, timeout: float) -> None:
        """Ends the thread; a save that has begun is waited for so long."""
        with self._ready:
            self._stopping = True
            self._ready.notify()
        self._thread.join(timeout)

    def save(self, saved: SavedScene) -> None:
        """Writes now, in the calling thread."""
        try:
            self.state = self.state.tried(lambda: write_with_previous(self._path, saved))
        except MapFileError as error:
            self.state = self.state.failed(error)
            log.warning("the map was not saved by itself: %s", error)
        except Exception as error:  # a bug: say it, and try again next time
            self.state = self.state.failed(error)
            log.exception("saving the map by itself failed")

    def _run(self) -> None:
        due = time.monotonic() + self._interval
        while True:
            with self._ready:
                self._ready.wait_for(
                    lambda: self._stopping or self._saved is not None, max(0.0, due - time.monotonic())
                )
                if self._stopping:
                    return
                saved, self._saved = self._saved, None
            if saved is None:
                self._wanted, due = True, time.monotonic() + self._interval
                self._wake()
            else:
                self.save(saved)


def previous_of(path: Path) -> Path:
    """Where the file before the last lies."""
    return path.with_name(f"{path.stem}{_PREVIOUS}{path.suffix}")


def write_with_previous(path: Path, saved: SavedScene) -> None:
    """As `write_scene` with overwriting; what was there before stays as `previous_of(path)`. Raises MapFileError.

    At every moment `path` is a whole map once it was one: the new file is written first and renamed last.
    """
    new, previous = path.with_name(f"{path.stem}{_NEW}{path.suffix}"), previous_of(path)
    link = path.with_name(f".{previous.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_scene(new, saved, overwrite=True)
        if path.exists():
            # A second name for the old file, so that there is no moment without it under the first.
            with suppress(FileNotFoundError):
                link.unlink()
            try:
                os.link(path, link)
            except OSError:  # not every file system has them
                shutil.copyfile(path, link)
            link.replace(previous)
        new.replace(path)
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        for leftover in (link, new):
            with suppress(OSError):
                leftover.unlink()
