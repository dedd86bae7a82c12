"""`deltawitness diff`: what differs between two versions of a table, two tables, or two runs."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from deltawitness.answers.diff.question import answer_diff
from deltawitness.answers.diff.run_values import RunDiff
from deltawitness.answers.diff.table_values import TableDiff
from deltawitness.answers.diff.tables import DiffOptions
from deltawitness.answers.json_values import json_value
from deltawitness.cli.console import JsonOption, console, errors_exit_with_2, print_json
from deltawitness.cli.ledger_option import (
    RootOption,
    exit_on_ledger_error,
    listed_ledger,
    settings_of,
)
from deltawitness.report.diff import print_run_diff, print_table_diff

__all__ = ["DIFFERENT", "KeyOption", "RowsOption", "columns_of", "diff_command"]

DIFFERENT = 1
"""Exit code when there is a difference."""

KeyOption: Any = typer.Option(
    "--key", metavar="COLUMN[,COLUMN]", help="Columns that identify a row."
)

RowsOption: Any = typer.Option("--rows/--no-rows", help="Compare rows, or only the logs.")


def columns_of(key: str | None) -> tuple[str, ...]:
    """Return the columns of a key as on the command line; none for None.

    >>> columns_of("id, day")
    ('id', 'day')
    """
    return tuple(name.strip() for name in (key or "").split(",") if name.strip())


def diff_command(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME...",
            help="TABLE V1 V2; TABLE@V1 TABLE@V2, also of two tables; RUN RUN; TABLE alone for the last two"
            " versions that changed rows, or TABLE@V for V and the version before it.",
        ),
    ],
    key: Annotated[str | None, KeyOption] = None,
    rows: Annotated[bool, RowsOption] = True,
    statistics: Annotated[
        bool, typer.Option("--stats", help="Summarize the columns of both versions.")
    ] = False,
    show_rows: Annotated[
        bool,
        typer.Option("--show-rows", help="Print values of rows that differ; else only counts."),
    ] = False,
    limit: Annotated[
        int, typer.Option(min=1, help="Maximum number of printed rows of each kind of change.")
    ] = 10,
    root: Annotated[str | None, RootOption] = None,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """Compare versions of tables, or runs. Exits 0 without a difference, 1 with one, 2 after an error."""
    options = DiffOptions(
        key=columns_of(key),
        rows=rows,
        statistics=statistics,
        limit=limit,
        show_rows=show_rows,
    )
    with errors_exit_with_2(), exit_on_ledger_error(root, "read"):
        settings = settings_of(root)
        ledger = listed_ledger(root, is_required=False)
        found = answer_diff(ledger, names, options, settings)
    if as_json:
        print_json(_json(found))
    elif isinstance(found, TableDiff):
        print_table_diff(console(sys.stdout), found)
    else:
        print_run_diff(console(sys.stdout), found)
    if found.is_different:
        raise typer.Exit(DIFFERENT)


def _json(found: TableDiff | RunDiff) -> dict[str, Any]:
    kind = "tables" if isinstance(found, TableDiff) else "runs"
    more = {} if isinstance(found, TableDiff) else {"explanation": found.explanation}
    return {
        "kind": kind,
        "is_different": found.is_different,
        **more,
        **json_value(found),
    }
