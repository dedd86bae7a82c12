"""Compare two runs: tables, operations, inputs, plans, code, environment and durations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from deltawitness.answers.commits import with_names
from deltawitness.answers.diff.run_values import (
    DiffCause,
    RunDiff,
    RunDifference,
    RunTable,
    RunTableDiff,
)
from deltawitness.answers.rows import RunRow, TableVersion, WriteRow, seconds_of_run
from deltawitness.answers.run_report import RunReport, read_run
from deltawitness.ledger.tables.listing import LedgerListing
from deltawitness.locations import last_segment
from deltawitness.semconv import CacheResult

__all__ = ["diff_runs"]

_CODE = ("code_version", "image")
_ENVIRONMENT = (
    *("python_version", "deltalake_version", "datafusion_version", "witness_version"),
    *("system", "pipeline", "task", "host"),
)
_RESULT = ("status", "error_type", "exit_code")
_COUNTS = ("rows_added", "rows_updated", "rows_deleted")
_DEFAULT_MODE = "error"

_Tables = dict[str, tuple[str, str | None, RunTable]]


def diff_runs(ledger: LedgerListing, first: str, second: str) -> RunDiff:
    """Return what differs between two runs, each with its child runs.

    Args:
        ledger: the ledger to query.
        first: the complete id of the first run.
        second: the complete id of the second run.
    """
    a, b = (_Side.of(ledger, read_run(ledger, run_id)) for run_id in (first, second))
    places = {**a.tables, **b.tables}
    tables = tuple(
        RunTableDiff(name, uri, _table(a.tables, place), _table(b.tables, place))
        for place, (name, uri, _) in places.items()
    )
    differences = [
        *_input_differences(tables),
        *_plan_differences(tables),
        *_columns(a.run, b.run, _CODE, DiffCause.CODE),
        *_columns(a.run, b.run, _ENVIRONMENT, DiffCause.ENVIRONMENT),
        *_columns(a.run, b.run, _RESULT, DiffCause.RESULT),
        *_result_differences(tables),
        *_duration_differences(a.run, b.run, tables),
    ]
    return RunDiff(a=a.run, b=b.run, tables=tables, differences=tuple(differences))


@dataclass(frozen=True, slots=True)
class _Side:
    """A run, and what it did with each table, by the table's location or id."""

    run: RunRow
    tables: _Tables

    @classmethod
    def of(cls, ledger: LedgerListing, report: RunReport) -> _Side:
        rows: dict[str, list[WriteRow]] = {}
        for each in map(WriteRow.of, report.writes):
            place = each.table_uri or each.table_id
            if place is not None and each.result != CacheResult.HIT.value:
                rows.setdefault(place, []).append(each)
        tables = {}
        for place, found in rows.items():
            name = next((each.table_name for each in found if each.table_name), None)
            uri = found[0].table_uri
            tables[place] = (name or last_segment(place) or place, uri, _run_table(ledger, found))
        return cls(RunRow.of(report.run), tables)


def _table(tables: _Tables, place: str) -> RunTable | None:
    return tables[place][2] if place in tables else None


def _run_table(ledger: LedgerListing, rows: Sequence[WriteRow]) -> RunTable:
    versions = {
        version
        for row in rows
        for version in row.versions or (row.version,)
        if version is not None and row.result != CacheResult.MISS.value
    }
    inputs = {each for row in rows for each in (row.inputs or row.run_inputs)}
    named = with_names(ledger, tuple(inputs))
    return RunTable(
        versions=tuple(sorted(versions)),
        operations=tuple(map(_operation, rows)),
        inputs=tuple(sorted(named, key=str)),
        plan_shape_hashes=tuple(row.plan_shape_hash for row in rows if row.plan_shape_hash),
        plan_hashes=tuple(row.plan_hash for row in rows if row.plan_hash),
        rows_added=sum(row.rows_added or 0 for row in rows),
        rows_updated=sum(row.rows_updated or 0 for row in rows),
        rows_deleted=sum(row.rows_deleted or 0 for row in rows),
        duration_ms=sum(row.duration_ms or 0.0 for row in rows),
    )


