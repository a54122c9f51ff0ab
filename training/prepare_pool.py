# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Runs a function over tasks: in this process, in a pool of processes, or on a Ray cluster."""

from __future__ import annotations

import logging
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any, Protocol

from seg3d_core.errors import Seg3DError

from .prepare_scenes import Outcome

log = logging.getLogger(__name__)

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class Task(Protocol):
    @property
    def name(self) -> str: ...


@dataclass(frozen=True)
class Result:
    """The outcome of a task, or why it failed."""

    name: str
    outcome: Outcome | None
    error: str = ""


def run_tasks(
    function: Callable[[Any], Outcome], tasks: Sequence[Task], workers: int = 1, with_ray: bool = False
) -> Iterator[Result]:
    """Results as they come. A task that fails does not stop the others.

    Raises Seg3DError where Ray is asked for and not installed, and where a worker was killed.
    """
    if with_ray:
        return _on_ray(function, tasks)
    if workers <= 1:
        return (_attempt(function, task) for task in tasks)
    return _in_pool(function, tasks, workers)


def _attempt(function: Callable[[Any], Outcome], task: Task) -> Result:
    """In the worker, so that what it raises need not travel."""
    try:
        return Result(task.name, function(task))
    except Seg3DError as error:
        return Result(task.name, None, str(error))
    except Exception as error:
        log.exception("%s", task.name)
        return Result(task.name, None, f"unexpected {type(error).__name__}: {error}")


def _in_pool(function: Callable[[Any], Outcome], tasks: Sequence[Task], workers: int) -> Iterator[Result]:
    # Spawned: a fork would copy locks and thread pools in whatever state they are.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context)
    before = dict(os.environ)
    # Scenes are the parallel part; more threads in each would only wait for one another. Libraries look when loaded.
    os.environ.update({name: "1" for name in _THREADS if name not in before})
    try:
        futures = [pool.submit(_attempt, function, task) for task in tasks]
        for future in as_completed(futures):
            yield future.result()
    except BrokenProcessPool:
        raise Seg3DError(
            "a worker was killed, probably because memory ran out: start again with fewer --workers; what is done "
            "stays done"
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        for name in _THREADS:
            if name not in before:
                os.environ.pop(name, None)


def _on_ray(function: Callable[[Any], Outcome], tasks: Iterable[Task]) -> Iterator[Result]:
    try:
        import ray
    except ImportError:
        raise Seg3DError("--ray needs Ray, which is not installed: pip install ray") from None
    if not ray.is_initialized():
        ray.init(log_to_driver=False, logging_level=logging.WARNING)
    remote = ray.remote(_attempt)
    waiting = {remote.remote(function, task): task.name for task in tasks}
    while waiting:
        (done, *_), _ = ray.wait(list(waiting))
        name = waiting.pop(done)
        try:
            yield ray.get(done)
        except ray.exceptions.RayError as error:
            yield Result(name, None, f"its worker was lost: {str(error).splitlines()[0]}")
