# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Samples: equal to the published ones with the same random numbers, and the same for any number of workers."""

from __future__ import annotations

import zlib
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from hypothesis import HealthCheck, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from torch.utils.data import DataLoader  # noqa: E402

from seg3d_core.errors import Seg3DError  # noqa: E402
from training.collate import collate  # noqa: E402
from training.config import build  # noqa: E402
from training.data_config import DataConfig  # noqa: E402
from training.dataset import SceneDataset, instance_boxes, majority, make_scene, make_targets, number_instances  # noqa: E402
from training.readers_cache import CachedScene, SceneFeatures, write_features, write_scene  # noqa: E402
from training.readers_labels import classes_of  # noqa: E402
from training.readers_published import read_published_features  # noqa: E402

GOLDEN = Path(__file__).parents[1] / "golden" / "segdino3d"


def feats(name: str, shape: tuple[int, ...], scale: float) -> np.ndarray:
    generator = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))
    return (scale * generator.standard_normal(shape)).astype(np.float32)


def cached(points, superpoints, instance, ids20, ids200) -> CachedScene:
    n = len(points)
    zeros = np.zeros(n, np.int16)
    return CachedScene(
        points[:, :3].astype(np.float32), points[:, 3:].astype(np.uint8), superpoints.astype(np.int32),
        instance.astype(np.int32), zeros if ids20 is None else ids20.astype(np.int16),
        zeros if ids200 is None else ids200.astype(np.int16), np.zeros(0, np.int32), np.zeros((0, 4, 4)), np.eye(4),
        np.eye(4), np.array([[640, 480], [1296, 968]]),
    )  # fmt: skip


def golden_scene(golden, model: str, index: int) -> tuple[CachedScene, SceneFeatures]:
    stem = f"{model}_scene000{index}_00_"
    points, semantic = golden[stem + "points"], golden[stem + "semantic_raw"]
    two = model == "scannet200"
    scene = cached(
        points, golden[stem + "super_points"], golden[stem + "instance_raw"], None if two else semantic,
        semantic if two else None,
    )  # fmt: skip
    name = f"i:scene000{index}_00"
    n = len(points)
    levels = [feats(f"{name}:lvl{level}", (n, 256), 0.5) for level in range(4)]
    queries, positions = feats(f"{name}:q", (20, 256), 1), feats(f"{name}:qp", (20, 3), 1)
    return scene, SceneFeatures(np.mean(levels, axis=0), queries, positions, np.ones(20), "golden")


