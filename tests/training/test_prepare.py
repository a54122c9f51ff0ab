# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""From a raw release to the cache: on files that our own writers make in ScanNet's formats."""

from __future__ import annotations

import json
import signal
import sys
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

pytest.importorskip("embreex", reason="generated rooms need a ray caster")

from seg3d_core.config import MapConfig
from seg3d_core.errors import Seg3DError, SourceError
from seg3d_core.mapping.point_map import PointMap
from seg3d_core.mapping.superpoints import mesh_superpoints
from seg3d_core.sources.guess import open_source
from seg3d_core.sources.synthetic import SyntheticSource, export_raw_scannet
from seg3d_core.sources.synthetic.export_mesh import scan_mesh
from seg3d_core.types import FeatureMap, Frame, Masks2D, ObjectQueries2D
from training import prepare, prepare_features
from training.prepare_map import thinned
from training.prepare_pool import run_tasks
from training.prepare_scenes import Outcome, SceneSettings, SceneTask, prepare_scene
from training.readers_cache import read_own_features, read_scene
from training.readers_labels import classes_of, read_label_table
from training.readers_scannet import (
    find_scans,
)

EDGE = 0.3


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(prepare.app, [str(argument) for argument in arguments])
    return result.exit_code, result.output + result.stderr


def summary(output: str) -> dict[str, object]:
    return json.loads(next(line for line in output.splitlines() if line.startswith("{")))


def counts(output: str) -> tuple[object, object, object]:
    found = summary(output)
    return found["made"], found["kept"], found["failed"]


def test_the_release_is_complete(raw: Path):
    code, output = run("check", raw)
    assert code == 0 and output.count("1 of 1 scans are complete") == 3 and "56 raw categories" in output


def test_check_tells_what_is_missing(raw: Path):
    (raw / "scans" / "scene0000_00" / "scene0000_00.sens").unlink()
    (raw / "scans" / "scene0001_00" / "scene0001_00.aggregation.json").unlink()
    code, output = run("check", raw)
    assert code == 1
    assert "scene0000_00 lacks scene0000_00.sens" in output
    assert "scene0001_00 lacks scene0001_00.aggregation.json" in output
    (raw / "scannetv2-labels.combined.tsv").unlink()
    code, output = run("check", raw)
    assert code == 1 and "error: " in output and "scannetv2-labels.combined.tsv" in output


def test_the_sens_file_holds_the_rooms_frames(raw: Path, rooms):
    truth = rooms[0]
    source = open_source(raw / "scans" / "scene0000_00" / "scene0000_00.sens")
    got = list(source)
    assert len(got) == 6 and source.drops == {}
    for frame, expected in zip(got, truth, strict=True):
        np.testing.assert_allclose(frame.depth, expected.depth, atol=6e-4)
        np.testing.assert_allclose(frame.T_world_camera, expected.T_world_camera, atol=1e-5)
        assert frame.stamp == pytest.approx(expected.stamp)
        assert np.abs(frame.rgb.astype(int) - expected.rgb).mean() < 12


def test_scenes_hold_what_the_scan_says(raw: Path, tmp_path: Path, rooms):
    code, output = run("scenes", raw, tmp_path / "cache", "--workers", 1, "--frame-stride", 2)
    assert code == 0 and counts(output) == (3, 0, 0)
    scene = read_scene(tmp_path / "cache" / "scenes" / "scene0000_00.npz")
    mesh = scan_mesh(rooms[0], EDGE)
    assert np.array_equal(scene.xyz, mesh.vertices) and np.array_equal(scene.rgb, mesh.rgb)
    assert np.array_equal(scene.superpoints, mesh_superpoints(mesh.vertices, mesh.faces))
    table = read_label_table(raw / "scannetv2-labels.combined.tsv")
    numbers = {number: rank + 1 for rank, number in enumerate(mesh.labels)}
    assert np.array_equal(scene.instance, [numbers[o] for o in mesh.objects.tolist()])
    assert np.array_equal(scene.scannet200_ids, [table[mesh.labels[o]].scannet200 for o in mesh.objects.tolist()])
    assert np.array_equal(scene.scannet20_ids, [table[mesh.labels[o]].scannet20 for o in mesh.objects.tolist()])
    truth = rooms[0]
    assert scene.frames.tolist() == [0, 2, 4]
    np.testing.assert_allclose(scene.poses, truth.poses[::2], atol=1e-5)
    np.testing.assert_allclose(scene.depth_intrinsics[:3, :3], truth.camera.matrix)
    assert scene.sizes.tolist() == [[64, 48], [64, 48]] and scene.is_annotated
    assert (tmp_path / "cache" / "splits" / "val.txt").read_text() == "scene0001_00\n"
    names = {
        classes_of("scannet200").names[c] for c in classes_of("scannet200").of_ids(scene.scannet200_ids) if c < 200
    }
    assert {"wall", "floor"} < names


