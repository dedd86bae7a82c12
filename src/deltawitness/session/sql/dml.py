"""INSERT, UPDATE, DELETE, TRUNCATE and MERGE on a Delta table: DataFusion plans, delta-rs writes.

The statement is read from DataFusion's logical plan. The plan's rows are streamed to delta-rs. The
filter and the assignments are passed to delta-rs if delta-rs evaluates them alike
(:mod:`deltawitness.session.sql.delta_sql`); otherwise the session evaluates them.

The plan must be the unoptimized plan of the statement's text: the optimizer moves a filter into a
join or into the scan, or proves that it is never true. A plan of another shape is refused
(:mod:`deltawitness.session.sql.plan_shapes`).
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from deltawitness.exceptions import StatementError
from deltawitness.session.core.failed_writes import publish_after_failure
from deltawitness.session.core.frame_attributes import attributes_of_frame
from deltawitness.session.core.frames import FrameState
from deltawitness.session.core.private_api import (
    OUTER_REFERENCE,
    cast_type,
    dml_kind,
    is_of_kind,
    wrapped_plan,
)
from deltawitness.session.core.snapshot import Registered, is_printed_as
from deltawitness.session.core.tokens import Words
from deltawitness.session.core.unpatched import unpatched
from deltawitness.session.sql.coercion import coerce
from deltawitness.session.sql.counts import count_frame
from deltawitness.session.sql.delta_sql import (
    NotTranslatable,
    column_name,
    columns_in,
    filter_sql,
    is_volatile,
    unaliased,
    value_sql,
)
from deltawitness.session.sql.frame_writer import stream_into
from deltawitness.session.sql.generated_columns import generated_columns, without_columns
from deltawitness.session.sql.merge import execute_merge
from deltawitness.session.sql.merge_apply import (
    SOURCE,
    Change,
    apply_changes,
    changed_rows,
    matching,
)
from deltawitness.session.sql.merge_columns import columns_of_merge
from deltawitness.session.sql.merge_parser import Merge
from deltawitness.session.sql.name_binding import BoundCall, check_same_plan
from deltawitness.session.sql.observe_writes import observe_write
from deltawitness.session.sql.plan_shapes import DeleteShape, UpdateShape
from deltawitness.session.sql.planner import Planner
from deltawitness.session.sql.write_plans import with_stored_plan
from deltawitness.sql_quoting import quote_identifier

if TYPE_CHECKING:
    import pyarrow as pa
    from datafusion import DataFrame, SessionContext
    from datafusion.plan import LogicalPlan
    from deltalake import DeltaTable

__all__ = ["Dml", "check_same_table", "is_dml", "target_of"]


def is_dml(plan: LogicalPlan) -> bool:
    """Return whether a plan is a DML statement."""
    return is_of_kind(plan, "DmlStatement")


def target_of(plan: LogicalPlan, state: FrameState, bound: BoundCall | None) -> Registered | None:
    """Return the Delta table that a DML plan writes; None if its target is not a Delta table.

    The plan prints the target's name without quotes. If the printed name may be the name of two
    tables, the text of the statement decides.

    Raises:
        StatementError: the text does not decide which table it is.
    """
    printed = plan.to_variant().table_name()
    found = state.snapshot.named(printed)
    if not found or bound is None:
        return found[0] if found else None
    others = [name for name in (*bound.providers, *bound.views) if is_printed_as(name, printed)]
    if len(found) == 1 and not others:
        return found[0]
    with suppress(StatementError):
        name = bound.snapshot.full_name(_target_in(bound))
        return next((entry for entry in found if entry.name == name), None)
    msg = "the name of the table to write is ambiguous: write it in double quotes"
    raise StatementError(msg)


def check_same_table(entry: Registered, table: DeltaTable, made_ns: int) -> None:
    """Refuse to write a table that was dropped and recreated after the statement was created.

    Args:
        entry: the session's entry of the table when the statement was created.
        table: the table at that location now.
        made_ns: when the statement was created, in nanoseconds since the epoch.

    Raises:
        StatementError: the table at the location is another table, created after the statement.
    """
    metadata = table.metadata()
    if str(metadata.id) == entry.identity:
        return
    created_ms = metadata.created_time
    if created_ms is None or created_ms * 1_000_000 > made_ns:
        msg = (
            f"{entry.name.table} was dropped and created again since this statement was made: run its"
            " text again"
        )
        raise StatementError(msg)


@dataclass(frozen=True, slots=True)
class Dml:
    """A DML statement on a Delta table, which runs when its frame's rows are requested.

    It writes the newest version of the table that the target's name resolved to when the statement
    was created.

    Attributes:
        frame: the statement's frame as the engine planned it.
        state: the state of the frame.
        entry: the table that the statement writes.
        bound: the statement's text with its resolved names.
    """

    frame: DataFrame
    state: FrameState
    entry: Registered
    bound: BoundCall

    @property
    def title(self) -> str:
        """The kind of statement and the table's name."""
        kind = dml_kind(unpatched(self.frame, "logical_plan")())
        return f"{_TITLES.get(kind, kind.upper())} {self.entry.name.table}"

    def run(self) -> DataFrame:
        """Run the statement on the newest version of the table; return the frame with the row count.

        Raises:
            StatementError: the statement cannot be run, or a table that it uses has changed.
        """
        session, ctx = self.state.session, self.state.ctx
        entry = session.tables.current_entry(self.entry)
        after_failure = publish_after_failure(session, ctx, entry.uri, entry.storage_options)
        with after_failure, session.tables.lease(entry) as table:
            check_same_table(self.entry, table, self.bound.made_ns)
            current = replace(entry, version=table.version(), identity=str(table.metadata().id))
            if not current.is_same_version(entry):
                session.tables.publish(ctx, entry, table)
                entry = current
            plan, state, planner = self._current_plan(entry, table)
            count = _Run(ctx, state, entry, table, self.bound, planner).execute(plan)
            session.tables.publish(ctx, entry, table)
        return count_frame(ctx, count)

    def _current_plan(
        self, entry: Registered, table: DeltaTable
    ) -> tuple[LogicalPlan, FrameState, Planner | None]:
        """Return the plan over the current versions; the existing plan if no version has changed.

        Raises:
            StatementError: the columns of a table have changed since the statement was created.
        """
        plan = unpatched(self.frame, "logical_plan")()
        has_new_version = self.bound.has_new_version(plan, self.state.snapshot, entry)
        if dml_kind(plan) != "Merge" and not has_new_version:
            return plan, self.state, None
        planner = Planner(self.bound, (entry, table))
        current = unpatched(planner.frame(), "logical_plan")()
        check_same_plan(plan, current)
        return current, self.state._replace(snapshot=planner.snapshot), planner


