"""Route a SQL statement to DataFusion, or to delta-rs when its frame is run."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from deltawitness.exceptions import StatementError
from deltawitness.internal_errors import report
from deltawitness.observe.write_context import NO_ATTRIBUTES
from deltawitness.semconv import Operation
from deltawitness.session.core.failed_writes import publish_after_failure
from deltawitness.session.core.filter_fallback import call_frame
from deltawitness.session.core.frames import (
    FrameState,
    PendingPlan,
    attach_state,
    bind_origin,
    refuse_statements,
    replan,
    state_of,
)
from deltawitness.session.core.private_api import (
    FILE_CACHE_LIMIT,
    dml_kind,
    is_of_kind,
    wrapped_plan,
)
from deltawitness.session.core.snapshot import Registered, Snapshot
from deltawitness.session.core.sql_call import SqlCall
from deltawitness.session.core.state import Session
from deltawitness.session.core.tokens import WITH_BRACKETS, Words
from deltawitness.session.core.unpatched import unpatched
from deltawitness.session.sql.commands import (
    Command,
    CopyToDelta,
    CreateDeltaTableAs,
    DescribeHistory,
    MaintenanceCommand,
    check_allowed,
    history_batch,
    parse_command,
    refuse_explained_command,
    stores_delta,
)
from deltawitness.session.sql.counts import count_frame, count_in
from deltawitness.session.sql.create_table import create_external_table
from deltawitness.session.sql.dml import Dml, check_same_table, is_dml, target_of
from deltawitness.session.sql.exports import CopyTo
from deltawitness.session.sql.frame_writer import write_delta
from deltawitness.session.sql.name_binding import BoundCall, TextOrigin, bind, reads_of_named
from deltawitness.session.sql.observe_writes import observe_write
from deltawitness.session.sql.statement_runs import Statement, TrackedStatement
from deltawitness.sql_statements import DEFINITION_WORDS, QUERY_WORDS, first_word

if TYPE_CHECKING:
    from datafusion import DataFrame
    from datafusion.plan import LogicalPlan

__all__ = ["route", "run_sql"]


def run_sql(session: Session, call: SqlCall) -> DataFrame:
    """Return the frame of a statement.

    Args:
        session: the state of the session.
        call: the statement's call.

    Raises:
        StatementError: the statement is one on Delta tables that cannot be run.
    """
    if call.named:
        refuse_statements(*call.named.values())
        call = call.with_inlined_texts()
    word = first_word(call.text)
    if word not in QUERY_WORDS:
        normalize = call.ctx.enable_ident_normalization()
        if word == "EXPLAIN":
            refuse_explained_command(call.text, normalize=normalize)
        command = parse_command(call.text, word, normalize=normalize)
        if command is not None:
            return _run_command(session, call, command)
    session.views.freshen(call.ctx)
    if word in DEFINITION_WORDS:
        return _run_definition(session, call, word)
    if word == "INSERT":
        call = call.with_numbered_parameters()
    if word == "EXECUTE":
        return _run_execute(session, call)
    is_read = word in QUERY_WORDS or word == "EXPLAIN"
    snapshot, epoch = session.names.snapshot, session.names.epoch
    # A statement that writes may run long after it was created, so its names are resolved now.
    bound = None if is_read else bind(session, call)
    frame: DataFrame = session.swaps.plan_with_retry(call.plan)
    reads = reads_of_named(call) if call.named else ()
    origin = _origin(session, call, snapshot, epoch) if bound is None else bound
    state = FrameState(call.ctx, session, snapshot, reads, origin)
    if word in QUERY_WORDS:
        return attach_state(frame, state)  # type: ignore[no-any-return]  # returns its argument
    if word == "EXPLAIN":
        return _run_explain(frame, state)
    return route(frame, state, bound)


def _origin(session: Session, call: SqlCall, snapshot: Snapshot, epoch: int) -> TextOrigin:
    return TextOrigin(session, call, epoch, session.settings.config_of(call.ctx), snapshot.default)


def _run_explain(frame: DataFrame, state: FrameState) -> DataFrame:
    plan = unpatched(frame, "logical_plan")()
    if is_of_kind(plan, "Analyze"):
        inside = wrapped_plan(plan.to_variant().input()[0])
        if is_dml(inside) and target_of(inside, state, None) is not None:
            msg = (
                "EXPLAIN ANALYZE of a write to a Delta table is not supported, because it would run the"
                " statement: use EXPLAIN"
            )
            raise StatementError(msg)
    return attach_state(frame, state)  # type: ignore[no-any-return]  # returns its argument


def route(frame: DataFrame, state: FrameState, bound: BoundCall | None = None) -> DataFrame:
    """Attach a state to a frame, with a pending statement if the frame's plan is a DML or COPY.

    Args:
        frame: a frame as the engine planned it.
        state: the state of the frame, without a pending statement.
        bound: the text that the frame was planned from, with its resolved names; None if unknown.

    Returns:
        The same frame.

    Raises:
        StatementError: the plan writes a table with the name of a Delta table of the session, and its
            text is unknown: the plan may write another table and may have been optimized.
    """
    plan = unpatched(frame, "logical_plan")()
    pending: Statement | None = None
    if is_dml(plan):
        entry = target_of(plan, state, bound)
        if entry is None:
            pending = EngineDml(frame, state, bound)
        elif bound is None:
            msg = (
                f"the statement on {entry.name.table} was not made by this session: run its text here,"
                " or prepare it here"
            )
            raise StatementError(msg)
        else:
            pending = Dml(frame, state, state.session.tables.require_writable(entry), bound)
    elif is_of_kind(plan, "CopyTo"):
        pending = CopyTo(frame, state, bound)
    tracked = None if pending is None else _track(pending, plan)
    full_state = FrameState(
        state.ctx, state.session, state.snapshot, state.reads, state.origin, tracked
    )
    return attach_state(frame, full_state)  # type: ignore[no-any-return]  # returns its argument


_OPERATIONS = {
    "Update": Operation.UPDATE,
    "Delete": Operation.DELETE,
    "Truncate": Operation.DELETE,
    "Merge": Operation.MERGE,
}
"""The operations of DML plans other than WRITE, by the engine's name for the plan."""


