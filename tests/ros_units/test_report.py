# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Everything is counted; each reason is said once per interval."""

import logging

import pytest
from seg3d_ros import report as room


@pytest.fixture
def reporter(node, runtime):
    out = room.Reporter(node.logger)
    out.count_drop = runtime.count_drop
    return out


def test_counts_all_and_says_once(reporter, node, runtime):
    for _ in range(5):
        reporter.drop("encoding", "why")
    reporter.drop("stamp", "late", 3)
    assert runtime.drops == {"encoding": 5, "stamp": 3}
    assert [text for _, text in node.logger.lines] == ["dropped (encoding): why", "dropped (stamp): late"]


def test_after_the_interval_it_tells_how_many_were_silent(reporter, node, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(room.time, "monotonic", lambda: clock[0])
    for _ in range(4):
        reporter.drop("encoding", "why")
    clock[0] += room.INTERVAL + 1
    reporter.drop("encoding", "why")
    assert node.logger.lines[-1] == ("warning", "dropped (encoding): why (3 more like it since the last time)")


def test_a_bug_is_counted_and_shown_and_goes_no_further(reporter, node, runtime):
    def broken(message):
        raise KeyError(message)

    reporter.guarded(broken)("odd")
    assert runtime.drops == {"internal_error": 1}
    assert "broken failed" in node.logger.lines[0][1]
    assert "KeyError: 'odd'" in node.logger.lines[0][1]


def test_the_cores_log_reaches_the_nodes(node):
    logger = logging.getLogger("seg3d_core.test_bridge")
    logger.setLevel(logging.INFO)
    bridge = room.LogBridge(node.logger)
    logger.addHandler(bridge)
    try:
        logger.info("a %s", "word")
        logger.error("bad")
    finally:
        logger.removeHandler(bridge)
    assert node.logger.lines == [("info", "seg3d_core.test_bridge: a word"), ("error", "seg3d_core.test_bridge: bad")]
