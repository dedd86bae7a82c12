"""Read the operations of a ledger and their inputs with one scan.

A question that follows inputs level by level would scan the ledger once for each level. Here one scan
reads the few columns that such questions need, batch by batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from deltawitness.answers.committed_writes import (
    CHANGES_ROWS,
    COMMITTED,
    KEEPS_ROWS,
    WRITES_ROWS,
)
from deltawitness.answers.operations_index import OperationsIndex, number, numbers
from deltawitness.ledger.tables.listing import LedgerListing
from deltawitness.ledger.tables.schema import INVENTORY
from deltawitness.semconv import CacheOperation
from deltawitness.sql_quoting import quote_literal

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["read_changes", "read_operations"]

REPLACES_ROWS = "coalesce(mode = 'overwrite' OR cache_operation IN ('create', 'convert'), false)"
"""The condition that an operation has replaced all rows of a table."""


def _is_operation(operation: CacheOperation) -> str:
    """Return the condition that an operation is of a kind."""
    return f"coalesce(cache_operation, '') = {quote_literal(operation.value)}"


_FLAGS = {
    "committed": COMMITTED,
    "keeps": KEEPS_ROWS,
    "changes": CHANGES_ROWS,
    "replaces": REPLACES_ROWS,
    "writes": WRITES_ROWS,
    "restores": _is_operation(CacheOperation.RESTORE),
    "vacuums": _is_operation(CacheOperation.VACUUM),
}

_OF_READS = ("writes", "restores")
"""The conditions that the rows of inputs have as well."""


def read_operations(ledger: LedgerListing, since: datetime | None = None) -> OperationsIndex:
    """Read the inputs of operations.

    Args:
        ledger: the ledger to query.
        since: a time before the first of the operations that are needed, for a faster scan.

    Raises:
        OSError: the ledger's storage cannot be read.
    """
    return _read(ledger, (), since)


def read_changes(ledger: LedgerListing) -> OperationsIndex:
    """Read the inputs of operations, and which of them have changed rows, and when.

    Raises:
        OSError: the ledger's storage cannot be read.
    """
    return _read(ledger, tuple(_FLAGS), None)


def _read(ledger: LedgerListing, flags: tuple[str, ...], since: datetime | None) -> OperationsIndex:
    there = ledger.columns(INVENTORY)
    inputs = [name for name in ("inputs", "run_inputs") if name in there]
    selected = ["table_id", "version", *inputs, *(["event_time"] if flags else [])]
    selected += [f"coalesce({_FLAGS[name]}, false) AS {name}" for name in flags]
    where = "" if since is None else f" WHERE event_date >= DATE '{since.date()}'"
    sql = f"SELECT {', '.join(selected)} FROM inventory{where}"  # noqa: S608 - our names only
    reader = _Reader(tuple(inputs), flags)
    for batch in ledger.batches(sql):
        reader.add(batch)
    return reader.index()


@dataclass
class _Reader:
    """Converts the batches of the scan.

    Attributes:
        inputs: the columns with inputs that the ledger has.
        flags: the columns of conditions.
        ids: the place of each table id so far.
    """

    inputs: tuple[str, ...]
    flags: tuple[str, ...]
    ids: dict[str, int] = field(default_factory=dict)
    _operations: list[pa.RecordBatch] = field(default_factory=list)
    _reads: list[pa.RecordBatch] = field(default_factory=list)

    def add(self, batch: pa.RecordBatch) -> None:
        """Convert a batch of operations."""
        import pyarrow as pa  # noqa: PLC0415 - heavy
        import pyarrow.compute as pc  # noqa: PLC0415 - heavy

        columns = {
            "table": self._places(batch.column("table_id")),
            "version": _copied(batch.column("version").cast(pa.int64())),
        }
        columns |= {name: pc.and_(batch.column(name), batch.column(name)) for name in self.flags}
        operations = _batch(columns)
        for name in self.inputs:
            self._add_reads(operations, batch, name)
        if self.flags:
            time = batch.column("event_time").cast(pa.timestamp("us", tz="UTC")).cast(pa.int64())
            operations = _batch({**columns, "time": _copied(time)})
        self._operations.append(operations)

    def _add_reads(self, operations: pa.RecordBatch, batch: pa.RecordBatch, name: str) -> None:
        import pyarrow.compute as pc  # noqa: PLC0415 - heavy

        lists = batch.column(name)
        if lists.null_count == len(lists):
            return
        found, owners = pc.list_flatten(lists), pc.list_parent_indices(lists)
        is_exact = name == self.inputs[0]
        links = self._links(operations, found, owners, is_exact=is_exact)
        if not is_exact:  # a row with the first column has no use for the second one
            links = links.filter(batch.column(self.inputs[0]).is_null().take(owners))
        self._reads.append(links)

    def _links(
        self, operations: pa.RecordBatch, found: pa.StructArray, owners: pa.Array, *, is_exact: bool
    ) -> pa.RecordBatch:
        import pyarrow as pa  # noqa: PLC0415 - heavy
        import pyarrow.compute as pc  # noqa: PLC0415 - heavy

        names = ["table", "version", *(name for name in _OF_READS if name in self.flags)]
        columns = {name: operations.column(name).take(owners) for name in names}
        return _batch(
            {
                **columns,
                "read": self._places(pc.struct_field(found, "table_id")),
                "read_version": _copied(pc.struct_field(found, "version").cast(pa.int64())),
                "is_exact": pa.repeat(number(int(is_exact)), len(found)),
            }
        )

    def _places(self, texts: pa.Array) -> pa.Array:
        """Return the place of each table id."""
        import pyarrow as pa  # noqa: PLC0415 - heavy

        encoded = texts if isinstance(texts, pa.DictionaryArray) else texts.dictionary_encode()
        ids = self.ids
        places = [ids.setdefault(each, len(ids)) for each in encoded.dictionary.to_pylist()]
        return numbers(places).take(encoded.indices)

    def index(self) -> OperationsIndex:
        """Return the index of all batches so far."""
        import pyarrow as pa  # noqa: PLC0415 - heavy

        own = [("table", pa.int64()), ("version", pa.int64())]
        read = [("read", pa.int64()), ("read_version", pa.int64()), ("is_exact", pa.int64())]
        flags = [(name, pa.bool_()) for name in self.flags]
        of_reads = [flag for flag in flags if flag[0] in _OF_READS]
        times = [("time", pa.int64())] if flags else []
        operations = pa.schema([*own, *flags, *times])
        reads = pa.schema([*own, *of_reads, *read])
        return OperationsIndex(
            self.ids,
            pa.Table.from_batches(self._operations, operations),
            pa.Table.from_batches(self._reads, reads),
        )


def _copied(numbers: pa.Array) -> pa.Array:
    """Return a copy: an array of a batch of the engine keeps all columns of the batch in memory."""
    import pyarrow.compute as pc  # noqa: PLC0415 - heavy

    return pc.add(numbers, number(0))


def _batch(columns: Mapping[str, pa.Array]) -> pa.RecordBatch:
    """Return a batch; `RecordBatch.from_pydict` would import pandas."""
    import pyarrow as pa  # noqa: PLC0415 - heavy

    return pa.RecordBatch.from_arrays(list(columns.values()), list(columns))
