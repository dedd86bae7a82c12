"""`deltawitness lineage`: what a version of a table was made from, or what was made from it."""

from __future__ import annotations

import sys
from dataclasses import asdict
from enum import StrEnum
from typing import Annotated

import typer

from deltawitness.answers.column_graph import ColumnLineage
from deltawitness.answers.column_lineage import read_column_lineage
from deltawitness.answers.lineage import DEPTH, read_lineage
from deltawitness.answers.lineage_graph import Lineage, LineageDirection
from deltawitness.cli.console import JsonOption, console, print_json
from deltawitness.cli.ledger_option import RootOption, exit_on_ledger_error, listed_ledger
from deltawitness.report.column_lineage import (
    column_dot_text,
    column_mermaid_text,
    print_column_tree,
)
from deltawitness.report.lineage import dot_text, mermaid_text, print_lineage_tree

__all__ = ["lineage_command"]


class LineageFormat(StrEnum):
    """How a graph is printed."""

    TREE = "tree"
    MERMAID = "mermaid"
    DOT = "dot"
    JSON = "json"


def lineage_command(
    table: Annotated[
        str,
        typer.Argument(
            metavar="TABLE[@VERSION]",
            help="Name, id (or a prefix of it), path or URI; by default the last version that changed rows.",
        ),
    ],
    is_up: Annotated[
        bool, typer.Option("--up/--down", help="What it was made from, or what was made from it.")
    ] = True,
    depth: Annotated[int, typer.Option(min=0, help="Maximum number of levels.")] = DEPTH,
    has_history: Annotated[
        bool, typer.Option("--history", help="Also follow the versions of each table.")
    ] = False,
    has_columns: Annotated[
        bool, typer.Option("--columns", help="Follow the columns, by the plans of the writes.")
    ] = False,
    column: Annotated[
        str | None, typer.Option(metavar="NAME", help="Follow only this column.")
    ] = None,
    shown_as: Annotated[
        LineageFormat | None, typer.Option("--format", help="By default: tree.")
    ] = None,
    root: Annotated[str | None, RootOption] = None,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """Show the versions that a version of a table was made from, or those that were made from it.

    Exits 1 if the ledger has no such table or version, or several; 2 if the command line or a setting is
    invalid.
    """
    if as_json and shown_as not in {None, LineageFormat.JSON}:
        msg = "--json and --format select two formats"
        raise typer.BadParameter(msg)
    direction = LineageDirection.UP if is_up else LineageDirection.DOWN
    wanted = LineageFormat.JSON if as_json else shown_as or LineageFormat.TREE
    with exit_on_ledger_error(root, "read"):
        ledger = listed_ledger(root)
        if has_columns or column is not None:
            _print_columns(
                read_column_lineage(
                    ledger,
                    table,
                    column=column,
                    direction=direction,
                    depth=depth,
                    has_history=has_history,
                ),
                wanted,
            )
            return
        graph = read_lineage(
            ledger, table, direction=direction, depth=depth, has_history=has_history
        )
    _print(graph, wanted)


def _print(graph: Lineage, shown_as: LineageFormat) -> None:
    match shown_as:
        case LineageFormat.TREE:
            print_lineage_tree(console(sys.stdout), graph)
        case LineageFormat.JSON:
            print_json({"kind": "lineage", **asdict(graph)})
        case LineageFormat.MERMAID:
            print(mermaid_text(graph), end="")
        case LineageFormat.DOT:
            print(dot_text(graph), end="")


def _print_columns(graph: ColumnLineage, shown_as: LineageFormat) -> None:
    match shown_as:
        case LineageFormat.TREE:
            print_column_tree(console(sys.stdout), graph)
        case LineageFormat.JSON:
            print_json({"kind": "column_lineage", **asdict(graph)})
        case LineageFormat.MERMAID:
            print(column_mermaid_text(graph), end="")
        case LineageFormat.DOT:
            print(column_dot_text(graph), end="")
