"""What the commands ask the ledger, as queries; rows come back as dictionaries."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any

from deltawitness.cli.console import CommandError
from deltawitness.report.summary import RunSummary, SummaryLine
from deltawitness.semconv import CacheOperation, CacheResult

if TYPE_CHECKING:
    from datafusion import DataFrame
    from datafusion.expr import Expr

    from deltawitness.ledger.ledger import Ledger

__all__ = [
    "COUNTS",
    "Row",
    "RunReport",
    "reads_of",
    "run_report",
    "runs_of",
    "writes_of",
    "written_in",
]

Row = dict[str, Any]

COUNTS = (
    *("reads", "hits", "misses", "writes", "snapshots", "noops", "errors"),
    *("rows_added", "rows_updated", "rows_deleted", "files_added", "files_removed"),
    *("bytes_added", "bytes_removed", "retries", "dropped"),
)
"""Columns of a run that add up."""

_SUMMED = (
    *("rows_added", "rows_updated", "rows_deleted", "files_added", "files_removed"),
    *("bytes_added", "bytes_removed", "retries"),
)

_AMBIGUOUS = 5
"""Runs that are named when a prefix is that of many."""


def runs_of(
    ledger: Ledger,
    *,
    job: str | None = None,
    status: str | None = None,
    since: datetime | None = None,
    limit: int,
) -> list[Row]:
    """Return finished runs, newest first."""
    conditions = [
        *_equal("job", job),
        *_equal("status", status),
        *_since("start_time", since),
    ]
    return _newest(_filtered(ledger.runs(), conditions), "start_time", limit)


def writes_of(
    ledger: Ledger,
    *,
    table: str | None = None,
    run: str | None = None,
    since: datetime | None = None,
    result: CacheResult | None = None,
    limit: int,
) -> list[Row]:
    """Return operations, newest first.

    Args:
        ledger: which is asked.
        table: its name, id or location.
        run: the beginning of the id of their run.
        since: not those before it.
        result: how they ended.
        limit: how many at most.
    """
    from datafusion import functions as f  # noqa: PLC0415 - heavy

    conditions = [
        *_since("event_time", since),
        *_equal("result", None if result is None else result.value),
        *([] if table is None else [_is_table(table)]),
        *([] if run is None else [f.starts_with(_column("run_id"), _literal(run))]),
    ]
    return _newest(_filtered(ledger.inventory(), conditions), "event_time", limit)


def reads_of(ledger: Ledger, name: str, limit: int) -> list[Row]:
    """Return the last times that an entry of a cache was asked for, newest first.

    Args:
        ledger: which is asked.
        name: the entry's.
        limit: how many at most.
    """
    conditions = [
        *_equal("cache_operation", CacheOperation.READ.value),
        *_equal("table_name", name),
    ]
    return _newest(_filtered(ledger.inventory(), conditions), "event_time", limit)


_UPKEEP = ("optimize", "vacuum", "checkpoint", "cleanup", "create", "snapshot")
"""Operations that change no row."""


def written_in(ledger: Ledger, prefix: str) -> tuple[str, list[Row]]:
    """Return the id of the one run that begins so, and what was written in it and in its children.

    Raises:
        Complaint: there is none, or there are several.
    """
    told = run_report(ledger, prefix)
    inventory = ledger.inventory()
    conditions = [
        _is_in("run_id", [row["run_id"] for row in told.family()]),
        *_equal("result", CacheResult.WRITE.value),
        ~_is_in("cache_operation", list(_UPKEEP)),
    ]
    rows = _filtered(inventory, conditions).sort(_column("event_time").sort()).to_pylist()
    return told.run["run_id"], [_plain(row) for row in rows]


# --- one run -----------------------------------------------------------------------------------------


class RunReport:
    """What the ledger tells of one run.

    Attributes:
        run: its row; only its id and job when the ledger has none.
        children: the rows of the runs that were opened in it, and so on, by the id of their parent.
        summary: the operations of all of them, by table.
        failed: the rows of the operations that failed, oldest first.
    """

    def __init__(
        self, run: Row, children: dict[str, list[Row]], summary: RunSummary, failed: list[Row]
    ) -> None:
        self.run = run
        self.children = children
        self.summary = summary
        self.failed = failed

    def family(self) -> Iterator[Row]:
        """Yield the rows of the run and of all that were opened in it."""
        yield self.run
        for rows in self.children.values():
            yield from rows

    def total(self) -> dict[str, int]:
        """Return what the counts of all of them add up to."""
        return {name: sum(row[name] or 0 for row in self.family()) for name in COUNTS}


def run_report(ledger: Ledger, prefix: str) -> RunReport:
    """Return what the ledger tells of the one run whose id begins so.

    Raises:
        Complaint: there is none, or there are several.
    """
    inventory, runs = ledger.inventory().cache(), ledger.runs().cache()
    run_id = _the_one(prefix, runs, inventory)
    row = next(iter(_filtered(runs, _equal("run_id", run_id)).to_pylist()), None)
    run = _plain(row) if row is not None else _unfinished(inventory, run_id, runs)
    children = _children(runs, run_id)
    family = [run_id, *(child["run_id"] for rows in children.values() for child in rows)]
    mine = _filtered(inventory, [_is_in("run_id", family)])
    failed = _filtered(mine, _equal("result", CacheResult.ERROR.value))
    return RunReport(
        run,
        children,
        _summary(mine, run),
        [_plain(row) for row in failed.sort(_column("event_time").sort()).to_pylist()],
    )


def _the_one(prefix: str, *frames: DataFrame) -> str:
    from datafusion import functions as f  # noqa: PLC0415 - heavy

    wanted = [f.starts_with(_column("run_id"), _literal(prefix))]
    found: set[str] = set()
    for frame in frames:
        ids = _filtered(frame, wanted).select(_column("run_id")).distinct()
        found |= set(ids.to_pydict()["run_id"])
    if prefix in found:
        return prefix
    if not found:
        msg = f"no run begins with {prefix}"
        raise CommandError(msg)
    if len(found) > 1:
        first = sorted(found)[:_AMBIGUOUS]
        more = "" if len(found) == len(first) else ", ..."
        msg = f"{len(found)} runs begin with {prefix}: {', '.join(first)}{more}"
        raise CommandError(msg)
    return found.pop()


def _unfinished(inventory: DataFrame, run_id: str, runs: DataFrame) -> Row:
    """Return as much of a run's row as its operations tell."""
    first = _filtered(inventory, _equal("run_id", run_id))
    row = first.sort(_column("event_time").sort()).limit(1).to_pylist()[0]
    known = {"run_id": run_id, "job": row["job"], "start_time": row["event_time"]}
    return _plain(dict.fromkeys(runs.schema().names) | known)


