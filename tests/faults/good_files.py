# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""A small good sample of every kind of outside file: `make_...(folder)` writes it."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np

TESTS = Path(__file__).resolve().parents[1]
WEIGHTS = np.arange(500, dtype=np.uint16).tobytes()
_YAML = """
map: {voxel_size: 0.03, depth_max: 4.0}
keyframes: {translation: 0.2, rotation: 0.3}
perception: {masks: geometric, prompts: 'a chair, a table'}
query.crop_growth: [0.1, 0.2]
runtime: {segment_every: 3}
core: re0
"""


def _other_test(path: str) -> ModuleType:
    """A module of another test, for the files that it writes."""
    name = "fuzzing_" + Path(path).stem
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, TESTS / path)
        assert spec is not None and spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


def box_frames(count: int = 3) -> list[Any]:
    return _other_test("conftest.py").box_frames(count, 40, 30, turn=(-0.3, 0.5))


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


def make_map(folder: Path) -> None:
    from seg3d_core.storage import copy_scene, write_scene

    scene = small_scene()
    names = {int(i): "box" for i in scene.snapshot.instances.ids}
    write_scene(folder / "map.seg3d", copy_scene(scene, names, "none"), overwrite=True)


def make_labels(folder: Path) -> None:
    frame = box_frames(1)[0]
    cv2.imwrite(str(folder / "0.png"), frame.instance.astype(np.uint16))
    np.save(folder / "1.npy", frame.instance.astype(np.int64))


def make_scannet(folder: Path) -> None:
    _other_test("conftest.py").write_scannet(folder, box_frames(2))


def make_tum(folder: Path) -> None:
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


def make_replica(folder: Path) -> None:
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


