# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""What a run says: a JSON line per epoch, lines on the terminal, TensorBoard where it is installed."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from seg3d_core.errors import Seg3DError

from .tables import without_nan

log = logging.getLogger(__name__)
FILE = "log.jsonl"


class Journal:
    """Appends to a folder's `log.jsonl`; `after_epoch` drops what a killed run said of later epochs."""

    def __init__(self, folder: Path, after_epoch: int, tensorboard: bool = True):
        self.path = folder / FILE
        self._keep(after_epoch)
        self._board = _board(folder / "tensorboard") if tensorboard else None

    def epoch(self, record: Mapping[str, Any]) -> None:
        """One line. Raises Seg3DError where it can't be written."""
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(without_nan(dict(record))) + "\n")
        except OSError as error:
            raise Seg3DError(f"cannot write {self.path}: {error.strerror or error}") from None
        if self._board is not None:
            for name, value in _numbers(record):
                self._board.add_scalar(name, value, int(record["step"]))
            self._board.flush()

    def close(self) -> None:
        if self._board is not None:
            self._board.close()

    def _keep(self, epochs: int) -> None:
        if not self.path.is_file():
            return
        lines = [line for line in self.path.read_text(encoding="utf-8").splitlines() if _epoch_of(line) <= epochs]
        self.path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def read_journal(folder: Path) -> list[dict[str, Any]]:
    """The records of a run, one per epoch."""
    path = folder / FILE
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []


class Stopwatch:
    """Seconds by what they were spent on."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._since = time.perf_counter()

    def lap(self, name: str) -> None:
        """Since the last lap was spent on `name`."""
        now = time.perf_counter()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self._since
        self._since = now


def _epoch_of(line: str) -> float:
    """Of a line that a killed process did not finish: beyond all."""
    try:
        return float(json.loads(line)["epoch"])
    except (ValueError, KeyError, TypeError):
        return math.inf


def _numbers(record: Mapping[str, Any], prefix: str = "") -> list[tuple[str, float]]:
    out: list[tuple[str, float]] = []
    for name, value in record.items():
        if isinstance(value, Mapping):
            out += _numbers(value, f"{prefix}{name}/")
        elif isinstance(value, (int, float)) and math.isfinite(value):
            out.append((f"{prefix}{name}", float(value)))
    return out


def _board(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        log.info("TensorBoard is not installed (pip install tensorboard): %s alone is written", FILE)
        return None
    return SummaryWriter(str(folder))
