"""A Delta table as something that a DataFusion session can read, wherever it lies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from deltawitness.commit.log import local_path

if TYPE_CHECKING:
    from deltalake import DeltaTable

__all__ = ["is_read_by_engine", "provider_of", "readable", "readable_named"]

_UNREAD_FEATURE = "deletionVectors"
"""A feature of tables with which the engine's provider for foreign tables fails to plan a scan."""


def provider_of(table: DeltaTable) -> Any:
    """Return what to register for an open Delta table: its rows at the version that it is open at.

    Args:
        table: the table.
    """
    from datafusion.catalog import Table  # noqa: PLC0415 - heavy

    if is_read_by_engine(table):
        return Table(table)
    from deltawitness.scan.dataset import DeltaDataset  # noqa: PLC0415 - only where it is needed

    return Table(DeltaDataset(table))


def readable(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the arguments of a call of the engine, its open Delta tables as it can read them."""
    return tuple(map(_readable, arguments))


def readable_named(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keyword arguments of a call of the engine; see :func:`readable`."""
    return {name: _readable(each) for name, each in arguments.items()}


def _readable(argument: Any) -> Any:
    from deltalake import DeltaTable  # noqa: PLC0415 - heavy, and there when there is a table

    is_other = not isinstance(argument, DeltaTable) or is_read_by_engine(argument)
    return argument if is_other else provider_of(argument)


def is_read_by_engine(table: DeltaTable) -> bool:
    """Tell whether a session reads a table through the engine's provider for foreign tables.

    It has no store for a location on an object store, and fails on tables with deletion vectors.

    Args:
        table: the table.
    """
    if local_path(table.table_uri) is None:
        return False
    return _UNREAD_FEATURE not in (table.protocol().reader_features or ())
