"""Helpers that the handlers of contexts, frames and catalogs share."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from deltawitness.commit.log import open_log
from deltawitness.commit.private_api import storage_options_of
from deltawitness.exceptions import StatementError
from deltawitness.session.core.frames import bind_origin, replan, state_of
from deltawitness.session.core.snapshot import TableName
from deltawitness.session.core.state import session_of
from deltawitness.session.core.unpatched import unpatched

if TYPE_CHECKING:
    from datafusion import SessionContext
    from datafusion.catalog import Table
    from deltalake import DeltaTable

__all__ = [
    "ADDRESS",
    "Handler",
    "attach_address",
    "is_behind",
    "is_delta",
    "record_frame_as_view",
]

Handler = Callable[[Any, tuple[Any, ...], dict[str, Any]], Any]
"""A handler of a method: takes the engine's object, the positional and the keyword arguments."""


def is_delta(table: object) -> bool:
    """Return whether a table is a `deltalake.DeltaTable`."""
    from deltalake import DeltaTable  # noqa: PLC0415 - heavy

    return isinstance(table, DeltaTable)


def is_behind(table: DeltaTable) -> bool:
    """Return whether a table is open at an older version than its newest one.

    Such a table was opened at that version on purpose, so the session serves only this version.
    """
    log = open_log(table.table_uri, storage_options_of(table))
    return log.read(table.version() + 1) is not None


def record_frame_as_view(ctx: SessionContext, name: TableName, table: Any) -> None:
    """Record a frame that was registered as a view, so that the view follows new table versions.

    Does nothing for a table that is not a frame of an observed session.
    """
    if state_of(table) is None:
        return
    from deltawitness.session.core.frame_view import FrameView  # noqa: PLC0415 - needs the engine

    frame = table.frame if isinstance(table, FrameView) else table
    with suppress(StatementError):
        bind_origin(frame)  # a name that has changed already raises when the view is planned again
    session_of(ctx).views.record(ctx, name, partial(_view_of, frame))


def _view_of(frame: Any, ctx: SessionContext) -> Table:
    del ctx
    view: Table = unpatched(replan(frame), "into_view")()
    return view


ADDRESS = "_deltawitness_address"
"""The attribute of a `Catalog` or `Schema` that holds its context and its path in the session."""


def attach_address(owner: Any, address: tuple[Any, ...]) -> Any:
    """Store its context and path on a `Catalog` or `Schema` of the engine, and return the object.

    Args:
        owner: the catalog or schema; objects of other classes stay unchanged.
        address: the context, the catalog's name and, for a schema, the schema's name.
    """
    if type(owner).__module__.startswith("datafusion."):
        setattr(owner, ADDRESS, address)
    return owner
