# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Fault 17: texts of any kind, a hundred at once: each is answered or refused with a reason, none takes the map down.
The deadline is in tests/runtime/test_query_desk.py, cleaning of texts in tests/query/test_text.py."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seg3d_core.errors import QueryError, Seg3DError
from seg3d_core.query.text import TextQuery
from seg3d_core.runtime import text_worker
from seg3d_core.types import QueryResult

TEXTS = [
    "", " ", "\n\t\0", "\ud800", "‮‭", "a" * 10_000, "the " * 3_000, "sofa", "沙发", "диван", "أريكة", "कुर्सी", "ソファ",
    "🛋️", "!!!", "1", "instance 2", "#3", "-1", "9" * 400, "'; drop table maps; --", "../../etc/passwd", "%s%n{0}{}",
    "\x1b[31mred", "[bold]red[/bold]", "a\u0301", "\ufeffsofa", "０", "NaN", "None",
]  # fmt: skip


class Encoder:
    """Any text and any crop have features."""

    id, dim, approximate = "stub", 8, False

    def encode_text(self, texts):
        rows = [np.random.default_rng(len(t)).normal(size=8) for t in texts]
        return np.array([r / np.linalg.norm(r) for r in rows], np.float32).reshape(-1, 8)

    def encode_images(self, crops):
        return np.full((len(crops), 8), 8**-0.5, np.float32)


@pytest.fixture
def running(live, box_room, monkeypatch):
    monkeypatch.setattr(text_worker, "build_query", lambda config: TextQuery(config.query, Encoder()))
    out = live()
    out.feed(box_room(6))
    assert len(out.runtime.segment_now().instances) == 3
    return out


def outcome(runtime, text):
    try:
        result = runtime.query(text)
    except Seg3DError as error:
        return error
    assert isinstance(result, QueryResult) and result.message and result.matched == bool(result.answers)
    assert all(0 <= a.score <= 1 and np.isfinite(a.centre).all() for a in result.answers)
    return result


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.one_of(st.text(max_size=200), st.sampled_from(TEXTS), st.text("a é沙🛋\u202e\0", max_size=2_000)))
def test_any_text_is_answered_or_refused(running, text) -> None:
    assert isinstance(outcome(running.runtime, text), (QueryResult, QueryError))


def test_a_hundred_at_once_beside_frames_and_segmentations(running, box_room) -> None:
    with ThreadPoolExecutor(101) as pool:
        waiting = [pool.submit(outcome, running.runtime, TEXTS[k % len(TEXTS)]) for k in range(100)]
        feeding = pool.submit(running.feed, [f for f in box_room(12) if f.index >= 6])
        found = [w.result(60) for w in waiting]
        feeding.result(60)
    refused = {f.code for f in found if isinstance(f, QueryError)}
    assert {"empty_text", "too_long"} <= refused
    assert sum(isinstance(f, QueryResult) for f in found) > 0
    assert len(running.runtime.segment_now().instances) == 3
    assert "scene errors" not in running.counters and "text errors" not in running.counters
