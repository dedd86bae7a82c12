"""Parse the statements on Delta tables that DataFusion cannot plan; delta-rs executes them.

`COPY ... STORED AS DELTATABLE`, `CREATE TABLE ... STORED AS DELTATABLE AS`, `OPTIMIZE`, `VACUUM`,
`RESTORE` and `DESCRIBE HISTORY`, in the forms of Delta Lake's documentation.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from deltawitness.commit.reader import history
from deltawitness.delta_rs.first_version import check_not_before_first
from deltawitness.exceptions import StatementError
from deltawitness.ids_and_clock import in_utc
from deltawitness.semconv import USER_METADATA, CommitKey
from deltawitness.session.core.sql_call import SqlCall
from deltawitness.session.core.state import FACTORY_FORMAT
from deltawitness.session.core.tokens import Words
from deltawitness.session.core.unpatched import unpatched
from deltawitness.sql_quoting import quote_identifier
from deltawitness.sql_statements import explained, first_word

if TYPE_CHECKING:
    import pyarrow as pa
    from deltalake import DeltaTable

__all__ = [
    "Command",
    "CopyToDelta",
    "CreateDeltaTableAs",
    "DescribeHistory",
    "MaintenanceCommand",
    "check_allowed",
    "history_batch",
    "parse_command",
    "refuse_explained_command",
    "stores_delta",
]


@dataclass(frozen=True, slots=True)
class CopyToDelta:
    """`COPY {table | (query)} TO 'uri' STORED AS DELTATABLE [PARTITIONED BY (...)] [OPTIONS (...)]`.

    Attributes:
        query: the SELECT that returns the rows.
        uri: path or URI of the table to write.
        partition_by: columns to partition by.
        options: `mode`, `schema_mode`, and the storage options.
    """

    query: str
    uri: str
    partition_by: tuple[str, ...] = ()
    options: Mapping[str, str] = field(default_factory=dict)

    title = "COPY TO a Delta table"


@dataclass(frozen=True, slots=True)
class CreateDeltaTableAs:
    """`CREATE [OR REPLACE] [EXTERNAL] TABLE name STORED AS DELTATABLE ... AS query`."""

    name: tuple[str, ...]
    query: str
    uri: str
    partition_by: tuple[str, ...] = ()
    options: Mapping[str, str] = field(default_factory=dict)
    or_replace: bool = False
    if_not_exists: bool = False


@dataclass(frozen=True, slots=True)
class DescribeHistory:
    """`DESCRIBE HISTORY name [LIMIT n]`."""

    name: tuple[str, ...]
    limit: int | None = None


@dataclass(frozen=True, slots=True)
class MaintenanceCommand:
    """`OPTIMIZE`, `VACUUM` or `RESTORE` of a table.

    Attributes:
        title: the statement, without literals.
        name: the parts of the table's name.
        execute: runs the command on an open table and returns the rows of its result.
        columns: the columns of its result, each with its type, `int` or `text`.
        is_read: the command changes nothing.
    """

    title: str
    name: tuple[str, ...]
    execute: Callable[[DeltaTable], list[dict[str, Any]]]
    columns: tuple[tuple[str, str], ...]
    is_read: bool = False

    def result(self, rows: list[dict[str, Any]]) -> pa.RecordBatch:
        """Return the rows of a result as a batch with the command's columns."""
        import pyarrow as pa  # noqa: PLC0415 - heavy, already loaded

        types = {"int": pa.uint64(), "text": pa.string()}
        schema = pa.schema([(name, types[kind]) for name, kind in self.columns])
        return pa.RecordBatch.from_pylist(rows, schema=schema)


Command = CopyToDelta | CreateDeltaTableAs | DescribeHistory | MaintenanceCommand


def stores_delta(words: Words) -> bool:
    """Return whether a statement has the clause STORED AS DELTATABLE."""
    return words.contain("STORED", "AS", FACTORY_FORMAT)


def refuse_explained_command(text: str, *, normalize: bool) -> None:
    """Refuse an EXPLAIN of a statement of this module, because DataFusion has no plan of it.

    Args:
        text: the EXPLAIN statement.
        normalize: whether unquoted names are folded to lower case.

    Raises:
        StatementError: the explained statement is one of this module.
    """
    statement = explained(text)
    word = first_word(statement)
    if parse_command(statement, word, normalize=normalize) is not None:
        msg = f"EXPLAIN of {word} is not supported: delta-rs runs the statement, which has no plan"
        raise StatementError(msg)


