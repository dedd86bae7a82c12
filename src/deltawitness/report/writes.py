"""A list of operations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console

from deltawitness.report.format import (
    operation,
    rows,
    seconds,
    short_ids,
    table_name,
    text,
    timestamp,
)
from deltawitness.report.tables import Column, print_line, print_table

__all__ = ["print_run_writes", "print_writes"]

Row = Mapping[str, Any]

_MILLISECONDS = 1000

_COLUMNS = (
    Column("time", wrap_at=10, splits_words=False),
    Column("run"),
    Column("table", wrap_at=8),
    Column("operation", wrap_at=9, splits_words=False),
    Column("version", is_number=True),
    Column("result", wrap_at=8),
    Column("rows", wrap_at=4, splits_words=False),
    Column("seconds", is_number=True),
    Column("source"),
)


def print_writes(
    console: Console, operations: Sequence[Row], similar_ids: Iterable[str] = ()
) -> None:
    """Print a line for each operation.

    Args:
        console: the console to print on.
        operations: rows of the inventory.
        similar_ids: ids of other runs, from which the shortened ids have to differ.
    """
    if not operations:
        console.print("no operations", highlight=False)
        return
    ids = short_ids((row["run_id"] for row in operations), similar_ids)
    print_table(console, _COLUMNS, [_cells(row, ids) for row in operations])


def _cells(row: Row, ids: Mapping[str, str]) -> list[str]:
    milliseconds = row["duration_ms"]
    return [
        timestamp(row["event_time"]),
        ids.get(row["run_id"], ""),
        table_name(row),
        operation(row["operation"], row["mode"]),
        text(row["version"]),
        _result(row),
        rows(row["rows_added"], row["rows_updated"], row["rows_deleted"]),
        seconds(None if milliseconds is None else milliseconds / _MILLISECONDS),
        text(row["source"] if row["source"] != "observed" else None),
    ]


def _result(row: Row) -> str:
    """Return the result as `--result` accepts it, followed by the error type or the reason."""
    why = row["error_type"] or row["reason"]
    return text(row["result"]) + (f": {why}" if why else "")


WRITES_SHOWN = 20
"""Maximum number of operations that are printed of a run."""


def print_run_writes(console: Console, operations: Sequence[Row], run_id: str) -> None:
    """Print a line for each operation of a run and its child runs, up to `WRITES_SHOWN`.

    Args:
        console: the console to print on.
        operations: rows of the inventory, oldest first.
        run_id: id of the run, for the command that lists the rest.
    """
    print_line(console, "operations:")
    shown = operations[:WRITES_SHOWN]
    others = {row["run_id"] for row in shown} - {run_id}
    ids = short_ids(others, [run_id])
    print_table(console, _COLUMNS, [_cells(row, ids) for row in shown])
    more = len(operations) - WRITES_SHOWN
    if more > 0:
        print_line(console, f"{more} more: deltawitness writes --run {run_id}")
