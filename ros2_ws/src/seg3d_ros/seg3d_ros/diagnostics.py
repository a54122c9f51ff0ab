# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""/diagnostics: rates, drops, latencies, queues, memory; and after 5 s without a frame, why."""

from __future__ import annotations

import re
import threading
import time
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType

from seg3d_core.errors import printable

from . import explain, qos
from .inputs import Input, Inputs

PATIENCE = 5.0  # seconds without a frame before the node says why
REPEAT = 30.0  # seconds between two such lines in the log
REFUSING = ("requests", "queries")  # queues that take no more when full; the others forget the oldest
OK, WARN = DiagnosticStatus.OK, DiagnosticStatus.WARN


class Diagnostics:
    """Published once a second while the node is active."""

    def __init__(self, node: Any, parameters: Any, inputs: Inputs, runtime: Any, report: Any):
        self.node, self.parameters, self.inputs, self.runtime = node, parameters, inputs, runtime
        self.report = report
        self._lock = threading.Lock()
        self._closed = False
        self.publisher = node.create_publisher(DiagnosticArray, "/diagnostics", qos.DIAGNOSTICS)
        self._counts: dict[str, int] = {}
        self._rates: dict[str, float] = {}
        self._at = time.monotonic()
        self._said = (0.0, "")
        self._taken = 0  # frames that the map took, and since when it took none
        self._began = self._taken_at = self._at
        # Steady: with use_sim_time and no /clock the node's own time stands still, and that must be said.
        self._timer = node.create_timer(
            1.0,
            report.guarded(self._tick),
            callback_group=MutuallyExclusiveCallbackGroup(),
            clock=Clock(clock_type=ClockType.STEADY_TIME),
        )

    def close(self) -> None:
        """Waits for a publication under way; close it before the inputs that it reads."""
        with self._lock:
            self._closed = True
            self.node.destroy_timer(self._timer)
            self.node.destroy_publisher(self.publisher)

    def _tick(self) -> None:
        with self._lock:
            if not self._closed:
                self._publish()

    def _publish(self) -> None:
        statistics = self.runtime.statistics()
        self._measure_rates({f"stage {name}": stage.count for name, stage in statistics.stages.items()})
        situation = self._situation()
        message = DiagnosticArray()
        message.header.stamp = self.node.get_clock().now().to_msg()
        message.status = [
            self._input_status(situation),
            self._mapping_status(statistics),
            self._memory_status(statistics),
            self._drops_status(statistics),
            self._saving_status(statistics),
            *(self._model_status(name, model, statistics) for name, model in statistics.models.items()),
        ]
        self.publisher.publish(message)

    def _measure_rates(self, runs: dict[str, int]) -> None:
        now = time.monotonic()
        counts = {role: each.count for role, each in self.inputs.inputs.items()} | {"frames": self.inputs.frames} | runs
        span = max(now - self._at, 1e-3)
        self._rates = {name: (n - self._counts.get(name, n)) / span for name, n in counts.items()}
        self._counts, self._at = counts, now

    # --- the statuses --------------------------------------------------------------------

    def _status(self, name: str, level: bytes, message: str, values: dict[str, Any]) -> DiagnosticStatus:
        status = DiagnosticStatus(level=level, message=printable(message, 1000), hardware_id="seg3d")
        status.name = f"{self.node.get_fully_qualified_name()}: {name}"
        status.values = [KeyValue(key=printable(key), value=printable(str(value))) for key, value in values.items()]
        return status

    def _input_status(self, situation: explain.Situation) -> DiagnosticStatus:
        silent = time.monotonic() - self.inputs.last_frame
        values = {
            "frames": self.inputs.frames,
            "frames per second": f"{self._rates.get('frames', 0.0):.1f}",
            "pairs matched": situation.matched,
            "waiting for a pose": len(self.inputs.waiting),
            "sensor callbacks": self._callback_times(),
            "camera_info": "known" if situation.camera_known else "not yet",
            "pose": situation.pose_chain or "no image has arrived, so its frame is unknown",
            "use_sim_time": situation.use_sim_time,
            **{f"{t.role} {t.topic}": explain.topic_line(t) for t in situation.topics},
        }
        if silent < PATIENCE:
            reasons = explain.troubles(situation) if time.monotonic() - self._began > PATIENCE else []
            if not reasons:
                text = "frames arrive" if self.inputs.frames else "waiting for frames"
                return self._status("input", OK, text, values)
            text = f"frames arrive, but no instance can come of them: {'; '.join(reasons)}"
        else:
            reasons = explain.causes(situation)
            text = f"no synchronised frame for {silent:.0f} s: {'; '.join(reasons)}"
        self._say(text, re.sub(r"\d+", "", reasons[0]))
        values |= {f"cause {n}": reason for n, reason in enumerate(reasons, 1)}
        return self._status("input", WARN, text, values)

    def _callback_times(self) -> str:
        taken = list(self.inputs.callback_ms)
        if not taken:
            return "none yet"
        return f"median {np.median(taken):.2f} ms, p95 {np.percentile(taken, 95):.2f} ms"

    def _say(self, text: str, kind: str) -> None:
        """Into the log: soon when the first cause is a new one, now and then while no frame has come at all."""
        now = time.monotonic()
        since, said = self._said
        if now - since > (PATIENCE if kind != said else REPEAT) and (kind != said or not self.inputs.frames):
            self._said = (now, kind)
            self.node.get_logger().warning(printable(text, 2000))

    def _mapping_status(self, statistics: Any) -> DiagnosticStatus:
        values: dict[str, Any] = {"points": statistics.points, "instances": statistics.instances}
        if statistics.last_stamp is not None:
            values["last stamp"] = f"{statistics.last_stamp:.3f}"
        values |= statistics.counters
        for name, stage in statistics.stages.items():
            values[f"stage {name}"] = f"median {stage.median_ms:.1f} ms, p95 {stage.p95_ms:.1f} ms, {stage.count} runs"
        for name, queue in statistics.queues.items():
            what = "refused" if name in REFUSING else "overtaken"
            values[f"queue {name}"] = f"{queue.length} of {queue.capacity}, {queue.dropped} {what}"
        text = f"{statistics.points} points, {statistics.instances} instances"
        return self._status("mapping", OK, text, values)

    def _memory_status(self, statistics: Any) -> DiagnosticStatus:
        """Each part's use of its budget, and what left for it; a warning once memory itself ran out."""
        values: dict[str, Any] = {}
        for name, use in statistics.memory.items():
            values[name] = f"{use.used_mb:.1f} MB"
            if use.limit_mb is not None:
                values[name] = f"{use.used_mb:.1f} of {use.limit_mb:.1f} MB, {use.evicted} evicted"
        values["process"] = f"{_resident_mb():.0f} MB"
        ran_out = statistics.counters.get("out of memory", 0)
        if ran_out:
            text = f"memory ran out {ran_out} times: budgets have become smaller, the map goes on with less"
            return self._status("memory", WARN, text, values)
        at_budget = [name for name, use in statistics.memory.items() if use.evicted]
        text = f"at their budgets: {', '.join(at_budget)}" if at_budget else "all within their budgets"
        return self._status("memory", OK, text, values)

    def _drops_status(self, statistics: Any) -> DiagnosticStatus:
        lost = {f"lost in transport {each.topic}": each.lost for each in self.inputs.inputs.values() if each.lost}
        drops = {**statistics.drops, **lost}
        return self._status("drops", OK, f"{sum(drops.values())} dropped or lost" if drops else "none", drops)

    def _saving_status(self, statistics: Any) -> DiagnosticStatus:
        """When the map was last saved, on request and by itself, and what went wrong with the newest try."""
        values: dict[str, Any] = {}
        for name, save in statistics.saves.items():
            values[f"{name} saves"] = save.count
            if save.count or save.fault:
                values[f"{name} file"] = save.path
            if save.at is not None:
                values[f"{name} saved"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(save.at))
                values[f"{name} took"] = f"{save.seconds:.2f} s"
            if save.fault:
                values[f"{name} failed"] = save.fault
        faults = [save.fault for save in statistics.saves.values() if save.fault]
        last = max((save.at for save in statistics.saves.values() if save.at is not None), default=None)
        said = "not saved yet" if last is None else f"saved {max(0.0, time.time() - last):.0f} s ago"
        return self._status("saving", WARN if faults else OK, faults[0] if faults else said, values)

    def _model_status(self, name: str, model: Any, statistics: Any) -> DiagnosticStatus:
        """One per model: whether it runs, how fast and how often, and what it was too slow for."""
        stage = statistics.stages.get(model.stage)
        values: dict[str, Any] = {"model": model.id, "overtaken": model.dropped}
        if stage is not None:
            values["latency"] = f"median {stage.median_ms:.1f} ms, p95 {stage.p95_ms:.1f} ms"
            values["runs"] = stage.count
            values["runs per second"] = f"{self._rates.get(f'stage {model.stage}', 0.0):.2f}"
        return self._status(f"model {name}", WARN if model.fault else OK, model.fault or f"{model.id} runs", values)

    # --- facts for the explanation -------------------------------------------------------------

    def _situation(self) -> explain.Situation:
        inputs, p = self.inputs, self.parameters
        known = dict(self.node.get_topic_names_and_types())
        colour = inputs.inputs["colour"]
        statistics = self.runtime.statistics()
        chain = ""
        if colour.frame_id or p["camera_frame"]:
            stamp = colour.stamps[-1] if colour.stamps else None
            chain = inputs.poses.explain(p["camera_frame"] or colour.frame_id, stamp)
        return explain.Situation(
            topics=tuple(self._facts(each, known) for each in inputs.inputs.values()),
            slop=p["sync_slop"],
            clock=self.node.get_clock().now().nanoseconds * 1e-9,
            use_sim_time=bool(p["use_sim_time"]),
            matched=inputs.sync.matched,
            frames=inputs.frames,
            camera_known=inputs.camera is not None,
            pose_source=p["pose_source"],
            pose_chain=chain,
            drops=statistics.drops,
            drop_texts=self.report.last,
            keyframes=statistics.counters.get("keyframes", 0),
            untaken=self._untaken(statistics.counters.get("frames", 0)),
        )

    def _untaken(self, taken: int) -> float:
        """For how many seconds the map took none, once that is long."""
        now = time.monotonic()
        if taken != self._taken or now - self.inputs.last_frame > PATIENCE:
            self._taken, self._taken_at = taken, now
        return now - self._taken_at if now - self._taken_at > PATIENCE else 0.0

    def _facts(self, each: Input, known: dict[str, list[str]]) -> explain.TopicFacts:
        offers = [o for o in each.publishers() if o.topic_type == each.type_name]
        return explain.TopicFacts(
            role=each.role,
            topic=each.full_topic,
            type_wanted=each.type_name,
            asked=qos.describe(each.asked),
            types_seen=tuple(known.get(each.full_topic, ())),
            offers=tuple(
                explain.Offer(
                    f"{o.node_namespace.rstrip('/')}/{o.node_name}",
                    qos.describe(o.qos_profile),
                    qos.compatible(o.qos_profile, each.asked),
                )
                for o in offers
            ),
            count=each.count,
            lost=each.lost,
            rate=self._rates.get(each.role, 0.0),
            last_stamp=each.stamps[-1] if each.stamps else None,
            frame_id=each.frame_id,
            partner=self._partner_distance(each),
            suggestions=self._suggestions(each, known) if not offers else (),
        )

    def _partner_distance(self, each: Input) -> float | None:
        other = {"colour": "depth", "depth": "colour"}.get(each.role)
        if other is None:
            return None
        mine, theirs = list(each.stamps), list(self.inputs.inputs[other].stamps)
        return min((abs(a - b) for a in mine for b in theirs), default=None)

    def _suggestions(self, each: Input, known: dict[str, list[str]]) -> tuple[str, ...]:
        """Topics of the right type that somebody publishes."""
        own = {i.full_topic for i in self.inputs.inputs.values()}
        names = [name for name, types in known.items() if each.type_name in types and name not in own]
        return tuple(name for name in sorted(names) if self.node.count_publishers(name))[:8]


def _resident_mb() -> float:
    try:
        with open("/proc/self/statm") as file:  # noqa: PTH123
            return int(file.read().split()[1]) * 4096 / 1e6
    except OSError:
        return float("nan")