_MODES = {"Append": "append", "Overwrite": "overwrite"}
"""The save modes of DML plans that are a WRITE, by the engine's name for the plan."""


def _track(pending: Statement, plan: LogicalPlan) -> TrackedStatement:
    if not is_dml(plan):
        return TrackedStatement(pending, Operation.COPY)
    kind = dml_kind(plan)
    operation = _OPERATIONS.get(kind, Operation.WRITE)
    if not isinstance(pending, Dml):
        return TrackedStatement(pending, operation)
    return TrackedStatement(pending, operation, target=pending.entry.uri, mode=_MODES.get(kind))


@dataclass(frozen=True, slots=True)
class EngineDml:
    """A DML statement on a table that is not a Delta table; the engine runs it."""

    frame: DataFrame
    state: FrameState
    bound: BoundCall | None

    @property
    def title(self) -> str:
        """The kind of statement and the table's name."""
        return f"DML on {unpatched(self.frame, 'logical_plan')().to_variant().table_name()}"

    def run(self) -> DataFrame:
        """Run the statement once and return the frame of its result."""
        frame = self.frame
        if self.bound is not None:
            frame = self.bound.current_frame(frame, self.state.snapshot)
        batches = call_frame(frame, "collect")
        return count_frame(self.state.ctx, count_in(batches))


# --- statements that DataFusion executes while it plans them ---------------------------------------------


def _run_definition(session: Session, call: SqlCall, word: str) -> DataFrame:
    # DataFusion folds the names of prepared statements for any setting of the session.
    is_prepared = word in {"PREPARE", "DEALLOCATE"}
    normalize = is_prepared or call.ctx.enable_ident_normalization()
    words = Words(call.text, normalize=normalize)
    if word in {"CREATE", "DROP"} and "[" in call.text and not _is_readable(words):
        words = Words(call.text, normalize=normalize, spelling=WITH_BRACKETS)
    if word == "CREATE" and words.contain("EXTERNAL", "TABLE") and stores_delta(words):
        frame: DataFrame = create_external_table(session, call)
    else:
        frame = _execute_statement(session, call, word, words)
    return attach_state(frame, FrameState(call.ctx, session, session.names.snapshot))  # type: ignore[no-any-return]  # as above


def _is_readable(words: Words) -> bool:
    """Return whether the name in a CREATE or DROP statement can be parsed in the default spelling."""
    try:
        _kind_and_name(words)
    except StatementError:
        return False
    finally:
        words.rewind()
    return True


def _kind_and_name(words: Words) -> tuple[str, ...]:
    words.skip()
    words.take("OR", "REPLACE") or words.take("OR", "ALTER")
    for word in ("TEMPORARY", "TEMP", "UNBOUNDED", "EXTERNAL", "TABLE", "VIEW", "SCHEMA"):
        words.take(word)
    words.take("IF", "NOT", "EXISTS") or words.take("IF", "EXISTS")
    return words.reference()


def _execute_statement(session: Session, call: SqlCall, word: str, words: Words) -> DataFrame:
    # A view or a prepared statement reads what its names resolve to before it is created.
    bound = bind(session, call) if word in {"CREATE", "PREPARE"} else None
    with session.prepare_lock if word in {"PREPARE", "DEALLOCATE"} else nullcontext():
        frame: DataFrame = session.swaps.plan_with_retry(call.plan)
        try:
            if bound is None:
                _RECORDERS[word](session, call, words)
            elif word == "CREATE":
                _record_create(session, bound, words)
            else:
                _record_prepare(session, bound, words)
        except StatementError:
            session.names.record_change()
            session.names.forget_missing(call.ctx)  # a form that the parser does not support
        except Exception as error:  # noqa: BLE001 - the statement has been executed
            report("session", error)
    return frame


