"""One commit of a table: the engine's record of it, and its metadata."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

from rich.console import Console

from deltawitness.commit import CommitMetadata
from deltawitness.report.tables import Column, print_line, print_table

__all__ = ["print_commit"]

_COLUMNS = (Column("key", wrap_at=12), Column("value", wrap_at=20))


def print_commit(console: Console, commit: CommitMetadata) -> None:
    """Print one commit: the engine's record of it, and its metadata."""
    print_line(console, f"version {commit.version}  {commit.operation}")
    rows = []
    if commit.timestamp is not None:
        time = dt.datetime.fromtimestamp(commit.timestamp / 1000, tz=dt.UTC)
        rows.append(("committed at", time.isoformat(timespec="milliseconds")))
    rows.append(("engine", commit.engine_info or "unknown"))
    in_text = commit.witness if commit.is_from_spark else {}
    rows += [*_sorted(commit.operation_metrics), *_sorted({**in_text, **commit.metadata})]
    print_table(console, _COLUMNS, rows)
    for problem in commit.problems:
        print_line(console, f"problem: {problem}")


def _sorted(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(name, str(value)) for name, value in sorted(values.items())]
