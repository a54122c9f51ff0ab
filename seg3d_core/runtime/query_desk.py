"""Queries one after the other in their own thread: each is answered or refused within a deadline."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from functools import partial

from ..errors import BusyError, Seg3DError
from ..types import QueryResult
from .statistics import Queue

Query = Callable[[], QueryResult]


class QueryDesk:
    """At most `most` queries wait, none longer than `deadline` seconds. What cannot be done is refused with a code."""

    def __init__(self, most: int, deadline: float):
        self._most, self._deadline = most, deadline
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
        """Who waits gets an error."""
        with self._ready:
            self._closed = True
            waiting, self._waiting = list(self._waiting), deque()
            self._ready.notify_all()
        for future, _ in waiting:
            if future.set_running_or_notify_cancel():
                future.set_exception(Seg3DError("the runtime is shutting down"))
        if self._thread.is_alive():
            self._thread.join(timeout)

    def ask(self, query: Query, patience: float | None = None) -> QueryResult:
        """The query's own outcome, or BusyError: `busy` at once where too many wait, `timeout` after the deadline.

        `patience`: less time than the deadline, in seconds.
        """
        future: Future[QueryResult] = Future()
        limit = self._deadline if patience is None else min(patience, self._deadline)
        with self._ready:
            if self._closed:
                raise Seg3DError("the runtime is shutting down")
            since = self._busy_since
            hangs = since is not None and time.monotonic() - since > self._deadline
            if hangs or len(self._waiting) >= self._most or limit <= 0:
                self._refused += 1
                raise BusyError("busy", f"{len(self._waiting)} queries wait already: ask again in a while")
            self._waiting.append((future, query))
            self._ready.notify()
        try:
            return future.result(limit)
        except FutureTimeout:
            if not future.cancel() and future.done():
                return future.result()
        self._refused += 1
        raise BusyError("timeout", f"no answer within {limit:.1f} s (runtime.query_deadline): ask again in a while")

    def _run(self) -> None:
        while (item := self._next()) is not None:
            future, query = item
            if not future.set_running_or_notify_cancel():
                continue
            self._busy_since = time.monotonic()
            try:
                outcome = partial(future.set_result, query())
            except BaseException as error:
                outcome = partial(future.set_exception, error)
            self._busy_since = None
            outcome()

    def _next(self) -> tuple[Future[QueryResult], Query] | None:
        with self._ready:
            self._ready.wait_for(lambda: self._waiting or self._closed)
            return None if self._closed else self._waiting.popleft()
