"""The value of a comparison of two versions of tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from deltawitness.answers.rows import TableVersion
from deltawitness.html_display import HtmlDisplay

__all__ = [
    "ColumnChange",
    "ColumnStatistics",
    "DiffChange",
    "DiffOperation",
    "FileChanges",
    "PropertyChange",
    "RowChanges",
    "RowExample",
    "TableDiff",
]


class DiffChange(StrEnum):
    """How something differs between the first and the second of two versions."""

    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffOperation:
    """An operation between two versions of a table.

    Attributes:
        version: the version that it committed.
        time: time of the commit.
        operation: the engine's operation.
        mode: save mode.
        predicate: the predicate of the operation.
        run_id: id of the run; None for a commit that nothing observed.
        job: name of the job.
        message: why it was made.
        rows_added: number of added rows; None if the log does not say.
        rows_updated: number of updated rows; None if the log does not say.
        rows_deleted: number of deleted rows; None if the log does not say.
        in_log: whether the table's log has the commit; else the values are those of the ledger.
    """

    version: int
    time: datetime | None = None
    operation: str | None = None
    mode: str | None = None
    predicate: str | None = None
    run_id: str | None = None
    job: str | None = None
    message: str | None = None
    rows_added: int | None = None
    rows_updated: int | None = None
    rows_deleted: int | None = None
    in_log: bool = True


@dataclass(frozen=True, slots=True)
class ColumnChange:
    """A column that only one version has, or that has another type or nullability.

    Attributes:
        name: name of the column.
        change: `added`, `removed` or `changed`.
        type_a: its type in the first version; None if it is not there.
        type_b: its type in the second version; None if it is not there.
        nullable_a: whether it may be NULL in the first version.
        nullable_b: whether it may be NULL in the second version.
    """

    name: str
    change: DiffChange
    type_a: str | None
    type_b: str | None
    nullable_a: bool | None
    nullable_b: bool | None


@dataclass(frozen=True, slots=True)
class PropertyChange:
    """A table property with different values.

    Attributes:
        name: name of the property.
        a: its value in the first version; None if it is not set.
        b: its value in the second version; None if it is not set.
    """

    name: str
    a: str | None
    b: str | None


@dataclass(frozen=True, slots=True)
class FileChanges:
    """The data files of two versions.

    Attributes:
        added: number of files that only the second version has.
        removed: number of files that only the first version has.
        shared: number of files that both have.
        bytes_added: size of the added files in bytes.
        bytes_removed: size of the removed files in bytes.
    """

    added: int
    removed: int
    shared: int
    bytes_added: int
    bytes_removed: int


@dataclass(frozen=True, slots=True)
class RowExample:
    """A row that differs. Structs and maps are dictionaries, and lists are lists.

    Attributes:
        change: `added`, `removed` or `changed`.
        count: number of such rows; 1 when rows are compared by key.
        values: the columns of the key, or all compared columns when rows are compared without a key.
        before: the values of the changed columns in the first version.
        after: the values of the changed columns in the second version.
    """

    change: DiffChange
    count: int
    values: Mapping[str, Any]
    before: Mapping[str, Any] = field(default_factory=dict)
    after: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RowChanges:
    """The rows that differ, over the columns that both versions have.

    Attributes:
        key: the columns that identify a row; empty if complete rows were compared as multisets.
        added: number of rows that only the second version has.
        removed: number of rows that only the first version has.
        changed: number of rows with the same key and other values; None without a key.
        columns: number of changed rows by column, of the columns with changes; empty without a key.
        examples: examples in the order of their values, if they were requested.
    """

    key: tuple[str, ...]
    added: int
    removed: int
    changed: int | None = None
    columns: Mapping[str, int] = field(default_factory=dict)
    examples: tuple[RowExample, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnStatistics:
    """Statistics of a column in one version. Nested columns have only the first two.

    Attributes:
        rows: number of rows.
        nulls: number of NULLs.
        distinct: approximate number of distinct values.
        min: least value; that of text and binary columns is None unless rows may be shown.
        max: greatest value, likewise; NaN is greater than all numbers.
        sum: sum of a number column.
    """

    rows: int
    nulls: int
    distinct: int | None = None
    min: Any = None
    max: Any = None
    sum: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TableDiff(HtmlDisplay):
    """What differs between two versions of a table, or of two tables.

    Attributes:
        a: the first table and version.
        b: the second table and version.
        operations: the operations between the two versions in order; empty for two tables.
        columns: the columns that differ.
        partition_columns_a: the partition columns of the first version.
        partition_columns_b: the partition columns of the second version.
        properties: the table properties that differ.
        rows_a: number of rows of the first version; None if it is not known.
        rows_b: number of rows of the second version; None if it is not known.
        files: the data files that differ.
        rows: the rows that differ; None if they were not compared.
        statistics: for each column the statistics of both versions, if they were requested.
        notes: what a reader should know; one sentence each.
    """

    a: TableVersion
    b: TableVersion
    operations: tuple[DiffOperation, ...]
    columns: tuple[ColumnChange, ...]
    partition_columns_a: tuple[str, ...]
    partition_columns_b: tuple[str, ...]
    properties: tuple[PropertyChange, ...]
    rows_a: int | None
    rows_b: int | None
    files: FileChanges
    rows: RowChanges | None = None
    statistics: Mapping[str, tuple[ColumnStatistics | None, ColumnStatistics | None]] = field(
        default_factory=dict
    )
    notes: tuple[str, ...] = ()

    @property
    def is_different(self) -> bool:
        """Whether the schema, partition columns, properties or rows differ.

        The order of rows and the layout of files do not count. If rows were not compared, other files
        count as a difference.
        """
        if self.columns or self.properties:
            return True
        if self.partition_columns_a != self.partition_columns_b:
            return True
        rows = self.rows
        if rows is None:
            return bool(self.files.added or self.files.removed)
        return bool(rows.added or rows.removed or rows.changed)
