"""`deltawitness mcp`: answer questions for a client of the Model Context Protocol."""

from __future__ import annotations

from typing import Annotated

import typer

from deltawitness.cli.ledger_option import RootOption, exit_on_ledger_error, settings_of

__all__ = ["mcp_command"]


def mcp_command(
    show_literals: Annotated[
        bool,
        typer.Option(
            "--show-literals",
            help="Also answer with predicates and other parameters of operations, which have SQL literals.",
        ),
    ] = False,
    root: Annotated[str | None, RootOption] = None,
) -> None:
    """Serve the questions as read-only tools of the Model Context Protocol, on standard input and output.

    The tools are those of the commands of the same names. Answers have no rows of tables and no credentials.
    It ends when the client closes standard input.
    """
    from deltawitness.mcp_server import mcp_server  # noqa: PLC0415 - heavy

    with exit_on_ledger_error(root, "read"):
        server = mcp_server(settings_of(root), show_literals=show_literals)
    server.run("stdio")
