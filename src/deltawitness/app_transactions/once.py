"""`once` and `exactly_once`: a block and a decorator whose writes commit once per key."""

from __future__ import annotations

import functools
import importlib
import inspect
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

from deltawitness.app_transactions.block import (
    BlockState,
    OnceBlock,
    active_block,
    use_block,
)
from deltawitness.app_transactions.guard import check_guarded
from deltawitness.app_transactions.retries import Retries
from deltawitness.exceptions import ConfigurationError, OnceError
from deltawitness.run import is_suppressed

__all__ = ["exactly_once", "once"]

P = ParamSpec("P")
R = TypeVar("R")


class once:  # noqa: N801 - used as `with once(...)`, where the lower case is the idiom
    """Open a block in which each write of rows commits once per key and table.

    A write whose commit is in the log, from an earlier block with the same key in any process, is not
    repeated. A write that raises although its commit is in the log returns as if it had not raised.
    A write that loses against a concurrent commit is tried again, if its rows can be read again. Other
    errors are raised unmodified.

    `write_deltalake`, `DeltaTable.update`, `delete`, `merge` and `create_write_transaction`, SQL and
    pipelines are covered. The block must make its writes to a table in the same order each time, and in
    the thread that opened it.

    Args:
        key: identifies the work, such as `load-2026-11-26`.
        deadline: seconds for which a write is tried again, after its first conflict.

    Raises:
        ConfigurationError: the key is empty or the deadline is negative.
        OnceError: delta-rs is not instrumented, its release is older than 1.2.1, or writes are suppressed.

    >>> import pyarrow as pa, tempfile
    >>> from deltalake import DeltaTable, write_deltalake
    >>> from deltawitness import DeltaLakeInstrumentor
    >>> DeltaLakeInstrumentor().instrument()
    >>> folder = tempfile.mkdtemp()
    >>> for _ in range(2):
    ...     with once("load-2026-11-26") as block:
    ...         write_deltalake(folder, pa.table({"id": [1, 2]}), mode="append")
    ...     print(block.receipts[0].version, block.receipts[0].rows, block.receipts[0].is_new)
    1 2 True
    1 2 False
    >>> DeltaTable(folder).to_pyarrow_table().num_rows
    2
    >>> DeltaLakeInstrumentor().uninstrument()
    """

    __slots__ = ("_deadline", "_key", "_open")

    def __init__(self, key: str, *, deadline: float = 60.0) -> None:
        if not isinstance(key, str) or not key.strip():
            msg = "once: the key must be a non-empty string"
            raise ConfigurationError(msg)
        if not deadline >= 0:
            msg = "once: the deadline must be zero or more seconds"
            raise ConfigurationError(msg)
        self._key = key
        self._deadline = float(deadline)
        self._open: list[tuple[BlockState, Any]] = []

    def __enter__(self) -> OnceBlock:
        importlib.import_module("deltalake")  # its import hook may install the instrumentation
        check_guarded()
        if is_suppressed():
            msg = "once: writes inside suppressed() are not covered; open the block outside of it"
            raise OnceError(msg)
        state = BlockState(self._key, self._deadline)
        using = use_block(state)
        using.__enter__()
        self._open.append((state, using))
        return OnceBlock(state)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # The same object may be entered again inside its own block, and by several threads at once.
        current = active_block()
        entry = next((each for each in reversed(self._open) if each[0] is current), self._open[-1])
        self._open.remove(entry)
        state, using = entry
        state.is_open = False
        using.__exit__(None, None, None)


def exactly_once(
    *, key: str | Callable[..., str], deadline: float = 60.0
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorate a function so that each write in it commits once per key and table.

    Each call runs in a block of :class:`once`. If a write loses against a concurrent commit and cannot
    be tried again alone, the function is called again: writes that have committed are not repeated.

    Args:
        key: the key, or a function that returns it for the arguments of a call.
        deadline: seconds for which a write, and the function, are tried again after a conflict.

    Returns:
        A decorator for plain and async functions.

    Raises:
        ConfigurationError: the key is empty, the deadline is negative, or a generator function is
            decorated.

    >>> @exactly_once(key=lambda day: f"load-{day}")
    ... def load(day): ...
    """
    if not callable(key):
        once(key, deadline=deadline)

    def opened(*args: Any, **kwargs: Any) -> once:
        return once(key(*args, **kwargs) if callable(key) else key, deadline=deadline)

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            msg = "exactly_once: a generator function cannot be a block; open one inside it"
            raise ConfigurationError(msg)
        if inspect.iscoroutinefunction(function):
            return _awaiting(function, opened, deadline)
        return _calling(function, opened, deadline)

    return decorate


def _calling(
    function: Callable[P, R], opened: Callable[..., once], deadline: float
) -> Callable[P, R]:
    """Return a function with a block around each call, called again after a conflict."""

    @functools.wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        retries = Retries(deadline)
        while True:
            with opened(*args, **kwargs) as block:
                try:
                    return function(*args, **kwargs)
                except Exception as error:
                    if block.conflict is not error:
                        raise
                    delay = retries.next_delay()
                    if delay is None:
                        raise
            time.sleep(delay)

    return called


def _awaiting(
    function: Callable[P, Any], opened: Callable[..., once], deadline: float
) -> Callable[P, Any]:
    """Return an async function with a block around each call, called again after a conflict."""
    import asyncio  # noqa: PLC0415 - a fifth of the import time

    @functools.wraps(function)
    async def awaited(*args: P.args, **kwargs: P.kwargs) -> Any:
        retries = Retries(deadline)
        while True:
            with opened(*args, **kwargs) as block:
                try:
                    return await function(*args, **kwargs)
                except Exception as error:
                    if block.conflict is not error:
                        raise
                    delay = retries.next_delay()
                    if delay is None:
                        raise
            await asyncio.sleep(delay)

    return awaited
