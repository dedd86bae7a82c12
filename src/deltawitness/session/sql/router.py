"""Where a SQL statement goes: to DataFusion as it is, or to delta-rs when its frame is run."""

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
from deltawitness.session.core.tokens import WITH_BRACKETS, Words, first_word
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
    stores_delta,
)
from deltawitness.session.sql.counts import count_frame, count_in
from deltawitness.session.sql.create_table import create_external_table
from deltawitness.session.sql.dml import Dml, check_same_table, is_dml, target_of
from deltawitness.session.sql.exports import CopyTo
from deltawitness.session.sql.frame_writer import write_delta
from deltawitness.session.sql.name_binding import BoundCall, TextOrigin, bind, reads_of_named
from deltawitness.session.sql.statement_runs import Statement, TrackedStatement
from deltawitness.session.sql.write_facts import observe_write

if TYPE_CHECKING:
    from datafusion import DataFrame
    from datafusion.plan import LogicalPlan

__all__ = ["route", "run_sql"]

_QUERIES = frozenset({"SELECT", "WITH", "VALUES", "(", "SHOW"})
"""First words of statements that only read, whatever comes after."""

_DEFINITIONS = frozenset({"CREATE", "DROP", "SET", "RESET", "PREPARE", "DEALLOCATE"})
"""First words of statements that DataFusion carries out while it plans them."""


def run_sql(session: Session, call: SqlCall) -> DataFrame:
    """Return the frame of a statement.

    Raises:
        StatementError: it is a statement about Delta tables that cannot be carried out.
    """
    if call.named:
        refuse_statements(*call.named.values())
        call = call.with_inlined_texts()
    word = first_word(call.text)
    if word not in _QUERIES:
        command = parse_command(call.text, word, normalize=call.ctx.enable_ident_normalization())
        if command is not None:
            return _run_command(session, call, command)
    session.freshen(call.ctx)
    if word in _DEFINITIONS:
        return _run_definition(session, call, word)
    if word == "INSERT":
        call = call.with_numbered_parameters()
    if word == "EXECUTE":
        return _run_execute(session, call)
    is_read = word in _QUERIES or word == "EXPLAIN"
    snapshot, epoch = session.snapshot, session.epoch
    # A statement that writes may run long after it was made: its names are resolved at once.
    bound = None if is_read else bind(session, call)
    frame: DataFrame = session.plan_with_retry(call.plan)
    reads = reads_of_named(call) if call.named else ()
    origin = _origin(session, call, snapshot, epoch) if bound is None else bound
    state = FrameState(call.ctx, session, snapshot, reads, origin)
    if word in _QUERIES:
        return attach_state(frame, state)  # type: ignore[no-any-return]  # the frame that it was given
    if word == "EXPLAIN":
        return _run_explain(frame, state)
    return route(frame, state, bound)


def _origin(session: Session, call: SqlCall, snapshot: Snapshot, epoch: int) -> TextOrigin:
    return TextOrigin(session, call, epoch, session.config_of(call.ctx), snapshot.default)


def _run_explain(frame: DataFrame, state: FrameState) -> DataFrame:
    plan = unpatched(frame, "logical_plan")()
    if is_of_kind(plan, "Analyze"):
        inside = wrapped_plan(plan.to_variant().input()[0])
        if is_dml(inside) and target_of(inside, state, None) is not None:
            msg = "EXPLAIN ANALYZE would run the statement, and is not possible for writes to Delta"
            raise StatementError(msg)
    return attach_state(frame, state)  # type: ignore[no-any-return]  # the frame that it was given


