"""Table providers through which a DataFusion session reads Delta tables, local or remote."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from deltawitness.locations import local_path

if TYPE_CHECKING:
    from deltalake import DeltaTable

__all__ = [
    "is_read_by_engine",
    "provider_of",
    "provider_of_copy",
    "to_readable",
    "to_readable_named",
]

_UNREAD_FEATURE = "deletionVectors"
"""A table feature that DataFusion's provider for foreign tables cannot plan a scan with."""


def provider_of(table: DeltaTable) -> Any:
    """Return a table provider over an open Delta table, at the version at which it is open.

    Args:
        table: the table.
    """
    from datafusion.catalog import Table  # noqa: PLC0415 - heavy

    if is_read_by_engine(table):
        return Table(table)
    from deltawitness.scan.dataset import DeltaDataset  # noqa: PLC0415 - imports PyArrow; few tables need it

    return Table(DeltaDataset(table))


def provider_of_copy(table: DeltaTable, lease: object) -> Any:
    """Return a table provider over a local copy of a remote table, with the types of the remote one.

    Args:
        table: the copy, open at the version to serve.
        lease: an object that lives as long as any frame reads the copy.
    """
    from datafusion.catalog import Table  # noqa: PLC0415 - heavy

    from deltawitness.scan.dataset import DeltaDataset  # noqa: PLC0415 - imports PyArrow; few tables need it

    return Table(DeltaDataset(table, lease))


def to_readable(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the arguments of an engine call, with a provider for each table it cannot read itself."""
    return tuple(map(_to_readable, arguments))


def to_readable_named(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keyword arguments of an engine call, as :func:`to_readable` does for positional ones."""
    return {name: _to_readable(each) for name, each in arguments.items()}


def _to_readable(argument: Any) -> Any:
    from deltalake import DeltaTable  # noqa: PLC0415 - heavy, loaded with the table

    is_other = not isinstance(argument, DeltaTable) or is_read_by_engine(argument)
    return argument if is_other else provider_of(argument)


def is_read_by_engine(table: DeltaTable) -> bool:
    """Return whether DataFusion's provider for foreign tables can read a table.

    It cannot read a table on an object store, because it has no store for the location, or a table
    with deletion vectors.

    Args:
        table: the table.
    """
    if local_path(table.table_uri) is None:
        return False
    return _UNREAD_FEATURE not in (table.protocol().reader_features or ())
