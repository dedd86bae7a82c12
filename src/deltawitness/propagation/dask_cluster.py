"""Execute tasks of a Dask cluster (`distributed`) in the run, cache context and trace of their submitter.

A worker outlives the run that it was started in. The client adds an annotation to each graph that it
submits, as `distributed` does for its own spans, and the scheduler passes it to the worker with each task.
Neither the functions nor the keys of the tasks change, and a worker without this package ignores the
annotation.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

from opentelemetry import context as otel_context
from opentelemetry import trace

from deltawitness.internal_errors import report
from deltawitness.propagation.processes import run_as_values
from deltawitness.run import current_cache_context, current_run, use_run
from deltawitness.run_context import CacheContext, RunContext, parse_scope
from deltawitness.telemetry.spans import parent_context

__all__ = ["ANNOTATION", "execute", "graph_to_futures"]

Call = Callable[..., Any]

ANNOTATION = "deltawitness"
"""Name of the annotation of a graph and of its tasks."""


def graph_to_futures(original: Call) -> Call:
    """Replace `Client._graph_to_futures`, which every method that submits tasks calls."""

    def _graph_to_futures(self: Any, *args: Any, **kwargs: Any) -> Any:
        with _annotating():
            return original(self, *args, **kwargs)

    return _graph_to_futures


def _annotating() -> Any:
    try:
        from dask.base import annotate  # noqa: PLC0415 - optional; imported by the client's module

        return annotate(**{ANNOTATION: _submitter()})
    except Exception as error:  # noqa: BLE001 - telemetry never changes the program
        report("propagation", error)
        return nullcontext()


def _submitter() -> dict[str, Any]:
    """Return the current run and cache context as plain values, which any scheduler can pass on."""
    cache = current_cache_context()
    return {
        "run": run_as_values(current_run(), trace.get_current_span()),
        "policy": cache.policy,
        "scope": None if cache.scope is None else cache.scope.value,
        "key": cache.key,
        "message": cache.message,
        "sender": _process(),
    }


def _process() -> str:
    return f"{platform.node()}:{os.getpid()}"


def execute(original: Call) -> Call:
    """Replace `Worker.execute`, a coroutine that runs one task, in a thread or in the event loop."""

    async def execute(self: Any, key: Any, **kwargs: Any) -> Any:
        with _of_submitter(self, key):
            return await original(self, key, **kwargs)

    return execute


def _of_submitter(worker: Any, key: Any) -> Any:
    """Return a context manager for the run of a task's submitter; it does nothing without an annotation."""
    try:
        values = (worker.state.tasks[key].annotations or {}).get(ANNOTATION)
        if values is None:
            return nullcontext()
        run = RunContext(**values["run"])
        if values["sender"] != _process():  # otherwise the worker is a thread of the submitter
            run = replace(run, is_joined=True)
        scope = None if values["scope"] is None else parse_scope(values["scope"])
        return _use_run(
            run, CacheContext(values["policy"], scope, values["key"], values["message"])
        )
    except Exception as error:  # noqa: BLE001 - telemetry never changes the program
        report("propagation", error)
        return nullcontext()


@contextmanager
def _use_run(run: RunContext, cache: CacheContext) -> Iterator[None]:
    token = otel_context.attach(parent_context(run, otel_context.Context()))
    try:
        with use_run(run, cache):
            yield
    finally:
        otel_context.detach(token)
