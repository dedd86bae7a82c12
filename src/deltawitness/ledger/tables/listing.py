"""Read rows of the ledger for listings: through delta-rs alone, which starts in a tenth of a second.

:mod:`deltawitness.ledger.tables.frames` returns the same tables as DataFusion frames, and imports DataFusion,
pandas and pyarrow for them. Here a query of SQL runs in the engine that delta-rs has built in, and rows
come back as dictionaries.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deltawitness.ledger.tables.copies import TableCopies, open_readable
from deltawitness.ledger.tables.locations import root_of, spool_folder
from deltawitness.ledger.tables.schema import (
    INVENTORY,
    OPENER_COLUMNS,
    PARTITION,
    RUNS,
    UNSUMMED_COUNTS,
    ColumnKind,
    LedgerRoot,
    LedgerTable,
)
from deltawitness.ledger.tables.shards import TableParts, shard_names
from deltawitness.ledger.tables.views import LAST_END
from deltawitness.run import suppressed
from deltawitness.settings import Settings
from deltawitness.sql_statements import contains_word

if TYPE_CHECKING:
    import pyarrow as pa
    from arro3.core import Table
    from deltalake import QueryBuilder

__all__ = ["LedgerListing", "Row"]

Row = dict[str, Any]

MAX_STORED = 1_000_000
"""Maximum number of rows that `LedgerListing.store` holds in memory."""

_SQL_TYPES = {
    ColumnKind.DAY: "DATE",
    ColumnKind.TIME: "TIMESTAMP",
    ColumnKind.TEXT: "VARCHAR",
    ColumnKind.COUNT: "BIGINT",
    ColumnKind.NUMBER: "DOUBLE",
    ColumnKind.FLAG: "BOOLEAN",
}
"""SQL types of the columns that hold one value; lists have none that a cast accepts."""


@dataclass
class LedgerListing:
    """The tables of a ledger at one version each, queried with SQL.

    The queries name `inventory`, a row per operation, `runs`, a row per run with the counts of its
    processes summed, and any other table that is opened, under its alias. A table is opened by the first
    query that names it. On an object store a small table is copied to a temporary folder then.

    Attributes:
        root: location of the ledger.
        tables: the tables that queries may name; `INVENTORY` and `RUNS` are always among them.
        spools: the folder of the ledger's spools, for hints that some are not drained; None if unknown.
    """

    root: LedgerRoot
    tables: tuple[LedgerTable, ...] = (INVENTORY, RUNS)
    spools: Path | None = None
    _opened: dict[LedgerTable, TableParts] = field(default_factory=dict, init=False, repr=False)
    _views: dict[LedgerTable, str] = field(default_factory=dict, init=False, repr=False)
    _copies: TableCopies | None = field(default=None, init=False, repr=False)
    _registered: set[LedgerTable] = field(default_factory=set, init=False, repr=False)
    _stored: set[str] = field(default_factory=set, init=False, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    @classmethod
    def of(cls, settings: Settings) -> LedgerListing:
        """Return the ledger of some settings."""
        place = root_of(settings)
        return cls(place, spools=spool_folder(settings, place))

    def __post_init__(self) -> None:
        """Choose whether tables are copied."""
        self._copies = TableCopies.of(self.root)

    def query(self, sql: str) -> list[Row]:
        """Return the rows of a query; columns that a table of an older release lacks are null.

        Args:
            sql: a query over `inventory` and `runs`.

        Raises:
            OSError: the storage cannot be read.
            DeltaError: a table of the ledger is damaged, or the query is invalid.
        """
        found = self.arrow(sql)
        columns = [column.to_pylist() for column in found.columns]
        return [
            dict(zip(found.schema.names, values, strict=True))
            for values in zip(*columns, strict=True)
        ]

    def arrow(self, sql: str) -> Table:
        """Return the result of a query as an Arrow table of delta-rs; arguments and errors as in `query`."""
        with suppressed():  # these reads are not inputs of the program
            found: Table = self._execute(sql).read_all()
        return found

    def batches(self, sql: str) -> Iterator[pa.RecordBatch]:
        """Return the result of a query in parts; arguments and errors as in `query`."""
        import pyarrow as pa  # noqa: PLC0415 - heavy

        with suppressed():  # as in `arrow`
            found = self._execute(sql)
        return (pa.record_batch(batch) for batch in found)

    def store(self, name: str, sql: str, counted: str | None = None) -> None:
        """Name the result of a query, which later queries of this object read from memory.

        Above `MAX_STORED` rows the result stays in the tables: then the name is that of a view.

        Args:
            name: the name; that of a table of the ledger hides this table.
            sql: as in `query`.
            counted: a query with at least as many rows, which are faster to count.

        Raises:
            OSError: as in `query`.
            DeltaError: as in `query`.
        """
        (found,) = self.query(f"SELECT count(*) AS count FROM ({counted or sql})")
        kind = "TABLE" if found["count"] <= MAX_STORED else "VIEW"
        with suppressed():  # as in `arrow`
            self._execute(sql, f"CREATE OR REPLACE {kind} {name} AS")
        self._stored.add(name)

    def _execute(self, sql: str, prefix: str = "") -> Any:
        tables = [table for table in self.tables if _is_named(table, sql, self._stored)]
        with self._lock:  # a table that another thread registers is not there twice
            self._register(tables)
            return self._builder.execute(f"{prefix} {self._with_views(tables)} {sql}")

    def _register(self, tables: Iterable[LedgerTable]) -> None:
        """Make tables known to the engine, which reads the footers of their files once."""
        for table, parts in self._open(tables).items():
            if table not in self._registered:
                for name, opened in parts.sources(_source(table)).items():
                    self._builder.register(name, opened)
                self._registered.add(table)

    @cached_property
    def _builder(self) -> QueryBuilder:
        from deltalake import QueryBuilder  # noqa: PLC0415 - heavy

        return QueryBuilder()

    def rows(
        self,
        table: LedgerTable,
        conditions: Iterable[str] = (),
        *,
        order: str,
        limit: int | None = None,
    ) -> list[Row]:
        """Return rows of the inventory or of the runs, without the partition column.

        Args:
            table: `INVENTORY` or `RUNS`.
            conditions: SQL predicates that all hold.
            order: the ORDER BY clause.
            limit: maximum number of rows.
        """
        where = " AND ".join(f"({condition})" for condition in conditions) or "true"
        end = "" if limit is None else f" LIMIT {limit}"
        found = self.query(f"SELECT * FROM {table.alias} WHERE {where} ORDER BY {order}{end}")
        if table is RUNS:
            return [{name: row.get(name) for name in _RUN_COLUMNS} for row in found]
        names = dict.fromkeys([name for name, *_ in table.columns] + self._present(table))
        return [{name: row.get(name) for name in names if name != PARTITION} for row in found]

    def exists(self, first: LedgerTable = INVENTORY) -> bool:
        """Return whether one of the tables is there. It opens them until it finds one.

        Args:
            first: the table to open first, because the caller queries it next.

        Raises:
            OSError: the storage cannot be read.
            DeltaError: a table of the ledger is damaged.
        """
        return self.has(first) or any(self.has(table) for table in self.tables)

    def has(self, table: LedgerTable) -> bool:
        """Return whether a table is there; errors as in `exists`."""
        return self._open([table])[table].exists

    @property
    def near(self) -> tuple[LedgerTable, ...]:
        """The tables whose queries need no request to open them: on an object store, those that are open."""
        return self.tables if self.root.is_local else tuple(self._opened)

    def columns(self, table: LedgerTable) -> list[str]:
        """Return the names of the columns that a table has; errors as in `exists`."""
        return self._present(table)

    def _open(self, tables: Iterable[LedgerTable]) -> dict[LedgerTable, TableParts]:
        """Open the tables that are not open yet, and return all of these."""
        wanted = list(tables)
        missing = [table for table in wanted if table not in self._opened]
        if missing:
            self._opened |= open_readable(self.root, missing, self._shards, self._copies)
        return {table: self._opened[table] for table in wanted}

    @cached_property
    def _shards(self) -> list[str]:
        return shard_names(self.root)

    def _present(self, table: LedgerTable) -> list[str]:
        return self._open([table])[table].column_names

    def _with_views(self, tables: Iterable[LedgerTable]) -> str:
        views = [self._view(table) for table in tables]
        return f"WITH {', '.join(views)}" if views else ""

    def _view(self, table: LedgerTable) -> str:
        if table not in self._views:
            name = "run_parts" if table is RUNS else table.alias
            view = f"{name} AS ({self._select(table)})"
            self._views[table] = f"{view}, {self._runs_view()}" if table is RUNS else view
        return self._views[table]

    def _select(self, table: LedgerTable) -> str:
        """Return the query of a table with every column of this release that has one value."""
        present = self._present(table)
        types = {name: _SQL_TYPES[kind] for name, kind, _ in table.columns if kind in _SQL_TYPES}
        names = dict.fromkeys([*present, *types])

        def columns(there: AbstractSet[str]) -> str:
            return ", ".join(
                f'"{name}"' if name in there else f'{_null(types.get(name))} AS "{name}"'
                for name in names
            )

        parts = self._open([table])[table]
        return parts.union(_source(table), columns) or f"SELECT {columns(set())} WHERE false"

    def _runs_view(self) -> str:
        """Return the query that sums the processes of a run, as `frames.frame_of` does.

        Reconstructed rows count only for runs without a row of their own processes. What cannot be
        summed comes from the process that opened the run.
        """
        present = self._present(RUNS)
        columns = [
            "run_id",
            *(f"min({name}) AS {name}" for name in (PARTITION, "start_time")),
            f"{LAST_END} AS end_time",
            *(f"last_value({name} ORDER BY {_LAST}) AS {name}" for name in OPENER_COLUMNS),
            "count(DISTINCT concat_ws(':', host, CAST(pid AS VARCHAR))) AS processes",
            *(f"CAST(sum({name}) AS BIGINT) AS {name}" for name in _SUMMED),
        ]
        if "attributes" in present:
            columns.append(f"last_value(attributes ORDER BY {_LAST}) AS attributes")
        if "operations" in present:
            columns.append("flatten(array_agg(operations)) AS operations")
        # The cast names the list's items as array_distinct does: delta-rs 1.0 fails on other names.
        ids = "array_distinct(arrow_cast(flatten(array_agg(table_ids)), 'List(Utf8)'))"
        if "table_ids" in present:
            columns += [
                f"{ids} AS table_ids",
                f"CAST(cardinality({ids}) AS BIGINT) AS tables_touched",
            ]
        summed = f"SELECT {', '.join(columns)} FROM"
        if not self._may_have_rebuilt_runs():
            return f"runs AS ({summed} run_parts GROUP BY run_id)"
        return (
            f"recorded AS (SELECT * FROM run_parts WHERE NOT {IS_REBUILT}),"
            f" parts AS (SELECT * FROM recorded UNION ALL SELECT * FROM run_parts"
            f" WHERE {IS_REBUILT} AND run_id NOT IN (SELECT run_id FROM recorded)),"
            f" runs AS ({summed} parts GROUP BY run_id)"
        )

    def _may_have_rebuilt_runs(self) -> bool:
        """Return whether there may be reconstructed rows of runs.

        Most ledgers have none, and a query that need not join them is planned in half of the time. On an
        object store the answer would be further requests.
        """
        if not self.root.is_local:
            return True
        sql = f"SELECT run_id FROM ({self._select(RUNS)}) WHERE {IS_REBUILT} LIMIT 1"
        found: Table = self._builder.execute(sql).read_all()
        return found.num_rows > 0


def _is_named(table: LedgerTable, sql: str, stored: AbstractSet[str]) -> bool:
    """Return whether a query may name a table that is not stored; words in texts count too."""
    names = {table.alias, *(["run_parts"] if table is RUNS else [])} - stored
    if not names:
        return False
    return contains_word(sql, names)


def _null(sql_type: str | None) -> str:
    return "NULL" if sql_type is None else f"CAST(NULL AS {sql_type})"


def _source(table: LedgerTable) -> str:
    """Return the name under which a table is registered; its alias names the query over it."""
    return f"{table.alias}_table"


IS_REBUILT = "coalesce(status = 'reconstructed', false)"
"""The SQL predicate of rows of runs that were made from the commits of tables."""

_LAST = "is_part DESC, end_time"
"""Last the process that opened the run; of several openings under one id, the last."""

_SUMMED = tuple(
    name
    for name, kind, _ in RUNS.columns
    if kind is ColumnKind.COUNT and name not in UNSUMMED_COUNTS
)

_RUN_COLUMNS = (
    *(name for name, *_ in RUNS.columns if name not in {PARTITION, "is_part"}),
    "processes",
)
