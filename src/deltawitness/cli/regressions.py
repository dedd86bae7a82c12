"""`deltawitness regressions`: jobs that are broken, flaky, slower or smaller than before."""

from __future__ import annotations

import datetime as dt
import sys
from dataclasses import asdict
from typing import Annotated

import typer

from deltawitness.answers.trends.regressions import MIN_SECONDS, read_regressions
from deltawitness.cli.console import (
    FAILED,
    JsonOption,
    console,
    errors_exit_with_2,
    print_json,
)
from deltawitness.cli.durations import AtOption
from deltawitness.cli.ledger_option import RootOption, exit_on_ledger_error, listed_ledger
from deltawitness.report.trends import print_regressions

__all__ = ["regressions_command"]


def regressions_command(
    job: Annotated[str | None, typer.Option(help="Filter by job name.")] = None,
    at: Annotated[dt.datetime | None, AtOption] = None,
    min_seconds: Annotated[
        float, typer.Option(min=0, help="Seconds by which a run must be slower than the median.")
    ] = MIN_SECONDS,
    root: Annotated[str | None, RootOption] = None,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """List jobs that are newly broken, flaky, slower than twice their median, or smaller than half of it.

    Exits 0 if there is none, 1 if there are some, 2 after any error.
    """
    with errors_exit_with_2(), exit_on_ledger_error(root, "read"):
        found = read_regressions(listed_ledger(root), job, at=at, min_seconds=min_seconds)
    if as_json:
        rows = [{**asdict(each), "has_new_code": each.has_new_code} for each in found.regressions]
        values = {**asdict(found), "regressions": rows}
        print_json({"kind": "regressions", "is_ok": found.is_ok, **values})
    else:
        print_regressions(console(sys.stdout), found)
    if not found.is_ok:
        raise typer.Exit(FAILED)
