# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Readers of folders: ScanNet's, TUM's and Replica's layouts, written here from a few frames and read again."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from seg3d_core.errors import FrameError, SourceError
from seg3d_core.geometry import matrix_to_quaternion, rotation_error
from seg3d_core.sources.base import Source
from seg3d_core.sources.guess import guess_kind, open_source
from seg3d_core.sources.images import Rectifier, natural, read_depth, register_colour
from seg3d_core.sources.tum import read_correction
from seg3d_core.types import Camera, Frame

STUDIO = Path(__file__).resolve().parents[2] / "examples" / "studio"


@pytest.fixture(scope="module")
def frames() -> list[Frame]:
    return list(open_source(STUDIO, max_frames=6))


@pytest.fixture
def scannet(tmp_path: Path) -> Path:
    """The first six frames of the studio, to be spoiled at will."""
    root = tmp_path / "scene"
    for folder, suffix in (("color", "jpg"), ("depth", "png"), ("pose", "txt"), ("instance", "png")):
        (root / folder).mkdir(parents=True)
        for i in range(6):
            shutil.copy(STUDIO / folder / f"{i}.{suffix}", root / folder)
    shutil.copytree(STUDIO / "intrinsic", root / "intrinsic")
    return root


@pytest.fixture
def tum(tmp_path: Path, frames: list[Frame]) -> Path:
    root = tmp_path / "rgbd_dataset_freiburg3_room"
    (root / "rgb").mkdir(parents=True)
    (root / "depth").mkdir()
    lists = {"rgb": "# stamp file\n", "depth": "# stamp file\n"}
    track = "# stamp tx ty tz qx qy qz qw\n"
    for i, frame in enumerate(frames):
        stamps = {"rgb": 100.0 + i * 0.1, "depth": 100.012 + i * 0.1}
        cv2.imwrite(str(root / "rgb" / f"{stamps['rgb']:.6f}.png"), frame.rgb[..., ::-1])
        raw = np.rint(frame.depth * 5000).astype(np.uint16)
        cv2.imwrite(str(root / "depth" / f"{stamps['depth']:.6f}.png"), raw)
        for kind in lists:
            lists[kind] += f"{stamps[kind]:.6f} {kind}/{stamps[kind]:.6f}.png\n"
        numbers = [*frame.T_world_camera[:3, 3], *matrix_to_quaternion(frame.T_world_camera)]
        track += f"{stamps['depth']:.6f} " + " ".join(f"{x:.9f}" for x in numbers) + "\n"
    (root / "rgb.txt").write_text(lists["rgb"])
    (root / "depth.txt").write_text(lists["depth"])
    (root / "groundtruth.txt").write_text(track)
    (root / "camera.txt").write_text("277 277 159.5 119.5\n")
    return root


@pytest.fixture
def replica(tmp_path: Path, frames: list[Frame]) -> Path:
    root = tmp_path / "Replica" / "room0"
    (root / "results").mkdir(parents=True)
    lines = []
    for i, frame in enumerate(frames):
        cv2.imwrite(str(root / "results" / f"frame{i:06d}.jpg"), frame.rgb[..., ::-1])
        raw = np.rint(frame.depth * 6553.5).astype(np.uint16)
        cv2.imwrite(str(root / "results" / f"depth{i:06d}.png"), raw)
        lines.append(" ".join(repr(float(x)) for x in frame.T_world_camera.ravel()))
    (root / "traj.txt").write_text("\n".join(lines) + "\n")
    camera = {"w": 320, "h": 240, "fx": 277, "fy": 277, "cx": 159.5, "cy": 119.5, "scale": 6553.5}
    (root.parent / "cam_params.json").write_text(json.dumps({"camera": camera}))
    return root


def test_frames_keep_their_promises(frames: list[Frame]) -> None:
    for i, frame in enumerate(frames):
        assert (frame.index, frame.name) == (i, str(i))
        assert frame.rgb.shape == (240, 320, 3)
        assert frame.rgb.dtype == np.uint8
        assert frame.depth.shape == (240, 320)
        assert frame.depth.dtype == np.float32
        assert frame.instance is not None
        assert frame.instance.dtype == np.int32
        assert frame.T_world_camera.dtype == np.float64
        assert rotation_error(frame.T_world_camera) < 1e-12
    assert all(a.stamp < b.stamp for a, b in itertools.pairwise(frames))
    assert isinstance(open_source(STUDIO), Source)