def make_sens(colour: str, depth: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        from seg3d_core.sources.sens import SensFrame, SensHeader, write_sens

        frames = box_frames(3)
        header = SensHeader(frames[0].camera, frames[0].camera, colour, depth)
        made = [SensFrame(f.rgb, (f.depth * 1000).astype(np.uint16), f.T_world_camera, f.stamp) for f in frames]
        write_sens(folder / "scene.sens", header, made)

    return make


def make_bag(storage: str, compressed: bool = False) -> Callable[[Path], None]:
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


def make_points(folder: Path) -> None:
    from seg3d_core.viz import export_ply

    snapshot = small_scene().segment()
    export_ply(snapshot, folder / "cloud.ply")
    rows = "\n".join(" ".join(f"{v:.3f}" for v in p) + " 1 2 3" for p in snapshot.cloud.xyz[:50])
    names = "".join(f"property float {n}\n" for n in "xyz") + "".join(f"property uchar {n}\n" for n in ("red", "green",
                                                                                                  "blue"))  # fmt: skip
    (folder / "text.ply").write_text(f"ply\nformat ascii 1.0\nelement vertex 50\n{names}end_header\n{rows}\n")
    cloud = snapshot.cloud
    np.savez_compressed(folder / "cloud.npz", xyz=cloud.xyz, rgb=cloud.rgb, normals=cloud.normals)


def make_evaluated(folder: Path) -> None:
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


def make_torch_files(folder: Path) -> None:
    tests = _other_test("test_torch_file.py")
    values = np.arange(60, dtype=np.float32)
    content = tests.dictionary(
        {"a.weight": tests.tensor("0", 60, (3, 4, 5)), "b": tests.tensor("0", 60, (2,), offset=8)}
    )
    for container in tests.CONTAINERS:
        tests.write(folder / f"{container}.pt", container, content, {"0": values})


def make_safetensors(folder: Path) -> None:
    from dataclasses import replace

    from seg3d_core.models.random_weights import ARCHITECTURE, random_weights

    small = replace(ARCHITECTURE, layers=1, feed_forward_width=8, thing_classes=3, semantic_classes=5)
    content = random_weights("mobile_sam", architecture=small)
    end = 8 + int.from_bytes(content[:8], "little")
    # The library writes the header's settings in any order; a case is to spoil the same file each time.
    header = json.dumps(json.loads(content[8:end]), sort_keys=True).encode()
    (folder / "w.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + content[end:])


def make_annotations(folder: Path) -> None:
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


def make_archives(folder: Path) -> None:
    import io
    import tarfile
    import zipfile

    with zipfile.ZipFile(folder / "fake-1-py3-none-any.whl", "w") as archive:
        archive.writestr(zipfile.ZipInfo("fake/w.bin"), WEIGHTS, zipfile.ZIP_DEFLATED)
        archive.writestr(zipfile.ZipInfo("fake/__init__.py"), b"raise SystemExit")
    with tarfile.open(folder / "fake-1.tar.gz", "w:gz") as bundle:
        info = tarfile.TarInfo("fake-1/w.bin")
        info.size = len(WEIGHTS)
        bundle.addfile(info, io.BytesIO(WEIGHTS))


def make_settings(folder: Path) -> None:
    (folder / "seg3d.yaml").write_text(_YAML)


def make_words(folder: Path) -> None:
    (folder / "words.txt").write_text("# household\nchair\ntable # a comment\nsofa\n")


def make_corrections(folder: Path) -> None:
    from seg3d_core.geometry import matrix_to_quaternion

    # Further and further off: points move, and meet others.
    places = [f.T_world_camera[:3, 3] + 0.1 * number for number, f in enumerate(box_frames())]
    turns = [matrix_to_quaternion(f.T_world_camera) for f in box_frames()]
    poses = [(f.stamp, *place, *turn) for f, place, turn in zip(box_frames(), places, turns, strict=True)]
    np.savetxt(folder / "corrected.txt", poses, "%.5f", header="stamp tx ty tz qx qy qz qw")


def make_training_texts(folder: Path) -> None:
    from training.config import build, to_json

    (folder / "splits").mkdir()
    for name in ("scannetv2_train.txt", "splits/train.txt"):
        (folder / name).write_text("scene0000_00\nscene0000_01\n")
    rows = ["id\traw_category\tcategory\tnyu40id", "2\tchair\tchair\t5", "4\ttable\ttable\t7"]
    (folder / "scannetv2-labels.combined.tsv").write_text("\n".join(rows) + "\n")
    (folder / "config.json").write_text(to_json(build()))


def make_prepared(folder: Path) -> None:
    from training.readers_cache import CachedScene, SceneFeatures, write_features, write_scene

    random, ids = np.random.default_rng(0), np.arange(20, dtype=np.int32)
    eyes = np.stack([np.eye(4)] * 2)
    write_scene(
        folder / "scene.npz",
        CachedScene(random.random((20, 3), np.float32), np.zeros((20, 3), np.uint8), ids // 4, ids // 5,
                    ids.astype(np.int16), ids.astype(np.int16), ids[:2], eyes, np.eye(4), np.eye(4),
                    np.full((2, 2), 30, np.int32), "{}"),
    )  # fmt: skip
    features = random.random((20, 6), np.float32)
    queries = random.random((3, 6), np.float32), random.random((3, 3), np.float32), np.ones(3, np.float32)
    write_features(folder / "features.npz", SceneFeatures(features, *queries, "encoder", "{}"))


def make_published(folder: Path) -> None:
    import torch

    for suffix, value in (
        ("", [torch.ones(20, 6)] * 2),
        ("_query_feats", torch.ones(3, 6)),
        ("_query_3dctr", torch.ones(3, 3)),
    ):
        torch.save(value, folder / f"s{suffix}.pth")


def make_model_folder(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": "siglip", "vision_config": {"hidden_size": 768}}))
    settings = {"do_resize": True, "size": {"height": 224, "width": 224}, "image_mean": [0.5, 0.5, 0.5]}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    (folder / "other").mkdir()
    (folder / "other" / "processor_config.json").write_text(json.dumps({"image_processor": settings}))
