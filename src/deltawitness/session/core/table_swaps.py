"""Replace tables of the engine while other threads plan queries over them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from deltawitness.session.core.private_api import NAME_UNKNOWN
from deltawitness.session.core.snapshot import TableName
from deltawitness.session.core.unpatched import unpatched

if TYPE_CHECKING:
    from datafusion import SessionContext

__all__ = ["TableSwaps"]

MAX_SWAP_RETRIES = 1000
"""Maximum number of retries of planning while tables are replaced."""


class TableSwaps:
    """The replacements of tables and views in one session.

    The engine cannot replace a table atomically: for a short time the name is missing. Planning that
    fails for this reason is retried.

    Args:
        lock: the lock that is held while a table or a view is replaced.
    """

    def __init__(self, lock: threading.RLock) -> None:
        self.lock = lock
        self._steps = 0
        """The number of starts and ends of replacements: odd while one is in progress."""

    def replace(self, ctx: SessionContext, name: TableName, provider: Any) -> None:
        """Register another provider under a name; the caller holds the lock.

        Args:
            ctx: a context of the session.
            name: the name, which the engine has registered.
            provider: the new table provider.
        """
        self._steps += 1
        try:
            unpatched(ctx, "deregister_table")(name.sql())
            unpatched(ctx, "register_table")(name.sql(), provider)
        except BaseException:  # Ctrl-C between the two calls must not leave the name unregistered
            if not unpatched(ctx, "table_exist")(name.sql()):
                unpatched(ctx, "register_table")(name.sql(), provider)
            raise
        finally:
            self._steps += 1

    @contextmanager
    def swapping(self) -> Iterator[None]:
        """Hold the lock; planning on another thread that misses a name during the block retries."""
        with self.lock:
            self._steps += 1
            try:
                yield
            finally:
                self._steps += 1

    def plan_with_retry(self, plan: Callable[[], Any]) -> Any:
        """Return the result of `plan`; call it again if a name was missing while a table was replaced.

        Args:
            plan: plans a text or a table's name.

        Raises:
            Exception: the error of `plan`, if no table was being replaced.
        """
        for _ in range(MAX_SWAP_RETRIES):
            before = self._steps
            try:
                return plan()
            except Exception as error:
                if before == self._steps and before % 2 == 0:
                    raise
                if not any(text in str(error) for text in NAME_UNKNOWN):
                    raise
                with self.lock:
                    pass  # wait: the thread that replaces a table holds the lock
        return plan()
