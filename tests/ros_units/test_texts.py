# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Texts and paths from outside: nothing leaves the folder of maps, and nothing steers a terminal or a viewer."""

import logging
import os
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from seg3d_interfaces.srv import LoadMap, SaveMap
from seg3d_ros import diagnostics, outputs, parameters, paths, report, services

from seg3d_core.errors import MapFileError, QueryError, printable
from seg3d_core.types import Instances, Snapshot

PARAMETERS = {"map_frame": "map", "runtime.max_waiting": 100, "runtime.query_deadline": 10.0}
HOSTILE = "sofa\x1b[31m\n[ERROR] \u202eevil\ud800\0" + "x" * 5000


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=300))
def test_printable_is_one_line_that_any_terminal_takes(text):
    shown = printable(text, 50)
    assert len(shown) <= 50 and (shown.isprintable() or not shown)
    shown.encode()
    if text.isprintable() and len(text) <= 50:
        assert shown == text


PARTS = (
    "..", ".", "", "a", "b.seg3d", "out", "inside", "~", "~root", "loop", "a" * 300, "\0", "\n", "\x1b[0m", "\ud800",
    "ü", "C:\\x", "%2e%2e", "-", " ",
)  # fmt: skip
parts = st.lists(st.sampled_from(PARTS) | st.text(max_size=5), min_size=1, max_size=6)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("outside") / "maps"
    (home / "inside").mkdir(parents=True)
    (home / "out").symlink_to(home.parent)
    (home / "b.seg3d").symlink_to("/etc/passwd")
    (home / "a").symlink_to("inside")
    (home / "loop").symlink_to("loop")
    return home


@settings(max_examples=1000, deadline=None)
@given(names=parts, absolute=st.booleans())
def test_whatever_is_asked_for_lies_in_the_folder_or_is_refused(home, names, absolute):
    asked = ("/" if absolute else "") + "/".join(names)
    try:
        path = paths.confined(home, asked)
    except MapFileError as error:
        refused = error.code, len(str(error)) < 2500
        path = None
    if path is None:
        assert refused in (("empty_path", True), ("outside_folder", True))
        return
    assert home in path.parents and path.suffix == ".seg3d"
    assert home in type(path)(os.path.realpath(path)).parents
    path.exists()


@pytest.mark.parametrize(
    ("asked", "code"),
    [("a" * 300, "EMPTY_PATH"), ("x/" * 2000, "EMPTY_PATH"), ("new\nline", "EMPTY_PATH"), ("\ud800", "EMPTY_PATH"),
     ("\x1b[2J", "EMPTY_PATH"), ("~nobody-of-that-name/x", "OUTSIDE_FOLDER"), ("b.seg3d", "OUTSIDE_FOLDER"),
     ("loop/x", "OUTSIDE_FOLDER"), (".", "EMPTY_PATH"), ("inside/..", "EMPTY_PATH"), ("..", "EMPTY_PATH")],
)  # fmt: skip
def test_each_way_out_has_its_code(node, home, asked, code):
    before = sorted(str(path) for path in home.parent.rglob("*"))
    services.Services(node, {**PARAMETERS, "maps_folder": str(home)}, lambda: None)
    node.services.clear()
    services.Services(node, {**PARAMETERS, "maps_folder": str(home)}, lambda: SimpleNamespace())
    for name, kind in (("save_map", SaveMap), ("load_map", LoadMap)):
        # Not by the message's constructor: what the wire brings is not asked whether it is a text.
        response = node.services[f"~/{name}"][1](SimpleNamespace(path=asked, overwrite=True), kind.Response())
        assert (response.success, response.code) == (False, getattr(response, code)), response.message
        response.message.encode()
    assert sorted(str(path) for path in home.parent.rglob("*")) == before


def test_files_and_folders_cannot_be_set_by_a_request():
    fixed = {own.name for own in parameters.OWN if own.read_only}
    assert {"maps_folder", "max_maps", "spare_disk", "recording", "points_file"} <= fixed
    from seg3d_core.config import Config, iterate

    named = {name for name, value, _ in iterate(Config()) if isinstance(value, str) and
             name.endswith(("_dir", "weights", "cropformer_config", "vocabulary"))}  # fmt: skip
    assert named == parameters._PATHS
    for name, _, field in iterate(Config()):
        assert parameters._core_descriptor(name, field).read_only is (name in named)


def test_labels_are_clean_in_messages_and_markers():
    ids, box = np.array([3], np.int32), np.ones((1, 3), np.float32)
    instances = Instances(ids, np.ones(1, np.float32), np.array([0, 1]), np.arange(1))
    snapshot = Snapshot(1, 1.0, Snapshot.empty().cloud, instances, np.empty(0, np.int32), box, box, names=(HOSTILE,))
    header = outputs.make_header(snapshot, "map")
    messages = outputs.instance_messages(snapshot)
    markers = outputs.marker_array(messages, header).markers
    for text in (messages[0].label, markers[-1].text):
        assert "sofa" in text and text.isprintable() and len(text) <= 110


def test_log_lines_are_one_line_each(node):
    reporter = report.Reporter(node.get_logger())
    reporter.drop("encoding", f"the encoding {HOSTILE}")
    reporter.warn("other", HOSTILE)
    reporter.event("error", HOSTILE)
    bridge = report.LogBridge(node.get_logger())
    bridge.emit(logging.LogRecord("seg3d_core", logging.WARNING, "f", 1, "damaged: %s", (HOSTILE,), None))
    assert len(node.logger.lines) == 4
    for _, line in node.logger.lines:
        assert line.isprintable() and len(line) < 2200


def test_tracebacks_keep_their_lines_and_nothing_else(node):
    reporter = report.Reporter(node.get_logger())

    def fail():
        raise ValueError(HOSTILE)

    reporter.guarded(fail)()
    ((_, said),) = node.logger.lines
    assert "fail failed; this is a bug:" in said and "Traceback" in said and len(said.splitlines()) > 3
    assert all(line.isprintable() for line in said.split("\n"))


def test_diagnostics_are_clean(node):
    room = diagnostics.Diagnostics.__new__(diagnostics.Diagnostics)
    room.node = node
    status = room._status("drops", diagnostics.OK, HOSTILE, {HOSTILE: HOSTILE})
    for text in (status.message, status.values[0].key, status.values[0].value):
        assert text.isprintable() and len(text) <= 1000


def test_refusals_are_clean(node, tmp_path):
    def fail(*_, **_options):
        raise QueryError("too_long", HOSTILE)

    runtime = SimpleNamespace(snapshot=None, query=fail)
    services.Services(node, {**PARAMETERS, "maps_folder": str(tmp_path)}, lambda: runtime)
    kind, answer = node.services["~/query_text"]
    response = answer(kind.Request(text="x"), kind.Response())
    assert not response.success and response.message.isprintable() and len(response.message) <= 500
