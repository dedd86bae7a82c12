"""The run that a write belongs to: context variables hold it in a process and its threads and tasks.

A run is what OpenLineage calls a run: one execution of a named job. Each process has an implicit run,
which is the current one where no explicit run is open, so every write has a run. An explicit run that
is opened inside another has it as its parent.
"""

from __future__ import annotations

import functools
import inspect
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar, Token
from dataclasses import dataclass, replace
from types import MappingProxyType, TracebackType
from typing import Any, ParamSpec, Protocol, Self, TypeVar

from deltawitness.exceptions import ConfigurationError
from deltawitness.forks import reset_in_child
from deltawitness.ids_and_clock import new_id
from deltawitness.run_context import (
    NO_CACHE_CONTEXT,
    RUN_ID_FORM,
    CacheContext,
    RunContext,
    parse_scope,
)
from deltawitness.run_origin import process_origin
from deltawitness.run_variables import (
    cache_context_from_environment,
    has_text,
    is_forced,
    run_from_environment,
    run_id_in,
    text_in,
)
from deltawitness.semconv import CacheScope, Env

__all__ = [
    "CacheContext",
    "RunContext",
    "RunListener",
    "add_run_listener",
    "cache_context",
    "current_cache_context",
    "current_run",
    "is_process_run",
    "is_suppressed",
    "remove_run_listener",
    "run",
    "suppressed",
]

P = ParamSpec("P")
R = TypeVar("R")


class RunListener(Protocol):
    """Callbacks for the opening and closing of explicit runs.

    A listener must catch its own exceptions: one that it raises reaches the program.
    """

    def run_started(self, run: RunContext, /) -> None:
        """Handle the start of a run. The run is the current one during the call."""

    def run_ending(self, run: RunContext, /) -> None:
        """Wait for the pending work of a run before it ends. `async with` calls it in a worker thread."""

    def run_ended(self, run: RunContext, error: BaseException | None, /) -> None:
        """Handle the end of a run and the error that ended it. The run is still the current one."""

    def run_closed(self, run: RunContext, /) -> None:
        """Store the results of a run that has ended. `async with` calls it in a worker thread."""


_run: ContextVar[RunContext | None] = ContextVar("deltawitness_run", default=None)
_cache: ContextVar[CacheContext] = ContextVar("deltawitness_cache", default=NO_CACHE_CONTEXT)
_suppressed: ContextVar[bool] = ContextVar("deltawitness_suppressed", default=False)
_listeners: tuple[RunListener, ...] = ()
_process_run: RunContext | None = None
_process_cache: CacheContext | None = None
_process_run_lock = threading.Lock()
reset_in_child("_process_run_lock", globals(), threading.Lock)


def current_run() -> RunContext:
    """Return the run of the calling context: the innermost explicit run, else the process's implicit run.

    Raises:
        ConfigurationError: the environment variable of the run id or of the sampling flag is invalid.

    >>> with run("nightly") as r:
    ...     current_run() is r
    True
    """
    return _run.get() or _process_run or _start_process_run()


def check_environment() -> None:
    """Validate the environment variables of this process's implicit run, without starting the run.

    Raises:
        ConfigurationError: the environment variable of the run id or of the sampling flag is invalid.
    """
    if _process_run is None:
        run_id_in(os.environ)
        is_forced(os.environ)


def started_process_run() -> RunContext | None:
    """Return the implicit run of this process; None when it has not started."""
    return _process_run


def _start_process_run() -> RunContext:
    global _process_run  # noqa: PLW0603 - one implicit run per process is what it is for
    with _process_run_lock:
        if _process_run is None:
            _process_run = run_from_environment(os.environ)
        return _process_run


def adopt_run(context: RunContext) -> None:
    """Set the implicit run of this process. A spawned child joins its parent's run by it."""
    global _process_run, _process_cache
    with _process_run_lock:
        _process_run, _process_cache = context, None


def is_process_run(context: RunContext) -> bool:
    """Return whether `context` is the implicit run of this process, which ends with the process."""
    return _process_run is not None and _process_run.run_id == context.run_id


def forget_process_run() -> None:
    """Drop the implicit run, so that the next write starts one from the environment. For tests."""
    global _process_run, _process_cache  # noqa: PLW0603 - see _start_process_run
    with _process_run_lock:
        _process_run = _process_cache = None


