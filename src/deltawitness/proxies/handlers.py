"""What happens at each method of `SessionContext`, `DataFrame` and the catalogs that we care about.

Each handler gets the plain object of the engine and the arguments of the call. The proxies and the
patched classes both end here, so that they do the same.
"""

from __future__ import annotations

import html
import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from datafusion.catalog import Table

from deltawitness.events import InputVersion
from deltawitness.hashing import table_id
from deltawitness.observe import current_observer
from deltawitness.proxies.calls import SqlCall
from deltawitness.proxies.delta_writes import write_delta, write_table
from deltawitness.proxies.exports import exported
from deltawitness.proxies.frames import (
    ATTRIBUTE,
    FrameState,
    PlainQuery,
    adopt,
    derive,
    refuse_statements,
    remade,
    state_of,
)
from deltawitness.proxies.originals import REPLACED, original
from deltawitness.proxies.queries import inside_a_query, observed_query
from deltawitness.proxies.registry import TableName
from deltawitness.proxies.seams import table_of_class
from deltawitness.proxies.state import FACTORY_FORMAT, adopted, session_of
from deltawitness.proxies.statements import routed, run_sql

if TYPE_CHECKING:
    from datafusion import DataFrame, SessionContext
    from datafusion.catalog import Catalog, Schema
    from deltalake import DeltaTable

__all__ = [
    "CATALOG_HANDLERS",
    "FRAME_EXTRAS",
    "FRAME_HANDLERS",
    "GIVING_DATA",
    "SCHEMA_HANDLERS",
    "SESSION_EXTRAS",
    "SESSION_HANDLERS",
    "Handler",
]

Handler = Callable[[Any, tuple[Any, ...], dict[str, Any]], Any]
"""Takes the plain object, the arguments and the keyword arguments of a call."""


# --- SessionContext: statements and frames ---------------------------------------------------------------