def test_frames_come_in_order_of_their_numbers() -> None:
    assert [f.name for f in open_source(STUDIO, stride=20)] == ["0", "20", "40", "60"]
    assert sorted(["frame-10", "frame-9", "2", "10"], key=natural) == ["2", "10", "frame-9", "frame-10"]


def test_iterating_again_starts_anew(scannet: Path) -> None:
    (scannet / "pose" / "2.txt").unlink()
    source = open_source(scannet)
    assert [f.name for f in source] == [f.name for f in source] == ["0", "1", "3", "4", "5"]
    assert source.drops == {"no_pose": 1}
    assert len(source) == 6


def test_bad_frames_are_dropped_and_counted(scannet: Path) -> None:
    depth = scannet / "depth" / "0.png"
    depth.write_bytes(depth.read_bytes()[:-2000])
    colour = scannet / "color" / "1.jpg"
    colour.write_bytes(colour.read_bytes()[:3000])
    (scannet / "pose" / "2.txt").write_text("-inf " * 16)
    (scannet / "pose" / "3.txt").write_text("2 0 0 0  0 2 0 0  0 0 2 0  0 0 0 1")
    cv2.imwrite(str(scannet / "depth" / "4.png"), np.ones((24, 32), np.uint16))
    source = open_source(scannet)
    assert [f.name for f in source] == ["5"]
    assert source.drops == {
        "depth_unreadable": 1,
        "colour_unreadable": 1,
        "bad_pose": 1,
        "bad_rotation": 1,
        "size_mismatch": 1,
    }


@pytest.mark.parametrize("image", [np.ones((240, 320), np.uint8), np.ones((240, 320, 3), np.uint16)])
def test_depth_of_another_encoding_is_dropped(scannet: Path, image: np.ndarray) -> None:
    cv2.imwrite(str(scannet / "depth" / "1.png"), image)
    source = open_source(scannet)
    assert len(list(source)) == 5
    assert source.drops == {"depth_encoding": 1}


def test_zero_and_65535_mean_no_depth(scannet: Path) -> None:
    raw = read_depth(scannet / "depth" / "0.png")
    raw[:10], raw[10:20] = 0, 65535
    cv2.imwrite(str(scannet / "depth" / "0.png"), raw)
    depth = next(iter(open_source(scannet))).depth
    assert (depth[:20] == 0).all()
    np.testing.assert_allclose(depth[20:], raw[20:] / 1000, rtol=1e-6)


def test_larger_colour_is_resized_to_depth(scannet: Path, frames: list[Frame]) -> None:
    for i in range(6):
        large = cv2.resize(frames[i].rgb, (1280, 960), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(scannet / "color" / f"{i}.jpg"), large[..., ::-1])
    matrix = np.eye(4)
    matrix[0, 0] = matrix[1, 1] = 277 * 4
    matrix[:2, 2] = 160 * 4 - 0.5, 120 * 4 - 0.5
    np.savetxt(scannet / "intrinsic" / "intrinsic_color.txt", matrix)
    frame = next(iter(open_source(scannet)))
    assert np.abs(frame.rgb.astype(int) - frames[0].rgb).mean() < 4


def test_colour_of_other_intrinsics_is_carried_onto_depth() -> None:
    """A wider colour camera sees a painted point where its own intrinsics put it; depth's must find it again."""
    depth_camera = Camera(160, 120, 140, 140, 79.5, 59.5)
    colour_camera = Camera(320, 240, 200, 205, 150, 125)
    ray = np.array([0.2, -0.1])
    rgb = np.zeros((240, 320, 3), np.uint8)
    u, v = ray * (200, 205) + (150, 125)
    cv2.circle(rgb, (round(u), round(v)), 6, (255, 255, 255), -1)
    out = register_colour(rgb, depth_camera, colour_camera)[..., 0].astype(float)
    assert out.shape == (120, 160)
    found = np.array([(out.sum(0) * np.arange(160)).sum(), (out.sum(1) * np.arange(120)).sum()]) / out.sum()
    np.testing.assert_allclose(found, ray * 140 + (79.5, 59.5), atol=0.6)


