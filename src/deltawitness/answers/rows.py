"""Rows of the ledger as values: one class for operations, one for runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any, Self

from deltawitness.html_display import HtmlDisplay

__all__ = ["CountedOperation", "RunRow", "TableVersion", "WriteRow", "seconds_of_run"]

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class TableVersion:
    """A version of a table.

    Attributes:
        version: the version; None if it is not known.
        name: name of the table; None if it is not known.
        uri: location of the table, without credentials; None if only its id is known.
        table_id: id of the table (:func:`deltawitness.table_id`).
    """

    version: int | None
    name: str | None = None
    uri: str | None = None
    table_id: str | None = None

    def __str__(self) -> str:
        name = self.name or self.uri or self.table_id or "?"
        return name if self.version is None else f"{name}@{self.version}"


def seconds_of_run(
    start: datetime | None, end: datetime | None, status: str | None
) -> float | None:
    """Return how many seconds a run took; None if that is not known.

    The end of an abandoned run is when that was found, which may be days later. An end before the start
    means that the clock was set back.

    Args:
        start: when the run was opened.
        end: when it ended; None if it has not.
        status: its status.
    """
    if start is None or end is None or status == "abandoned" or end < start:
        return None
    return (end - start).total_seconds()


def _table_versions(value: Any) -> tuple[TableVersion, ...]:
    return tuple(
        TableVersion(each["version"], uri=each["uri"], table_id=each["table_id"])
        for each in value or ()
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteRow(HtmlDisplay):
    """An operation in the ledger; the attributes are the columns of the table `inventory`.

    The ledger's documentation describes them. None means that a value is not known or does not apply.
    """

    event_time: datetime | None = None
    run_id: str | None = None
    write_id: str | None = None
    trace_id: str | None = None
    span_id: str | None = None
    job: str | None = None
    operation: str | None = None
    cache_operation: str | None = None
    scope: str | None = None
    policy: str | None = None
    key: str | None = None
    result: str | None = None
    reason: str | None = None
    table_uri: str | None = None
    table_id: str | None = None
    table_name: str | None = None
    version: int | None = None
    versions: tuple[int, ...] = ()
    mode: str | None = None
    schema_hash: str | None = None
    plan_hash: str | None = None
    plan_shape_hash: str | None = None
    inputs: tuple[TableVersion, ...] = ()
    rows_added: int | None = None
    rows_updated: int | None = None
    rows_deleted: int | None = None
    rows_copied: int | None = None
    files_added: int | None = None
    files_removed: int | None = None
    bytes_added: int | None = None
    bytes_removed: int | None = None
    retries: int | None = None
    execution_ms: int | None = None
    duration_ms: float | None = None
    error_type: str | None = None
    exception_type: str | None = None
    error_message: str | None = None
    landed: str | None = None
    host: str | None = None
    pid: int | None = None
    thread: str | None = None
    engine: str | None = None
    deltalake_version: str | None = None
    datafusion_version: str | None = None
    witness_version: str | None = None
    source: str | None = None
    run_inputs: tuple[TableVersion, ...] = ()
    files_deleted: int | None = None
    bytes_deleted: int | None = None
    rows_served: int | None = None
    message: str | None = None
    code_file: str | None = None
    code_line: int | None = None
    code_function: str | None = None
    parts: int | None = None
    overhead_ms: float | None = None
    expectation_result: str | None = None
    expectations: str | None = None
    expectations_unmet: str | None = None
    column_lineage: str | None = None

    @classmethod
    def of(cls, row: Row) -> Self:
        """Return the value of a row; columns that this release does not know are left out."""
        values = {each.name: row[each.name] for each in fields(cls) if each.name in row}
        return cls(
            **{
                **values,
                "versions": tuple(row.get("versions") or ()),
                "inputs": _table_versions(row.get("inputs")),
                "run_inputs": _table_versions(row.get("run_inputs")),
            }
        )


@dataclass(frozen=True, slots=True)
class CountedOperation:
    """How many operations of a kind ended with a result.

    Attributes:
        operation: the operation, in the terms of the cache.
        result: `write`, `hit`, `miss`, `noop` or `error`.
        count: their number.
    """

    operation: str
    result: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRow(HtmlDisplay):
    """A run in the ledger, with the counts of its processes summed; the attributes are the columns of `runs`.

    The ledger's documentation describes them. The status is None for a run that has not ended.
    """

    run_id: str
    parent_run_id: str | None = None
    job: str | None = None
    start_time: datetime | None = None
    end_time: datetime | None = None
    status: str | None = None
    error_type: str | None = None
    reads: int | None = None
    hits: int | None = None
    misses: int | None = None
    writes: int | None = None
    snapshots: int | None = None
    noops: int | None = None
    errors: int | None = None
    operations: tuple[CountedOperation, ...] = ()
    rows_added: int | None = None
    rows_updated: int | None = None
    rows_deleted: int | None = None
    files_added: int | None = None
    files_removed: int | None = None
    bytes_added: int | None = None
    bytes_removed: int | None = None
    retries: int | None = None
    tables_touched: int | None = None
    table_ids: tuple[str, ...] = ()
    dropped: int | None = None
    cache_root: str | None = None
    host: str | None = None
    pid: int | None = None
    python_version: str | None = None
    deltalake_version: str | None = None
    datafusion_version: str | None = None
    witness_version: str | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)
    files_deleted: int | None = None
    bytes_deleted: int | None = None
    rows_served: int | None = None
    exit_code: int | None = None
    message: str | None = None
    author: str | None = None
    system: str | None = None
    pipeline: str | None = None
    pipeline_run_id: str | None = None
    task: str | None = None
    attempt: int | None = None
    code_version: str | None = None
    image: str | None = None
    pod: str | None = None
    link: str | None = None
    processes: int | None = None

    @classmethod
    def of(cls, row: Row) -> Self:
        """Return the value of a row; columns that this release does not know are left out."""
        values = {each.name: row[each.name] for each in fields(cls) if each.name in row}
        operations = tuple(CountedOperation(**each) for each in row.get("operations") or ())
        attributes = {each["name"]: each["value"] for each in row.get("attributes") or ()}
        lists = {"operations": operations, "attributes": attributes}
        return cls(**{**values, **lists, "table_ids": tuple(row.get("table_ids") or ())})
