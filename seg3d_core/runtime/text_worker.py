# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Text in its own thread: loads the encoder, prepares features and labels ahead, answers queries."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping

from ..build import build_query
from ..config import Config
from ..errors import QueryError, Seg3DError
from ..query.text import TextQuery
from ..types import QueryResult, Snapshot
from .mailbox import Mailbox
from .statistics import Model, Recorder

log = logging.getLogger(__name__)


class TextWorker:
    """Offers of newer snapshots overtake older ones; an answer may come from any thread meanwhile."""

    def __init__(
        self,
        config: Config,
        recorder: Recorder,
        report: Callable[[str, str, str], None],
        on_labelled: Callable[[Snapshot, tuple[str, ...]], None],
        on_error: Callable[[Exception, str], None] = lambda error, who: None,
    ):
        self._config = config
        self._recorder = recorder
        self._report = report
        self._on_labelled = on_labelled
        self._on_error = on_error
        self._snapshots: Mailbox[tuple[int, Snapshot]] = Mailbox(1)
        self._query: TextQuery | None = None
        self._loading = threading.Lock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="seg3d-text", daemon=True)
        self._names: dict[int, str] = {}
        self._names_lock = threading.Lock()
        self._map = 0
        self._fault = ""

    def load(self) -> None:
        """Loads the encoder now: importing its libraries stops all threads for seconds on a cold disk."""
        try:
            self._loaded()
        except Seg3DError as error:
            self._fault = str(error)
            self._report("warning", "text", f"text queries are off: {error}")
        except Exception as error:  # a library that does not load here must not keep the map from starting
            self._recorder.count("text errors")
            self._fault = str(error) or type(error).__name__
            log.exception("the text encoder did not load")
            self._report("error", "text", f"text queries are off: {error} (traceback in the log)")

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout: float) -> None:
        self._stopping.set()
        self._snapshots.close()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def offer(self, snapshot: Snapshot) -> None:
        """A new snapshot to prepare for."""
        self._snapshots.put((self._map, snapshot))

    def forget(self) -> None:
        """Another map: labels of the old one are not shown on it."""
        self._snapshots.clear()
        with self._names_lock:
            self._map += 1
            self._names = {}

    def restore_names(self, names: Mapping[int, str]) -> None:
        self._names = dict(names)

    @property
    def names(self) -> dict[int, str]:
        return dict(self._names)

    @property
    def encoder_id(self) -> str:
        return self._query.encoder_id if self._query else ""

    @property
    def model(self) -> Model:
        """For diagnostics."""
        return Model(self.encoder_id or "none", "features", self._fault, self._snapshots.dropped)

    @property
    def memory_bytes(self) -> int:
        return self._query.memory_bytes if self._query else 0

    def with_names(self, snapshot: Snapshot) -> Snapshot:
        """The snapshot with the labels that are known already, by instance id."""
        return snapshot.with_names(self._names)

    def check(self, text: str) -> None:
        """Raises QueryError for a text that is too long or empty."""
        if len(text) > self._config.runtime.max_query_length:
            limit = self._config.runtime.max_query_length
            raise QueryError("too_long", f"the text has {len(text)} characters; at most {limit} are taken")
        if not text.strip():
            raise QueryError("empty_text", "the text is empty")

    def answer(self, text: str, snapshot: Snapshot, top_k: int | None) -> QueryResult:
        """Raises QueryError for a text that cannot be answered, Seg3DError when no encoder can be loaded."""
        self.check(text)
        with self._recorder.stage("query"):
            return self._loaded().answer(text, snapshot, top_k)

    def _loaded(self) -> TextQuery:
        with self._loading:
            if self._query is None:
                with self._recorder.stage("load encoder"):
                    self._query = build_query(self._config)
                    self._fault = ""
            return self._query

    def _run(self) -> None:
        while (offered := self._snapshots.get()) is not None:
            try:
                self._prepare(*offered)
            except Seg3DError as error:
                self._recorder.count("text errors")
                self._fault = str(error)
                self._report("warning", "text", f"text queries are off: {error}")
            except Exception as error:
                self._recorder.count("text errors")
                self._fault = str(error) or type(error).__name__
                log.exception("preparing text features failed")
                self._on_error(error, "text")
                self._report("error", "text", "preparing text features failed (traceback in the log)")

    def _prepare(self, of_map: int, snapshot: Snapshot) -> None:
        query = self._loaded()
        if query.encoder_id == "":
            return
        with self._recorder.stage("features"):
            done = query.prepare(snapshot, self._should_stop)
        self._fault = ""
        if not done or not self._config.query.labels:
            return
        names = query.labels(snapshot)
        with self._names_lock:
            if of_map != self._map:
                return
            # Replaced, never changed: other threads read it without a lock. An instance that comes back is named anew.
            self._names = {int(i): n for i, n in zip(snapshot.instances.ids, names, strict=True)}
        self._on_labelled(snapshot, names)

    def _should_stop(self) -> bool:
        """A newer snapshot waits, or the end."""
        return self._stopping.is_set() or len(self._snapshots) > 0
