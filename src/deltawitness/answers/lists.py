"""List runs, operations and failed operations of the ledger, as dictionaries of its columns."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from deltawitness.answers.lookup import find_run_id, table_condition
from deltawitness.answers.predicates import (
    NEWEST_RUNS,
    NEWEST_WRITES,
    equal,
    has_operation,
    has_version,
    is_since,
    recorded_job,
)
from deltawitness.ids_and_clock import in_utc
from deltawitness.ledger.tables.listing import LedgerListing, Row
from deltawitness.ledger.tables.literals import is_in, timestamp_literal
from deltawitness.ledger.tables.schema import INVENTORY, RUNS
from deltawitness.semconv import CacheOperation, CacheResult, ExpectationResult
from deltawitness.sql_quoting import quote_literal

__all__ = ["WriteFilter", "list_reads", "list_runs", "list_writes", "rows_of_runs"]


def list_runs(  # noqa: PLR0913 - keyword-only filters
    ledger: LedgerListing,
    *,
    job: str | None = None,
    status: str | None = None,
    since: datetime | None = None,
    limit: int | None = None,
    offset: int = 0,
) -> list[Row]:
    """Return finished runs, newest first.

    Args:
        ledger: the ledger to query.
        job: skips other jobs.
        status: skips runs with another status.
        since: skips runs that started earlier.
        limit: maximum number of rows.
        offset: number of newer runs to skip.
    """
    conditions = [
        *equal("job", recorded_job(job)),
        *equal("status", status),
        *is_since("start_time", since),
    ]
    order = f"{NEWEST_RUNS}, run_id"
    return rows_of_runs(ledger, conditions, order=order, limit=limit, offset=offset)


def rows_of_runs(
    ledger: LedgerListing,
    conditions: Iterable[str],
    *,
    order: str,
    limit: int | None = None,
    offset: int = 0,
) -> list[Row]:
    """Return rows of runs.

    First their ids are found, then their rows: a query of all columns would sum the columns of all runs.

    Args:
        ledger: the ledger to query.
        conditions: SQL predicates that all hold.
        order: the ORDER BY clause.
        limit: maximum number of rows.
        offset: number of rows to skip.
    """
    where = " AND ".join(f"({condition})" for condition in conditions) or "true"
    end = _page(limit, offset)
    found = ledger.query(f"SELECT run_id FROM runs WHERE {where} ORDER BY {order}{end}")  # noqa: S608 - quoted
    if not found:
        return []
    return ledger.rows(RUNS, [is_in("run_id", (row["run_id"] for row in found))], order=order)


def _page(limit: int | None, offset: int) -> str:
    """Return the end of a query."""
    end = "" if limit is None else f" LIMIT {limit}"
    return end if offset == 0 else f"{end} OFFSET {offset}"


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteFilter:
    """Selects operations; None selects all.

    Attributes:
        table: the table's name, id (or an unambiguous prefix of it) or location.
        run: the id of the run, or an unambiguous prefix of it.
        job: name of the job.
        user: the author of the run, in any case.
        operation: the operation, as a log, a listing or the cache names it, in any case.
        version: a version that the operation has committed.
        result: the result.
        since: time before which operations are skipped.
        expectation: the result of the expectations.
    """

    table: str | None = None
    run: str | None = None
    job: str | None = None
    user: str | None = None
    operation: str | None = None
    version: int | None = None
    result: CacheResult | None = None
    since: datetime | None = None
    expectation: ExpectationResult | None = None

    def conditions(self, ledger: LedgerListing, prefix: str = "") -> list[str]:
        """Return the SQL predicates.

        Args:
            ledger: the ledger in which names are looked up.
            prefix: precedes the name of an argument in error messages, such as `--`.

        Raises:
            LedgerLookupError: the ledger has no such table or run, or several.
        """
        run_id = None if self.run is None else find_run_id(ledger, self.run, f"{prefix}run: ")
        return [
            *is_since("event_time", self.since),
            *equal("result", None if self.result is None else self.result.value),
            *equal(
                "expectation_result", None if self.expectation is None else self.expectation.value
            ),
            *equal("run_id", run_id),
            *equal("job", recorded_job(self.job)),
            *([] if self.operation is None else [has_operation(self.operation)]),
            *([] if self.version is None else [_has_version(ledger, self.version)]),
            *([] if self.user is None else [_is_of_author(self.user)]),
            *(
                []
                if self.table is None
                else [table_condition(ledger, self.table, f"{prefix}table: ")]
            ),
        ]


def _has_version(ledger: LedgerListing, version: int) -> str:
    return has_version(version) if ledger.has(INVENTORY) else "false"


def _is_of_author(user: str) -> str:
    author = f"lower(author) = lower({quote_literal(user)})"
    return f"run_id IN (SELECT run_id FROM run_parts WHERE {author})"  # noqa: S608 - quoted


def list_writes(
    ledger: LedgerListing,
    chosen: WriteFilter,
    *,
    limit: int | None = None,
    offset: int | None = None,
    prefix: str = "",
) -> list[Row]:
    """Return operations, newest first.

    Args:
        ledger: the ledger to query.
        chosen: selects the operations.
        limit: maximum number of rows.
        offset: number of newer operations to skip, for pages; None for a list without pages.
        prefix: precedes the name of an argument in error messages, such as `--`.

    Raises:
        LedgerLookupError: the ledger has no such table or run, or several.
    """
    conditions = chosen.conditions(ledger, prefix)
    if offset is None:
        return ledger.rows(INVENTORY, conditions, order=_PAGED_WRITES, limit=limit)
    # First the ids: a sort of all columns of a long ledger would take most of the time of a page.
    where = " AND ".join(f"({condition})" for condition in conditions) or "true"
    found = ledger.query(
        f"SELECT write_id, event_time FROM inventory WHERE {where}"  # noqa: S608 - quoted
        f" ORDER BY {_PAGED_WRITES}{_page(limit, offset)}"
    )
    if not found:
        return []
    ids = is_in("write_id", (row["write_id"] for row in found))
    times = [in_utc(row["event_time"]) for row in found if row["event_time"] is not None]
    near = [] if len(times) < len(found) else _between(min(times), max(times))
    return ledger.rows(INVENTORY, [*conditions, *near, ids], order=_PAGED_WRITES)


_PAGED_WRITES = f"{NEWEST_WRITES}, write_id"


def _between(first: datetime, last: datetime) -> list[str]:
    """Return the conditions that the time of an operation is in a range, with which files are skipped."""
    until = f"event_date <= DATE '{last.date()}'"
    return [*is_since("event_time", first), until, f"event_time <= {timestamp_literal(last)}"]


def list_reads(ledger: LedgerListing, name: str, limit: int) -> list[Row]:
    """Return the last reads of a cache entry, newest first.

    Args:
        ledger: the ledger to query.
        name: name of the entry.
        limit: maximum number of rows.
    """
    conditions = [
        *equal("cache_operation", CacheOperation.READ.value),
        *equal("table_name", name),
    ]
    return ledger.rows(INVENTORY, conditions, order=NEWEST_WRITES, limit=limit)