def _children(runs: DataFrame, run_id: str) -> dict[str, list[Row]]:
    children: dict[str, list[Row]] = {}
    level, seen = [run_id], {run_id}
    while level:
        found = _filtered(runs, [_is_in("parent_run_id", level)])
        rows = [_plain(row) for row in found.sort(_column("start_time").sort()).to_pylist()]
        rows = [row for row in rows if row["run_id"] not in seen]
        for row in rows:
            children.setdefault(row["parent_run_id"], []).append(row)
        level = [row["run_id"] for row in rows]
        seen.update(level)
    return children


def _summary(operations: DataFrame, run: Row) -> RunSummary:
    """Return the operations by table, as the summary at the end of a program shows them."""
    from datafusion import functions as f  # noqa: PLC0415 - heavy

    is_error = _column("result") == _literal(CacheResult.ERROR.value)
    rows = (
        operations.aggregate(
            [_column("table_id"), _column("table_name"), _column("operation")],
            [
                f.count(_column("write_id")).alias("operations"),
                f.count(_column("write_id"), filter=is_error).alias("errors"),
                f.sum(_column("duration_ms")).alias("milliseconds"),
                f.min(_column("event_time")).alias("first"),
                *(f.sum(_column(name)).alias(name) for name in _SUMMED),
            ],
        )
        .sort(_column("first").sort(), _column("operation").sort())
        .to_pylist()
    )
    lines: dict[tuple[str, str, str], SummaryLine] = {}
    total = SummaryLine()
    for row in rows:
        line = _line(row)
        name = row["table_name"] or (row["table_id"] or "?")[:8]
        lines[row["table_id"] or name, name, row["operation"]] = line
        total.join(line)
    tables = {table for table, _, _ in lines}
    return RunSummary(run["run_id"], run["job"], lines, total, len(tables), [])


def _line(row: Row) -> SummaryLine:
    line = SummaryLine(row["operations"], row["errors"], (row["milliseconds"] or 0.0) / 1000)
    line.metrics.update({name: row[name] for name in _SUMMED if row[name]})
    return line


# --- parts of queries --------------------------------------------------------------------------------


def _plain(row: Row) -> Row:
    """Return a row without its partition, which is for the storage alone."""
    return {name: value for name, value in row.items() if name != "event_date"}


def _newest(frame: DataFrame, time: str, limit: int) -> list[Row]:
    # What was read from logs has times of milliseconds: of two at once, the later commit is first.
    order = [_column(time).sort(ascending=False)]
    if "version" in frame.schema().names:
        order.append(_column("version").sort(ascending=False))
    return [_plain(row) for row in frame.sort(*order).limit(limit).to_pylist()]


def _filtered(frame: DataFrame, conditions: Iterable[Expr]) -> DataFrame:
    for condition in conditions:
        frame = frame.filter(condition)
    return frame


def _column(name: str) -> Expr:
    from datafusion import col  # noqa: PLC0415 - heavy

    return col(name)


def _literal(value: object) -> Expr:
    from datafusion import lit  # noqa: PLC0415 - heavy

    return lit(value)


def _equal(name: str, value: str | None) -> list[Expr]:
    return [] if value is None else [_column(name) == _literal(value)]


def _since(name: str, moment: datetime | None) -> list[Expr]:
    if moment is None:
        return []
    # The days first: they are the partitions, and most are not even looked at.
    return [
        _column("event_date") >= _literal(moment.date()),
        _column(name) >= _literal(moment),
    ]


def _is_in(name: str, values: list[str]) -> Expr:
    from datafusion import functions as f  # noqa: PLC0415 - heavy

    return f.in_list(_column(name), [_literal(value) for value in values])


def _is_table(text: str) -> Expr:
    from deltawitness.ledger.tables.write_rows import ledger_uri  # noqa: PLC0415 - as above

    is_named = _column("table_name") == _literal(text)
    has_id = _column("table_id") == _literal(text)
    return is_named | has_id | (_column("table_uri") == _literal(ledger_uri(text)))
