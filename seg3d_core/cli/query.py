# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""`seg3d query`: ask a saved map for a thing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from ..build import build_query, rebuild_scene
from ..config import build, parse_assignments
from ..errors import QueryError
from ..storage import read_scene
from ..types import Snapshot
from .console import print_answers, print_json
from .results import map_file


def load_snapshot(path: Path) -> Snapshot:
    """The instances of a saved map, with the names that they had."""
    saved = read_scene(map_file(path))
    return rebuild_scene(saved).segment().with_names(saved.names)


def query(path: Path, text: str, top_k: int | None, assignments: Sequence[str], *, json_output: bool) -> int:
    """Exit code 0 with answers, 1 when nothing matched."""
    # Today's settings: those that the map was made with say nothing about how it is asked.
    config = build(parse_assignments(assignments))
    if not text.strip() or len(text) > config.runtime.max_query_length:
        limit = config.runtime.max_query_length
        raise QueryError("empty_text", f'a text of 1 to {limit} characters is wanted, e.g. "the sofa"')
    result = build_query(config).answer(text, load_snapshot(path), top_k)
    if json_output:
        print_json(asdict(result))
    else:
        print_answers([result])
    return 0 if result.matched else 1