def test_a_test_scan_has_superpoints_and_no_labels(raw: Path, tmp_path: Path, rooms):
    run("scenes", raw, tmp_path / "cache", "--workers", 1)
    scene = read_scene(tmp_path / "cache" / "scenes" / "scene0002_00.npz")
    mesh = scan_mesh(rooms[2], EDGE)
    assert not scene.is_annotated and np.array_equal(scene.superpoints, mesh_superpoints(mesh.vertices, mesh.faces))


def test_a_pool_makes_the_same_bytes(raw: Path, tmp_path: Path):
    for workers in (1, 2):
        code, output = run("scenes", raw, tmp_path / f"cache{workers}", "--workers", workers)
        assert code == 0 and counts(output) == (3, 0, 0)
    for path in (tmp_path / "cache1" / "scenes").iterdir():
        one, two = read_scene(path), read_scene(tmp_path / "cache2" / "scenes" / path.name)
        assert all(np.array_equal(a, b) for a, b in zip(vars(one).values(), vars(two).values(), strict=True))


def test_what_is_done_is_left_alone_and_what_is_damaged_made_again(raw: Path, tmp_path: Path):
    cache = tmp_path / "cache"
    run("scenes", raw, cache, "--workers", 1)
    files = sorted((cache / "scenes").iterdir())
    before = [path.stat().st_mtime_ns for path in files]
    data = bytearray(files[1].read_bytes())
    data[len(data) // 2] ^= 255
    files[1].write_bytes(data)
    (cache / "scenes" / ".scene0000_00.npz.tmp").write_bytes(b"what a killed run leaves")
    code, output = run("scenes", raw, cache, "--workers", 1)
    assert code == 0 and counts(output) == (1, 2, 0)
    assert "scene0001_00: made again: " in output
    after = [path.stat().st_mtime_ns for path in files]
    assert after[0] == before[0] and after[2] == before[2] and read_scene(files[1]).is_annotated


def test_other_settings_make_scenes_again(raw: Path, tmp_path: Path):
    run("scenes", raw, tmp_path / "cache", "--workers", 1)
    arguments = (
        "scenes",
        raw,
        tmp_path / "cache",
        "--workers",
        1,
        "--superpoints",
        "points",
        "--scene",
        "scene0000_00",
    )
    code, output = run(*arguments)
    assert code == 0 and counts(output) == (1, 0, 0) and "made by other settings" in output
    assert counts(run(*arguments)[1]) == (0, 1, 0)


def test_points_of_the_cores_map(raw: Path, tmp_path: Path, rooms):
    arguments = ("scenes", raw, tmp_path / "cache", "--workers", 1, "--frame-stride", 1, "--points", "map")
    assert counts(run(*arguments)[1]) == (3, 0, 0)
    scene = read_scene(tmp_path / "cache" / "scenes" / "scene0000_00.npz")
    fused = PointMap(MapConfig())
    for frame in open_source(raw / "scans" / "scene0000_00" / "scene0000_00.sens"):
        fused.integrate(frame)
    cloud, _ = fused.snapshot()
    assert np.array_equal(scene.xyz, cloud.xyz) and np.array_equal(scene.rgb, cloud.rgb)
    mesh, table = scan_mesh(rooms[0], EDGE), read_label_table(raw / "scannetv2-labels.combined.tsv")
    distances = np.linalg.norm(scene.xyz[::17, None] - mesh.vertices[None], axis=2)
    ids = np.array([table[mesh.labels[o]].scannet200 for o in mesh.objects.tolist()])
    least = distances.min(axis=1)
    assert (least < 0.06).any() and (least > 0.06).any()
    for got, row, nearest in zip(scene.scannet200_ids[::17].tolist(), distances, least.tolist(), strict=True):
        # Vertices of two objects may lie on one another.
        assert got in (ids[row < nearest + 1e-6] if nearest < 0.06 else [0])
    assert run(*arguments, "--no-images")[0] == 1
    run(*arguments, "--map-voxel", 0.1, "--scene", "scene0000_00")
    assert len(read_scene(tmp_path / "cache" / "scenes" / "scene0000_00.npz").xyz) < len(cloud) / 2


def test_the_map_can_be_thinned_and_keeps_every_superpoint(raw: Path, tmp_path: Path):
    arguments = ("scenes", raw, tmp_path / "cache", "--workers", 1, "--frame-stride", 1, "--scene", "scene0000_00")
    path = tmp_path / "cache" / "scenes" / "scene0000_00.npz"
    run(*arguments, "--points", "map")
    whole = read_scene(path)
    assert counts(run(*arguments, "--points", "map", "--keep-voxel", 0.08)[1]) == (1, 0, 0)
    kept = read_scene(path)
    assert kept.superpoints.max() == whole.superpoints.max() and len(kept.xyz) < len(whole.xyz)
    cells = np.floor(whole.xyz.astype(float) / 0.08).astype(int)
    assert len(np.unique(np.column_stack([whole.superpoints, cells]), axis=0)) == len(kept.xyz)
    assert run(*arguments, "--keep-voxel", 0.08)[0] == 1


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), *[st.integers(-30, 30)] * 3), min_size=1, max_size=40))
def test_thinning_equals_its_slow_twin(points: list[tuple[int, ...]]):
    _, parts = np.unique([point[0] for point in points], return_inverse=True)
    xyz = np.array([point[1:] for point in points], np.float32) * np.float32(0.01) + np.float32(0.003)
    rgb = (np.arange(3 * len(points)).reshape(-1, 3) % 256).astype(np.uint8)
    groups: dict[tuple[float, ...], list[int]] = {}
    for row, (part, place) in enumerate(zip(parts.tolist(), xyz.astype(float), strict=True)):
        groups.setdefault((part, *np.floor(place / 0.1)), []).append(row)
    expected = sorted((*xyz[rows].mean(axis=0).round(4), *np.round(rgb[rows].mean(axis=0))) for rows in groups.values())
    found, colours, of_part = thinned(xyz, rgb, parts.astype(np.int32), 0.1)
    rows = sorted(tuple(row) for row in np.concatenate([found.astype(float).round(4), colours], axis=1))
    assert np.allclose(rows, expected, atol=2e-4) and set(of_part.tolist()) == set(parts.tolist())


