"""The files of one of the ledger's tables as a dataset that knows what lies in which of them.

DataFusion hands no filter to a foreign Delta table, so that a query for one run would read every
file; it hands them to a dataset of Arrow's. Of the table's statistics only those are given to it
that queries of the ledger ask for, because each costs time with each file.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pd
import pyarrow.fs as pf
import pyarrow.parquet as pq

from deltawitness.commit.log import local_path
from deltawitness.ledger.tables.schema import PARTITION, LedgerRoot, LedgerTable
from deltawitness.scan.dataset import DeltaDataset

if TYPE_CHECKING:
    from deltalake import DeltaTable

__all__ = ["dataset_of", "empty_dataset"]

RUN = "run_id"
"""The column by which most is asked for; rows are laid down ordered by it."""


def dataset_of(root: LedgerRoot, table: LedgerTable, opened: DeltaTable) -> pd.Dataset:
    """Return the table at the version that it is open at.

    Args:
        root: where the ledger lies.
        table: which table.
        opened: the same, open.
    """
    schema = pa.schema(opened.schema().to_arrow())
    path = local_path(root.uri_of(table))
    if path is None:
        return DeltaDataset(opened)
    return pd.UnionDataset(
        schema, [_local_files(path, schema, table, opened), empty_dataset(schema)]
    )


def empty_dataset(schema: pa.Schema) -> pd.Dataset:
    """Return a file without rows that no filter leaves out: DataFusion fails to sort no files."""
    content = pa.BufferOutputStream()
    pq.write_table(schema.empty_table(), content)
    form = pd.ParquetFileFormat()
    file = form.make_fragment(content.getvalue())
    return pd.FileSystemDataset([file], schema, form, pf.LocalFileSystem())


def _local_files(
    path: str, schema: pa.Schema, table: LedgerTable, opened: DeltaTable
) -> pd.Dataset:
    place = pf.SubTreeFileSystem(path, pf.LocalFileSystem())
    form = pd.ParquetFileFormat()
    files = [
        form.make_fragment(
            file["path"], place, partition_expression=_partition_expression(table, file)
        )
        for file in _file_stats(opened)
    ]
    return pd.FileSystemDataset(files, schema, form, place)


def _file_stats(opened: DeltaTable) -> list[dict[str, Any]]:
    actions = pa.table(opened.get_add_actions(flatten=True))
    wanted = ("path", f"partition.{PARTITION}", f"min.{RUN}", f"max.{RUN}", f"null_count.{RUN}")
    files: list[dict[str, Any]] = actions.select(
        [n for n in wanted if n in actions.column_names]
    ).to_pylist()
    return files


def _partition_expression(table: LedgerTable, file: dict[str, Any]) -> pc.Expression:
    """Return what holds for every row of a file."""
    day: date | None = file.get(f"partition.{PARTITION}")
    if day is None:
        return pc.field(PARTITION).is_null()
    first = next(column for column in table.schema if pa.types.is_timestamp(column.type))
    midnight = datetime.combine(day, time(), UTC)
    begin, end = (pa.scalar(at, first.type) for at in (midnight, midnight + timedelta(days=1)))
    moment = pc.field(first.name)
    known = (pc.field(PARTITION) == day) & (moment >= begin) & (moment < end)
    lowest, highest = file.get(f"min.{RUN}"), file.get(f"max.{RUN}")
    if lowest is None or highest is None or file.get(f"null_count.{RUN}") != 0:
        return known
    return known & (pc.field(RUN) >= lowest) & (pc.field(RUN) <= highest)
