"""A block of exactly-once writes: the number of its next write, and the receipts of its writes."""

from __future__ import annotations

import hashlib
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from deltawitness.exceptions import OnceError
from deltawitness.expectations import no_expectations
from deltawitness.locations import table_id
from deltawitness.run import is_suppressed
from deltawitness.semconv import ONCE_APP_ID_PREFIX

if TYPE_CHECKING:
    from deltalake._internal import RawDeltaTable

    from deltawitness.commit.receipts import Receipt

__all__ = [
    "BlockState",
    "OnceBlock",
    "OnceWrite",
    "active_block",
    "innermost_block",
    "note_skipped",
    "outside_block",
    "take_skipped",
    "use_block",
]


@dataclass(frozen=True, slots=True)
class OnceWrite:
    """A write of a block.

    Attributes:
        app_id: application id of the block's key.
        number: number of the write among those of the block to its table, from 1.
        table_id: id of the table.
    """

    app_id: str
    number: int
    table_id: str


class BlockState:
    """The writes of a block so far.

    Attributes:
        key: the key.
        deadline: seconds for which a write is retried after its first conflict.
        app_id: application id of the key in the Delta log.
        conflict: the last commit conflict that a write of the block has raised.
        is_open: whether the block has not ended.
        commit_id: the write id or receipt id by which the commit of its write is recognized; None where
            the transaction alone identifies it.
        can_repeat: returns for a refreshed open table whether a write transaction that lost against
            another commit can be committed again; None if it never can.
        receipts: the receipt of each write, in order.
    """

    def __init__(self, key: str, deadline: float) -> None:
        self.key = key
        self.deadline = deadline
        self.app_id: str = ONCE_APP_ID_PREFIX + hashlib.sha256(key.encode()).hexdigest()[:32]
        self.conflict: BaseException | None = None
        self.is_open = True
        self.commit_id: str | None = None
        self.can_repeat: Callable[[RawDeltaTable], bool] | None = None
        self.receipts: list[Receipt] = []
        self._owner = _caller()
        self._done: dict[str, int] = {}
        self._committed: dict[str, int] = {}

    @classmethod
    def of_run(
        cls, app_id: str, commit_id: str, table: str, last: int, deadline: float
    ) -> BlockState:
        """Return the block of one write whose transaction has an application id of its run.

        Other processes of the run may use the same application id, so the commit of the write is
        recognized by an id in its metadata.

        Args:
            app_id: the application id.
            commit_id: the receipt id in the commit of the write.
            table: the id of the table.
            last: the version of the application id in the open table; 0 before the first.
            deadline: seconds for which the write is retried after its first conflict.
        """
        block = cls(app_id, deadline)
        block.app_id, block.commit_id = app_id, commit_id
        block._done[table] = last
        return block

    def next_write(self, uri: str) -> OnceWrite:
        """Return the next write of the block to a table.

        Args:
            uri: the table's path or URI.

        Raises:
            OnceError: another thread or task than the caller's opened the block.
        """
        if _caller() != self._owner:
            msg = (
                "once: a block covers only writes of the thread and task that opened it;"
                " open another block, with another key, for this write"
            )
            raise OnceError(msg)
        table = table_id(uri)
        return OnceWrite(self.app_id, self._done.get(table, 0) + 1, table)

    def complete(self, write: OnceWrite, receipt: Receipt, *, has_commit: bool = True) -> None:
        """Record the result of a write, so that the next one to its table has the next number."""
        self._done[write.table_id] = write.number
        if has_commit:
            self._committed[write.table_id] = write.number
        self.receipts.append(receipt)

    def last_committed(self, write: OnceWrite) -> int:
        """Return the number of the block's last commit to the table of a write; 0 before the first."""
        return self._committed.get(write.table_id, 0)


class OnceBlock:
    """The receipts of the writes of a block; the value of `with once(...) as block`."""

    __slots__ = ("_state",)

    def __init__(self, state: Any) -> None:  # a BlockState, which is private
        self._state: BlockState = state

    @property
    def key(self) -> str:
        """The key."""
        return self._state.key

    @property
    def app_id(self) -> str:
        """Application id of the key's transactions in the Delta log."""
        return self._state.app_id

    @property
    def receipts(self) -> tuple[Receipt, ...]:
        """The receipt of each write, in order.

        It is that of a commit of this block, or of an earlier block with the same key.
        """
        return tuple(self._state.receipts)

    @property
    def conflict(self) -> BaseException | None:
        """The last commit conflict that a write of the block has raised; None without one."""
        return self._state.conflict


def _caller() -> tuple[int, int | None]:
    return threading.get_ident(), _task_id()


def _task_id() -> int | None:
    if "asyncio" not in sys.modules:
        return None
    import asyncio  # noqa: PLC0415 - a fifth of the import time; a program with tasks has imported it

    try:
        task = asyncio.current_task()
    except RuntimeError:  # no event loop runs in this thread
        return None
    return None if task is None else id(task)


_current: ContextVar[BlockState | None] = ContextVar("deltawitness_once", default=None)


innermost_block: Callable[[], BlockState | None] = _current.get
"""Return the innermost block, which may be closed or suppressed, in less time than `active_block`."""


def active_block() -> BlockState | None:
    """Return the open block that covers the calling code; None without one, and inside `suppressed()`."""
    block = _current.get()
    if block is None or not block.is_open or is_suppressed():
        return None
    return block


@contextmanager
def use_block(block: BlockState | None) -> Iterator[None]:
    """Make a block the active one inside the `with` statement.

    Args:
        block: the block; None for no active block.
    """
    token = _current.set(block)
    try:
        yield
    finally:
        _current.reset(token)


@contextmanager
def outside_block() -> Iterator[None]:
    """Suspend the active block for writes that the library makes itself, such as those of the cache.

    Expectations of the program do not apply to such writes either.
    """
    with use_block(None), no_expectations():
        yield


_skipped: set[str] = set()
"""Write ids of writes that were skipped, until the observer reads them with :func:`take_skipped`."""


def note_skipped(write_id: str | None) -> None:
    """Record that a write was skipped, because its commit was in the log; its event says so.

    Args:
        write_id: the write id; None for a write without one.
    """
    if write_id is not None:
        _skipped.add(write_id)


def take_skipped(write_id: str) -> bool:
    """Return whether a write was skipped, and remove its record."""
    if write_id not in _skipped:
        return False
    _skipped.discard(write_id)
    return True
