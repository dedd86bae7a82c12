"""The Typer application with all commands."""

from __future__ import annotations

from typing import Annotated

import typer

from deltawitness.cli.adopt import adopt_command
from deltawitness.cli.audit import audit_command
from deltawitness.cli.bench import bench_command
from deltawitness.cli.cache import (
    ls_command,
    prune_command,
    verify_entry_command,
    verify_run_command,
    why_command,
)
from deltawitness.cli.commit import commit_command
from deltawitness.cli.info import info_command, version_line
from deltawitness.cli.maintenance import drain_command, optimize_command, verify_command
from deltawitness.cli.reconcile import reconcile_command
from deltawitness.cli.run import run_command
from deltawitness.cli.runs import runs_command, show_command
from deltawitness.cli.writes import writes_command

__all__ = ["app", "main"]

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
ledger = typer.Typer(no_args_is_help=True, help="Compact and check the ledger.")
cache = typer.Typer(no_args_is_help=True, help="List, explain, prune and verify cache entries.")


def main() -> None:
    """Run the command line."""
    app()


def _print_version(wanted: bool) -> None:
    if wanted:
        print(version_line())
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_print_version,
            is_eager=True,
            help="Print the version, and those of the engines.",
        ),
    ] = False,
) -> None:
    """Observe every Delta Lake write that a program makes."""


app.command(
    "run", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False}
)(run_command)
app.command("runs")(runs_command)
app.command("show")(show_command)
app.command("writes")(writes_command)
app.command("commit")(commit_command)
app.command("audit")(audit_command)
app.command("reconcile")(reconcile_command)
app.command("adopt")(adopt_command)
app.command("drain")(drain_command)
ledger.command("optimize")(optimize_command)
ledger.command("verify")(verify_command)
app.add_typer(ledger, name="ledger")
app.command("verify")(verify_run_command)
app.command("bench")(bench_command)
app.command("info")(info_command)
cache.command("ls")(ls_command)
cache.command("why")(why_command)
cache.command("prune")(prune_command)
cache.command("verify")(verify_entry_command)
app.add_typer(cache, name="cache")
