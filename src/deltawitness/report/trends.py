"""Late tables, unusual runs and regressions, as tables."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console

from deltawitness.answers.trends.values import (
    OverdueResult,
    Regression,
    RegressionKind,
    RegressionResult,
    TableCadence,
    TableState,
)
from deltawitness.plurals import count_of
from deltawitness.report.format import short_ids, text, timestamp
from deltawitness.report.tables import Column, print_line, print_table

__all__ = ["duration", "print_overdue", "print_regressions"]

_TABLES = (
    Column("table", wrap_at=12),
    Column("state"),
    Column("last change", wrap_at=10, splits_words=False),
    Column("due until", wrap_at=10, splits_words=False),
    Column("every", is_number=True),
    Column("changes", is_number=True),
    Column("job", wrap_at=8),
    Column("run"),
)
_VOLUMES = (
    Column("table", wrap_at=12),
    Column("rows", is_number=True),
    Column("median", is_number=True),
    Column("usual", is_number=True),
    Column("of runs", is_number=True),
    Column("time", wrap_at=10, splits_words=False),
    Column("job", wrap_at=8),
    Column("run"),
)
_EMPTY = (
    Column("job", wrap_at=8),
    Column("began", wrap_at=10, splits_words=False),
    Column("earlier runs", is_number=True),
    Column("changed rows in", is_number=True),
    Column("median", is_number=True),
    Column("run"),
)
_REGRESSIONS = (
    Column("job", wrap_at=8),
    Column("is"),
    Column("since", wrap_at=10, splits_words=False),
    Column("what", wrap_at=16),
    Column("error", wrap_at=10),
    Column("run"),
    Column("last ok run"),
    Column("code", wrap_at=10),
)


def print_overdue(console: Console, found: OverdueResult, *, show_all: bool = False) -> None:
    """Print what is late or unusual.

    Args:
        console: where to print.
        found: the result.
        show_all: print every table.
    """
    unknown = sum(each.state is TableState.UNKNOWN for each in found.tables)
    tables = count_of(len(found.tables), "table")
    print_line(
        console,
        f"{tables}, {len(found.late)} late; {count_of(len(found.volumes), 'unusual number')} of rows;"
        f" {count_of(len(found.empty_runs), 'run')} without a change",
    )
    ids = short_ids(_run_ids(found))
    shown = found.tables if show_all else found.late
    if shown:
        print_table(console, _TABLES, [_table_cells(each, ids) for each in shown])
    if found.volumes:
        cells = [
            [
                str(each.table),
                f"{each.rows:,}",
                f"{each.typical:,.0f}",
                f"{each.low:,.0f} to {each.high:,.0f}",
                str(each.history),
                timestamp(each.time),
                text(each.job),
                ids.get(each.run_id or "", ""),
            ]
            for each in found.volumes
        ]
        print_line(console, "unusual numbers of rows:")
        print_table(console, _VOLUMES, cells)
    if found.empty_runs:
        cells = [
            [
                each.job,
                timestamp(each.start_time),
                str(each.history),
                str(each.wrote),
                f"{each.typical:,.0f}",
                ids[each.run_id],
            ]
            for each in found.empty_runs
        ]
        print_line(console, "runs that ended ok and changed nothing:")
        print_table(console, _EMPTY, cells)
    if unknown:
        line = f"{count_of(unknown, 'table has', 'tables have')} too few changes to be late"
        print_line(console, f"note: {line}")


def _run_ids(found: OverdueResult) -> Iterable[str | None]:
    yield from (each.run_id for each in found.tables)
    yield from (each.run_id for each in found.volumes)
    yield from (each.run_id for each in found.empty_runs)


def _table_cells(each: TableCadence, ids: dict[str, str]) -> list[str]:
    return [
        text(each.table.name),
        each.state.value,
        timestamp(each.last),
        timestamp(each.due),
        "" if each.interval_seconds is None else duration(each.interval_seconds),
        str(each.changes),
        text(each.job),
        ids.get(each.run_id or "", ""),
    ]


_UNITS = ((86_400, "d"), (3_600, "h"), (60, "m"))


def duration(seconds: float) -> str:
    """Return a number of seconds in the largest unit that leaves at least 1.

    >>> duration(3_600), duration(90_000), duration(2.5)
    ('1.0 h', '1.0 d', '2.5 s')
    """
    for count, unit in _UNITS:
        if seconds >= count:
            return f"{seconds / count:.1f} {unit}"
    return f"{seconds:.1f} s"


def print_regressions(console: Console, found: RegressionResult) -> None:
    """Print a line for each regression."""
    jobs = count_of(found.jobs, "job")
    print_line(console, f"{jobs}, {count_of(len(found.regressions), 'regression')}")
    if not found.regressions:
        return
    ids = short_ids(
        run_id for each in found.regressions for run_id in (each.run_id, each.good_run_id)
    )
    cells = [
        [
            each.job,
            each.kind.value,
            timestamp(each.time),
            _what(each),
            text(each.error_type),
            ids[each.run_id],
            ids.get(each.good_run_id or "", ""),
            f"{each.good_code_version} -> {each.code_version}" if each.has_new_code else "",
        ]
        for each in found.regressions
    ]
    print_table(console, _REGRESSIONS, cells)


def _what(each: Regression) -> str:
    match each.kind:
        case RegressionKind.BROKEN | RegressionKind.FLAKY:
            return f"{each.value:.0f} of the last {count_of(each.typical, 'run')} failed"
        case RegressionKind.SLOWER:
            return f"{each.value:.1f} s, median {each.typical:.1f} s"
        case RegressionKind.SMALLER:
            return f"{count_of(each.value, 'row')}, median {each.typical:,.0f}"
