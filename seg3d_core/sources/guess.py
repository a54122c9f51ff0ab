# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Opens whatever lies at a path as a source of posed RGB-D frames.

The kinds and how they are recognised:

    synthetic   no path at all: `synthetic`, `synthetic:SEED` or `synthetic:SEED:noisy`
    scannet     a folder with color/, depth/ and pose/                          (`scannet.py`)
    tum         a folder with rgb.txt and depth.txt                             (`tum.py`)
    replica     a folder with traj.txt and results/                             (`replica.py`)
    rosbag      a folder with metadata.yaml, or a .mcap, .db3 or .bag file      (`rosbag.py`)
    sens        a .sens file, ScanNet's recording as it is downloaded           (`sens.py`)
"""

from __future__ import annotations

import importlib
import inspect
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast, get_type_hints

from ..errors import SourceError, listed
from ..types import Frame
from .base import Source
from .images import check_thinning

LAYOUTS = {
    "scannet": "ScanNet's exported layout: color/, depth/, pose/, intrinsic/",
    "tum": "TUM RGB-D: rgb.txt, depth.txt, groundtruth.txt",
    "replica": "Replica as NICE-SLAM lays it out: results/, traj.txt, cam_params.json",
    "rosbag": "a rosbag2 folder with metadata.yaml, or a .mcap, .db3 or .bag file",
    "sens": "a .sens file as ScanNet offers it",
    "synthetic": "a generated room: 'synthetic', 'synthetic:SEED' or 'synthetic:SEED:noisy' in place of a path",
}
_CLASSES = {
    "scannet": ("scannet", "ScanNetSource"),
    "tum": ("tum", "TumSource"),
    "replica": ("replica", "ReplicaSource"),
    "rosbag": ("rosbag", "RosbagSource"),
    "sens": ("sens", "SensSource"),
    "synthetic": ("synthetic", "SyntheticSource"),
}
_BAG_SUFFIXES = (".mcap", ".db3", ".bag")


def open_source(
    path: str | Path,
    *,
    kind: str | None = None,
    stride: int = 1,
    max_frames: int | None = None,
    depth_scale: float | None = None,
    **options: Any,
) -> Source:
    """The source at `path`, its kind guessed unless given.

    `stride` takes every that many-th frame, `max_frames` stops after as many; `depth_scale` is the number that
    stands for one metre where the layout's own is wrong. `options` go to the reader of that kind (its module says
    which it takes). Raises SourceError that lists what was found and what each known layout would have.
    """
    if kind is not None and kind not in _CLASSES:
        raise SourceError(f"no kind of source {kind!r}: choose one of {', '.join(_CLASSES)}")
    settings = dict(options)
    if depth_scale is not None:
        if not 0 < depth_scale < math.inf:
            raise SourceError(f"depth_scale {depth_scale!r} must be above 0 (1000 for millimetres)")
        settings["depth_scale"] = depth_scale
    try:
        return _open(path, kind or guess_kind(path), stride, max_frames, settings)
    except OSError as error:
        where = error.filename or path
        raise SourceError(f"cannot read {where}: {error.strerror or error}; check that you may read it") from None


def _open(path: str | Path, kind: str, stride: int, max_frames: int | None, settings: dict[str, Any]) -> Source:
    if kind == "synthetic":
        seed, noisy = _parse_synthetic(str(path))
        source = _make(kind, (), {"seed": seed, "noisy": noisy, **settings})
        return source if stride == 1 and max_frames is None else _Thinned(source, stride, max_frames)
    settings.update(stride=stride, max_frames=max_frames)
    if not Path(path).exists():
        raise SourceError(f"{path} does not exist")
    return _make(kind, (Path(path),), settings)


def guess_kind(path: str | Path) -> str:
    """The kind of source at `path`. Raises SourceError."""
    place = Path(path)
    if not str(path).strip():
        raise SourceError(f"the path is empty. {_known()}")
    if not place.exists():
        if str(path).split(":")[0] == "synthetic":
            return "synthetic"
        raise SourceError(f"{path} does not exist (a generated room is 'synthetic' or 'synthetic:SEED')")
    if place.is_file():
        if place.suffix in _BAG_SUFFIXES:
            return "rosbag"
        if place.suffix == ".sens":
            return "sens"
        raise SourceError(f"{path} is a file that no reader knows. {_known()}")
    kinds = [kind for kind, looks_like in _SIGNS.items() if looks_like(place)]
    if kinds:
        return kinds[0]
    raise SourceError(f"{path} looks like no known source: it holds {_contents(place)}. {_known()}")


_SIGNS: dict[str, Callable[[Path], bool]] = {
    "rosbag": lambda p: (p / "metadata.yaml").is_file(),
    "scannet": lambda p: all((p / name).is_dir() for name in ("color", "depth", "pose")),
    "tum": lambda p: (p / "rgb.txt").is_file() and (p / "depth.txt").is_file(),
    "replica": lambda p: (p / "traj.txt").is_file() and (p / "results").is_dir(),
}


class _Thinned:
    """Every `stride`-th frame of a source that can't skip by itself, at most `max_frames`."""

    def __init__(self, source: Source, stride: int, max_frames: int | None):
        check_thinning(stride, max_frames)
        self.source, self.name, self.kind = source, source.name, source.kind
        self._chosen = range(0, len(source), stride)[:max_frames]

    @property
    def drops(self) -> dict[str, int]:
        return self.source.drops

    @drops.setter
    def drops(self, value: dict[str, int]) -> None:
        self.source.drops = value

    def __len__(self) -> int:
        return len(self._chosen)

    @property
    def frame_names(self) -> list[str]:
        names = self.source.frame_names
        return [names[index] for index in self._chosen]

    def __iter__(self) -> Iterator[Frame]:
        for frame in self.source:
            if frame.index in self._chosen:
                yield replace(frame, index=self._chosen.index(frame.index))
            if frame.index >= self._chosen[-1]:
                return


