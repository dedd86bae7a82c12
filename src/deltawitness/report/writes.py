"""Operations as the ledger tells them: a line for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from deltawitness.report.format import rows, seconds, short_id, text, timestamp

__all__ = ["print_writes"]

Row = Mapping[str, Any]

_MILLISECONDS = 1000


def print_writes(console: Console, operations: Sequence[Row]) -> None:
    """Print a line for each operation."""
    table = Table()
    table.add_column("time", no_wrap=True)
    table.add_column("run", no_wrap=True)
    for name in ("table", "operation"):
        table.add_column(name)
    table.add_column("version", justify="right")
    for name in ("result", "rows"):
        table.add_column(name)
    table.add_column("seconds", justify="right")
    table.add_column("source")
    for row in operations:
        lasted = row["duration_ms"]
        table.add_row(
            timestamp(row["event_time"]),
            short_id(row["run_id"]),
            row["table_name"] or text(row["table_id"])[:8],
            text(row["operation"]),
            text(row["version"]),
            row["error_type"] or row["reason"] or text(row["result"]),
            rows(row["rows_added"], row["rows_updated"], row["rows_deleted"]),
            seconds(None if lasted is None else lasted / _MILLISECONDS),
            text(row["source"]),
        )
    console.print(table, highlight=False)