@pytest.mark.parametrize("model", ["scannet200", "scannetv2"])
@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("split", ["train", "val"])
def test_samples_equal_the_published_ones(model, index, split):
    golden = np.load(GOLDEN / "i_dataset.npz", allow_pickle=False)
    scene, features = golden_scene(golden, model, index)
    config = build(recipe=model).data
    classes = classes_of(config.benchmark)
    random = np.random.RandomState(11 + index) if split == "train" else None

    sample = make_scene("scene", scene, features, classes, config, random)

    def expected(name: str) -> np.ndarray:
        return golden[f"{model}_{split}_{index}_{name}"]

    inputs, targets = sample.inputs, sample.targets
    n = len(sample.xyz)
    np.testing.assert_allclose(sample.xyz, expected("points")[:, :3], atol=1e-5)
    np.testing.assert_allclose(inputs.points.colours, expected("points")[:, 3:], atol=1e-5)
    np.testing.assert_allclose(sample.query_2d_positions, expected("query2d_pos"), atol=1e-5)
    if split == "train":
        np.testing.assert_allclose(sample.warped, expected("elastic_coords"), atol=1e-3)
        masks = np.stack([targets.instance_of_point.numpy() == k for k in range(len(targets))])
        labels = targets.labels.numpy()
        np.testing.assert_allclose(sample.queries_2d, features.queries[expected("choice")])
    else:
        assert sample.warped is None
        masks, labels = (each.numpy() for each in targets.evaluation_masks())
    assert labels.tolist() == expected("labels").tolist()
    assert np.array_equal(np.packbits(masks, axis=1), expected("masks_bits"))
    matrix = np.unpackbits(expected("sp_inst_sem_masks_bits"), axis=1)[:, : sample.superpoint_count].astype(bool)
    ours = np.concatenate([targets.instance_masks, targets.semantic == np.arange(classes.semantic + 1)[:, None]])
    assert np.array_equal(ours, matrix)
    rows = sample.image_features[:: max(1, n // len(expected("points_2dfeats_rows")))]
    assert np.isclose(rows[0], expected("points_2dfeats_rows")[0], atol=1e-6).all()


def tiny(seed: int = 0, n: int = 400, parts: int = 12) -> CachedScene:
    rng = np.random.default_rng(seed)
    points = np.concatenate([rng.uniform(-2, 2, (n, 3)), rng.integers(0, 256, (n, 3))], axis=1)
    superpoints = np.append(np.arange(parts), rng.integers(0, parts, n - parts))
    instance = superpoints // 2
    ids = np.array([0, 5, 2, 1, 7, 3])[instance]
    return cached(points, superpoints, np.where(ids > 0, instance, 0), ids, ids)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    names = [f"scene{i:04d}_00" for i in range(4)]
    for i, name in enumerate(names):
        write_scene(tmp_path / "scenes" / f"{name}.npz", tiny(i))
        rng = np.random.default_rng(i)
        features = SceneFeatures(
            rng.normal(size=(400, 8)), rng.normal(size=(10, 8)), rng.normal(size=(10, 3)), np.ones(10), "detector-v1"
        )
        write_features(tmp_path / "features" / "some" / f"{name}.npz", features)
    (tmp_path / "splits").mkdir()
    (tmp_path / "splits" / "train.txt").write_text("\n".join(names[:3]) + "\n")
    (tmp_path / "splits" / "val.txt").write_text(names[3] + "\n")
    return tmp_path


CONFIG = DataConfig(features="some", query_dropout=0.5)


def flat(scene) -> list[np.ndarray]:
    parts = (scene.xyz, scene.warped, scene.queries_2d, scene.query_2d_positions, scene.image_features)
    return [part.numpy() for part in (*parts, scene.targets.centres, scene.targets.instance_masks)]


@pytest.mark.parametrize("workers", [0, 2])
def test_scenes_depend_on_seed_epoch_and_index_alone(cache: Path, workers: int):
    dataset = SceneDataset(cache, "train", CONFIG, seed=7)
    assert len(dataset) == 3 and dataset.encoder_id == "detector-v1"
    loader = DataLoader(
        dataset, batch_size=2, collate_fn=collate, num_workers=workers, persistent_workers=workers > 0,
        multiprocessing_context="fork" if workers else None,
    )  # fmt: skip
    for epoch in (0, 1, 0):
        dataset.set_epoch(epoch)
        loaded = [flat(scene) for batch in loader for scene in batch.scenes]
        fresh = SceneDataset(cache, "train", CONFIG, seed=7)
        fresh.set_epoch(epoch)
        for index in (2, 0, 1):
            assert all(np.array_equal(a, b) for a, b in zip(loaded[index], flat(fresh[index]), strict=True))


def test_other_epochs_and_seeds_give_other_scenes(cache: Path):
    dataset = SceneDataset(cache, "train", CONFIG, seed=7)
    first = dataset[0].xyz
    dataset.set_epoch(1)
    assert not torch.equal(first, dataset[0].xyz)
    assert not torch.equal(first, SceneDataset(cache, "train", CONFIG, seed=8)[0].xyz)


def test_validation_is_left_as_it_is(cache: Path):
    scene = SceneDataset(cache, "val", CONFIG)[0]
    assert scene.name == "scene0003_00" and scene.warped is None and len(scene.queries_2d) == 10
    assert torch.equal(scene.xyz, torch.from_numpy(tiny(3).xyz))


def test_boxes_are_of_the_points_as_the_backbone_sees_them(cache: Path):
    scene = SceneDataset(cache, "train", CONFIG, seed=1)[0]
    moved = scene.warped * 0.02
    for k in range(len(scene.targets)):
        points = moved[scene.targets.instance_of_point == k]
        low, high = points.amin(0), points.amax(0)
        assert torch.allclose(scene.targets.centres[k], (low + high) / 2)
        assert torch.allclose(scene.targets.sizes[k], high - low)


def test_switches_leave_features_out(cache: Path):
    colours = SceneDataset(cache, "val", DataConfig(image_features=False, object_queries=False))[0]
    assert colours.image_features is None and len(colours.queries_2d) == 0
    no_queries = SceneDataset(cache, "val", replace_config(object_queries=False))[0]
    assert no_queries.image_features.shape == (400, 8) and len(no_queries.queries_2d) == 0
    no_image = SceneDataset(cache, "val", replace_config(image_features=False))[0]
    assert no_image.image_features is None and len(no_image.queries_2d) == 10


def replace_config(**values) -> DataConfig:
    return CONFIG.model_copy(update=values)


def test_batches_move_and_give_the_network_what_it_takes(cache: Path):
    dataset = SceneDataset(cache, "train", CONFIG)
    batch = collate([dataset[0], dataset[1]]).to("cpu")
    assert len(batch) == len(batch.inputs) == len(batch.targets) == 2
    points = batch.inputs[0].points
    assert points.colours.abs().max() < 3 and points.warped is not None and points.superpoints.dtype == torch.int64


def test_a_scene_without_annotation_has_no_targets():
    nothing = np.zeros(400, np.int16)
    scene = replace(tiny(), instance=nothing.astype(np.int32), scannet20_ids=nothing, scannet200_ids=nothing)
    assert make_scene("s", scene, None, classes_of("scannet200"), DataConfig()).targets is None


def annotated(instance: list[int], ids: list[int]) -> CachedScene:
    n = len(ids)
    points = np.arange(6 * n, dtype=float).reshape(n, 6) % 200
    return cached(points, np.arange(n), np.array(instance), np.array(ids), np.array(ids))


@pytest.mark.parametrize(("defect", "expected"), [(False, [0, 0, 1, 2]), (True, [-1, -1, 0, 1])])
def test_first_instance_of_a_scene_without_background(defect: bool, expected: list[int]):
    """The release loses it; here it stays, unless asked for."""
    scene, classes = annotated([4, 4, 6, 9], [5, 5, 7, 4]), classes_of("scannet20")
    xyz = torch.from_numpy(scene.xyz)
    targets = make_targets(scene, torch.arange(4), xyz, classes, first_instance_defect=defect)
    assert targets.instance_of_point.tolist() == expected
    names = [classes.thing_names[label] for label in targets.labels]
    assert names == (["table", "bed"] if defect else ["chair", "table", "bed"])


@pytest.mark.parametrize("defect", [False, True])
def test_with_background_the_switch_changes_nothing(defect: bool):
    classes = classes_of("scannet20")
    got = number_instances(np.array([4, 4, 6, 0]), np.array([4, 4, 6, 20]), classes, defect)
    assert got.tolist() == [0, 0, 1, -1]


def test_a_scene_without_things():
    scene, classes = annotated([1, 1, 2], [1, 1, 2]), classes_of("scannet20")
    targets = make_targets(scene, torch.arange(3), torch.from_numpy(scene.xyz), classes)
    assert len(targets) == 0 and targets.instance_masks.shape == (0, 3) and targets.centres.shape == (0, 3)
    masks, labels = targets.evaluation_masks()
    assert labels.tolist() == [0, 1] and masks.tolist() == [[True, True, False], [False, False, True]]


def test_chair_and_floor_of_scannet200():
    """The table says 2 = chair, 3 = floor; exports must say so too."""
    classes = classes_of("scannet200")
    assert [classes.names[c] for c in classes.of_ids(np.array([1, 2, 3, 4]))] == ["wall", "chair", "floor", "table"]
    assert classes.thing_ids[0] == 2 and classes.things == 198
    assert classes.of_ids(np.array([0, 9999, -3, 12])).tolist() == [200] * 4


@given(
    groups=st.lists(st.integers(0, 4), min_size=1, max_size=40),
    seed=st.integers(0, 100),
    values=st.integers(1, 4),
)
@settings(max_examples=60, deadline=None)
def test_majority_equals_its_slow_twin(groups: list[int], seed: int, values: int):
    value = np.random.default_rng(seed).integers(-1, values + 1, len(groups))
    expected = []
    for group in range(5):
        members = value[np.array(groups) == group]
        best = [v for v in range(values) if len(members) and (members == v).mean() > 0.5]
        expected.append(best[0] if best else -1)
    assert majority(torch.tensor(groups), torch.from_numpy(value), 5, values).tolist() == expected


def test_boxes_of_instances_without_points_are_zeros():
    points = torch.tensor([[1.0, 2, 3], [3, 2, 1], [9, 9, 9]])
    centres, sizes = instance_boxes(points, torch.tensor([1, 1, -1]), 3)
    assert centres.tolist() == [[0, 0, 0], [2, 2, 2], [0, 0, 0]] and sizes.tolist()[1] == [2, 0, 2]


class Boxes:
    """A foreign object that holds a tensor, as some detectors save."""

    def __init__(self, tensor):
        self.tensor = tensor


def publish(folder: Path, centres) -> tuple:
    torch.manual_seed(0)
    levels, queries = [torch.randn(6, 4) for _ in range(3)], torch.randn(5, 4)
    torch.save(levels, folder / "s.pth")
    torch.save(queries, folder / "s_query_feats.pth")
    torch.save(centres, folder / "s_query_3dctr.pth")
    return levels, queries


@pytest.mark.parametrize("wrapped", [False, True])
def test_published_features_are_read_as_they_are(tmp_path: Path, wrapped: bool):
    centres = torch.arange(15.0).reshape(5, 3)
    if wrapped:
        # A class that is not there on reading.
        Boxes.__module__, Boxes.__qualname__ = "some.library", "Boxes"
        import sys
        import types

        module = types.ModuleType("some.library")
        module.Boxes = Boxes
        sys.modules["some"], sys.modules["some.library"] = types.ModuleType("some"), module
        try:
            levels, queries = publish(tmp_path, Boxes(centres))
        finally:
            del sys.modules["some"], sys.modules["some.library"]
    else:
        levels, queries = publish(tmp_path, centres)
    got = read_published_features(tmp_path, "s")
    np.testing.assert_allclose(got.image_features, torch.stack(levels).mean(0), atol=1e-6)
    np.testing.assert_allclose(got.queries, queries)
    np.testing.assert_allclose(got.query_positions, centres)


class Trap:
    def __reduce__(self):
        return (Path.write_text, (Path("trap-was-sprung"), "x"))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: (folder / "s.pth").unlink(),
        lambda folder: (folder / "s.pth").write_bytes(b"PK\x03\x04 nothing"),
        lambda folder: (folder / "s.pth").write_bytes(b""),
        lambda folder: torch.save({"a": 1}, folder / "s.pth"),
        lambda folder: torch.save([torch.zeros(6, 4), torch.zeros(5, 4)], folder / "s.pth"),
        lambda folder: torch.save(torch.zeros(4, 3), folder / "s_query_3dctr.pth"),
        lambda folder: torch.save(Trap(), folder / "s_query_3dctr.pth"),
    ],
)
def test_published_files_that_are_no_features_are_refused(tmp_path: Path, spoil, monkeypatch):
    monkeypatch.chdir(tmp_path)
    publish(tmp_path, torch.zeros(5, 3))
    spoil(tmp_path)
    with pytest.raises(Seg3DError, match=r"s.*pth"):
        read_published_features(tmp_path, "s")
    assert not Path("trap-was-sprung").exists()


