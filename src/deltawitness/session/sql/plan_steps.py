"""The nodes of a query over one table, in a form that pickles, and the settings of its session."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, NoReturn

from deltawitness.exceptions import StatementError
from deltawitness.session.core.unpatched import unpatched
from deltawitness.session.sql.delta_sql import is_volatile

if TYPE_CHECKING:
    import pyarrow as pa
    from datafusion import DataFrame, SessionConfig, SessionContext

__all__ = [
    "SettingValues",
    "Step",
    "default_settings",
    "refuse",
    "session_with",
    "settings_of",
    "steps_of",
    "stream_of",
    "with_steps",
]

SettingValues = tuple[tuple[str, str], ...]
"""Names and values of the settings of a session that differ from the defaults."""

_STATELESS = ("Projection", "Filter", "SubqueryAlias", "TableScan")
"""Nodes that make each of their rows from one row."""


def refuse(reason: str) -> NoReturn:
    """Raise the error for a query that cannot be split.

    Args:
        reason: why.

    Raises:
        StatementError: always.
    """
    msg = (
        f"write_distributed: {reason}, so the query cannot be split by its files;"
        " pass split='auto' to write it as one part"
    )
    raise StatementError(msg)


# --- the logical plan ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Step:
    """A node of a plan.

    Attributes:
        kind: `columns` for the columns that the scan reads, `filter`, `project` or `alias`.
        expressions: the serialized expressions of a filter or a projection.
        names: the columns, or the alias.
    """

    kind: str
    expressions: tuple[bytes, ...] = ()
    names: tuple[str, ...] = ()


def steps_of(plan: Any) -> Iterator[Step]:
    """Yield the nodes of a plan from the scan to the top.

    Raises:
        StatementError: a node is not stateless, or an expression is volatile.
    """
    node = _node_of(plan)
    kind = type(node).__name__
    below = plan.inputs()
    if kind == "TableScan":
        if node.fetch() is not None:
            refuse("the plan has the node Limit")
        yield from (Step("filter", _serialized([each])) for each in node.filters())
        yield Step("columns", names=tuple(_columns_of(node)))
        return
    yield from steps_of(below[0])
    if kind == "Projection":
        yield Step("project", _serialized(node.projections()))
    elif kind == "Filter":
        yield Step("filter", _serialized([node.predicate()]))
    else:
        yield Step("alias", names=(node.alias(),))


def _columns_of(scan: Any) -> list[str]:
    """Return the names of the columns that a scan reads."""
    return [name for _, name in scan.projection()]


def _node_of(plan: Any) -> Any:
    try:
        node = plan.to_variant()
    except Exception:  # noqa: BLE001 - the engine has plan nodes without a Python class
        node = None
    kind = type(node).__name__
    if kind not in _STATELESS:
        name = plan.display_indent().lstrip().split(":")[0].split("\n")[0]
        refuse(f"the plan has the node {name}")
    return node


def _serialized(expressions: Sequence[Any]) -> tuple[bytes, ...]:
    from datafusion import Expr  # noqa: PLC0415 - heavy, already loaded

    found = []
    for raw in expressions:
        expression = raw if isinstance(raw, Expr) else Expr(raw)
        if is_volatile(expression):
            refuse("an expression calls a volatile function")
        try:
            found.append(expression.to_bytes())
        except Exception:  # noqa: BLE001 - the engine's error for an expression without a serialized form
            refuse(f"the expression {expression.variant_name()} cannot be serialized")
    return tuple(found)


# --- settings -----------------------------------------------------------------------------------------


def settings_of(ctx: SessionContext) -> SettingValues:
    """Return the settings of a session that differ from the defaults."""
    found = _settings(unpatched(ctx, "copied_config")())
    defaults = default_settings()
    return tuple(
        (name, value) for name, value in sorted(found.items()) if defaults.get(name) != value
    )


@cache
def default_settings() -> dict[str, str]:
    """Return the settings of a new session."""
    from datafusion import SessionConfig  # noqa: PLC0415 - heavy

    return _settings(SessionConfig())


def _settings(config: SessionConfig) -> dict[str, str]:
    from datafusion import SessionContext  # noqa: PLC0415 - heavy

    reader = SessionContext(config.with_information_schema(enabled=True))
    rows = unpatched(reader, "sql")("SELECT name, value FROM information_schema.df_settings")
    found = dict(zip(*unpatched(rows, "to_pydict")().values(), strict=True))
    return {name: value for name, value in found.items() if value is not None}


def session_with(settings: SettingValues) -> SessionContext:
    """Return a new session with some settings."""
    from datafusion import SessionConfig, SessionContext  # noqa: PLC0415 - heavy

    config = SessionConfig()
    for name, value in settings:
        config = config.set(name, value)
    return SessionContext(config)


def with_steps(frame: DataFrame, steps: Sequence[Step]) -> DataFrame:
    """Return the query over another scan.

    Args:
        frame: the scan.
        steps: the nodes above it.
    """
    from datafusion import Expr  # noqa: PLC0415 - heavy

    for step in steps:
        expressions = [Expr.from_bytes(content) for content in step.expressions]
        if step.kind == "filter":
            frame = unpatched(frame, "filter")(*expressions)
        elif step.kind == "project":
            frame = unpatched(frame, "select")(*expressions)
        elif step.kind == "columns":
            frame = unpatched(frame, "select")(*map(frame.col, step.names))
        else:
            frame = unpatched(frame, "alias")(*step.names)
    return frame


def stream_of(ctx: SessionContext, schema: pa.Schema, batches: Any) -> pa.RecordBatchReader:
    """Return batches as a stream that keeps the session alive: the scan of a Delta table calls it."""
    import pyarrow as pa  # noqa: PLC0415 - heavy

    def read() -> Iterator[pa.RecordBatch]:
        session = ctx
        for batch in batches:
            yield batch.to_pyarrow()
        del session

    return pa.RecordBatchReader.from_batches(schema, read())
