"""Execute tasks of a Dask cluster (`distributed`) in the run, cache context and trace of their submitter.

A worker outlives the run that it was started in. The client adds an annotation to each graph that it
submits, as `distributed` does for its own spans, and the scheduler passes it to the worker with each task.
Neither the functions nor the keys of the tasks change, and a worker without this package ignores the
annotation.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from deltawitness.internal_errors import report
from deltawitness.propagation.submitter import submitter_values, use_submitter

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

        return annotate(**{ANNOTATION: submitter_values()})
    except Exception as error:  # noqa: BLE001 - telemetry never changes the program
        report("propagation", error)
        return nullcontext()


def execute(original: Call) -> Call:
    """Replace `Worker.execute`, a coroutine that runs one task, in a thread or in the event loop."""

    async def execute(self: Any, key: Any, **kwargs: Any) -> Any:
        with _of_submitter(self, key):
            return await original(self, key, **kwargs)

    return execute


def _of_submitter(worker: Any, key: Any) -> Any:
    """Return a context manager for the run of a task's submitter; it does nothing without an annotation."""
    try:
        return use_submitter((worker.state.tasks[key].annotations or {}).get(ANNOTATION))
    except Exception as error:  # noqa: BLE001 - telemetry never changes the program
        report("propagation", error)
        return nullcontext()