@given(place=st.floats(0, 1), values=st.binary(min_size=1, max_size=4), length=st.floats(0.3, 2))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_published_files_give_numbers_or_a_sentence(tmp_path: Path, place: float, values: bytes, length: float):
    publish(tmp_path, torch.zeros(5, 3))
    path = tmp_path / "s_query_feats.pth"
    data = bytearray(path.read_bytes())
    start = int(place * len(data))
    data[start : start + len(values)] = values
    path.write_bytes(data[: int(length * len(data))])
    with suppress(Seg3DError):
        got = read_published_features(tmp_path, "s")
        assert got.queries.ndim == 2 and np.isfinite(got.queries).all()


def test_published_features_in_training(cache: Path, tmp_path: Path):
    folder = tmp_path / "published"
    folder.mkdir()
    name = "scene0003_00"
    torch.save([torch.ones(400, 8), 3 * torch.ones(400, 8)], folder / f"{name}.pth")
    torch.save(torch.zeros(7, 8), folder / f"{name}_query_feats.pth")
    torch.save(torch.zeros(7, 3), folder / f"{name}_query_3dctr.pth")
    dataset = SceneDataset(cache, "val", DataConfig(features=str(folder)))
    assert dataset.encoder_id == "published"
    assert dataset[0].image_features.unique().tolist() == [2.0] and len(dataset[0].queries_2d) == 7


