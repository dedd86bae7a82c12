"""INSERT, UPDATE, DELETE, TRUNCATE and MERGE on a Delta table: DataFusion plans, delta-rs writes.

A statement is what DataFusion's own logical plan says it is. Its rows come from the plan, as a
stream; its filter and its assignments are handed to delta-rs where delta-rs means the same by them
(:mod:`deltawitness.proxies.expressions`), and are evaluated by the session elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from deltawitness.exceptions import StatementError
from deltawitness.proxies.calls import SqlCall
from deltawitness.proxies.changes import SOURCE, Change, apply_changes, changed_rows, matching
from deltawitness.proxies.coercion import coerced
from deltawitness.proxies.counts import count_frame
from deltawitness.proxies.delta_writes import stream_into
from deltawitness.proxies.expressions import (
    NotTold,
    column_name,
    columns_in,
    filter_sql,
    is_volatile,
    unaliased,
    value_sql,
)
from deltawitness.proxies.failed_writes import publishing_after_failure
from deltawitness.proxies.frames import FrameState, state_of
from deltawitness.proxies.generated_columns import generated_columns, without_columns
from deltawitness.proxies.merge import carry_out_merge
from deltawitness.proxies.merge_statement import Merge
from deltawitness.proxies.originals import original
from deltawitness.proxies.registry import Registered
from deltawitness.proxies.seams import (
    OUTER_REFERENCE,
    cast_type,
    dml_kind,
    is_of_kind,
    wrapped_plan,
)
from deltawitness.proxies.sql import Words, first_word, quoted
from deltawitness.proxies.witness import facts_of, witnessed

if TYPE_CHECKING:
    import pyarrow as pa
    from datafusion import DataFrame, SessionContext
    from datafusion.plan import LogicalPlan
    from deltalake import DeltaTable

__all__ = ["Dml", "is_dml", "target_of"]


def is_dml(plan: LogicalPlan) -> bool:
    """Tell whether a plan writes rows to a table."""
    return is_of_kind(plan, "DmlStatement")


def target_of(plan: LogicalPlan, state: FrameState, call: SqlCall | None) -> Registered | None:
    """Return the Delta table that a DML plan writes to; None when its target is another table.

    The plan tells the target's name without quotes. Where two tables are spelled alike, the
    statement's own text decides.

    Raises:
        StatementError: it cannot be told which of them is meant.
    """
    found = state.snapshot.named(plan.to_variant().table_name())
    if len(found) <= 1:
        return found[0] if found else None
    if call is not None:
        name = state.session.full_name(state.ctx, _target_in(call))
        found = [entry for entry in found if entry.name == name]
    if len(found) != 1:
        msg = "the name of the table to write is ambiguous: give catalog, schema and table"
        raise StatementError(msg)
    return found[0]


PLANNED_AGAIN = 10
"""How often a statement is planned again because another thread of the session has written its table."""


class _MovedOnError(Exception):
    """The table is at another version than the one that the plan reads."""


@dataclass(frozen=True, slots=True)
class Dml:
    """A DML statement on a Delta table, which runs when its frame is asked for rows.

    Attributes:
        frame: the statement's frame, as it was planned.
        state: what was known then.
        entry: the table that it writes.
        call: the text it was planned from; None when it came as a plan.
    """

    frame: DataFrame
    state: FrameState
    entry: Registered
    call: SqlCall | None = None

    @property
    def title(self) -> str:
        """Which statement, on which table."""
        kind = dml_kind(original(self.frame, "logical_plan")())
        return f"{_TITLES.get(kind, kind.upper())} {self.entry.name.table}"

    def run(self) -> DataFrame:
        """Carry the statement out on the newest version of the table; return the count of rows."""
        for _ in range(PLANNED_AGAIN):
            try:
                return self._run_once()
            except _MovedOnError:
                if self.state.origin is None:
                    break
        msg = (
            f"{self.entry.name.table} has changed since this plan was made, and the statement's"
            " expressions must be evaluated first: plan it again"
        )
        raise StatementError(msg)

    def _run_once(self) -> DataFrame:
        session, ctx = self.state.session, self.state.ctx
        entry = session.checked_writable(session.snapshot.get(self.entry.name) or self.entry)
        after_failure = publishing_after_failure(session, ctx, entry.uri, entry.storage_options)
        with after_failure, session.lease(entry) as table:
            if table.version() != entry.version or str(table.metadata().id) != entry.identity:
                entry = session.publish(ctx, entry, table)
            plan, state = self._planned_now()
            count = _Run(ctx, state, entry, table, self.call).carry_out(plan)
            session.publish(ctx, entry, table)
        return count_frame(ctx, count)

    def _planned_now(self) -> tuple[LogicalPlan, FrameState]:
        """Return the plan over what the session serves now, which may be more than it was."""
        session, state = self.state.session, self.state
        if session.snapshot is state.snapshot or state.origin is None:
            return original(self.frame, "logical_plan")(), state
        frame = state.origin()
        return original(frame, "logical_plan")(), state_of(frame) or state


_TITLES = {
    "Append": "INSERT INTO",
    "Overwrite": "INSERT OVERWRITE",
    "Replace": "REPLACE INTO",
    "Update": "UPDATE",
    "Delete": "DELETE FROM",
    "Truncate": "TRUNCATE TABLE",
    "Merge": "MERGE INTO",
}
"""What the engine calls a DML plan, and how it is written."""


@dataclass(frozen=True, slots=True)
class _Run:
    """One execution of a statement."""

    ctx: SessionContext
    state: FrameState
    entry: Registered
    table: DeltaTable
    call: SqlCall | None

    def carry_out(self, plan: LogicalPlan) -> int:
        """Write, and return how many rows were inserted, updated or deleted."""
        kind = dml_kind(plan)
        below = wrapped_plan(plan.to_variant().input())
        if kind in {"Append", "Overwrite"}:
            return self._insert(below, "append" if kind == "Append" else "overwrite")
        if kind == "Merge":
            return self._merge(below)
        with witnessed(facts_of(below, self.state)):
            if kind == "Update":
                return self._update(below)
            if kind == "Delete":
                return self._delete(below)
            if kind == "Truncate":
                return _deleted(self.table.delete())
        msg = (
            f"{_TITLES.get(kind, kind)} is not possible on a Delta table, which has no primary key:"
            " use MERGE INTO"
        )
        raise StatementError(msg)

    def _insert(self, below: LogicalPlan, mode: str) -> int:
        frame = _frame(self.ctx, below)
        schema = frame.schema()
        if self.entry.defaults:
            frame = _with_defaults(frame, self.entry, self.call)
        else:
            frame = _without_views(self.ctx, below) or frame
        frame, schema = without_columns(frame, schema, self._computed_columns())
        with witnessed(facts_of(below, self.state, schema=schema)):
            return stream_into(self.table, coerced(self.ctx, frame, schema), mode)

    def _computed_columns(self) -> frozenset[str]:
        """Return the generated columns that an INSERT does not name: delta-rs computes them."""
        generated = generated_columns(self.table)
        named = _named_columns(self.entry, self.call) if generated else None
        return frozenset() if named is None else generated - named

    def _merge(self, below: LogicalPlan) -> int:
        if self.call is None or self.call.is_prepared or first_word(self.call.text) != "MERGE":
            msg = (
                "MERGE INTO is possible as the text of a statement only, not prepared or as a plan"
            )
            raise StatementError(msg)
        merge = Merge.parsed(self.call.text, normalize=self.ctx.enable_ident_normalization())
        merge = merge.with_defaults(self.entry.defaults)
        facts = facts_of(
            below, self.state, clauses=merge.clauses_text, reads=(self.entry.as_input(),)
        )
        with witnessed(facts):
            return carry_out_merge(merge, self.call, self.table, _frame(self.ctx, below))

    # --- UPDATE ------------------------------------------------------------------------------------

    def _update(self, projection: LogicalPlan) -> int:
        parts = projection.to_variant()
        below = parts.input()[0]
        rows = _frame(self.ctx, below)
        schema = rows.schema()
        assigned = {
            name: unaliased(expression)
            for name, expression in zip(schema.names, parts.projections(), strict=True)
            if column_name(expression) != name
        }
        if not assigned:
            return int(original(rows, "count")())
        filter_ = _filter(below)
        try:
            updates = {quoted(c): value_sql(e, _own_column) for c, e in assigned.items()}
            predicate = None if filter_ is None else filter_sql(filter_, schema)
        except NotTold:
            return self._update_by_merge(projection, rows, filter_, assigned)
        metrics = self.table.update(updates=updates, predicate=predicate)
        return int(metrics["num_updated_rows"])

    def _update_by_merge(
        self, plan: LogicalPlan, rows: DataFrame, filter_: Any, assigned: dict[str, Any]
    ) -> int:
        self._check_served()
        _check_deterministic([filter_, *assigned.values()])
        depends = _depends_on([filter_, *assigned.values()], plan, rows.schema())
        values = {column: f"value_{place}" for place, column in enumerate(assigned)}
        new = [e.alias(values[column]) for column, e in assigned.items()]
        source = _distinct(self.ctx, rows, depends, new)
        change = Change("update", {c: f"{SOURCE}.{quoted(v)}" for c, v in values.items()})
        return changed_rows(apply_changes(self.table, source, _match(depends), [change]))

    # --- DELETE ------------------------------------------------------------------------------------

    def _delete(self, below: LogicalPlan) -> int:
        if is_of_kind(below, "Limit"):
            msg = "DELETE with LIMIT is not possible on a Delta table, whose rows have no order"
            raise StatementError(msg)
        filter_ = _filter(below)
        if filter_ is None:
            return _deleted(self.table.delete())
        rows = _frame(self.ctx, below)
        try:
            predicate = filter_sql(filter_, rows.schema())
        except NotTold:
            return self._delete_by_merge(below, rows, filter_)
        return _deleted(self.table.delete(predicate))

    def _delete_by_merge(self, plan: LogicalPlan, rows: DataFrame, filter_: Any) -> int:
        self._check_served()
        _check_deterministic([filter_])
        depends = _depends_on([filter_], plan, rows.schema())
        source = _distinct(self.ctx, rows, depends, [])
        return changed_rows(
            apply_changes(self.table, source, _match(depends), [Change("delete", {})])
        )

    def _check_served(self) -> None:
        """Refuse to work changes out from another version than the one that they are applied to."""
        planned = self.state.snapshot.get(self.entry.name)
        if planned is None or planned.version != self.table.version():
            raise _MovedOnError(self.entry.name.table)


# --- rows in, count out ------------------------------------------------------------------------------


def _deleted(metrics: dict[str, Any]) -> int:
    return int(metrics["num_deleted_rows"] or 0)


# --- plans taken apart -------------------------------------------------------------------------------


def _frame(ctx: SessionContext, plan: Any) -> DataFrame:
    make = original(ctx, "create_dataframe_from_logical_plan")
    frame: DataFrame = make(wrapped_plan(plan))
    return frame


def _filter(plan: Any) -> Any:
    """Return the predicate of the filter that a plan starts with, or None."""
    return plan.to_variant().predicate() if is_of_kind(plan, "Filter") else None


def _without_views(ctx: SessionContext, below: LogicalPlan) -> DataFrame | None:
    """Return the rows of an INSERT without the casts of plain text to views of text.

    A Delta table is read as views, so DataFusion plans these casts; delta-rs writes plain text, and
    undoes them. Together they cost a tenth of a write.
    """
    if not is_of_kind(below, "Projection"):
        return None
    parts = below.to_variant()
    rows = _frame(ctx, parts.input()[0])
    schema = rows.schema()
    columns = []
    for raw, name in zip(parts.projections(), _frame(ctx, below).schema().names, strict=True):
        column = unaliased(raw)
        if column.variant_name() == "Cast" and cast_type(column) in _VIEWS:
            inner = unaliased(column.to_variant().expr())
            source = column_name(inner)
            if source in schema.names and str(schema.field(source).type) in _PLAIN:
                column = inner
        columns.append(column.alias(name))
    frame: DataFrame = original(rows, "select")(*columns)
    return frame


_VIEWS = frozenset({"Utf8View", "BinaryView"})
_PLAIN = frozenset({"string", "large_string", "binary", "large_binary"})


def _own_column(_: str | None, name: str) -> str:
    return quoted(name)


def _depends_on(expressions: list[Any], plan: Any, schema: pa.Schema) -> list[str]:
    """Return the columns of the table that expressions depend on, in the table's order.

    A subquery is not looked through, but it tells its outer columns in the plan's text.
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
    from datafusion import lit  # noqa: PLC0415 - heavy, and there already

    keys = [rows.col(name).alias(f"key_{place}") for place, name in enumerate(depends)]
    columns = [*keys, *values] or [lit(1).alias("any")]
    selected = original(rows, "select")(*columns)
    return coerced(ctx, original(selected, "distinct")(), selected.schema())


