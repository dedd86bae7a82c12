"""Which ledger a command is about, and whether there is one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from deltawitness.cli.console import CommandError, clearly, log_to_stderr
from deltawitness.commit.log import local_path, open_log
from deltawitness.ledger.tables.locations import absolute_root
from deltawitness.redaction import strip_credentials
from deltawitness.settings import Settings

if TYPE_CHECKING:
    from deltawitness.ledger.ledger import Ledger

__all__ = ["RootOption", "any_ledger", "existing_ledger", "of_ledger"]

RootOption = typer.Option(
    "--root",
    metavar="PLACE",
    help="The cache root; by default DELTAWITNESS_CACHE_ROOT, else .deltawitness here.",
)


def shown_root(root: str | None) -> str:
    """Return where a ledger lies, as it may be shown."""
    where = absolute_root(Settings.from_env()) if root is None else root
    local = local_path(where)
    return strip_credentials(where) if local is None else local


@contextmanager
def of_ledger(root: str | None, done: str) -> Iterator[None]:
    """End the command with one clear line when the block fails.

    Args:
        root: as given on the command line.
        done: what is done to the ledger in the block, as a participle.
    """
    with clearly("the settings cannot be read"):
        where = shown_root(root)
    with clearly(f"the ledger at {where} cannot be {done}"):
        yield


def any_ledger(root: str | None) -> Ledger:
    """Return the ledger, whether it is there yet or not.

    Raises:
        ConfigurationError: a setting in the environment is invalid.
    """
    # Imported here: the ledger is heavy, and a program is run without it.
    from deltawitness.ledger.ledger import Ledger  # noqa: PLC0415 - as said

    log_to_stderr()
    return Ledger(root)


def existing_ledger(root: str | None, *, or_waiting: bool = False) -> Ledger:
    """Return the ledger.

    Args:
        root: as given on the command line.
        or_waiting: be content with one that has no table yet, when something waits for it.

    Raises:
        Complaint: there is none.
        ConfigurationError: a setting in the environment is invalid.
        OSError: the storage cannot be read.
    """
    from deltawitness.ledger.spool.reader import segments_of  # noqa: PLC0415 - as above
    from deltawitness.ledger.tables.schema import TABLES  # noqa: PLC0415 - as above

    ledger = any_ledger(root)
    place = ledger.root
    if any(open_log(place.uri_of(table), place.storage_options).versions() for table in TABLES):
        return ledger
    is_waiting = any(True for _ in segments_of(ledger.spools))
    if is_waiting and or_waiting:
        return ledger
    hint = "; what waits for one is carried by `deltawitness drain`" if is_waiting else ""
    msg = f"there is no ledger at {shown_root(root)}{hint}"
    raise CommandError(msg)
