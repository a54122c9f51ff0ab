# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""The wheel of the interfaces carries tf2_msgs where nobody else brings it, also when it replaces itself."""

import importlib.util
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest

BACKEND = Path(__file__).resolve().parents[2] / "ros2_ws/src/seg3d_interfaces/build_backend/rosidl_wheel.py"


@pytest.fixture(scope="module")
def backend():
    spec = importlib.util.spec_from_file_location("rosidl_wheel", BACKEND)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_copy_of_our_own_is_built_again(backend):
    try:
        files = distribution("seg3d-interfaces").files or []
    except PackageNotFoundError:
        pytest.skip("the interfaces were not installed by pip here")
    if not any(str(f).startswith("tf2_msgs/") for f in files):
        pytest.skip("tf2_msgs comes from elsewhere here")
    assert [p.name for p in backend._sources()] == ["tf2_msgs", "seg3d_interfaces"]


def test_what_others_bring_is_left_to_them(backend):
    assert backend._is_foreign("numpy")
    assert not backend._is_foreign("no_such_package_anywhere")
