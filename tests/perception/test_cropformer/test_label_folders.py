# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Folders of masks as the scripts around CropFormer write them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from seg3d_core.errors import FrameError, SourceError
from seg3d_core.perception.label_files import LabelFiles
from seg3d_core.types import Camera, Frame

LABELS = np.kron(np.array([[0, 3], [7, 3]]), np.ones((6, 8), int)).astype(np.uint8)


def frame(name: str) -> Frame:
    camera = Camera(16, 12, 10.0, 10.0, 8.0, 6.0)
    return Frame(0, 0.0, np.zeros((12, 16, 3), np.uint8), np.ones((12, 16), np.float32), camera, np.eye(4), name)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(
    ("image", "written"),
    [("0", "0"), ("frame_000010", "frame_000010"), ("frame-000000.color", "frame-000000"), ("rgb.left.0", "rgb")],
)
def test_masks_of_maskclusterings_script(tmp_path: Path, dtype: type, image: str, written: str) -> None:
    assert image.split(".")[0] == written
    cv2.imwrite(str(tmp_path / f"{written}.png"), LABELS.astype(dtype))
    files = LabelFiles(tmp_path)
    masks = files.masks(frame(image))
    assert masks is not None
    assert np.array_equal(masks.labels, np.select([LABELS == 3, LABELS == 7], [1, 2], 0))
    assert files.check_against([image, "other"]) == 1


@pytest.mark.parametrize("image", ["10", "000010"])
def test_masks_of_re0s_script(tmp_path: Path, image: str) -> None:
    np.save(tmp_path / "10.npy", LABELS)
    masks = LabelFiles(tmp_path).masks(frame(image))
    assert masks is not None
    assert np.array_equal(masks.labels > 0, LABELS > 0)


def test_a_stamp_is_no_name_with_a_dot(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "1305031102.png"), LABELS)
    assert LabelFiles(tmp_path).masks(frame("1305031102.175304")) is None


def test_a_png_is_taken_before_an_array_of_the_same_name(tmp_path: Path) -> None:
    np.save(tmp_path / "1.npy", np.zeros_like(LABELS))
    cv2.imwrite(str(tmp_path / "1.png"), LABELS)
    masks = LabelFiles(tmp_path).masks(frame("1"))
    assert masks is not None and len(masks) == 2


def test_the_scenes_folder_is_answered_with_the_masks_folder(tmp_path: Path) -> None:
    (tmp_path / "output" / "mask").mkdir(parents=True)
    with pytest.raises(SourceError, match=r"did you mean .*mask\?"):
        LabelFiles(tmp_path)


def test_the_demos_picture_is_refused_with_the_explanation(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "1.png"), np.zeros((24, 16, 3), np.uint8))
    with pytest.raises(SourceError, match="CropFormer's too"):
        LabelFiles(tmp_path)
    (tmp_path / "1.png").unlink()
    np.save(tmp_path / "1.npy", np.zeros((24, 16, 3), np.uint8))
    with pytest.raises(SourceError, match="colour picture with 3 channels"):
        LabelFiles(tmp_path)


@pytest.mark.parametrize("bad", [np.zeros((3, 4), np.float32), np.full((3, 4), -1), np.zeros((0, 4), np.uint8)])
def test_arrays_that_are_no_labels_drop_their_frame(tmp_path: Path, bad: np.ndarray) -> None:
    np.save(tmp_path / "1.npy", bad)
    with pytest.raises(FrameError, match=r"1\.npy") as caught:
        LabelFiles(tmp_path).masks(frame("1"))
    assert caught.value.reason == "bad_mask_file"


@pytest.mark.parametrize("content", [b"", b"not an array", b"\x93NUMPY\x01\x00"])
def test_unreadable_arrays_drop_their_frame(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "1.npy").write_bytes(content)
    with pytest.raises(FrameError, match=r"1\.npy"):
        LabelFiles(tmp_path).masks(frame("1"))


def test_arrays_of_objects_are_never_unpickled(tmp_path: Path) -> None:
    # Written with a pickle in it on purpose: that it is not read is what is tested.
    np.save(tmp_path / "1.npy", np.array([{"a": 1}], object), allow_pickle=True)
    with pytest.raises(FrameError, match="type object are not allowed"):
        LabelFiles(tmp_path).masks(frame("1"))
