"""What a session knows of itself, as tables: its tables, their columns, its settings, its Delta inputs.

It is the same whether or not the session has its information schema switched on: tables and columns
are asked of its catalogs, which tell what that schema would, and settings of a copy of its
configuration. Tables that the engine gave names of its own to are left out. DataFusion 55 keeps
caches of file statistics and metadata, and shows nothing of them to Python: there is no part for
them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from deltawitness.ledger.tables.write_rows import ledger_uri
from deltawitness.redaction import redact_named, strip_credentials
from deltawitness.session.core.state import session_of
from deltawitness.session.core.unpatched import unpatched

if TYPE_CHECKING:
    import pyarrow as pa
    from datafusion import SessionContext

__all__ = ["PARTS", "session_metadata"]

Row = dict[str, Any]

_INFORMATION_SCHEMA = "information_schema"
"""The schema that tells of the others; it is the same in every session, and is left out."""


_ANONYMOUS = re.compile(r"c[0-9a-f]{32}")


def session_metadata(ctx: SessionContext, part: str) -> pa.Table:
    """Return a part of what a session knows of itself.

    Args:
        ctx: the plain context.
        part: one of `tables`, `columns`, `settings`, `inputs`.
    """
    import pyarrow as pa  # noqa: PLC0415 - heavy

    columns, read = PARTS[part]
    types = {"text": pa.string(), "count": pa.int64(), "flag": pa.bool_()}
    schema = pa.schema([(name, types[kind]) for name, kind in columns.items()])
    return pa.Table.from_pylist(list(read(ctx)), schema)


# --- tables and columns ------------------------------------------------------------------------------------


def _tables(ctx: SessionContext) -> Iterator[Row]:
    for place, table in _each_table(ctx):
        yield {**place, "table_type": _TYPES.get(table.kind, "BASE TABLE")}


_TYPES = {"view": "VIEW", "temporary": "LOCAL TEMPORARY"}
"""How an information schema calls what the catalog calls otherwise."""


def _columns(ctx: SessionContext) -> Iterator[Row]:
    for place, table in _each_table(ctx):
        for at, column in enumerate(table.schema):
            yield {
                **place,
                "column_name": column.name,
                "ordinal_position": at,
                "data_type": str(column.type),
                "is_nullable": column.nullable,
            }


def _each_table(ctx: SessionContext) -> Iterator[tuple[Row, Any]]:
    for catalog in sorted(unpatched(ctx, "catalog_names")()):
        known = unpatched(ctx, "catalog")(catalog)
        for schema in sorted(known.schema_names()):
            if schema == _INFORMATION_SCHEMA:
                continue
            tables = known.schema(schema)
            for name in sorted(tables.names()):
                if _ANONYMOUS.fullmatch(name):
                    continue
                place = {"table_catalog": catalog, "table_schema": schema, "table_name": name}
                yield place, tables.table(name)


# --- settings ------------------------------------------------------------------------------------------------


def _settings(ctx: SessionContext) -> Iterator[Row]:
    from datafusion import SessionContext as Plain  # noqa: PLC0415 - heavy

    # A session of the same configuration that has an information schema, whatever the session has.
    ask = Plain(unpatched(ctx, "copied_config")().with_information_schema(enabled=True))
    rows = unpatched(ask, "sql")("SELECT name, value FROM information_schema.df_settings")
    told = dict(zip(*unpatched(rows, "to_pydict")().values(), strict=True))
    told["datafusion.catalog.information_schema"] = str(_has_information_schema(ctx)).lower()
    for name, value in told.items():
        yield {"name": name, "value": None if value is None else _masked(name, value)}


def _has_information_schema(ctx: SessionContext) -> bool:
    try:
        unpatched(ctx, "sql")("SELECT 1 FROM information_schema.df_settings")
    except Exception:  # noqa: BLE001 - the engine says in words that there is none
        return False
    return True


def _masked(name: str, value: str) -> str:
    """Return a setting's value as it may be kept: a secret's is masked, a location has no credentials."""
    is_secret = redact_named(name, "value") != "value"
    return "[secret]" if is_secret else strip_credentials(value)


# --- Delta inputs --------------------------------------------------------------------------------------------


def _inputs(ctx: SessionContext) -> Iterator[Row]:
    for entry in session_of(ctx).snapshot:
        yield {
            "table_catalog": entry.name.catalog,
            "table_schema": entry.name.schema,
            "table_name": entry.name.table,
            "table_id": entry.table_id,
            "table_uri": ledger_uri(entry.uri),
            "version": entry.version,
            "is_fixed": entry.fixed,
        }


_PLACE = {"table_catalog": "text", "table_schema": "text", "table_name": "text"}

PARTS: Mapping[str, tuple[Mapping[str, str], Callable[[SessionContext], Iterator[Row]]]] = {
    "tables": ({**_PLACE, "table_type": "text"}, _tables),
    "columns": (
        {
            **_PLACE,
            "column_name": "text",
            "ordinal_position": "count",
            "data_type": "text",
            "is_nullable": "flag",
        },
        _columns,
    ),
    "settings": ({"name": "text", "value": "text"}, _settings),
    "inputs": (
        {**_PLACE, "table_id": "text", "table_uri": "text", "version": "count", "is_fixed": "flag"},
        _inputs,
    ),
}
"""Each part with its columns, and what reads it."""
