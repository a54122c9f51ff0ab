# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""The services. Each answers with a code per cause, also outside of the active state."""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from seg3d_interfaces.srv import LoadMap, QueryText, Reset, SaveMap, Segment

from seg3d_core.errors import ConfigError, MapFileError, QueryError, Seg3DError, WeightsError, printable
from seg3d_core.types import Snapshot

from . import outputs, paths, qos
from .report import lines

QUERY, SAVE, LOAD = QueryText.Response, SaveMap.Response, LoadMap.Response
QUERY_CODES = {"empty_text": QUERY.EMPTY_TEXT, "too_long": QUERY.TOO_LONG, "no_instances": QUERY.NO_INSTANCES}
PAUSE = 0.05  # seconds without a query after which none waits any more
SAVE_CODES = {
    "empty_path": SAVE.EMPTY_PATH,
    "outside_folder": SAVE.OUTSIDE_FOLDER,
    "exists": SAVE.EXISTS,
    "no_space": SAVE.NO_SPACE,
    "unwritable": SAVE.UNWRITABLE,
}
LOAD_CODES = {
    "empty_path": LOAD.EMPTY_PATH,
    "outside_folder": LOAD.OUTSIDE_FOLDER,
    "not_found": LOAD.NOT_FOUND,
    "not_a_map": LOAD.NOT_A_MAP,
    "damaged": LOAD.DAMAGED,
    "newer_version": LOAD.NEWER_VERSION,
    "unreadable": LOAD.UNREADABLE,
    "wrong_voxel_size": LOAD.WRONG_VOXEL_SIZE,
    "wrong_kind": LOAD.WRONG_KIND,
}


class Services:
    """Made with the node; `runtime()` gives the running LiveRuntime, or None outside of the active state."""

    def __init__(self, node: Any, parameters: Any, runtime: Callable[[], Any]):
        self.node, self.parameters, self.runtime = node, parameters, runtime
        self._burst_since = self._answered_at = -math.inf
        # A long query stops neither frames nor diagnostics, and saving stops no query.
        queries, others = MutuallyExclusiveCallbackGroup(), MutuallyExclusiveCallbackGroup()
        for kind, name, function, group in (
            (QueryText, "query_text", self._query, queries),
            (Reset, "reset", self._reset, others),
            (Segment, "segment_now", self._segment, others),
            (SaveMap, "save_map", self._save, others),
            (LoadMap, "load_map", self._load, others),
        ):
            node.create_service(
                kind,
                f"~/{name}",
                self._answered(function, name),
                qos_profile=qos.requests(2 * parameters["runtime.max_waiting"]),
                callback_group=group,
            )

    def _answered(self, function: Callable[..., None], name: str) -> Callable[[Any, Any], Any]:
        """Turns every failure into `success`, `code` and `message`; nothing escapes into the executor."""

        def answer(request: Any, response: Any) -> Any:
            runtime = self.runtime()
            if runtime is None:
                set_to = f"ros2 lifecycle set {self.node.get_fully_qualified_name()}"
                state = f"the node is not active: `{set_to} activate`, before it `{set_to} configure` if unconfigured"
                return _refuse(response, response.NOT_ACTIVE, state)
            try:
                function(runtime, request, response)
            except QueryError as error:
                return _refuse(response, QUERY_CODES.get(error.code, response.INTERNAL), str(error))
            except MapFileError as error:
                codes = SAVE_CODES if isinstance(response, SAVE) else LOAD_CODES
                return _refuse(response, codes.get(error.code, response.INTERNAL), str(error))
            except (ConfigError, WeightsError) as error:  # a text encoder is built when first asked
                return _refuse(response, getattr(response, "NO_ENCODER", response.INTERNAL), str(error))
            except Seg3DError as error:  # too many wait, not done in time, or the node is on its way down
                return _refuse(response, response.TIMEOUT, str(error))
            except Exception as error:
                self.node.get_logger().error(f"{name} failed; this is a bug:{lines(traceback.format_exc())}")
                return _refuse(
                    response, response.INTERNAL, f"{type(error).__name__}: {error}; the node's log says more"
                )
            return response

        return answer

    def _query(self, runtime: Any, request: Any, response: Any) -> None:
        snapshot = runtime.snapshot
        with self._in_turn() as patience:
            result = runtime.query(request.text, request.top_k or None, patience)
        response.header = outputs.make_header(snapshot, self.parameters["map_frame"])
        score_of = {a.instance_id: a.score for a in result.answers}
        response.instances = outputs.instance_messages(snapshot, list(score_of))
        response.scores = [float(score_of[i.id]) for i in response.instances]
        response.encoder, response.approximate = result.encoder_id, result.approximate
        response.calibrated = result.calibrated
        response.success, response.message = True, printable(result.message)
        response.code = response.OK if result.matched else response.NOTHING_MATCHED

    @contextmanager
    def _in_turn(self) -> Iterator[float]:
        """How many seconds a query has left: those that are handled one right after the other came together."""
        now = time.monotonic()
        if now - self._answered_at > PAUSE:
            self._burst_since = now
        try:
            yield self.parameters["runtime.query_deadline"] - (now - self._burst_since)
        finally:
            self._answered_at = time.monotonic()

    def _reset(self, runtime: Any, _request: Any, response: Any) -> None:
        runtime.reset()
        response.success, response.message = True, "the map is empty"

    def _segment(self, runtime: Any, _request: Any, response: Any) -> None:
        if not runtime.statistics().points:
            _refuse(response, response.EMPTY_MAP, "no frame has arrived yet: /diagnostics says why")
            return
        snapshot = runtime.segment_now()
        response.header = outputs.make_header(snapshot, self.parameters["map_frame"])
        response.sequence = snapshot.sequence
        _succeed(response, snapshot)

    def _save(self, runtime: Any, request: Any, response: Any) -> None:
        folder = self.parameters["maps_folder"]
        path = paths.confined(folder, request.path)
        needed_mb = sum(runtime.statistics().memory_mb.values())
        paths.check_room(folder, path, needed_mb, self.parameters["max_maps"], self.parameters["spare_disk"])
        with paths.folder_of(path):
            snapshot = runtime.save(path, overwrite=request.overwrite)
        response.path = str(path)
        _succeed(response, snapshot)

    def _load(self, runtime: Any, request: Any, response: Any) -> None:
        path = paths.confined(self.parameters["maps_folder"], request.path)
        snapshot = runtime.load(path)
        response.path = str(path)
        _succeed(response, snapshot)


def _succeed(response: Any, snapshot: Snapshot) -> None:
    response.success = True
    response.num_points, response.num_instances = len(snapshot.cloud), len(snapshot.instances)
    response.message = f"{response.num_points} points, {response.num_instances} instances"


def _refuse(response: Any, code: int, message: str) -> Any:
    response.success, response.code, response.message = False, code, printable(message)
    return response