def test_distortion_is_taken_out() -> None:
    camera = Camera(320, 240, 277, 277, 159.5, 119.5, (0.2, -0.3, 0.0, 0.0, 0.1))
    ray = np.array([[[0.4, 0.3, 1.0]]])
    pixel = cv2.projectPoints(ray, np.zeros(3), np.zeros(3), camera.matrix, np.array(camera.distortion))[0].ravel()
    depth = np.zeros((240, 320), np.float32)
    depth[round(pixel[1]) - 2 : round(pixel[1]) + 3, round(pixel[0]) - 2 : round(pixel[0]) + 3] = 2.0
    rectifier = Rectifier(camera)
    straight = rectifier.nearest(depth)
    assert rectifier.camera.distortion is None
    v, u = np.argwhere(straight > 0).mean(axis=0)
    np.testing.assert_allclose([u, v], [0.4 * 277 + 159.5, 0.3 * 277 + 119.5], atol=1.0)
    assert set(np.unique(straight)) == {np.float32(0), np.float32(2)}


def test_one_intrinsic_file_serves_both(scannet: Path) -> None:
    (scannet / "intrinsic" / "intrinsic_depth.txt").unlink()
    assert next(iter(open_source(scannet))).camera == Camera(320, 240, 277, 277, 159.5, 119.5)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda root: shutil.rmtree(root / "intrinsic"), "intrinsic_depth.txt"),
        (lambda root: (root / "intrinsic" / "intrinsic_depth.txt").write_text("fx fy"), "no 4x4 or 3x3"),
        (lambda root: (root / "intrinsic" / "intrinsic_depth.txt").write_text("0 " * 16), "above 0"),
        (
            lambda root: [p.rename(p.with_name(f"x{p.name}")) for p in (root / "pose").iterdir()],
            "name them alike",
        ),
        (lambda root: [p.write_bytes(b"") for p in (root / "depth").iterdir()], "no depth image can be read"),
    ],
)
def test_an_unreadable_folder_says_what_to_do(scannet: Path, spoil, words: str) -> None:
    spoil(scannet)
    with pytest.raises(SourceError, match=words):
        open_source(scannet)


def test_the_noisy_set_beside_the_exact_one(shared_data: Path) -> None:
    house = shared_data / "house" / "house2"
    noisy = next(iter(open_source(house, depth="depth_noisy", pose="pose_noisy")))
    exact = next(iter(open_source(house)))
    assert (noisy.depth == 0).any()
    assert 0 < np.abs(noisy.T_world_camera - exact.T_world_camera).max() < 0.1


def assert_same(a: Frame, b: Frame, colours: float) -> None:
    np.testing.assert_allclose(a.T_world_camera, b.T_world_camera, atol=1e-6)
    np.testing.assert_allclose(a.depth, b.depth, atol=2e-4)
    assert np.abs(a.rgb.astype(int) - b.rgb).mean() < colours
    assert a.camera == b.camera


def test_tum_is_read_back(tum: Path, frames: list[Frame]) -> None:
    source = open_source(tum)
    assert source.kind == "tum"
    read = list(source)
    assert len(read) == 6
    assert read[1].name == "100.100000"
    for a, b in zip(read, frames, strict=True):
        assert_same(a, b, 0.01)


def test_tum_counts_frames_without_partner_or_pose(tum: Path) -> None:
    depths = (tum / "depth.txt").read_text().splitlines()
    (tum / "depth.txt").write_text("\n".join(depths[:2] + depths[3:]))
    poses = (tum / "groundtruth.txt").read_text().splitlines()
    (tum / "groundtruth.txt").write_text("\n".join(poses[:-1]))
    source = open_source(tum)
    assert [f.name for f in source] == ["100.000000", "100.200000", "100.300000", "100.400000"]
    assert source.drops == {"no_depth": 1, "no_pose": 1}


