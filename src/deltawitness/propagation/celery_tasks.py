"""Execute tasks of Celery in the run, cache context and trace of their publisher, through Celery's signals.

A worker outlives many runs. The publisher adds a header to the message of each task, and the worker enters
the run in it around the task. A worker without this package ignores the header.
"""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from typing import Any

from deltawitness.internal_errors import guard
from deltawitness.observe.observer import current_observer
from deltawitness.propagation.submitter import submitter_values, use_submitter

__all__ = ["HEADER", "connect", "disconnect"]

HEADER = "deltawitness"
"""Name of the header of a task's message."""

_entered: dict[str, AbstractContextManager[None]] = {}
"""The tasks that this process executes, by id."""


def _before_publish(headers: Any = None, **_: Any) -> None:
    with guard("propagation"):
        if isinstance(headers, dict):
            headers[HEADER] = json.dumps(submitter_values())


def _before_task(task_id: Any = None, task: Any = None, **_: Any) -> None:
    with guard("propagation"):
        values = getattr(task.request, HEADER, None)
        if values is not None:
            context = use_submitter(json.loads(values))
            context.__enter__()
            _entered[task_id] = context


def _after_task(task_id: Any = None, **_: Any) -> None:
    with guard("propagation"):
        context = _entered.pop(task_id, None)
        if context is not None:
            context.__exit__(None, None, None)


def _before_exit(**_: Any) -> None:
    """Deliver, export and drain: a process of the pool ends without its exit handlers."""
    with guard("propagation"):
        observer = current_observer()
        if observer is not None:
            observer.prepare_exec()


def _handlers() -> list[tuple[Any, Any]]:
    from celery import signals  # noqa: PLC0415 - optional; called after its import

    return [
        (signals.before_task_publish, _before_publish),
        (signals.task_prerun, _before_task),
        (signals.task_postrun, _after_task),
        (signals.worker_process_shutdown, _before_exit),
    ]


def connect() -> None:
    """Send the run with each task that this process publishes, and enter it for each that it executes."""
    for signal, handler in _handlers():
        signal.connect(handler, weak=False, dispatch_uid=f"{HEADER}.{handler.__name__}")


def disconnect() -> None:
    """Undo :func:`connect`."""
    for signal, handler in _handlers():
        signal.disconnect(handler, dispatch_uid=f"{HEADER}.{handler.__name__}")
