"""Find releases by name, and open their tables."""

from __future__ import annotations

from deltawitness.answers.lookup import NamedTable
from deltawitness.answers.table_restore import TablePlace
from deltawitness.exceptions import LedgerLookupError
from deltawitness.ledger.tables.locations import root_of
from deltawitness.ledger.tables.releases import Release, ReleasedTable, read_releases
from deltawitness.settings import Settings

__all__ = ["find_release", "named_table", "place_of"]

_SHOWN = 5


def find_release(settings: Settings, name: str) -> Release:
    """Return a release by its name, or by a prefix that no other name has.

    Raises:
        LedgerLookupError: there is no such release, or there are several.
        OSError: the ledger's storage cannot be read.
    """
    every = read_releases(root_of(settings))
    found = [each for each in every if each.name == name] or [
        each for each in every if name and each.name.startswith(name)
    ]
    if len(found) == 1:
        return found[0]
    names = [each.name for each in found or every[-_SHOWN:]]
    shown = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
    msg = f"{len(found)} releases begin with {name}: {shown}"
    if not found:
        msg = f"no release begins with {name}" + (f"; the last ones are {shown}" if shown else "")
    raise LedgerLookupError(msg)


def named_table(table: ReleasedTable, version: int | None = None) -> NamedTable:
    """Return the table for a comparison, at its version of the release or at another one."""
    at = table.version if version is None else version
    return NamedTable(table.uri, table.uri, at, table.name)


def place_of(table: ReleasedTable, settings: Settings) -> TablePlace:
    """Return where a table is."""
    return TablePlace(table.uri, settings.storage_options)
