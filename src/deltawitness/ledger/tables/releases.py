"""The table of releases: names of consistent sets of table versions.

It is a Delta table beside the ledger's tables, with a row for each table of a release. Rows are never
drained, expired or rebuilt, because nothing else has their content.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from deltawitness.app_transactions.block import outside_block
from deltawitness.app_transactions.retries import Retries
from deltawitness.error_types import classify
from deltawitness.exceptions import ReleaseError
from deltawitness.ids_and_clock import now_ns
from deltawitness.ledger.tables.schema import (
    PARTITION,
    ColumnKind,
    LedgerRoot,
    LedgerTable,
    commit_properties,
)
from deltawitness.run import suppressed
from deltawitness.semconv import CONFLICT_TYPES, WITNESS_VERSION, CacheOperation, ErrorType
from deltawitness.sql_quoting import quote_literal

if TYPE_CHECKING:
    from deltalake import DeltaTable, Transaction

__all__ = ["RELEASES", "Release", "ReleasedTable", "append_drop", "append_release", "read_releases"]

RELEASES = LedgerTable(
    "cache_releases_v1",
    "releases",
    "A row per table of a release",
    (
        (PARTITION, ColumnKind.DAY, "day of created_time in UTC"),
        ("created_time", ColumnKind.TIME, "when the release was created"),
        ("release", ColumnKind.TEXT, "name of the release"),
        ("message", ColumnKind.TEXT, "what the release is for"),
        ("author", ColumnKind.TEXT, "who created it"),
        ("run_id", ColumnKind.TEXT, "the run that created it"),
        ("position", ColumnKind.COUNT, "position of the table in the release"),
        ("table_name", ColumnKind.TEXT, "name of the table in the release"),
        ("table_uri", ColumnKind.TEXT, "location of the table, without credentials"),
        ("table_id", ColumnKind.TEXT, "id of the table"),
        ("version", ColumnKind.COUNT, "the version"),
        (
            "metadata_id",
            ColumnKind.TEXT,
            "id in the table's metadata; another one after a recreation",
        ),
        ("is_dropped", ColumnKind.FLAG, "whether the row drops the release; then it has no table"),
        ("witness_version", ColumnKind.TEXT, "version of deltawitness that wrote the row"),
    ),
)

_APP_ID_PREFIX = "deltawitness/release/"
"""Prefix of a Delta application id, followed by the name of a release."""

_CONFLICTS = frozenset({*CONFLICT_TYPES, ErrorType.TABLE_EXISTS})
_SECONDS = 60.0
"""Time in which a release is created despite concurrent commits."""


@dataclass(frozen=True, slots=True)
class ReleasedTable:
    """A table of a release.

    Attributes:
        name: its name in the release.
        uri: its location.
        table_id: its id (:func:`deltawitness.table_id`).
        version: its version.
        metadata_id: the id in its metadata, which a table that is created again has no more.
    """

    name: str
    uri: str
    table_id: str
    version: int
    metadata_id: str

    def __str__(self) -> str:
        return f"{self.name}@{self.version}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """A named set of table versions.

    Attributes:
        name: its name, which is unique in a ledger.
        created: when it was created.
        message: what it is for.
        author: who created it; None if it is not known.
        run_id: id of the run that created it.
        tables: its tables.
    """

    name: str
    created: datetime
    message: str | None
    author: str | None
    run_id: str | None
    tables: tuple[ReleasedTable, ...]


def read_releases(root: LedgerRoot, name: str | None = None) -> list[Release]:
    """Return releases, oldest first.

    Args:
        root: location of the ledger.
        name: skips releases with other names.

    Raises:
        OSError: the storage cannot be read.
    """
    with suppressed():
        opened = root.open_table(RELEASES)
    return [] if opened is None else _releases_in(opened, name)


def _releases_in(opened: DeltaTable, name: str | None) -> list[Release]:
    from deltawitness.ledger.tables.arrow import query  # noqa: PLC0415 - heavy

    where = "true" if name is None else f"release = {quote_literal(name)}"
    rows = query(
        opened, f"SELECT * FROM ledger WHERE {where} ORDER BY created_time, release, position"
    ).to_pylist()
    dropped = {row["release"] for row in rows if row["is_dropped"]}
    grouped: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if row["release"] not in dropped:
            grouped.setdefault(row["release"], []).append(row)
    return [_release(each) for each in grouped.values()]


def _release(rows: Sequence[dict[str, Any]]) -> Release:
    first = rows[0]
    names = ("table_name", "table_uri", "table_id", "version", "metadata_id")
    return Release(
        name=first["release"],
        created=first["created_time"],
        message=first["message"],
        author=first["author"],
        run_id=first["run_id"],
        tables=tuple(ReleasedTable(*(row[name] for name in names)) for row in rows),
    )


def append_release(root: LedgerRoot, release: Release) -> None:
    """Append a release, unless there is one of this name.

    Of several processes that create the same name at the same time, one succeeds: the commit has an
    application transaction of the name.

    Raises:
        ReleaseError: there is a release of this name.
        OSError: the storage cannot be read or written.
        DeltaError: the table is damaged, or others commit too often.
    """
    retries = Retries(_SECONDS)
    with suppressed(), outside_block():
        while True:
            try:
                _append(root, release)
            except Exception as error:
                if classify(error) not in _CONFLICTS or not retries.wait():
                    raise
            else:
                return


def _append(root: LedgerRoot, release: Release) -> None:
    from deltalake import Transaction  # noqa: PLC0415 - heavy

    opened = root.open_or_create(RELEASES)
    app_id = f"{_APP_ID_PREFIX}{release.name}"
    # The transaction finds a concurrent creation; rows also find one whose transaction has expired.
    if opened.transaction_version(app_id) is not None or _has_rows(opened, release.name):
        msg = f"there is a release {release.name}"
        if not _releases_in(opened, release.name):
            msg = f"release {release.name} was dropped, and a name is created once"
        raise ReleaseError(msg)
    _append_rows(opened, _rows(release), [Transaction(app_id, 1, now_ns() // 1_000_000)])


def _append_rows(
    opened: DeltaTable, rows: list[dict[str, Any]], transactions: Sequence[Transaction] = ()
) -> None:
    from deltalake import write_deltalake  # noqa: PLC0415 - heavy

    from deltawitness.ledger.tables.arrow import rows_from  # noqa: PLC0415 - heavy

    write_deltalake(
        opened,
        rows_from(RELEASES, rows),
        mode="append",
        schema_mode="merge",
        commit_properties=commit_properties(CacheOperation.WRITE, transactions),
    )


def _has_rows(opened: DeltaTable, name: str) -> bool:
    from deltawitness.ledger.tables.arrow import query  # noqa: PLC0415 - heavy

    found = query(opened, f"SELECT 1 AS one FROM ledger WHERE release = {quote_literal(name)}")
    return bool(found.num_rows)


def append_drop(root: LedgerRoot, name: str) -> None:
    """Append the row that drops a release. Its rows stay, so that its name is not created again.

    Raises:
        OSError: the storage cannot be read or written.
        DeltaError: the table is damaged.
    """
    row = {
        "created_time": now_ns() // 1000,
        "release": name,
        "is_dropped": True,
        "witness_version": WITNESS_VERSION,
    }
    with suppressed(), outside_block():
        _append_rows(root.open_or_create(RELEASES), [row])


def _rows(release: Release) -> list[dict[str, Any]]:
    return [
        {
            "created_time": round(release.created.timestamp() * 1_000_000),
            "release": release.name,
            "message": release.message,
            "author": release.author,
            "run_id": release.run_id,
            "position": position,
            "table_name": table.name,
            "table_uri": table.uri,
            "table_id": table.table_id,
            "version": table.version,
            "metadata_id": table.metadata_id,
            "is_dropped": False,
            "witness_version": WITNESS_VERSION,
        }
        for position, table in enumerate(release.tables)
    ]
