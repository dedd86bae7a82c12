"""One commit of a table: what the engine says of it, and its metadata."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from deltawitness.commit import CommitMetadata

__all__ = ["print_commit"]


def print_commit(console: Console, commit: CommitMetadata) -> None:
    """Print one commit: what the engine says of it, and its metadata."""
    table = Table(title=f"version {commit.version}  {commit.operation}", title_justify="left")
    table.add_column("key")
    table.add_column("value", overflow="fold")
    if commit.timestamp is not None:
        moment = dt.datetime.fromtimestamp(commit.timestamp / 1000, tz=dt.UTC)
        table.add_row("committed at", moment.isoformat(timespec="milliseconds"))
    table.add_row("engine", commit.engine_info or "unknown")
    _add_rows(table, commit.operation_metrics)
    table.add_section()
    _add_rows(table, commit.metadata)
    console.print(table, highlight=False)
    for problem in commit.problems:
        console.print(f"problem: {problem}", highlight=False)


def _add_rows(table: Table, values: Mapping[str, Any]) -> None:
    for name, value in sorted(values.items()):
        table.add_row(name, str(value))
