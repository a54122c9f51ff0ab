# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""`check_source` says fine for good frames, and names what is wrong with spoiled ones."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest

from seg3d_core.cli.check import check as check_command
from seg3d_core.errors import SourceError
from seg3d_core.sources.check import CheckReport, check_source, written_digits
from seg3d_core.sources.guess import open_source
from seg3d_core.types import Camera, Frame

STUDIO = Path(__file__).resolve().parents[2] / "examples" / "studio"
OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])
BODY_OPTICAL = np.array([[0.0, 0, 1, 0.1], [-1, 0, 0, 0.02], [0, -1, 0, 0.05], [0, 0, 0, 1]])
SCENES = {
    "studio": ("", {}),
    "house1": ("house/house1", {}),
    "house2": ("house/house2", {}),
    "house2_noisy": ("house/house2", {"depth": "depth_noisy", "pose": "pose_noisy"}),
    "house3": ("house/house3", {}),
    "house4": ("house/house4", {}),
    "redkitchen": ("real/redkitchen", {}),
}


class Listed:
    """A source over frames in memory."""

    kind = "listed"

    def __init__(self, frames: list[Frame], depth_scale: float = 1000.0):
        self.name, self.drops, self.depth_scale = "listed", {}, depth_scale
        self._frames = [replace(frame, index=i) for i, frame in enumerate(frames)]

    def __len__(self) -> int:
        return len(self._frames)

    def __iter__(self) -> Iterator[Frame]:
        return iter(self._frames)


@lru_cache(maxsize=2)
def frames_of(path: Path, options: tuple[tuple[str, str], ...] = ()) -> list[Frame]:
    return list(open_source(path, **dict(options)))


@pytest.fixture(params=list(SCENES), scope="module")
def frames(request: pytest.FixtureRequest) -> list[Frame]:
    place, options = SCENES[request.param]
    if not place:
        return frames_of(STUDIO)
    return frames_of(request.getfixturevalue("shared_data") / place, tuple(options.items()))


@pytest.fixture
def studio() -> list[Frame]:
    return frames_of(STUDIO)


def with_poses(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[list[Frame]], list[Frame]]:
    return lambda frames: [replace(f, T_world_camera=change(f.T_world_camera)) for f in frames]


def with_depth(factor: float) -> Callable[[list[Frame]], list[Frame]]:
    return lambda frames: [replace(f, depth=f.depth * np.float32(factor)) for f in frames]


def with_camera(factor: float) -> Callable[[list[Frame]], list[Frame]]:
    def scale(c: Camera) -> Camera:
        half = (c.cx + 0.5) * factor - 0.5, (c.cy + 0.5) * factor - 0.5
        return replace(c, fx=c.fx * factor, fy=c.fy * factor, cx=half[0], cy=half[1])

    return lambda frames: [replace(f, camera=scale(f.camera)) for f in frames]


def with_colour_later(shift: int) -> Callable[[list[Frame]], list[Frame]]:
    return lambda frames: [replace(f, rgb=g.rgb) for f, g in zip(frames, frames[shift:], strict=False)]


def with_colour_earlier(shift: int) -> Callable[[list[Frame]], list[Frame]]:
    return lambda frames: [replace(f, rgb=g.rgb) for f, g in zip(frames[shift:], frames, strict=False)]


def with_depth_later(shift: int) -> Callable[[list[Frame]], list[Frame]]:
    return lambda frames: [replace(f, depth=g.depth) for f, g in zip(frames, frames[shift:], strict=False)]


# What was done to the frames, the code of the finding, and words that its sentence must hold.
SPOILED = {
    "inverted poses": (with_poses(np.linalg.inv), "inverted_poses", "inverting the poses"),
    "OpenGL axes": (with_poses(lambda T: T @ OPENGL), "opengl_axes", "OpenGL"),
    "depth of 5000 per metre read as 1000": (with_depth(5), "depth_unit", "5000 per metre, not 1000"),
    "intrinsics of twice the size": (with_camera(2), "intrinsics_resolution", "2 times as large"),
    "colour 5 frames later": (with_colour_later(5), "colour_shifted", "5 frames"),
    "poses of 2 digits": (with_poses(lambda T: T.round(2)), "rounded_poses", "rounded to 2 digits"),
}
MORE = {
    "depth in millimetres": (with_depth(1000), "depth_unit", "metre"),
    "depth of 200 per metre": (with_depth(0.2), "depth_unit", "200 per metre"),
    "intrinsics of half the size": (with_camera(0.5), "intrinsics_resolution", "0.5 times as large"),
    "colour 5 frames earlier": (with_colour_earlier(5), "colour_shifted", "5 frames later"),
    "depth 5 frames later": (with_depth_later(5), "poses_shifted", "5 frames later"),
    "poses of a body frame": (with_poses(lambda T: T @ np.linalg.inv(BODY_OPTICAL)), "body_frame", "optical"),
    "inverted, and another unit": (
        lambda frames: with_depth(5)(with_poses(np.linalg.inv)(frames)),
        "inverted_poses+depth_unit",
        "5000",
    ),
    "poses of 1 digit": (with_poses(lambda T: T.round(1)), "rounded_poses", "rounded to 1 digit"),
    "poses in millimetres": (
        with_poses(lambda T: np.block([[T[:3, :3], T[:3, 3:] * 1000], [np.array([[0, 0, 0, 1.0]])]])),
        "depth_unit",
        "1000 times too large",
    ),
}