def _record_create(session: Session, bound: BoundCall, words: Words) -> None:
    call = bound.call
    words.expect("CREATE")
    or_replace_at = words.position
    is_replacing = words.take("OR", "REPLACE") or words.take("OR", "ALTER")
    words.take("TEMPORARY") or words.take("TEMP") or words.take("UNBOUNDED")
    words.take("EXTERNAL")
    is_view = words.take("VIEW")
    if not is_view and not words.take("TABLE"):
        session.names.record_change()
        return
    if_not_exists = words.take("IF", "NOT", "EXISTS")
    name = session.names.full_name(call.ctx, words.reference())
    if is_view:
        insertion = "" if is_replacing else "OR REPLACE "
        text = call.text[:or_replace_at] + insertion + call.text[or_replace_at:]
        session.views.record(call.ctx, name, lambda _: bound.view(text, name))
    elif not (if_not_exists and bound.resolves(name)):
        session.names.forget(name)


def _record_drop(session: Session, call: SqlCall, words: Words) -> None:
    words.expect("DROP")
    is_schema = words.take("SCHEMA")
    if not is_schema and not (words.take("TABLE") or words.take("VIEW")):
        return
    words.take("IF", "EXISTS")
    while True:
        parts = words.reference()
        if is_schema:
            default = session.names.default_of(call.ctx)
            session.names.forget_schema(*(parts if len(parts) > 1 else (default[0], *parts)))
        else:
            session.names.forget(session.names.full_name(call.ctx, parts))
        if not words.take(","):
            return


def _record_set(session: Session, call: SqlCall, words: Words) -> None:
    del words
    text = call.text.lower()
    session.settings.forget_config()
    if "default_" in text:
        session.names.forget_default()
    if "time_zone" in text or "time zone" in text:
        session.settings.time_zones += 1
    if FILE_CACHE_LIMIT in text:
        session.settings.file_cache_statement = call.text


def _record_prepare(session: Session, bound: BoundCall, words: Words) -> None:
    words.expect("PREPARE")
    session.prepared[words.name()] = bound


def _record_deallocate(session: Session, call: SqlCall, words: Words) -> None:
    del call
    words.expect("DEALLOCATE")
    words.take("PREPARE")
    session.prepared.pop(words.name(), None)


def _run_execute(session: Session, call: SqlCall) -> DataFrame:
    """Return the frame of EXECUTE over the versions that the session serves.

    The engine stores the optimized plan of PREPARE. Its plan of EXECUTE is used only to validate the
    statement; the frame is planned from the text of PREPARE.
    """
    ctx = call.ctx
    words = Words(call.text)
    words.expect("EXECUTE")
    name = words.name()
    with session.prepare_lock:
        prepared = session.prepared.get(name)
        frame: DataFrame = session.swaps.plan_with_retry(call.plan)
    if prepared is None:
        # The statement was prepared before the session was observed.
        return route(frame, FrameState(ctx, session, session.names.snapshot))
    bound = prepared.for_execute(call)
    state = FrameState(ctx, session, prepared.snapshot)
    if bound.tables or bound.views or bound.cache_names:
        frame = bound.frame()
        state = state_of(frame) or state
    return route(frame, state, bound)


_RECORDERS: dict[str, Callable[[Session, SqlCall, Words], None]] = {
    "DROP": _record_drop,
    "SET": _record_set,
    "RESET": _record_set,
    "DEALLOCATE": _record_deallocate,
}


# --- statements that DataFusion has no plan for --------------------------------------------------------


def _run_command(session: Session, call: SqlCall, command: Command) -> DataFrame:
    state = FrameState(call.ctx, session, session.names.snapshot)
    match command:
        case DescribeHistory():
            entry = session.tables.registered_table(call.ctx, command.name)
            with session.tables.lease(entry) as table:
                return _frame_over(state, history_batch(table, command.limit))
        case CreateDeltaTableAs():
            check_allowed(call, "ddl")
            return _create_as(session, call, command, state)
        case CopyToDelta():
            check_allowed(call, "dml")
            rows = run_sql(session, _query_in(call, command.query))
            bind_origin(rows)
            copy = TrackedStatement(CopyRows(rows, command, state), Operation.WRITE)
            return _pending_frame(state, count_frame(call.ctx, 0), copy)
        case MaintenanceCommand():
            check_allowed(call, "dml")
            entry = session.tables.registered_table(call.ctx, command.name)
            if not command.is_read:
                session.tables.require_writable(entry)
            empty = _frame_over(state, command.result([]))
            operation = Operation(command.title.partition(" ")[0])
            tracked = TrackedStatement(
                MaintenanceStatement(command, state, entry),
                operation,
                is_read=command.is_read,
                target=entry.uri,
            )
            return _pending_frame(state, empty, tracked)


