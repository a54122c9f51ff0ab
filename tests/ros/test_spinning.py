# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""What rclpy itself throws while it gathers what to wait for ends no node."""

import pytest
from rclpy.exceptions import InvalidHandle
from rclpy.executors import ExternalShutdownException
from seg3d_ros import segment_node


class Executor:
    def __init__(self, error: Exception):
        self.error = error

    def spin_once(self, timeout_sec: float) -> None:
        raise self.error


class Node:
    """Its report and its logger."""

    def __init__(self):
        self.report = self
        self.dropped: list[str] = []

    def drop(self, reason: str, *said: str, **more: str) -> None:
        self.dropped.append(reason)

    def get_logger(self):
        return self

    def debug(self, text: str) -> None:
        pass


@pytest.mark.parametrize(
    ("error", "dropped"),
    [
        (InvalidHandle("cannot use Destroyable because destruction was requested"), []),  # another thread was faster
        (RuntimeError("wait set is full"), ["internal_error"]),
    ],
)
def test_an_executor_that_fails_is_counted_unless_an_entity_was_gone(error, dropped):
    node = Node()
    segment_node._spin(Executor(error), node)
    assert node.dropped == dropped


def test_a_shutdown_from_outside_comes_through():
    with pytest.raises(ExternalShutdownException):
        segment_node._spin(Executor(ExternalShutdownException()), Node())
