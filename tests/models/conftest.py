# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""What the tests of networks share."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Tests run side by side already, and many small products wait for each other's threads."""
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)
