"""Stream a frame's rows into a Delta table, given by handle, by location or by its session name."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from deltawitness.clones.redirect import redirected
from deltawitness.commit.log import reuse_reads
from deltawitness.commit.receipts import OwnCommit, with_receipt_id
from deltawitness.delta_rs.absent_tables import absent_table
from deltawitness.delta_rs.handle_cache import HandleCache
from deltawitness.delta_rs.own_commits import commit_of_creation, commit_of_handle
from deltawitness.exceptions import StatementError
from deltawitness.ids_and_clock import new_id
from deltawitness.observe.write_watch import has_quarantined, watch_writes
from deltawitness.pipeline.request import WriteFormat, WriteMode, WriteResult
from deltawitness.plurals import count_of
from deltawitness.session.core.failed_writes import publish_after_failure
from deltawitness.session.core.frame_attributes import attributes_of_frame
from deltawitness.session.core.frames import FrameState, state_of
from deltawitness.session.core.private_api import OVERWRITE_REFUSED, REPLACE_REFUSED
from deltawitness.session.core.unpatched import unpatched
from deltawitness.session.sql.coercion import coerce
from deltawitness.session.sql.generated_columns import generated_columns
from deltawitness.session.sql.observe_writes import observe_write, report_if_unreached
from deltawitness.session.sql.plan_metrics import with_operator_metrics
from deltawitness.session.sql.write_plans import with_stored_plan

if TYPE_CHECKING:
    import pyarrow as pa
    from datafusion import DataFrame, DataFrameWriteOptions
    from deltalake import CommitProperties, DeltaTable, PostCommitHookProperties, WriterProperties

    from deltawitness.session.core.snapshot import Registered
    from deltawitness.session.core.state import Session

__all__ = ["rows_written", "stream_into", "write_delta", "write_table"]


def stream_into(table: DeltaTable, frame: DataFrame, mode: str) -> int:
    """Stream a frame's rows into an open table and return their number.

    Args:
        table: the table.
        frame: the rows.
        mode: `append` or `overwrite`.
    """
    from deltalake import write_deltalake  # noqa: PLC0415 - heavy, already loaded

    reported = report_if_unreached(table.table_uri, mode, table)
    with with_operator_metrics(frame) as rows, reported, watch_writes() as writes:
        write_deltalake(table, rows, mode=mode)  # type: ignore[call-overload]  # a mode is one of its literals
    if has_quarantined(writes):
        return 0
    written = rows_written(table)
    if written is None:
        # Fall back to delta-rs's history of the open table, whose last commit is the same.
        written = int(table.history(1)[0]["operationMetrics"]["num_added_rows"])
    return written


def rows_written(table: DeltaTable) -> int | None:
    """Return the number of rows that the commit of the last write added; None if unknown.

    The commit of a write that a `once` block skipped may be gone from the log: then it is 0.
    """
    commit = commit_of_handle(table)
    return commit.rows if commit.is_new else commit.rows or 0


def write_delta(  # noqa: PLR0913 - the arguments of write_deltalake, by keyword
    frame: DataFrame,
    uri: str | os.PathLike[str],
    *,
    mode: str = "error",
    partition_by: str | Sequence[str] = (),
    schema_mode: str | None = None,
    predicate: str | None = None,
    storage_options: Mapping[str, str] | None = None,
    configuration: Mapping[str, str | None] | None = None,
    name: str | None = None,
    description: str | None = None,
    target_file_size: int | None = None,
    writer_properties: WriterProperties | None = None,
    commit_properties: CommitProperties | None = None,
    post_commithook_properties: PostCommitHookProperties | None = None,
    is_new: bool = False,
) -> WriteResult:
    """Run the frame and stream its rows into a Delta table, without collecting them.

    The write is observed with the frame's plan, its schema and the Delta tables that it reads. If the
    session has registered a table at this location, it serves the new version.

    Args:
        frame: the rows.
        uri: path or URI of the table; the table is created if it does not exist.
        mode: what to do if the table exists: `error`, `append`, `overwrite` or `ignore`.
        partition_by: columns to partition a new table by.
        schema_mode: `merge` or `overwrite`, as in `write_deltalake`.
        predicate: selects the rows that an overwrite replaces.
        storage_options: as in `write_deltalake`.
        configuration: properties of a new table.
        name: a new table's name in its metadata.
        description: a new table's description.
        target_file_size: target size of each file in bytes.
        writer_properties: delta-rs's `WriterProperties`.
        commit_properties: delta-rs's `CommitProperties`; its metadata takes precedence over deltawitness's.
        post_commithook_properties: delta-rs's `PostCommitHookProperties`.
        is_new: the caller has just seen that there is no table; the write does not check that again.

    Returns:
        The committed version and the number of written rows; `skipped` is true if the mode is
        `ignore` and the table exists.

    Raises:
        StatementError: the mode is none of the four.
        DeltaError: the mode is `error` and the table exists.
    """
    with report_if_unreached(uri, mode):
        location, write_mode = os.fspath(redirected(uri)), _parse_mode(mode)
    columns = [partition_by] if isinstance(partition_by, str) else list(partition_by)
    arguments = {
        "partition_by": columns or None,
        "schema_mode": schema_mode,
        "predicate": predicate,
        "configuration": configuration,
        "name": name,
        "description": description,
        "target_file_size": target_file_size,
        "writer_properties": writer_properties,
        "commit_properties": commit_properties,
        "post_commithook_properties": post_commithook_properties,
    }
    options = None if storage_options is None else dict(storage_options)
    rows, state = _rows_of(frame), state_of(frame)
    with report_if_unreached(uri, mode):
        if state is None:
            return _write(rows, location, write_mode, options, arguments, is_new=is_new)
        with publish_after_failure(state.session, state.ctx, location, options):
            return _write(rows, location, write_mode, options, arguments, is_new=is_new)


def _parse_mode(mode: str) -> WriteMode:
    try:
        return WriteMode(mode)
    except ValueError:
        msg = f"mode: expected one of {', '.join(WriteMode)}"
        raise StatementError(msg) from None


def _write(  # noqa: PLR0913 - the arguments of one write
    frame: DataFrame,
    uri: str,
    mode: WriteMode,
    options: dict[str, str] | None,
    arguments: Mapping[str, Any],
    *,
    is_new: bool,
) -> WriteResult:
    from deltalake import write_deltalake  # noqa: PLC0415 - heavy, already loaded

    state = state_of(frame)
    handles = HandleCache() if state is None else state.session.tables.handles
    source = frame if state is None else coerce(state.ctx, frame)
    given = {key: value for key, value in arguments.items() if value is not None}
    with reuse_reads(), nullcontext() if is_new else handles.lease(uri, options) as table:
        attributes = attributes_of_frame(frame, state, schema=source.schema())
        attributes = with_stored_plan(attributes, frame, state)
        if table is not None and mode is WriteMode.IGNORE:
            with observe_write(attributes):
                write_deltalake(table, source, mode="ignore")  # reads neither argument
            return WriteResult(format=WriteFormat.DELTA, mode=mode, skipped=True)
        reported = report_if_unreached(uri, mode.value, table)
        receipt_id = new_id()
        if table is None:
            given["commit_properties"] = with_receipt_id(given.get("commit_properties"), receipt_id)
        observed = observe_write(attributes)
        # delta-rs appends in mode `ignore` to a table that `write_deltalake` has not seen.
        is_looked_up = table is not None or mode is WriteMode.IGNORE
        opening = nullcontext() if is_looked_up else absent_table(uri)
        with (
            observed,
            opening,
            with_operator_metrics(source) as rows,
            reported,
            watch_writes() as writes,
        ):
            target = uri if table is None else table
            write_deltalake(target, rows, mode=mode.value, storage_options=options, **given)
        if has_quarantined(writes):
            return WriteResult(format=WriteFormat.DELTA, mode=mode, is_quarantined=True)
        if table is not None:
            _publish(frame, uri, table)
            return _result(mode, commit_of_handle(table, writes))
        commit = commit_of_creation(uri, options, receipt_id)
    if state is not None and state.session.tables.serves_location(uri):
        with handles.lease(uri, options) as made:
            if made is not None:
                _publish(frame, uri, made)
    return _result(mode, commit)


def _publish(frame: DataFrame, uri: str, table: DeltaTable) -> None:
    """Serve the table's new version in the frame's session, under each name it is registered under."""
    state = state_of(frame)
    if state is not None:
        state.session.tables.publish_location(state.ctx, uri, table)


def _result(mode: WriteMode, commit: OwnCommit) -> WriteResult:
    return WriteResult(
        format=WriteFormat.DELTA,
        mode=mode,
        version=commit.version,
        rows=commit.rows,
        skipped=commit.version is None and mode is WriteMode.IGNORE,
    )


def write_table(
    frame: DataFrame, name: str, write_options: DataFrameWriteOptions | None = None
) -> bool:
    """Run the frame and write its rows to a registered Delta table.

    Args:
        frame: the rows.
        name: the table's name in the session.
        write_options: the insert operation, APPEND or OVERWRITE. Partition columns are ignored: a
            Delta table has its own.

    Returns:
        False if no Delta table is registered under the name, so that the engine must write it.

    Raises:
        StatementError: the table was registered at a fixed version, or an option is not possible on a
            Delta table.
    """
    state = state_of(frame)
    if state is None:
        return False
    session, ctx = state.session, state.ctx
    entry = session.names.snapshot.get(session.names.parsed_name(ctx, name))
    if entry is None:
        return False
    with report_if_unreached(entry.uri, None):
        session.tables.require_writable(entry)
        mode = _mode_of(write_options)
    rows = _rows_of(frame)
    with report_if_unreached(entry.uri, mode):
        _insert(rows, state, entry, mode)
    return True


def _insert(rows: DataFrame, state: FrameState, entry: Registered, mode: str) -> None:
    """Write rows to a registered table; columns are assigned by position."""
    session, ctx = state.session, state.ctx
    target = unpatched(ctx, "table")(entry.name.sql()).schema()
    target = _columns_for(session, entry, target, len(rows.schema()))
    rows = _with_names_of(rows, target)
    after_failure = publish_after_failure(session, ctx, entry.uri, entry.storage_options)
    with after_failure, session.tables.lease(entry) as table:
        attributes = attributes_of_frame(rows, state, schema=target)
        attributes = with_stored_plan(attributes, rows, state, is_from_text=False)
        with observe_write(attributes):
            stream_into(table, coerce(ctx, rows, target), mode)
        session.tables.publish(ctx, entry, table)


def _columns_for(session: Session, entry: Registered, target: pa.Schema, given: int) -> pa.Schema:
    """Return the table's columns that a frame with `given` columns is written to.

    These are all columns, or the columns that are not generated if the frame has as many of them.
    """
    if given >= len(target):
        return target
    import pyarrow as pa  # noqa: PLC0415 - heavy, already loaded

    with session.tables.lease(entry) as table:
        generated = generated_columns(table)
    fields = [field for field in target if field.name not in generated]
    return pa.schema(fields) if len(fields) == given else target


def _with_names_of(rows: DataFrame, target: pa.Schema) -> DataFrame:
    """Return the rows with the names of the table's columns, because DataFusion inserts by position.

    Raises:
        StatementError: the frame has another number of columns than the table.
    """
    wanted, given = target.names, rows.schema().names
    if len(wanted) != len(given):
        msg = (
            f"write_table: the table has {count_of(len(wanted), 'column')}, the frame {len(given)}"
        )
        raise StatementError(msg)
    if wanted == given:
        return rows
    columns = [rows.col(old).alias(new) for old, new in zip(given, wanted, strict=True)]
    aligned: DataFrame = unpatched(rows, "select")(*columns)
    return aligned


def _rows_of(frame: DataFrame) -> DataFrame:
    """Return the frame whose rows are written: for a statement's frame, run it and return its result."""
    state = state_of(frame)
    return frame if state is None or state.pending is None else state.pending.run()


def _mode_of(options: DataFrameWriteOptions | None) -> str:
    """Return the save mode of write options.

    Python cannot read the options, so an empty in-memory table in a scratch session is written with
    them: the engine's error names the requested operation.

    Raises:
        StatementError: the options ask for REPLACE or for a sort order.
    """
    if options is None:
        return "append"
    from datafusion import SessionContext  # noqa: PLC0415 - heavy, already loaded

    scratch = SessionContext()
    unpatched(scratch, "sql")("CREATE TABLE probe AS SELECT 1 AS probe WHERE false")
    try:
        unpatched(unpatched(scratch, "table")("probe"), "write_table")("probe", options)
    except Exception as error:  # noqa: BLE001 - the error shows which operation the options ask for
        text = str(error)
        if OVERWRITE_REFUSED in text:
            return "overwrite"
        if REPLACE_REFUSED in text:
            msg = (
                "write_table: REPLACE is not possible on a Delta table, which has no primary key:"
                " use MERGE INTO"
            )
            raise StatementError(msg) from None
        msg = (
            "write_table: sort_by is not possible on a Delta table; sort the frame before it is"
            " written"
        )
        raise StatementError(msg) from None
    return "append"
