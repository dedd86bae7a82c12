"""Carries the run and the trace to where context variables do not go by themselves.

Thread pools, child processes started by `subprocess`, and the spawned children of
`multiprocessing`, which inherit neither memory nor patches.
"""

from __future__ import annotations

import functools
import multiprocessing.pool
import multiprocessing.spawn
import os
import subprocess
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from enum import Enum
from typing import Any

from opentelemetry import context as otel_context
from opentelemetry import trace

from deltawitness.config import Settings
from deltawitness.observe.enclosure import current_enclosure, within
from deltawitness.observe.observer import current_observer
from deltawitness.proxies.originals import REPLACED
from deltawitness.run import (
    CacheContext,
    RunContext,
    bound,
    called_in,
    current_cache_context,
    current_run,
)
from deltawitness.semconv import Env
from deltawitness.telemetry.spans import parent_context, traceparent_of

__all__ = ["Carriers", "SpawnedChild", "run_as_values"]

_CHILD_CODE = """\
try:
    from deltawitness.instrumentation import join_parent
except ImportError:
    pass
else:
    join_parent({variables!r}, {settings!r})
"""


class Carriers:
    """Replaces the calls that start threads and processes by ones that take the run along."""

    def __init__(self) -> None:
        self._originals: list[tuple[Any, str, Any]] = []

    def install(self) -> None:
        """Replace the calls."""
        self._replace(ThreadPoolExecutor, "submit", _submit)
        self._replace(ProcessPoolExecutor, "submit", _sent)
        for name in _POOL_CALLS:
            self._replace(multiprocessing.pool.Pool, name, _sent)
        self._replace(subprocess.Popen, "__init__", _popen)
        self._replace(multiprocessing.spawn, "get_preparation_data", _preparation_data)

    def uninstall(self) -> None:
        """Put the originals back."""
        while self._originals:
            owner, name, original = self._originals.pop()
            setattr(owner, name, original)

    def _replace(self, owner: Any, name: str, carrying: Callable[[Any], Any]) -> None:
        original = getattr(owner, name)
        setattr(owner, name, functools.wraps(original)(carrying(original)))
        self._originals.append((owner, name, original))


def _submit(original: Callable[..., Any]) -> Callable[..., Any]:
    def submit(self: Any, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        return original(self, _carried(fn), *args, **kwargs)

    return submit


_POOL_CALLS = (
    "apply_async",
    "imap",
    "imap_unordered",
    "map",
    "map_async",
    "starmap",
    "starmap_async",
)
"""What hands functions to the workers of a pool; its other calls end in these."""


def _sent(original: Callable[..., Any]) -> Callable[..., Any]:
    def sent(self: Any, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        return original(self, InRunOfSender.of(fn), *args, **kwargs)

    return sent


@dataclass(frozen=True, slots=True)
class InRunOfSender:
    """A function that runs in another process, in the run, cache context and trace of its sender.

    A worker lives longer than the run that it was started in, and serves others after it.

    Attributes:
        function: what runs there.
        run: the run's fields, which pickle as a mapping of plain values.
        cache: policy, scope and key.
        sender: its process id; the workers of some pools are threads there.
    """

    function: Callable[..., Any]
    run: dict[str, Any]
    cache: CacheContext
    sender: int

    @classmethod
    def of(cls, function: Callable[..., Any]) -> InRunOfSender:
        """Return the function with what is current here and now."""
        run = run_as_values(current_run(), trace.get_current_span())
        return cls(function, run, current_cache_context(), os.getpid())

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function."""
        run = RunContext(**self.run)
        if os.getpid() != self.sender:
            run = replace(run, is_joined=True)
        # A forked worker inherits the spans that were open at the fork, and they are not its own.
        token = otel_context.attach(parent_context(run, otel_context.Context()))
        try:
            return called_in(run, self.cache, self.function, *args, **kwargs)
        finally:
            otel_context.detach(token)


def run_as_values(run: RunContext, span: trace.Span) -> dict[str, Any]:
    """Return the fields of a run as values that pickle, in the trace of a span where there is one."""
    fields = {name: getattr(run, name) for name in run.__slots__}
    fields["attributes"] = dict(run.attributes)
    fields["traceparent"] = traceparent_of(span) or run.traceparent
    return fields


def _carried(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return `function` bound to the run, the cache context and the trace of here and now."""
    carried, context = _enclosed(bound(function)), otel_context.get_current()
    if not context:
        return carried

    def in_context(*args: Any, **kwargs: Any) -> Any:
        token = otel_context.attach(context)
        try:
            return carried(*args, **kwargs)
        finally:
            otel_context.detach(token)

    return in_context


def _enclosed(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return `function` with the facts of the proxy call here and now: its writes have them, too."""
    enclosure = current_enclosure()
    if enclosure is None:
        return function

    def inside(*args: Any, **kwargs: Any) -> Any:
        with within(enclosure):
            return function(*args, **kwargs)

    return inside


def child_environment() -> dict[str, str]:
    """Return the variables by which a child process joins the run and the trace of here and now."""
    variables = current_run().environment()
    traceparent = traceparent_of(trace.get_current_span())
    return variables if traceparent is None else {**variables, Env.TRACEPARENT.value: traceparent}


def _popen(original: Callable[..., Any]) -> Callable[..., Any]:
    def popen(self: Any, *args: Any, **kwargs: Any) -> None:
        # An environment that the caller chose is the caller's; only an inherited one is added to.
        if len(args) <= _POPEN_ENV and kwargs.get("env") is None:
            kwargs["env"] = {**os.environ, **child_environment()}
        original(self, *args, **kwargs)

    return popen


_POPEN_ENV = 10
"""Where `env` stands among the positional arguments of `subprocess.Popen`."""


def _preparation_data(original: Callable[..., Any]) -> Callable[..., Any]:
    def get_preparation_data(name: str) -> dict[str, Any]:
        data: dict[str, Any] = original(name)
        return {**data, "deltawitness": SpawnedChild(child_environment(), _settings_here())}

    return get_preparation_data


def _settings_here() -> dict[str, Any]:
    """Return the settings of this process's observer, as values that their `repr` makes again."""
    observer = current_observer()
    if observer is None:
        return {}
    values = {field.name: getattr(observer.settings, field.name) for field in fields(Settings)}
    told = {
        name: value.value if isinstance(value, Enum) else value for name, value in values.items()
    }
    return {**told, SESSIONS: bool(REPLACED)}


SESSIONS = "datafusion"
"""Beside the settings: whether the sessions of the parent are patched, too."""


@dataclass(frozen=True, slots=True)
class SpawnedChild:
    """Joins the parent's run by being unpickled, which a spawned child does before anything else.

    It unpickles through `exec`, and not through a function of ours, because a child that cannot
    import this package must start all the same.
    """

    variables: dict[str, str]
    settings: dict[str, Any]

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        """Pickle as the code that joins."""
        return exec, (_CHILD_CODE.format(variables=self.variables, settings=self.settings),)
