"""Carries the run and the trace to where context variables do not go by themselves.

Thread pools, child processes started by `subprocess`, and the spawned children of
`multiprocessing`, which inherit neither memory nor patches.
"""

from __future__ import annotations

import functools
import multiprocessing.spawn
import os
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from opentelemetry import context as otel_context
from opentelemetry import trace

from deltawitness.observe.enclosure import current_enclosure, within
from deltawitness.run import bound, current_run
from deltawitness.semconv import Env
from deltawitness.telemetry.spans import traceparent_of

__all__ = ["Carriers", "SpawnedChild"]

_CHILD_CODE = """\
try:
    from deltawitness.instrumentation import join_parent
except ImportError:
    pass
else:
    join_parent({variables!r})
"""


class Carriers:
    """Replaces the calls that start threads and processes by ones that take the run along."""

    def __init__(self) -> None:
        self._originals: list[tuple[Any, str, Any]] = []

    def install(self) -> None:
        """Replace the calls."""
        self._replace(ThreadPoolExecutor, "submit", _submit)
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
        return {**data, "deltawitness": SpawnedChild(child_environment())}

    return get_preparation_data


@dataclass(frozen=True, slots=True)
class SpawnedChild:
    """Joins the parent's run by being unpickled, which a spawned child does before anything else.

    It unpickles through `exec`, and not through a function of ours, because a child that cannot
    import this package must start all the same.
    """

    variables: dict[str, str]

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        """Pickle as the code that joins."""
        return exec, (_CHILD_CODE.format(variables=self.variables),)
