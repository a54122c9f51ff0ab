# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Answers from another thread: in time, too late, in the last moment, or none because of a stop."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout

import pytest

from seg3d_core.errors import BusyError, QueryError, Seg3DError
from seg3d_core.runtime.answers import Answers, answer


def test_results_and_errors_come_back() -> None:
    answers = Answers()
    assert answers.wait(lambda future: answer(future, 7), 5, "late") == 7
    with pytest.raises(QueryError):
        answers.wait(lambda future: answer(future, QueryError("empty_text", "nothing")), 5, "late")
    with pytest.raises(BusyError, match="too many"):
        answers.wait(lambda _: (_ for _ in ()).throw(BusyError("busy", "too many")), 5, "late")


def test_what_is_late_is_given_up_and_its_answer_goes_nowhere() -> None:
    answers, given = Answers(), []
    with pytest.raises(BusyError, match="late") as error:
        answers.wait(given.append, 0.01, "late")
    assert error.value.code == "timeout" and given[0].cancelled()
    answer(given[0], 7)


def test_an_answer_in_the_last_moment_counts(monkeypatch) -> None:
    def times_out_and_is_answered(future, timeout=None):
        if timeout is None:
            return real(future)
        answer(future, 7)
        raise FutureTimeout

    real = Future.result
    monkeypatch.setattr(Future, "result", times_out_and_is_answered)
    assert Answers().wait(lambda _: None, 1.0, "late") == 7


def test_a_stop_answers_who_waits_and_who_comes_later() -> None:
    answers, waits = Answers(), threading.Event()
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(answers.wait, lambda _: waits.set(), 20, "late")
        assert waits.wait(5)
        answers.stop()
        with pytest.raises(Seg3DError, match="shutting down"):
            asked.result(5)
    with pytest.raises(Seg3DError, match="shutting down"):
        answers.wait(lambda future: answer(future, 7), 5, "late")
