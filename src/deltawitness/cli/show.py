"""`deltawitness show`: one version of a table, or one run."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Annotated, Any

import typer

from deltawitness.answers.commits import read_commit
from deltawitness.answers.lookup import NamedTable, find_target
from deltawitness.answers.run_report import RunReport, read_run
from deltawitness.answers.shown_commit import ShownCommit
from deltawitness.answers.trace_links import trace_url
from deltawitness.cli.console import JsonOption, console, print_json
from deltawitness.cli.ledger_option import (
    RootOption,
    exit_on_ledger_error,
    listed_ledger,
    settings_of,
)
from deltawitness.exceptions import LedgerLookupError
from deltawitness.ledger.tables.listing import LedgerListing, Row
from deltawitness.report.runs import print_run
from deltawitness.report.shown_commit import print_shown_commit
from deltawitness.report.summary import summary_lines, summary_of_rows

__all__ = ["show_command"]


def show_command(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="TABLE[@VERSION] (name, id, path or URI), or a run id or a prefix of it."
            " table:NAME and run:NAME select one of the two.",
        ),
    ],
    root: Annotated[str | None, RootOption] = None,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """Show one version of a table (who, when, why, from what), or one run with its operations.

    Exits 1 if there is no such table, version or run, or there are several; 2 if the command line or a setting
    is invalid.
    """
    with exit_on_ledger_error(root, "read"):
        settings = settings_of(root)
        ledger = listed_ledger(root, is_required=False)
        target = _target(ledger, name, root)
        shown = (
            read_commit(ledger, target, settings)
            if isinstance(target, NamedTable)
            else read_run(ledger, target)
        )
    if isinstance(shown, ShownCommit):
        if as_json:
            print_json(_commit_json(shown))
        else:
            print_shown_commit(console(sys.stdout), shown)
    elif as_json:
        print_json(_report_json(shown, settings.trace_url))
    else:
        print_run(console(sys.stdout), shown, settings.trace_url)


def _target(ledger: LedgerListing, name: str, root: str | None) -> NamedTable | str:
    try:
        return find_target(ledger, name)
    except LedgerLookupError:
        listed_ledger(root)  # a missing ledger is the better explanation
        raise


def _commit_json(shown: ShownCommit) -> dict[str, Any]:
    site = None if shown.call_site is None else shown.call_site._asdict()
    return {"kind": "commit", **asdict(shown), "call_site": site}


def _report_json(report: RunReport, template: str | None) -> dict[str, Any]:
    run = report.run
    summary = summary_of_rows(run["run_id"], run["job"], report.operations)
    return {
        "kind": "run",
        "run": run,
        "children": _children_json(report, run["run_id"]),
        "total": report.total(),
        "tables": summary_lines(summary),
        "failed": report.failed,
        "writes": report.writes,
        "outputs": report.outputs(),
        "processes": report.parts,
        "traces": [
            {"trace_id": trace_id, "url": trace_url(template, trace_id)}
            for trace_id in report.trace_ids()
        ],
        "undone_by": report.undone_by,
    }


def _children_json(report: RunReport, run_id: str) -> list[Row]:
    return [
        {**child, "children": _children_json(report, child["run_id"])}
        for child in report.children.get(run_id, [])
    ]
