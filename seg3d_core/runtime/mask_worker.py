# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""2D masks in their own thread: one keyframe waits, newest wins; a model that cannot work is off, with a reason."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from ..build import build_masks
from ..config import Config
from ..errors import ConfigError, FrameError, ModelOutputError, WeightsError
from ..perception.base import MaskGenerator, look
from ..types import Frame, Masks2D, Objects2D, Visible
from .mailbox import Mailbox
from .statistics import Model, Queue, Recorder
from .warmup import warm_up

log = logging.getLogger(__name__)

# One failure may be the image's, or a moment without memory; so many in a row are the model's.
_FAILURES_TO_SWITCH_OFF = 3
# Longer than any model takes for one image, and its first call.
_PATIENCE = 60.0
_HOPELESS = (ConfigError, WeightsError, ImportError)

OnSeen = Callable[[int, Frame, Visible, Masks2D, Objects2D | None], None]


class MaskWorker:
    """Holds the model that `perception.masks` names. Mapping goes on whatever becomes of it.

    `on_seen(generation, frame, visible, masks, objects)` and `on_error(error, who)` run in this thread. Raises
    ConfigError for settings that contradict each other; what is merely missing switches the model off.
    """

    def __init__(
        self,
        config: Config,
        recorder: Recorder,
        report: Callable[[str, str, str], None],
        on_seen: OnSeen,
        on_error: Callable[[Exception, str], None],
    ):
        self._config, self._recorder = config, recorder
        self._report, self._on_seen, self._on_error = report, on_seen, on_error
        self._waiting: Mailbox[tuple[int, Frame, Visible]] = Mailbox(1)
        self._thread = threading.Thread(target=self._run, name="seg3d-perception", daemon=True)
        self._busy_since: float | None = None
        self._failures = 0
        self.fault = ""
        self.wants_objects = False
        self.generator: MaskGenerator | None = None
        try:
            self.generator = build_masks(config)
        except ConfigError:
            raise
        except Exception as error:
            self._switch_off(error)

    def warm_up(self) -> None:
        """Compiles and loads what must be."""
        try:
            warm_up(self._config, self.generator)
        except FrameError as error:
            log.info("the model takes no small images: %s", error)
        except Exception as error:
            if self.generator is None:
                raise
            self._switch_off(error)
            warm_up(self._config)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """No keyframe is looked at any more; one that is under way is finished."""
        self._waiting.close()

    def join(self, timeout: float) -> None:
        if self._thread.is_alive():
            self._thread.join(timeout)

    def offer(self, generation: int, frame: Frame, visible: Visible) -> None:
        """A keyframe; it takes the place of one that still waits."""
        if self.generator is None:
            return
        if self._waiting.put((generation, frame, visible)):
            self._recorder.count("keyframes overtaken")
        if self.busy_seconds > _PATIENCE:
            text = f"{self.generator.id} has not answered for {self.busy_seconds:.0f} s; mapping goes on without masks"
            self._report("error", "masks hang", text)

    def clear(self) -> None:
        """Forgets the keyframe that waits."""
        self._waiting.clear()

    @property
    def chooses_keyframes(self) -> bool:
        return self.generator is not None and self.generator.chooses_keyframes

    @property
    def busy_seconds(self) -> float:
        """How long the model has been at one keyframe; 0 where it waits for one."""
        since = self._busy_since
        return 0.0 if since is None else time.monotonic() - since

    @property
    def queue(self) -> Queue:
        return Queue(len(self._waiting), self._waiting.capacity, self._waiting.dropped)

    @property
    def model(self) -> Model:
        """For diagnostics."""
        name = self.generator.id if self.generator is not None else self._config.perception.masks
        hangs = f"no answer for {self.busy_seconds:.0f} s" if self.busy_seconds > _PATIENCE else ""
        return Model(name, "masks", self.fault or hangs, self._waiting.dropped)

    def _run(self) -> None:
        while (item := self._waiting.get()) is not None:
            self._busy_since = time.monotonic()
            try:
                self._look(*item)
            finally:
                self._busy_since = None

    def _look(self, generation: int, frame: Frame, visible: Visible) -> None:
        model = self.generator
        if model is None:
            return
        try:
            with self._recorder.stage("masks"):
                masks, objects = look(model, frame, self.wants_objects)
        except FrameError as error:
            self._recorder.drop(error.reason)
            self._report("warning", error.reason, f"no masks for a keyframe: {error}")
            if isinstance(error, ModelOutputError):
                self._failures += 1
                if self._failures >= _FAILURES_TO_SWITCH_OFF:
                    self._switch_off(error)
        except Exception as error:  # a model that throws must not stop the mapping
            self._recorder.count("perception errors")
            log.exception("masks of one keyframe failed")
            self._on_error(error, "masks")
            self._failures += 1
            if isinstance(error, _HOPELESS) or self._failures >= _FAILURES_TO_SWITCH_OFF:
                self._switch_off(error)
            else:
                self._report("error", "masks", f"{model.id} failed on a keyframe (traceback in the log)")
        else:
            self._failures = 0
            if masks is not None:
                self._on_seen(generation, frame, visible, masks, objects)

    def _switch_off(self, error: Exception) -> None:
        """For good; its memory is given back."""
        self.fault = str(error) or type(error).__name__
        self.generator = None
        self._waiting.clear()
        log.warning("masks from %s are off", self._config.perception.masks, exc_info=error)
        self._report("error", "masks off", f"masks are off, the map goes on without them: {self.fault}")
