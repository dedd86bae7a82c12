"""Split a query over a Delta table: each part opens a table that has some of the files.

The engine cannot serialize the scan of a Delta table. A part has a log with the add actions of its files,
by their absolute paths, and applies the same expressions to the table of that log. The same is done once
with all files: the query cannot be split unless its optimized plan is then the original one.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deltawitness.commit.log import LOG_DIRECTORY, commit_file
from deltawitness.distributed.target import table_actions
from deltawitness.locations import local_path
from deltawitness.session.core.snapshot import Registered
from deltawitness.session.core.unpatched import unpatched
from deltawitness.session.sql.plan_steps import (
    SettingValues,
    Step,
    refuse,
    session_with,
    stream_of,
    with_steps,
)
from deltawitness.sql_quoting import quote_identifier

if TYPE_CHECKING:
    import pyarrow as pa
    from datafusion import DataFrame, SessionContext
    from deltalake import DeltaTable

__all__ = ["DeltaPart", "split_delta"]

_PARTITION_TYPES = frozenset({"string", "byte", "short", "integer", "long", "date"})
"""Types of partition columns whose values are written to the log as their text."""


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
    steps: tuple[Step, ...]
    settings: SettingValues

    def __call__(self) -> pa.RecordBatchReader:
        """Execute the query and return its rows as a stream."""
        ctx, frame = _over_table(self)
        return stream_of(ctx, frame.schema(), unpatched(frame, "execute_stream")())


def _over_table(part: DeltaPart) -> tuple[SessionContext, DataFrame]:
    """Return a session and the query over a table with the files of a part; its log is read at once."""
    from deltalake import DeltaTable  # noqa: PLC0415 - heavy

    catalog, schema, name = part.name
    defaults = (
        ("datafusion.catalog.default_catalog", catalog),
        ("datafusion.catalog.default_schema", schema),
    )
    settings = (*part.settings, *((key, value) for key, value in defaults if value is not None))
    ctx = session_with(settings)
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, LOG_DIRECTORY)
        log.mkdir()
        (log / commit_file(0)).write_bytes(part.log.encode())
        unpatched(ctx, "register_table")(quote_identifier(name), DeltaTable(folder))
    frame = unpatched(ctx, "table")(quote_identifier(*filter(None, part.name)))
    return ctx, with_steps(frame, part.steps)


def split_delta(
    plan: Any, steps: list[Step], entries: list[Registered], settings: SettingValues, count: int
) -> list[DeltaPart]:
    """Return parts that each read some files of a Delta table, at the version that the session serves.

    Args:
        plan: the optimized plan.
        steps: its nodes.
        entries: the Delta tables in the plan.
        settings: settings of the session.
        count: maximum number of parts.

    Raises:
        StatementError: the table cannot be read by its files, or the plan cannot be repeated.
    """
    from deltalake import DeltaTable  # noqa: PLC0415 - heavy

    scan = plan
    while scan.inputs():
        scan = scan.inputs()[0]
    entry, name = entries[0], _name_of(scan.to_variant())
    if len(entries) > 1 or entry.name.table != name[-1]:
        refuse("the plan reads several Delta tables")
    path = local_path(entry.uri)
    if path is None:
        refuse("the Delta table is not on a local or shared disk")
    table = DeltaTable(
        entry.uri, version=entry.version, storage_options=dict(entry.storage_options or {})
    )
    head = _head_of(table)
    adds = _adds_of(table, str(path))
    parts = [
        DeltaPart("\n".join([*head, *group]), name, tuple(steps), settings)
        for group in _groups(adds, count)
    ]
    complete = DeltaPart(
        "\n".join([*head, *(line for _, line in adds)]), name, tuple(steps), settings
    )
    rebuilt = _rebuilt(complete)
    if rebuilt is None or rebuilt.display_indent_schema() != plan.display_indent_schema():
        refuse("its plan cannot be rebuilt")
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
        refuse("the Delta table has deletion vectors or column mapping")
    return table_actions(table)


def _adds_of(table: DeltaTable, folder: str) -> list[tuple[int, str]]:
    """Return the size and the add action of each file, with absolute paths."""
    import pyarrow as pa  # noqa: PLC0415 - heavy

    kinds = {field.name: field.type for field in table.schema().fields}
    for column in table.metadata().partition_columns:
        if str(getattr(kinds[column], "type", "")) not in _PARTITION_TYPES:
            refuse(
                f"the partition column {column!r} has a type whose values have several spellings"
            )
    base, found = Path(folder).as_uri(), []
    for row in pa.table(table.get_add_actions()).to_pylist():
        values = row.get("partition") or {}
        add = {
            "path": f"{base}/{row['path']}",
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
