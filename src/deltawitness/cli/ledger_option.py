"""The option `--root`, and the ledger that it selects."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import typer

from deltawitness.cli.console import CommandError, exit_on_error, log_to_stderr
from deltawitness.commit.log import open_log
from deltawitness.ledger.tables.listing import LedgerListing
from deltawitness.ledger.tables.locations import absolute_root, root_of, spool_folder
from deltawitness.ledger.tables.schema import INVENTORY, TABLES, LedgerTable
from deltawitness.ledger.tables.shards import shard_names
from deltawitness.locations import local_path, strip_credentials
from deltawitness.semconv import Env
from deltawitness.settings import Settings

if TYPE_CHECKING:
    from deltawitness.ledger.ledger import Ledger

__all__ = [
    "TABLES_HELP",
    "RootOption",
    "any_ledger",
    "existing_ledger",
    "exit_on_ledger_error",
    "listed_ledger",
    "other_location",
    "settings_of",
    "shown_root",
]

TABLES_HELP = "Tables, folders of tables, or globs such as 's3://lake/**'."
"""Help of an argument that names tables."""

RootOption: Any = typer.Option(
    "--root",
    metavar="LOCATION",
    help="Path or URI of the ledger and cache; by default DELTAWITNESS_ROOT, else .deltawitness.",
)


def shown_root(root: str | None) -> str:
    """Return the location of a ledger without credentials."""
    where = absolute_root(Settings.from_env()) if root is None else root
    local = local_path(where)
    return strip_credentials(where) if local is None else local


def other_location(root: str | None) -> str:
    """Return the end of an error message about a missing ledger or cache: how to choose its location.

    Args:
        root: the value of `--root`. If it is set, the text is empty.
    """
    return f": pass --root, or set {Env.ROOT}" if root is None else ""


@contextmanager
def exit_on_ledger_error(root: str | None, done: str) -> Iterator[None]:
    """End the command with one line on stderr if the block fails.

    Args:
        root: the value of `--root`.
        done: a participle for the message, such as `read`.
    """
    with exit_on_error("the settings cannot be read"):
        where = shown_root(root)
    with exit_on_error(f"the ledger at {where} cannot be {done}"):
        yield


def any_ledger(root: str | None) -> Ledger:
    """Return the ledger, whether or not it has tables yet.

    Raises:
        ConfigurationError: a setting in the environment is invalid.
    """
    # Imported here: it imports DataFusion, pandas and pyarrow, which listings do not need.
    from deltawitness.ledger.ledger import Ledger  # noqa: PLC0415 - heavy

    log_to_stderr()
    return Ledger(root)


def existing_ledger(root: str | None, *, or_spools: bool = False) -> Ledger:
    """Return the ledger.

    Args:
        root: the value of `--root`.
        or_spools: accept a ledger without a table when spools wait to be drained into it.

    Raises:
        CommandError: there is no ledger.
        ConfigurationError: a setting in the environment is invalid.
        OSError: the storage cannot be read.
    """
    _check_exists(root, or_spools=or_spools)
    return any_ledger(root)


def listed_ledger(
    root: str | None, *, is_required: bool = True, first: LedgerTable = INVENTORY
) -> LedgerListing:
    """Return the ledger for a command that lists rows.

    Args:
        root: the value of `--root`.
        is_required: whether a ledger without tables is an error.
        first: the table that the command queries first.

    Raises:
        CommandError: there is no ledger.
        ConfigurationError: a setting in the environment is invalid.
        OSError: the storage cannot be read.
    """
    ledger = LedgerListing.of(settings_of(root))
    if is_required and not ledger.exists(first):
        _check_exists(root)
    log_to_stderr()
    return ledger


def settings_of(root: str | None) -> Settings:
    """Return the settings of the environment, with the value of `--root` if it is set."""
    settings = Settings.from_env()
    return settings if root is None else replace(settings, cache_root=root)


def _check_exists(root: str | None, *, or_spools: bool = False) -> None:
    settings = settings_of(root)
    place = root_of(settings)
    if any(open_log(place.uri_of(table), place.storage_options).versions() for table in TABLES):
        return
    if shard_names(place):
        return
    from deltawitness.ledger.spool.reader import segments_of  # noqa: PLC0415 - rarely needed

    has_spools = any(True for _ in segments_of(spool_folder(settings, place)))
    if has_spools and or_spools:
        return
    spools_hint = "; spools wait to be imported: run `deltawitness drain`"
    hint = spools_hint if has_spools else other_location(root)
    msg = f"there is no ledger at {shown_root(root)}{hint}"
    raise CommandError(msg)