class run:  # noqa: N801 - used as `with run(...)` and `@run(...)`, where the lower case is the idiom
    """Open a run around a block, an async block, or each call of a function.

    Args:
        job: name of the job; the same for every execution of it.
        attributes: text attributes of this run; exported on spans and logs, never on metrics.
        run_id: an external id, such as a scheduler's; a new UUIDv7 when None.
        force_sample: set `deltawitness.sample.force` on every span of the run and of the runs inside
            it, so that the reference Collector's tail sampling keeps their traces.
        message: why the run writes; in the commits of its writes, the ledger and telemetry. The message
            of the enclosing run when None.

    Raises:
        ConfigurationError: the job name or the message is empty; the run id is not 1 to 128 letters, digits or
            `._:-`; or a generator function is decorated. A generator is suspended between its items,
            so a run around it would also include the writes that its consumer makes in between.

    >>> with run("nightly", attributes={"shard": "3"}) as outer:
    ...     with run("load") as inner:
    ...         inner.parent_run_id == outer.run_id
    True

    >>> @run("monthly")
    ... def job():
    ...     return current_run().job
    >>> job()
    'monthly'
    """

    __slots__ = ("_attributes", "_force_sample", "_job", "_message", "_open", "_run_id")

    def __init__(
        self,
        job: str,
        *,
        attributes: Mapping[str, str] | None = None,
        run_id: str | None = None,
        force_sample: bool = False,
        message: str | None = None,
    ) -> None:
        if not isinstance(job, str) or not job:
            msg = "run: the job name must be a non-empty string"
            raise ConfigurationError(msg)
        if run_id is not None and not RUN_ID_FORM.fullmatch(run_id):
            msg = "run: run_id must be 1 to 128 letters, digits or '._:-'"
            raise ConfigurationError(msg)
        if attributes is not None and not isinstance(attributes, Mapping):
            msg = f"run: attributes must be a mapping of text to text, not {type(attributes).__name__}"
            raise ConfigurationError(msg)
        self._job = job
        self._attributes = MappingProxyType({str(k): str(v) for k, v in (attributes or {}).items()})
        self._run_id = run_id
        self._force_sample = force_sample
        self._message = _checked_message("run", message)
        # The same object may be entered again inside its own block, and by several tasks at once.
        self._open: list[tuple[RunContext, Token[RunContext | None]]] = []

    def __enter__(self) -> RunContext:
        enclosing = _run.get()
        parent = enclosing or _process_run
        run_id = self._run_id or new_id()
        parent_id = parent.run_id if parent else os.environ.get(Env.RUN_ID) or None
        if parent is not None and parent_id == run_id:
            parent_id = parent.parent_run_id
        context = RunContext(
            run_id=run_id,
            job=self._job,
            parent_run_id=None if parent_id == run_id else parent_id,
            attributes=self._attributes,
            traceparent=parent.traceparent if parent else os.environ.get(Env.TRACEPARENT),
            is_process=_process_run is not None and _process_run.run_id == run_id,
            force_sample=self._force_sample or _inherits_force(parent),
            message=self._message or _inherited_message(parent),
            # The implicit run of a process that runs one task after another has the first task's origin.
            origin=process_origin() if enclosing is None else enclosing.origin,
            # `deltawitness run` opens the process's run with the job that it has.
            has_default_job=parent is not None
            and parent.run_id == run_id
            and parent.has_default_job,
        )
        self._open.append((context, _run.set(context)))
        for listener in _listeners:
            listener.run_started(context)
        return context

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        context, token = self._pop_open()
        try:
            for listener in reversed(_listeners):
                listener.run_ending(context)
        finally:
            _close(context, token, error)
        for listener in reversed(_listeners):
            listener.run_closed(context)

    def _pop_open(self) -> tuple[RunContext, Token[RunContext | None]]:
        current = _run.get()
        matching = [entry for entry in self._open if entry[0] is current]
        entry = matching[-1] if matching else self._open[-1]
        self._open.remove(entry)
        return entry

    async def __aenter__(self) -> RunContext:
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        import asyncio  # noqa: PLC0415 - a tenth of our import time; already imported where this runs

        context, token = self._pop_open()
        try:
            for listener in reversed(_listeners):
                await asyncio.to_thread(listener.run_ending, context)
        finally:
            _close(context, token, error)
        for listener in reversed(_listeners):
            await asyncio.to_thread(listener.run_closed, context)

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Wrap a plain or async function so that each call opens a new run."""
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            msg = "run: a generator function cannot be a run; open one inside it, or around its use"
            raise ConfigurationError(msg)
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def awaited(*args: P.args, **kwargs: P.kwargs) -> Any:
                async with self._again():
                    return await function(*args, **kwargs)

            return awaited  # type: ignore[return-value]  # a coroutine function is Callable[P, R] with R a coroutine

        @functools.wraps(function)
        def called(*args: P.args, **kwargs: P.kwargs) -> R:
            with self._again():
                return function(*args, **kwargs)

        return called

    def _again(self) -> Self:
        return type(self)(
            self._job,
            attributes=self._attributes,
            run_id=self._run_id,
            force_sample=self._force_sample,
            message=self._message,
        )


def _checked_message(caller: str, message: str | None) -> str | None:
    if message is not None and not (isinstance(message, str) and has_text(message)):
        msg = f"{caller}: the message must be a non-empty string"
        raise ConfigurationError(msg)
    return message


def _inherited_message(parent: RunContext | None) -> str | None:
    return parent.message if parent is not None else text_in(os.environ, Env.MESSAGE)


def _inherits_force(parent: RunContext | None) -> bool:
    return is_forced(os.environ) if parent is None else parent.force_sample


def _close(
    context: RunContext, token: Token[RunContext | None], error: BaseException | None
) -> None:
    try:
        for listener in reversed(_listeners):
            listener.run_ended(context, error)
    finally:
        _run.reset(token)


def call_in_run(
    context: RunContext,
    cache: CacheContext,
    function: Callable[P, R],
    *args: P.args,
    **kwargs: P.kwargs,
) -> R:
    """Call `function` with `context` as the current run and `cache` as the cache context."""
    with use_run(context, cache):
        return function(*args, **kwargs)


@contextmanager
def use_run(context: RunContext, cache: CacheContext) -> Iterator[None]:
    """Make `context` the current run and `cache` the cache context of the block.

    The run was opened elsewhere: listeners are not called, and the end of the block does not end it.
    """
    tokens = _run.set(context), _cache.set(cache)
    try:
        yield
    finally:
        _run.reset(tokens[0])
        _cache.reset(tokens[1])


def add_run_listener(listener: RunListener) -> None:
    """Call `listener` for every explicit run from now on. Listeners are called in the order of adding."""
    global _listeners  # noqa: PLW0603 - a new tuple, so that a run in progress iterates over a stable one
    _listeners = (*_listeners, listener)


def remove_run_listener(listener: RunListener) -> None:
    """Remove a listener; one that was not added is ignored."""
    global _listeners  # noqa: PLW0603 - see add_run_listener
    _listeners = tuple(other for other in _listeners if other is not listener)


@contextmanager
def cache_context(
    *,
    policy: str | None = None,
    scope: CacheScope | str | None = None,
    key: str | None = None,
    message: str | None = None,
) -> Iterator[CacheContext]:
    """Set the policy, scope, cache key and message of the writes inside the block.

    An argument that is None is inherited from the enclosing block.

    Args:
        policy: name of the policy (`cache.policy`).
        scope: one of `view`, `dataset`, `artifact`, `metadata`, `ledger`.
        key: the cache key; only its hash is exported.
        message: why the writes are made; takes precedence over the message of the run.

    Raises:
        ConfigurationError: the scope is not one of these, or the policy or the message is empty.

    >>> with cache_context(policy="nightly_views", scope="view"):
    ...     current_cache_context().policy
    'nightly_views'
    """
    inner = _merged(current_cache_context(), policy, scope, key)
    if _checked_message("cache_context", message) is not None:
        inner = replace(inner, message=message)
    token = _cache.set(inner)
    try:
        yield _cache.get()
    finally:
        _cache.reset(token)


def _merged(
    outer: CacheContext, policy: str | None, scope: CacheScope | str | None, key: str | None
) -> CacheContext:
    if policy == "":
        msg = "cache_context: the policy name must not be empty"
        raise ConfigurationError(msg)
    return CacheContext(
        policy=outer.policy if policy is None else policy,
        scope=outer.scope if scope is None else parse_scope(scope),
        key=outer.key if key is None else key,
        message=outer.message,
    )


def current_cache_context() -> CacheContext:
    """Return the policy, scope and key of the calling context, else those of the environment.

    Raises:
        ConfigurationError: the scope in the environment is invalid.
    """
    context = _cache.get()
    if context is not NO_CACHE_CONTEXT:
        return context
    return _inherited_cache_context() if _process_cache is None else _process_cache


def _inherited_cache_context() -> CacheContext:
    global _process_cache  # noqa: PLW0603 - read once, as the run is
    if _process_cache is None:
        _process_cache = cache_context_from_environment(os.environ)
    return _process_cache


@contextmanager
def suppressed() -> Iterator[None]:
    """Do not observe the writes inside the block: no commit metadata, no telemetry, no ledger row.

    >>> with suppressed():
    ...     is_suppressed()
    True
    """
    token = _suppressed.set(True)
    try:
        yield
    finally:
        _suppressed.reset(token)


is_suppressed: Callable[[], bool] = _suppressed.get
"""Return whether writes of the calling context are not observed. A bound method: each write calls it twice."""


def unhandled_error() -> BaseException | None:
    """Return the unhandled exception that ends the process; None when there is none.

    An interactive prompt (`sys.ps1`) shows an exception and goes on, so there the result is None.
    """
    return None if hasattr(sys, "ps1") else getattr(sys, "last_value", None)


@dataclass(frozen=True, slots=True)
class Ambient:
    """Run, cache context and suppression of one thread, to be set in another thread.

    Attributes:
        run: the explicit run; None when none is open.
        cache: the cache context.
        is_suppressed: whether writes are not observed.
    """

    run: RunContext | None
    cache: CacheContext
    is_suppressed: bool

    @classmethod
    def current(cls) -> Self:
        """Return the values of the calling context."""
        return cls(_run.get(), _cache.get(), _suppressed.get())

    @property
    def is_empty(self) -> bool:
        """Whether all values are the defaults, as in a new thread."""
        return self.run is None and self.cache is NO_CACHE_CONTEXT and not self.is_suppressed

    @contextmanager
    def active(self) -> Iterator[None]:
        """Set the values for the block, and reset them at its end."""
        tokens = _run.set(self.run), _cache.set(self.cache), _suppressed.set(self.is_suppressed)
        try:
            yield
        finally:
            _run.reset(tokens[0])
            _cache.reset(tokens[1])
            _suppressed.reset(tokens[2])
