"""A version of a Delta table as a dataset whose rows delta-rs itself reads.

DataFusion takes a Python dataset for a table: it asks it for its schema, hands it the columns and the
filters of each scan, and reads the batches of its fragments. The rows come from a `QueryBuilder`,
which reads what lies on an object store, deletion vectors and mapped columns; DataFusion's provider
for foreign tables does not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pd

from deltawitness.run import suppressed
from deltawitness.scan.feeding import is_feeding
from deltawitness.scan.filters import parse_filter, pruning_filter, quote_identifier, to_sql
from deltawitness.scan.read_ahead import read_ahead

if TYPE_CHECKING:
    from deltalake import DeltaTable

__all__ = ["DeltaDataset"]

_TABLE = "t"

KEEP_FILTERS_ABOVE = f"LIMIT {(1 << 63) - 1}"
"""A limit that no table reaches: the engine hands no filter past it to a scan, which would skip files
by statistics that do not know NaN."""

_ONE_PARTITION = {"datafusion.execution.target_partitions": "1"}
"""Settings of a scan that runs no task of its own: see :mod:`deltawitness.scan.feeding`."""

_ROWS_WITHOUT_COLUMNS = 1 << 16
"""Rows of a batch without columns, which takes no memory, but as many rows of a join."""


class DeltaDataset(pd.Dataset):  # type: ignore[misc]  # PyArrow has no types
    """One version of a Delta table; later commits do not change it.

    Args:
        table: the table, at the version to read. What becomes of the handle later does not matter.
    """

    def __init__(self, table: DeltaTable) -> None:
        from deltalake import QueryBuilder  # noqa: PLC0415 - heavy

        with suppressed():  # a plan over the dataset says what it reads
            self._parallel = QueryBuilder().register(_TABLE, table)
            self._sequential = QueryBuilder(_ONE_PARTITION).register(_TABLE, table)
        self._schema = self.execute(f"SELECT * FROM {_TABLE} LIMIT 0").schema

    def __reduce__(self) -> Any:
        msg = "a dataset over a Delta table cannot be pickled"
        raise TypeError(msg)

    @property
    def schema(self) -> pa.Schema:
        """The table's columns, of the types that the engine's own provider gives them."""
        return self._schema

    def scanner(
        self,
        columns: Sequence[str] | None = None,
        filter: pc.Expression | None = None,  # noqa: A002 - Arrow's name
        **_: Any,
    ) -> Scan:
        """Return a scan of some columns, in this order, of the rows that a filter holds for."""
        names = tuple(self._schema.names if columns is None else columns)
        return Scan(self, names, _where(filter, self._schema))

    def get_fragments(self, filter: pc.Expression | None = None) -> Iterator[Fragment]:  # noqa: A002 - Arrow's name
        """Yield the one part that the table is read as: the engine behind it reads files in parallel."""
        _where(filter, self._schema)
        yield Fragment(self)

    def execute(self, sql: str) -> pa.RecordBatchReader:
        """Return the rows of a query over the table, named `t`."""
        builder = self._sequential if is_feeding() else self._parallel
        return pa.RecordBatchReader.from_stream(builder.execute(sql))


@dataclass(frozen=True, slots=True)
class Fragment:
    """The part of a dataset that is the whole of it."""

    dataset: DeltaDataset

    def scanner(self, _schema: pa.Schema | None = None, **how: Any) -> Scan:
        """Return a scan; see :meth:`DeltaDataset.scanner`."""
        return self.dataset.scanner(**how)


@dataclass(frozen=True, slots=True)
class Scan:
    """One reading of a dataset.

    Attributes:
        dataset: what is read.
        columns: the columns that are wanted.
        where: SQL between the table and its rows; empty where all are wanted.
    """

    dataset: DeltaDataset
    columns: tuple[str, ...]
    where: str

    @property
    def projected_schema(self) -> pa.Schema:
        """The columns that the batches have."""
        return pa.schema([self.dataset.schema.field(name) for name in self.columns])

    def to_batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the rows."""
        if not self.columns:
            yield from self._counted()
            return
        listed = ", ".join(map(quote_identifier, self.columns))
        sql = f"SELECT {listed} FROM {self.where or _TABLE}"
        yield from read_ahead(partial(self.dataset.execute, sql))

    def _counted(self) -> Iterator[pa.RecordBatch]:
        """Yield batches that have rows and no columns."""
        sql = f"SELECT count(*) FROM {self.where or _TABLE}"
        left = sum(
            batch.column(0)[0].as_py() for batch in read_ahead(partial(self.dataset.execute, sql))
        )
        while left > 0:
            size = min(left, _ROWS_WITHOUT_COLUMNS)
            yield pa.record_batch([pa.nulls(size)], names=["nothing"]).select([])
            left -= size


def _where(filter_: pc.Expression | None, schema: pa.Schema) -> str:
    """Return the rows that a filter holds for, as what stands after FROM."""
    if filter_ is None:
        return ""
    node = parse_filter(filter_)
    pruned = pruning_filter(node, schema)
    inner = _TABLE if pruned is None else f"{_TABLE} WHERE {pruned}"
    return f"(SELECT * FROM {inner} {KEEP_FILTERS_ABOVE}) AS {_TABLE} WHERE {to_sql(node)}"
