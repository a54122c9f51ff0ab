# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Answers that come from another thread: who asks waits so long and no longer, and a stop answers everybody."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import suppress
from typing import Any, TypeVar

from ..errors import BusyError, Seg3DError

T = TypeVar("T")


class Answers:
    """Those that somebody waits for."""

    def __init__(self) -> None:
        self._awaited: set[Future[Any]] = set()
        self._lock = threading.Lock()
        self._stopped = False

    def wait(self, hand_over: Callable[[Future[T]], None], timeout: float, late: str) -> T:
        """The outcome that another thread gives to `answer`, with the future that `hand_over` brings it, or raises.

        Raises BusyError with the sentence `late` after `timeout` seconds; the future is cancelled then.
        """
        future: Future[T] = Future()
        with self._lock:
            if self._stopped:
                raise _shutting_down()
            self._awaited.add(future)
        try:
            hand_over(future)
            return future.result(timeout)
        except FutureTimeout:
            if not future.cancel():  # the answer came in the last moment
                return future.result()
            raise BusyError("timeout", late) from None
        finally:
            with self._lock:
                self._awaited.discard(future)

    def stop(self) -> None:
        """Who waits gets an error, and so does who asks from now on."""
        with self._lock:
            self._stopped = True
            awaited, self._awaited = self._awaited, set()
        for future in awaited:
            answer(future, _shutting_down())


def answer(future: Future[Any], outcome: object) -> None:
    """Sets result or exception, unless who asked has given up or a stop was faster."""
    with suppress(InvalidStateError):
        if isinstance(outcome, BaseException):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)


def _shutting_down() -> Seg3DError:
    return Seg3DError("the runtime is shutting down")