def _sql(ctx: SessionContext, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if len(args) == 1 and not kwargs:
        (text,) = args
        if isinstance(text, str) and text[:7] in _PLAINLY_A_QUERY:
            session = session_of(ctx)
            if session.is_settled:
                # Most of what sessions do, at a tenth of what the rest of them costs.
                snapshot = session.snapshot
                try:
                    frame: Any = original(ctx, "sql")(text) if REPLACED else ctx.sql(text)
                except Exception:  # noqa: BLE001, S110 - the way below raises it, unless it was a moment's
                    pass
                else:
                    frame._deltawitness_frame = PlainQuery(ctx, session, snapshot, _again, text)  # noqa: SLF001 - as `adopt` does
                    return frame
    call = _sql_call(ctx, *args, **kwargs)
    if not isinstance(call.text, str):
        return call.plan()  # raises the engine's own error
    return run_sql(session_of(ctx), call)


def _again(ctx: SessionContext, text: str) -> Any:
    return _sql(ctx, (text,), {})


_PLAINLY_A_QUERY = frozenset({"SELECT ", "select ", "SELECT\n", "select\n"})
"""How a text starts that is a query and nothing else."""


def _sql_call(
    ctx: SessionContext,
    /,
    query: str,
    options: Any = None,
    param_values: Mapping[str, Any] | None = None,
    **named: Any,
) -> SqlCall:
    return SqlCall(ctx, query, options, param_values, named)


def _plan_to_frame(name: str) -> Handler:
    def handler(ctx: SessionContext, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        session = session_of(ctx)
        frame = original(ctx, name)(*args, **kwargs)
        known = state_of(_argument(args, kwargs, 0, "plan"))
        if known is None or known.session is not session:
            return routed(frame, FrameState(ctx, session, session.snapshot))
        return routed(frame, FrameState(ctx, session, known.snapshot, known.reads))

    return handler


def _table(ctx: SessionContext, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    session = session_of(ctx)
    session.freshen(ctx)
    snapshot = session.snapshot
    frame = session.reading(lambda: original(ctx, "table")(*args, **kwargs))
    return adopt(frame, FrameState(ctx, session, snapshot, (), lambda: _table(ctx, args, kwargs)))


def _source(name: str) -> Handler:
    """Return the handler of a method that makes a frame over data that it is given."""

    def handler(ctx: SessionContext, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        session = session_of(ctx)
        frame = original(ctx, name)(*args, **kwargs)
        return adopt(frame, FrameState(ctx, session, session.snapshot))

    return handler


def _read_table(ctx: SessionContext, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    session = session_of(ctx)
    frame = original(ctx, "read_table")(*args, **kwargs)
    source: Any = _argument(args, kwargs, 0, "table")
    reads: tuple[InputVersion, ...] = ()
    if _is_delta(source):
        uri = source.table_uri
        reads = (InputVersion(table_id(uri), source.version(), uri),)
    elif (state := state_of(source)) is not None:
        reads = state.inputs(original(source, "logical_plan")().display_indent())
    return adopt(frame, FrameState(ctx, session, session.snapshot, reads))


# --- SessionContext: registration ------------------------------------------------------------------------


def _registering(method: str) -> Handler:
    return lambda ctx, args, kwargs: _registered_as(ctx, method, *args, **kwargs)


def _registered_as(ctx: SessionContext, method: str, name: str, *args: Any, **kwargs: Any) -> None:
    session = session_of(ctx)
    table: Any = next(iter((*args, *kwargs.values())), None)
    if _is_delta(table):
        full_name = session.parsed_name(ctx, name)
        original(ctx, method)(name, *args, **kwargs)
        session.register(ctx, full_name, table, fixed=_is_behind(table), is_registered=True)
        return
    refuse_statements(table)
    original(ctx, method)(name, *args, **kwargs)
    full_name = session.parsed_name(ctx, name)
    session.forget(full_name)
    _note_frame_as_view(ctx, full_name, table)


def _note_frame_as_view(ctx: SessionContext, name: TableName, table: Any) -> None:
    if state_of(table) is not None:
        frame = table.frame if isinstance(table, FrameView) else table
        session_of(ctx).note_view(ctx, name, partial(_remake_view, name.sql(), frame))


def _remake_view(name: str, frame: Any, ctx: SessionContext) -> None:
    view = original(remade(frame), "into_view")()
    original(ctx, "deregister_table")(name)
    original(ctx, "register_table")(name, view)


class FrameView(Table):
    """What `DataFrame.into_view()` returns: a table that knows the frame it shows."""

    __slots__ = (ATTRIBUTE, "frame")

    frame: Any


def _into_view(frame: DataFrame, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    table = original(frame, "into_view")(*args, **kwargs)
    state = state_of(frame)
    if state is None:
        return table
    view = table_of_class(FrameView, table)
    view.frame = frame
    return adopt(view, state)


def _other_catalog(name: str) -> Handler:
    """Return the handler of a method that puts a catalog, or all of them, in place of what was there."""

    def handler(ctx: SessionContext, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        result = original(ctx, name)(*args, **kwargs)
        is_one = name == "register_catalog_provider"
        session_of(ctx).forget_schema(_argument(args, kwargs, 0, "name") if is_one else None)
        return result

    return handler


def _is_delta(table: object) -> bool:
    from deltalake import DeltaTable  # noqa: PLC0415 - heavy

    return isinstance(table, DeltaTable)


def _is_behind(table: DeltaTable) -> bool:
    """Tell whether an open table is at an older version: it was opened there, to be read there."""
    from deltawitness.commit.log import open_log  # noqa: PLC0415 - beside its only use
    from deltawitness.commit.seams import storage_options_of  # noqa: PLC0415 - as above

    log = open_log(table.table_uri, storage_options_of(table))
    return log.read(table.version() + 1) is not None


def register_delta(
    ctx: SessionContext,
    name: str,
    uri: str | os.PathLike[str],
    *,
    version: int | None = None,
    storage_options: Mapping[str, str] | None = None,
) -> None:
    """Register the Delta table at a location under a name of the session.

    Args:
        ctx: the session.
        name: the name, read as `register_table` reads it.
        uri: where the table lies.
        version: serve this version and no other, read only; the newest when None.
        storage_options: as for `DeltaTable`.

    Raises:
        TableNotFoundError: there is no Delta table.
        DeltaError: there is no such version.
    """
    from deltalake import DeltaTable  # noqa: PLC0415 - heavy

    options = None if storage_options is None else dict(storage_options)
    table = DeltaTable(uri, version=version, storage_options=options)
    session = session_of(ctx)
    full_name = session.parsed_name(ctx, name)
    session.register(ctx, full_name, table, fixed=version is not None)


def refresh(ctx: SessionContext, name: str | None = None) -> None:
    """Serve the newest version of a registered Delta table, or of all of them.

    What this session writes, it serves at once; this picks up what others have committed. A table
    that was registered at a fixed version stays there.

    Args:
        ctx: the session.
        name: the table; all of them when None.

    Raises:
        StatementError: the name stands for no Delta table.
    """
    session = session_of(ctx)
    session.refresh(ctx, None if name is None else tuple(session.parsed_name(ctx, name)))


def _deregister_table(ctx: SessionContext, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    name = _argument(args, kwargs, 0, "name")
    session = session_of(ctx)
    result = original(ctx, "deregister_table")(*args, **kwargs)
    if isinstance(name, str):
        session.forget(session.parsed_name(ctx, name))
    return result


def _register_table_factory(
    ctx: SessionContext, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    result = original(ctx, "register_table_factory")(*args, **kwargs)
    name = _argument(args, kwargs, 0, "format")
    if isinstance(name, str) and name.upper() == FACTORY_FORMAT:
        session_of(ctx).has_factory = False
    return result


def _same_session(name: str) -> Handler:
    """Return the handler of a method that returns another handle on the same session."""

    def handler(ctx: SessionContext, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        session = session_of(ctx)
        return adopted(original(ctx, name)(*args, **kwargs), session)

    return handler


_ADDRESS = "_deltawitness_address"


def _catalog(ctx: SessionContext, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    session_of(ctx).freshen(ctx)
    catalog = original(ctx, "catalog")(*args, **kwargs)
    name = args[0] if args else kwargs.get("name", "datafusion")
    return _addressed(catalog, (ctx, name))


def _addressed(place: Any, address: tuple[Any, ...]) -> Any:
    if type(place).__module__.startswith("datafusion."):
        setattr(place, _ADDRESS, address)
    return place


SESSION_HANDLERS: dict[str, Handler] = {
    "catalog": _catalog,
    "create_dataframe_from_logical_plan": _plan_to_frame("create_dataframe_from_logical_plan"),
    "deregister_table": _deregister_table,
    "execute_logical_plan": _plan_to_frame("execute_logical_plan"),
    "read_table": _read_table,
    "register_table": _registering("register_table"),
    "register_catalog_provider": _other_catalog("register_catalog_provider"),
    "register_catalog_provider_list": _other_catalog("register_catalog_provider_list"),
    "register_table_factory": _register_table_factory,
    "register_table_provider": _registering("register_table_provider"),
    "register_view": _registering("register_view"),
    "sql": _sql,
    "sql_with_options": _sql,
    "table": _table,
    **{
        name: _source(name)
        for name in (
            "create_dataframe", "empty_table", "from_arrow", "from_pandas", "from_polars",
            "from_pydict", "from_pylist", "read_arrow", "read_avro", "read_batch", "read_batches",
            "read_csv", "read_empty", "read_json", "read_parquet",
        )
    },
    **{
        name: _same_session(name)
        for name in (
            "enable_url_table", "with_extensions", "with_logical_extension_codec",
            "with_physical_extension_codec", "with_python_udf_inlining",
        )
    },
}  # fmt: skip
"""Methods of `SessionContext` that are observed."""

SESSION_EXTRAS: dict[str, Callable[..., Any]] = {
    "refresh": refresh,
    "register_delta": register_delta,
}
"""Methods that an observed session has and a plain one has not."""


# --- catalogs --------------------------------------------------------------------------------------------


def _catalog_schema(catalog: Catalog, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    schema = original(catalog, "schema")(*args, **kwargs)
    address = getattr(catalog, _ADDRESS, None)
    name = args[0] if args else kwargs.get("name", "public")
    return schema if address is None else _addressed(schema, (*address, name))


def _other_schema(method: str) -> Handler:
    """Return the handler of a method that puts a schema in place of what was there, or none."""

    def handler(catalog: Catalog, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        result = original(catalog, method)(*args, **kwargs)
        address = getattr(catalog, _ADDRESS, None)
        if address is not None:
            ctx, name = address
            session_of(ctx).forget_schema(name, _argument(args, kwargs, 0, "name"))
        return result

    return handler


def _schema_register(schema: Schema, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    result = original(schema, "register_table")(*args, **kwargs)
    address = getattr(schema, _ADDRESS, None)
    if address is not None:
        ctx, *path = address
        session = session_of(ctx)
        name = session.full_name(ctx, (*path, args[0] if args else kwargs["name"]))
        table = args[1] if len(args) > 1 else kwargs["table"]
        session.forget(name)
        if _is_delta(table):
            session.register(ctx, name, table, fixed=_is_behind(table), is_registered=True)
        else:
            _note_frame_as_view(ctx, name, table)
    return result


def _schema_deregister(schema: Schema, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    result = original(schema, "deregister_table")(*args, **kwargs)
    address = getattr(schema, _ADDRESS, None)
    if address is not None:
        ctx, *path = address
        session = session_of(ctx)
        session.forget(session.full_name(ctx, (*path, args[0] if args else kwargs["name"])))
    return result


CATALOG_HANDLERS: dict[str, Handler] = {
    "deregister_schema": _other_schema("deregister_schema"),
    "register_schema": _other_schema("register_schema"),
    "schema": _catalog_schema,
}
SCHEMA_HANDLERS: dict[str, Handler] = {
    "deregister_table": _schema_deregister,
    "register_table": _schema_register,
}


# --- DataFrame -------------------------------------------------------------------------------------------


def _deriving(name: str) -> Handler:
    return lambda frame, args, kwargs: derive(name, frame, args, kwargs)


def _executing(name: str) -> Handler:
    """Return the handler of a method that runs the frame and makes another one from its rows."""

    def handler(frame: DataFrame, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        state = state_of(frame)
        if state is None:
            return original(frame, name)(*args, **kwargs)
        rows = frame if state.pending is None else state.pending.run()
        with inside_a_query():
            result = original(rows, name)(*args, **kwargs)
        return adopt(
            result, FrameState(state.ctx, state.session, state.snapshot, _read_by(frame, state))
        )

    return handler


def _read_by(frame: DataFrame, state: FrameState) -> tuple[InputVersion, ...]:
    # The rows are in memory: the plan of the new frame does not say where they came from.
    return state.inputs(original(frame, "logical_plan")().display_indent())


def _terminal(name: str) -> Handler:
    """Return the handler of a method that gives the rows to the program: a statement runs here."""

    def handler(frame: DataFrame, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        known = frame.__dict__.get(ATTRIBUTE)
        if type(known) is FrameState and known.pending is not None:
            return original(known.pending.run(), name)(*args, **kwargs)
        call = original(frame, name) if REPLACED else getattr(frame, name)
        observer = current_observer()
        if observer is None or not observer.settings.capture_queries:
            return call(*args, **kwargs)
        return observed_query(observer, name, frame, partial(call, *args, **kwargs))

    return handler


def _planning(name: str) -> Handler:
    """Return the handler of a method that hands out the plan: it keeps what is known of the frame."""

    def handler(frame: DataFrame, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        plan = original(frame, name)(*args, **kwargs)
        state = state_of(frame)
        return plan if state is None else adopt(plan, state)

    return handler


def _looking(name: str) -> Handler:
    """Return the handler of what notebooks and debuggers call: it never runs a statement."""

    def handler(frame: DataFrame, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        state = state_of(frame)
        if state is None or state.pending is None:
            return original(frame, name)(*args, **kwargs)
        observer = current_observer()
        if observer is not None and observer.settings.repr_runs_dml:
            return original(state.pending.run(), name)(*args, **kwargs)
        text = f"{state.pending.title}: not run yet; collect() or show() runs it"
        return (
            f"<pre>{html.escape(text, quote=False)}</pre>"
            if name == "_repr_html_"
            else f"DataFrame()\n{text}"
        )

    return handler


def _exporting(name: str) -> Handler:
    def handler(frame: DataFrame, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        state = state_of(frame)
        rows = frame if state is None or state.pending is None else state.pending.run()
        path = _argument(args, kwargs, 0, "path")
        has_header = name == "write_csv" and bool(_argument(args, kwargs, 1, "with_header"))
        write = partial(original(rows, name), *args, **kwargs)
        if state is None or not isinstance(path, str | os.PathLike):
            return write()
        return exported(frame, path, write, headers=int(has_header))

    return handler


def _argument(args: tuple[Any, ...], kwargs: Mapping[str, Any], place: int, name: str) -> Any:
    return args[place] if len(args) > place else kwargs.get(name)


def _write_table(frame: DataFrame, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    name = _argument(args, kwargs, 0, "table_name")
    if isinstance(name, str) and write_table(
        frame, name, _argument(args, kwargs, 1, "write_options")
    ):
        return None
    return original(frame, "write_table")(*args, **kwargs)


DERIVING = (
    "__getitem__", "aggregate", "alias", "cast", "distinct", "distinct_on", "drop", "except_all",
    "fill_nan", "fill_null", "filter", "head", "intersect", "join", "join_on", "limit",
    "repartition", "repartition_by_hash", "select", "select_exprs", "sort", "sort_by", "union",
    "union_by_name", "union_distinct", "unnest_columns", "window", "with_column",
    "with_column_renamed", "with_columns",
)  # fmt: skip
"""Methods of `DataFrame` that only add to the plan."""

EXECUTING = ("cache", "describe", "tail")
"""Methods of `DataFrame` that run it and return a frame."""

TERMINAL = (
    "__aiter__", "__arrow_c_stream__", "__iter__", "collect", "collect_column",
    "collect_partitioned", "count", "execute_stream", "execute_stream_partitioned", "show",
    "to_arrow_table", "to_pandas", "to_polars", "to_pydict", "to_pylist",
)  # fmt: skip
"""Methods of `DataFrame` that run it and give its rows to the program."""

GIVING_DATA = frozenset(TERMINAL)
"""Methods whose results are no objects of the engine's that could be observed."""

EXPORTING = ("write_csv", "write_json", "write_parquet", "write_parquet_with_options")
"""Methods of `DataFrame` that write files outside Delta."""

FRAME_HANDLERS: dict[str, Handler] = {
    **{name: _deriving(name) for name in DERIVING},
    **{name: _executing(name) for name in EXECUTING},
    **{name: _terminal(name) for name in TERMINAL},
    **{name: _exporting(name) for name in EXPORTING},
    **{name: _planning(name) for name in ("logical_plan", "optimized_logical_plan")},
    **{name: _looking(name) for name in ("__repr__", "_repr_html_")},
    "into_view": _into_view,
    "write_table": _write_table,
}
"""Methods of `DataFrame` that are observed."""

FRAME_EXTRAS: dict[str, Callable[..., Any]] = {"write_delta": write_delta}
"""Methods that an observed frame has and a plain one has not."""