def _check_deterministic(expressions: list[Any]) -> None:
    """Refuse an expression that is another each time: rows that are alike cannot be told apart.

    Raises:
        StatementError: one of them is volatile.
    """
    if any(e is not None and is_volatile(e) for e in expressions):
        msg = (
            "the statement is not deterministic: delta-rs cannot evaluate it, and the session cannot"
            " evaluate it once for all rows that are alike"
        )
        raise StatementError(msg)


def _match(depends: list[str]) -> str:
    return matching(depends, [f"key_{place}" for place in range(len(depends))])


# --- the text of a statement ---------------------------------------------------------------------------

_BEFORE_TARGET = (
    "INSERT", "REPLACE", "OR", "OVERWRITE", "INTO", "TABLE", "UPDATE", "DELETE", "FROM", "MERGE",
    "TRUNCATE",
)  # fmt: skip


def _words_at_target(call: SqlCall) -> Words:
    words = Words(call.text, normalize=call.ctx.enable_ident_normalization())
    while any(words.take(word) for word in _BEFORE_TARGET):
        pass
    return words


def _target_in(call: SqlCall) -> tuple[str, ...]:
    return _words_at_target(call).reference()


def _named_columns(entry: Registered, call: SqlCall | None) -> set[str] | None:
    """Return the columns that an INSERT names; None when it has no list of columns.

    Raises:
        StatementError: it came as a plan, which does not tell them from columns that are NULL.
    """
    if call is None:
        msg = (
            f"{entry.name.table} has defaults or generated columns, and a plan does not say which"
            " columns an INSERT names: run it as the text of a statement"
        )
        raise StatementError(msg)
    words = _words_at_target(call)
    words.reference()
    starts_query = any(words.peek("(", word) for word in ("SELECT", "WITH", "VALUES", "("))
    if not words.peek("(") or starts_query:
        return None
    return set(words.names())


def _with_defaults(frame: DataFrame, entry: Registered, call: SqlCall | None) -> DataFrame:
    """Return the rows of an INSERT with the defaults of the columns that it does not name."""
    named = _named_columns(entry, call)
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
    selected: DataFrame = original(frame, "select")(*columns)
    return selected