def test_a_write_that_fails_leaves_no_file(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(file, **_):
        file.write(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full)
    code, output = run("scenes", raw, tmp_path / "cache", "--workers", 1)
    assert code == 1 and counts(output) == (0, 0, 3) and "No space left" in output
    assert list((tmp_path / "cache" / "scenes").iterdir()) == []


def test_one_bad_scan_does_not_stop_the_others(raw: Path, tmp_path: Path):
    sens = raw / "scans" / "scene0000_00" / "scene0000_00.sens"
    sens.write_bytes(sens.read_bytes()[:3000])
    code, output = run("scenes", raw, tmp_path / "cache", "--workers", 1)
    assert code == 1 and counts(output) == (2, 0, 1)
    assert "scene0000_00: " in output and "ends early" in output and "1 of 3 scenes failed" in output
    assert (tmp_path / "cache" / "splits" / "train.txt").read_text() == ""


def test_without_images_no_sens_is_asked_for(raw: Path, tmp_path: Path):
    for sens in raw.rglob("*.sens"):
        sens.unlink()
    code, _ = run("scenes", raw, tmp_path / "cache", "--workers", 1, "--no-images")
    scene = read_scene(tmp_path / "cache" / "scenes" / "scene0000_00.npz")
    assert code == 0 and len(scene.frames) == 0 and scene.is_annotated
    assert run("scenes", raw, tmp_path / "other", "--workers", 1)[0] == 1


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["--superpoints", "none"], "choose one of segments, points"),
        (["--points", "none"], "choose one of mesh, map"),
        (["--scene", "scene9999_00"], "no split lists scene9999_00"),
        (["--split", "night"], "has no list of scenes"),
    ],
)
def test_wrong_arguments_are_told(raw: Path, tmp_path: Path, arguments: list[str], match: str):
    code, output = run("scenes", raw, tmp_path / "cache", *arguments)
    assert code == 1 and match in output


@pytest.mark.parametrize("name", ["../../evil", "/evil", "..", "a/b", "x" * 300])
def test_a_list_of_scenes_makes_files_in_the_cache_alone(raw: Path, tmp_path: Path, name: str):
    (raw / "scannetv2_train.txt").write_text(f"scene0000_00\n{name}\n")
    code, output = run("scenes", raw, tmp_path / "here" / "cache")
    assert code == 1 and "no name of a scene" in output
    assert not (tmp_path / "here").exists()


def task(raw: Path, tmp_path: Path) -> SceneTask:
    scan = find_scans(raw)["train"][0]
    return SceneTask(scan, raw / "scannetv2-labels.combined.tsv", tmp_path / "x.npz", SceneSettings())


