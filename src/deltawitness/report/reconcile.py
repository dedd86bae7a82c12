"""Findings of a reconcile, and the number of rows that it appended."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Console

from deltawitness.plurals import count_of
from deltawitness.report.format import short_ids, storage_reason, text
from deltawitness.report.tables import Column, print_line, print_table

if TYPE_CHECKING:
    from deltawitness.ledger.reconcile.adoption import AdoptResult
    from deltawitness.ledger.reconcile.plan import ReconcilePlan

__all__ = ["plan_json", "print_adopted", "print_plan"]

SHOWN = 50
"""Maximum number of printed findings of each kind."""


def plan_json(plan: ReconcilePlan, applied: int | None) -> dict[str, Any]:
    """Return a plan as JSON-able values.

    Args:
        plan: the findings.
        applied: number of appended rows; None without --apply.
    """
    return {
        "is_clean": plan.is_clean,
        "applied": applied,
        "commits": plan.commits,
        "unsettled": plan.unsettled,
        "tables": list(plan.tables),
        "gone": list(plan.gone),
        "missing": [asdict(found) for found in plan.missing],
        "foreign": [asdict(found) for found in plan.foreign],
        "phantom": [asdict(found) for found in plan.phantom],
        "differing": [asdict(found) for found in plan.differing],
        "unreadable": [asdict(found) for found in plan.unreadable],
    }


def print_plan(console: Console, plan: ReconcilePlan, applied: int | None) -> None:
    """Print the findings of a reconcile and the number of rows that it appended.

    Args:
        console: the console to print on.
        plan: the findings.
        applied: number of appended rows; None without --apply.
    """
    findings = _findings(plan, is_applied=applied is not None)
    if findings:
        print_table(console, _COLUMNS, findings)
    counts = ", ".join(f"{count} {kind}" for kind, count in plan.counts.items() if count)
    tables = count_of(len(plan.tables), "table")
    commits = count_of(plan.commits, "commit") if plan.commits else "no new commits"
    read = f"{commits} of {tables} read" if plan.tables else "no tables read"
    print_line(console, f"{read}: {counts or 'the ledger agrees with the logs'}")
    for uri in plan.gone:
        print_line(console, f"table no longer exists: {uri}")
    if plan.unsettled:
        commits = count_of(plan.unsettled, "commit")
        print_line(console, f"not compared yet, their process may still record them: {commits}")
    if applied is not None:
        print_line(console, f"appended: {count_of(applied, 'row')}")
    elif plan.missing or plan.foreign:
        print_line(console, "use --apply to append the missing and foreign rows")


def print_adopted(console: Console, adopted: AdoptResult) -> None:
    """Print what an adopt read, and the number of rows that it appended."""
    read = f"{count_of(adopted.commits, 'commit')} of {count_of(len(adopted.tables), 'table')}"
    rows = f"{count_of(adopted.operations, 'operation')} and {count_of(adopted.runs, 'run')}"
    print_line(console, f"{read} read, appended: {rows}")
    if adopted.unsettled:
        commits = count_of(adopted.unsettled, "commit")
        print_line(console, f"not adopted yet, because a process may still record them: {commits}")


_COLUMNS = (
    Column("finding"),
    Column("table", wrap_at=10),
    Column("versions", wrap_at=8),
    Column("operation", wrap_at=9, splits_words=False),
    Column("details", wrap_at=18),
)


def _findings(plan: ReconcilePlan, *, is_applied: bool) -> list[tuple[str, ...]]:
    """Return a row for each finding, without those that were repaired."""
    rows: list[tuple[str, ...]] = []
    gaps = () if is_applied else (("missing", plan.missing), ("foreign", plan.foreign))
    ids = short_ids([write.run_id for _, writes in gaps for write in writes])
    for kind, unrecorded in gaps:
        rows += [
            (
                kind,
                _name(write.table_uri),
                _joined(write.versions),
                text(write.operation),
                f"run {ids[write.run_id]}" if write.run_id else text(write.engine),
            )
            for write in unrecorded[:SHOWN]
        ]
        rows += _more(kind, len(unrecorded))
    rows += [
        ("phantom", _name(row.table_uri), str(row.version), "", row.write_id)
        for row in plan.phantom[:SHOWN]
    ]
    rows += _more("phantom", len(plan.phantom))
    for other in plan.differing[:SHOWN]:
        what = f"{other.difference.value}: the log has {_joined(other.found) or 'nothing'}"
        rows.append(("differing", _name(other.table_uri), _joined(other.versions), "", what))
    rows += _more("differing", len(plan.differing))
    rows += [
        ("unreadable", _name(lost.table_uri), "", "", storage_reason(lost.text))
        for lost in plan.unreadable[:SHOWN]
    ]
    return rows + _more("unreadable", len(plan.unreadable))


def _more(kind: str, count: int) -> list[tuple[str, ...]]:
    return [(kind, f"and {count - SHOWN:,} more", "", "", "")] if count > SHOWN else []


def _joined(versions: tuple[int, ...]) -> str:
    return ", ".join(map(str, versions))


def _name(uri: str) -> str:
    """Return the last segment of a location; the JSON has the complete location."""
    return uri.rstrip("/").rpartition("/")[2]
