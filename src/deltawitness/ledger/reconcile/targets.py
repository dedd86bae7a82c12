"""Select the tables of a reconcile, each with its URI in the ledger and the location to open it."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from deltawitness.commit.log import CommitLog, open_log
from deltawitness.commit.private_api import storage_options_of
from deltawitness.ledger.reconcile.findings import UnreadableTable
from deltawitness.ledger.tables.arrow import query
from deltawitness.ledger.tables.literals import quote_literal
from deltawitness.ledger.tables.schema import LedgerRoot
from deltawitness.ledger.tables.write_rows import ledger_uri
from deltawitness.locations import local_path
from deltawitness.semconv import LEDGER_DIRECTORY, OPERATION_REGISTER, Operation

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

    def log(self) -> CommitLog:
        """Return its log; nothing is read yet."""
        return open_log(self.location, self.storage_options)


def targets_of(
    root: LedgerRoot,
    inventory: DeltaTable | None,
    tables: Iterable[str | os.PathLike[str] | DeltaTable] | None,
) -> tuple[list[Target], list[UnreadableTable]]:
    """Return the tables to compare, each once, and the requested texts that match no table.

    Args:
        root: location of the ledger; its own tables are left out.
        inventory: supplies the tables if the caller names none.
        tables: URIs, globs of local paths, or open tables.
    """
    unreadable: list[UnreadableTable] = []
    found: dict[str, Target] = {}
    named = (
        _from_inventory(root, inventory)
        if tables is None
        else _from_caller(root, tables, unreadable)
    )
    for target in named:
        if not _is_ledgers_own(root, target.uri):
            found.setdefault(target.uri, target)
    return list(found.values()), unreadable


def _is_ledgers_own(root: LedgerRoot, uri: str) -> bool:
    return uri.startswith(f"{ledger_uri(root.uri)}/{LEDGER_DIRECTORY}/")


def _from_inventory(root: LedgerRoot, inventory: DeltaTable | None) -> Iterator[Target]:
    if inventory is None:
        return
    others = ", ".join(
        quote_literal(name) for name in (Operation.COPY, Operation.SELECT, OPERATION_REGISTER)
    )
    uris = query(
        inventory,
        "SELECT DISTINCT table_uri FROM ledger WHERE table_uri IS NOT NULL"
        f" AND (operation IS NULL OR operation NOT IN ({others}))",
    )["table_uri"]
    for uri in sorted(uris.to_pylist()):
        yield Target(uri, uri, _options_for(root, uri), is_requested=False)


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
        locations = list(_locations(text))
        if not locations:
            unreadable.append(UnreadableTable(text, "no Delta table matches"))
        for location in locations:
            yield Target(ledger_uri(location), location, _options_for(root, location))


def _locations(text: str) -> Iterator[str]:
    """Yield the locations that a text names: the text itself, or tables that match it as a glob."""
    path = local_path(text)
    if path is None:
        yield text
        return
    path = os.path.abspath(path)  # noqa: PTH100 - text, which Path.absolute would leave its `..` in
    if not glob.has_magic(path) or _is_table(path):
        yield path
        return
    matches = glob.iglob(path, recursive=True)  # noqa: PTH207 - the pattern is an absolute path
    yield from sorted({match.rstrip("/") for match in matches if _is_table(match)})


def _is_table(path: str) -> bool:
    return os.path.isdir(os.path.join(path, "_delta_log"))  # noqa: PTH112, PTH118 - text, as above


def _options_for(root: LedgerRoot, location: str) -> dict[str, str] | None:
    """Return the ledger's storage options for a table on the same storage, else None.

    A ledger on a local disk needs no storage options: they are those of the tables on object stores.
    """
    if root.is_local:
        return root.storage_options if local_path(location) is None else None
    theirs, ours = (urlsplit(ledger_uri(uri)) for uri in (location, root.uri))
    is_beside = (theirs.scheme, theirs.netloc) == (ours.scheme, ours.netloc)
    return root.storage_options if is_beside else None