def test_what_is_missing_or_damaged_is_named(cache: Path):
    with pytest.raises(Seg3DError, match=r"splits there: train, val"):
        SceneDataset(cache, "test", CONFIG)
    with pytest.raises(Seg3DError, match=r"features 'other' of scene0000_00.*training\.prepare"):
        SceneDataset(cache, "train", DataConfig(features="other"))
    with pytest.raises(Seg3DError, match=r"data\.features names no"):
        SceneDataset(cache, "train", DataConfig())
    dataset = SceneDataset(cache, "train", CONFIG)
    path = cache / "scenes" / "scene0001_00.npz"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255
    path.write_bytes(data)
    with pytest.raises(Seg3DError, match=r"scene0001_00\.npz.*makes scene0001_00\.npz again"):
        dataset[1]
    path.unlink()
    with pytest.raises(Seg3DError, match=r"no scene0001_00\.npz: python -m training\.prepare scenes"):
        SceneDataset(cache, "train", CONFIG)


def test_features_of_another_model_or_other_points_are_refused(cache: Path):
    dataset = SceneDataset(cache, "train", CONFIG)
    other = SceneFeatures(np.zeros((400, 8)), np.zeros((0, 8)), np.zeros((0, 3)), np.zeros(0), "detector-v2")
    write_features(cache / "features" / "some" / "scene0001_00.npz", other)
    with pytest.raises(Seg3DError, match=r"of detector-v2, those of scene0000_00 of detector-v1"):
        dataset[1]
    write_features(cache / "features" / "some" / "scene0002_00.npz", replace(other, image_features=np.zeros((3, 8))))
    with pytest.raises(Seg3DError, match=r"for 3 points, the scene has 400"):
        dataset[2]
