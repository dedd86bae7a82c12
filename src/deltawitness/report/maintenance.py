"""What was done for the ledger, and how it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from deltawitness.report.format import count_of

if TYPE_CHECKING:
    from deltawitness.ledger.drain.drain import DrainResult
    from deltawitness.ledger.drain.maintenance import MaintenanceResult
    from deltawitness.ledger.integrity import IntegrityResult

__all__ = ["print_drained", "print_maintained", "print_verification"]


def print_drained(console: Console, drained: DrainResult) -> None:
    """Print what was carried into the ledger."""
    if not drained.adopted:
        console.print("nothing waits", highlight=False)
        return
    console.print(
        f"{count_of(drained.operations, 'operation')}, {count_of(drained.runs, 'run')} and"
        f" {count_of(drained.snapshots, 'snapshot')} of processes that are gone: {drained.adopted}",
        highlight=False,
    )
    if drained.damaged:
        console.print(
            f"passed over as damaged: {count_of(drained.damaged, 'line')}", highlight=False
        )


def print_maintained(console: Console, maintained: Sequence[MaintenanceResult]) -> None:
    """Print what was done to each table."""
    table = Table()
    table.add_column("table")
    table.add_column("done")
    for name in ("files +", "files -", "deleted"):
        table.add_column(name, justify="right")
    for done in maintained:
        counts = (done.files_added, done.files_removed, done.files_deleted)
        told = ("yes", *map(str, counts)) if done.is_done else ("not there, or another is at it",)
        table.add_row(done.table, *told)
    console.print(table, highlight=False)


def print_verification(console: Console, verification: IntegrityResult) -> None:
    """Print what is wrong, and how much was looked at."""
    for finding in verification.findings:
        line = f"{finding.problem.value} in {finding.where}: {finding.text}"
        console.print(line, highlight=False, soft_wrap=True)
    for table, rows in verification.rows.items():
        console.print(f"{table}: {count_of(rows, 'row')}", highlight=False)
    if verification.waiting:
        console.print(
            f"waiting to be drained: {count_of(verification.waiting, 'operation')}", highlight=False
        )
    for uri in verification.unread:
        console.print(f"not compared, its log cannot be read: {uri}", highlight=False)
    if verification.is_good:
        console.print("nothing is wrong", highlight=False)
