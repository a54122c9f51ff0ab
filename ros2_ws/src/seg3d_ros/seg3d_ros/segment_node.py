# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""The lifecycle node. Configure builds the runtime, activate listens and publishes, cleanup gives everything back."""

from __future__ import annotations

import functools
import logging
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import rclpy
from rclpy.exceptions import InvalidHandle
from rclpy.executors import ExternalShutdownException, MultiThreadedExecutor
from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn
from rclpy.signals import SignalHandlerOptions

from seg3d_core import readiness
from seg3d_core.config import Config
from seg3d_core.errors import Seg3DError
from seg3d_core.runtime import LiveRuntime

from . import backends, corrections, explain, paths
from .diagnostics import Diagnostics
from .inputs import Inputs
from .outputs import Outputs
from .parameters import Parameters
from .report import LogBridge, Reporter
from .services import Services
from .stopping import Stop

STOPPING = 3.0  # seconds for what is under way at a stop
THREADS = 4  # sensors, queries, other services, diagnostics: one callback group each
SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE
ERROR = TransitionCallbackReturn.ERROR


def _said(transition: Callable[[Any, Any], TransitionCallbackReturn]) -> Callable[[Any, Any], TransitionCallbackReturn]:
    """rclpy swallows what a transition throws; this says it first."""

    @functools.wraps(transition)
    def call(node: Any, state: Any) -> TransitionCallbackReturn:
        try:
            return transition(node, state)
        except Exception:
            node.get_logger().error(f"{transition.__name__} failed; this is a bug:\n{traceback.format_exc()}")
            return ERROR

    return call


class SegmentNode(LifecycleNode):
    """Raises ConfigError for parameters that are out of range."""

    def __init__(self, **options: Any):
        super().__init__("seg3d", **options)
        self.parameters = Parameters(self)
        self.report = Reporter(self.get_logger())
        self.runtime: LiveRuntime | None = None
        self.inputs: Inputs | None = None
        self.services_ = Services(self, self.parameters, lambda: self.runtime if self.inputs else None)
        self.recording: Any = None
        self._log_bridge = LogBridge(self.get_logger())
        core = logging.getLogger("seg3d_core")
        core.addHandler(self._log_bridge)
        core.setLevel(logging.INFO)
        core.propagate = False

    # --- lifecycle -----------------------------------------------------------------------------

    @_said
    def on_configure(self, state: Any) -> TransitionCallbackReturn:
        self.outputs = Outputs(self, self.parameters, self.report)
        try:
            self.recording = _recording(self.parameters["recording"])
            config = self.parameters.config()
            if self.parameters["correction_source"] != "none":
                corrections.message_type(self.parameters["correction_source"])
            self._tell_parts(config)
            runtime = LiveRuntime(
                config,
                points=self.parameters["points_file"] or None,
                observer=self.recording,
                on_snapshot=self.outputs.offer,
                on_event=self.report.event,
                autosave=paths.confined(self.parameters["maps_folder"], paths.AUTOSAVE),
            )
            runtime.start()
        except Seg3DError as error:
            self._close_outputs()
            self.get_logger().error(f"cannot configure: {error}")
            return FAILURE
        except Exception:
            self._close_outputs()
            raise
        self.runtime, self.report.count_drop = runtime, runtime.count_drop
        self.parameters.locked = True
        self.get_logger().info(backends.chosen())
        return SUCCESS

    def _tell_parts(self, config: Config) -> None:
        """Which profile runs, and what of it is not here."""
        self.get_logger().info(readiness.opening(self.parameters.profile, config))
        for sentence in readiness.missing_parts(config):
            self.get_logger().warning(f"missing: {sentence}")

    @_said
    def on_activate(self, state: Any) -> TransitionCallbackReturn:
        self.inputs = Inputs(self, self.parameters, self.runtime, self.report)
        self.diagnostics = Diagnostics(self, self.parameters, self.inputs, self.runtime, self.report)
        self.outputs.offer(self.runtime.snapshot)  # what is known already, be it nothing
        return super().on_activate(state)

    @_said
    def on_deactivate(self, state: Any) -> TransitionCallbackReturn:
        self._deafen()
        return super().on_deactivate(state)

    @_said
    def on_cleanup(self, state: Any) -> TransitionCallbackReturn:
        self._give_back()
        return SUCCESS

    @_said
    def on_shutdown(self, state: Any) -> TransitionCallbackReturn:
        self._deafen()
        self._give_back()
        return SUCCESS

    @_said
    def on_error(self, state: Any) -> TransitionCallbackReturn:
        self._deafen()
        self._give_back()
        return SUCCESS

    def _deafen(self) -> None:
        inputs, self.inputs = self.inputs, None
        if inputs is not None:
            self.diagnostics.close()
            inputs.close()

    def _give_back(self) -> None:
        runtime, self.runtime = self.runtime, None
        if runtime is not None:
            runtime.stop(STOPPING)
            self._close_outputs()
        self.parameters.locked = False

    def _close_outputs(self) -> None:
        self.outputs.close()
        recording, self.recording = self.recording, None
        if recording is not None:
            recording.close()

    def close(self) -> None:
        """From any state."""
        self._deafen()
        self._give_back()
        logging.getLogger("seg3d_core").removeHandler(self._log_bridge)


def _recording(path: str) -> Any:
    """None without a path; rerun is heavy and stays out of a node that records nothing."""
    if not path:
        return None
    from seg3d_core.viz import Recording

    return Recording(Path(path).expanduser())


def run(args: list[str] | None, stop: Stop) -> int:
    """Until a signal; returns the exit code: 0, or 1 when the parameters or the start are bad."""
    stop.starting = False
    # Own handlers: rclpy's would invalidate the context under a thread that still publishes.
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    try:
        node = SegmentNode()
    except Seg3DError as error:
        print(f"seg3d: {error}", file=sys.stderr)
        rclpy.try_shutdown()
        return 1
    executor = MultiThreadedExecutor(num_threads=THREADS)
    executor.add_node(node)
    try:
        code = 0 if not node.parameters["autostart"] or _start(node, stop) else 1
        while code == 0 and not stop.is_set() and rclpy.ok():
            _spin(executor, node)
    except ExternalShutdownException:
        code = 0
    finally:
        node.close()
        executor.shutdown(timeout_sec=2)
        node.destroy_node()
        rclpy.try_shutdown()
    return code


def _spin(executor: MultiThreadedExecutor, node: SegmentNode) -> None:
    """Our own callbacks let nothing out; what rclpy's own throw ends no node either."""
    try:
        executor.spin_once(timeout_sec=0.1)
    except ExternalShutdownException:
        raise
    except InvalidHandle:
        # A subscription went while another thread gathered what to wait for: it gathers anew.
        node.get_logger().debug("the executor met an entity that is gone")
    except Exception:
        node.report.drop("internal_error", "the executor failed; this is a bug:", trace=traceback.format_exc())


def _start(node: SegmentNode, stop: Stop) -> bool:
    if node.trigger_configure() != SUCCESS:
        return False
    if not stop.is_set():
        if node.trigger_activate() != SUCCESS:
            return False
        node.get_logger().info("active; frames are expected on " + ", ".join(_expected(node)))
    return True


def _expected(node: SegmentNode) -> list[str]:
    """Every input with its publishers at start; they may well come later."""
    if node.inputs is None:
        return []
    return [f"{i.full_topic} ({explain.publishers(len(i.publishers()))})" for i in node.inputs.inputs.values()]
