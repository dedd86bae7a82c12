"""Run threads in the run, the cache context and the trace in which they were started."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from deltawitness.internal_errors import report
from deltawitness.propagation.context import CallerContext

__all__ = ["start_function", "start_thread", "submit"]

Call = Callable[..., Any]

OWN_PREFIX = "deltawitness-"
"""Prefix of the names of deltawitness's threads. They get no context: they outlive the current run."""

_ABSENT = object()


def submit(original: Call) -> Call:
    """Replace `ThreadPoolExecutor.submit`."""

    def submit(self: Any, fn: Call, /, *args: Any, **kwargs: Any) -> Any:
        # Bind an empty context too: the worker has the context of the call that started it.
        return original(self, CallerContext.current().bind(fn), *args, **kwargs)

    return submit


def start_thread(original: Call) -> Call:
    """Replace `threading.Thread.start`, which is called for subclasses such as `Timer` as well."""

    def start(self: Any, *args: Any, **kwargs: Any) -> Any:
        restore = _bind_run(self)
        try:
            return original(self, *args, **kwargs)
        except BaseException:
            restore()
            raise

    return start


def _bind_run(thread: Any) -> Callable[[], None]:
    """Make a thread that is not started yet call its `run` in the current context.

    A subclass may override `run`, so an attribute `run` is set on the instance until the thread calls it.

    Returns:
        A function that removes the attribute.
    """
    try:
        context = CallerContext.current()
        if context.is_empty or thread.ident is not None or thread.name.startswith(OWN_PREFIX):
            return _do_nothing
        given = vars(thread).get("run", _ABSENT)
        run = thread.run

        def restore() -> None:
            if vars(thread).get("run") is run_inside:
                if given is _ABSENT:
                    del thread.run
                else:
                    thread.run = given

        def run_inside() -> None:
            restore()
            with context.active():
                run()

        thread.run = run_inside
    except Exception as error:  # noqa: BLE001 - telemetry never changes the program
        report("propagation", error)
        return _do_nothing
    return restore


def _do_nothing() -> None:
    pass


def start_function(original: Call) -> Call:
    """Replace `_thread.start_new_thread`."""

    def start_new_thread(function: Any, *args: Any, **kwargs: Any) -> Any:
        if callable(function):
            context = CallerContext.current()
            if not context.is_empty:
                function = context.bind(function)
        return original(function, *args, **kwargs)

    return start_new_thread