def test_tum_takes_the_benchmarks_intrinsics_by_name(tum: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tum / "camera.txt").unlink()
    assert open_source(tum).camera.fx == pytest.approx(535.4 / 2)
    other = tum.rename(tum.with_name("my_recording"))
    assert open_source(other).camera.fx == pytest.approx(525 / 2)
    assert "ROS default" in caplog.text


@pytest.mark.parametrize(("file", "text"), [("groundtruth.txt", "1 2 3"), ("rgb.txt", "word"), ("depth.txt", "# none")])
def test_tum_says_which_list_is_wrong(tum: Path, file: str, text: str) -> None:
    (tum / file).write_text(text)
    with pytest.raises(SourceError, match=file):
        open_source(tum)


def test_a_correction_keeps_its_lines_and_marks_what_is_no_pose(tmp_path: Path) -> None:
    turned, none = "1 2 3 0 0 2 0", ("1 2 nan 0 0 0 1", "1 2 3 0 0 0 0", "1 2 3 1e200 0 0 1e200")
    file = tmp_path / "corrected.txt"
    file.write_text("".join(f"{stamp} {pose}\n" for stamp, pose in enumerate((turned, *none))))
    correction = read_correction(file)
    assert correction.stamps.tolist() == [0, 1, 2, 3]
    assert np.allclose(correction.poses[0], [[-1, 0, 0, 1], [0, -1, 0, 2], [0, 0, 1, 3], [0, 0, 0, 1]])
    assert np.isnan(correction.poses[1:]).all()


def test_replica_is_read_back(replica: Path, frames: list[Frame]) -> None:
    source = open_source(replica)
    assert source.kind == "replica"
    read = list(source)
    assert [f.name for f in read] == [f"frame{i:06d}" for i in range(6)]
    for a, b in zip(read, frames, strict=True):
        assert_same(a, b, 5)


def test_replica_wants_its_camera(replica: Path) -> None:
    (replica.parent / "cam_params.json").write_text('{"camera": {"w": 3}}')
    with pytest.raises(SourceError, match="must hold w, h, fx"):
        open_source(replica)
    (replica.parent / "cam_params.json").unlink()
    with pytest.raises(SourceError, match="write"):
        open_source(replica)


def test_kinds_are_guessed(scannet: Path, tum: Path, replica: Path) -> None:
    assert [guess_kind(p) for p in (scannet, tum, replica)] == ["scannet", "tum", "replica"]
    assert guess_kind("synthetic:3") == guess_kind("synthetic") == "synthetic"


def test_a_wrong_path_lists_what_is_there_and_what_is_known(scannet: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="does not exist"):
        open_source(tmp_path / "nowhere")
    with pytest.raises(SourceError, match=r"one level deeper: .*scene.*traj\.txt"):
        open_source(tmp_path)
    with pytest.raises(SourceError, match="no reader knows"):
        open_source(scannet / "color" / "0.jpg")
    with pytest.raises(SourceError, match="no kind of source 'kitti'"):
        open_source(scannet, kind="kitti")
    with pytest.raises(SourceError, match="takes no option 'rgb_topic'"):
        open_source(scannet, rgb_topic="/rgb")
    with pytest.raises(SourceError, match="SEED"):
        open_source("synthetic:many")


def test_a_generated_room_is_thinned_like_any_source() -> None:
    pytest.importorskip("embreex")
    small = {"frames": 6, "width": 32, "height": 24}
    source = open_source("synthetic:1", stride=2, max_frames=2, **small)
    whole = list(open_source("synthetic:1", **small))
    frames = list(source)
    assert len(source) == len(frames) == 2
    assert [f.index for f in frames] == [0, 1]
    assert [f.stamp for f in frames] == [whole[0].stamp, whole[2].stamp]


@pytest.mark.parametrize("options", [{"stride": 0}, {"max_frames": 0}, {"depth_scale": -1.0}])
def test_senseless_options_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(SourceError, match=next(iter(options))):
        open_source(STUDIO, **options)


def test_frame_errors_carry_a_reason(tmp_path: Path) -> None:
    with pytest.raises(FrameError) as caught:
        read_depth(tmp_path / "none.png")
    assert caught.value.reason == "no_depth"
