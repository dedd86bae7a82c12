"""Write the rows of a query to a Delta table on several workers, with one commit."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from deltawitness.distributed.request import request_from
from deltawitness.distributed.result import DistributedWriteResult
from deltawitness.distributed.write import Workers, write_with_attributes
from deltawitness.exceptions import StatementError
from deltawitness.session.core.frame_attributes import attributes_of_frame
from deltawitness.session.core.frames import FrameState, state_of
from deltawitness.session.sql.coercion import coerce
from deltawitness.session.sql.observe_writes import report_if_unreached
from deltawitness.session.sql.split_plan import split_by_files
from deltawitness.session.sql.write_plans import with_stored_plan

if TYPE_CHECKING:
    from datafusion import DataFrame, SessionContext

__all__ = ["write_distributed"]

SPLITS = ("files", "auto")


def write_distributed(  # noqa: PLR0913 - the arguments of write_distributed, by keyword
    ctx: SessionContext,
    query: str | DataFrame,
    table: str | os.PathLike[str],
    *,
    split: str = "files",
    max_parts: int | None = None,
    engine: Any = None,
    max_in_flight: int | None = None,
    key: str | None = None,
    storage_options: Mapping[str, str] | None = None,
    **options: Any,
) -> DistributedWriteResult:
    """Write the rows of a query to a Delta table on several workers, with one commit.

    Args:
        ctx: the session.
        query: SQL text, or a frame of the session.
        table: path or URI of the table; it is created if it does not exist.
        split: `files` raises if the query cannot be split by its files; `auto` then writes its rows as
            one part, in this process.
        max_parts: maximum number of parts; twice the number of CPUs when None.
        engine: as for :func:`deltawitness.write_distributed`.
        max_in_flight: as for :func:`deltawitness.write_distributed`.
        key: as for :func:`deltawitness.write_distributed`.
        storage_options: as for `DeltaTable`.
        options: the other arguments of :func:`deltawitness.write_distributed`.

    Raises:
        StatementError: the query cannot be split, or writes itself.
    """
    request = request_from(**options)
    storage = None if storage_options is None else dict(storage_options)
    with report_if_unreached(table, request.mode):
        frame = ctx.sql(query) if isinstance(query, str) else query
        state = state_of(frame)
        parts = _parts_of(ctx, frame, state, split, max_parts or 2 * (os.cpu_count() or 1))
        attributes = attributes_of_frame(frame, state, schema=frame.schema())
        attributes = with_stored_plan(attributes, frame, state)
    workers = Workers(engine, max_in_flight)
    result = write_with_attributes(parts, (table, storage), request, workers, key, attributes)
    _publish(state, os.fspath(table), storage)
    return result


def _parts_of(
    ctx: SessionContext, frame: DataFrame, state: FrameState | None, split: str, count: int
) -> list[Any]:
    if split not in SPLITS:
        msg = f"split: expected {' or '.join(SPLITS)}, not {split!r}"
        raise StatementError(msg)
    if state is not None and state.pending is not None:
        msg = "write_distributed: the statement writes itself; pass a query"
        raise StatementError(msg)
    try:
        return split_by_files(frame, state, count)
    except StatementError:
        if split == "files":
            raise
    return [coerce(ctx if state is None else state.ctx, frame)]


def _publish(state: FrameState | None, uri: str, options: dict[str, str] | None) -> None:
    """Serve the new version of the table in the session, if it is registered there."""
    if state is None or not state.session.tables.serves_location(uri):
        return
    with state.session.tables.handles.lease(uri, options) as table:
        if table is not None:
            state.session.tables.publish_location(state.ctx, uri, table)
