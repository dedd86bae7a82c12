"""A ledger table as an Arrow dataset with file statistics, so that filters skip files.

DataFusion pushes no filters into a foreign Delta table, so a query for one run would read every
file; it does push them into an Arrow dataset. The dataset only has the statistics that queries of
the ledger use, because each statistic costs time per file.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pd
import pyarrow.fs as pf
import pyarrow.parquet as pq

from deltawitness.ledger.tables.schema import PARTITION, LedgerRoot, LedgerTable
from deltawitness.locations import local_path
from deltawitness.scan.dataset import DeltaDataset

if TYPE_CHECKING:
    from deltalake import DeltaTable

__all__ = ["dataset_of", "empty_dataset"]

RUN = "run_id"
"""The column that most queries filter by; files are sorted by it."""


def dataset_of(
    root: LedgerRoot, table: LedgerTable, opened: DeltaTable, lease: object = None
) -> pd.Dataset:
    """Return a dataset of an open table at its version.

    Args:
        root: location of the ledger.
        table: the table's definition.
        opened: the open table.
        lease: an object that lives as long as the dataset of a table on an object store.
    """
    schema = pa.schema(opened.schema().to_arrow())
    path = local_path(root.uri_of(table))
    if path is None:
        return DeltaDataset(opened, lease)
    return pd.UnionDataset(
        schema, [_local_files(path, schema, table, opened), empty_dataset(schema)]
    )


def empty_dataset(schema: pa.Schema) -> pd.Dataset:
    """Return a dataset of one file without rows that no filter excludes.

    DataFusion fails to sort a dataset without files.
    """
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
    """Return an Arrow expression that holds for every row of a file, from its statistics."""
    day: date | None = file.get(f"partition.{PARTITION}")
    if day is None:
        return pc.field(PARTITION).is_null()
    first = next(column for column in table.schema if pa.types.is_timestamp(column.type))
    midnight = datetime.combine(day, time(), UTC)
    begin, end = (pa.scalar(at, first.type) for at in (midnight, midnight + timedelta(days=1)))
    moment = pc.field(first.name)
    in_day = (pc.field(PARTITION) == day) & (moment >= begin) & (moment < end)
    lowest, highest = file.get(f"min.{RUN}"), file.get(f"max.{RUN}")
    if lowest is None or highest is None or file.get(f"null_count.{RUN}") != 0:
        return in_day
    return in_day & (pc.field(RUN) >= lowest) & (pc.field(RUN) <= highest)
