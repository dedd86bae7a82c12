"""One table of a ledger as readers see it: the rows of the main table and of the shards.

A fold appends the rows of a shard to the main table, and then deletes them from the shard. Both
commits have an application transaction with the version of the shard's table that was folded, so a
reader sees from the two versions whether a shard still has rows that the main table also has. It
opens the shards before the main table: rows that a fold moves meanwhile are then in the main table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING

from deltawitness.commit.discovery import folder_names
from deltawitness.ledger.tables.opening import open_tables
from deltawitness.ledger.tables.schema import (
    INVENTORY,
    PARTITION,
    RUNS,
    SNAPSHOTS,
    LedgerRoot,
    LedgerTable,
    Source,
)
from deltawitness.semconv import FOLD_APP_ID_PREFIX, FOLDED_APP_ID
from deltawitness.sql_quoting import quote_literal
from deltawitness.thread_map import map_in_threads

if TYPE_CHECKING:
    from deltalake import DeltaTable

__all__ = [
    "ROW_KEYS",
    "ShardPart",
    "TableParts",
    "fold_app_id",
    "open_parts",
    "shard_names",
    "with_shards",
]

ROW_KEYS: dict[str, tuple[str, ...]] = {
    INVENTORY.name: ("write_id",),
    RUNS.name: ("run_id", "host", "pid", "start_time", "end_time"),
    SNAPSHOTS.name: ("run_id", "snapshot", "event_time"),
}
"""The columns that identify a row, by table."""

CONCURRENT_OPENS = 16
"""Tables on an object store that are opened at the same time."""


def shard_names(root: LedgerRoot) -> list[str]:
    """Return the names of a ledger's shards. On an object store this is one request.

    Raises:
        OSError: the storage cannot be read.
    """
    return folder_names(root.shards_uri, root.storage_options)


def fold_app_id(shard: DeltaTable) -> str:
    """Return the application id, in a main table, of the folds of a shard's table.

    It contains the id in the table's metadata, so that a recreated table starts at version 0.
    """
    return f"{FOLD_APP_ID_PREFIX}{shard.metadata().id}"


@dataclass(frozen=True, slots=True)
class ShardPart:
    """The table of a shard, at one version.

    Attributes:
        root: location of the shard.
        opened: the open table.
        may_repeat: whether the main table may have rows of it, because a fold is in progress or died.
        since: day before its first rows.
    """

    root: LedgerRoot
    opened: DeltaTable
    may_repeat: bool
    since: date


@dataclass(frozen=True, slots=True)
class TableParts:
    """One table of a ledger: the main table and the shards' tables that have rows.

    Attributes:
        table: its definition.
        main: the open main table; None if it does not exist.
        shards: the shards with rows.
    """

    table: LedgerTable
    main: DeltaTable | None
    shards: Sequence[ShardPart] = ()

    @property
    def exists(self) -> bool:
        """Whether there is a main table, or a shard with rows."""
        return self.main is not None or bool(self.shards)

    def transaction_version(self, app_id: str) -> int | None:
        """Return the version of an application transaction in the main table."""
        return None if self.main is None else self.main.transaction_version(app_id)

    @property
    def column_names(self) -> list[str]:
        """The columns of any of its tables."""
        names: dict[str, None] = {}
        for opened in self.sources("").values():
            names |= dict.fromkeys(field.name for field in opened.schema().fields)
        return list(names)

    def sources(self, name: str) -> dict[str, DeltaTable]:
        """Return the open tables by the names that the query of :meth:`union` has for them.

        Args:
            name: name of the main table in the query.
        """
        found = {} if self.main is None else {name: self.main}
        return found | {_shard_source(name, n): part.opened for n, part in enumerate(self.shards)}

    def union(self, name: str, columns: Callable[[AbstractSet[str]], str]) -> str:
        """Return the query of all rows, each once.

        Args:
            name: name of the main table in the query.
            columns: returns the list of columns to select, given the names that a table has.
        """
        selects = []
        for source, opened in self.sources(name).items():
            present = {field.name for field in opened.schema().fields}
            selects.append(f"SELECT {columns(present)} FROM {source}")
        if self.main is not None:
            first = len(selects) - len(self.shards)
            for n, part in enumerate(self.shards):
                condition = self._not_in_main(name, part)
                selects[first + n] += f" WHERE {condition}" if condition else ""
        return " UNION ALL ".join(selects)

    def _not_in_main(self, main: str, part: ShardPart) -> str:
        """Return the predicate for the rows of a shard that are not in the main table.

        A reconcile may have added the row of a write whose own row came late to a shard.
        """
        conditions = [f"{PARTITION} >= DATE '{part.since}'"]
        if not part.may_repeat:
            if self.table is not INVENTORY:
                return ""
            conditions.append(f"source <> {quote_literal(Source.OBSERVED)}")
        key = _key_of(self.table)
        return (
            f"{key} NOT IN (SELECT {key} FROM {main}"
            f" WHERE {' AND '.join(conditions)} AND {key} IS NOT NULL)"
        )


def _shard_source(name: str, number: int) -> str:
    return f"{name}_shard_{number}"


def _key_of(table: LedgerTable) -> str:
    names = ROW_KEYS[table.name]
    if len(names) == 1:
        return names[0]
    texts = ", ".join(f"coalesce(CAST({name} AS VARCHAR), '')" for name in names)
    return f"concat_ws('|', {texts})"


def open_parts(
    root: LedgerRoot, tables: Iterable[LedgerTable], shards: Iterable[str] | None = None
) -> dict[LedgerTable, TableParts]:
    """Open tables of a ledger with its shards.

    Args:
        root: location of the ledger.
        tables: the tables.
        shards: names of the shards; all that exist when None.

    Raises:
        OSError: the storage cannot be read.
        DeltaError: a table is damaged.
    """
    roots = [root.of_shard(name) for name in (shard_names(root) if shards is None else shards)]
    opened = {table: _open_shards(roots, table) for table in tables}
    main = open_tables(root.of_shard(None), list(opened))
    return {table: _parts(table, main[table], shards) for table, shards in opened.items()}


def with_shards(root: LedgerRoot, table: LedgerTable, main: DeltaTable) -> TableParts:
    """Return an open main table with the ledger's shards.

    For an append to the main table that depends on the rows: a fold after `main` was opened moves rows
    that are in neither part then, and conflicts with the append.

    Args:
        root: location of the ledger.
        table: its definition.
        main: the open main table.
    """
    roots = [root.of_shard(name) for name in shard_names(root)]
    return _parts(table, main, _open_shards(roots, table))


def _open_shards(
    roots: Sequence[LedgerRoot], table: LedgerTable
) -> list[tuple[LedgerRoot, DeltaTable]]:
    def open_one(root: LedgerRoot) -> DeltaTable | None:
        return root.open_table(table)

    limit = 1 if all(root.is_local for root in roots) else CONCURRENT_OPENS
    opened = map_in_threads(open_one, roots, limit)
    return [(root, each) for root, each in zip(roots, opened, strict=True) if each is not None]


def _parts(
    table: LedgerTable,
    main: DeltaTable | None,
    shards: Iterable[tuple[LedgerRoot, DeltaTable]],
) -> TableParts:
    parts = []
    for root, opened in shards:
        days = [found for each in opened.partitions() if (found := each.get(PARTITION))]
        if not days:
            continue  # no rows
        known = 0 if main is None else main.transaction_version(fold_app_id(opened)) or 0
        first = date.fromisoformat(str(min(days)))
        parts.append(
            ShardPart(
                root,
                opened,
                may_repeat=known != (opened.transaction_version(FOLDED_APP_ID) or 0),
                since=first - timedelta(days=1),
            )
        )
    return TableParts(table, main, parts)
