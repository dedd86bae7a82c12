"""The operations of a ledger and their inputs as arrays of numbers.

Table ids are replaced by their places in a list; about 50 bytes for an operation are in memory.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING

from deltawitness.answers.committed_writes import Key
from deltawitness.answers.lineage_graph import EdgeKind
from deltawitness.answers.table_content import TableContent

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Changes", "OperationsIndex", "Pair", "number", "numbers"]

_VERSION_BITS = 40
_VERSIONS = 1 << _VERSION_BITS
_EPOCH = datetime.fromtimestamp(0, tz=UTC)


@dataclass(frozen=True, slots=True)
class Pair:
    """A table that has read another one.

    Attributes:
        table: id of the table.
        read: id of the table that it has read.
        first_version: its first version with such a read.
        read_by: its last version with such a read; of those on which its newest version was made, if there
            are any.
        is_undone: whether its newest version was made on no version with such a read, because of a RESTORE.
    """

    table: str
    read: str
    first_version: int
    read_by: int
    is_undone: bool = False


@dataclass(frozen=True, slots=True)
class Changes:
    """When a table has changed.

    Attributes:
        newest: its newest version that may have other rows than the one before; else the newest one.
        changed: the newest version that changed rows; None if there is none.
        replaced: the newest version that replaced all rows; None if there is none. Versions that a
            RESTORE has undone do not count.
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
    def _pairs(self) -> _Groups:
        """The reads of other tables by writes, by the tables of both."""
        import pyarrow.compute as pc  # noqa: PLC0415 - heavy

        reads = self.reads
        is_other = pc.not_equal(reads["table"], reads["read"])
        is_known = pc.and_(reads["version"].is_valid(), reads["read_version"].is_valid())
        reads = reads.filter(pc.and_(pc.and_(is_other, is_known), reads["writes"]))
        keys = pc.add(pc.multiply(reads["read"], number(len(self.ids))), reads["table"])
        return _Groups.of(reads.select(["version", "read_version"]), keys)

    @cached_property
    def _readers(self) -> dict[int, list[int]]:
        """The tables that have read a table."""
        found: dict[int, list[int]] = {}
        for key in self._pairs.spans:
            read, table = divmod(key, len(self.ids))
            found.setdefault(read, []).append(table)
        return found

    def pairs(self, tables: Mapping[str, int]) -> list[Pair]:
        """Return the tables that have read some tables, from some versions on.

        Args:
            tables: the first version that counts of each table that was read, by its id.
        """
        found = []
        for name, first in tables.items():
            read = self.ids.get(name, -1)
            for table in self._readers.get(read, ()):
                reads = self._pairs.get(read * len(self.ids) + table)
                versions = _range_of(reads, "read_version", first)
                if versions is not None:
                    pair = Pair(self._names[table], name, *versions)
                    found.append(self._without_undone(pair, reads, first))
        return sorted(found, key=lambda pair: (pair.table, pair.read))

    def _without_undone(self, pair: Pair, reads: pa.Table, first: int) -> Pair:
        """Return a pair without the reads that a RESTORE of the reader has undone, if others are left."""
        content = self._contents.get(pair.table)
        if content is None:
            return pair
        rows = zip(reads["version"].to_pylist(), reads["read_version"].to_pylist(), strict=True)
        current = content.current(version for version, was_read in rows if was_read >= first)
        if not current:
            return replace(pair, is_undone=True)
        return replace(pair, read_by=max(current))

    # --- changes of tables -----------------------------------------------------------------------

    @cached_property
    def _commits(self) -> _Groups:
        """The commits, by their tables."""
        rows = self.operations.filter(self.operations["committed"])
        return _Groups.of(rows, rows["table"])

    @cached_property
    def _contents(self) -> dict[str, TableContent]:
        """The versions of the tables that were restored, by their ids."""
        import pyarrow.compute as pc  # noqa: PLC0415 - heavy

        reads = self.reads
        is_own = pc.and_(pc.equal(reads["table"], reads["read"]), reads["restores"])
        is_earlier = pc.less(reads["read_version"], reads["version"])
        columns = ("table", "version", "read_version")
        own = reads.filter(pc.and_(is_own, is_earlier)).select(columns)
        restored: dict[int, dict[int, int]] = {}
        for table, version, was_read in zip(
            *(own[name].to_pylist() for name in columns), strict=True
        ):
            restored.setdefault(table, {})[version] = was_read
        found = {}
        for table, versions in restored.items():
            rows = self._commits.get(table)
            newest = _last(rows)
            if newest is not None:
                content = TableContent(newest, versions, _changed_or_unknown(rows, newest))
                found[self._names[table]] = content
        return found

    def changes(self, tables: Iterable[str]) -> dict[str, Changes]:
        """Return when tables have changed, by their ids."""
        import pyarrow.compute as pc  # noqa: PLC0415 - heavy

        found = {}
        for name in tables:
            rows = self._commits.get(self.ids.get(name, -1))
            if not rows.num_rows:
                continue
            newest = _last(rows.filter(pc.invert(rows["keeps"])))
            if newest is None:
                newest = _last(rows)
            assert newest is not None
            changed, replaced = (_last(rows.filter(rows[flag])) for flag in ("changes", "replaces"))
            content = self._contents.get(name)
            if content is not None:
                replacing = rows.filter(rows["replaces"])["version"].to_pylist()
                replaced = max(content.current(replacing), default=None)
            found[name] = Changes(newest, changed, replaced)
        return found

    def changed_since(self, keys: Iterable[Key]) -> dict[Key, datetime]:
        """Return when rows of tables changed first after versions.

        A version has no value where they have not changed, or where a RESTORE has made its content the newest.
        Where an earlier RESTORE has done that, only the changes after it count.
        """
        import pyarrow.compute as pc  # noqa: PLC0415 - heavy

        wanted: dict[str, list[int]] = {}
        for table, version in keys:
            wanted.setdefault(table, []).append(version)
        found = {}
        for table, versions in wanted.items():
            rows = self._commits.get(self.ids.get(table, -1))
            content = self._contents.get(table)
            equal = _last_equal(content, versions)
            if not equal:
                continue
            is_later = pc.greater(rows["version"], number(min(equal.values())))
            rows = rows.filter(pc.and_(pc.and_(rows["changes"], is_later), rows["time"].is_valid()))
            changes = list(zip(rows["version"].to_pylist(), rows["time"].to_pylist(), strict=True))
            times = dict(_first_times(changes, equal.values()))
            for version, last in equal.items():
                if last in times:
                    found[table, version] = _EPOCH + timedelta(microseconds=times[last])
        return found


