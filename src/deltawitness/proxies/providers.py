"""A Delta table as something that a DataFusion session can read, wherever it lies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from deltawitness.commit.log import local_path
from deltawitness.internal import report

if TYPE_CHECKING:
    from deltalake import DeltaTable

__all__ = ["provider_of"]


def provider_of(table: DeltaTable) -> Any:
    """Return what to register for an open Delta table.

    A session has no store for the locations of object stores, so that a table there is read
    through a dataset of Arrow's, at the version that it is open at.

    Args:
        table: the table.
    """
    from datafusion.catalog import Table  # noqa: PLC0415 - heavy

    if local_path(table.table_uri) is not None:
        return Table(table)
    try:
        return Table(_dataset_of(table))
    except Exception as error:  # noqa: BLE001 - a table with features that Arrow's datasets have no word for
        report("session", error)
        return Table(table)


def _dataset_of(table: DeltaTable) -> Any:
    import pyarrow.dataset as pd  # noqa: PLC0415 - only for remote tables

    from deltawitness.ledger.files import no_rows  # noqa: PLC0415 - heavy

    files = table.to_pyarrow_dataset()
    return pd.UnionDataset(files.schema, [files, no_rows(files.schema)])
