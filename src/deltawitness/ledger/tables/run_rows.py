"""Rows of the run summary: tallies of open runs, and the row of a finished run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from deltawitness.ledger.tables.write_rows import process_columns, python_version
from deltawitness.redaction import redact_message, redacted_run
from deltawitness.run_context import RunContext
from deltawitness.run_origin import RunOrigin
from deltawitness.semconv import UNCOMMITTED_OPERATIONS, CacheOperation, CacheResult

__all__ = ["TALLIED", "OpenRun", "RunStatus", "Tally", "run_row"]

Row = dict[str, Any]


class RunStatus(StrEnum):
    """How a run ended."""

    OK = "ok"
    ERROR = "error"
    ABANDONED = "abandoned"
    """Its process died without recording an end."""
    RECONSTRUCTED = "reconstructed"
    """No process recorded the run; its writes were found in the logs of tables."""


_SUMS = (
    "rows_added",
    "rows_updated",
    "rows_deleted",
    "files_added",
    "files_removed",
    "bytes_added",
    "bytes_removed",
    "retries",
    "files_deleted",
    "bytes_deleted",
    "rows_served",
)

TALLIED = ("cache_operation", "result", "table_id", "version", *_SUMS)
"""The columns of the inventory that a tally reads."""

_COUNTED_BY_RESULT = {
    CacheResult.HIT.value: "hits",
    CacheResult.MISS.value: "misses",
    CacheResult.WRITE.value: "writes",
    CacheResult.NOOP.value: "noops",
    CacheResult.ERROR.value: "errors",
}

_UNCOMMITTED = frozenset(operation.value for operation in UNCOMMITTED_OPERATIONS)

_SNAPSHOT = CacheOperation.SNAPSHOT.value
"""A written snapshot also has a row of its write, and only that row counts as a write."""

_COUNTED_BY_OPERATION = {
    CacheOperation.READ.value: "reads",
    CacheOperation.SNAPSHOT.value: "snapshots",
}


@dataclass(slots=True)
class Tally:
    """Counts and sums over the operations of a run.

    >>> tally = Tally()
    >>> tally.add({"cache_operation": "write", "result": "write", "rows_added": 3})
    >>> tally.columns()["writes"], tally.columns()["rows_added"]
    (1, 3)
    """

    operations: Counter[tuple[str, str]] = field(default_factory=Counter)
    sums: Counter[str] = field(default_factory=Counter)
    tables: dict[str, None] = field(default_factory=dict)

    def add(self, row: Mapping[str, Any]) -> None:
        """Add an operation, given its row in the inventory."""
        self.operations[row["cache_operation"], row["result"]] += 1
        for name in _SUMS:
            self.sums[name] += row.get(name) or 0
        table = row.get("table_id")
        # For a read `version` is the version read, for a snapshot that of its write.
        is_commit = row.get("version") is not None and row["cache_operation"] not in _UNCOMMITTED
        if table is not None and is_commit:
            self.tables[table] = None

    def columns(self) -> Row:
        """Return the count columns of the run's row."""
        counts = Counter(dict.fromkeys(("reads", "snapshots", *_COUNTED_BY_RESULT.values()), 0))
        for (operation, result), count in self.operations.items():
            is_counted_within = operation == _SNAPSHOT and result == CacheResult.WRITE
            if not is_counted_within:
                counts[_COUNTED_BY_RESULT[result]] += count
            if operation in _COUNTED_BY_OPERATION:
                counts[_COUNTED_BY_OPERATION[operation]] += count
        return {
            **counts,
            "operations": [
                {"operation": operation, "result": result, "count": count}
                for (operation, result), count in sorted(self.operations.items())
            ],
            **{name: self.sums[name] for name in _SUMS},
            "tables_touched": len(self.tables),
            "table_ids": list(self.tables),
        }


@dataclass(slots=True)
class OpenRun:
    """A run that is open in this process.

    Attributes:
        context: the run.
        is_part: whether another process opened it.
        depth: number of nested openings in this process; 0 when no code of this process will close
            it.
        tally: this process's operations of the run so far.
        end_row: its row, once it has ended but the spool could not take the row yet.
        error: the exception that ended it, when its row is written only at the end of the process.
    """

    context: RunContext
    is_part: bool
    depth: int = 0
    tally: Tally = field(default_factory=Tally)
    end_row: Row | None = None
    error: BaseException | None = None

    @property
    def is_open_part(self) -> bool:
        """Whether another process opened it and no code of this process will close it."""
        return self.is_part and self.depth <= 0 and self.end_row is None

    def start_row(self, cache_root: str) -> Row:
        """Return the columns that are known while the run is open."""
        run = redacted_run(self.context)
        place = process_columns()
        del place["engine"]
        return {
            "run_id": run.run_id,
            "parent_run_id": run.parent_run_id,
            "job": run.job,
            "is_part": self.is_part,
            "start_time": run.started_at // 1000,
            "cache_root": cache_root,
            **place,
            "python_version": python_version(),
            "attributes": [
                {"name": name, "value": value} for name, value in run.attributes.items()
            ],
            "message": self.context.message and redact_message(self.context.message),
            **_origin_columns(run.origin),
        }


def _origin_columns(origin: RunOrigin) -> Row:
    return {
        "author": origin.author,
        "system": origin.system,
        "pipeline": origin.job,
        "pipeline_run_id": origin.run_id,
        "task": origin.task,
        "attempt": origin.attempt,
        "code_version": origin.code_version,
        "image": origin.image,
        "pod": origin.pod,
        "link": origin.link,
    }


def run_row(  # noqa: PLR0913 - keyword-only
    started: Row,
    tally: Tally,
    *,
    status: RunStatus,
    end_time: int,
    error_type: str | None = None,
    dropped: int = 0,
    exit_code: int | None = None,
) -> Row:
    """Return the row of a run that has ended.

    Args:
        started: its columns from :meth:`OpenRun.start_row`.
        tally: its operations.
        status: how it ended.
        end_time: microseconds since the Unix epoch.
        error_type: class name of the exception that ended it.
        dropped: operations of the process that were dropped before they reached the spool.
        exit_code: of the process, if the run's end determines it.
    """
    return {
        **started,
        **tally.columns(),
        "end_time": end_time,
        "status": status.value,
        "error_type": error_type,
        "dropped": dropped,
        "exit_code": exit_code,
    }
