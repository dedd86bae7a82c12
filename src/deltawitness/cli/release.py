"""`deltawitness release`: name sets of table versions; list, compare, verify and restore them."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from deltawitness.answers.diff.tables import DiffOptions
from deltawitness.answers.json_values import json_value
from deltawitness.answers.releases.question import (
    answer_release_diff,
    create_release,
    drop_release,
    releases,
    verify_release,
)
from deltawitness.cli.console import (
    FAILED,
    JsonOption,
    console,
    errors_exit_with_2,
    log_to_stderr,
    print_json,
)
from deltawitness.cli.diff import DIFFERENT, KeyOption, RowsOption, columns_of
from deltawitness.cli.ledger_option import RootOption, exit_on_ledger_error, settings_of
from deltawitness.cli.run_ledger import default_folder
from deltawitness.report.releases import (
    print_release_check,
    print_release_diff,
    print_release_restore,
    print_releases,
)

__all__ = [
    "create_release_command",
    "diff_releases_command",
    "drop_release_command",
    "list_releases_command",
    "restore_release_command",
    "verify_release_command",
]

_Release = Annotated[
    str, typer.Argument(metavar="RELEASE", help="Name of the release, or a prefix of it.")
]


def create_release_command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the new release.")],
    tables: Annotated[
        list[str],
        typer.Argument(
            metavar="TABLE[@VERSION]...",
            help="Names, ids, paths or URIs of tables; the last version without @VERSION.",
        ),
    ],
    message: Annotated[str | None, typer.Option(help="What the release is for.")] = None,
    root: Annotated[str | None, RootOption] = None,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """Give a name to a set of table versions. A release does not change, and its name cannot be used again.

    Exits 1 if the name is taken or a table cannot be read.

    Examples:
    deltawitness release create november orders@12 lake/items
    """
    log_to_stderr()
    with exit_on_ledger_error(root, "written"):
        settings = settings_of(root)
        folder = default_folder(settings)
        made = create_release(name, tables, message=message, settings=settings)
        folder.ensure_gitignore()
    if as_json:
        print_json(json_value(made))
    else:
        print_releases(console(sys.stdout), [made])


def list_releases_command(
    root: Annotated[str | None, RootOption] = None,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """List the releases, newest first.

    Exits 1 if there is no ledger or it cannot be read, 2 if the command line or a setting is invalid.
    """
    log_to_stderr()
    with exit_on_ledger_error(root, "read"):
        found = releases(settings=settings_of(root))
    if as_json:
        print_json([json_value(each) for each in found])
    else:
        print_releases(console(sys.stdout), found)


def diff_releases_command(
    a: _Release,
    b: Annotated[
        str | None,
        typer.Argument(metavar="[RELEASE]", help="Another one; the last versions without."),
    ] = None,
    key: Annotated[str | None, KeyOption] = None,
    rows: Annotated[bool, RowsOption] = True,
    root: Annotated[str | None, RootOption] = None,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """Compare two releases, or a release with the last versions of its tables.

    Exits 0 without a difference, 1 with one, 2 after an error.
    """
    options = DiffOptions(key=columns_of(key), rows=rows)
    log_to_stderr()
    with errors_exit_with_2(), exit_on_ledger_error(root, "read"):
        found = answer_release_diff(a, b, options, settings_of(root))
    if as_json:
        print_json({**json_value(found), "is_different": found.is_different})
    else:
        print_release_diff(console(sys.stdout), found)
    if found.is_different:
        raise typer.Exit(DIFFERENT)


def drop_release_command(
    name: Annotated[
        str, typer.Argument(metavar="RELEASE", help="The complete name of the release.")
    ],
    root: Annotated[str | None, RootOption] = None,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """Drop a release; its tables do not change, and its name cannot be used again.

    Exits 1 if there is no such release, 2 if the command line or a setting is invalid.
    """
    log_to_stderr()
    with exit_on_ledger_error(root, "written"):
        dropped = drop_release(name, settings=settings_of(root))
    if as_json:
        print_json(json_value(dropped))
    else:
        print_releases(console(sys.stdout), [dropped])


def verify_release_command(
    name: _Release,
    root: Annotated[str | None, RootOption] = None,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """Check that all files of a release are there. Exits 1 if a table cannot be read."""
    log_to_stderr()
    with exit_on_ledger_error(root, "read"):
        found = verify_release(name, settings=settings_of(root))
    if as_json:
        print_json({**json_value(found), "is_ok": found.is_ok})
    else:
        print_release_check(console(sys.stdout), found)
    if not found.is_ok:
        raise typer.Exit(FAILED)


def restore_release_command(
    name: _Release,
    apply: Annotated[
        bool, typer.Option("--apply", help="Restore the tables; else only print the plan.")
    ] = False,
    root: Annotated[str | None, RootOption] = None,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """Restore the tables of a release to its versions, and discard all later commits to them.

    Exits 1 if a table is refused or could not be restored.

    Examples:
    deltawitness release restore november --apply
    """
    from deltawitness.answers.releases.restore import restore_release  # noqa: PLC0415 - it imports the instrumentation

    log_to_stderr()
    with exit_on_ledger_error(root, "read"):
        found = restore_release(name, apply=apply, settings=settings_of(root))
    if as_json:
        print_json({**json_value(found), "is_complete": found.is_complete})
    else:
        print_release_restore(console(sys.stdout), found)
    if any(table.state.value in {"refused", "failed"} for table in found.tables):
        raise typer.Exit(FAILED)