def route(frame: DataFrame, state: FrameState, bound: BoundCall | None = None) -> DataFrame:
    """Return the frame with the statement that it stands for, as its own plan says it.

    Args:
        frame: a frame as the engine planned it.
        state: what is known of it.
        bound: the text that it was planned from, with its resolved names; None if unknown.

    Raises:
        StatementError: it writes a table with the name of a Delta table of the session, and its text
            is not known: the plan may mean another table, and may have been optimized.
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
            pending = Dml(frame, state, state.session.require_writable(entry), bound)
    elif is_of_kind(plan, "CopyTo"):
        pending = CopyTo(frame, state, bound)
    tracked = None if pending is None else _track(pending, plan)
    known = FrameState(state.ctx, state.session, state.snapshot, state.reads, state.origin, tracked)
    return attach_state(frame, known)  # type: ignore[no-any-return]  # the frame that it was given


_OPERATIONS = {
    "Update": Operation.UPDATE,
    "Delete": Operation.DELETE,
    "Truncate": Operation.DELETE,
    "Merge": Operation.MERGE,
}
"""What a DML plan does that is no WRITE, by what the engine calls it."""


_MODES = {"Append": "append", "Overwrite": "overwrite"}
"""The save mode of a DML plan that is a WRITE."""


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
    """A DML statement on a table that is none of Delta: the engine runs it itself."""

    frame: DataFrame
    state: FrameState
    bound: BoundCall | None

    @property
    def title(self) -> str:
        """Which statement, on which table."""
        return f"DML on {unpatched(self.frame, 'logical_plan')().to_variant().table_name()}"

    def run(self) -> DataFrame:
        """Run it, once, and return the frame of its result."""
        frame = self.frame
        if self.bound is not None:
            frame = self.bound.current_frame(frame, self.state.snapshot)
        batches = call_frame(frame, "collect")
        return count_frame(self.state.ctx, count_in(batches))


# --- statements that DataFusion carries out while it plans them ------------------------------------------


def _run_definition(session: Session, call: SqlCall, word: str) -> DataFrame:
    # The names of prepared statements are folded whatever the session's settings say.
    is_prepared = word in {"PREPARE", "DEALLOCATE"}
    normalize = is_prepared or call.ctx.enable_ident_normalization()
    words = Words(call.text, normalize=normalize)
    if word in {"CREATE", "DROP"} and "[" in call.text and not _is_readable(words):
        words = Words(call.text, normalize=normalize, spelling=WITH_BRACKETS)
    if word == "CREATE" and words.contain("EXTERNAL", "TABLE") and stores_delta(words):
        frame: DataFrame = create_external_table(session, call)
    else:
        frame = _execute_statement(session, call, word, words)
    return attach_state(frame, FrameState(call.ctx, session, session.snapshot))  # type: ignore[no-any-return]  # as above


def _is_readable(words: Words) -> bool:
    """Return whether a definition names what it defines in a spelling that is read."""
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
        frame: DataFrame = session.plan_with_retry(call.plan)
        try:
            if bound is None:
                _RECORDERS[word](session, call, words)
            elif word == "CREATE":
                _record_create(session, bound, words)
            else:
                _record_prepare(session, bound, words)
        except StatementError:
            session.record_change()
            session.forget_missing(call.ctx)  # a form that we do not read
        except Exception as error:  # noqa: BLE001 - the statement has been carried out
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
        session.record_change()
        return
    if_not_exists = words.take("IF", "NOT", "EXISTS")
    name = session.full_name(call.ctx, words.reference())
    if is_view:
        insertion = "" if is_replacing else "OR REPLACE "
        text = call.text[:or_replace_at] + insertion + call.text[or_replace_at:]
        session.record_view(call.ctx, name, lambda _: bound.view(text, name))
    elif not (if_not_exists and bound.resolves(name)):
        session.forget(name)


def _record_drop(session: Session, call: SqlCall, words: Words) -> None:
    words.expect("DROP")
    is_schema = words.take("SCHEMA")
    if not is_schema and not (words.take("TABLE") or words.take("VIEW")):
        return
    words.take("IF", "EXISTS")
    while True:
        parts = words.reference()
        if is_schema:
            default = session.default_of(call.ctx)
            session.forget_schema(*(parts if len(parts) > 1 else (default[0], *parts)))
        else:
            session.forget(session.full_name(call.ctx, parts))
        if not words.take(","):
            return


def _record_set(session: Session, call: SqlCall, words: Words) -> None:
    del words
    text = call.text.lower()
    session.forget_config()
    if "default_" in text:
        session.forget_default()
    if "time_zone" in text or "time zone" in text:
        session.time_zones += 1
    if FILE_CACHE_LIMIT in text:
        session.file_cache_statement = call.text


def _record_prepare(session: Session, bound: BoundCall, words: Words) -> None:
    words.expect("PREPARE")
    session.prepared[words.name()] = bound


def _record_deallocate(session: Session, call: SqlCall, words: Words) -> None:
    del call
    words.expect("DEALLOCATE")
    words.take("PREPARE")
    session.prepared.pop(words.name(), None)


def _run_execute(session: Session, call: SqlCall) -> DataFrame:
    """Return the frame of EXECUTE, over the versions that the session serves.

    The engine stores the optimized plan of PREPARE. The plan that it returns only validates the
    statement; what is executed is planned from the text of PREPARE.
    """
    ctx = call.ctx
    words = Words(call.text)
    words.expect("EXECUTE")
    name = words.name()
    with session.prepare_lock:
        prepared = session.prepared.get(name)
        frame: DataFrame = session.plan_with_retry(call.plan)
    if prepared is None:
        # It was prepared before the session was observed.
        return route(frame, FrameState(ctx, session, session.snapshot))
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
    state = FrameState(call.ctx, session, session.snapshot)
    match command:
        case DescribeHistory():
            entry = session.registered_table(call.ctx, command.name)
            with session.lease(entry) as table:
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
            entry = session.registered_table(call.ctx, command.name)
            if not command.is_read:
                session.require_writable(entry)
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
    """Return the call of the query inside a statement: it may read, and nothing else."""
    from datafusion import SQLOptions  # noqa: PLC0415 - heavy, already loaded

    only_queries = (
        SQLOptions()
        .with_allow_ddl(allow=False)
        .with_allow_dml(allow=False)
        .with_allow_statements(allow=False)
    )
    return SqlCall(call.ctx, query, only_queries, call.param_values, call.named)


def _frame_over(state: FrameState, batch: Any) -> DataFrame:
    """Return a frame over rows that are there."""
    frame: DataFrame = attach_state(unpatched(state.ctx, "read_batches")([batch]), state)
    return frame


def _pending_frame(state: FrameState, frame: DataFrame, pending: PendingPlan) -> DataFrame:
    known = FrameState(state.ctx, state.session, state.snapshot, pending=pending)
    return attach_state(frame, known)  # type: ignore[no-any-return]  # the frame that it was given


@dataclass(frozen=True, slots=True)
class CopyRows:
    """`COPY ... TO ... STORED AS DELTATABLE`, which runs when its frame is asked for rows."""

    rows: DataFrame
    command: CopyToDelta
    state: FrameState

    @property
    def title(self) -> str:
        """What it would do."""
        return self.command.title

    def run(self) -> DataFrame:
        """Write the table and return the count of rows."""
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
    name = session.full_name(ctx, command.name)
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
        session.forget(name)
    table = DeltaTable(command.uri, storage_options=arguments["storage_options"])
    session.register(ctx, name, table)
    return _frame_over(FrameState(ctx, session, session.snapshot), _empty_batch())


def _empty_batch() -> Any:
    import pyarrow as pa  # noqa: PLC0415 - heavy, already loaded

    return pa.RecordBatch.from_pylist([], schema=pa.schema([]))


@dataclass(frozen=True, slots=True)
class MaintenanceStatement:
    """OPTIMIZE, VACUUM or RESTORE, which runs when its frame is asked for rows."""

    command: MaintenanceCommand
    state: FrameState
    entry: Registered
    made_ns: int = field(default_factory=time.time_ns)

    @property
    def title(self) -> str:
        """Which statement, on which table."""
        return self.command.title

    def run(self) -> DataFrame:
        """Carry it out and return what the engine says of it."""
        session, ctx = self.state.session, self.state.ctx
        entry = self.entry
        after_failure = publish_after_failure(session, ctx, entry.uri, entry.storage_options)
        with after_failure, session.lease(entry) as table, observe_write(NO_ATTRIBUTES):
            check_same_table(entry, table, self.made_ns)
            rows = self.command.execute(table)
            if not self.command.is_read:
                session.publish(ctx, entry, table)
        return _frame_over(FrameState(ctx, session, session.snapshot), self.command.result(rows))
