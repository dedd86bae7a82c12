"""Results of drains, compactions and checks of the ledger."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console

from deltawitness.plurals import count_of
from deltawitness.report.tables import Column, print_line, print_table

if TYPE_CHECKING:
    from deltawitness.ledger.drain.drain import DrainResult
    from deltawitness.ledger.drain.expire import ExpireResult
    from deltawitness.ledger.drain.fold import FoldResult
    from deltawitness.ledger.drain.maintenance import MaintenanceResult
    from deltawitness.ledger.drain.serve import ServeResult
    from deltawitness.ledger.integrity import IntegrityResult

__all__ = [
    "print_drained",
    "print_expired",
    "print_folded",
    "print_maintained",
    "print_served",
    "print_verification",
]


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


_EXPIRED_COLUMNS = (
    Column("table", wrap_at=20),
    *(Column(name, is_number=True) for name in ("rows", "expired", "retained")),
    Column("done", wrap_at=20),
)


def print_expired(console: Console, expired: Sequence[ExpireResult], *, is_applied: bool) -> None:
    """Print the rows that an expiry deleted from each table, or would delete."""
    rows = []
    for table in expired:
        done = "no" if not is_applied else "another process compacts it"
        counts = (table.rows, table.expired, table.retained)
        rows.append((table.table, *map(str, counts), "yes" if table.is_done else done))
    print_table(console, _EXPIRED_COLUMNS, rows)
    if not is_applied:
        print_line(console, "use --apply to delete the expired rows")


_FOLDED_COLUMNS = (
    Column("shard", wrap_at=20),
    Column("table", wrap_at=20),
    Column("rows", is_number=True),
    Column("done", wrap_at=30),
)


def print_folded(console: Console, folded: Sequence[FoldResult]) -> None:
    """Print the rows that a fold moved from each shard."""
    if not folded:
        print_line(console, "no rows to fold")
        return
    rows = [
        (
            done.shard,
            done.table,
            str(done.rows),
            done.error or ("yes" if done.is_deleted else "the next fold deletes them in the shard"),
        )
        for done in folded
    ]
    print_table(console, _FOLDED_COLUMNS, rows)


def print_served(console: Console, served: ServeResult) -> None:
    """Print what a server imported until it was stopped."""
    done = served.drained
    print_line(
        console,
        f"imported {count_of(done.operations, 'operation')} and {count_of(done.runs, 'run')}"
        f" in {count_of(served.drains, 'drain')}; folded {count_of(served.folded, 'row')}",
    )
    if done.damaged:
        print_line(console, f"skipped as damaged: {count_of(done.damaged, 'line')}")
    if served.failures:
        print_line(
            console, f"failed: {count_of(served.failures, 'drain or fold', 'drains or folds')}"
        )


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
