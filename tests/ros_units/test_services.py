# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Every cause of a refusal has its code; a plug-in that fails on purpose provokes each."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
from seg3d_interfaces.srv import LoadMap, QueryText, Reset, SaveMap, Segment
from seg3d_ros import paths, services

from seg3d_core.errors import BusyError, ConfigError, MapFileError, QueryError, Seg3DError, WeightsError
from seg3d_core.types import Answer, Instances, QueryResult, Snapshot


def snapshot():
    ids = np.array([3, 8], np.int32)
    instances = Instances(ids, np.array([0.9, 0.4], np.float32), np.array([0, 2, 5]), np.arange(5))
    box = np.ones((2, 3), np.float32)
    return Snapshot(4, 12.5, Snapshot.empty().cloud, instances, np.empty(0, np.int32), box, box, names=("sofa", "lamp"))


class Scripted:
    """A runtime whose methods raise `error`, or answer."""

    def __init__(self, error=None, points=5):
        self.error, self.points, self.asked = error, points, []
        self.snapshot = snapshot()

    def _do(self, *args, **options):
        self.asked.append((args, options))
        if self.error:
            raise self.error
        return self.snapshot

    segment_now = reset = save = load = _do

    def query(self, text, top_k, patience):
        self._do(text, top_k)
        answer = Answer(8, 0.7, (0, 0, 0), (1, 1, 1), "lamp")
        return QueryResult(text, (answer,) if text == "lamp" else (), text == "lamp", "said", "encoder", True)

    def statistics(self):
        return SimpleNamespace(points=self.points, memory_mb={"map": 20.0, "views": 10.0})


@pytest.fixture
def call(node, tmp_path):
    def ask(runtime, name, kind, **request):
        parameters = {
            "map_frame": "map",
            "maps_folder": str(tmp_path),
            "max_maps": 3,
            "spare_disk": 0.0,
            "runtime.max_waiting": 100,
            "runtime.query_deadline": 2.0,
        }
        services.Services(node, parameters, lambda: runtime)
        _, answer = node.services[f"~/{name}"]
        return answer(kind.Request(**request), kind.Response())

    return ask


ALL = {
    "query_text": (QueryText, {"text": "lamp"}),
    "reset": (Reset, {}),
    "segment_now": (Segment, {}),
    "save_map": (SaveMap, {"path": "a"}),
    "load_map": (LoadMap, {"path": "a"}),
}


@pytest.mark.parametrize("name", ALL)
def test_success(call, name):
    kind, request = ALL[name]
    response = call(Scripted(), name, kind, **request)
    assert response.success
    assert response.code == response.OK
    assert response.message


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(
    ("error", "code"), [(Seg3DError("too slow"), "TIMEOUT"), (RuntimeError("oh"), "INTERNAL"), (None, "NOT_ACTIVE")]
)
def test_what_may_befall_each(call, name, error, code):
    kind, request = ALL[name]
    response = call(Scripted(error) if error else None, name, kind, **request)
    assert not response.success
    assert response.code == getattr(response, code)
    assert response.message


@pytest.mark.parametrize("code", services.QUERY_CODES)
def test_query_codes(call, code):
    response = call(Scripted(QueryError(code, "why")), "query_text", QueryText, text="x")
    assert (response.success, response.code, response.message) == (False, services.QUERY_CODES[code], "why")


@pytest.mark.parametrize("code", ["busy", "timeout"])
def test_a_node_that_is_too_busy_says_so(call, code):
    response = call(Scripted(BusyError(code, "why")), "query_text", QueryText, text="x")
    assert (response.success, response.code, response.message) == (False, QueryText.Response.TIMEOUT, "why")


def test_queries_that_come_together_share_the_deadline(node, monkeypatch):
    """Each of a hundred takes a tenth of a second: what waits for longer than the deadline is left no time."""
    now, given = [100.0], []
    monkeypatch.setattr(services.time, "monotonic", lambda: now[0])

    class Slow(Scripted):
        def query(self, text, top_k, patience):
            given.append(patience)
            if patience <= 0:
                raise BusyError("busy", "why")
            now[0] += 0.1
            return super().query(text, top_k, patience)

    runtime = Slow()
    parameters = {"map_frame": "map", "runtime.max_waiting": 100, "runtime.query_deadline": 2.0}
    services.Services(node, parameters, lambda: runtime)
    _, answer = node.services["~/query_text"]
    codes = [answer(QueryText.Request(text="lamp"), QueryText.Response()).code for _ in range(100)]
    assert codes.count(QueryText.Response.OK) in (20, 21)
    assert set(codes) == {QueryText.Response.OK, QueryText.Response.TIMEOUT}
    assert codes == sorted(codes), "first come, first served"
    assert now[0] < 100 + 2.0 + 0.2
    now[0] += 1.0
    answer(QueryText.Request(text="lamp"), QueryText.Response())
    assert given[-1] == 2.0


@pytest.mark.parametrize("error", [WeightsError("no file"), ConfigError("no such model")])
def test_a_text_encoder_that_cannot_be_built(call, error):
    response = call(Scripted(error), "query_text", QueryText, text="x")
    assert (response.success, response.code) == (False, QueryText.Response.NO_ENCODER)


@pytest.mark.parametrize("code", services.SAVE_CODES)
def test_save_codes(call, code):
    response = call(Scripted(MapFileError(code, "why")), "save_map", SaveMap, path="x")
    assert (response.success, response.code) == (False, services.SAVE_CODES[code])


@pytest.mark.parametrize("code", services.LOAD_CODES)
def test_load_codes(call, code):
    response = call(Scripted(MapFileError(code, "why")), "load_map", LoadMap, path="x")
    assert (response.success, response.code) == (False, services.LOAD_CODES[code])


