"""The run, cache context and trace of a program that submits tasks to the workers of an engine.

They are sent with each task as plain values, because a worker outlives the run that it was started in.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Any

from opentelemetry import context as otel_context
from opentelemetry import trace

from deltawitness.internal_errors import guard, report
from deltawitness.observe.observer import current_observer
from deltawitness.processes import process_key
from deltawitness.propagation.processes import run_as_values
from deltawitness.run import current_cache_context, current_run, use_run
from deltawitness.run_context import CacheContext, RunContext, parse_scope
from deltawitness.run_origin import RunOrigin
from deltawitness.telemetry.spans import parent_context

__all__ = ["submitter_values", "use_submitter"]


def submitter_values() -> dict[str, Any]:
    """Return the current run, trace and cache context as values that JSON can represent."""
    cache = current_cache_context()
    return {
        "run": run_as_values(current_run(), trace.get_current_span()),
        "policy": cache.policy,
        "scope": None if cache.scope is None else cache.scope.value,
        "key": cache.key,
        "message": cache.message,
        "sender": process_key(),
    }


def use_submitter(
    values: Mapping[str, Any] | None, *, exports: bool = False
) -> AbstractContextManager[None]:
    """Return a context manager for the run, the trace and the cache context of a submitter.

    Args:
        values: the result of :func:`submitter_values`. With None, or with values that another release
            cannot read, the context manager does nothing.
        exports: whether to export what the block has written after it, because the engine kills
            workers that are idle.
    """
    if values is None:
        return nullcontext()
    try:
        run = _run_from(values["run"])
        if values["sender"] != process_key():  # otherwise the worker is a thread of the submitter
            run = replace(run, is_joined=True)
        scope = None if values["scope"] is None else parse_scope(values["scope"])
        cache = CacheContext(values["policy"], scope, values["key"], values["message"])
        return _use_run(run, cache, exports=exports and run.is_joined)
    except Exception as error:  # noqa: BLE001 - telemetry never changes the program
        report("propagation", error)
        return nullcontext()


def _run_from(values: Mapping[str, Any]) -> RunContext:
    """Return the run with these fields, without those that a later release has added."""
    known = {name: value for name, value in values.items() if name in RunContext.__slots__}
    origin = values.get("origin") or {}
    known["origin"] = RunOrigin(
        **{name: value for name, value in origin.items() if name in RunOrigin.__slots__}
    )
    return RunContext(**known)


@contextmanager
def _use_run(run: RunContext, cache: CacheContext, *, exports: bool) -> Iterator[None]:
    # Start from an empty context: the worker may have the spans of an earlier task.
    token = otel_context.attach(parent_context(run, otel_context.Context()))
    try:
        with use_run(run, cache):
            yield
    finally:
        otel_context.detach(token)
        if exports:
            with guard("propagation"):
                observer = current_observer()
                if observer is not None:
                    observer.export_soon()