def _operation(row: WriteRow) -> str:
    mode = row.mode if row.mode != _DEFAULT_MODE else None
    name = " ".join(part for part in (row.operation or row.cache_operation, mode) if part)
    is_error = row.result == CacheResult.ERROR.value
    return f"{name}: {row.error_type or 'error'}" if is_error else name


# --- differences -------------------------------------------------------------------------------------


def _input_differences(tables: Sequence[RunTableDiff]) -> Iterator[RunDifference]:
    """Yield the inputs that one run has read at other versions than the other."""
    left, right = _inputs(tables, is_first=True), _inputs(tables, is_first=False)
    for place in {**left, **right}:
        a, b = left.get(place, {}), right.get(place, {})
        if a.keys() != b.keys():
            name = str(next(iter((a or b).values())))
            texts = [
                ", ".join(f"{each}@{version}" for version, each in sorted(side.items()))
                for side in (a, b)
            ]
            yield RunDifference(DiffCause.INPUTS, name, texts[0] or None, texts[1] or None)


def _inputs(tables: Sequence[RunTableDiff], *, is_first: bool) -> dict[str, dict[int, str]]:
    """Return the name of each input at each version, by its id or location."""
    found: dict[str, dict[int, str]] = {}
    for table in tables:
        side = table.a if is_first else table.b
        for each in side.inputs if side else ():
            version = -1 if each.version is None else each.version
            found.setdefault(each.table_id or each.uri or "?", {})[version] = _name(each)
    return found


def _name(table: TableVersion) -> str:
    return table.name or table.uri or table.table_id or "?"


def _plan_differences(tables: Sequence[RunTableDiff]) -> Iterator[RunDifference]:
    """Yield the tables of both runs whose rows were made by other plans."""
    for each in tables:
        if each.a is None or each.b is None:
            continue
        for what in ("plan_shape_hashes", "plan_hashes"):
            a, b = getattr(each.a, what), getattr(each.b, what)
            if a != b:
                label = "plan shape" if what == "plan_shape_hashes" else "literals of the plan"
                yield RunDifference(DiffCause.PLAN, f"{each.name}: {label}", _joined(a), _joined(b))
                break


def _columns(
    a: RunRow, b: RunRow, names: Sequence[str], cause: DiffCause
) -> Iterator[RunDifference]:
    for name in names:
        left, right = getattr(a, name), getattr(b, name)
        if left != right:
            what = name.replace("_", " ")
            yield RunDifference(cause, what, _text(left), _text(right))


def _result_differences(tables: Sequence[RunTableDiff]) -> Iterator[RunDifference]:
    for each in tables:
        a, b = each.a, each.b
        left, right = (None if side is None else side.operations for side in (a, b))
        if left != right:
            what = f"{each.name}: operations"
            yield RunDifference(DiffCause.RESULT, what, _counted(left), _counted(right))
        for name in _COUNTS:
            before, after = (0 if side is None else getattr(side, name) for side in (a, b))
            if before != after:
                what = f"{each.name}: {name.replace('_', ' ')}"
                yield RunDifference(DiffCause.RESULT, what, f"{before:,}", f"{after:,}")


def _duration_differences(
    a: RunRow, b: RunRow, tables: Sequence[RunTableDiff]
) -> Iterator[RunDifference]:
    times = [("seconds", _seconds(a), _seconds(b))]
    for each in tables:
        left, right = (
            None if side is None else f"{side.duration_ms / 1000:.3f}" for side in (each.a, each.b)
        )
        times.append((f"{each.name}: seconds", left, right))
    for what, left, right in times:
        if left != right:
            yield RunDifference(DiffCause.DURATION, what, left, right)


def _seconds(run: RunRow) -> str | None:
    took = seconds_of_run(run.start_time, run.end_time, run.status)
    return None if took is None else f"{took:.3f}"


def _counted(operations: Sequence[str] | None) -> str | None:
    """Return operations in order; equal ones that follow each other are counted."""
    if operations is None:
        return None
    parts: list[tuple[str, int]] = []
    for each in operations:
        count = parts.pop()[1] if parts and parts[-1][0] == each else 0
        parts.append((each, count + 1))
    return ", ".join(name if count == 1 else f"{count} x {name}" for name, count in parts)


def _joined(hashes: Sequence[str]) -> str | None:
    return ", ".join(hashes) or None


def _text(value: object) -> str | None:
    return None if value is None else str(value)
