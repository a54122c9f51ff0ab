# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Errors that a person can mend. Each message says what was wrong, where, and what to do.

A bug is an ordinary exception and is not caught; these are for bad input from outside.
"""

from __future__ import annotations

from collections.abc import Iterable


def printable(text: str, most: int = 500) -> str:
    """A text from outside on one line of at most `most` characters, without what would steer a terminal.

    Line ends, other control and formatting characters and lone surrogates become spaces.
    """
    # Long ones are cut first: a name inside an archive may have a gigabyte.
    shown = "".join(c if c.isprintable() else " " for c in text[: most + 1])
    return shown if len(shown) <= most else shown[: most - 1] + "…"


def listed(names: Iterable[str], most: int = 10) -> str:
    """The first names and how many more there are; `none` where there are none."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(names[:most]) or "none") + more


class Seg3DError(Exception):
    """Bad input from outside: a file, a topic, a setting, weights or a text."""


class ConfigError(Seg3DError):
    """A setting that does not exist or is out of range."""


class SourceError(Seg3DError):
    """A folder, bag or file that cannot be read as posed RGB-D."""


class FrameError(Seg3DError):
    """One frame that must be dropped; `reason` is a short stable key for counters."""

    def __init__(self, reason: str, message: str):
        super().__init__(message)
        self.reason = reason


class ModelOutputError(FrameError):
    """What a model said of a frame is no answer: wrong shapes, numbers that are none. The frame itself is good."""


class MapFileError(Seg3DError):
    """A saved map that is missing, damaged, of a newer format, or may not be written.

    `code` names the cause: `not_found`, `not_a_map`, `damaged`, `newer_version`, `exists`,
    `empty_path` (no usable name), `outside_folder`, `no_space`, `unwritable`, `unreadable`, `wrong_voxel_size`,
    `wrong_kind`.
    """

    def __init__(self, code: str, message: str):
        super().__init__(message)
        self.code = code


class WeightsError(Seg3DError):
    """Weights that are missing or are not what they claim to be."""


class QueryError(Seg3DError):
    """A text that cannot be answered; `code` names the cause: `empty_text`, `too_long`, `no_instances`."""

    def __init__(self, code: str, message: str):
        super().__init__(message)
        self.code = code


class BusyError(Seg3DError):
    """A request that is refused because too many wait (`code` is `busy`), was not done in time (`timeout`), or for
    which memory ran out (`out_of_memory`)."""

    def __init__(self, code: str, message: str):
        super().__init__(message)
        self.code = code