_TITLES = {
    "Append": "INSERT INTO",
    "Overwrite": "INSERT OVERWRITE",
    "Replace": "REPLACE INTO",
    "Update": "UPDATE",
    "Delete": "DELETE FROM",
    "Truncate": "TRUNCATE TABLE",
    "Merge": "MERGE INTO",
}
"""The SQL keywords of a DML plan, by the engine's name for it."""


@dataclass(frozen=True, slots=True)
class _Run:
    """One execution of a statement."""

    ctx: SessionContext
    state: FrameState
    entry: Registered
    table: DeltaTable
    bound: BoundCall
    planner: Planner | None

    def execute(self, plan: LogicalPlan) -> int:
        """Write, and return the number of inserted, updated and deleted rows.

        Raises:
            StatementError: the statement is not possible on a Delta table.
        """
        kind = dml_kind(plan)
        below = wrapped_plan(plan.to_variant().input())
        if kind in {"Append", "Overwrite"}:
            return self._insert(below, "append" if kind == "Append" else "overwrite")
        if kind == "Merge":
            return self._merge(below)
        attributes = attributes_of_frame(below, self.state)
        # The plan of a TRUNCATE has no columns.
        rows = self._target if kind == "Truncate" else below
        attributes = with_stored_plan(attributes, rows, self.state, statement=self._statement)
        with observe_write(attributes):
            if kind == "Update":
                return self._update(below)
            if kind == "Delete":
                return self._delete(below)
            if kind == "Truncate":
                return _delete(self.table.delete())
        msg = (
            f"{_TITLES.get(kind, kind)} is not possible on a Delta table, which has no primary key:"
            " use MERGE INTO"
        )
        raise StatementError(msg)

    def _target(self) -> DataFrame:
        frame: DataFrame = unpatched(self.ctx, "table")(self.entry.name.sql())
        return frame

    @property
    def _statement(self) -> tuple[BoundCall, Registered]:
        return self.bound, self.entry

    def _insert(self, below: LogicalPlan, mode: str) -> int:
        frame = _frame(self.ctx, below)
        schema = frame.schema()
        if self.entry.defaults:
            frame = _with_defaults(frame, self.entry, self.bound)
        else:
            frame = _without_views(self.ctx, below) or frame
        frame, schema = without_columns(frame, schema, self._computed_columns())
        attributes = attributes_of_frame(below, self.state, schema=schema)
        attributes = with_stored_plan(attributes, frame, self.state, statement=self._statement)
        with observe_write(attributes):
            return stream_into(self.table, coerce(self.ctx, frame, schema), mode)

    def _computed_columns(self) -> frozenset[str]:
        """Return the generated columns that an INSERT does not name, which delta-rs computes."""
        generated = generated_columns(self.table)
        named = _named_columns(self.bound) if generated else None
        return frozenset() if named is None else generated - named

    def _merge(self, below: LogicalPlan) -> int:
        assert self.planner is not None
        planner = self.planner.for_parts()
        merge = Merge.parse(
            self.bound.statement,
            normalize=self.ctx.enable_ident_normalization(),
            spelling=planner.spelling(),
        )
        merge = merge.with_defaults(self.entry.defaults)
        attributes = attributes_of_frame(
            below,
            self.state,
            clauses=merge.clauses_text,
            reads=(self.entry.as_input(),),
            columns=lambda found: columns_of_merge(merge, planner, self._columns, found),
        )
        attributes = with_stored_plan(attributes, below, self.state, statement=self._statement)
        with observe_write(attributes):
            return execute_merge(merge, planner, self.table, _frame(self.ctx, below))

    # --- UPDATE ------------------------------------------------------------------------------------

    def _update(self, below: LogicalPlan) -> int:
        shape = UpdateShape.of(below, self.entry.name.table, self._columns)
        rows = _frame(self.ctx, shape.rows)
        schema = rows.schema()
        if not shape.assigned:
            return int(unpatched(rows, "count")())
        try:
            updates = {
                quote_identifier(c): value_sql(e, _own_column) for c, e in shape.assigned.items()
            }
            predicate = None if shape.filter is None else filter_sql(shape.filter, schema)
        except NotTranslatable:
            return self._update_by_merge(below, rows, shape)
        metrics = self.table.update(updates=updates, predicate=predicate)
        return int(metrics["num_updated_rows"])

    def _update_by_merge(self, plan: LogicalPlan, rows: DataFrame, shape: UpdateShape) -> int:
        read = [shape.filter, *shape.assigned.values()]
        _check_deterministic(read)
        depends = _depends_on(read, plan, rows.schema())
        values = {column: f"value_{place}" for place, column in enumerate(shape.assigned)}
        new = [e.alias(values[column]) for column, e in shape.assigned.items()]
        source = _distinct(self.ctx, rows, depends, new)
        change = Change("update", {c: f"{SOURCE}.{quote_identifier(v)}" for c, v in values.items()})
        return changed_rows(apply_changes(self.table, source, _match(depends), [change]))

    # --- DELETE ------------------------------------------------------------------------------------

    def _delete(self, below: LogicalPlan) -> int:
        shape = DeleteShape.of(below, self.entry.name.table, self._columns)
        if shape.filter is None:
            return _delete(self.table.delete())
        rows = _frame(self.ctx, shape.rows)
        try:
            predicate = filter_sql(shape.filter, rows.schema())
        except NotTranslatable:
            return self._delete_by_merge(below, rows, shape.filter)
        return _delete(self.table.delete(predicate))

    def _delete_by_merge(self, plan: LogicalPlan, rows: DataFrame, filter_: Any) -> int:
        _check_deterministic([filter_])
        depends = _depends_on([filter_], plan, rows.schema())
        source = _distinct(self.ctx, rows, depends, [])
        return changed_rows(
            apply_changes(self.table, source, _match(depends), [Change("delete", {})])
        )

    @property
    def _columns(self) -> list[str]:
        return [field.name for field in self.table.schema().fields]


