"""`expect`: the expectations that are in force for the writes of the calling code."""

from __future__ import annotations

import importlib
import os
import threading
from collections import deque
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import TracebackType
from typing import TYPE_CHECKING, Any

from deltawitness.events import ExpectationReport
from deltawitness.exceptions import ConfigurationError, ExpectationError
from deltawitness.expectations.rules import Rules, parse_rules
from deltawitness.locations import table_id
from deltawitness.redaction import redact_label
from deltawitness.run import is_suppressed
from deltawitness.semconv import ExpectationAction

if TYPE_CHECKING:
    from deltalake import DeltaTable

__all__ = [
    "CHECKED",
    "Expectation",
    "ExpectationBlock",
    "expect",
    "expectations_for",
    "has_expectations",
    "no_expectations",
    "set_checked",
]

CHECKED = frozenset({"write", "write_deltalake_rust"})
"""Names of the callables of delta-rs that must be replaced, so that no write passes unchecked."""


MAX_REPORTS = 1000
"""Reports that an expectation has: one that is registered is for all writes of a process."""


class Expectation:
    """Rules, and the writes that they apply to.

    Attributes:
        rules: the rules.
        table: id of the table; None for every table.
        policy: name of the policy, redacted as in commits; None for every policy.
        owner: the object whose block it belongs to.
    """

    __slots__ = ("_reports", "owner", "policy", "rules", "table")

    def __init__(
        self, rules: Rules, table: str | None, policy: str | None, owner: object = None
    ) -> None:
        self.rules: Rules = rules
        self.owner: object = owner
        self.table: str | None = table
        self.policy: str | None = policy
        self._reports: deque[ExpectationReport] = deque(maxlen=MAX_REPORTS)

    @property
    def reports(self) -> tuple[ExpectationReport, ...]:
        """The reports of the last writes, at most `MAX_REPORTS`."""
        return tuple(self._reports.copy())  # another thread may append

    def applies_to(self, table: str, policy: str) -> bool:
        """Return whether the rules apply to a write.

        Args:
            table: id of the table.
            policy: name of the policy of the write.
        """
        return self.table in {None, table} and self.policy in {None, policy}

    def add(self, report: ExpectationReport) -> None:
        """Add the report of a write."""
        self._reports.append(report)


class ExpectationBlock:
    """The reports of the writes of a block; the value of `with expect(...) as block`."""

    __slots__ = ("_expectation",)

    def __init__(self, expectation: Any) -> None:  # an Expectation, which is private
        self._expectation: Expectation = expectation

    @property
    def reports(self) -> tuple[ExpectationReport, ...]:
        """The reports of the last 1,000 checked writes, in order."""
        return self._expectation.reports


_blocks: ContextVar[tuple[Expectation, ...]] = ContextVar("deltawitness_expectations", default=())
_suspended: ContextVar[bool] = ContextVar("deltawitness_no_expectations", default=False)
_registered: tuple[Expectation, ...] = ()
_lock = threading.Lock()
_replaced: frozenset[str] = frozenset()


def set_checked(names: Collection[str]) -> None:
    """Record which callables of delta-rs are replaced now; none after the originals are restored."""
    global _replaced  # noqa: PLW0603 - one delta-rs per process
    _replaced = frozenset(names)


