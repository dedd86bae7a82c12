"""Runs as the ledger tells them: open ones counted as they go, finished ones as a row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from deltawitness.ledger.tables.write_rows import process_columns, python_version
from deltawitness.redaction import redacted_run
from deltawitness.run import RunContext
from deltawitness.semconv import UNCOMMITTED_OPERATIONS, CacheOperation, CacheResult

__all__ = ["TALLIED", "OpenRun", "RunStatus", "Tally", "run_row"]

Row = dict[str, Any]


class RunStatus(StrEnum):
    """How a run ended."""

    OK = "ok"
    ERROR = "error"
    ABANDONED = "abandoned"
    """Its process died without a word."""
    RECONSTRUCTED = "reconstructed"
    """No process has told of it; its writes were found in the logs of tables."""


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
"""The columns of the inventory that a tally looks at."""

_COUNTED_BY_RESULT = {
    CacheResult.HIT.value: "hits",
    CacheResult.MISS.value: "misses",
    CacheResult.WRITE.value: "writes",
    CacheResult.NOOP.value: "noops",
    CacheResult.ERROR.value: "errors",
}

_UNCOMMITTED = frozenset(operation.value for operation in UNCOMMITTED_OPERATIONS)

_SNAPSHOT = CacheOperation.SNAPSHOT.value
"""A snapshot that was written has a row beside that of its write, which is the one that counts."""

_COUNTED_BY_OPERATION = {
    CacheOperation.READ.value: "reads",
    CacheOperation.SNAPSHOT.value: "snapshots",
}


@dataclass(slots=True)
class Tally:
    """What the operations of a run add up to.

    >>> tally = Tally()
    >>> tally.add({"cache_operation": "write", "result": "write", "rows_added": 3})
    >>> tally.columns()["writes"], tally.columns()["rows_added"]
    (1, 3)
    """

    operations: Counter[tuple[str, str]] = field(default_factory=Counter)
    sums: Counter[str] = field(default_factory=Counter)
    tables: dict[str, None] = field(default_factory=dict)

    def add(self, row: Mapping[str, Any]) -> None:
        """Count an operation by its row in the inventory."""
        self.operations[row["cache_operation"], row["result"]] += 1
        for name in _SUMS:
            self.sums[name] += row.get(name) or 0
        table = row.get("table_id")
        # A read names the version that it read, and a snapshot that of the write in it.
        is_commit = row.get("version") is not None and row["cache_operation"] not in _UNCOMMITTED
        if table is not None and is_commit:
            self.tables[table] = None

    def columns(self) -> Row:
        """Return the columns of the run's row that count."""
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
    """A run that this process is in.

    Attributes:
        context: the run.
        is_part: whether it was opened elsewhere, and this process takes part in it.
        depth: how often it is open here, one inside the other; 0 when nobody here will close it.
        tally: its operations so far, as far as they were this process's.
        ended: its row, when it has ended and could not be told yet.
        error: what ended it, where its row is written only when the process ends.
    """

    context: RunContext
    is_part: bool
    depth: int = 0
    tally: Tally = field(default_factory=Tally)
    end_row: Row | None = None
    error: BaseException | None = None

    @property
    def is_open_part(self) -> bool:
        """Whether this process takes part in it, and nobody here will close it."""
        return self.is_part and self.depth <= 0 and self.end_row is None

    def start_row(self, cache_root: str) -> Row:
        """Return the columns that are known while it is open."""
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
        }


def run_row(  # noqa: PLR0913 - what there is to say at the end, by keyword
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
        started: what was known while it was open.
        tally: its operations.
        status: how it ended.
        end_time: when, in microseconds since the Unix epoch.
        error_type: class of what ended it.
        dropped: operations of the process that could not be told.
        exit_code: of the process, where the run's end says it.
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
