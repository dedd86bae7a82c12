"""The ledger in DuckDB: the statements that create its relations and views, over any source of its tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from deltawitness.ledger.tables.dataset import dataset_of
from deltawitness.ledger.tables.schema import (
    RUNS,
    TABLES,
    ColumnKind,
    LedgerRoot,
    LedgerTable,
)
from deltawitness.ledger.tables.shards import ROW_KEYS, open_parts, shard_names
from deltawitness.ledger.tables.views import duckdb_runs, view_statements
from deltawitness.semconv import LEDGER_SCHEMA
from deltawitness.sql_quoting import quote_literal

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

__all__ = ["duckdb_script", "register_in_duckdb"]

_TYPES = {
    ColumnKind.DAY: "DATE",
    ColumnKind.TIME: "TIMESTAMP WITH TIME ZONE",
    ColumnKind.TEXT: "VARCHAR",
    ColumnKind.TEXTS: "VARCHAR[]",
    ColumnKind.COUNT: "BIGINT",
    ColumnKind.COUNTS: "BIGINT[]",
    ColumnKind.NUMBER: "DOUBLE",
    ColumnKind.FLAG: "BOOLEAN",
    ColumnKind.INPUTS: 'STRUCT(table_id VARCHAR, uri VARCHAR, "version" BIGINT)[]',
    ColumnKind.TALLIES: 'STRUCT(operation VARCHAR, result VARCHAR, "count" BIGINT)[]',
    ColumnKind.PAIRS: 'STRUCT("name" VARCHAR, "value" VARCHAR)[]',
}

_ROWS = "_rows"
"""Ends the name of the relation with the rows of a table's sources."""


def duckdb_script(root: LedgerRoot) -> str:
    """Return a script for DuckDB that creates the relations and views over the ledger's tables.

    DuckDB reads the tables with its extension `delta`; a view shows the current version at each query.

    Args:
        root: location of the ledger.

    Raises:
        OSError: the storage cannot be read.
    """
    places = [root, *(root.of_shard(name) for name in shard_names(root))]
    sources = {
        table: [
            f"delta_scan({quote_literal(place.uri_of(table))})"
            for place in places
            if place.open_table(table) is not None
        ]
        for table in TABLES
    }
    statements = ["INSTALL delta", "LOAD delta", *_statements(sources)]
    return "".join(f"{statement};\n" for statement in statements)


def register_in_duckdb(connection: DuckDBPyConnection, root: LedgerRoot) -> None:
    """Create the relations and views in a connection, over the tables at their current versions.

    Args:
        connection: the connection.
        root: location of the ledger.

    Raises:
        OSError: the storage cannot be read.
        DeltaError: a table of the ledger is damaged.
    """
    sources: dict[LedgerTable, list[str]] = {}
    for table, parts in open_parts(root, TABLES).items():
        opened = [] if parts.main is None else [(root, parts.main)]
        opened += [(part.root, part.opened) for part in parts.shards]
        sources[table] = []
        for number, (place, delta_table) in enumerate(opened):
            name = f"{LEDGER_SCHEMA}_{table.alias}_{number}"
            connection.register(name, dataset_of(place, table, delta_table))
            sources[table].append(name)
    for statement in _statements(sources):
        connection.execute(statement)


def _statements(sources: Mapping[LedgerTable, Sequence[str]]) -> Iterator[str]:
    yield f"CREATE SCHEMA IF NOT EXISTS {LEDGER_SCHEMA}"
    for table in TABLES:
        rows = f"{LEDGER_SCHEMA}.{table.alias}{_ROWS if table is RUNS else ''}"
        yield _view(rows, _rows(table, sources[table]))
    yield _view(
        f"{LEDGER_SCHEMA}.{RUNS.alias}", duckdb_runs(f"{LEDGER_SCHEMA}.{RUNS.alias}{_ROWS}")
    )
    for name, query in view_statements(LEDGER_SCHEMA):
        yield _view(f"{LEDGER_SCHEMA}.{name}", query)


def _view(name: str, query: str) -> str:
    return f"CREATE OR REPLACE VIEW {name} AS {query}"


def _rows(table: LedgerTable, sources: Sequence[str]) -> str:
    """Return the query of all rows of a table, with every column of this release, each row once."""
    nulls = ", ".join(
        f'CAST(NULL AS {_TYPES[kind]}) AS "{name}"' for name, kind, _ in table.columns
    )
    if len(sources) <= 1:
        selects = [f"SELECT {nulls} WHERE false", *(f"SELECT * FROM {each}" for each in sources)]
        return " UNION ALL BY NAME ".join(selects)
    # During a fold, or after one that died, a row is in the main table and in a shard. As for the other
    # readers, the row of the main table counts then, also if a reconcile has added it.
    selects = [f"SELECT {nulls}, 0 AS place WHERE false"]
    selects += [f"SELECT *, {place} AS place FROM {each}" for place, each in enumerate(sources)]
    key = ", ".join(ROW_KEYS[table.name])
    first = ROW_KEYS[table.name][0]
    return (
        f"SELECT * EXCLUDE (place) FROM ({' UNION ALL BY NAME '.join(selects)})"
        f" QUALIFY place = min(place) OVER (PARTITION BY {key}) OR {first} IS NULL"
    )
