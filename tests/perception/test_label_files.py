# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Masks from files."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from seg3d_core.errors import FrameError, SourceError
from seg3d_core.perception.label_files import LabelFiles
from seg3d_core.types import Camera, Frame

LABELS = np.kron(np.array([[0, 3], [7, 3]]), np.ones((6, 8), int))


def frame(name: str, shape: tuple[int, int] = (12, 16)) -> Frame:
    camera = Camera(shape[1], shape[0], 10.0, 10.0, 8.0, 6.0)
    return Frame(0, 0.0, np.zeros((*shape, 3), np.uint8), np.ones(shape, np.float32), camera, np.eye(4), name)


@pytest.mark.parametrize(("dtype", "scale"), [(np.uint8, 1), (np.uint16, 1000)])
def test_labels_of_8_and_16_bit_are_renumbered(tmp_path: Path, dtype: type, scale: int):
    cv2.imwrite(str(tmp_path / "10.png"), (LABELS * scale).astype(dtype))
    masks = LabelFiles(tmp_path).masks(frame("10"))
    assert masks is not None
    assert np.array_equal(masks.labels, np.select([LABELS == 3, LABELS == 7], [1, 2], 0))
    assert masks.scores.tolist() == [1.0, 1.0]
    assert masks.labels.dtype == np.int32


def test_a_frame_without_a_file_has_none(tmp_path: Path):
    cv2.imwrite(str(tmp_path / "10.png"), LABELS.astype(np.uint8))
    files = LabelFiles(tmp_path)
    assert files.chooses_keyframes
    assert files.masks(frame("11")) is None
    assert files.names == ("10",)


@pytest.mark.parametrize("shape", [(24, 32), (6, 8), (13, 17)])
def test_labels_take_the_frames_size_without_new_values(tmp_path: Path, shape: tuple[int, int]):
    cv2.imwrite(str(tmp_path / "a.png"), LABELS.astype(np.uint8))
    masks = LabelFiles(tmp_path).masks(frame("a", shape))
    assert masks is not None
    assert masks.labels.shape == shape
    assert set(np.unique(masks.labels)) == {0, 1, 2}
    assert masks.labels[0, 0] == 0
    assert masks.labels[-1, 0] == 2
    assert masks.labels[0, -1] == 1


def test_an_empty_label_image_is_an_observation_of_nothing(tmp_path: Path):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((12, 16), np.uint8))
    masks = LabelFiles(tmp_path).masks(frame("a"))
    assert masks is not None
    assert len(masks) == 0


@pytest.mark.parametrize("channels", [3, 4])
def test_a_colour_picture_is_refused_with_the_reason(tmp_path: Path, channels: int):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((12, 16, channels), np.uint8))
    with pytest.raises(SourceError, match=r"colour picture.*labels are wanted"):
        LabelFiles(tmp_path)


def test_a_colour_picture_among_labels_is_refused(tmp_path: Path):
    cv2.imwrite(str(tmp_path / "a.png"), LABELS.astype(np.uint8))
    cv2.imwrite(str(tmp_path / "b.png"), np.zeros((12, 16, 3), np.uint8))
    with pytest.raises(SourceError, match=r"b\.png is a colour picture"):
        LabelFiles(tmp_path).masks(frame("b"))


@pytest.mark.parametrize("content", [b"", b"not a png", b"\x89PNG\r\n\x1a\n\x00\x00"])
def test_an_unreadable_file_drops_its_frame_by_name(tmp_path: Path, content: bytes):
    (tmp_path / "a.png").write_bytes(content)
    files = LabelFiles(tmp_path)
    with pytest.raises(FrameError, match=r"a\.png") as caught:
        files.masks(frame("a"))
    assert caught.value.reason == "bad_mask_file"


def test_missing_and_empty_folders_are_refused(tmp_path: Path):
    with pytest.raises(SourceError, match="no folder of masks"):
        LabelFiles(tmp_path / "nowhere")
    with pytest.raises(SourceError, match=r"holds no \.png"):
        LabelFiles(tmp_path)


def test_names_are_checked_against_the_frames(tmp_path: Path):
    for name in ("1", "2", "x"):
        cv2.imwrite(str(tmp_path / f"{name}.png"), LABELS.astype(np.uint8))
    files = LabelFiles(tmp_path)
    assert files.check_against(["0", "1", "2", "3"]) == 2
    with pytest.raises(SourceError, match="'frame_0'"):
        files.check_against(["frame_0", "frame_1"])


def test_a_scannet_instance_folder_serves(shared_data: Path):
    folder = shared_data / "house" / "house1" / "instance"
    files = LabelFiles(folder)
    assert files.check_against(str(i) for i in range(70)) == 70
    truth = cv2.imread(str(folder / "14.png"), cv2.IMREAD_UNCHANGED)
    masks = files.masks(frame("14", truth.shape))
    assert masks is not None
    assert len(masks) == len(np.unique(truth)) - 1
    assert np.array_equal(masks.labels > 0, truth > 0)
