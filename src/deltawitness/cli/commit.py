"""`deltawitness commit`: one commit of a table."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from deltawitness.cli.console import (
    CommandError,
    JsonOption,
    console,
    exit_on_error,
    print_json,
)
from deltawitness.commit import CommitMetadata, read_commit_metadata
from deltawitness.exceptions import CommitNotFoundError
from deltawitness.locations import local_path, strip_credentials
from deltawitness.report.commit import print_commit
from deltawitness.settings import Settings

__all__ = ["commit_command"]


def commit_command(
    table: Annotated[str, typer.Argument(help="Path or URI of the table.")],
    version: Annotated[
        int | None, typer.Argument(help="Version of the commit; the last by default.")
    ] = None,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """Show one commit of a table with its metadata.

    Exits 1 if there is no such table or version, or it cannot be read; 2 if the command line is invalid.
    """
    with exit_on_error("the table's log cannot be read"):
        try:
            commit = read_commit_metadata(table, version, _options_for(table))
        except CommitNotFoundError as error:
            msg = f"{strip_credentials(table)}: {error}"
            raise CommandError(msg) from None
    if as_json:
        print_json(_commit_json(commit))
    else:
        print_commit(console(sys.stdout), commit)


def _options_for(table: str) -> dict[str, str] | None:
    """Return the storage options for a table: those of the settings; None for a table on a local disk."""
    return Settings.from_env().storage_options if local_path(table) is None else None


def _commit_json(commit: CommitMetadata) -> dict[str, Any]:
    return {
        "version": commit.version,
        "operation": commit.operation,
        "timestamp": commit.timestamp,
        "engine": commit.engine_info,
        "operation_parameters": commit.operation_parameters,
        "operation_metrics": commit.operation_metrics,
        "metadata": commit.metadata,
        "problems": list(commit.problems),
    }
