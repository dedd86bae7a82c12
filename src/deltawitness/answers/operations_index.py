"""The operations of a ledger and their inputs as arrays of numbers.

Table ids are replaced by their places in a list; about 50 bytes for an operation are in memory.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

from deltawitness.answers.committed_writes import Key
from deltawitness.answers.lineage_graph import EdgeKind

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Changes", "OperationsIndex", "Pair", "number", "numbers"]

_VERSION_BITS = 40
_VERSIONS = 1 << _VERSION_BITS
_NEVER = 1 << 62
_EPOCH = datetime.fromtimestamp(0, tz=UTC)


@dataclass(frozen=True, slots=True)
class Pair:
    """A table that has read another one.

    Attributes:
        table: id of the table.
        read: id of the table that it has read.
        first_version: its first version with such a read.
        read_by: its last version with such a read.
    """

    table: str
    read: str
    first_version: int
    read_by: int


@dataclass(frozen=True, slots=True)
class Changes:
    """When a table has changed.

    Attributes:
        newest: its newest version that may have other rows than the one before; else the newest one.
        changed: the newest version that changed rows; None if there is none.
        replaced: the newest version that replaced all rows; None if there is none.
    """

    newest: int
    changed: int | None
    replaced: int | None


@dataclass
class OperationsIndex:
    """The inputs of operations.

    Attributes:
        ids: the place of each table id.
        operations: a row for each operation: `table`, `version`, and further columns.
        reads: a row for each input: those of its operation, `read`, `read_version` and `is_exact`.
    """

    ids: dict[str, int]
    operations: pa.Table
    reads: pa.Table
    _names: list[str] = field(init=False)

    def __post_init__(self) -> None:
        self._names = list(self.ids)

    @cached_property
    def _read_keys(self) -> pa.ChunkedArray:
        """The table and the version of each read as one number."""
        import pyarrow.compute as pc  # noqa: PLC0415 - heavy

        tables = pc.multiply(self.reads["read"], number(_VERSIONS))
        return pc.add(tables, self.reads["read_version"])

    def readers(self, keys: Iterable[Key]) -> list[tuple[Key, Key, EdgeKind]]:
        """Return the operations that have read versions: each with the version and how that is known.

        Args:
            keys: the versions.
        """
        import pyarrow.compute as pc  # noqa: PLC0415 - heavy

        wanted = [
            self.ids[table] * _VERSIONS + version for table, version in keys if table in self.ids
        ]
        is_wanted = pc.is_in(self._read_keys, value_set=numbers(wanted))
        found = self.reads.take(pc.indices_nonzero(is_wanted))
        columns = ("table", "version", "read", "read_version", "is_exact")
        rows = zip(*(found[name].to_pylist() for name in columns), strict=True)
        return sorted(
            (
                (self._names[table], version),
                (self._names[read], read_version),
                EdgeKind.EXACT if is_exact else EdgeKind.INFERRED,
            )
            for table, version, read, read_version, is_exact in rows
            if table is not None and version is not None
        )

    # --- pairs of tables -------------------------------------------------------------------------

    @cached_property
    def _reads_of_others(self) -> pa.Table:
        import pyarrow.compute as pc  # noqa: PLC0415 - heavy

        reads = self.reads
        is_other = pc.not_equal(reads["table"], reads["read"])
        is_known = pc.and_(reads["version"].is_valid(), reads["read_version"].is_valid())
        return reads.filter(pc.and_(pc.and_(is_other, is_known), reads["writes"]))

    def pairs(self, tables: Mapping[str, int]) -> list[Pair]:
        """Return the tables that have read some tables, from some versions on.

        Args:
            tables: the first version that counts of each table that was read, by its id.
        """
        reads = self._reads_of_others
        first = self._by_table(tables, reads["read"])
        found = _filtered(reads, "greater_equal", "read_version", first)
        rows = _grouped(found, ("table", "read"), [("version", "min"), ("version", "max")])
        return sorted(
            (
                Pair(
                    self._names[row["table"]],
                    self._names[row["read"]],
                    row["version_min"],
                    row["version_max"],
                )
                for row in rows
            ),
            key=lambda pair: (pair.table, pair.read),
        )

    def _by_table(self, values: Mapping[str, int], tables: pa.ChunkedArray) -> pa.ChunkedArray:
        """Return for each row the value of its table; more than any version for other tables."""
        import pyarrow as pa  # noqa: PLC0415 - heavy

        by_place = [values.get(name, _NEVER) for name in self._names] or [_NEVER]
        return pa.chunked_array([numbers(by_place)]).take(tables)

    # --- changes of tables -----------------------------------------------------------------------

    def changes(self, tables: Iterable[str]) -> dict[str, Changes]:
        """Return when tables have changed, by their ids."""
        import pyarrow.compute as pc  # noqa: PLC0415 - heavy

        rows = self.operations.filter(self.operations["committed"])
        newest = self._last_versions(rows)
        with_rows = self._last_versions(rows.filter(pc.invert(rows["keeps"])))
        changed = self._last_versions(rows.filter(rows["changes"]))
        replaced = self._last_versions(rows.filter(rows["replaces"]))
        return {
            table: Changes(
                with_rows.get(table, newest[table]), changed.get(table), replaced.get(table)
            )
            for table in tables
            if table in newest
        }

    def _last_versions(self, rows: pa.Table) -> dict[str, int]:
        found = _grouped(rows, ("table",), [("version", "max")])
        return {self._names[row["table"]]: row["version_max"] for row in found}

    def changed_since(self, keys: Iterable[Key]) -> dict[Key, datetime]:
        """Return when rows of tables changed first after versions; no value where they have not changed."""
        wanted: dict[str, list[int]] = {}
        for table, version in keys:
            wanted.setdefault(table, []).append(version)
        rows = self.operations.filter(self.operations["committed"])
        rows = rows.filter(rows["changes"])
        oldest = {table: min(versions) for table, versions in wanted.items()}
        after = self._by_table(oldest, rows["table"])
        later = _filtered(rows, "greater", "version", after)
        columns = (later[name].to_pylist() for name in ("table", "version", "time"))
        changes: dict[str, list[tuple[int, int]]] = {}
        for table, version, time in zip(*columns, strict=True):
            if time is not None:
                changes.setdefault(self._names[table], []).append((version, time))
        return {
            (table, version): _EPOCH + timedelta(microseconds=micros)
            for table, found in changes.items()
            for version, micros in _first_times(found, wanted[table])
        }


def _first_times(
    changes: list[tuple[int, int]], versions: Iterable[int]
) -> Iterator[tuple[int, int]]:
    """Yield versions with the least time of a change after each one.

    >>> list(_first_times([(2, 20), (4, 40), (3, 30)], [3, 2, 4]))
    [(3, 40), (2, 30)]
    """
    changes = sorted(changes)
    earliest: int | None = None
    for version in sorted(set(versions), reverse=True):
        while changes and changes[-1][0] > version:
            time = changes.pop()[1]
            earliest = time if earliest is None else min(earliest, time)
        if earliest is not None:
            yield version, earliest


def _filtered(table: pa.Table, compare: str, column: str, bound: pa.ChunkedArray) -> pa.Table:
    import pyarrow.compute as pc  # noqa: PLC0415 - heavy

    return table.filter(pc.call_function(compare, [table[column], bound]))


def _grouped(
    table: pa.Table, keys: tuple[str, ...], wanted: list[tuple[str, str]]
) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = table.group_by(list(keys)).aggregate(wanted).to_pylist()
    return found


def number(value: int) -> pa.Scalar:
    """Return a scalar; `pa.scalar` would import pandas if it is installed, in a quarter of a second."""
    return numbers([value])[0]


def numbers(values: list[int]) -> pa.Array:
    """Return an array of integers; `pa.array` would import pandas."""
    import pyarrow as pa  # noqa: PLC0415 - heavy

    content = pa.py_buffer(array("q", values))
    return pa.Array.from_buffers(pa.int64(), len(values), [None, content])
