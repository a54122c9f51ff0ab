# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""One file of a package from whatever index pip is configured for: resumed, hashed, neither unpacked nor built.

pip itself would build a source archive only to learn its name. Of pip's settings those count that say where and how:
index-url, extra-index-url, no-index, find-links, cert, client-cert, proxy, trusted-host and timeout.
"""

from __future__ import annotations

import ast
import base64
import hashlib
import http.client
import json
import logging
import netrc
import os
import re
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import IO, Any

from ..errors import WeightsError

log = logging.getLogger(__name__)

OnProgress = Callable[[int, int], None]
"""Told the bytes that are here, and all of them, 0 where that is unknown."""

_CHUNK = 1 << 18
_ATTEMPTS = 4
_PAGES = "application/vnd.pypi.simple.v1+json, text/html;q=0.5"
_PARTIAL, _NOT_SATISFIABLE = 206, 416


@dataclass(frozen=True)
class PipSettings:
    """Where pip looks and how it gets there."""

    indexes: tuple[str, ...] = ()
    find_links: tuple[str, ...] = ()
    trusted_hosts: tuple[str, ...] = ()
    cert: str = ""
    client_cert: str = ""
    proxy: str = ""
    timeout: float = 15.0


def read_pip_settings() -> PipSettings:
    """What pip says of itself. Raises WeightsError where this interpreter has no pip."""
    found: dict[str, str] = {}
    # Later ones win, as in pip: the environment over the command's own section over the global one.
    entries = re.findall(r"^(global|download|:env:)\.([\w-]+)=(.*)$", _pip("config", "list"), re.MULTILINE)
    for section in ("global", "download", ":env:"):
        found |= {name.removeprefix("default-"): _unquoted(value) for where, name, value in entries if where == section}
    indexes = found.get("extra-index-url", "").split()
    if found.get("no-index", "").lower() in ("", "0", "false", "no", "off"):
        indexes.insert(0, found.get("index-url") or _default_index())
    else:
        indexes = []
    return PipSettings(
        tuple(indexes),
        tuple(found.get("find-links", "").split()),
        tuple(found.get("trusted-host", "").split()),
        found.get("cert", ""),
        found.get("client-cert", ""),
        found.get("proxy", ""),
        float(found.get("timeout") or 15),
    )


def _default_index() -> str:
    """pip's own, which only its help tells."""
    match = re.search(r"--index-url.*?\(default\s+(\S+?)\)", _pip("download", "--help"), re.DOTALL)
    if match is None:
        raise WeightsError("pip does not say which index it uses: set index-url in its configuration")
    return match[1]


