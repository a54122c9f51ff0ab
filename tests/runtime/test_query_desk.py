# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""A hundred queries at once: each is answered or refused, in a bounded queue and a bounded time."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from seg3d_core.errors import BusyError, QueryError, Seg3DError
from seg3d_core.runtime.query_desk import QueryDesk
from seg3d_core.types import QueryResult


def answer(text: str) -> QueryResult:
    return QueryResult(text, (), False, "said", "encoder")


@pytest.fixture
def desk():
    """`desk(most, deadline)`, started; stopped at the end."""
    made: list[QueryDesk] = []

    def make(most: int = 100, deadline: float = 10.0) -> QueryDesk:
        made.append(QueryDesk(most, deadline))
        made[-1].start()
        return made[-1]

    yield make
    for each in made:
        each.stop(5)


def outcomes(desk: QueryDesk, queries) -> list[object]:
    """What each of the queries, all asked at once, comes to; and none takes longer than the deadline by much."""

    def ask(query):
        start = time.monotonic()
        try:
            return desk.ask(query), time.monotonic() - start
        except Exception as error:
            return error, time.monotonic() - start

    with ThreadPoolExecutor(len(queries)) as pool:
        found = list(pool.map(ask, queries))
    assert max(seconds for _, seconds in found) < desk._deadline + 5
    return [outcome for outcome, _ in found]


def test_a_hundred_at_once_are_all_answered_where_there_is_time(desk) -> None:
    found = outcomes(desk(), [lambda i=i: answer(str(i)) for i in range(100)])
    assert [result.text for result in found] == [str(i) for i in range(100)]


def test_of_a_hundred_slow_ones_those_that_cannot_be_done_in_time_are_refused(desk) -> None:
    def slow():
        time.sleep(0.1)
        return answer("slow")

    found = outcomes(desk(most=100, deadline=1.0), [slow] * 100)
    refused = [f for f in found if isinstance(f, BusyError)]
    assert {f.code for f in refused} <= {"timeout", "busy"}
    assert len(found) - len(refused) <= 11 and refused


def test_more_than_may_wait_are_refused_at_once(desk, until) -> None:
    go_on = threading.Event()
    one = desk(most=5, deadline=20.0)

    def blocked():
        assert go_on.wait(20)
        return answer("late")

    with ThreadPoolExecutor(30) as pool:
        first = pool.submit(one.ask, blocked)
        assert until(lambda: one._busy_since is not None)
        others = [pool.submit(one.ask, lambda: answer("next")) for _ in range(29)]
        assert until(lambda: one.queue.dropped >= 24)
        go_on.set()
        assert first.result().text == "late"
        errors = [o.exception() for o in others]
    refused = [e for e in errors if e is not None]
    assert len(refused) == 24 and {e.code for e in refused} == {"busy"}
    assert one.queue.length == 0


def test_behind_one_that_hangs_nobody_waits_in_vain(desk, until) -> None:
    go_on = threading.Event()
    one = desk(deadline=0.2)
    try:
        with pytest.raises(BusyError) as error:
            one.ask(lambda: answer(str(go_on.wait(20))))
        assert error.value.code == "timeout"
        assert until(lambda: time.monotonic() - one._busy_since > one._deadline)
        start = time.monotonic()
        for _ in range(100):
            with pytest.raises(BusyError) as error:
                one.ask(lambda: answer("next"))
            assert error.value.code == "busy"
        assert time.monotonic() - start < 2
    finally:
        go_on.set()
    assert until(lambda: one._busy_since is None)
    assert one.ask(lambda: answer("again")).text == "again"


def test_what_was_given_up_is_not_done_later(desk, until) -> None:
    go_on, done = threading.Event(), []
    one = desk(deadline=20.0)

    def blocked():
        assert go_on.wait(20)
        return answer("late")

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(one.ask, blocked)
        assert until(lambda: one._busy_since is not None)
        with pytest.raises(BusyError):
            one.ask(lambda: done.append(1) or answer("next"), patience=0.05)
        go_on.set()
        first.result()
    assert one.ask(lambda: answer("last")).text == "last"
    assert not done


def test_an_error_of_the_query_is_its_outcome_and_a_stop_answers_all(desk, until) -> None:
    one, go_on = desk(), threading.Event()

    def refuse():
        raise QueryError("no_instances", "none")

    with pytest.raises(QueryError):
        one.ask(refuse)
    with pytest.raises(BusyError):
        one.ask(lambda: answer("x"), patience=0.0)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(one.ask, lambda: answer(str(go_on.wait(20))))
        assert until(lambda: one._busy_since is not None)
        second = pool.submit(one.ask, lambda: answer("second"))
        assert until(lambda: one.queue.length)
        threading.Timer(0.1, go_on.set).start()
        one.stop(5)
        assert first.result().text == "True"
        with pytest.raises(Seg3DError, match="shutting down"):
            second.result()
    with pytest.raises(Seg3DError, match="shutting down"):
        one.ask(lambda: answer("x"))


def test_a_stop_answers_who_asked_what_hangs(desk) -> None:
    one, go_on = desk(), threading.Event()
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(one.ask, lambda: answer(str(go_on.wait(20))))
        while one._busy_since is None:
            time.sleep(0.001)
        one.stop(0.05)
        try:
            with pytest.raises(Seg3DError, match="shutting down"):
                asked.result(5)
        finally:
            go_on.set()
