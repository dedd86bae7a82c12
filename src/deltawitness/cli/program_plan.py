"""`deltawitness plan` and `deltawitness apply`: show what a program would do, then run it for real."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from deltawitness.answers.diff.tables import DiffOptions
from deltawitness.answers.json_values import json_value
from deltawitness.answers.program_plan.application import apply_plan
from deltawitness.answers.program_plan.question import PlanRequest, Runner, make_plan
from deltawitness.cli.console import (
    MISUSED,
    JsonOption,
    console,
    exit_on_error,
    log_to_stderr,
    print_error,
    print_json,
)
from deltawitness.cli.diff import KeyOption, RowsOption, columns_of
from deltawitness.cli.ledger_option import RootOption, settings_of
from deltawitness.cli.program import exit_as, run_program
from deltawitness.cli.run_ledger import default_folder
from deltawitness.report.program_plan import print_applied, print_plan

__all__ = ["apply_command", "plan_command"]

REFUSED = 3
"""Exit code of `apply` if the program was not started."""


def plan_command(
    command: Annotated[list[str], typer.Argument(help="The program and its arguments.")],
    job: Annotated[str | None, typer.Option(help="Job name of its run.")] = None,
    message: Annotated[str | None, typer.Option(help="Why the program writes.")] = None,
    key: Annotated[str | None, KeyOption] = None,
    rows: Annotated[bool, RowsOption] = True,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the clones of the tables; else they are deleted.")
    ] = False,
    any_program: Annotated[
        bool,
        typer.Option(
            "--any-program",
            help="Accept a program that is not Python. Writes of other processes than Python are real.",
        ),
    ] = False,
    root: Annotated[str | None, RootOption] = None,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """Run a program against clones of its Delta tables, and print what it would do to them.

    The tables do not change. Other effects of the program are real: files, databases, messages. The exit
    code is that of the program; 1 if it cannot be planned, 2 for an invalid option or setting.

    Examples:
    deltawitness plan -- python job.py
    """
    if command[0].startswith("-"):
        print_error(f"plan: unknown option {command[0]}")
        raise typer.Exit(MISUSED)
    request = PlanRequest(
        command=tuple(command),
        job=job,
        message=message,
        options=DiffOptions(key=columns_of(key), rows=rows),
        keep=keep,
        any_program=any_program,
    )
    log_to_stderr()
    with exit_on_error("the program cannot be planned"):
        settings = settings_of(root)
        folder = default_folder(settings)
        try:
            plan = make_plan(request, settings, _runner(as_json=as_json))
        finally:
            folder.ensure_gitignore()
    if as_json:
        print_json({**json_value(plan), "is_applicable": plan.is_applicable})
    else:
        sys.stdout.flush()
        print_plan(console(sys.stdout), plan)
    exit_as(plan.exit_code)


def apply_command(
    plan: Annotated[
        str, typer.Argument(metavar="PLAN", help="Id of the plan, or a prefix that no other has.")
    ],
    root: Annotated[str | None, RootOption] = None,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """Run a planned program, if its tables are at the versions of the plan.

    The exit code is that of the program; 3 if it was not started because something has changed since the
    plan, 1 if there is no such plan, 2 for an invalid option or setting.

    Examples:
    deltawitness apply 01a2108d-76d3
    """
    log_to_stderr()
    with exit_on_error("the plan cannot be applied"):
        applied = apply_plan(plan, settings_of(root), _runner(as_json=as_json))
    if as_json:
        print_json({**json_value(applied), "is_started": applied.is_started})
    else:
        print_applied(console(sys.stdout), applied)
    if not applied.is_started:
        raise typer.Exit(REFUSED)
    exit_as(applied.exit_code or 0)


def _runner(*, as_json: bool) -> Runner:
    """Return what runs the program. If JSON is printed, the output of the program goes to stderr."""

    def run(command: list[str], environment: dict[str, str]) -> int:
        output = sys.stderr if as_json else None
        return run_program(command, environment, output=output).code

    return run