def _pip(*arguments: str) -> str:
    # Wide, so that no address is broken across lines.
    environment = {**os.environ, "COLUMNS": "1000"}
    command = [sys.executable, "-m", "pip", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise WeightsError(
            f"`pip {arguments[0]}` failed ({reason}): the index to download from is read from pip's configuration; "
            "install pip with `python -m ensurepip`, or bring the file: `seg3d models fetch NAME --from FILE`"
        )
    return done.stdout


def _unquoted(value: str) -> str:
    with suppress(ValueError, SyntaxError):
        return str(ast.literal_eval(value))
    return value


def download(project: str, filename: str, sha256: str, partial: Path, on_progress: OnProgress | None = None) -> None:
    """Writes the file of that project to `partial`, going on where an earlier try was cut off.

    Raises WeightsError with each place that was asked and why it did not help. What was received stays there.
    """
    session = _Session(read_pip_settings())
    url, reasons = session.find(project, filename)
    if url is None:
        raise WeightsError(f"{filename} is in no index that pip knows ({'; '.join(reasons) or 'there is none'})")
    reason = ""
    for attempt in range(_ATTEMPTS):
        if reason:
            log.info("%s: %s; asking again", filename, reason)
            time.sleep(attempt)
        try:
            resumed = _receive(session, url, partial, on_progress)
        except _CutOffError as error:
            reason = str(error)
            continue
        with partial.open("rb") as file:
            found = sha256_of(file)
        if found == sha256:
            return
        partial.unlink()
        if not resumed:
            raise WeightsError(f"{_without_password(url)} came with SHA-256 {found}, expected {sha256}")
        reason = "what an earlier try had left did not belong to it"
    raise WeightsError(f"{_without_password(url)} could not be had ({reason}); what came of it is kept for another try")


class _CutOffError(Exception):
    """The network failed, as opposed to the disk."""


def _receive(session: _Session, url: str, partial: Path, on_progress: OnProgress | None) -> bool:
    """The rest of the file; True where something of it was there. Raises _CutOffError where it ends early."""
    have = partial.stat().st_size if partial.is_file() else 0
    headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={have}-"} if have else {})}
    try:
        reply = session.open(url, headers)
    except urllib.error.HTTPError as error:
        if error.code == _NOT_SATISFIABLE and have:
            return True  # nothing is missing; the hash tells whether it is right
        raise _CutOffError(_reason(error)) from None
    except (OSError, http.client.HTTPException) as error:
        raise _CutOffError(_reason(error)) from None
    with closing(reply):
        goes_on = reply.status == _PARTIAL and reply.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        have = have if goes_on else 0
        total = have + int(reply.headers.get("Content-Length") or 0)
        resumed = have > 0
        with partial.open("ab" if resumed else "wb") as out:
            while chunk := _read(reply):
                out.write(chunk)
                have += len(chunk)
                if on_progress:
                    on_progress(have, max(total, have))
    if have < total:
        raise _CutOffError(f"{have} of {total} bytes came")
    return resumed


def _read(reply: Any) -> bytes:
    try:
        return bytes(reply.read(_CHUNK))
    except (OSError, http.client.HTTPException) as error:
        raise _CutOffError(_reason(error)) from None


class _Session:
    """Requests as pip would make them."""

    def __init__(self, settings: PipSettings):
        self._settings = settings
        self._passwords: dict[str, str] = {}

    def find(self, project: str, filename: str) -> tuple[str | None, list[str]]:
        """The file's address in the first place that has it, and why others have not."""
        name = re.sub(r"[-_.]+", "-", project).lower()
        pages = [*self._settings.find_links, *(f"{index.rstrip('/')}/{name}/" for index in self._settings.indexes)]
        reasons = []
        for page in pages:
            try:
                for found, url in self._links(page):
                    if found == filename:
                        return url, []
                reasons.append(f"{_without_password(page)} lists no such file")
            except (OSError, ValueError, http.client.HTTPException) as error:
                reasons.append(f"{_without_password(page)}: {_reason(error)}")
        return None, reasons

    def _links(self, page: str) -> Iterator[tuple[str, str]]:
        """File names and addresses that a page lists; a local folder lists its files or is an index of its own."""
        folder = _local(page)
        if folder is not None and folder.is_dir():
            if not (folder / "index.html").is_file():
                yield from ((file.name, file.resolve().as_uri()) for file in folder.iterdir())
                return
            folder = folder / "index.html"
        with closing(self.open(page if folder is None else folder.resolve().as_uri(), {"Accept": _PAGES})) as reply:
            base, kind, body = reply.url, reply.headers.get_content_type(), reply.read()
        if kind.endswith("json"):
            links = [str(file["url"]) for file in json.loads(body)["files"]]
        else:
            reader = _Links()
            reader.feed(body.decode("utf-8", "replace"))
            links = reader.found
        for link in links:
            url = urllib.parse.urljoin(base, link)
            path = urllib.parse.urlsplit(url).path
            yield urllib.parse.unquote(path.rsplit("/", 1)[-1]), urllib.parse.urldefrag(url)[0]

    def open(self, url: str, headers: dict[str, str]) -> Any:
        """The reply. Names and passwords of an address are kept for its host and sent to no other."""
        parts = urllib.parse.urlsplit(url)
        host = parts.hostname or ""
        if parts.username:
            secret = f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
            self._passwords[host] = secret
        request = urllib.request.Request(_without_password(url), headers=headers)
        secret = self._passwords.get(host) or _from_netrc(host)
        if secret:
            # Unredirected: another host that is named on the way gets none of it.
            code = base64.b64encode(secret.encode()).decode()
            request.add_unredirected_header("Authorization", f"Basic {code}")
        return self._opener(host).open(request, timeout=self._settings.timeout)

    def _opener(self, host: str) -> urllib.request.OpenerDirector:
        s = self._settings
        context = ssl.create_default_context()
        if s.cert:
            context.load_verify_locations(*((None, s.cert) if Path(s.cert).is_dir() else (s.cert, None)))
        if s.client_cert:
            context.load_cert_chain(s.client_cert)
        if any(trusted.split(":")[0] == host for trusted in s.trusted_hosts):
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        handlers: list[urllib.request.BaseHandler] = [urllib.request.HTTPSHandler(context=context)]
        if s.proxy:
            handlers.append(urllib.request.ProxyHandler({"http": s.proxy, "https": s.proxy}))
        return urllib.request.build_opener(*handlers)


class _Links(HTMLParser):
    """Where the links of a page lead."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attrs if tag == "a" and name == "href" and value]


def _local(place: str) -> Path | None:
    """The path that a find-links entry or a file address names, or None for the network's."""
    parts = urllib.parse.urlsplit(place)
    if parts.scheme == "file":
        return Path(urllib.request.url2pathname(parts.path))
    return None if parts.scheme in ("http", "https") else Path(place).expanduser()


def _from_netrc(host: str) -> str:
    with suppress(OSError, netrc.NetrcParseError):
        entry = netrc.netrc().authenticators(host) if host else None
        if entry:
            return f"{entry[0]}:{entry[2] or ''}"
    return ""


def _without_password(url: str) -> str:
    parts = urllib.parse.urlsplit(url)
    return urllib.parse.urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])) if parts.scheme else url


def _reason(error: BaseException) -> str:
    """Short: urllib hides the cause inside."""
    if isinstance(error, urllib.error.HTTPError):
        return f"{error.code} {error.reason}"
    inner = error.reason if isinstance(error, urllib.error.URLError) else error
    return str(inner) or type(inner).__name__


def sha256_of(file: IO[bytes]) -> str:
    """Of what is left to read of a file, as hex digits."""
    digest = hashlib.sha256()
    while chunk := file.read(_CHUNK):
        digest.update(chunk)
    return digest.hexdigest()