def test_an_unknown_category_counts_as_unlabelled(raw: Path, tmp_path: Path):
    one = task(raw, tmp_path)
    content = json.loads(one.scan.aggregation.read_text())
    content["segGroups"][0]["label"] = "unheard-of"
    one.scan.aggregation.write_text(json.dumps(content))
    outcome = prepare_scene(one)
    assert outcome.made and "unheard-of" in outcome.notes[0]
    scene = read_scene(one.target)
    assert (scene.scannet200_ids[scene.instance == 1] == 0).all() and (scene.instance == 1).any()


def test_a_killed_worker_is_told():
    with pytest.raises(Seg3DError, match="a worker was killed"):
        list(run_tasks(signal.raise_signal, [signal.SIGKILL, signal.SIGKILL], workers=2))


def test_a_bug_in_one_task_is_reported_as_such():
    def broken(one):
        raise ZeroDivisionError("no") if one is signal.SIGTERM else None

    one, two = run_tasks(broken, [signal.SIGTERM, signal.SIGINT])
    assert (
        one.error == "unexpected ZeroDivisionError: no"
        and two.error == "unexpected TypeError: exceptions must derive from BaseException"
    )


class FakeRay(types.ModuleType):
    """What Ray promises, at once and in this process."""

    def __init__(self):
        super().__init__("ray")
        self.started = False
        self.exceptions = types.SimpleNamespace(RayError=type("RayError", (Exception,), {}))

    def is_initialized(self):
        return self.started

    def init(self, **_):
        self.started = True

    def remote(self, function):
        return types.SimpleNamespace(remote=lambda *arguments: (function, arguments))

    def wait(self, waiting):
        return waiting[-1:], waiting[:-1]

    def get(self, promise):
        function, arguments = promise
        if arguments[1].name == "SIGKILL":
            raise self.exceptions.RayError("the node died\nlong story")
        return function(*arguments)


def test_ray_runs_the_same_function(monkeypatch: pytest.MonkeyPatch):
    ray = FakeRay()
    monkeypatch.setitem(sys.modules, "ray", ray)
    tasks = [signal.SIGTERM, signal.SIGINT, signal.SIGKILL]
    got = {result.name: result for result in run_tasks(lambda one: Outcome(made=True), tasks, with_ray=True)}
    assert ray.started and got["SIGTERM"].outcome == got["SIGINT"].outcome == Outcome(made=True)
    assert got["SIGKILL"].error == "its worker was lost: the node died"