def _make(kind: str, arguments: tuple[Any, ...], settings: dict[str, Any]) -> Source:
    module, name = _CLASSES[kind]
    reader = getattr(importlib.import_module(f".{module}", __package__), name)
    allowed = [p for p in inspect.signature(reader).parameters if p not in ("path", "self")]
    unknown = [option for option in settings if option not in allowed]
    if unknown:
        raise SourceError(f"a {kind} source takes no option {unknown[0]!r}; it takes {', '.join(allowed)}")
    return cast(Source, reader(*arguments, **_typed(reader, settings)))


def _typed(reader: Any, settings: dict[str, Any]) -> dict[str, Any]:
    """The settings as the types that the reader's signature states. Raises SourceError."""
    from pydantic import ConfigDict, TypeAdapter, ValidationError

    hints, typed = get_type_hints(reader.__init__), {}
    for name, value in settings.items():
        # A folder called 7 comes as a number from the command line.
        adapter = TypeAdapter(hints.get(name, Any), config=ConfigDict(coerce_numbers_to_str=True))
        try:
            typed[name] = adapter.validate_python(value)
        except ValidationError as error:
            raise SourceError(f"option {name} = {value!r}: {error.errors()[-1]['msg']}") from None
    return typed


def _parse_synthetic(text: str) -> tuple[int, bool]:
    if text.split(":")[0] != "synthetic":
        raise SourceError(
            f"a generated room has no path such as {text!r}: write synthetic or synthetic:SEED in its place"
        )
    parts = text.split(":")[1:]
    seed = parts[0] if parts else "0"
    if not seed.isdecimal() or parts[1:] not in ([], ["noisy"]):
        raise SourceError(
            f"{text!r} names no generated room: write synthetic:SEED or synthetic:SEED:noisy, SEED a number"
        )
    return int(seed), parts[1:] == ["noisy"]


def _contents(folder: Path) -> str:
    names = sorted(p.name + ("/" if p.is_dir() else "") for p in folder.iterdir())
    if not names:
        return "nothing"
    hint = ""
    bags = [n for n in names if n.endswith(_BAG_SUFFIXES)]
    if bags:
        hint = f" (name the bag itself: {folder / bags[0]})"
    inner = [n for n in names if n.endswith("/") and any(sign(folder / n) for sign in _SIGNS.values())]
    if inner:
        hint = f" (a source lies one level deeper: {folder / inner[0]})"
    return listed(names, 12) + hint


def _known() -> str:
    return "Known are: " + "; ".join(LAYOUTS.values())
