"""Receipts of observed writes for the program: those of a block, and the last commit of a context.

Each write makes a `PendingReceipt`, which refers to what the observer has recorded. The commit is parsed by
the delivery, as for each write, or at the first access by the program, whichever is first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, overload

from deltawitness.commit.receipts import Receipt
from deltawitness.events import (
    CommitMetrics,
    Committed,
    Failed,
    Landed,
    WriteEvent,
    WriteOutcome,
)
from deltawitness.locations import canonical_uri
from deltawitness.observe.completion import complete_event
from deltawitness.telemetry.spans import traceparent_of

if TYPE_CHECKING:
    from deltawitness.observe.in_flight import InFlightWrite

__all__ = [
    "PendingReceipt",
    "ReceiptBlock",
    "Receipts",
    "active_receipts",
    "last_commit",
    "receipts",
    "record_receipt",
    "use_receipts",
]


class PendingReceipt:
    """The receipt of one write, made at the first access.

    Args:
        write: the write, which has ended.
        tail: number of log versions to search for a commit of unknown version.

    Attributes:
        previous: the write before it in its context, if that may be the last one that has committed; None
            once this one is known to have committed.
    """

    __slots__ = ("_event", "_location", "_receipt", "_tail", "_traceparent", "_write", "previous")

    def __init__(self, write: InFlightWrite, tail: int) -> None:
        self._write: InFlightWrite | None = write
        self._tail = tail
        self._event: WriteEvent | None = None
        self._location: str | None = None
        self._traceparent: str | None = None
        self._receipt: Receipt | None = None
        self.previous: PendingReceipt | None = None

    def complete(self, write: InFlightWrite, event: WriteEvent) -> None:
        """Take the finished event, and release the write with the content of its commit."""
        self._location = write.location
        self._traceparent = traceparent_of(write.span)
        self._event = event
        # Else a service that writes to an object store, where only the delivery knows of a commit, would
        # hold the event of each write.
        self.previous = _last_with_commit(self.previous) if self.has_no_commit else None
        self._write = None  # last: `receipt` reads it first

    @property
    def has_no_commit(self) -> bool:
        """Whether the delivery has found that the write made no commit."""
        return self._event is not None and not versions_of(self._event.outcome)

    def receipt(self) -> Receipt:
        """Return the receipt; parses the commit if the delivery has not done so yet."""
        if self._receipt is None:
            write = self._write
            if write is not None:
                event = complete_event(write, self._tail)
                self._receipt = _receipt(event, write.location, traceparent_of(write.span))
            elif self._event is not None:
                self._receipt = _receipt(self._event, self._location, self._traceparent)
            else:  # complete() sets the event before it releases the write
                raise AssertionError
        return self._receipt


def versions_of(outcome: WriteOutcome) -> tuple[int, ...]:
    """Return the versions that a write committed, also one that failed afterwards."""
    return outcome.versions if isinstance(outcome, Committed | Failed) else ()


def _receipt(event: WriteEvent, location: str | None, traceparent: str | None) -> Receipt:
    outcome = event.outcome
    versions = versions_of(outcome)
    metrics: CommitMetrics = outcome.metrics
    failed = outcome if isinstance(outcome, Failed) else None
    return Receipt(
        version=versions[-1] if versions else None,
        rows=metrics.rows_added,
        table_id=event.table_id,
        table=None if location is None else canonical_uri(location),
        table_name=event.intent.table_name,
        operation=event.intent.operation,
        result=event.result,
        versions=versions,
        files=metrics.files_added,
        retries=metrics.retries,
        metrics=metrics,
        error_type=None if failed is None else failed.error_type,
        landed=None if failed is None else failed.landed,
        write_id=event.write_id,
        run_id=event.run.run_id,
        traceparent=traceparent,
    )


class ReceiptBlock:
    """The writes of an open :func:`receipts` block.

    Attributes:
        writes: the writes so far.
        outer: the block around it; None without one.
        is_open: whether the block has not ended.
    """

    __slots__ = ("is_open", "outer", "writes")

    def __init__(self, outer: ReceiptBlock | None) -> None:
        self.outer: ReceiptBlock | None = outer
        self.writes: list[PendingReceipt] = []
        self.is_open: bool = True

    def add(self, write: PendingReceipt) -> None:
        """Add a write to this block and to the blocks around it, as far as they are open."""
        block: ReceiptBlock | None = self
        while block is not None:
            if block.is_open:
                block.writes.append(write)
            block = block.outer


class Receipts(Sequence[Receipt]):
    """The receipts of the writes of a :func:`deltawitness.receipts` block, in order of their ends.

    It grows while the block is open. A commit is parsed when its receipt is first read.
    """

    __slots__ = ("_writes",)

    def __init__(self, writes: Sequence[Any]) -> None:  # of PendingReceipt, which is private
        self._writes: Sequence[PendingReceipt] = writes

    def __len__(self) -> int:
        return len(self._writes)

    @overload
    def __getitem__(self, index: int) -> Receipt: ...

    @overload
    def __getitem__(self, index: slice) -> list[Receipt]: ...

    def __getitem__(self, index: int | slice) -> Receipt | list[Receipt]:
        if isinstance(index, slice):
            return [write.receipt() for write in self._writes[index]]
        return self._writes[index].receipt()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({list(self)!r})"


_active: ContextVar[ReceiptBlock | None] = ContextVar("deltawitness_receipts", default=None)
_last: ContextVar[PendingReceipt | None] = ContextVar("deltawitness_last_commit", default=None)
"""The last write of the context that has or may have committed."""


def record_receipt(write: InFlightWrite, tail: int) -> None:
    """Make a write that has ended the last one of the context, and add it to the open block and the run.

    Call it on the thread of the write, before the write is delivered.

    Args:
        write: the write.
        tail: number of log versions to search for a commit of unknown version.
    """
    pending = write.receipt = PendingReceipt(write, tail)
    block = _active.get()
    if block is not None:
        block.add(pending)
    if write.commit is None or write.failure is not None:
        if not _may_have_committed(write):
            return
        pending.previous = _last_with_commit(_last.get())
    _last.set(pending)
    write.run.run_commits().add(pending)


def _may_have_committed(write: InFlightWrite) -> bool:
    if write.no_commit_reason is not None or write.exported is not None:
        return False
    if write.failure is not None:
        return write.landed is not Landed.NO
    return write.version is None or write.version != write.base


def _last_with_commit(write: PendingReceipt | None) -> PendingReceipt | None:
    """Return a write, or the first one before it that is not known to have made no commit."""
    while write is not None and write.has_no_commit:
        write = write.previous
    return write


def last_commit() -> Receipt | None:
    """Return the receipt of the last commit that the calling context has made; None without one.

    A context is a thread or an asyncio task: a new thread has no commit yet, a new task starts with that of
    its creator. Commits in threads and tasks that a block starts are in :func:`deltawitness.receipts`.
    Only observed writes count (:class:`deltawitness.DeltaLakeInstrumentor`), also those that a library
    makes. A write that failed counts if its commit is in the log.

    >>> import pyarrow as pa, tempfile
    >>> from deltalake import write_deltalake
    >>> from deltawitness import DeltaLakeInstrumentor, last_commit
    >>> DeltaLakeInstrumentor().instrument()
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_deltalake(f"{folder}/t", pa.table({"x": [1, 2]}))
    ...     commit = last_commit()
    >>> DeltaLakeInstrumentor().uninstrument()
    >>> commit.table_name, commit.version, commit.rows, commit.operation.value
    ('t', 0, 2, 'WRITE')
    """
    last = _last.get()
    while last is not None:
        receipt = last.receipt()
        if receipt.version is not None:
            return receipt
        last = last.previous
    return None


@contextmanager
def receipts() -> Iterator[Receipts]:
    """Collect the receipts of all writes of a block, also of those that libraries make.

    The writes of threads and asyncio tasks that the block starts are included, if they end before the
    block does; those of other threads, of other processes and of `suppressed()` blocks are not. A write that
    failed or made no commit has a receipt, too. Only observed writes have receipts
    (:class:`deltawitness.DeltaLakeInstrumentor`). A block inside the block adds its receipts to both.

    >>> import pyarrow as pa, tempfile
    >>> from deltalake import write_deltalake
    >>> from deltawitness import DeltaLakeInstrumentor, receipts
    >>> DeltaLakeInstrumentor().instrument()
    >>> with tempfile.TemporaryDirectory() as folder, receipts() as got:
    ...     write_deltalake(f"{folder}/t", pa.table({"x": [1, 2]}))
    ...     for receipt in got:
    ...         print(receipt.table_name, receipt.version, receipt.rows)
    t 0 2
    >>> DeltaLakeInstrumentor().uninstrument()
    """
    block = ReceiptBlock(_active.get())
    token = _active.set(block)
    try:
        yield Receipts(block.writes)
    finally:
        _active.reset(token)
        block.is_open = False


def active_receipts() -> ReceiptBlock | None:
    """Return the innermost open block of the calling context; None outside of any."""
    return _active.get()


@contextmanager
def use_receipts(block: ReceiptBlock | None) -> Iterator[None]:
    """Collect the writes of the `with` statement in a block that another thread has opened.

    Args:
        block: the block; None for none.
    """
    token = _active.set(block)
    try:
        yield
    finally:
        _active.reset(token)
