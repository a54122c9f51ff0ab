# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Queries one after the other in their own thread: each is answered or refused within a deadline."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future

from ..errors import BusyError
from ..types import QueryResult
from .answers import Answers, answer
from .statistics import Queue

Query = Callable[[], QueryResult]


class QueryDesk:
    """At most `most` queries wait, none longer than `deadline` seconds. What cannot be done is refused with a code."""

    def __init__(self, most: int, deadline: float):
        self._most, self._deadline = most, deadline
        self._answers = Answers()
        self._waiting: deque[tuple[Future[QueryResult], Query]] = deque()
        self._ready = threading.Condition()
        self._closed = False
        self._busy_since: float | None = None
        self._refused = 0
        self._thread = threading.Thread(target=self._run, name="seg3d-query", daemon=True)

    @property
    def queue(self) -> Queue:
        """What waits; `dropped` counts what was refused."""
        return Queue(len(self._waiting), self._most, self._refused)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """Who waits gets an error, once the query that has begun is answered or the time is over."""
        with self._ready:
            self._closed = True
            self._waiting.clear()
            self._ready.notify_all()
        if self._thread.is_alive():
            self._thread.join(timeout)
        self._answers.stop()

    def ask(self, query: Query, patience: float | None = None) -> QueryResult:
        """The query's own outcome, or BusyError: `busy` at once where too many wait, `timeout` after the deadline.

        `patience`: less time than the deadline, in seconds.
        """
        limit = self._deadline if patience is None else min(patience, self._deadline)

        def hand_over(future: Future[QueryResult]) -> None:
            with self._ready:
                if self._hangs or len(self._waiting) >= self._most or limit <= 0:
                    raise BusyError("busy", f"{len(self._waiting)} queries wait already: ask again in a while")
                self._waiting.append((future, query))
                self._ready.notify()

        late = f"no answer within {limit:.1f} s (runtime.query_deadline): ask again in a while"
        try:
            return self._answers.wait(hand_over, limit, late)
        except BusyError:
            with self._ready:
                self._refused += 1
            raise

    @property
    def _hangs(self) -> bool:
        """Whether one query has taken more than the time of all."""
        since = self._busy_since
        return since is not None and time.monotonic() - since > self._deadline

    def _run(self) -> None:
        while (item := self._next()) is not None:
            future, query = item
            if future.cancelled():
                continue
            self._busy_since = time.monotonic()
            outcome: QueryResult | BaseException
            try:
                outcome = query()
            except BaseException as error:
                outcome = error
            self._busy_since = None
            answer(future, outcome)

    def _next(self) -> tuple[Future[QueryResult], Query] | None:
        with self._ready:
            self._ready.wait_for(lambda: self._waiting or self._closed)
            return None if self._closed else self._waiting.popleft()
