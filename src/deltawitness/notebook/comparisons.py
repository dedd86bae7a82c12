"""Differences of runs and tables, misses of the cache, and jobs that are worse than before, in a notebook."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from deltawitness.answers.diff.run_values import RunDiff
from deltawitness.answers.diff.table_values import TableDiff
from deltawitness.answers.trends.values import OverdueResult, RegressionResult
from deltawitness.html_report.markup import Markup, isolated
from deltawitness.notebook.parts import (
    facts_table,
    listing,
    note,
    short_id,
)
from deltawitness.plurals import count_of
from deltawitness.report.format import operation, rows, timestamp

if TYPE_CHECKING:
    from deltawitness.cache.delta_cache import Explanation  # needs DataFusion

__all__ = [
    "show_explanation",
    "show_overdue",
    "show_regressions",
    "show_run_diff",
    "show_table_diff",
]


def show_run_diff(found: RunDiff) -> list[Markup]:
    """Show what differs between two runs, those differences first that explain most."""
    lines = [
        (isolated(each.cause.value), isolated(each.what), isolated(each.a), isolated(each.b))
        for each in found.differences
    ]
    sides = [
        (
            isolated(each.name),
            *(isolated("" if side is None else _versions(side.versions)) for side in _sides(each)),
            *(
                "" if side is None else rows(side.rows_added, side.rows_updated, side.rows_deleted)
                for side in _sides(each)
            ),
        )
        for each in found.tables
    ]
    caption = f"run {found.a.run_id} ({found.a.job}) → {found.b.run_id} ({found.b.job})"
    head = ("table", "versions a", "versions b", "rows a", "rows b")
    return [
        note(found.explanation),
        *listing(caption, ("cause", "what", "a", "b"), lines),
        *listing("tables", head, sides, head[3:]),
    ]


def _sides(each: Any) -> tuple[Any, Any]:
    return each.a, each.b


def _versions(versions: Sequence[int]) -> str:
    return ", ".join(map(str, versions))


def show_table_diff(found: TableDiff) -> list[Markup]:
    """Show what differs between two versions of tables."""
    files, changed = found.files, found.rows
    facts = {
        "rows before": found.rows_a,
        "rows after": found.rows_b,
        "files": f"{files.added:,} added, {files.removed:,} removed, {files.shared:,} in both",
    }
    if changed is not None:
        facts["rows added"] = changed.added
        facts["rows removed"] = changed.removed
        facts["rows changed"] = changed.changed
        facts |= {f"changed in {name}": count for name, count in changed.columns.items()}
    steps = [
        (
            str(each.version),
            timestamp(each.time),
            isolated(operation(each.operation, each.mode)),
            rows(each.rows_added, each.rows_updated, each.rows_deleted),
            isolated(each.job),
            isolated(each.message),
        )
        for each in found.operations
    ]
    columns = [
        (isolated(each.name), each.change.value, isolated(each.type_a), isolated(each.type_b))
        for each in found.columns
    ]
    settings = [
        (isolated(each.name), isolated(each.a), isolated(each.b)) for each in found.properties
    ]
    head = ("version", "time", "operation", "rows", "job", "message")
    return [
        facts_table(f"{found.a} → {found.b}", facts),
        *listing("operations between", head, steps, ("version", "rows")),
        *listing("columns", ("column", "change", "before", "after"), columns),
        *listing("properties", ("property", "before", "after"), settings),
        *map(note, found.notes),
    ]


def show_explanation(found: Explanation) -> list[Markup]:
    """Show whether an entry of the cache would be served, and why not."""
    facts = {
        "scope": found.scope.value,
        "result": found.result.value,
        "stored at version": None if found.version is None else str(found.version),
    }
    reasons = [(each.kind.value, isolated(each.text)) for each in found.reasons]
    return [
        facts_table(found.name, facts),
        *listing("why it would be computed again", ("reason", "what has changed"), reasons),
    ]


def show_regressions(found: RegressionResult) -> list[Markup]:
    """Show the jobs that are worse than before."""
    lines = [
        (
            isolated(each.job),
            each.kind.value,
            f"{each.value:g}",
            f"{each.typical:g}",
            timestamp(each.time),
            isolated(each.error_type),
            short_id(each.run_id),
        )
        for each in found.regressions
    ]
    head = ("job", "kind", "value", "usual", "since", "error", "run")
    parts = listing("jobs that are worse than before", head, lines, ("value", "usual"))
    return parts or [note(f"{count_of(found.jobs, 'job')}: none is worse than before")]


def show_overdue(found: OverdueResult) -> list[Markup]:
    """Show the tables that are late, and the runs with unusual numbers of rows."""
    tables = [
        (
            isolated(each.table.name or each.table),
            each.state.value,
            timestamp(each.last),
            timestamp(each.due),
            isolated(each.job),
        )
        for each in found.tables
    ]
    volumes = [
        (
            isolated(each.table),
            f"{each.rows:,}",
            f"{each.typical:g}",
            isolated(each.job),
            short_id(each.run_id),
        )
        for each in found.volumes
    ]
    empty = [
        (isolated(each.job), timestamp(each.start_time), short_id(each.run_id))
        for each in found.empty_runs
    ]
    return [
        *listing("tables", ("table", "state", "last change", "due until", "job"), tables),
        *listing(
            "unusual numbers of rows",
            ("table", "rows", "usual", "job", "run"),
            volumes,
            ("rows", "usual"),
        ),
        *listing("runs that changed nothing", ("job", "began", "run"), empty),
    ]