def _query_in(call: SqlCall, query: str) -> SqlCall:
    """Return the call of the query inside a statement, with options that allow only queries."""
    from datafusion import SQLOptions  # noqa: PLC0415 - heavy, already loaded

    only_queries = (
        SQLOptions()
        .with_allow_ddl(allow=False)
        .with_allow_dml(allow=False)
        .with_allow_statements(allow=False)
    )
    return SqlCall(call.ctx, query, only_queries, call.param_values, call.named)


def _frame_over(state: FrameState, batch: Any) -> DataFrame:
    """Return a frame over a batch in memory."""
    frame: DataFrame = attach_state(unpatched(state.ctx, "read_batches")([batch]), state)
    return frame


def _pending_frame(state: FrameState, frame: DataFrame, pending: PendingPlan) -> DataFrame:
    full_state = FrameState(state.ctx, state.session, state.snapshot, pending=pending)
    return attach_state(frame, full_state)  # type: ignore[no-any-return]  # returns its argument


@dataclass(frozen=True, slots=True)
class CopyRows:
    """`COPY ... TO ... STORED AS DELTATABLE`, which runs when its frame's rows are requested."""

    rows: DataFrame
    command: CopyToDelta
    state: FrameState

    @property
    def title(self) -> str:
        """What the statement does, without its literals."""
        return self.command.title

    def run(self) -> DataFrame:
        """Write the table and return the frame with the count of rows."""
        written = write_delta(replan(self.rows), self.command.uri, **_write_arguments(self.command))
        return count_frame(self.state.ctx, written.rows or 0)


def _write_arguments(command: CopyToDelta | CreateDeltaTableAs) -> dict[str, Any]:
    ours = {"mode", "schema_mode"}
    options = {key.lower() if key.lower() in ours else key: v for key, v in command.options.items()}
    arguments: dict[str, Any] = {key: options.pop(key) for key in ours & set(options)}
    properties = {key: options.pop(key) for key in list(options) if key.startswith("delta.")}
    return {
        "partition_by": command.partition_by,
        "storage_options": options or None,
        "configuration": properties or None,
        **arguments,
    }


def _create_as(
    session: Session, call: SqlCall, command: CreateDeltaTableAs, state: FrameState
) -> DataFrame:
    from deltalake import DeltaTable  # noqa: PLC0415 - heavy

    ctx = call.ctx
    name = session.names.full_name(ctx, command.name)
    if unpatched(ctx, "table_exist")(name.sql()):
        if command.if_not_exists:
            return _frame_over(state, _empty_batch())
        if not command.or_replace:
            msg = f"the table {command.name[-1]} already exists"
            raise StatementError(msg)
    rows = run_sql(session, _query_in(call, command.query))
    arguments = _write_arguments(command)
    default = {"mode": "overwrite", "schema_mode": "overwrite"} if command.or_replace else {}
    write_delta(rows, command.uri, **{"mode": "error", **default, **arguments})
    if command.or_replace:
        unpatched(ctx, "deregister_table")(name.sql())
        session.names.forget(name)
    table = DeltaTable(command.uri, storage_options=arguments["storage_options"])
    session.tables.register(ctx, name, table)
    return _frame_over(FrameState(ctx, session, session.names.snapshot), _empty_batch())


def _empty_batch() -> Any:
    import pyarrow as pa  # noqa: PLC0415 - heavy, already loaded

    return pa.RecordBatch.from_pylist([], schema=pa.schema([]))


@dataclass(frozen=True, slots=True)
class MaintenanceStatement:
    """OPTIMIZE, VACUUM or RESTORE, which runs when its frame's rows are requested."""

    command: MaintenanceCommand
    state: FrameState
    entry: Registered
    made_ns: int = field(default_factory=time.time_ns)

    @property
    def title(self) -> str:
        """The kind of statement and the table's name."""
        return self.command.title

    def run(self) -> DataFrame:
        """Run the command and return a frame of its metrics.

        Raises:
            StatementError: the table was dropped and recreated after the statement was created.
        """
        session, ctx = self.state.session, self.state.ctx
        entry = self.entry
        after_failure = publish_after_failure(session, ctx, entry.uri, entry.storage_options)
        with after_failure, session.tables.lease(entry) as table, observe_write(NO_ATTRIBUTES):
            check_same_table(entry, table, self.made_ns)
            rows = self.command.execute(table)
            if not self.command.is_read:
                session.tables.publish(ctx, entry, table)
        return _frame_over(
            FrameState(ctx, session, session.names.snapshot), self.command.result(rows)
        )
