"""`DeltaDataset`: one version of a Delta table as a PyArrow dataset whose rows delta-rs reads.

DataFusion accepts a Python dataset as a table: it reads its schema, passes the columns and filters of
each scan, and reads the batches of its fragments. The rows come from delta-rs's `QueryBuilder`, which
supports object stores, deletion vectors and mapped columns; DataFusion's provider for foreign tables
does not.
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
from deltawitness.scan.filters import parse_filter, pruning_filter, to_sql
from deltawitness.scan.read_ahead import read_ahead
from deltawitness.sql_quoting import quote_identifier

if TYPE_CHECKING:
    from deltalake import DeltaTable

__all__ = ["DeltaDataset"]

_TABLE = "t"

KEEP_FILTERS_ABOVE = f"LIMIT {(1 << 63) - 1}"
"""A limit larger than any table: the engine pushes no filter below it. A pushed-down filter would skip
files by statistics that ignore NaN."""

_ONE_PARTITION = "SET datafusion.execution.target_partitions = 1"
"""Setting of a scan that runs on its reader's thread: see :mod:`deltawitness.scan.feeding`. A statement,
because `QueryBuilder` takes settings only since delta-rs 1.6.6."""

_ROWS_WITHOUT_COLUMNS = 1 << 16
"""Maximum number of rows of a batch without columns. Such a batch takes no memory itself, but a join
over it builds as many rows."""


class DeltaDataset(pd.Dataset):  # type: ignore[misc]  # PyArrow has no types
    """One version of a Delta table; later commits do not change it.

    Args:
        table: the table, open at the version to read. Later changes of the handle have no effect.
        lease: an object that lives as long as the dataset, such as a lock of the table's files.
    """

    def __init__(self, table: DeltaTable, lease: object = None) -> None:
        from deltalake import QueryBuilder  # noqa: PLC0415 - heavy

        self._lease = lease
        with suppressed():  # a plan over the dataset has the table as an input
            self._parallel = QueryBuilder().register(_TABLE, table)
            self._sequential = QueryBuilder().register(_TABLE, table)
            self._sequential.execute(_ONE_PARTITION).read_all()
        self._schema = self.execute(f"SELECT * FROM {_TABLE} LIMIT 0").schema

    def __reduce__(self) -> Any:
        msg = "a dataset over a Delta table cannot be pickled"
        raise TypeError(msg)

    @property
    def schema(self) -> pa.Schema:
        """The table's schema, with the types that DataFusion's own provider returns."""
        return self._schema

    def scanner(
        self,
        columns: Sequence[str] | None = None,
        filter: pc.Expression | None = None,  # noqa: A002 - Arrow's name
        **_: Any,
    ) -> Scan:
        """Return a scan of the rows for which a filter is true.

        Args:
            columns: the columns to read, in this order; None for all.
            filter: the filter; None for all rows.

        Raises:
            FilterError: the filter cannot be translated to SQL.
        """
        names = tuple(self._schema.names if columns is None else columns)
        return Scan(self, names, _where(filter, self._schema))

    def get_fragments(self, filter: pc.Expression | None = None) -> Iterator[Fragment]:  # noqa: A002 - Arrow's name
        """Yield a single fragment, because delta-rs reads the files of the table in parallel itself.

        Args:
            filter: validated here, so that a scan fails while it is planned.

        Raises:
            FilterError: the filter cannot be translated to SQL.
        """
        _where(filter, self._schema)
        yield Fragment(self)

    def execute(self, sql: str) -> pa.RecordBatchReader:
        """Return a reader of a SQL query's rows; the table has the name `t` in it."""
        builder = self._sequential if is_feeding() else self._parallel
        return pa.RecordBatchReader.from_stream(builder.execute(sql))


@dataclass(frozen=True, slots=True)
class Fragment:
    """The only fragment of a dataset."""

    dataset: DeltaDataset

    def scanner(self, _schema: pa.Schema | None = None, **how: Any) -> Scan:
        """Return a scan of the dataset; see :meth:`DeltaDataset.scanner`."""
        return self.dataset.scanner(**how)


@dataclass(frozen=True, slots=True)
class Scan:
    """One scan of a dataset.

    Attributes:
        dataset: the dataset.
        columns: the columns to read.
        where: SQL of the FROM clause with the filter; empty to read all rows.
    """

    dataset: DeltaDataset
    columns: tuple[str, ...]
    where: str

    @property
    def projected_schema(self) -> pa.Schema:
        """The schema of the batches."""
        return pa.schema([self.dataset.schema.field(name) for name in self.columns])

    def to_batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the batches of the scan."""
        if not self.columns:
            yield from self._counted()
            return
        listed = ", ".join(map(quote_identifier, self.columns))
        sql = f"SELECT {listed} FROM {self.where or _TABLE}"
        yield from read_ahead(partial(self.dataset.execute, sql))

    def _counted(self) -> Iterator[pa.RecordBatch]:
        """Yield batches with rows but without columns."""
        sql = f"SELECT count(*) FROM {self.where or _TABLE}"
        left = sum(
            batch.column(0)[0].as_py() for batch in read_ahead(partial(self.dataset.execute, sql))
        )
        while left > 0:
            size = min(left, _ROWS_WITHOUT_COLUMNS)
            yield pa.record_batch([pa.nulls(size)], names=["nothing"]).select([])
            left -= size


def _where(filter_: pc.Expression | None, schema: pa.Schema) -> str:
    """Return the SQL after FROM that selects the rows for which a filter is true; empty without one."""
    if filter_ is None:
        return ""
    node = parse_filter(filter_)
    pruned = pruning_filter(node, schema)
    inner = _TABLE if pruned is None else f"{_TABLE} WHERE {pruned}"
    return f"(SELECT * FROM {inner} {KEEP_FILTERS_ABOVE}) AS {_TABLE} WHERE {to_sql(node)}"
