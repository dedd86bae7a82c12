"""Results of an audit: commits without the standard metadata."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console

from deltawitness.commit import CommitMetadata
from deltawitness.plurals import count_of
from deltawitness.report.tables import Column, print_line, print_table

__all__ = ["AuditResult", "audit_json", "print_audit"]


@dataclass(slots=True)
class AuditResult:
    """Result of the audit of one table.

    Attributes:
        table: its path or URI.
        commits: number of checked commits.
        failing: commits that lack a key, each with its missing keys.
        error: why the table could not be read; None if it was.
    """

    table: str
    commits: int = 0
    failing: list[tuple[CommitMetadata, list[str]]] = field(default_factory=list)
    error: str | None = None

    def add(self, commit: CommitMetadata, missing: list[str]) -> None:
        """Count a commit.

        Args:
            commit: the commit.
            missing: the keys that it lacks.
        """
        self.commits += 1
        if missing:
            self.failing.append((commit, missing))


def audit_json(tables: Sequence[AuditResult]) -> dict[str, Any]:
    """Return an audit as JSON-able values."""
    return {
        "is_good": not any(table.failing or table.error for table in tables),
        "commits": sum(table.commits for table in tables),
        "failing": sum(len(table.failing) for table in tables),
        "tables": [
            {
                "table": table.table,
                "commits": table.commits,
                "error": table.error,
                "failing": [
                    {
                        "version": commit.version,
                        "operation": commit.operation,
                        "engine": commit.engine_info,
                        "timestamp": commit.timestamp,
                        "missing": missing,
                    }
                    for commit, missing in table.failing
                ],
            }
            for table in tables
        ],
    }


def print_audit(console: Console, tables: Sequence[AuditResult], required: int) -> None:
    """Print the failing commits, and the number of checked commits of the tables that were read.

    Args:
        console: the console to print on.
        tables: the results.
        required: number of required keys. A commit that lacks all of them is printed without their names.
    """
    failing = [(table, *found) for table in tables for found in table.failing]
    if failing:
        rows = [
            (
                table.table,
                str(commit.version),
                commit.operation or "",
                commit.engine_info or "",
                "all keys" if len(missing) == required else ", ".join(missing),
            )
            for table, commit, missing in failing
        ]
        print_table(console, _COLUMNS, rows)
    read = [table for table in tables if table.error is None]
    if read or failing:
        commits = sum(table.commits for table in tables)
        checked = f"{count_of(commits, 'commit')} of {count_of(len(read), 'table')}"
        print_line(console, f"{checked}: {len(failing)} without the standard metadata")


_COLUMNS = (
    Column("table", wrap_at=16),
    Column("version", is_number=True),
    Column("operation"),
    Column("engine", wrap_at=10),
    Column("missing", wrap_at=17),
)
