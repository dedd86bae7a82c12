"""Computes writes again that depend on the rows of the version before: on a copy of that version."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from deltawitness.cache.verify.replay import (
    NotReproducibleError,
    Opener,
    attach_session,
    make_schema,
    pinned_frame,
    pinned_session,
)
from deltawitness.cache.verify.writes import StoredWrite
from deltawitness.run import suppressed
from deltawitness.session.context_handlers import SESSION_HANDLERS
from deltawitness.session.core.frames import state_of
from deltawitness.session.core.snapshot import TableName
from deltawitness.session.core.state import session_of
from deltawitness.session.core.unpatched import unpatched
from deltawitness.session.fingerprint.environment import engine_release
from deltawitness.session.fingerprint.inputs import table_input
from deltawitness.session.fingerprint.model import TableInput
from deltawitness.session.fingerprint.write_plan import PlannedStatement
from deltawitness.session.sql.frame_writer import write_delta
from deltawitness.sql_statements import changes_table

if TYPE_CHECKING:
    from deltalake import DeltaTable

__all__ = ["changed_table"]


def changed_table(
    write: StoredWrite, open_before: Callable[[], DeltaTable], open_input: Opener, folder: str
) -> DeltaTable:
    """Repeat a write on a copy of the version before, and return the copy.

    Args:
        write: the write.
        open_before: opens the table at the version before.
        open_input: opens an input at its recorded version.
        folder: an empty folder for the copy.

    Raises:
        NotReproducibleError: the write cannot be repeated with the same inputs.
    """
    with suppressed():
        if write.statement is not None:
            return _run_statement(write, write.statement, open_before, open_input, folder)
        rows = pinned_frame(write.fingerprint, write.plan, open_input, needs_exact_text=False)
        copy = _copy_of(open_before(), folder)
        write_delta(rows, folder, mode="overwrite", predicate=write.predicate)
    copy.update_incremental()
    return copy


def _run_statement(
    write: StoredWrite,
    statement: PlannedStatement,
    open_before: Callable[[], DeltaTable],
    open_input: Opener,
    folder: str,
) -> DeltaTable:
    if statement.version != write.version - 1:
        msg = "another write was committed at the same time"
        raise NotReproducibleError(msg)
    if not changes_table(statement.text):  # the stored plan may have been changed
        msg = "its plan has a statement that is no write of a table"
        raise NotReproducibleError(msg)
    if write.fingerprint.engine != engine_release():
        msg = f"engine changed: it was computed with {write.fingerprint.engine}"
        raise NotReproducibleError(msg)

    def open_checked(pinned: TableInput) -> DeltaTable:
        table = open_input(pinned)
        if pinned.commit and table_input(table).commit != pinned.commit:
            msg = f"input gone: version {pinned.version} of {pinned.name} now has other content"
            raise NotReproducibleError(msg)
        return table

    others = tuple(table for table in write.plan.tables if table.name != statement.table)
    plan = replace(write.plan, tables=others)
    ctx = pinned_session(write.fingerprint, plan, open_checked, None)
    copy = _copy_of(open_before(), folder)
    make_schema(ctx, statement.table)
    session_of(ctx).tables.register(ctx, statement.table, copy, defaults=statement.defaults)
    frame = SESSION_HANDLERS["sql"](ctx, (statement.text,), {})
    state = state_of(frame)
    if state is None or state.pending is None:
        msg = "the statement can no longer be planned"
        raise NotReproducibleError(msg)
    state.pending.run()
    copy.update_incremental()
    return copy


def _copy_of(table: DeltaTable, folder: str) -> DeltaTable:
    """Write the rows of an open table to a new table in a folder."""
    from datafusion import SessionContext  # noqa: PLC0415 - heavy
    from deltalake import DeltaTable as Delta  # noqa: PLC0415 - heavy

    partitions = table.metadata().partition_columns
    copy = Delta.create(folder, schema=table.schema(), partition_by=partitions or None)
    ctx = SessionContext()
    name = TableName("datafusion", "public", "before")
    session_of(ctx).tables.register(ctx, name, table, fixed=True)
    rows = attach_session(ctx, unpatched(ctx, "table")(name.sql()))
    write_delta(rows, folder, mode="append")
    copy.update_incremental()
    return copy
