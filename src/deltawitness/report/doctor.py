"""The health of tables: their sizes, and the findings with the commands that mend them."""

from __future__ import annotations

from collections import Counter

from rich.console import Console

from deltawitness.answers.health.values import Health, HealthFinding, Severity, TableHealth
from deltawitness.plurals import count_of
from deltawitness.report.format import size, text
from deltawitness.report.tables import Column, print_line, print_table

__all__ = ["print_health"]

_TABLES = (
    Column("table", wrap_at=12),
    Column("health"),
    Column("version", is_number=True),
    Column("files", is_number=True),
    Column("size", is_number=True),
    Column("rows", is_number=True),
    Column("partitions", is_number=True),
    Column("commits", is_number=True),
    Column("since checkpoint", is_number=True),
    Column("old versions", is_number=True),
    Column("orphans", is_number=True),
)

_SIZES = (
    Column("table", wrap_at=12),
    Column("file size"),
    Column("files", is_number=True),
    Column("size", is_number=True),
)


def print_health(console: Console, health: Health, *, has_sizes: bool) -> None:
    """Print a line for each table, and the findings below.

    Args:
        console: the console to print on.
        health: the result.
        has_sizes: whether the histogram of file sizes is printed.
    """
    if not health.tables:
        print_line(console, "the ledger has no table")
        return
    names = Counter(table.name for table in health.tables)
    labels = {
        table.uri: table.uri if names[table.name] > 1 else table.name for table in health.tables
    }
    print_table(console, _TABLES, [_cells(table, labels[table.uri]) for table in health.tables])
    if has_sizes:
        rows = [row for table in health.tables for row in _size_rows(table, labels[table.uri])]
        print_table(console, _SIZES, rows)
    for finding in health.findings:
        _print_finding(console, finding, labels[finding.uri])
    counts = Counter(finding.severity for finding in health.findings)
    words = [
        count_of(counts[each], each.value, _PLURALS[each]) for each in _PLURALS if counts[each]
    ]
    print_line(
        console, f"{count_of(len(health.tables), 'table')}: {', '.join(words) or 'no findings'}"
    )


_PLURALS = {Severity.ERROR: "errors", Severity.WARNING: "warnings", Severity.INFO: "info"}


def _cells(table: TableHealth, label: str) -> tuple[str, ...]:
    return (
        label,
        "ok" if table.severity is None else table.severity.value,
        text(table.version),
        _count(table.files),
        size(table.bytes),
        _count(table.rows),
        _count(table.partitions),
        f"{table.commits:,}",
        _count(table.commits_since_checkpoint),
        size(table.held_bytes),
        size(table.orphan_bytes),
    )


def _count(count: int | None) -> str:
    return "" if count is None else f"{count:,}"


def _size_rows(table: TableHealth, label: str) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    lower = 0
    for bucket in table.sizes:
        if bucket.below is None:
            name = f"from {size(lower)}"
        else:
            name = (
                f"{size(lower)} to {size(bucket.below)}" if lower else f"below {size(bucket.below)}"
            )
            lower = bucket.below
        if bucket.files:
            rows.append((label, name, f"{bucket.files:,}", size(bucket.bytes)))
    return rows


def _print_finding(console: Console, finding: HealthFinding, label: str) -> None:
    print_line(console, f"{finding.severity.value}: {label}: {finding.check.value}: {finding.text}")
    if finding.command is not None:
        print_line(console, f"  {finding.command}")
