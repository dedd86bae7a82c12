"""`CREATE EXTERNAL TABLE ... STORED AS DELTATABLE`: register an existing table or create a new one."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from deltawitness.exceptions import StatementError
from deltawitness.session.core.private_api import locations_of
from deltawitness.session.core.sql_call import SqlCall
from deltawitness.session.core.state import FACTORY_FORMAT, Session
from deltawitness.session.core.table_providers import provider_of
from deltawitness.session.core.tokens import Words
from deltawitness.session.core.unpatched import unpatched
from deltawitness.session.sql.delta_sql import NotTranslatable, value_sql

if TYPE_CHECKING:
    import pyarrow as pa
    from datafusion import SessionContext
    from deltalake import DeltaTable

__all__ = ["create_external_table"]


@dataclass(slots=True)
class CreateTable:
    """One parsed statement, passed to the table factory that the engine calls while it plans.

    Attributes:
        name: the parts of the table's name in the statement.
        columns: the columns that the statement lists, or None.
        partition_by: columns to partition by.
        options: the statement's options.
        table: the table, set by the factory.
        defaults: SQL of the columns' default values, by column.
        error: the error that the factory raised.
    """

    name: tuple[str, ...]
    columns: pa.Schema | None
    partition_by: tuple[str, ...]
    options: Mapping[str, str]
    table: DeltaTable | None = None
    defaults: dict[str, str] = field(default_factory=dict)
    error: Exception | None = None

    @property
    def version(self) -> int | None:
        """The version in the options, or None.

        Raises:
            StatementError: it is not an integer.
        """
        text = self.options.get("version")
        if text is not None and not text.isdecimal():
            msg = "OPTIONS: the version must be an integer"
            raise StatementError(msg)
        return None if text is None else int(text)


_current = threading.local()
"""Holds the statement as `creation`; the engine calls the factory on the thread that called `sql()`."""


def create_external_table(session: Session, call: SqlCall) -> Any:
    """Run the statement and register its table in the session as a Delta table.

    Returns:
        The engine's (empty) frame.

    Raises:
        StatementError: the listed columns differ from those of the table at the location, or the
            statement uses a feature that Delta tables do not have.
    """
    if not session.has_factory:
        unpatched(call.ctx, "register_table_factory")(FACTORY_FORMAT, _factory())
        session.has_factory = True
    creation = _parse_statement(call)
    before = getattr(_current, "creation", None)
    _current.creation = creation
    try:
        frame = call.plan()
    except Exception:
        if creation.error is not None:
            raise creation.error from None
        raise
    finally:
        _current.creation = before
    if creation.table is not None:
        session.tables.register(
            call.ctx,
            session.names.full_name(call.ctx, creation.name),
            creation.table,
            fixed=creation.version is not None,
            defaults=creation.defaults,
            is_registered=True,
        )
    return frame


# --- the statement ---------------------------------------------------------------------------------


def _parse_statement(call: SqlCall) -> CreateTable:
    words = Words(call.text, normalize=call.ctx.enable_ident_normalization())
    words.expect("CREATE")
    words.take("OR", "REPLACE")
    if words.take("UNBOUNDED"):
        msg = "CREATE UNBOUNDED EXTERNAL TABLE: a Delta table is not unbounded"
        raise StatementError(msg)
    words.expect("EXTERNAL", "TABLE")
    words.take("IF", "NOT", "EXISTS")
    name = words.reference()
    listed = _in_parentheses(words) if words.peek("(") else ""
    partition_by: tuple[str, ...] = ()
    options: dict[str, str] = {}
    while not words.at_end:
        if words.take("PARTITIONED"):
            words.expect("BY")
            partition_by, typed = _partitions(words)
            listed = ", ".join(part for part in (listed, *typed) if part)
        elif words.take("OPTIONS"):
            options = words.options()
        elif words.take("WITH", "ORDER"):
            msg = "WITH ORDER: the rows of a Delta table have no order"
            raise StatementError(msg)
        else:
            words.skip()
    columns = _schema(call.ctx, listed) if listed else None
    return CreateTable(name, columns, partition_by, options)


def _in_parentheses(words: Words) -> str:
    words.expect("(")
    inside = words.rest()
    words.expect(")")
    return inside


def _partitions(words: Words) -> tuple[tuple[str, ...], list[str]]:
    """Read the partition columns, each a name or, as in Hive, a name with its type.

    Returns:
        The names, and the definitions of those that have a type.
    """
    words.expect("(")
    names, typed = [], []
    while True:
        start = words.position
        names.append(words.name())
        if not (words.peek(",") or words.peek(")")):
            words.until({","})
            typed.append(words.text[start : words.end_position])
        if not words.take(","):
            break
    words.expect(")")
    return tuple(names), typed


def _schema(ctx: SessionContext, listed: str) -> pa.Schema:
    """Return the schema of a list of column definitions, as DataFusion parses it.

    A scratch session creates a table with these columns. Its time zone is UTC, because Delta
    timestamps are in UTC.
    """
    from datafusion import SessionConfig, SessionContext  # noqa: PLC0415 - heavy, already loaded

    config = SessionConfig({"datafusion.execution.time_zone": "UTC"})
    normalize = str(ctx.enable_ident_normalization()).lower()
    config = config.set("datafusion.sql_parser.enable_ident_normalization", normalize)
    scratch = SessionContext(config)
    unpatched(scratch, "sql")(f"CREATE TABLE columns ({listed})")
    schema: pa.Schema = unpatched(scratch, "table")("columns").schema()
    return schema


# --- the table --------------------------------------------------------------------------------------


def _factory() -> Any:
    from datafusion.catalog import Table, TableProviderFactory  # noqa: PLC0415 - heavy

    class DeltaTableFactory(TableProviderFactory):
        """Opens the Delta table of a CREATE EXTERNAL TABLE statement, or creates it."""

        def create(self, cmd: Any) -> Table:
            """Return a provider over the table of a statement.

            Args:
                cmd: the engine's `CreateExternalTable`.
            """
            creation: CreateTable | None = getattr(_current, "creation", None)
            if creation is None:
                # Called through a context that is not observed: only an existing table can be opened.
                creation = CreateTable((), None, (), _plain_options(cmd.options()))
            try:
                creation.table = _open_or_create(creation, cmd)
            except Exception as error:
                creation.error = error
                raise
            table: Table = provider_of(creation.table)
            return table

    return DeltaTableFactory()


def _plain_options(options: Mapping[str, str]) -> dict[str, str]:
    return {key.removeprefix("format."): value for key, value in options.items()}


def _open_or_create(creation: CreateTable, cmd: Any) -> DeltaTable:
    from deltalake import DeltaTable  # noqa: PLC0415 - heavy

    locations = locations_of(cmd)
    if len(locations) != 1:
        msg = "a Delta table has one location"
        raise StatementError(msg)
    storage_options = {
        key: value
        for key, value in creation.options.items()
        if key != "version" and not key.startswith("delta.")
    } or None
    creation.defaults = {name: _default_sql(e) for name, e in cmd.column_defaults().items()}
    uri = locations[0]
    if DeltaTable.is_deltatable(uri, storage_options):
        table = DeltaTable(uri, version=creation.version, storage_options=storage_options)
        _check_agreement(creation, table)
        return table
    if creation.columns is None or creation.version is not None:
        return DeltaTable(uri, storage_options=storage_options)  # raises the engine's own error
    return _create(creation, uri, storage_options)


def _create(creation: CreateTable, uri: str, storage_options: dict[str, str] | None) -> DeltaTable:
    from deltalake import DeltaTable  # noqa: PLC0415 - heavy

    columns = creation.columns
    missing = [name for name in creation.partition_by if name not in columns.names]  # type: ignore[union-attr]  # checked by the caller
    if missing:
        msg = f"PARTITIONED BY: no column is named {missing[0]}"
        raise StatementError(msg)
    return DeltaTable.create(
        uri,
        schema=delta_schema(columns),
        mode="error",
        partition_by=list(creation.partition_by) or None,
        configuration=_properties(creation.options) or None,
        storage_options=storage_options,
    )


def _properties(options: Mapping[str, str]) -> dict[str, str | None]:
    return {key: value for key, value in options.items() if key.startswith("delta.")}


def _default_sql(expression: Any) -> str:
    def no_column(_: str | None, name: str) -> str:
        raise NotTranslatable(name)

    try:
        return value_sql(expression, no_column)
    except NotTranslatable as error:
        msg = "DEFAULT supports only literals and arithmetic with them"
        raise StatementError(msg) from error


def _check_agreement(creation: CreateTable, table: DeltaTable) -> None:
    if creation.columns is not None:
        import pyarrow as pa  # noqa: PLC0415 - heavy, already loaded

        actual = pa.schema(table.schema())
        listed = pa.schema(delta_schema(creation.columns))
        if [(f.name, f.type) for f in actual] != [(f.name, f.type) for f in listed]:
            msg = "the location holds a Delta table with other columns than the statement lists"
            raise StatementError(msg)
    partitions = tuple(table.metadata().partition_columns)
    if creation.partition_by and creation.partition_by != partitions:
        msg = "the location holds a Delta table with other partition columns"
        raise StatementError(msg)


def delta_schema(schema: pa.Schema) -> Any:
    """Return an Arrow schema as a Delta schema, with timestamps in Delta's unit, microseconds."""
    import pyarrow as pa  # noqa: PLC0415 - heavy, already loaded
    from deltalake import Schema  # noqa: PLC0415 - heavy, already loaded

    return Schema.from_arrow(pa.schema([_in_microseconds(field) for field in schema]))


def _in_microseconds(field: pa.Field) -> pa.Field:
    import pyarrow as pa  # noqa: PLC0415 - heavy, already loaded

    kind = field.type
    if pa.types.is_timestamp(kind):
        kind = pa.timestamp("us", kind.tz)
    elif pa.types.is_struct(kind):
        kind = pa.struct([_in_microseconds(kind.field(i)) for i in range(kind.num_fields)])
    elif pa.types.is_list(kind):
        kind = pa.list_(_in_microseconds(kind.value_field))
    return field.with_type(kind)
