"""Results of drains, compactions and checks of the ledger."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console

from deltawitness.report.format import count_of
from deltawitness.report.tables import Column, print_line, print_table

if TYPE_CHECKING:
    from deltawitness.ledger.drain.drain import DrainResult
    from deltawitness.ledger.drain.maintenance import MaintenanceResult
    from deltawitness.ledger.integrity import IntegrityResult

__all__ = ["print_drained", "print_maintained", "print_verification"]


def print_drained(console: Console, drained: DrainResult) -> None:
    """Print what a drain imported into the ledger."""
    if not drained.adopted:
        print_line(console, "no spools to import")
        return
    print_line(
        console,
        f"imported {count_of(drained.operations, 'operation')}, {count_of(drained.runs, 'run')} and"
        f" {count_of(drained.snapshots, 'snapshot')} of"
        f" {count_of(drained.adopted, 'dead process', 'dead processes')}",
    )
    if drained.damaged:
        print_line(console, f"skipped as damaged: {count_of(drained.damaged, 'line')}")


_COLUMNS = (
    Column("table", wrap_at=20),
    Column("done", wrap_at=10),
    *(Column(name, is_number=True) for name in ("files +", "files -", "deleted")),
)


def print_maintained(console: Console, maintained: Sequence[MaintenanceResult]) -> None:
    """Print what compaction did to each table."""
    rows: list[tuple[str, ...]] = []
    for done in maintained:
        counts = (done.files_added, done.files_removed, done.files_deleted)
        if done.is_done:
            rows.append((done.table, "yes", *map(str, counts)))
        else:
            rows.append((done.table, "no table yet, or another process compacts it", "", "", ""))
    print_table(console, _COLUMNS, rows)


def print_verification(console: Console, verification: IntegrityResult) -> None:
    """Print the problems of a ledger, and the number of rows that were checked."""
    for finding in verification.findings:
        print_line(console, f"{finding.problem.value} in {finding.where}: {finding.text}")
    for table, rows in verification.rows.items():
        print_line(console, f"{table}: {count_of(rows, 'row')}")
    if verification.waiting:
        print_line(console, f"waiting in spools: {count_of(verification.waiting, 'operation')}")
    for uri in verification.unread:
        print_line(console, f"not compared, the log cannot be read: {uri}")
    if verification.is_good:
        print_line(console, "no problems found")
