"""The graph of the columns that columns of a version of a table were made from, or that were made from them."""

from __future__ import annotations

from dataclasses import dataclass

from deltawitness.answers.lineage_graph import LineageDirection
from deltawitness.answers.rows import TableVersion
from deltawitness.column_sources import ColumnUse
from deltawitness.html_display import HtmlDisplay

__all__ = ["ColumnEdge", "ColumnLineage", "RowsEdge", "TableColumn", "UnknownColumns"]


@dataclass(frozen=True, slots=True)
class TableColumn:
    """A column of a version of a table.

    Attributes:
        table: the table. Its version, location and id are None for a table that is no Delta table.
        column: name of the column.
    """

    table: TableVersion
    column: str

    def __str__(self) -> str:
        return f"{self.table}.{self.column}"


@dataclass(frozen=True, slots=True)
class ColumnEdge:
    """A column that the values of another one come from.

    Attributes:
        source: the column that was read.
        target: the column that was written.
        use: `identity`, `transformation`, `aggregation` or `condition`.
        is_history: whether `source` is the same column of the version on which the write was made.
    """

    source: TableColumn
    target: TableColumn
    use: ColumnUse
    is_history: bool = False


@dataclass(frozen=True, slots=True)
class RowsEdge:
    """A column that decided which rows a write has written.

    Attributes:
        source: the column that was read.
        target: the version that was written.
        use: `filter`, `join`, `group` or `sort`.
    """

    source: TableColumn
    target: TableVersion
    use: ColumnUse


@dataclass(frozen=True, slots=True)
class UnknownColumns:
    """Columns of which the ledger does not have the sources.

    Attributes:
        table: the version that was written.
        column: the column; None for all columns of the version.
        reason: why.
    """

    table: TableVersion
    column: str | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnLineage(HtmlDisplay):
    """The columns that columns of a version were made from, or that were made from them.

    Attributes:
        requested: the table and the version that were requested.
        first: the version whose columns are followed: the requested one, or the one before it if the
            requested one changed no row.
        direction: `up` for what the columns were made from, `down` for what was made from them.
        depth: maximum number of writes between a requested column and another one.
        has_history: whether earlier (up) or later (down) versions of each table are included.
        columns: each column once, first those of the requested version.
        edges: from which columns the values of a column come.
        rows: which columns decided about rows.
        unknown: versions and columns whose sources are not known, with the reason.
        cut: versions whose edges are left out because of the depth or the size.
    """

    requested: TableVersion
    first: TableVersion
    direction: LineageDirection
    depth: int
    has_history: bool
    columns: tuple[TableColumn, ...]
    edges: tuple[ColumnEdge, ...]
    rows: tuple[RowsEdge, ...]
    unknown: tuple[UnknownColumns, ...]
    cut: tuple[TableVersion, ...]