# --- row counts --------------------------------------------------------------------------------------


def _delete(metrics: dict[str, Any]) -> int:
    return int(metrics["num_deleted_rows"] or 0)


# --- parts of plans ----------------------------------------------------------------------------------


def _frame(ctx: SessionContext, plan: Any) -> DataFrame:
    make = unpatched(ctx, "create_dataframe_from_logical_plan")
    frame: DataFrame = make(wrapped_plan(plan))
    return frame


def _without_views(ctx: SessionContext, below: LogicalPlan) -> DataFrame | None:
    """Return the rows of an INSERT without casts from string or binary to their view types.

    DataFusion reads the columns of a Delta table as view types and so plans these casts; delta-rs
    writes the plain types and reverts them. Both casts together cost a tenth of a write.

    Returns:
        None if the plan is not a projection.
    """
    if not is_of_kind(below, "Projection"):
        return None
    parts = below.to_variant()
    rows = _frame(ctx, parts.input()[0])
    names = _frame(ctx, below).schema().names
    columns = [
        _without_view(rows, unaliased(raw)).alias(name)
        for raw, name in zip(parts.projections(), names, strict=True)
    ]
    frame: DataFrame = unpatched(rows, "select")(*columns)
    return frame


def _without_view(rows: DataFrame, column: Any) -> Any:
    """Return a column without a cast from string or binary to its view type."""
    if column.variant_name() == "Cast" and cast_type(column) in _VIEWS:
        inner = unaliased(column.to_variant().expr())
        # Select the expression, not the name: two tables of a join may have columns of one name.
        if column_name(inner) is not None:
            (given,) = unpatched(rows, "select")(inner).schema().types
            if str(given) in _PLAIN:
                return inner
    return column


