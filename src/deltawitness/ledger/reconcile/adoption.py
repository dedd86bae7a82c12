"""The result of an adopt: rows and inferred runs of tables that any program has written."""

from __future__ import annotations

from dataclasses import dataclass

from deltawitness.ledger.reconcile.findings import UnreadableTable
from deltawitness.ledger.reconcile.plan import ReconcilePlan

__all__ = ["AdoptResult", "adopt_plan"]


@dataclass(frozen=True, slots=True)
class AdoptResult:
    """What an adopt read and appended to the ledger.

    Attributes:
        tables: locations of the tables whose logs were read.
        commits: number of commits in their logs.
        operations: number of rows appended to the inventory; commits with a row get no other one.
        runs: number of rows appended to the run summary.
        unsettled: number of commits left for a later adopt, because a process may still record them.
        unreadable: tables and folders that could not be read.
    """

    tables: tuple[str, ...]
    commits: int
    operations: int
    runs: int
    unsettled: int
    unreadable: tuple[UnreadableTable, ...]


def adopt_plan(plan: ReconcilePlan) -> AdoptResult:
    """Append the rows and runs of a plan with inferred runs.

    Raises:
        OSError: the ledger's storage cannot be written.
        DeltaError: a table of the ledger is damaged, or has too many concurrent writers.
    """
    operations, runs = plan._apply_with_runs()  # noqa: SLF001 - not public: users get an AdoptResult
    return AdoptResult(
        tables=plan.tables,
        commits=plan.commits,
        operations=operations,
        runs=runs,
        unsettled=plan.unsettled,
        unreadable=plan.unreadable,
    )