def parse_command(text: str, word: str, *, normalize: bool) -> Command | None:
    """Parse a statement of this module; return None for a statement that DataFusion plans.

    Args:
        text: the statement.
        word: its first word (:func:`deltawitness.sql_statements.first_word`).
        normalize: whether unquoted names are folded to lower case.

    Raises:
        StatementError: it is a statement of this module and is invalid.
    """
    parse = _PARSERS.get(word)
    if parse is None:
        return None
    words = Words(text, normalize=normalize)
    if word in {"COPY", "CREATE"} and not stores_delta(words):
        return None
    return parse(words)


def _optimize(words: Words) -> MaintenanceCommand:
    words.expect("OPTIMIZE")
    words.take("TABLE")
    name = words.reference()
    columns: tuple[str, ...] = ()
    if words.take("ZORDER", "BY"):
        columns = words.names()
    words.expect_end()

    def execute(table: DeltaTable) -> list[dict[str, Any]]:
        optimize = table.optimize
        metrics = optimize.z_order(list(columns)) if columns else optimize.compact()
        return [
            {
                "num_files_added": metrics["numFilesAdded"],
                "num_files_removed": metrics["numFilesRemoved"],
                "partitions_optimized": metrics["partitionsOptimized"],
                "total_considered_files": metrics["totalConsideredFiles"],
            }
        ]

    result = (
        "num_files_added",
        "num_files_removed",
        "partitions_optimized",
        "total_considered_files",
    )
    title = f"OPTIMIZE {name[-1]}" + (" ZORDER BY" if columns else "")
    return MaintenanceCommand(title, name, execute, tuple((column, "int") for column in result))


def _vacuum(words: Words) -> MaintenanceCommand:
    words.expect("VACUUM")
    words.take("TABLE")
    name = words.reference()
    hours: int | None = None
    if words.take("RETAIN"):
        hours = words.number()
        if not words.take("HOURS"):
            words.expect("HOUR")
    dry_run = words.take("DRY", "RUN")
    words.expect_end()

    def execute(table: DeltaTable) -> list[dict[str, Any]]:
        return [{"path": path} for path in table.vacuum(hours, dry_run=dry_run)]

    title = f"VACUUM {name[-1]}" + (" DRY RUN" if dry_run else "")
    return MaintenanceCommand(title, name, execute, (("path", "text"),), is_read=dry_run)


def _restore(words: Words) -> MaintenanceCommand:
    words.expect("RESTORE")
    words.take("TABLE")
    name = words.reference()
    words.expect("TO")
    target: int | dt.datetime
    if words.take("TIMESTAMP"):
        words.take("AS", "OF")
        target = _parse_timestamp(words.string())
    else:
        words.expect("VERSION")
        words.take("AS", "OF")
        target = words.number()
    words.expect_end()

    def execute(table: DeltaTable) -> list[dict[str, Any]]:
        if isinstance(target, dt.datetime):
            check_not_before_first(table, target)
        metrics = table.restore(target)
        return [
            {
                "num_removed_files": metrics["numRemovedFile"],
                "num_restored_files": metrics["numRestoredFile"],
            }
        ]

    result = ("num_removed_files", "num_restored_files")
    return MaintenanceCommand(
        f"RESTORE {name[-1]}", name, execute, tuple((column, "int") for column in result)
    )


def _parse_timestamp(text: str) -> dt.datetime:
    try:
        timestamp = dt.datetime.fromisoformat(text)
    except ValueError:
        msg = "RESTORE: the timestamp is not in ISO 8601 format"
        raise StatementError(msg) from None
    return in_utc(timestamp)


def _describe(words: Words) -> DescribeHistory | None:
    if not (words.take("DESCRIBE") or words.take("DESC")) or not words.take("HISTORY"):
        return None
    if words.at_end:
        return None  # DESCRIBE of a table with the name "history"
    name = words.reference()
    limit = words.number() if words.take("LIMIT") else None
    words.expect_end()
    return DescribeHistory(name, limit)


def _copy(words: Words) -> CopyToDelta:
    words.expect("COPY")
    if words.peek("("):
        query = words.until({"TO"}).strip()[1:-1]
    else:
        query = f"SELECT * FROM {quote_identifier(*words.reference())}"
    words.expect("TO")
    uri = words.string()
    storage = _storage(words)
    if storage.location is not None:
        msg = "COPY takes its target after TO; LOCATION is not supported"
        raise StatementError(msg)
    words.expect_end()
    return CopyToDelta(query, uri, storage.partition_by, storage.options)