_VIEWS = frozenset({"Utf8View", "BinaryView"})
_PLAIN = frozenset({"string", "large_string", "binary", "large_binary"})


def _own_column(_: str | None, name: str) -> str:
    return quote_identifier(name)


def _depends_on(expressions: list[Any], plan: Any, schema: pa.Schema) -> list[str]:
    """Return the columns of the table that expressions depend on, in the table's order.

    Outer columns inside a subquery are found in the plan's text. All columns are returned if an
    expression cannot be inspected.
    """
    found: set[str] = set()
    for expression in expressions:
        if expression is None:
            continue
        inside = columns_in(expression)
        if inside is None:
            return list(schema.names)
        found |= inside
    text = plan.display_indent()
    if OUTER_REFERENCE in text:
        found.update(n for n in schema.names if f"{n})" in text)
    return [name for name in schema.names if name in found]


def _distinct(
    ctx: SessionContext, rows: DataFrame, depends: list[str], values: list[Any]
) -> DataFrame:
    from datafusion import lit  # noqa: PLC0415 - heavy, already loaded

    keys = [rows.col(name).alias(f"key_{place}") for place, name in enumerate(depends)]
    columns = [*keys, *values] or [lit(1).alias("any")]
    selected = unpatched(rows, "select")(*columns)
    return coerce(ctx, unpatched(selected, "distinct")(), selected.schema())


def _check_deterministic(expressions: list[Any]) -> None:
    """Refuse volatile expressions: the session evaluates an expression once for all equal rows.

    Raises:
        StatementError: one of the expressions is volatile.
    """
    if any(e is not None and is_volatile(e) for e in expressions):
        msg = (
            "the statement is not deterministic: delta-rs cannot evaluate it, and the session cannot"
            " evaluate it once for all equal rows"
        )
        raise StatementError(msg)


def _match(depends: list[str]) -> str:
    return matching(depends, [f"key_{place}" for place in range(len(depends))])


# --- the text of a statement ---------------------------------------------------------------------------

_OF_OTHER_DIALECTS = ("ABORT", "FAIL", "IGNORE", "REPLACE", "ROLLBACK")


def _words_at_target(bound: BoundCall) -> Words:
    normalize = bound.call.ctx.enable_ident_normalization()
    words = Words(bound.statement, normalize=normalize)
    if words.take("INSERT") or words.take("REPLACE"):
        any(words.take("OR", word) for word in _OF_OTHER_DIALECTS)
        words.take("OVERWRITE")
        words.take("INTO")
        # A table may have the name "table".
        if words.peek("TABLE") and not any(words.peek("TABLE", word) for word in _AFTER_NAME):
            words.take("TABLE")
    elif words.take("TRUNCATE"):
        words.take("TABLE")
    elif words.take("DELETE"):
        words.take("FROM")
    elif words.take("MERGE"):
        words.take("INTO")
    else:
        words.expect("UPDATE")
        any(words.take("OR", word) for word in _OF_OTHER_DIALECTS)
    return words


_AFTER_NAME = ("(", ".", "VALUES", "SELECT", "WITH", "")


def _target_in(bound: BoundCall) -> tuple[str, ...]:
    return _words_at_target(bound).reference()


def _named_columns(bound: BoundCall) -> set[str] | None:
    """Return the columns that an INSERT names; None if it has no list of columns."""
    words = _words_at_target(bound)
    words.reference()
    is_query = any(
        words.peek("(", word) and not any(words.peek("(", word, after) for after in (",", ")"))
        for word in ("SELECT", "WITH", "VALUES", "(")
    )
    if not words.peek("(") or is_query:
        return None
    return set(words.names())


def _with_defaults(frame: DataFrame, entry: Registered, bound: BoundCall) -> DataFrame:
    """Return the rows of an INSERT with default values in the columns that it does not name."""
    named = _named_columns(bound)
    if named is None:
        return frame
    schema = frame.schema()
    columns = []
    for name in schema.names:
        column = frame.col(name)
        if name not in named and name in entry.defaults:
            default = frame.parse_sql_expr(entry.defaults[name])
            column = default.cast(schema.field(name).type).alias(name)
        columns.append(column)
    selected: DataFrame = unpatched(frame, "select")(*columns)
    return selected