class expect:  # noqa: N801 - used as `with expect(...)`, where the lower case is the idiom
    """Check the rows of writes before they are committed.

    In a `with` statement, it covers the writes of the block. :meth:`register` makes it cover the writes of
    the process. `table` and `policy` limit it to the writes to one table, or of one policy. If several
    expectations cover a write, each is checked.

    It covers `write_deltalake`, SQL INSERT, frames, pipelines, the source rows of `DeltaTable.merge`, and
    files that are added by `create_write_transaction`, as far as their statistics allow.

    Args:
        rows_added: number of rows that the write adds: a count, a pair `(min, max)` with None for no bound,
            or :func:`deltawitness.within`.
        schema: `unchanged`: the rows have the columns and types of the table. `compatible`: the rows may
            have further columns.
        nulls: for each column, the maximum number of nulls (int), or their maximum fraction of the rows
            (float from 0 to 1).
        unique: a column, a list of the columns of a key, or a list of such lists: each key is at most once
            in the written rows. Rows with a null in the key are ignored.
        values: for each column a pair `(min, max)`, inclusive, with None for no bound, or a set of the
            allowed values. Nulls are ignored.
        on_failure: what happens to a write whose rows do not meet a rule. `fail`: it raises
            `ExpectationError` and commits nothing. `warn`: it commits, and logs a warning. `quarantine`:
            its rows are appended to another table, and nothing is committed to this one.
        quarantine: path or URI of that table; by default the path of the table with `_quarantine` at its
            end.
        storage_options: storage options of that table. By default those of the write, as far as it shows
            them: `write_deltalake` does, a merge does not.
        table: path or URI of a table, or an open table; every table when None.
        policy: name of a policy; every policy when None.

    Raises:
        ConfigurationError: an argument is invalid, or there is no rule.
        ExpectationError: at the start of the block, delta-rs is not instrumented or writes are suppressed.

    >>> import pyarrow as pa, tempfile
    >>> from deltalake import DeltaTable, write_deltalake
    >>> from deltawitness import DeltaLakeInstrumentor
    >>> DeltaLakeInstrumentor().instrument()
    >>> folder = tempfile.mkdtemp()
    >>> with expect(rows_added=(1, 1000), nulls={"id": 0}) as block:
    ...     write_deltalake(folder, pa.table({"id": [1, 2]}))
    ...     try:
    ...         write_deltalake(folder, pa.table({"id": [3, None]}), mode="append")
    ...     except ExpectationError as error:
    ...         print(error)
    expectations not met, nothing was committed: nulls(id): 1 null, at most 0 allowed
    >>> [report.result.value for report in block.reports], DeltaTable(folder).version()
    (['passed', 'failed'], 0)
    >>> DeltaLakeInstrumentor().uninstrument()
    """

    __slots__ = ("_expectation", "_policy", "_rules", "_table")

    def __init__(  # noqa: PLR0913 - the rules, by keyword
        self,
        *,
        rows_added: object = None,
        schema: str | None = None,
        nulls: object = None,
        unique: object = None,
        values: object = None,
        on_failure: ExpectationAction | str = ExpectationAction.FAIL,
        quarantine: str | os.PathLike[str] | None = None,
        storage_options: Mapping[str, str] | None = None,
        table: str | os.PathLike[str] | DeltaTable | None = None,
        policy: str | None = None,
    ) -> None:
        self._rules = parse_rules(
            rows_added=rows_added,
            schema=schema,
            nulls=nulls,
            unique=unique,
            values=values,
            on_failure=on_failure,
            quarantine=None if quarantine is None else os.fspath(quarantine),
            storage_options=storage_options,
        )
        self._table = None if table is None else _id_of(table)
        self._policy = None if policy is None else redact_label(policy)
        self._expectation: Expectation | None = None

    def __enter__(self) -> ExpectationBlock:
        _check_instrumented()
        expectation = self._new()
        _blocks.set((*_blocks.get(), expectation))
        return ExpectationBlock(expectation)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # Not by a token: several threads may be in blocks of this object at the same time.
        blocks = _blocks.get()
        mine = next((each for each in reversed(blocks) if each.owner is self), None)
        _blocks.set(tuple(each for each in blocks if each is not mine))

    def register(self, *, is_declared: bool = False) -> ExpectationBlock:
        """Check the writes of this process, in all threads, until :meth:`unregister` is called.

        Child processes that are started later by `fork` are covered, others are not.

        Args:
            is_declared: whether the expectation is of `DELTAWITNESS_EXPECTATIONS`, which may be in force
                where only the writes inside of proxies are observed.

        Raises:
            ExpectationError: delta-rs is not instrumented, or writes are suppressed.
        """
        global _registered  # noqa: PLW0603 - one list per process
        if not is_declared:
            _check_instrumented()
        with _lock:
            if self._expectation is None:
                self._expectation = self._new()
                _registered = (*_registered, self._expectation)
            return ExpectationBlock(self._expectation)

    def unregister(self) -> None:
        """Undo :meth:`register`."""
        global _registered  # noqa: PLW0603 - one list per process
        with _lock:
            mine, self._expectation = self._expectation, None
            _registered = tuple(each for each in _registered if each is not mine)

    def _new(self) -> Expectation:
        return Expectation(self._rules, self._table, self._policy, self)


def _id_of(table: Any) -> str:
    uri = getattr(table, "table_uri", table)
    if not isinstance(uri, str | os.PathLike):
        msg = f"expect: `table` must be a path, a URI or an open table, not {type(table).__name__}"
        raise ConfigurationError(msg)
    return table_id(uri)


def _check_instrumented() -> None:
    importlib.import_module("deltalake")  # its import hook may install the instrumentation
    if not _replaced:
        msg = (
            "expect: delta-rs is not instrumented; call DeltaLakeInstrumentor().instrument()"
            " or run the program with `deltawitness run`"
        )
        raise ExpectationError(msg)
    if missing := sorted(CHECKED - _replaced):
        msg = (
            f"expect: not possible with this release of deltalake, which lacks {', '.join(missing)}"
        )
        raise ExpectationError(msg)
    if is_suppressed():
        msg = "expect: writes inside suppressed() are not checked; open the block outside of it"
        raise ExpectationError(msg)


def has_expectations() -> bool:
    """Return whether any expectation may apply to a write of the calling code."""
    return bool(_registered or _blocks.get()) and not _suspended.get()


def expectations_for(location: str, policy: str) -> list[Expectation]:
    """Return the expectations for a write of the calling code, those of blocks last.

    Args:
        location: path or URI of the table.
        policy: name of the policy of the write.
    """
    if not has_expectations():
        return []
    table = table_id(location)
    return [each for each in (*_registered, *_blocks.get()) if each.applies_to(table, policy)]


@contextmanager
def no_expectations() -> Iterator[None]:
    """Suspend expectations for writes that the library makes itself, such as those of the cache."""
    token = _suspended.set(True)
    try:
        yield
    finally:
        _suspended.reset(token)
