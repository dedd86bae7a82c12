"""Where a SQL statement goes: to DataFusion as it is, or to delta-rs when its frame is run."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from deltawitness.events import InputVersion
from deltawitness.exceptions import StatementError
from deltawitness.internal import report
from deltawitness.observe.enclosure import NO_FACTS
from deltawitness.proxies.calls import SqlCall
from deltawitness.proxies.commands import (
    Command,
    CopyToDelta,
    CreateDeltaTableAs,
    DescribeHistory,
    Maintenance,
    check_allowed,
    history_batch,
    parsed_command,
    stores_delta,
)
from deltawitness.proxies.counts import count_frame, count_in
from deltawitness.proxies.creation import create_external_table
from deltawitness.proxies.delta_writes import write_delta
from deltawitness.proxies.dml import Dml, is_dml, target_of
from deltawitness.proxies.exports import CopyTo
from deltawitness.proxies.failed_writes import publishing_after_failure
from deltawitness.proxies.frames import FrameState, Pending, adopt, refuse_statements, state_of
from deltawitness.proxies.originals import original
from deltawitness.proxies.seams import LIST_OF_FILES, dml_kind, is_of_kind, wrapped_plan
from deltawitness.proxies.sql import Words, first_word, quoted
from deltawitness.proxies.state import Session
from deltawitness.proxies.statement_runs import Statement, TrackedStatement
from deltawitness.proxies.witness import witnessed
from deltawitness.semconv import Operation

if TYPE_CHECKING:
    from datafusion import DataFrame
    from datafusion.plan import LogicalPlan

__all__ = ["routed", "run_sql"]

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
        call = call.spelled()
    word = first_word(call.text)
    if word not in _QUERIES:
        command = parsed_command(call.text, word, normalize=call.ctx.enable_ident_normalization())
        if command is not None:
            return _commanded(session, call, command)
    session.freshen(call.ctx)
    if word in _DEFINITIONS:
        return _defined(session, call, word)
    if word == "INSERT":
        call = call.with_numbers()
    if word == "EXECUTE":
        return _executed(session, call)
    snapshot = session.snapshot
    frame: DataFrame = session.reading(call.plan)
    reads = _reads_of(call) if call.named else ()
    state = FrameState(call.ctx, session, snapshot, reads, partial(run_sql, session, call))
    if word in _QUERIES:
        return adopt(frame, state)  # type: ignore[no-any-return]  # the frame that it was given
    if word == "EXPLAIN":
        return _explained(frame, state)
    return routed(frame, state, call)


def _reads_of(call: SqlCall) -> tuple[InputVersion, ...]:
    """Return what the frames that stand for tables in a statement read."""
    return tuple(
        read
        for value in call.named.values()
        if (known := state_of(value)) is not None
        for read in known.inputs(original(value, "logical_plan")().display_indent())
    )


def _explained(frame: DataFrame, state: FrameState) -> DataFrame:
    plan = original(frame, "logical_plan")()
    if is_of_kind(plan, "Analyze"):
        inside = wrapped_plan(plan.to_variant().input()[0])
        if is_dml(inside) and target_of(inside, state, None) is not None:
            msg = "EXPLAIN ANALYZE would run the statement, and is not possible for writes to Delta"
            raise StatementError(msg)
    return adopt(frame, state)  # type: ignore[no-any-return]  # the frame that it was given


def routed(frame: DataFrame, state: FrameState, call: SqlCall | None = None) -> DataFrame:
    """Return the frame with the statement that it stands for, as its own plan says it.

    Args:
        frame: a frame as the engine planned it.
        state: what is known of it.
        call: the text that it was planned from; None when it came as a plan.
    """
    plan = original(frame, "logical_plan")()
    pending: Statement | None = None
    if is_dml(plan):
        entry = target_of(plan, state, call)
        if entry is None:
            pending = EngineDml(frame, state)
        else:
            pending = Dml(frame, state, state.session.checked_writable(entry), call)
    elif is_of_kind(plan, "CopyTo"):
        pending = CopyTo(frame, state)
    tracked = None if pending is None else _tracked(pending, plan)
    known = FrameState(state.ctx, state.session, state.snapshot, state.reads, state.origin, tracked)
    return adopt(frame, known)  # type: ignore[no-any-return]  # the frame that it was given


_OPERATIONS = {
    "Update": Operation.UPDATE,
    "Delete": Operation.DELETE,
    "Truncate": Operation.DELETE,
    "Merge": Operation.MERGE,
}
"""What a DML plan does that is no WRITE, by what the engine calls it."""


_MODES = {"Append": "append", "Overwrite": "overwrite"}
"""The save mode of a DML plan that is a WRITE."""


def _tracked(pending: Statement, plan: LogicalPlan) -> TrackedStatement:
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

    @property
    def title(self) -> str:
        """Which statement, on which table."""
        return f"DML on {original(self.frame, 'logical_plan')().to_variant().table_name()}"

    def run(self) -> DataFrame:
        """Run it, once, and return the frame of its result."""
        batches = original(self.frame, "collect")()
        return count_frame(self.state.ctx, count_in(batches))


# --- statements that DataFusion carries out while it plans them ------------------------------------------


def _defined(session: Session, call: SqlCall, word: str) -> DataFrame:
    words = Words(call.text, normalize=call.ctx.enable_ident_normalization())
    if word == "CREATE" and words.contain("EXTERNAL", "TABLE") and stores_delta(words):
        frame: DataFrame = create_external_table(session, call)
    else:
        frame = session.reading(call.plan)
        try:
            _NOTES[word](session, call, words)
        except StatementError:
            session.forget_what_is_gone(call.ctx)  # a form that we do not read
        except Exception as error:  # noqa: BLE001 - the statement has been carried out
            report("session", error)
    return adopt(frame, FrameState(call.ctx, session, session.snapshot))  # type: ignore[no-any-return]  # as above


def _note_create(session: Session, call: SqlCall, words: Words) -> None:
    words.expect("CREATE")
    or_replace_at = words.position
    is_replacing = words.take("OR", "REPLACE")
    words.take("TEMPORARY") or words.take("TEMP") or words.take("UNBOUNDED")
    words.take("EXTERNAL")
    is_view = words.take("VIEW")
    if not is_view and not words.take("TABLE"):
        return
    if_not_exists = words.take("IF", "NOT", "EXISTS")
    name = session.full_name(call.ctx, words.reference())
    if is_view:
        insertion = "" if is_replacing else "OR REPLACE "
        text = call.text[:or_replace_at] + insertion + call.text[or_replace_at:]
        session.note_view(call.ctx, name, lambda _: call.plan(text))
    elif not if_not_exists:
        session.forget(name)


def _note_drop(session: Session, call: SqlCall, words: Words) -> None:
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


def _note_set(session: Session, call: SqlCall, words: Words) -> None:
    del words
    text = call.text.lower()
    if "default_" in text:
        session.forget_default()
    if "time_zone" in text or "time zone" in text:
        session.time_zones += 1
    if LIST_OF_FILES in text:
        session.list_of_files = call.text


def _note_prepare(session: Session, call: SqlCall, words: Words) -> None:
    words.expect("PREPARE")
    session.default_of(call.ctx)
    session.prepared[words.name()] = call.text, session.snapshot


def _note_deallocate(session: Session, call: SqlCall, words: Words) -> None:
    del call
    words.expect("DEALLOCATE")
    words.take("PREPARE")
    session.prepared.pop(words.name(), None)


def _executed(session: Session, call: SqlCall) -> DataFrame:
    """Return the frame of EXECUTE, planned anew when what the session serves has changed.

    The engine keeps a prepared plan as it was planned, with the versions of then.
    """
    words = Words(call.text, normalize=call.ctx.enable_ident_normalization())
    words.expect("EXECUTE")
    name = words.name()
    with session.preparing:
        text, snapshot = session.prepared.get(name, ("", session.snapshot))
        # Under another default schema the text would mean other tables.
        can_be_planned = snapshot.default == session.snapshot.default
        if snapshot is not session.snapshot and can_be_planned:
            plan = original(call.ctx, "sql")
            with suppress(Exception):  # after a failure before it may not be there
                plan(f"DEALLOCATE {quoted(name)}")
            plan(text)
            snapshot = session.snapshot
            session.prepared[name] = text, snapshot
        frame: DataFrame = session.reading(call.plan)
    origin = partial(run_sql, session, call) if can_be_planned else None
    prepared = SqlCall(call.ctx, _prepared_text(text), is_prepared=True) if text else None
    return routed(frame, FrameState(call.ctx, session, snapshot, (), origin), prepared)


def _prepared_text(text: str) -> str:
    """Return the statement that a PREPARE statement prepares."""
    words = Words(text)
    words.until({"AS"})
    words.expect("AS")
    return words.rest()


_NOTES: dict[str, Callable[[Session, SqlCall, Words], None]] = {
    "CREATE": _note_create,
    "DROP": _note_drop,
    "SET": _note_set,
    "RESET": _note_set,
    "PREPARE": _note_prepare,
    "DEALLOCATE": _note_deallocate,
}


# --- statements that DataFusion has no plan for --------------------------------------------------------


def _commanded(session: Session, call: SqlCall, command: Command) -> DataFrame:
    state = FrameState(call.ctx, session, session.snapshot)
    match command:
        case DescribeHistory():
            entry = session.registered(call.ctx, command.name)
            with session.lease(entry) as table:
                return _over(state, history_batch(table, command.limit))
        case CreateDeltaTableAs():
            check_allowed(call, "ddl")
            return _create_as(session, call, command, state)
        case CopyToDelta():
            check_allowed(call, "dml")
            rows = run_sql(session, _query_in(call, command.query))
            copy = TrackedStatement(CopyRows(rows, command, state), Operation.WRITE)
            return _waiting(state, count_frame(call.ctx, 0), copy)
        case Maintenance():
            check_allowed(call, "dml")
            entry = session.registered(call.ctx, command.name)
            if not command.is_read:
                session.checked_writable(entry)
            empty = _over(state, command.result([]))
            operation = Operation(command.title.partition(" ")[0])
            kept = TrackedStatement(
                Maintained(command, state), operation, is_read=command.is_read, target=entry.uri
            )
            return _waiting(state, empty, kept)


def _query_in(call: SqlCall, query: str) -> SqlCall:
    """Return the call of the query inside a statement: it may read, and nothing else."""
    from datafusion import SQLOptions  # noqa: PLC0415 - heavy, and there already

    only_queries = (
        SQLOptions()
        .with_allow_ddl(allow=False)
        .with_allow_dml(allow=False)
        .with_allow_statements(allow=False)
    )
    return SqlCall(call.ctx, query, only_queries, call.param_values, call.named)


def _over(state: FrameState, batch: Any) -> DataFrame:
    """Return a frame over rows that are there."""
    frame: DataFrame = adopt(original(state.ctx, "read_batches")([batch]), state)
    return frame


def _waiting(state: FrameState, frame: DataFrame, pending: Pending) -> DataFrame:
    known = FrameState(state.ctx, state.session, state.snapshot, pending=pending)
    return adopt(frame, known)  # type: ignore[no-any-return]  # the frame that it was given


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
        written = write_delta(self.rows, self.command.uri, **_write_arguments(self.command))
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
    if original(ctx, "table_exist")(name.sql()):
        if command.if_not_exists:
            return _over(state, _nothing())
        if not command.or_replace:
            msg = f"the table {command.name[-1]} already exists"
            raise StatementError(msg)
    rows = run_sql(session, _query_in(call, command.query))
    arguments = _write_arguments(command)
    default = {"mode": "overwrite", "schema_mode": "overwrite"} if command.or_replace else {}
    write_delta(rows, command.uri, **{"mode": "error", **default, **arguments})
    if command.or_replace:
        original(ctx, "deregister_table")(name.sql())
        session.forget(name)
    table = DeltaTable(command.uri, storage_options=arguments["storage_options"])
    session.register(ctx, name, table)
    return _over(FrameState(ctx, session, session.snapshot), _nothing())


def _nothing() -> Any:
    import pyarrow as pa  # noqa: PLC0415 - heavy, and there already

    return pa.RecordBatch.from_pylist([], schema=pa.schema([]))


@dataclass(frozen=True, slots=True)
class Maintained:
    """OPTIMIZE, VACUUM or RESTORE, which runs when its frame is asked for rows."""

    command: Maintenance
    state: FrameState

    @property
    def title(self) -> str:
        """Which statement, on which table."""
        return self.command.title

    def run(self) -> DataFrame:
        """Carry it out and return what the engine says of it."""
        session, ctx = self.state.session, self.state.ctx
        entry = session.registered(ctx, self.command.name)
        if not self.command.is_read:
            session.checked_writable(entry)
        after_failure = publishing_after_failure(session, ctx, entry.uri, entry.storage_options)
        with after_failure, session.lease(entry) as table, witnessed(NO_FACTS):
            rows = self.command.act(table)
            if not self.command.is_read:
                session.publish(ctx, entry, table)
        return _over(FrameState(ctx, session, session.snapshot), self.command.result(rows))
