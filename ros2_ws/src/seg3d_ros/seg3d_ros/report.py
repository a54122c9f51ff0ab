# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Drops and faults are counted every time and said once per reason and interval."""

from __future__ import annotations

import functools
import logging
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

from seg3d_core.errors import printable

INTERVAL = 10.0  # seconds between two lines of one reason


def lines(text: str) -> str:
    """A traceback as lines of their own, without what would steer a terminal; nothing where it is empty."""
    return "".join("\n" + printable(line, 1000) for line in text.splitlines()[-100:])


class Reporter:
    """Counts go to the runtime, so that they stand beside its own; sentences go to the node's log."""

    def __init__(self, logger: Any):
        self.logger = logger
        self.count_drop: Callable[[str, int], None] = lambda reason, n: None
        self.last: dict[str, str] = {}  # the newest sentence of each reason
        self._said: dict[str, float] = {}
        self._since: dict[str, int] = {}
        self._lock = threading.Lock()

    def drop(self, reason: str, text: str, n: int = 1, trace: str = "") -> None:
        """A frame or message that is not used, and why; `trace` is a traceback, which keeps its lines."""
        self.count_drop(reason, n)
        text = printable(text) + lines(trace)
        self.last[reason] = text
        self._say(reason, n, lambda more: self.logger.warning(f"dropped ({reason}): {text}{more}"))

    def warn(self, reason: str, text: str) -> None:
        self._say(reason, 1, lambda more: self.logger.warning(f"{printable(text)}{more}"))

    def event(self, level: str, text: str) -> None:
        """From the runtime, which limits its own rate."""
        text = printable(text)
        # One call each: rclpy refuses a change of severity at one place.
        if level == "error":
            self.logger.error(text)
        elif level == "warning":
            self.logger.warning(text)
        else:
            self.logger.info(text)

    def _say(self, reason: str, n: int, say: Callable[[str], Any]) -> None:
        now = time.monotonic()
        with self._lock:
            silent = self._since.get(reason, 0)
            if now - self._said.get(reason, -INTERVAL) < INTERVAL:
                self._since[reason] = silent + n
                return
            self._said[reason], self._since[reason] = now, 0
        say(f" ({silent} more like it since the last time)" if silent else "")

    def guarded(self, function: Callable[..., None]) -> Callable[..., None]:
        """A callback whose bug is said aloud and counted: an exception would end the executor, and so the node."""

        @functools.wraps(function)
        def call(*args: Any) -> None:
            try:
                function(*args)
            except Exception:
                name = getattr(function, "__name__", "a callback")
                self.drop("internal_error", f"{name} failed; this is a bug:", trace=traceback.format_exc())

        return call


class LogBridge(logging.Handler):
    """The core's `logging` records to the node's log."""

    def __init__(self, logger: Any):
        super().__init__(logging.INFO)
        self.logger = logger
        self.setFormatter(logging.Formatter("%(name)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        # Of a record that brings a traceback the lines are ours; of any other they would be a foreign text's.
        text = self.format(record)
        text = lines(text) if record.exc_info else printable(text, 2000)
        if record.levelno >= logging.ERROR:
            self.logger.error(text)
        elif record.levelno >= logging.WARNING:
            self.logger.warning(text)
        else:
            self.logger.info(text)
