"""The commands, put together."""

from __future__ import annotations

from typing import Annotated

import typer

from deltawitness.cli.commit import commit_command
from deltawitness.cli.run import run_command
from deltawitness.semconv import WITNESS_VERSION

__all__ = ["app", "main"]

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


def main() -> None:
    """Run the command line."""
    app()


def _print_version(wanted: bool) -> None:
    if wanted:
        print(WITNESS_VERSION)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="The version.")
    ] = False,
) -> None:
    """Witness every Delta Lake write that a program makes."""


app.command(
    "run", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False}
)(run_command)
app.command("commit")(commit_command)
