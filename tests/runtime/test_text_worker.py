# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Labels belong to the map that they were made for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from seg3d_core.config import Config
from seg3d_core.runtime.statistics import Recorder
from seg3d_core.runtime.text_worker import TextWorker
from seg3d_core.types import Instances, Snapshot


class Words:
    """A query that names every instance by its id, and may be disturbed on the way."""

    encoder_id = "words"

    def __init__(self, meanwhile=lambda: None):
        self.meanwhile = meanwhile

    def prepare(self, snapshot, should_stop):
        self.meanwhile()
        return True

    def labels(self, snapshot):
        return tuple(f"thing {i}" for i in snapshot.instances.ids)


def snapshot_of(*ids: int) -> Snapshot:
    count = len(ids)
    instances = Instances(np.array(ids, np.int32), np.ones(count), np.zeros(count + 1, int), np.empty(0, int))
    return replace(Snapshot.empty(), sequence=1, instances=instances)


def make_worker() -> tuple[TextWorker, list]:
    labelled: list = []
    worker = TextWorker(Config(), Recorder(), lambda *_: None, lambda snapshot, names: labelled.append(names))
    worker._query = Words()
    return worker, labelled


def test_only_ids_of_the_newest_labelled_snapshot_are_remembered() -> None:
    worker, labelled = make_worker()
    for ids in ((1, 2), (2, 3)):
        worker.offer(snapshot_of(*ids))
        worker._prepare(*worker._snapshots.get())
    assert worker.names == {2: "thing 2", 3: "thing 3"}
    assert labelled == [("thing 1", "thing 2"), ("thing 2", "thing 3")]
    assert worker.with_names(snapshot_of(3, 4)).names == ("thing 3", "")


def test_labels_of_a_map_that_was_replaced_meanwhile_are_thrown_away() -> None:
    worker, labelled = make_worker()

    def load() -> None:
        worker.forget()
        worker.restore_names({1: "sofa"})

    worker._query = Words(load)
    worker.offer(snapshot_of(1, 2))
    worker._prepare(*worker._snapshots.get())
    assert worker.names == {1: "sofa"} and not labelled


def test_an_encoder_that_cannot_be_imported_is_told_and_no_more(monkeypatch) -> None:
    def broken(config):
        raise ImportError("libgomp.so.1: cannot open shared object file")

    monkeypatch.setattr("seg3d_core.runtime.text_worker.build_query", broken)
    told: list = []
    worker = TextWorker(Config(), Recorder(), lambda *news: told.append(news), lambda *_: None)
    worker.load()
    assert [news[:2] for news in told] == [("error", "text")] and "libgomp" in told[0][2]
