"""What the handlers of the engine's methods have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
    "addressed",
    "argument",
    "is_behind",
    "is_delta",
    "record_frame_as_view",
]

Handler = Callable[[Any, tuple[Any, ...], dict[str, Any]], Any]
"""Takes the plain object, the arguments and the keyword arguments of a call."""


def argument(args: tuple[Any, ...], kwargs: Mapping[str, Any], place: int, name: str) -> Any:
    """Return an argument of a call, by its place or by its name; None when it is not there."""
    return args[place] if len(args) > place else kwargs.get(name)


def is_delta(table: object) -> bool:
    """Tell whether a table is an open Delta table."""
    from deltalake import DeltaTable  # noqa: PLC0415 - heavy

    return isinstance(table, DeltaTable)


def is_behind(table: DeltaTable) -> bool:
    """Tell whether an open table is at an older version: it was opened there, to be read there."""
    log = open_log(table.table_uri, storage_options_of(table))
    return log.read(table.version() + 1) is not None


def record_frame_as_view(ctx: SessionContext, name: TableName, table: Any) -> None:
    """Remember a frame that a name now stands for, so that it shows new versions of what it reads."""
    if state_of(table) is None:
        return
    from deltawitness.session.core.frame_view import FrameView  # noqa: PLC0415 - needs the engine

    frame = table.frame if isinstance(table, FrameView) else table
    with suppress(StatementError):
        bind_origin(frame)  # where a name has changed already, making the view again says so
    session_of(ctx).note_view(ctx, name, partial(_view_of, frame))


def _view_of(frame: Any, ctx: SessionContext) -> Table:
    del ctx
    view: Table = unpatched(replan(frame), "into_view")()
    return view


ADDRESS = "_deltawitness_address"
"""Under which name a catalog or a schema keeps where in which session it is."""


def addressed(place: Any, address: tuple[Any, ...]) -> Any:
    """Let a catalog or a schema of the engine's know where it is, and return it."""
    if type(place).__module__.startswith("datafusion."):
        setattr(place, ADDRESS, address)
    return place