def errors_of(report: CheckReport) -> dict[str, str]:
    return {f.code: f.sentence for f in report.findings if f.severity == "error"}


def test_good_frames_are_fine(frames: list[Frame]) -> None:
    report = check_source(Listed(frames))
    assert report.ok
    assert report.findings == ()
    assert report.agreement["share"] > 0.95


@pytest.mark.parametrize("spoil", list(SPOILED))
def test_the_culprit_is_named(frames: list[Frame], spoil: str) -> None:
    change, code, words = SPOILED[spoil]
    report = check_source(Listed(change(frames)), max_frames=40)
    errors = errors_of(report)
    assert not report.ok
    assert words in errors[code], errors
    # Nothing else is accused: the middle of the image is part of the same finding.
    assert set(errors) - {code, "centre"} == set()


@pytest.mark.parametrize("spoil", list(MORE))
def test_the_culprit_of_rarer_mistakes_is_named(studio: list[Frame], spoil: str) -> None:
    change, code, words = MORE[spoil]
    errors = errors_of(check_source(Listed(change(studio))))
    assert words in errors[code], errors


@pytest.mark.parametrize("count", [3, 6, 12])
def test_a_few_good_frames_raise_no_alarm(frames: list[Frame], count: int) -> None:
    for start in range(0, len(frames) - count, 3 * count):
        report = check_source(Listed(frames[start : start + count]))
        assert report.ok, report.findings


@pytest.mark.parametrize("stride", [2, 4, 8])
def test_good_frames_with_little_overlap_raise_no_alarm(frames: list[Frame], stride: int) -> None:
    report = check_source(Listed(frames[::stride]))
    assert report.ok, report.findings


def test_three_digits_are_enough(studio: list[Frame]) -> None:
    assert check_source(Listed(with_poses(lambda T: T.round(3))(studio))).ok


def test_a_camera_that_stands_still_tells_nothing(studio: list[Frame]) -> None:
    report = check_source(Listed([studio[4]] * 12))
    assert report.ok
    assert [f.code for f in report.findings] == ["static"]


def test_equal_poses_of_a_moving_camera_are_an_error(studio: list[Frame]) -> None:
    report = check_source(Listed(with_poses(lambda T: np.eye(4))(studio)))
    assert "equal_poses" in errors_of(report)


def test_one_frame_can_not_be_judged(studio: list[Frame]) -> None:
    report = check_source(Listed(studio[:1]))
    assert report.ok
    assert "one_frame" in {f.code for f in report.findings}


def test_a_source_without_frames_is_reported() -> None:
    report = check_source(Listed([]))
    assert not report.ok
    assert report.findings[0].code == "no_frames"


def test_only_the_first_frames_are_looked_at(studio: list[Frame]) -> None:
    report = check_source(Listed(studio), max_frames=20)
    assert report.counts["read"] == 20
    assert "first 20 of 70" in next(f.sentence for f in report.findings if f.code == "partial")


def test_progress_rises_to_its_end(studio: list[Frame]) -> None:
    calls: list[tuple[int, int]] = []
    check_source(Listed(studio[:10]), progress=lambda done, total: calls.append((done, total)))
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)
    assert calls[-1][0] == calls[-1][1]


def test_the_same_frames_give_the_same_report(studio: list[Frame]) -> None:
    assert check_source(Listed(studio[:20])) == check_source(Listed(studio[:20]))


def test_digits_are_those_that_were_written() -> None:
    positions = np.random.default_rng(3).uniform(-5, 5, (50, 3))
    assert [written_digits(positions.round(d)) for d in (1, 2, 4)] == [1, 2, 4]
    assert written_digits(positions.round(2).astype(np.float32).astype(float)) == 2
    assert written_digits(positions) == 6
    assert written_digits(np.ones((50, 3))) is None


def test_a_path_is_opened_and_its_options_passed_on(studio: list[Frame]) -> None:
    report = check_source(STUDIO, stride=2, depth_scale=5000.0)
    assert report.counts["frames"] == 35
    assert "1000 per metre (millimetres), not 5000" in errors_of(report)["depth_unit"]
    with pytest.raises(SourceError, match="go with a path"):
        check_source(Listed(studio), stride=2)


def test_the_command_prints_and_exits(capsys: pytest.CaptureFixture[str]) -> None:
    assert check_command(str(STUDIO), json_output=True) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["ok"] is True
    assert check_command(str(STUDIO), json_output=False, depth_scale=5000.0) == 1
    text = capsys.readouterr().out
    assert "1000 per metre" in " ".join(text.split())


def test_the_command_says_why_a_path_can_not_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SourceError, match="looks like no known source"):
        check_command(str(tmp_path), json_output=True)
    assert not capsys.readouterr().out
