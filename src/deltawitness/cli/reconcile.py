"""`deltawitness reconcile`: compare the ledger with the logs of tables, and append missing rows."""

from __future__ import annotations

import datetime as dt
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, TypeVar

import typer

from deltawitness.cli.console import (
    FAILED,
    MISUSED,
    CommandError,
    JsonOption,
    console,
    print_json,
)
from deltawitness.cli.durations import SinceOption
from deltawitness.cli.ledger_option import (
    TABLES_HELP,
    RootOption,
    any_ledger,
    existing_ledger,
    exit_on_ledger_error,
)
from deltawitness.cli.run_ledger import OwnFolder
from deltawitness.ledger.tables.locations import absolute_root
from deltawitness.locations import local_path
from deltawitness.report.reconcile import plan_json, print_plan
from deltawitness.settings import Settings

__all__ = ["log_progress", "reconcile_command", "write_ledger"]

_Result = TypeVar("_Result")


def reconcile_command(
    tables: Annotated[list[str] | None, typer.Argument(help=TABLES_HELP)] = None,
    all_tables: Annotated[
        bool, typer.Option("--all", help="All tables in the ledger, and those below their folders.")
    ] = False,
    apply: Annotated[bool, typer.Option("--apply", help="Append the missing rows.")] = False,
    full: Annotated[
        bool, typer.Option("--full", help="Read all commits, including those compared before.")
    ] = False,
    since: Annotated[dt.datetime | None, SinceOption] = None,
    root: Annotated[str | None, RootOption] = None,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """Compare the ledger with the logs of tables. Exits 1 if rows are missing or wrong.

    With --apply, missing rows are appended, and it exits 1 only if rows are wrong. A table or folder that
    cannot be read counts as wrong. It exits 2 if the command line or a setting is invalid.

    Examples:
    deltawitness reconcile 's3://lake/**' --apply

    deltawitness reconcile --all --root s3://lake/ledger
    """
    with exit_on_ledger_error(root, "reconciled"):
        if bool(tables) == all_tables:
            msg = "reconcile: expected either table paths or --all"
            raise CommandError(msg, MISUSED)
        ledger = existing_ledger(root) if all_tables else any_ledger(root)
        with log_progress() as progress:
            plan = ledger.reconcile(
                tables or None, since=since, full=full, search=all_tables, progress=progress
            )
        applied = write_ledger(root, plan.apply) if apply else None
    if as_json:
        print_json(plan_json(plan, applied))
    else:
        print_plan(console(sys.stdout), plan, applied)
    is_wrong = plan.phantom or plan.differing or plan.unreadable
    if is_wrong or not (apply or plan.is_clean):
        raise typer.Exit(FAILED)


def write_ledger(root: str | None, write: Callable[[], _Result]) -> _Result:
    """Call a function that writes to a ledger; git ignores the ledger in the default location.

    Args:
        root: the value of `--root`.
        write: the function.
    """
    settings = Settings.from_env()
    is_default = root is None and settings.cache_root is None
    folder = OwnFolder(local_path(absolute_root(settings)) if is_default else None)
    result = write()
    folder.ensure_gitignore()
    return result


@contextmanager
def log_progress() -> Iterator[Callable[[str, int, int], None]]:
    """Show a progress bar for each table on a terminal; yield the function that updates it."""
    from rich import progress  # noqa: PLC0415 - other commands show no progress

    bars = progress.Progress(
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        console=console(sys.stderr),
        transient=True,
        disable=not sys.stderr.isatty(),
    )
    tasks = {}

    def update(table: str, done: int, of: int) -> None:
        if table not in tasks:
            tasks[table] = bars.add_task(table, total=of)
        bars.update(tasks[table], completed=done, total=of)

    with bars:
        yield update