@dataclass(frozen=True, slots=True)
class _Groups:
    """The rows of a table in the order of a key.

    Attributes:
        rows: the rows.
        spans: the place of the first row of each key, and the number of its rows.
    """

    rows: pa.Table
    spans: Mapping[int, tuple[int, int]]

    @classmethod
    def of(cls, rows: pa.Table, keys: pa.ChunkedArray) -> _Groups:
        """Return the rows in the order of a key."""
        import pyarrow.compute as pc  # noqa: PLC0415 - heavy

        order = pc.sort_indices(keys)
        counts = pc.value_counts(keys.take(order))
        spans, first = {}, 0
        for each in counts.to_pylist():
            spans[each["values"]] = first, each["counts"]
            first += each["counts"]
        return cls(rows.take(order), spans)

    def get(self, key: int) -> pa.Table:
        """Return the rows of a key."""
        first, count = self.spans.get(key, (0, 0))
        return self.rows.slice(first, count)


def _range_of(rows: pa.Table, column: str, least: int) -> tuple[int, int] | None:
    """Return the least and the greatest version of rows with a least value; None if there are none."""
    import pyarrow.compute as pc  # noqa: PLC0415 - heavy

    found = pc.min_max(rows.filter(pc.greater_equal(rows[column], number(least)))["version"])
    first, last = found["min"].as_py(), found["max"].as_py()
    return None if first is None else (first, last)


def _changed_or_unknown(commits: pa.Table, newest: int) -> list[int]:
    """Return the versions up to one that changed rows, and those that the ledger does not have."""
    changed = set(commits.filter(commits["changes"])["version"].to_pylist())
    known = set(commits["version"].to_pylist())
    # The column `version` is the last one of a VACUUM, whose first commit is the one before.
    known.update(each - 1 for each in commits.filter(commits["vacuums"])["version"].to_pylist())
    return sorted(changed.union(set(range(newest + 1)) - known))


def _last_equal(content: TableContent | None, versions: Iterable[int]) -> dict[int, int]:
    """Return for versions that are not the newest content the last version with the same content."""
    if content is None:
        return {version: version for version in versions}
    others = (version for version in versions if not content.is_current(version))
    return {version: content.last_equal(version) for version in others}


def _last(rows: pa.Table) -> int | None:
    import pyarrow.compute as pc  # noqa: PLC0415 - heavy

    last: int | None = pc.max(rows["version"]).as_py()
    return last


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


def number(value: int) -> pa.Scalar:
    """Return a scalar; `pa.scalar` would import pandas if it is installed, in a quarter of a second."""
    return numbers([value])[0]


def numbers(values: list[int]) -> pa.Array:
    """Return an array of integers; `pa.array` would import pandas."""
    import pyarrow as pa  # noqa: PLC0415 - heavy

    content = pa.py_buffer(array("q", values))
    return pa.Array.from_buffers(pa.int64(), len(values), [None, content])
