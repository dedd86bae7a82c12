"""What a reconcile found, and what it did about it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from deltawitness.report.format import count_of, text

if TYPE_CHECKING:
    from deltawitness.ledger.reconcile.plan import ReconcilePlan

__all__ = ["plan_json", "print_plan"]

SHOWN = 50
"""Findings that are shown of each kind."""


def plan_json(plan: ReconcilePlan, applied: int | None) -> dict[str, Any]:
    """Return a plan as JSON-able values.

    Args:
        plan: what was found.
        applied: how many rows were appended; None when none were to be.
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
    """Print what was found, and what was done about it.

    Args:
        console: where.
        plan: what was found.
        applied: how many rows were appended; None when none were to be.
    """
    findings = _findings(plan, is_applied=applied is not None)
    if findings.row_count:
        console.print(findings, highlight=False)
    counts = ", ".join(f"{count} {kind}" for kind, count in plan.counts.items() if count)
    read = f"{count_of(plan.commits, 'commit')} of {count_of(len(plan.tables), 'table')} read"
    console.print(f"{read}: {counts or 'the ledger says what the logs say'}", highlight=False)
    for uri in plan.gone:
        console.print(f"gone: {uri}", highlight=False)
    if plan.unsettled:
        console.print(
            f"left for later, as a process may still tell of it: {count_of(plan.unsettled, 'commit')}",
            highlight=False,
        )
    if applied is not None:
        console.print(f"appended: {count_of(applied, 'row')}", highlight=False)
    elif plan.missing or plan.foreign:
        console.print("--apply appends what is missing and what is foreign", highlight=False)


def _findings(plan: ReconcilePlan, *, is_applied: bool) -> Table:
    """Return what was found, but for what has been made good."""
    table = Table()
    for name in ("finding", "table", "versions", "operation", "what"):
        table.add_column(name, overflow="fold")
    gaps = () if is_applied else (("missing", plan.missing), ("foreign", plan.foreign))
    for kind, unrecorded in gaps:
        for write in unrecorded[:SHOWN]:
            who = write.run_id or write.engine
            table.add_row(
                kind,
                _name(write.table_uri),
                _joined(write.versions),
                text(write.operation),
                text(who),
            )
        _add_more(table, kind, len(unrecorded))
    for row in plan.phantom[:SHOWN]:
        table.add_row("phantom", _name(row.table_uri), str(row.version), "", row.write_id)
    _add_more(table, "phantom", len(plan.phantom))
    for other in plan.differing[:SHOWN]:
        what = f"{other.difference.value}: the log says {_joined(other.found) or 'nothing'}"
        table.add_row("differing", _name(other.table_uri), _joined(other.versions), "", what)
    _add_more(table, "differing", len(plan.differing))
    for lost in plan.unreadable[:SHOWN]:
        table.add_row("unreadable", _name(lost.table_uri), "", "", lost.text)
    _add_more(table, "unreadable", len(plan.unreadable))
    return table


def _add_more(table: Table, kind: str, count: int) -> None:
    if count > SHOWN:
        table.add_row(kind, f"and {count - SHOWN:,} more")


def _joined(versions: tuple[int, ...]) -> str:
    return ", ".join(map(str, versions))


def _name(uri: str) -> str:
    """Return the end of a location: the whole of it is in the JSON."""
    return uri.rstrip("/").rpartition("/")[2]
