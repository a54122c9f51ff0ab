# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Kernels find a folder even where package and home are read-only, and never one of another user."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

import pytest

from seg3d_core import kernel_cache


@pytest.fixture
def read_only(monkeypatch, tmp_path) -> Path:
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setattr(kernel_cache, "_writable", lambda folder: False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    # Restored afterwards, whatever the function writes there.
    monkeypatch.setenv("NUMBA_CACHE_DIR", "")
    return tmp_path


def test_a_private_folder_serves_every_run(read_only):
    kernel_cache.find_kernel_cache()
    first = Path(os.environ["NUMBA_CACHE_DIR"])
    assert first.parent == read_only and stat.S_IMODE(first.stat().st_mode) == 0o700
    os.environ["NUMBA_CACHE_DIR"] = ""
    kernel_cache.find_kernel_cache()
    assert Path(os.environ["NUMBA_CACHE_DIR"]) == first


def test_a_folder_that_others_can_write_is_not_taken(read_only):
    kernel_cache.find_kernel_cache()
    first = Path(os.environ["NUMBA_CACHE_DIR"])
    first.chmod(0o777)
    os.environ["NUMBA_CACHE_DIR"] = ""
    kernel_cache.find_kernel_cache()
    assert Path(os.environ["NUMBA_CACHE_DIR"]) != first


def test_a_writable_home_or_a_choice_of_ones_own_is_left_alone(monkeypatch, tmp_path):
    monkeypatch.setenv("NUMBA_CACHE_DIR", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "not" / "yet"))
    kernel_cache.find_kernel_cache()
    assert os.environ["NUMBA_CACHE_DIR"] == ""
    monkeypatch.setenv("NUMBA_CACHE_DIR", "mine")
    kernel_cache.find_kernel_cache()
    assert os.environ["NUMBA_CACHE_DIR"] == "mine"
