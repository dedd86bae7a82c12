"""Open versions of tables for a comparison, and compare what the log has about them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from deltawitness.answers.diff.table_values import (
    ColumnChange,
    DiffChange,
    FileChanges,
    PropertyChange,
)
from deltawitness.answers.lookup import NamedTable
from deltawitness.answers.rows import TableVersion
from deltawitness.answers.storage import error_reason, storage_options_for
from deltawitness.commit.log import open_log
from deltawitness.exceptions import DiffError
from deltawitness.locations import table_id
from deltawitness.run import suppressed
from deltawitness.settings import Settings

if TYPE_CHECKING:
    from deltalake import DeltaTable

__all__ = [
    "OpenVersion",
    "column_changes",
    "columns_of",
    "file_changes",
    "last_data_versions",
    "open_version",
    "property_changes",
]

_PLAIN_FEATURES = frozenset({"timestampNtz", "v2Checkpoint", "vacuumProtocolCheck"})
"""Reader features that do not change which rows and columns a data file has."""

_DATA_CHANGE = b'"dataChange":true'


@dataclass(frozen=True, slots=True)
class OpenVersion:
    """A version of a table.

    Attributes:
        name: the table and the version.
        table: the table, open at this version.
        files: size in bytes and number of rows of each data file, by path; the number is None if the log
            does not have it.
        is_plain: whether the rows of the table are those of its data files: no deletion vectors, mapped
            columns or other features that change how a file is read.
    """

    name: TableVersion
    table: DeltaTable
    files: Mapping[str, tuple[int, int | None]]
    is_plain: bool

    @property
    def rows(self) -> int | None:
        """The number of rows that the log has; None if it does not have that of each file."""
        counts = [rows for _, rows in self.files.values()]
        if not self.is_plain or any(rows is None for rows in counts):
            return None
        return sum(rows or 0 for rows in counts)

    @property
    def incarnation(self) -> tuple[str | None, str]:
        """The location and the id of the table; a table that was created again has another id."""
        return self.name.uri, str(self.table.metadata().id)


def open_version(named: NamedTable, settings: Settings) -> OpenVersion:
    """Open a version of a table.

    Args:
        named: the table and the version; the last one if it names none.
        settings: the storage options of a remote table.

    Raises:
        DiffError: the version cannot be read.
    """
    import pyarrow as pa  # noqa: PLC0415 - heavy
    from deltalake import DeltaTable  # noqa: PLC0415 - heavy

    options = storage_options_for(named.location, settings)
    try:
        with suppressed():
            table = DeltaTable(named.location, version=named.version, storage_options=options)
            actions = pa.table(table.get_add_actions())
            plain = _is_plain(table)
    except Exception as error:
        raise _unreadable(named, error) from error
    # A release without statistics of any file has no column of their numbers of rows.
    absent = [None] * actions.num_rows
    columns = (
        actions[name].to_pylist() if name in actions.column_names else absent
        for name in ("path", "size_bytes", "num_records")
    )
    files = {path: (size, rows) for path, size, rows in zip(*columns, strict=True)}
    name = TableVersion(table.version(), named.name, named.uri, table_id(named.uri))
    return OpenVersion(name, table, files, plain)


def _is_plain(table: DeltaTable) -> bool:
    mapping = table.metadata().configuration.get("delta.columnMapping.mode", "none")
    return mapping == "none" and _PLAIN_FEATURES.issuperset(table.protocol().reader_features or ())


def _unreadable(named: NamedTable, error: Exception) -> DiffError:
    version = "" if named.version is None else f"@{named.version}"
    msg = f"{named.name}{version} cannot be read: {error_reason(error)}"
    return DiffError(msg)


def last_data_versions(named: NamedTable, settings: Settings) -> tuple[NamedTable, NamedTable]:
    """Return the two versions to compare for a table that is named alone.

    Args:
        named: the table. With a version, the result is the version before it and this one. Without, the
            last two versions that added or removed data.
        settings: the storage options of a remote table.

    Raises:
        DiffError: there are no two such versions.
    """
    if named.version is not None:
        if named.version == 0:
            msg = f"{named.name}@0 is the first version: nothing is before it"
            raise DiffError(msg)
        return replace(named, version=named.version - 1), named
    log = open_log(named.location, storage_options_for(named.location, settings))
    found: list[int] = []
    for version in reversed(log.versions()):
        if _DATA_CHANGE in (log.read(version) or b"").replace(b" ", b""):
            found.append(version)
            if len(found) == 2:  # noqa: PLR2004 - two versions are compared
                return replace(named, version=found[1]), replace(named, version=found[0])
    msg = f"{named.name}: its log does not have two versions that changed rows"
    raise DiffError(msg)


# --- what the log has --------------------------------------------------------------------------------


def column_changes(a: OpenVersion, b: OpenVersion) -> tuple[ColumnChange, ...]:
    """Return the columns that differ: removed and changed ones in the order of the first version."""
    left, right = columns_of(a), columns_of(b)
    changes = []
    for name in {**left, **right}:
        before, after = left.get(name), right.get(name)
        if before == after:
            continue
        kind = DiffChange.ADDED if before is None else DiffChange.CHANGED
        kind = DiffChange.REMOVED if after is None else kind
        type_a, nullable_a = before or (None, None)
        type_b, nullable_b = after or (None, None)
        changes.append(ColumnChange(name, kind, type_a, type_b, nullable_a, nullable_b))
    return tuple(changes)


def columns_of(version: OpenVersion) -> dict[str, tuple[str, bool]]:
    """Return the type of each column as Delta names it, and whether it may be NULL, by name."""
    return {
        each.name: (_type_name(each.type), each.nullable) for each in version.table.schema().fields
    }


def _type_name(kind: Any) -> str:
    """Return a type as Delta names it, such as `long` or `struct<x: long not null>`."""
    name = type(kind).__name__
    if name == "StructType":
        inner = (
            f"{each.name}: {_type_name(each.type)}{'' if each.nullable else ' not null'}"
            for each in kind.fields
        )
        return f"struct<{', '.join(inner)}>"
    if name == "ArrayType":
        end = "" if kind.contains_null else " not null"
        return f"array<{_type_name(kind.element_type)}{end}>"
    if name == "MapType":
        end = "" if kind.value_contains_null else " not null"
        return f"map<{_type_name(kind.key_type)}, {_type_name(kind.value_type)}{end}>"
    return str(kind.type)


def property_changes(a: OpenVersion, b: OpenVersion) -> tuple[PropertyChange, ...]:
    """Return the table properties that differ, by name."""
    left, right = a.table.metadata().configuration, b.table.metadata().configuration
    return tuple(
        PropertyChange(name, left.get(name), right.get(name))
        for name in sorted({*left, *right})
        if left.get(name) != right.get(name)
    )


def file_changes(a: OpenVersion, b: OpenVersion) -> FileChanges:
    """Return the numbers and sizes of the files that differ."""
    shared = set(a.files) & set(b.files) if a.incarnation == b.incarnation else set()
    removed, added = set(a.files) - shared, set(b.files) - shared
    return FileChanges(
        len(added),
        len(removed),
        len(shared),
        sum(b.files[path][0] for path in added),
        sum(a.files[path][0] for path in removed),
    )
