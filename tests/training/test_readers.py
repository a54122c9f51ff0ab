# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Meshes, segments, annotations and labels of a raw release: as their slow twins say, and refused where damaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("embreex", reason="generated rooms need a ray caster")

from seg3d_core.errors import SourceError
from seg3d_core.sources.synthetic.export_mesh import subdivide
from training.prepare_scenes import vertex_normals
from training.readers_labels import CategoryIds, read_label_table
from training.readers_scannet import (
    AnnotatedObject,
    contiguous,
    find_scans,
    label_points,
    read_aggregation,
    read_mesh,
    read_segments,
)


@given(seed=st.integers(0, 1000), edge=st.floats(0.2, 2))
@settings(max_examples=25, deadline=None)
def test_subdivision_covers_the_same_area_without_cracks(seed: int, edge: float):
    rng = np.random.default_rng(seed)
    a, b, c, d = rng.uniform(-1, 1, (4, 3))
    triangles = np.array([[a, b, c], [b, a, d]])
    parent, weights = subdivide(triangles, edge)
    corners = np.einsum("nij,njk->nik", weights, triangles[parent])

    def area(t):
        return np.linalg.norm(np.cross(t[:, 1] - t[:, 0], t[:, 2] - t[:, 0]), axis=1)

    assert np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=2).max() <= edge + 1e-9
    np.testing.assert_allclose(np.bincount(parent, area(corners)), area(triangles), rtol=1e-6)
    on_edge = [
        {tuple(np.round(p, 9)) for p in corners[parent == k].reshape(-1, 3) if abs(_off_line(p, a, b)) < 1e-9}
        for k in (0, 1)
    ]
    assert on_edge[0] == on_edge[1]


def _off_line(p, a, b):
    return np.linalg.norm(np.cross(p - a, b - a)) / np.linalg.norm(b - a)


objects = st.lists(
    st.tuples(st.sampled_from("abcd"), st.lists(st.integers(0, 9), min_size=1, max_size=4)), min_size=0, max_size=6
)


@given(segments=st.lists(st.integers(0, 9), min_size=1, max_size=30), groups=objects)
@settings(max_examples=80, deadline=None)
def test_labels_equal_their_slow_twin(segments: list[int], groups: list[tuple[str, list[int]]]):
    """Objects in file order, categories in order of first appearance; later ones overwrite."""
    table = {"a": CategoryIds(1, 10), "b": CategoryIds(2, 20), "c": CategoryIds(3, 30)}
    got = label_points(
        np.array(segments), [AnnotatedObject(i + 1, name, tuple(s)) for i, (name, s) in enumerate(groups)], table
    )
    instance, own, nyu = ([0] * len(segments) for _ in range(3))
    for category in dict.fromkeys(name for name, _ in groups):
        claimed = {s for name, parts in groups if name == category for s in parts}
        for place, segment in enumerate(segments):
            if segment in claimed:
                ids = table.get(category, CategoryIds(0, 0))
                own[place], nyu[place] = ids.scannet200, ids.scannet20
    for number, (_, parts) in enumerate(groups, 1):
        for place, segment in enumerate(segments):
            if segment in parts:
                instance[place] = number
    assert got.instance.tolist() == instance
    assert (got.scannet200_ids.tolist(), got.scannet20_ids.tolist()) == (own, nyu)
    assert set(got.unknown) == {name for name, _ in groups} - set("abc")


@given(values=st.lists(st.integers(0, 50), min_size=1, max_size=40))
def test_contiguous_numbers_by_first_appearance(values: list[int]):
    order = list(dict.fromkeys(values))
    assert contiguous(np.array(values)).tolist() == [order.index(value) for value in values]


def test_vertex_normals_point_out_of_a_corner():
    xyz = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [5, 5, 5]], np.float32)
    normals = vertex_normals(xyz, np.array([[0, 1, 2]]))
    assert normals.tolist() == [[0, 0, 1]] * 3 + [[0, 0, 0]]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"segIndices": 3}', '{"segIndices": [1.5]}', "[" * 100_000, "\xff"])
def test_damaged_segments_are_refused(tmp_path: Path, text: str):
    path = tmp_path / "x.segs.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(SourceError, match=r"x\.segs\.json"):
        read_segments(path, 1)


@pytest.mark.parametrize(
    "text",
    ["", "3", "{}", '{"segGroups": [{}]}', '{"segGroups": [{"objectId": -5, "label": "a", "segments": []}]}',
     '{"segGroups": [{"objectId": 0, "label": "a", "segments": ["x"]}]}'],
)  # fmt: skip
def test_damaged_aggregations_are_refused(tmp_path: Path, text: str):
    path = tmp_path / "x.aggregation.json"
    path.write_text(text)
    with pytest.raises(SourceError, match=r"x\.aggregation\.json"):
        read_aggregation(path)


@pytest.mark.parametrize("text", ["", "a\tb\n1\t2\n", "id\traw_category\tnyu40id\nx\ty\tz\n"])
def test_damaged_label_tables_are_refused(tmp_path: Path, text: str):
    path = tmp_path / "labels.tsv"
    path.write_text(text)
    with pytest.raises(SourceError, match=r"labels\.tsv"):
        read_label_table(path)


def test_a_cut_mesh_is_refused(raw: Path):
    path = find_scans(raw)["train"][0].mesh
    data = path.read_bytes()
    for share in (0.001, 0.01, 0.3, 0.7, 0.999):
        path.write_bytes(data[: int(share * len(data))])
        with pytest.raises(SourceError, match=r"_vh_clean_2\.ply"):
            read_mesh(path)


@given(place=st.integers(0, 420), values=st.binary(min_size=1, max_size=6))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_mesh_is_told_or_whole(made: Path, tmp_path: Path, place: int, values: bytes):
    data = bytearray((made / "scans" / "scene0001_00" / "scene0001_00_vh_clean_2.ply").read_bytes())
    data[place : place + len(values)] = values
    path = tmp_path / "m.ply"
    path.write_bytes(data)
    try:
        xyz, rgb, faces = read_mesh(path)
    except SourceError:
        return
    assert xyz.shape == rgb.shape and faces.max(initial=0) < len(xyz)
