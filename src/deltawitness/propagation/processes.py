"""Run the tasks of pool workers in the run of their sender, and instrument spawned children as their parent."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from enum import Enum
from typing import Any

from opentelemetry import context as otel_context
from opentelemetry import trace

from deltawitness.observe.observer import current_observer
from deltawitness.propagation.environment import child_environment
from deltawitness.run import call_in_run, current_cache_context, current_run
from deltawitness.run_context import CacheContext, RunContext
from deltawitness.session.core.unpatched import REPLACED
from deltawitness.settings import Settings
from deltawitness.telemetry.spans import parent_context, traceparent_of

__all__ = ["SESSIONS", "InRunOfSender", "SpawnedChild", "prepare", "run_as_values", "send"]

_CHILD_CODE = """\
try:
    from deltawitness.instrumentation import join_parent
except ImportError:
    pass
else:
    join_parent({variables!r}, {settings!r})
"""


def send(original: Callable[..., Any]) -> Callable[..., Any]:
    """Replace a method of a pool that sends a function to a worker."""

    def send(self: Any, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        return original(self, InRunOfSender.of(fn), *args, **kwargs)

    return send


@dataclass(frozen=True, slots=True)
class InRunOfSender:
    """A function that runs in another process, in the run, cache context and trace of its sender.

    A worker outlives the run that it was started in, and later runs functions of other runs.

    Attributes:
        function: the function to call.
        run: the fields of the run, as a mapping of plain values that pickles.
        cache: policy, scope and key.
        sender: process id of the sender; the workers of some pools are threads of that process.
    """

    function: Callable[..., Any]
    run: dict[str, Any]
    cache: CacheContext
    sender: int

    @classmethod
    def of(cls, function: Callable[..., Any]) -> InRunOfSender:
        """Return the function with the current run, trace and cache context."""
        run = run_as_values(current_run(), trace.get_current_span())
        return cls(function, run, current_cache_context(), os.getpid())

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function in the sender's run."""
        run = RunContext(**self.run)
        if os.getpid() != self.sender:
            run = replace(run, is_joined=True)
        # Start from an empty context: a forked worker inherits spans that were open at the fork.
        token = otel_context.attach(parent_context(run, otel_context.Context()))
        try:
            return call_in_run(run, self.cache, self.function, *args, **kwargs)
        finally:
            otel_context.detach(token)


def run_as_values(run: RunContext, span: trace.Span) -> dict[str, Any]:
    """Return the fields of a run as values that pickle, with the trace context of `span` if it is valid."""
    fields = {name: getattr(run, name) for name in run.__slots__}
    fields["attributes"] = dict(run.attributes)
    fields["origin"] = asdict(run.origin)
    fields["traceparent"] = traceparent_of(span) or run.traceparent
    return fields


def prepare(original: Callable[..., Any]) -> Callable[..., Any]:
    """Replace `get_preparation_data` of a module that spawns processes."""

    def get_preparation_data(*args: Any, **kwargs: Any) -> dict[str, Any]:
        data: dict[str, Any] = original(*args, **kwargs)
        return {**data, "deltawitness": SpawnedChild(child_environment(), _observer_settings())}

    return get_preparation_data


def _observer_settings() -> dict[str, Any]:
    """Return the settings of this process's observer, as values whose `repr` is valid source code."""
    observer = current_observer()
    if observer is None:
        return {}
    values = {field.name: getattr(observer.settings, field.name) for field in fields(Settings)}
    plain = {
        name: value.value if isinstance(value, Enum) else value for name, value in values.items()
    }
    return {**plain, SESSIONS: bool(REPLACED)}


SESSIONS = "datafusion"
"""Key next to the settings: whether the parent's DataFusion sessions are patched."""


@dataclass(frozen=True, slots=True)
class SpawnedChild:
    """Makes a spawned child join its parent's run when the child unpickles the object at its start.

    It unpickles as a call of `exec` instead of a function of deltawitness, so that a child that cannot
    import this package starts nevertheless.
    """

    variables: dict[str, str]
    settings: dict[str, Any]

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        """Pickle as an `exec` of the code that joins the run."""
        return exec, (_CHILD_CODE.format(variables=self.variables, settings=self.settings),)