def test_every_code_of_a_map_file_has_its_constant():
    told = set(re.findall(r"`([a-z_]+)`", MapFileError.__doc__)) - {"code"}
    assert len(told) > 8
    assert told == set(services.SAVE_CODES) | set(services.LOAD_CODES)


def test_codes_of_one_service_differ():
    for kind in (QueryText, SaveMap, LoadMap, Segment, Reset):
        constants = [
            getattr(kind.Response, n) for n in dir(type(kind.Response)) if n.isupper() and not n.startswith("_")
        ]
        assert len(constants) >= 4
        assert len(set(constants)) == len(constants)


def test_answers_carry_the_instances(call):
    response = call(Scripted(), "query_text", QueryText, text="lamp")
    assert [i.id for i in response.instances] == [8]
    assert response.instances[0].label == "lamp"
    assert response.instances[0].num_points == 3
    assert np.allclose(response.scores, [0.7])
    assert response.approximate
    assert response.header.frame_id == "map"
    assert (response.header.stamp.sec, response.header.stamp.nanosec) == (12, 500_000_000)


def test_nothing_matched_is_an_answer(call):
    response = call(Scripted(), "query_text", QueryText, text="unicorn")
    assert response.success
    assert response.code == QueryText.Response.NOTHING_MATCHED
    assert not response.instances


def test_top_k_zero_means_the_nodes_setting(call):
    runtime = Scripted()
    call(runtime, "query_text", QueryText, text="lamp")
    call(runtime, "query_text", QueryText, text="lamp", top_k=2)
    assert [args for args, _ in runtime.asked] == [("lamp", None), ("lamp", 2)]


def test_an_empty_map_is_not_segmented(call):
    response = call(Scripted(points=0), "segment_now", Segment)
    assert (response.success, response.code) == (False, Segment.Response.EMPTY_MAP)


@pytest.mark.parametrize("path", ["../out", "/etc/passwd", "a/../../b", "~root/x", "link/x"])
def test_paths_stay_inside(call, tmp_path, path):
    (tmp_path / "link").symlink_to(tmp_path.parent)
    for name, kind in (("save_map", SaveMap), ("load_map", LoadMap)):
        runtime = Scripted()
        response = call(runtime, name, kind, path=path)
        assert (response.success, response.code) == (False, kind.Response.OUTSIDE_FOLDER)
        assert runtime.asked == [], "the runtime never saw the path"


@pytest.mark.parametrize(("path", "file"), [("a", "a.seg3d"), ("a.seg3d", "a.seg3d"), ("flat/a.b", "flat/a.b.seg3d")])
def test_paths_inside(call, tmp_path, path, file):
    response = call(Scripted(), "save_map", SaveMap, path=path)
    assert response.path == str(tmp_path / file)
    assert call(Scripted(), "load_map", LoadMap, path=str(tmp_path / path)).path == str(tmp_path / file)


@pytest.mark.parametrize("path", ["", "  ", "a\0b"])
def test_empty_paths(call, path):
    assert call(Scripted(), "save_map", SaveMap, path=path).code == SaveMap.Response.EMPTY_PATH


def test_a_folder_that_cannot_be_made(call, tmp_path):
    (tmp_path / "file").write_text("")
    response = call(Scripted(), "save_map", SaveMap, path="file/inner/a")
    assert response.code == SaveMap.Response.UNWRITABLE


def test_only_so_many_maps_are_saved_and_old_ones_may_be_replaced(call, tmp_path):
    (tmp_path / "deep").mkdir()
    for name in ("a.seg3d", "deep/b.seg3d", "c.seg3d", "notes.txt"):
        (tmp_path / name).write_text("")
    runtime = Scripted()
    refused = call(runtime, "save_map", SaveMap, path="new/d")
    assert (refused.success, refused.code) == (False, SaveMap.Response.NO_SPACE)
    assert "holds 3 maps" in refused.message and "max_maps" in refused.message
    assert runtime.asked == [] and not (tmp_path / "new").exists()
    assert call(runtime, "save_map", SaveMap, path="deep/b", overwrite=True).success
    (tmp_path / "a.seg3d").unlink()
    assert call(runtime, "save_map", SaveMap, path="new/d").success


@pytest.mark.parametrize(("free_mb", "enough"), [(529, False), (531, True)])
def test_a_map_that_would_fill_the_disk_is_refused_before_anything_is_written(
    node, tmp_path, monkeypatch, free_mb, enough
):
    """30 MB of map, and 500 MB that stay free."""
    monkeypatch.setattr(paths.shutil, "disk_usage", lambda _: SimpleNamespace(free=free_mb * 1_000_000))
    home, runtime = tmp_path / "not" / "there" / "yet", Scripted()
    parameters = {"maps_folder": str(home), "max_maps": 3, "spare_disk": 500.0, "runtime.max_waiting": 100}
    services.Services(node, parameters, lambda: runtime)
    response = node.services["~/save_map"][1](SaveMap.Request(path="a"), SaveMap.Response())
    assert (response.success, bool(runtime.asked)) == (enough, enough)
    if not enough:
        assert response.code == SaveMap.Response.NO_SPACE and "spare_disk" in response.message
        assert list(tmp_path.iterdir()) == []


def test_a_save_that_fails_leaves_no_folders(call, tmp_path):
    (tmp_path / "kept").mkdir()
    for error in (MapFileError("no_space", "why"), Seg3DError("too slow"), RuntimeError("oh")):
        assert not call(Scripted(error), "save_map", SaveMap, path="kept/one/two/a").success
    assert [path.name for path in tmp_path.rglob("*")] == ["kept"]
