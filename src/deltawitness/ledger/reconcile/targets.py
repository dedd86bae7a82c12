"""Select the tables of a reconcile, each with its URI in the ledger and the location to open it."""

from __future__ import annotations

import glob
import os
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from deltawitness.commit.discovery import ListingError, find_tables
from deltawitness.commit.log import CommitLog, open_log
from deltawitness.commit.private_api import storage_options_of
from deltawitness.ledger.reconcile.findings import UnreadableTable
from deltawitness.ledger.tables.arrow import query
from deltawitness.ledger.tables.schema import LedgerRoot
from deltawitness.ledger.tables.shards import TableParts
from deltawitness.ledger.tables.write_rows import ledger_uri
from deltawitness.locations import last_segment, local_path
from deltawitness.redaction import redact_text
from deltawitness.semconv import LEDGER_DIRECTORY, OPERATION_REGISTER, Operation
from deltawitness.sql_quoting import quote_literal

if TYPE_CHECKING:
    from deltalake import DeltaTable

__all__ = ["Target", "targets_of"]


@dataclass(frozen=True, slots=True)
class Target:
    """A table to compare.

    Attributes:
        uri: its location in the ledger's spelling.
        location: its location as passed to delta-rs.
        storage_options: as for `DeltaTable`.
        is_requested: whether the caller named it; otherwise the inventory did.
    """

    uri: str
    location: str
    storage_options: dict[str, str] | None = field(default=None, repr=False)
    is_requested: bool = True

    @property
    def is_remote(self) -> bool:
        """Whether it is on an object store."""
        return local_path(self.location) is None

    def log(self) -> CommitLog:
        """Return its log; nothing is read yet."""
        return open_log(self.location, self.storage_options)


def targets_of(
    root: LedgerRoot,
    inventory: TableParts | None,
    tables: Iterable[str | os.PathLike[str] | DeltaTable] | None,
    *,
    search: bool = False,
) -> tuple[list[Target], list[UnreadableTable]]:
    """Return the tables to compare, each once, and the texts that match no table.

    Args:
        root: location of the ledger; its own tables are left out.
        inventory: supplies the tables if the caller names none.
        tables: locations of tables, prefixes, globs, or open tables.
        search: if the caller names no tables, add those that are found below
            :func:`folders_to_search`.
    """
    unreadable: list[UnreadableTable] = []
    found: dict[str, Target] = {}
    named = (
        _from_inventory(root, inventory, unreadable, search=search)
        if tables is None
        else _from_caller(root, tables, unreadable)
    )
    for target in named:
        if not _is_ledgers_own(root, target.uri):
            found.setdefault(target.uri, target)
    return list(found.values()), unreadable


def _is_ledgers_own(root: LedgerRoot, uri: str) -> bool:
    return uri.startswith(f"{ledger_uri(root.uri)}/{LEDGER_DIRECTORY}/")


def _from_inventory(
    root: LedgerRoot,
    inventory: TableParts | None,
    unreadable: list[UnreadableTable],
    *,
    search: bool,
) -> Iterator[Target]:
    if inventory is None or not inventory.exists:
        return
    others = ", ".join(
        quote_literal(name) for name in (Operation.COPY, Operation.SELECT, OPERATION_REGISTER)
    )
    uris = query(
        inventory,
        "SELECT DISTINCT table_uri FROM ledger WHERE table_uri IS NOT NULL"
        f" AND (operation IS NULL OR operation NOT IN ({others}))",
    )["table_uri"]
    recorded = sorted(uris.to_pylist())
    for uri in recorded:
        yield Target(uri, uri, _options_for(root, uri), is_requested=False)
    for folder in folders_to_search(recorded) if search else ():
        options = _options_for(root, folder)
        found = find_tables(folder, options)
        unreadable += map(_unlisted, found.errors)
        for location in found.tables:
            yield Target(ledger_uri(location), location, options)


def folders_to_search(tables: Iterable[str]) -> list[str]:
    """Return the folders below which a program probably has more tables: the parents of its tables.

    Left out are folders inside of another one, and local folders that hold far more than tables: the
    root of the file system, the folder for temporary files, and home folders.

    Args:
        tables: locations in the ledger's spelling.

    >>> folders_to_search(["s3://lake/a/t", "s3://lake/a/b/u", "s3://logs/v", "file:///v"])
    ['s3://lake/a', 's3://logs']
    """
    parents = {parent for uri in tables if _may_search(parent := uri.rpartition("/")[0])}
    found: list[str] = []
    for parent in sorted(parents, key=lambda uri: uri.split("/")):
        if not (found and f"{parent}/".startswith(f"{found[-1]}/")):
            found.append(parent)
    return found


def _may_search(folder: str) -> bool:
    if folder.endswith(("/", ":")):
        return False  # the parent of a bucket, or the root of the file system
    path = local_path(folder)
    if path is None:
        return True
    return last_segment(path) is not None and path != tempfile.gettempdir()


def _from_caller(
    root: LedgerRoot,
    tables: Iterable[str | os.PathLike[str] | DeltaTable],
    unreadable: list[UnreadableTable],
) -> Iterator[Target]:
    for table in [tables] if isinstance(tables, str | os.PathLike) else tables:
        if not isinstance(table, str | os.PathLike):
            yield Target(ledger_uri(table.table_uri), table.table_uri, storage_options_of(table))
            continue
        text = os.fspath(table)
        options = _options_for(root, text)
        found = find_tables(text, options)
        unreadable += map(_unlisted, found.errors)
        locations = found.tables
        if not (found.tables or found.errors):
            if glob.has_magic(text):
                unreadable.append(UnreadableTable(text, "no Delta table matches"))
            else:
                locations = (text,)  # reading it reports that there is no log
        for location in locations:
            yield Target(ledger_uri(location), location, options)


def _unlisted(error: ListingError) -> UnreadableTable:
    text = redact_text(error.text, location=error.location)
    return UnreadableTable(ledger_uri(error.location), text)


def _options_for(root: LedgerRoot, location: str) -> dict[str, str] | None:
    """Return the ledger's storage options for a table on the same storage, else None.

    A ledger on a local disk needs no storage options: they are those of the tables on object stores.
    """
    if root.is_local:
        return root.storage_options if local_path(location) is None else None
    theirs, ours = (urlsplit(ledger_uri(uri)) for uri in (location, root.uri))
    is_beside = (theirs.scheme, theirs.netloc) == (ours.scheme, ours.netloc)
    return root.storage_options if is_beside else None
