"""Find the version of a table at which a question about its lineage starts."""

from __future__ import annotations

from dataclasses import dataclass

from deltawitness.answers.committed_writes import (
    COMMITTED,
    KEEPS_ROWS,
    CommittedWrites,
    Key,
    reads_query,
)
from deltawitness.answers.lookup import NamedTable, find_table, read_table
from deltawitness.answers.rows import TableVersion
from deltawitness.answers.undrained import undrained_hint
from deltawitness.exceptions import LedgerLookupError
from deltawitness.ledger.tables.listing import LedgerListing
from deltawitness.locations import table_id
from deltawitness.sql_quoting import quote_literal

__all__ = ["Start", "find_start"]


@dataclass(frozen=True, slots=True)
class Start:
    """The version of a table at which a question starts.

    Attributes:
        table: the table and the version.
        key: the same, as its id and the number.
        is_versioned: whether the caller named the version.
    """

    table: TableVersion
    key: Key
    is_versioned: bool


def find_start(writes: CommittedWrites, text: str, *, is_read_enough: bool) -> Start:
    """Return the version of a table that a text means.

    Args:
        writes: the writes of the ledger.
        text: the table, optionally with `@VERSION`; by default the last version that changed rows.
        is_read_enough: accept a version without a write, if a write has read the table.

    Raises:
        LedgerLookupError: the ledger has no such table or version, or several tables.
    """
    ledger = writes.ledger
    named = _named(ledger, text)
    identity = _identity(ledger, named)
    version = named.version
    if version is None:
        version = _newest(ledger, identity)
        if version is None and is_read_enough:
            version = _newest_read(ledger, identity)
        if version is None:
            raise _no_write(ledger, named)
    writes.load([(identity, version)])
    if writes.get((identity, version)) is None and not (
        is_read_enough and _is_read(ledger, identity, version)
    ):
        newest = _newest(ledger, identity)
        if newest is None:
            raise _no_write(ledger, named)
        msg = (
            f"{named.name}: the ledger has no version {version}, the last one is {newest};"
            f" `deltawitness reconcile` adds commits that nothing observed{undrained_hint(ledger)}"
        )
        raise LedgerLookupError(msg)
    table = TableVersion(version, named.name, named.uri, identity)
    return Start(table, (identity, version), named.version is not None)


def _no_write(ledger: LedgerListing, named: NamedTable) -> LedgerLookupError:
    return LedgerLookupError(
        f"{named.name}: the ledger has no write of this table;"
        f" `deltawitness reconcile` adds those that nothing observed{undrained_hint(ledger)}"
    )


def _named(ledger: LedgerListing, text: str) -> NamedTable:
    """Return the table that a text means: one that was written, else one that was read."""
    try:
        return find_table(ledger, text)
    except LedgerLookupError:
        columns = "DISTINCT read_id AS table_id, read_uri AS table_uri"
        rows = ledger.query(reads_query(ledger, columns, "read_uri IS NOT NULL"))
        found = read_table(rows, text)
        if found is None:
            raise
        return found


def _identity(ledger: LedgerListing, named: NamedTable) -> str:
    """Return the id of a table in the ledger, where a key may be part of the hash."""
    uri = quote_literal(named.uri)
    rows = ledger.query(
        "SELECT table_id FROM inventory WHERE table_id IS NOT NULL"  # noqa: S608 - quoted
        f" AND table_uri = {uri} ORDER BY event_time DESC LIMIT 1"
    ) or ledger.query(f"{reads_query(ledger, 'read_id AS table_id', f'read_uri = {uri}')} LIMIT 1")
    return str(rows[0]["table_id"]) if rows else table_id(named.uri)


def _newest(ledger: LedgerListing, identity: str) -> int | None:
    """Return the last version that changed rows, else the last one; None if there is none.

    These are two queries: beside an unfiltered maximum, the engine of delta-rs 1.6 skips rows that
    `max(...) FILTER (...)` needs, and that of delta-rs 1.0 cannot parse FILTER.
    """
    query = f"SELECT max(version) AS last FROM inventory WHERE {COMMITTED}"  # noqa: S608 - quoted
    query += f" AND table_id = {quote_literal(identity)}"
    for condition in (f" AND NOT {KEEPS_ROWS}", ""):
        rows = ledger.query(query + condition)
        if rows and rows[0]["last"] is not None:
            return int(rows[0]["last"])
    return None


def _newest_read(ledger: LedgerListing, identity: str) -> int | None:
    condition = f"read_id = {quote_literal(identity)}"
    rows = ledger.query(reads_query(ledger, "max(read_version) AS last", condition))
    found: int | None = rows[0]["last"] if rows else None
    return found


def _is_read(ledger: LedgerListing, identity: str, version: int) -> bool:
    condition = f"read_id = {quote_literal(identity)} AND read_version = {version}"
    return bool(ledger.query(f"{reads_query(ledger, 'read_id', condition)} LIMIT 1"))
