"""Compare two versions of a table, or of two tables."""

from __future__ import annotations

from dataclasses import dataclass, replace

from deltawitness.answers.diff.operations import operations_between
from deltawitness.answers.diff.rows import compare_rows
from deltawitness.answers.diff.sources import RowOptions, open_sources
from deltawitness.answers.diff.statistics import column_statistics
from deltawitness.answers.diff.table_values import TableDiff
from deltawitness.answers.diff.versions import (
    OpenVersion,
    column_changes,
    file_changes,
    open_version,
    property_changes,
)
from deltawitness.answers.lookup import NamedTable
from deltawitness.extras import require
from deltawitness.ledger.tables.listing import LedgerListing
from deltawitness.settings import Settings

__all__ = ["DiffOptions", "diff_tables"]

TWO_TABLES = "the two tables are different tables: operations are not listed"
RECREATED = "the table was created again between the two versions: all files are compared"


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffOptions:
    """What is compared.

    Attributes:
        key: the columns that identify a row; empty to compare complete rows as multisets.
        rows: whether rows are compared; needs DataFusion.
        statistics: whether the columns of both versions are summarized; needs DataFusion.
        limit: maximum number of examples of each kind of change.
        show_rows: whether values of rows are returned.
    """

    key: tuple[str, ...] = ()
    rows: bool = True
    statistics: bool = False
    limit: int = 10
    show_rows: bool = False


def diff_tables(
    ledger: LedgerListing, a: NamedTable, b: NamedTable, options: DiffOptions, settings: Settings
) -> TableDiff:
    """Return what differs between two versions.

    Args:
        ledger: the ledger to query; it may have no tables.
        a: the first table and version; the last version if it names none.
        b: the second table and version, likewise.
        options: what to compare.
        settings: the storage options of remote tables.

    Raises:
        DiffError: a version cannot be read, or the key does not identify rows.
        MissingExtraError: DataFusion is not installed, and rows are to be compared.
        OSError: the log or the ledger cannot be read.
    """
    if options.rows or options.statistics:
        require("diff of rows", "datafusion")
    left, right = open_version(a, settings), open_version(b, settings)
    found = _diff_logs(ledger, a, (left, right), settings)
    if not (options.rows or options.statistics):
        return found
    return _with_rows(found, (left, right), options)


def _diff_logs(
    ledger: LedgerListing,
    named: NamedTable,
    both: tuple[OpenVersion, OpenVersion],
    settings: Settings,
) -> TableDiff:
    a, b = both
    notes = []
    if a.name.uri != b.name.uri:
        notes.append(TWO_TABLES)
    elif a.incarnation != b.incarnation:
        notes.append(RECREATED)
    first, last = sorted((a.table.version(), b.table.version()))
    is_same_table = a.name.uri == b.name.uri
    return TableDiff(
        a=a.name,
        b=b.name,
        operations=operations_between(ledger, named, first, last, settings)
        if is_same_table
        else (),
        columns=column_changes(a, b),
        partition_columns_a=tuple(a.table.metadata().partition_columns),
        partition_columns_b=tuple(b.table.metadata().partition_columns),
        properties=property_changes(a, b),
        rows_a=a.rows,
        rows_b=b.rows,
        files=file_changes(a, b),
        notes=tuple(notes),
    )


def _with_rows(
    found: TableDiff, both: tuple[OpenVersion, OpenVersion], options: DiffOptions
) -> TableDiff:
    sources = open_sources(*both)
    if options.rows:
        chosen = RowOptions(options.key, options.limit, options.show_rows)
        names = str(found.a), str(found.b)
        found = replace(found, rows=compare_rows(sources, chosen, names))
    if options.statistics:
        summary = column_statistics(sources, show_rows=options.show_rows)
        found = replace(found, statistics=summary)
    return found
