"""`deltawitness ci-report`: problems of the last runs as Markdown for a pull request."""

from __future__ import annotations

import datetime as dt
import sys
from dataclasses import asdict
from typing import Annotated

import typer

from deltawitness.answers.trends.ci_report import FAIL_ON, read_ci_report
from deltawitness.answers.trends.ci_values import CiCheck
from deltawitness.answers.trends.overdue import TOLERANCE
from deltawitness.answers.trends.regressions import MIN_SECONDS
from deltawitness.cli.console import FAILED, JsonOption, errors_exit_with_2, print_json
from deltawitness.cli.durations import AtOption, SinceOption
from deltawitness.cli.ledger_option import RootOption, exit_on_ledger_error, listed_ledger

__all__ = ["ci_report_command"]


def _checks(text: str) -> tuple[CiCheck, ...]:
    """Parse names of checks, separated by commas.

    Raises:
        typer.BadParameter: there is no such check.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    known = [check.value for check in CiCheck]
    for name in names:
        if name not in known:
            msg = f"no check {name!r}: use {', '.join(known)}"
            raise typer.BadParameter(msg)
    return tuple(map(CiCheck, names))


def ci_report_command(
    since: Annotated[dt.datetime | None, SinceOption] = None,
    at: Annotated[dt.datetime | None, AtOption] = None,
    job: Annotated[str | None, typer.Option(help="Filter by job name.")] = None,
    fail_on: Annotated[
        str,
        typer.Option(
            metavar="CHECK[,CHECK]",
            help="Checks that fail the report; others are warnings. '' for none.",
        ),
    ] = ",".join(FAIL_ON),
    tolerance: Annotated[
        float, typer.Option(min=0.1, help="Standard deviations that are not unusual.")
    ] = TOLERANCE,
    min_seconds: Annotated[
        float, typer.Option(min=0, help="Seconds by which a run must be slower than the median.")
    ] = MIN_SECONDS,
    root: Annotated[str | None, RootOption] = None,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """Print a report about the runs of the last day, or since a time, as Markdown for a pull request.

    Exits 0 without a problem, or only with warnings, 1 if a check of --fail-on found one, 2 after any error.

    Example:
    deltawitness ci-report --since 2h >> "$GITHUB_STEP_SUMMARY"
    """
    checks = _checks(fail_on)
    with errors_exit_with_2(), exit_on_ledger_error(root, "read"):
        found = read_ci_report(
            listed_ledger(root),
            since=since,
            at=at,
            job=job,
            fail_on=checks,
            tolerance=tolerance,
            min_seconds=min_seconds,
        )
    if as_json:
        print_json({"kind": "ci-report", "is_ok": found.is_ok, **asdict(found)})
    else:
        sys.stdout.write(found.markdown)
    if not found.is_ok:
        raise typer.Exit(FAILED)
