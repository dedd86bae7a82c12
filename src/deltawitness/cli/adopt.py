"""`deltawitness adopt`: fill the ledger from the logs of tables that any program has written."""

from __future__ import annotations

import datetime as dt
import sys
from dataclasses import asdict
from typing import Annotated

import typer

from deltawitness.cli.console import FAILED, JsonOption, console, print_error, print_json
from deltawitness.cli.durations import SinceOption, parse_duration
from deltawitness.cli.ledger_option import (
    TABLES_HELP,
    RootOption,
    any_ledger,
    exit_on_ledger_error,
)
from deltawitness.cli.reconcile import log_progress, write_ledger
from deltawitness.report.format import storage_reason
from deltawitness.report.reconcile import print_adopted

__all__ = ["adopt_command"]


def adopt_command(
    tables: Annotated[list[str], typer.Argument(help=TABLES_HELP)],
    gap: Annotated[
        dt.timedelta,
        typer.Option(
            metavar="DURATION",
            parser=parse_duration,
            help="Time without a commit after which the next commit starts a new run, such as 10m or 2h.",
        ),
    ] = "30m",  # type: ignore[assignment]  # the parser reads a default, too
    since: Annotated[dt.datetime | None, SinceOption] = None,
    root: Annotated[str | None, RootOption] = None,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """Fill the ledger from the logs of tables that any program has written. Exits 1 if any cannot be read.

    The tables are only read, and a second call appends nothing. It exits 2 if the command line or a
    setting is invalid.

    Examples:
    deltawitness adopt 's3://lake/**' --root s3://lake/ledger

    deltawitness adopt lake --gap 10m --json
    """
    with exit_on_ledger_error(root, "written"):
        ledger = any_ledger(root)
        with log_progress() as progress:
            adopted = write_ledger(
                root, lambda: ledger.adopt(tables, since=since, gap=gap, progress=progress)
            )
    if as_json:
        print_json(asdict(adopted))
    else:
        print_adopted(console(sys.stdout), adopted)
        for lost in adopted.unreadable:
            print_error(f"{lost.table_uri} cannot be read: {storage_reason(lost.text)}")
    if adopted.unreadable:
        raise typer.Exit(FAILED)