def _create(words: Words) -> CreateDeltaTableAs | None:
    words.expect("CREATE")
    or_replace = words.take("OR", "REPLACE")
    words.take("EXTERNAL")
    if not words.take("TABLE"):
        return None
    if_not_exists = words.take("IF", "NOT", "EXISTS")
    name = words.reference()
    if not words.peek("STORED"):
        return None
    storage = _storage(words)
    if not words.take("AS"):
        return None
    if storage.location is None:
        msg = "CREATE TABLE ... STORED AS DELTATABLE needs a LOCATION"
        raise StatementError(msg)
    return CreateDeltaTableAs(
        name,
        words.rest(),
        storage.location,
        storage.partition_by,
        storage.options,
        or_replace,
        if_not_exists,
    )


class _Storage(NamedTuple):
    """The clauses PARTITIONED BY, LOCATION and OPTIONS of a new table."""

    partition_by: tuple[str, ...] = ()
    location: str | None = None
    options: Mapping[str, str] = MappingProxyType({})


def _storage(words: Words) -> _Storage:
    """Read STORED AS, PARTITIONED BY, LOCATION and OPTIONS, in any order."""
    storage = _Storage()
    while True:
        if words.take("STORED"):
            words.expect("AS", FACTORY_FORMAT)
        elif words.take("PARTITIONED"):
            words.expect("BY")
            storage = storage._replace(partition_by=words.names())
        elif words.take("LOCATION"):
            storage = storage._replace(location=words.string())
        elif words.take("OPTIONS"):
            storage = storage._replace(options={**storage.options, **words.options()})
        else:
            return storage


_PARSERS: dict[str, Callable[[Words], Command | None]] = {
    "OPTIMIZE": _optimize,
    "VACUUM": _vacuum,
    "RESTORE": _restore,
    "DESCRIBE": _describe,
    "DESC": _describe,
    "COPY": _copy,
    "CREATE": _create,
}


# --- results ----------------------------------------------------------------------------------------


def history_batch(table: DeltaTable, limit: int | None) -> pa.RecordBatch:
    """Return a table's commits, newest first, with the column names of Spark's DESCRIBE HISTORY.

    Args:
        table: the table.
        limit: maximum number of commits; None for all.
    """
    import pyarrow as pa  # noqa: PLC0415 - heavy, already loaded

    schema = pa.schema(
        [
            ("version", pa.int64()),
            ("timestamp", pa.timestamp("ms", "UTC")),
            ("operation", pa.string()),
            ("operationParameters", pa.string()),
            ("operationMetrics", pa.string()),
            (USER_METADATA, pa.string()),
            ("engineInfo", pa.string()),
            (CommitKey.RUN_ID.value, pa.string()),
            (CommitKey.WRITE_ID.value, pa.string()),
        ]
    )
    rows = [
        {
            "version": commit.version,
            "timestamp": commit.timestamp,
            "operation": commit.operation,
            "operationParameters": json.dumps(dict(commit.operation_parameters)),
            "operationMetrics": json.dumps(dict(commit.operation_metrics)),
            USER_METADATA: _as_text(commit.metadata.get(USER_METADATA)),
            "engineInfo": commit.engine_info,
            CommitKey.RUN_ID.value: commit.run_id,
            CommitKey.WRITE_ID.value: commit.write_id,
        }
        for commit in history(table, limit)
    ]
    return pa.RecordBatch.from_pylist(rows, schema=schema)


def _as_text(value: object) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value)


def check_allowed(call: SqlCall, kind: str) -> None:
    """Raise DataFusion's error if the caller's `SQLOptions` forbid a kind of statement.

    Args:
        call: the statement's call.
        kind: `ddl` or `dml`.

    Raises:
        Exception: DataFusion's own error.
    """
    if call.options is None:
        return
    # Python cannot read the options, so a statement of that kind without an effect is planned with
    # them.
    probe = {
        "ddl": "DROP TABLE IF EXISTS deltawitness_probe_of_options",
        "dml": "COPY (SELECT 1) TO 'deltawitness-probe.csv' STORED AS CSV",
    }[kind]
    unpatched(call.ctx, "sql")(probe, call.options)
