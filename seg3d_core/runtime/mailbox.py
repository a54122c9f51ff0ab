# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Bounded hand-over between threads: when it is full, the newest wins."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from ..types import Frame

T = TypeVar("T")


class Mailbox(Generic[T]):
    """A queue of at most `capacity` things; putting one more throws the oldest away and counts it."""

    def __init__(self, capacity: int = 1):
        self.capacity = capacity
        self.dropped = 0
        self._items: deque[T] = deque()
        self._ready = threading.Condition()
        self._closed = False

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: T) -> int:
        """Never blocks. Returns how many older things were thrown away (0 or 1)."""
        with self._ready:
            overflow = len(self._items) >= self.capacity
            if overflow:
                self._items.popleft()
                self.dropped += 1
            self._items.append(item)
            self._ready.notify()
            return int(overflow)

    def get(self) -> T | None:
        """Waits for the oldest; None once the box is closed."""
        with self._ready:
            self._ready.wait_for(lambda: self._items or self._closed)
            return None if self._closed else self._items.popleft()

    def clear(self) -> None:
        with self._ready:
            self._items.clear()

    def close(self) -> None:
        """Wakes whoever waits; what is still inside is not handed out any more."""
        with self._ready:
            self._closed = True
            self._items.clear()
            self._ready.notify_all()


class Inbox:
    """What a scene's thread lives on: requests go first, frames are bounded and the newest win.

    Requests from outside are bounded too, at `requests`: one more is not taken. Those of our own workers always are,
    of which each has one at a time.
    """

    def __init__(self, frames: int, requests: int):
        self._frames: deque[Frame] = deque()
        self._limit = frames
        self.most_requests = requests
        self._requests: deque[Callable[[], Any]] = deque()
        self.refused_requests = 0
        self._ready = threading.Condition()
        self._closed = False
        self.dropped_frames = 0

    @property
    def waiting_frames(self) -> int:
        return len(self._frames)

    def put_frame(self, frame: Frame) -> bool:
        """True when an older frame had to go."""
        with self._ready:
            full = len(self._frames) >= self._limit
            if full:
                self._frames.popleft()
                self.dropped_frames += 1
            self._frames.append(frame)
            self._ready.notify()
            return full

    @property
    def waiting_requests(self) -> int:
        return len(self._requests)

    def put(self, request: Callable[[], Any]) -> None:
        """From a worker."""
        with self._ready:
            self._requests.append(request)
            self._ready.notify()

    def offer(self, request: Callable[[], Any]) -> bool:
        """From outside; False where too many wait."""
        with self._ready:
            if len(self._requests) >= self.most_requests:
                self.refused_requests += 1
                return False
            self._requests.append(request)
            self._ready.notify()
            return True

    def get(self) -> Frame | Callable[[], Any] | None:
        with self._ready:
            self._ready.wait_for(lambda: self._requests or self._frames or self._closed)
            if self._closed:
                return None
            return self._requests.popleft() if self._requests else self._frames.popleft()

    def close(self) -> None:
        with self._ready:
            self._closed = True
            self._ready.notify_all()
