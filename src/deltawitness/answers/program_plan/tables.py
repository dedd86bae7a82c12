"""Compare the clones of a planned program with the tables that they were made of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from deltawitness.answers.diff.operations import operations_between
from deltawitness.answers.diff.table_values import ColumnChange, DiffChange, FileChanges, TableDiff
from deltawitness.answers.diff.tables import DiffOptions, diff_tables
from deltawitness.answers.diff.versions import columns_of, open_version
from deltawitness.answers.lookup import NamedTable
from deltawitness.answers.program_plan.values import PlannedState, PlannedTable
from deltawitness.answers.storage import error_reason
from deltawitness.clones.clone import last_commit, link_files
from deltawitness.clones.folder import Clone
from deltawitness.exceptions import DiffError
from deltawitness.ledger.tables.listing import LedgerListing
from deltawitness.locations import canonical_uri, last_segment, table_id
from deltawitness.settings import Settings

__all__ = ["has_changed", "planned_table"]


def planned_table(
    clone: Clone, options: DiffOptions, ledger: LedgerListing, settings: Settings
) -> PlannedTable:
    """Return what a program has done with a clone.

    Args:
        clone: the clone, after the program has ended.
        options: what to compare.
        ledger: a ledger, which may have no tables.
        settings: as for a comparison.
    """
    after, _ = last_commit(Path(clone.place))
    table = PlannedTable(
        name=last_segment(clone.uri) or "table",
        uri=clone.uri,
        table_id=table_id(clone.uri),
        state=_state(clone.version, after),
        version=clone.version,
        commit_hash=clone.digest,
        planned_version=after,
    )
    try:
        if table.state is PlannedState.CREATE:
            return _created(table, clone, ledger, settings)
        if table.state is PlannedState.CHANGE:
            return _changed(table, clone, options, ledger, settings)
    except Exception as error:  # noqa: BLE001 - the engines raise errors of many types
        return replace(table, problem=error_reason(error))
    return table


def _state(before: int | None, after: int | None) -> PlannedState:
    if before is None:
        return PlannedState.ABSENT if after is None else PlannedState.CREATE
    return PlannedState.READ if after == before else PlannedState.CHANGE


def _named(clone: Clone, version: int | None) -> NamedTable:
    uri = canonical_uri(clone.place)
    return NamedTable(uri, clone.place, version, last_segment(clone.uri) or "table")


def _created(
    table: PlannedTable, clone: Clone, ledger: LedgerListing, settings: Settings
) -> PlannedTable:
    named = _named(clone, table.planned_version)
    opened = open_version(named, settings)
    columns = tuple(
        ColumnChange(name, DiffChange.ADDED, None, kind, None, is_nullable)
        for name, (kind, is_nullable) in columns_of(opened).items()
    )
    sizes = [size for size, _ in opened.files.values()]
    return replace(
        table,
        operations=operations_between(ledger, named, -1, table.planned_version or 0, settings),
        columns=columns,
        partition_columns=tuple(opened.table.metadata().partition_columns),
        rows_after=opened.rows,
        files=FileChanges(len(sizes), 0, 0, sum(sizes), 0),
    )


def _changed(
    table: PlannedTable,
    clone: Clone,
    options: DiffOptions,
    ledger: LedgerListing,
    settings: Settings,
) -> PlannedTable:
    link_files(Path(clone.path), Path(clone.place))  # a planned vacuum may have deleted links
    a, b = _named(clone, table.version), _named(clone, table.planned_version)
    found, problem = _diff(a, b, options, ledger, settings)
    return replace(
        table,
        problem=problem,
        operations=found.operations,
        columns=found.columns,
        partition_columns=_partition_columns(found),
        properties=found.properties,
        rows_before=found.rows_a,
        rows_after=found.rows_b,
        files=found.files,
        rows=found.rows,
    )


def _diff(
    a: NamedTable, b: NamedTable, options: DiffOptions, ledger: LedgerListing, settings: Settings
) -> tuple[TableDiff, str | None]:
    """Return what differs, and why rows were compared without the key or not at all."""
    if options.key and not _has_key(a, options.key, settings):
        options = replace(options, key=())  # the key is that of other tables
    problem: DiffError | None = None
    for each in (options, replace(options, key=()), replace(options, key=(), rows=False)):
        try:
            found = diff_tables(ledger, a, b, each, settings)
        except DiffError as error:
            problem = problem or error
            continue
        return found, None if problem is None else str(problem)
    assert problem is not None
    raise problem


def _has_key(named: NamedTable, key: tuple[str, ...], settings: Settings) -> bool:
    return columns_of(open_version(named, settings)).keys() >= set(key)


def _partition_columns(found: TableDiff) -> tuple[str, ...] | None:
    is_same = found.partition_columns_a == found.partition_columns_b
    return None if is_same else found.partition_columns_b


def has_changed(clone: Clone) -> bool:
    """Return whether the table of a clone has other commits than when it was cloned."""
    return last_commit(Path(clone.path)) != (clone.version, clone.digest)
