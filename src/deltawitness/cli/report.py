"""`deltawitness report`: write a report of the ledger as one HTML file."""

from __future__ import annotations

import datetime as dt
import sys
import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from deltawitness.cli.console import (
    JsonOption,
    console,
    exit_on_error,
    print_json,
)
from deltawitness.cli.durations import SinceOption, parse_time
from deltawitness.cli.ledger_option import RootOption, exit_on_ledger_error, listed_ledger
from deltawitness.html_report.question import HtmlReport, make_report
from deltawitness.report.format import size
from deltawitness.report.tables import print_line

__all__ = ["report_command"]

_SINCE = "7d"
"""The time of a report without the options --run, --job and --since."""


def report_command(
    run: Annotated[
        str | None,
        typer.Option(
            metavar="RUN", help="Only this run and its child runs: an id, or a prefix of it."
        ),
    ] = None,
    job: Annotated[str | None, typer.Option(help="Filter by job name.")] = None,
    since: Annotated[dt.datetime | None, SinceOption] = None,
    output: Annotated[
        str,
        typer.Option("--output", "-o", metavar="FILE", help="The file to write; '-' for stdout."),
    ] = "report.html",
    open_it: Annotated[bool, typer.Option("--open", help="Show the report in a browser.")] = False,
    root: Annotated[str | None, RootOption] = None,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """Write a report as one HTML file that makes no request; without options, of the last 7 days.

    It shows the verdict, what is worse than before, a timeline, errors, runs, tables, lineage, the cache,
    conflicts and the events. Exits 0 also if there are problems, 1 if the ledger or the file fails, 2 if
    the command line or a setting is invalid.

    Examples:
    deltawitness report --open

    deltawitness report --run 01a2108d-76d3 -o run.html
    """
    if run is not None and (job is not None or since is not None):
        msg = "--run: cannot be combined with --job or --since"
        raise typer.BadParameter(msg)
    if output == "-" and (as_json or open_it):
        msg = "--output: '-' cannot be combined with --json or --open"
        raise typer.BadParameter(msg)
    if run is None and job is None and since is None:
        since = parse_time(_SINCE)
    with exit_on_ledger_error(root, "read"):
        report = make_report(listed_ledger(root), run=run, job=job, since=since, option="--")
    if output == "-":
        sys.stdout.write(report.html)
        return
    path = Path(output)
    with exit_on_error(f"the report cannot be written to {output}"):
        path.write_text(report.html, encoding="ascii")
    _print(report, path, as_json=as_json)
    if open_it:
        webbrowser.open(path.absolute().as_uri())


def _print(report: HtmlReport, path: Path, *, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "path": str(path),
                "bytes": len(report.html),
                "is_ok": report.is_ok,
                "verdict": report.verdict,
                "operations": report.operations,
                "left_out": report.left_out,
            }
        )
        return
    out = console(sys.stdout)
    print_line(out, report.verdict)
    print_line(out, f"wrote {path} ({size(len(report.html))})")
