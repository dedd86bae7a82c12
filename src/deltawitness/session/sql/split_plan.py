"""Split a query by the files that it reads into parts that other processes execute.

A query can be split if each of its rows comes from one row of one file: a scan of one table, with filters,
projections and expressions above it. A scan of files is split by the engine: each partition of the physical
plan reads other files, and the serialized plan is executed one partition at a time. A scan of a Delta table
cannot be serialized, so each part opens a table with a part of the files, and applies the same expressions.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deltawitness.exceptions import StatementError
from deltawitness.hashing import plan_text
from deltawitness.locations import local_path
from deltawitness.session.core.private_api import wrapped_plan
from deltawitness.session.core.snapshot import Registered, scanned_names
from deltawitness.session.core.unpatched import unpatched
from deltawitness.session.sql.delta_sql import is_volatile

if TYPE_CHECKING:
    import pyarrow as pa
    from datafusion import DataFrame, SessionConfig, SessionContext

    from deltawitness.session.core.frames import FrameState

__all__ = ["DeltaPart", "FilesPart", "split_by_files"]

Settings = tuple[tuple[str, str], ...]
"""Names and values of the settings of a session that differ from the defaults."""

_STATELESS = ("Projection", "Filter", "SubqueryAlias", "TableScan")
_STATELESS_EXEC = ("ProjectionExec", "FilterExec", "CoalesceBatchesExec", "CooperativeExec")
_FILES = "DataSourceExec: file_groups="
_PARTITION_TYPES = frozenset({"string", "byte", "short", "integer", "long", "date"})
"""Types of partition columns whose values are written to the log as their text."""

_SERIAL_SCAN = (
    ("datafusion.optimizer.enable_round_robin_repartition", "false"),
    ("datafusion.optimizer.repartition_file_scans", "true"),
    ("datafusion.execution.enable_file_stream_work_stealing", "false"),
)
"""Settings with which each partition of a physical plan reads its own files, and no others: by default a
partition that is executed alone reads the files of all partitions."""


def split_by_files(frame: DataFrame, state: FrameState | None, count: int) -> list[Any]:
    """Return parts whose rows together are the rows of a frame, each executable in another process.

    Args:
        frame: the frame.
        state: the state of the frame; None if it comes from no observed session.
        count: maximum number of parts.

    Returns:
        Functions that pickle and that return an Arrow stream.

    Raises:
        StatementError: the query cannot be split; the message says why.
    """
    plan = unpatched(frame, "optimized_logical_plan")()
    steps = list(_steps_of(plan))
    ctx = _context_of(frame, state)
    settings = _settings_of(ctx)
    entries = [] if state is None else scanned_names(plan_text(frame), state.snapshot)
    if entries:
        return _split_delta(plan, steps, entries, settings, count)
    return _split_files(ctx, plan, settings, count)


def _context_of(frame: DataFrame, state: FrameState | None) -> SessionContext:
    if state is not None:
        return state.ctx
    from datafusion import SessionContext  # noqa: PLC0415 - heavy, already loaded

    return SessionContext()


def _refuse(reason: str) -> None:
    msg = f"write_distributed: {reason}, so the query cannot be split by its files; pass split='auto' to write it as one part"
    raise StatementError(msg)


# --- the logical plan ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Step:
    """A node of a plan.

    Attributes:
        kind: `columns` for the columns that the scan reads, `filter`, `project` or `alias`.
        expressions: the serialized expressions of a filter or a projection.
        names: the columns, or the alias.
    """

    kind: str
    expressions: tuple[bytes, ...] = ()
    names: tuple[str, ...] = ()


def _steps_of(plan: Any) -> Iterator[_Step]:
    """Yield the nodes of a plan from the scan to the top.

    Raises:
        StatementError: a node is not stateless, or an expression is volatile.
    """
    node = _node_of(plan)
    kind = type(node).__name__
    below = plan.inputs()
    if kind == "TableScan":
        if node.fetch() is not None:
            _refuse("the plan has the node Limit")
        yield from (_Step("filter", _serialized([each])) for each in node.filters())
        yield _Step("columns", names=tuple(_columns_of(node)))
        return
    yield from _steps_of(below[0])
    if kind == "Projection":
        yield _Step("project", _serialized(node.projections()))
    elif kind == "Filter":
        yield _Step("filter", _serialized([node.predicate()]))
    else:
        yield _Step("alias", names=(node.alias(),))


def _columns_of(scan: Any) -> list[str]:
    """Return the names of the columns that a scan reads."""
    return [name for _, name in scan.projection()]


def _node_of(plan: Any) -> Any:
    try:
        node = plan.to_variant()
    except Exception:  # noqa: BLE001 - the engine has plan nodes without a Python class
        node = None
    kind = type(node).__name__
    if kind not in _STATELESS:
        name = plan.display_indent().lstrip().split(":")[0].split("\n")[0]
        _refuse(f"the plan has the node {name}")
    return node


def _serialized(expressions: Sequence[Any]) -> tuple[bytes, ...]:
    from datafusion import Expr  # noqa: PLC0415 - heavy, already loaded

    found = []
    for raw in expressions:
        expression = raw if isinstance(raw, Expr) else Expr(raw)
        if is_volatile(expression):
            _refuse("an expression calls a volatile function")
        try:
            found.append(expression.to_bytes())
        except Exception:  # noqa: BLE001 - the engine's error for an expression without a serialized form
            _refuse(f"the expression {expression.variant_name()} cannot be serialized")
    return tuple(found)


# --- settings -----------------------------------------------------------------------------------------


def _settings_of(ctx: SessionContext) -> Settings:
    found = _settings(unpatched(ctx, "copied_config")())
    defaults = _defaults()
    return tuple(
        (name, value) for name, value in sorted(found.items()) if defaults.get(name) != value
    )


@cache
def _defaults() -> dict[str, str]:
    from datafusion import SessionConfig  # noqa: PLC0415 - heavy

    return _settings(SessionConfig())


def _settings(config: SessionConfig) -> dict[str, str]:
    from datafusion import SessionContext  # noqa: PLC0415 - heavy

    reader = SessionContext(config.with_information_schema(enabled=True))
    rows = unpatched(reader, "sql")("SELECT name, value FROM information_schema.df_settings")
    found = dict(zip(*unpatched(rows, "to_pydict")().values(), strict=True))
    return {name: value for name, value in found.items() if value is not None}


def _session(settings: Settings) -> SessionContext:
    from datafusion import SessionConfig, SessionContext  # noqa: PLC0415 - heavy

    config = SessionConfig()
    for name, value in settings:
        config = config.set(name, value)
    return SessionContext(config)


# --- files --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FilesPart:
    """One partition of a physical plan over files.

    Attributes:
        plan: the serialized plan.
        partition: number of the partition.
        schema: schema of the rows.
        settings: settings of the session.
    """

    plan: bytes
    partition: int
    schema: pa.Schema
    settings: Settings

    def __call__(self) -> pa.RecordBatchReader:
        """Execute the partition and return its rows as a stream."""
        from datafusion.plan import ExecutionPlan  # noqa: PLC0415 - heavy

        ctx = _session(self.settings)
        plan = ExecutionPlan.from_bytes(ctx, self.plan)
        return _stream(ctx, self.schema, unpatched(ctx, "execute")(plan, self.partition))


def _split_files(
    ctx: SessionContext, plan: Any, settings: Settings, count: int
) -> list[FilesPart]:
    settings = (
        *(each for each in settings if each[0] not in dict(_SERIAL_SCAN)),
        *(each for each in _SERIAL_SCAN if each[0] in _defaults()),
        ("datafusion.execution.target_partitions", str(count)),
    )
    replanned = unpatched(_session(settings), "create_dataframe_from_logical_plan")(
        wrapped_plan(plan)
    )
    physical = unpatched(replanned, "execution_plan")()
    _check_physical(physical)
    try:
        content = physical.to_bytes()
    except Exception:  # noqa: BLE001 - the engine's error for a plan without a serialized form
        _refuse("its plan cannot be serialized")
    schema = replanned.schema()
    return [
        FilesPart(content, number, schema, settings) for number in range(physical.partition_count)
    ]


def _check_physical(plan: Any) -> None:
    """Check that each partition of a physical plan reads other local files.

    Raises:
        StatementError: it does not.
    """
    line = plan.display().strip()
    name = line.split(":")[0]
    if line.startswith(_FILES):
        if ", limit=" in line:
            _refuse("the plan has a limit")
        if b"file:///" not in plan.to_bytes():
            _refuse("the files are not on a local or shared disk")
        return
    if name not in _STATELESS_EXEC or ", fetch=" in line:
        _refuse(f"the plan has the node {name}")
    for below in plan.children():
        _check_physical(below)


# --- Delta tables -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DeltaPart:
    """A query over some of the files of a Delta table.

    Attributes:
        log: the commit of a table that has these files, by their absolute paths.
        name: catalog, schema and name of the table in the query; None where the query has none.
        steps: the nodes above the scan.
        settings: settings of the session.
    """

    log: str
    name: tuple[str | None, str | None, str]
    steps: tuple[_Step, ...]
    settings: Settings

    def __call__(self) -> pa.RecordBatchReader:
        """Execute the query and return its rows as a stream."""
        ctx, frame = _over_table(self)
        return _stream(ctx, frame.schema(), unpatched(frame, "execute_stream")())


def _stream(ctx: SessionContext, schema: pa.Schema, batches: Any) -> pa.RecordBatchReader:
    """Return batches as a stream that keeps the session alive: the scan of a Delta table calls it."""
    import pyarrow as pa  # noqa: PLC0415 - heavy

    def read() -> Iterator[pa.RecordBatch]:
        session = ctx
        for batch in batches:
            yield batch.to_pyarrow()
        del session

    return pa.RecordBatchReader.from_batches(schema, read())


def _over_table(part: DeltaPart) -> tuple[SessionContext, DataFrame]:
    """Return a session and the query over a table with the files of a part; its log is read at once."""
    from deltalake import DeltaTable  # noqa: PLC0415 - heavy

    catalog, schema, name = part.name
    defaults = (
        ("datafusion.catalog.default_catalog", catalog),
        ("datafusion.catalog.default_schema", schema),
    )
    settings = (*part.settings, *((key, value) for key, value in defaults if value is not None))
    ctx = _session(settings)
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "_delta_log")
        log.mkdir()
        (log / f"{0:020d}.json").write_text(part.log)
        unpatched(ctx, "register_table")(_quoted(name), DeltaTable(folder))
    frame = unpatched(ctx, "table")(".".join(_quoted(each) for each in part.name if each))
    return ctx, _with_steps(frame, part.steps)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _with_steps(frame: DataFrame, steps: Sequence[_Step]) -> DataFrame:
    from datafusion import Expr  # noqa: PLC0415 - heavy

    for step in steps:
        expressions = [Expr.from_bytes(content) for content in step.expressions]
        if step.kind == "filter":
            frame = unpatched(frame, "filter")(*expressions)
        elif step.kind == "project":
            frame = unpatched(frame, "select")(*expressions)
        elif step.kind == "columns":
            frame = unpatched(frame, "select")(*map(frame.col, step.names))
        else:
            frame = unpatched(frame, "alias")(*step.names)
    return frame


def _split_delta(
    plan: Any, steps: list[_Step], entries: list[Registered], settings: Settings, count: int
) -> list[DeltaPart]:
    from deltalake import DeltaTable  # noqa: PLC0415 - heavy

    scan = plan
    while scan.inputs():
        scan = scan.inputs()[0]
    entry = entries[0]
    path = local_path(entry.uri)
    if path is None:
        _refuse("the Delta table is not on a local or shared disk")
    table = DeltaTable(entry.uri, version=entry.version, storage_options=dict(entry.storage_options or {}))
    head = _head_of(table)
    name = _name_of(scan.to_variant())
    adds = _adds_of(table, str(path))
    parts = [
        DeltaPart("\n".join([*head, *group]), name, tuple(steps), settings)
        for group in _groups(adds, count)
    ]
    whole = DeltaPart("\n".join([*head, *(line for _, line in adds)]), name, tuple(steps), settings)
    rebuilt = _rebuilt(whole)
    if rebuilt is None or rebuilt.display_indent_schema() != plan.display_indent_schema():
        _refuse("its plan cannot be rebuilt")
    return parts


def _rebuilt(part: DeltaPart) -> Any:
    """Return the optimized plan of the query over a part; None if the engine cannot make it."""
    try:
        _, frame = _over_table(part)
        return unpatched(frame, "optimized_logical_plan")()
    except Exception:  # noqa: BLE001 - for example a name that the engine reads back differently
        return None


def _name_of(scan: Any) -> tuple[str | None, str | None, str]:
    catalog, schema, name = scan.fqn()
    return catalog, schema, name


def _head_of(table: DeltaTable) -> list[str]:
    """Return the protocol and metadata actions of a table.

    Raises:
        StatementError: the rows of the table are not only in the files of its add actions.
    """
    protocol, metadata = table.protocol(), table.metadata()
    features = {*(protocol.reader_features or ()), *(protocol.writer_features or ())}
    mapping = metadata.configuration.get("delta.columnMapping.mode", "none")
    if "deletionVectors" in features or mapping != "none":
        _refuse("the Delta table has deletion vectors or column mapping")
    requirements: dict[str, Any] = {
        "minReaderVersion": protocol.min_reader_version,
        "minWriterVersion": protocol.min_writer_version,
    }
    for key, names in (
        ("readerFeatures", protocol.reader_features),
        ("writerFeatures", protocol.writer_features),
    ):
        if names is not None:
            requirements[key] = names
    description = {
        "id": str(metadata.id),
        "format": {"provider": "parquet", "options": {}},
        "schemaString": table.schema().to_json(),
        "partitionColumns": metadata.partition_columns,
        "configuration": metadata.configuration,
    }
    return [json.dumps({"protocol": requirements}), json.dumps({"metaData": description})]


def _adds_of(table: DeltaTable, folder: str) -> list[tuple[int, str]]:
    """Return the size and the add action of each file, with absolute paths."""
    import pyarrow as pa  # noqa: PLC0415 - heavy

    kinds = {field.name: field.type for field in table.schema().fields}
    for column in table.metadata().partition_columns:
        if str(getattr(kinds[column], "type", "")) not in _PARTITION_TYPES:
            _refuse(f"the partition column {column!r} has a type whose values have several spellings")
    found = []
    for row in pa.table(table.get_add_actions()).to_pylist():
        values = row.get("partition") or {}
        add = {
            "path": Path(folder, row["path"]).as_uri(),
            "size": row["size_bytes"],
            "partitionValues": {
                key: None if value is None else str(value) for key, value in values.items()
            },
            "modificationTime": row["modification_time"],
            "dataChange": True,
        }
        found.append((row["size_bytes"], json.dumps({"add": add})))
    return found


def _groups(adds: list[tuple[int, str]], count: int) -> list[list[str]]:
    """Distribute files over groups of similar size; a table without files has one group."""
    groups: list[tuple[int, list[str]]] = [(0, []) for _ in range(max(1, min(count, len(adds))))]
    for size, line in sorted(adds, reverse=True):
        smallest = min(range(len(groups)), key=lambda at: groups[at][0])
        groups[smallest] = groups[smallest][0] + size, [*groups[smallest][1], line]
    return [lines for _, lines in groups]
