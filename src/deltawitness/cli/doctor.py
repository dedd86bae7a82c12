"""`deltawitness doctor`: check the health of tables."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Annotated, Any

import typer

from deltawitness.answers.health.values import Health, Severity
from deltawitness.cli.console import JsonOption, console, print_json
from deltawitness.cli.ledger_option import (
    RootOption,
    exit_on_ledger_error,
    listed_ledger,
    settings_of,
)
from deltawitness.report.doctor import print_health

__all__ = ["ERRORS", "WARNINGS", "doctor_command"]

WARNINGS = 3
"""Exit code if the worst finding is a warning."""

ERRORS = 4
"""Exit code if a finding is an error."""

_CODES = {Severity.WARNING: WARNINGS, Severity.ERROR: ERRORS}


def doctor_command(
    tables: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="TABLE",
            help="Names, ids, paths or URIs of tables, folders of tables, or globs; by default all tables"
            " of the ledger.",
        ),
    ] = None,
    files: Annotated[
        bool,
        typer.Option(
            "--files/--no-files",
            help="List the files on the storage, to find missing and unused ones.",
        ),
    ] = True,
    commits: Annotated[
        int, typer.Option(min=1, metavar="N", help="Maximum number of commits to read of each log.")
    ] = 10_000,
    sizes: Annotated[bool, typer.Option("--sizes", help="Print the sizes of files.")] = False,
    root: Annotated[str | None, RootOption] = None,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """Check the health of tables, and print the commands that mend what is found.

    Exits 0 without warnings, 3 if the worst finding is a warning, 4 if one is an error, 1 if a table or
    the ledger is unknown or cannot be read, 2 if the command line or a setting is invalid.

    Examples:
    deltawitness doctor orders

    deltawitness doctor 's3://lake/**' --json
    """
    from deltawitness.answers.doctor import doctor  # noqa: PLC0415 - heavy

    with exit_on_ledger_error(root, "read"):
        if not tables:
            listed_ledger(root)  # its error message names the options
        found = doctor(
            *(tables or ()),
            files=files,
            commits=commits,
            settings=settings_of(root),
            **_given(root),
        )
    if as_json:
        print_json(_health_json(found))
    else:
        print_health(console(sys.stdout), found, has_sizes=sizes)
    if found.severity in _CODES:
        raise typer.Exit(_CODES[found.severity])


def _given(root: str | None) -> dict[str, Any]:
    return {} if root is None else {"root": root}


def _health_json(found: Health) -> dict[str, Any]:
    tables = [{**asdict(each), "severity": each.severity} for each in found.tables]
    return {
        "kind": "health",
        "is_healthy": found.is_healthy,
        "severity": found.severity,
        "tables": tables,
    }
