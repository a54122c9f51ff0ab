# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Requests to the scene's thread: each is answered or refused within a time of its own."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from ..errors import BusyError
from .answers import Answers, answer
from .mailbox import Inbox

T = TypeVar("T")


class SceneDesk:
    """Requests wait in the `inbox`, whose thread runs them. `on_error(error, what)` hears of what failed there."""

    def __init__(self, inbox: Inbox, on_error: Callable[[Exception, str], None]):
        self._inbox, self._on_error = inbox, on_error
        self._answers = Answers()

    def call(self, function: Callable[[], T], timeout: float, what: str) -> T:
        """Runs a function in the scene's thread; its outcome. Raises BusyError as `ask`."""

        def request(future: Future[T]) -> None:
            try:
                outcome: T | Exception = function()
            except Exception as error:
                outcome = error
                self._on_error(error, what)
            answer(future, outcome)

        return self.ask(request, timeout, what)

    def ask(self, request: Callable[[Future[T]], None], timeout: float, what: str) -> T:
        """Hands a request to the scene's thread and waits for whoever answers its future.

        Raises BusyError: `busy` where too many wait, `timeout`, or `out_of_memory`.
        """

        def hand_over(future: Future[T]) -> None:
            if not self._inbox.offer(lambda: None if future.cancelled() else request(future)):
                raise BusyError("busy", f"{self._inbox.most_requests} requests wait already: ask again in a while")

        try:
            return self._answers.wait(hand_over, timeout, f"{what} did not finish within {timeout:.0f} s")
        except MemoryError:
            raise BusyError("out_of_memory", f"memory ran out in {what}; budgets shrink, so ask again") from None

    def stop(self) -> None:
        """Who waits gets an error."""
        self._answers.stop()