def test_ray_that_is_not_there(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(Seg3DError, match="pip install ray"):
        list(run_tasks(Outcome, [signal.SIGTERM], with_ray=True))


class TrueDetector:
    """Sees each instance as an object whose feature is its number, and the depth as a feature map."""

    id = "true-v1"

    def __init__(self):
        self.calls = 0

    def detect(self, frame: Frame) -> tuple[ObjectQueries2D, FeatureMap]:
        self.calls += 1
        labels = frame.depth > 0
        columns = 1 + (np.arange(frame.depth.shape[1]) >= frame.depth.shape[1] // 2)
        masks = Masks2D.from_labels(np.where(labels, columns[None], 0))
        features = np.tile(np.arange(1, len(masks) + 1, dtype=np.float32)[:, None], (1, 4))
        boxes = np.zeros((len(masks), 4), np.float32)
        values = np.stack([np.ones_like(frame.depth), frame.depth]).astype(np.float32)
        queries = ObjectQueries2D(features, boxes, np.ones(len(masks), np.float32), self.id, None, masks)
        return queries, FeatureMap(values, 1.0, self.id)


@pytest.fixture
def detector(monkeypatch: pytest.MonkeyPatch) -> TrueDetector:
    detector = TrueDetector()
    monkeypatch.setattr(prepare_features, "detector_of", lambda _: detector)
    monkeypatch.setattr(prepare, "detector_of", lambda _: detector)
    return detector


def test_features_of_points_and_objects(raw: Path, tmp_path: Path, detector: TrueDetector):
    cache = tmp_path / "cache"
    run("scenes", raw, cache, "--workers", 1, "--frame-stride", 1)
    code, output = run("features", raw, cache, "--name", "true", "--split", "train", "--views", 1)
    assert code == 0 and counts(output) == (1, 0, 0) and detector.calls == 6
    scene = read_scene(cache / "scenes" / "scene0000_00.npz")
    near = read_own_features(cache / "features" / "true" / "scene0000_00.npz")
    seen = near.image_features[:, 0] > 0
    assert near.encoder_id == "true-v1" and near.image_features.shape == (len(scene.xyz), 2)
    assert 0.5 < seen.mean() <= 1 and (near.image_features[~seen] == 0).all()
    assert len(near.queries) == 12 and set(near.queries[:, 0]) == {1, 2}
    low, high = scene.xyz.min(0) - 0.05, scene.xyz.max(0) + 0.05
    assert ((near.query_positions > low) & (near.query_positions < high)).all()
    run("features", raw, cache, "--name", "far", "--split", "train", "--views", 1, "--farthest")
    far = read_own_features(cache / "features" / "far" / "scene0000_00.npz")
    assert (far.image_features[seen, 1] >= near.image_features[seen, 1] - 0.05).mean() > 0.99
    assert far.image_features[seen, 1].mean() > near.image_features[seen, 1].mean() + 0.1


def test_features_go_on_and_mend_what_is_damaged(raw: Path, tmp_path: Path, detector: TrueDetector):
    cache = tmp_path / "cache"
    run("scenes", raw, cache, "--workers", 1, "--frame-stride", 2)
    arguments = ("features", raw, cache, "--name", "true")
    assert counts(run(*arguments)[1]) == (3, 0, 0)
    assert counts(run(*arguments)[1]) == (0, 3, 0)
    path = cache / "features" / "true" / "scene0001_00.npz"
    path.write_bytes(path.read_bytes()[:500])
    code, output = run(*arguments)
    assert code == 0 and counts(output) == (1, 2, 0) and "scene0001_00: made again" in output
    code, output = run(*arguments, "--views", 2)
    assert counts(output) == (3, 0, 0) and "made by other settings" in output
    run("scenes", raw, cache, "--workers", 1, "--frame-stride", 1)
    assert counts(run(*arguments, "--views", 2)[1]) == (3, 0, 0)


def test_features_need_scenes_with_images(raw: Path, tmp_path: Path, detector: TrueDetector):
    code, output = run("features", raw, tmp_path / "cache", "--name", "true")
    assert code == 1 and "training.prepare scenes" in output
    run("scenes", raw, tmp_path / "cache", "--workers", 1, "--no-images")
    code, output = run("features", raw, tmp_path / "cache", "--name", "true")
    assert code == 1 and "made without images" in output


def test_masks_without_features_are_no_detector(raw: Path, tmp_path: Path):
    code, output = run("features", raw, tmp_path / "cache", "--name", "x", "--set", "perception.masks=geometric")
    assert code == 1 and "masks without features" in output


def test_rooms_are_made_and_left_alone(tmp_path: Path):
    arguments = ("rooms", tmp_path / "raw", "--train", 1, "--val", 1, "--frames", 2, "--width", 32, "--height", 24,
                 "--edge", 0.5, "--workers", 1)  # fmt: skip
    assert counts(run(*arguments)[1]) == (2, 0, 0)
    assert counts(run(*arguments)[1]) == (0, 2, 0)
    assert run("check", tmp_path / "raw")[0] == 0


def test_few_images_of_a_long_walk():
    every, third = SyntheticSource(3, frames=7, width=32, height=24), SyntheticSource(3, 3, 32, 24, stride=3)
    assert np.array_equal(SyntheticSource(3, 9, 32, 24).poses[::3], third.poses)
    assert third[2].stamp == every[6].stamp and len(third) == 3
    with pytest.raises(SourceError, match="stride must be 1"):
        SyntheticSource(stride=0)


def test_an_export_does_not_touch_a_full_folder(raw: Path):
    with pytest.raises(SourceError, match="not empty"):
        export_raw_scannet({"train": []}, raw, mesh_superpoints)


def test_annotation_of_another_mesh_is_refused(raw: Path, tmp_path: Path):
    one = task(raw, tmp_path)
    one.scan.segments.write_text(json.dumps({"segIndices": [1, 2, 3]}))
    with pytest.raises(SourceError, match="belong to different scans"):
        prepare_scene(one)


def test_scenes_of_other_formats_are_refused(raw: Path, tmp_path: Path):
    one = task(raw, tmp_path)
    prepare_scene(one)
    scene = read_scene(one.target)
    from training.readers_cache import write_scene

    write_scene(one.target, replace(scene, superpoints=scene.superpoints * 2))
    with pytest.raises(Seg3DError, match=r"without gaps.*x\.npz again"):
        read_scene(one.target)
    np.savez(one.target, format=np.array(99), xyz=np.zeros((2, 3)))
    with pytest.raises(Seg3DError, match="no cache file of format 1"):
        read_scene(one.target)
