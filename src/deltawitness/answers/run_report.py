"""The report of one run: its child runs, its processes, its operations, and the tables that it wrote."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime

from deltawitness.answers.lists import rows_of_runs
from deltawitness.answers.predicates import NEWEST_RUNS, equal
from deltawitness.ledger.tables.listing import LedgerListing, Row
from deltawitness.ledger.tables.literals import is_in, timestamp_literal
from deltawitness.ledger.tables.schema import INVENTORY, RUNS
from deltawitness.locations import last_segment
from deltawitness.redaction import redact_message
from deltawitness.semconv import UNDO_JOB, CacheResult

__all__ = ["COUNTS", "RunReport", "read_run", "run_family", "undo_message", "undone_runs"]

COUNTS = (
    *("reads", "hits", "misses", "writes", "snapshots", "noops", "errors"),
    *("rows_added", "rows_updated", "rows_deleted", "files_added", "files_removed"),
    *("bytes_added", "bytes_removed", "retries", "dropped"),
)
"""Count columns of a run that can be summed over runs."""

_SUMMED = (
    *("rows_added", "rows_updated", "rows_deleted", "files_added", "files_removed"),
    *("bytes_added", "bytes_removed", "retries"),
)
"""Count columns of operations that are summed by table and operation."""

_PART_COLUMNS = (
    *("run_id", "host", "pid", "is_part", "status", "error_type", "exit_code"),
    *("start_time", "end_time", "writes", "noops", "errors", "rows_added"),
)


@dataclass(frozen=True, slots=True)
class RunReport:
    """The ledger's rows of one run and its child runs.

    Attributes:
        run: its row; for an unfinished run only the id, the job and the time of its first operation.
        children: the rows of its child runs at any depth, by the id of their parent.
        operations: counts of the operations by table, operation and mode, in the order of the first of each.
        writes: the rows of the operations of the run and its child runs, oldest first.
        parts: a row for each process that took part in the run itself, in order of their starts.
        undone_by: the rows of the finished runs that have undone the run, oldest first.
    """

    run: Row
    children: dict[str, list[Row]]
    operations: list[Row]
    writes: list[Row]
    parts: list[Row]
    undone_by: list[Row] = field(default_factory=list)

    @property
    def failed(self) -> list[Row]:
        """The rows of the failed operations, oldest first."""
        return [row for row in self.writes if row["result"] == CacheResult.ERROR.value]

    def family(self) -> Iterator[Row]:
        """Yield the rows of the run and of its child runs."""
        yield self.run
        for rows in self.children.values():
            yield from rows

    def total(self) -> dict[str, int]:
        """Return the counts, summed over the run and its child runs."""
        return {name: sum(row[name] or 0 for row in self.family()) for name in COUNTS}

    def outputs(self) -> list[Row]:
        """Return the tables that the run and its child runs have written, with the versions."""
        found: dict[str, Row] = {}
        for row in self.writes:
            versions = row["versions"] or ([] if row["version"] is None else [row["version"]])
            place = row["table_uri"] or row["table_id"]
            if not versions or place is None:
                continue
            name = row["table_name"] or last_segment(place)
            entry = found.setdefault(
                place,
                {
                    "name": name,
                    "uri": row["table_uri"],
                    "table_id": row["table_id"],
                    "versions": set(),
                },
            )
            entry["versions"].update(versions)
        return [
            {**entry, "version": max(entry["versions"]), "versions": sorted(entry["versions"])}
            for entry in found.values()
        ]

    def trace_ids(self) -> list[str]:
        """Return the ids of the traces of the operations, each once, in order."""
        return list(dict.fromkeys(row["trace_id"] for row in self.writes if row["trace_id"]))


def read_run(ledger: LedgerListing, run_id: str) -> RunReport:
    """Return the report of a run.

    Args:
        ledger: the ledger to query.
        run_id: the complete id of a run of the ledger.
    """
    found = rows_of_runs(ledger, equal("run_id", run_id), order=NEWEST_RUNS)
    run = found[0] if found else _unfinished_run(ledger, run_id)
    children = _children(ledger, run_id)
    family = [run_id, *(child["run_id"] for rows in children.values() for child in rows)]
    is_of_family = is_in("run_id", family)
    return RunReport(
        run,
        children,
        _counted_operations(ledger, is_of_family),
        ledger.rows(INVENTORY, [is_of_family], order="event_time, version"),
        _parts(ledger, run_id),
        _undone_by(ledger, run_id),
    )


_UNDO_OF = "undo of run "


def undo_message(run_id: str) -> str:
    """Return the message of a run that undoes another run, as the ledger has it."""
    return redact_message(f"{_UNDO_OF}{run_id}")


def _undone_by(ledger: LedgerListing, run_id: str) -> list[Row]:
    conditions = [*equal("job", UNDO_JOB), *equal("message", undo_message(run_id))]
    return rows_of_runs(ledger, conditions, order="start_time")


def undone_runs(ledger: LedgerListing, at: datetime) -> frozenset[str]:
    """Return the ids of the runs that were completely undone, and of their child runs.

    A run whose undo was undone itself is not one of them.

    Args:
        ledger: the ledger to query.
        at: skips later undos.
    """
    conditions = [
        *equal("job", UNDO_JOB),
        *equal("status", "ok"),
        f"start_time <= {timestamp_literal(at)}",
    ]
    undone: set[str] = set()
    for row in rows_of_runs(ledger, conditions, order=NEWEST_RUNS):
        message = row["message"] or ""
        if row["run_id"] not in undone and message.startswith(_UNDO_OF):
            undone.add(message.removeprefix(_UNDO_OF))
    level = undone
    while level:
        children = rows_of_runs(ledger, [is_in("parent_run_id", sorted(level))], order="start_time")
        level = {row["run_id"] for row in children} - undone
        undone = undone | level
    return frozenset(undone)


def run_family(ledger: LedgerListing, run_id: str) -> list[str]:
    """Return the id of a run, and those of its child runs at any depth."""
    rows = (row for rows in _children(ledger, run_id).values() for row in rows)
    return [run_id, *(row["run_id"] for row in rows)]


def _unfinished_run(ledger: LedgerListing, run_id: str) -> Row:
    """Return a row for a run without one: id, job and start time from its first operation, else None."""
    first = ledger.rows(INVENTORY, equal("run_id", run_id), order="event_time", limit=1)[0]
    values = {"run_id": run_id, "job": first["job"], "start_time": first["event_time"]}
    return dict.fromkeys([*(name for name, *_ in RUNS.columns[1:]), "processes"]) | values


def _children(ledger: LedgerListing, run_id: str) -> dict[str, list[Row]]:
    children: dict[str, list[Row]] = {}
    level, seen = [run_id], {run_id}
    while level:
        found = rows_of_runs(ledger, [is_in("parent_run_id", level)], order="start_time")
        rows = [row for row in found if row["run_id"] not in seen]
        for row in rows:
            children.setdefault(row["parent_run_id"], []).append(row)
        level = [row["run_id"] for row in rows]
        seen.update(level)
    return children


def _parts(ledger: LedgerListing, run_id: str) -> list[Row]:
    columns = ", ".join(_PART_COLUMNS)
    condition = equal("run_id", run_id)[0]
    return ledger.query(
        f"SELECT {columns} FROM run_parts WHERE {condition} ORDER BY start_time, pid"  # noqa: S608 - quoted
    )


def _counted_operations(ledger: LedgerListing, condition: str) -> list[Row]:
    """Return counts by table, operation and mode, in the order of the first operation of each."""
    sums = ", ".join(f"CAST(sum({name}) AS BIGINT) AS {name}" for name in _SUMMED)
    return ledger.query(
        "SELECT table_id, table_name, operation, mode, count(*) AS operations,"  # noqa: S608 - quoted
        " count(CASE WHEN result = 'error' THEN 1 END) AS errors,"
        f" sum(duration_ms) AS milliseconds, min(event_time) AS first, {sums}"
        f" FROM inventory WHERE {condition}"
        " GROUP BY table_id, table_name, operation, mode ORDER BY first, operation"
    )
