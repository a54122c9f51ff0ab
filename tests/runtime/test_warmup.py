# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""The warm-up fills budgets to the brim and says nothing of it: nobody's map is full."""

from __future__ import annotations

import logging

from seg3d_core.config import build
from seg3d_core.runtime.warmup import warm_up


def test_a_warm_up_warns_of_nothing_and_leaves_the_log_as_it_is(caplog) -> None:
    with caplog.at_level(logging.INFO, "seg3d_core"):
        warm_up(build({"query.encoder": "none"}))
    assert [r.levelno for r in caplog.records if r.levelno > logging.INFO] == []
    assert logging.getLogger("seg3d_core.mapping").level == logging.NOTSET
