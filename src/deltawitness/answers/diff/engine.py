"""A DataFusion session with bounded memory, and columns of two versions in common types."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from deltawitness.answers.table_queries import error_text
from deltawitness.exceptions import DiffError
from deltawitness.run import suppressed
from deltawitness.session.core.unpatched import unpatched

if TYPE_CHECKING:
    import pyarrow as pa
    from datafusion import SessionContext

    from deltawitness.answers.diff.datasets import ComparableRows, RowSource

__all__ = ["MEMORY_BYTES", "Engine", "Pair", "compared", "listed", "unreadable_rows"]

MEMORY_BYTES = 1 << 30
"""Memory of a query in bytes; a query that needs more writes temporary files."""

BATCH_ROWS = 1 << 15
"""Number of rows that the engine processes at a time."""

_EXHAUSTED = "Resources exhausted"
"""Begins the error of a query that needs more memory and cannot write temporary files."""


def compared(source: RowSource, columns: Sequence[str]) -> ComparableRows:
    """Return columns of a source in a form that can be compared."""
    from deltawitness.answers.diff.datasets import ComparableRows  # noqa: PLC0415 - heavy

    return ComparableRows(source, columns)


def listed(parts: Sequence[str]) -> str:
    """Return the parts of a SQL list, without empty ones."""
    return ", ".join(part for part in parts if part)


class Pair:
    """The same columns of two sources.

    Args:
        a: the first source.
        b: the second source.
        columns: names of the columns.
    """

    def __init__(self, a: RowSource, b: RowSource, columns: Sequence[str]) -> None:
        self.columns: tuple[str, ...] = tuple(columns)
        self.a: ComparableRows = compared(a, columns)
        self.b: ComparableRows = compared(b, columns)

    def expressions(self) -> tuple[list[str], list[str]]:
        """Return a SQL expression per column and source, with equal types on both sides.

        Numbers of different types are compared as numbers, other values of different types as text.
        """
        left, right = [], []
        for at, (one, other) in enumerate(
            zip(self.a.schema.types, self.b.schema.types, strict=True)
        ):
            is_plain = one == other or (_is_number(one) and _is_number(other))
            text = f"c{at}" if is_plain else f"CAST(c{at} AS VARCHAR) AS c{at}"
            left.append(text)
            right.append(text)
        return left, right


def _is_number(kind: pa.DataType) -> bool:
    import pyarrow.types as pt  # noqa: PLC0415 - heavy

    return bool(pt.is_integer(kind) or pt.is_floating(kind) or pt.is_decimal(kind))


class Engine:
    """Runs SQL over registered rows.

    Joins hash the smaller input; if the memory does not suffice, the query runs once more and
    sorts both inputs instead, with temporary files.
    """

    def __init__(self) -> None:
        self._tables: dict[str, ComparableRows] = {}
        self._session = _session(self._tables, is_sorting=False)
        self._is_sorting = False

    def register(self, name: str, rows: ComparableRows) -> None:
        """Make rows available to queries under a name."""
        self._tables[name] = rows
        _register(self._session, name, rows)

    def rows(self, sql: str) -> list[dict[str, Any]]:
        """Return the rows of a query; the caller limits their number.

        Raises:
            DiffError: the rows of a version cannot be read.
            Exception: of the engine.
        """
        try:
            return self._collect(sql)
        except DiffError:
            raise
        except Exception as error:
            if self._is_sorting or _EXHAUSTED not in str(error):
                raise
        self._is_sorting = True
        self._session = _session(self._tables, is_sorting=True)
        return self._collect(sql)

    def row(self, sql: str) -> dict[str, Any]:
        """Return the only row of a query."""
        (row,) = self.rows(sql)
        return row

    def _collect(self, sql: str) -> list[dict[str, Any]]:
        from deltawitness.answers.diff.datasets import Reading  # noqa: PLC0415 - heavy

        reading = Reading()
        for rows in self._tables.values():
            rows.reading = reading
        try:
            found = _collect(self._session, sql)
        finally:
            reading.stop()
        if reading.error is not None:
            name, error = reading.error
            raise unreadable_rows(name, error) from error
        return found


def unreadable_rows(name: str, error: Exception) -> DiffError:
    """Return the error for rows of a version that cannot be read.

    Args:
        name: the table and the version.
        error: why.
    """
    reason = f"the rows of {name} cannot be read: {error_text(error)}"
    return DiffError(f"{reason}; rows=False (--no-rows) compares the logs alone")


def _session(tables: dict[str, ComparableRows], *, is_sorting: bool) -> SessionContext:
    from datafusion import RuntimeEnvBuilder, SessionConfig, SessionContext  # noqa: PLC0415 - heavy

    runtime = RuntimeEnvBuilder().with_disk_manager_os()
    if is_sorting:
        # A pool in which operators get equal shares: an operator that exceeds its share writes files.
        runtime = runtime.with_fair_spill_pool(MEMORY_BYTES)
        config = SessionConfig().set("datafusion.optimizer.prefer_hash_join", "false")
    else:
        runtime = runtime.with_greedy_memory_pool(MEMORY_BYTES)
        # One hash table for all threads: dividing both inputs by key takes longer than the join.
        config = SessionConfig().set("datafusion.optimizer.repartition_joins", "false")
    config = config.with_batch_size(BATCH_ROWS)
    session = SessionContext(config, runtime)
    for name, rows in tables.items():
        _register(session, name, rows)
    return session


def _register(session: SessionContext, name: str, rows: ComparableRows) -> None:
    unpatched(session, "register_dataset")(name, rows)


def _collect(session: SessionContext, sql: str) -> list[dict[str, Any]]:
    with suppressed():
        frame = unpatched(session, "sql")(sql)
        batches = unpatched(frame, "collect")()
    return [row for batch in batches for row in batch.to_pylist()]
