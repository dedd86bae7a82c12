"""What happens at each method of `SessionContext` that we care about.

Each handler gets the plain object of the engine and the arguments of the call. The proxies and the
patched classes both end here, so that they do the same.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from deltawitness.events import InputVersion
from deltawitness.hashing import table_id
from deltawitness.session.core.frames import (
    FrameState,
    PlainQuery,
    attach_state,
    refuse_statements,
    state_of,
)
from deltawitness.session.core.sql_call import SqlCall
from deltawitness.session.core.state import (
    FACTORY_FORMAT,
    attach_session,
    let_read_urls,
    reads_urls,
    session_of,
)
from deltawitness.session.core.table_providers import readable, readable_named
from deltawitness.session.core.unpatched import REPLACED, unpatched
from deltawitness.session.handlers import (
    Handler,
    addressed,
    argument,
    is_behind,
    is_delta,
    record_frame_as_view,
)
from deltawitness.session.sql.name_binding import TextOrigin
from deltawitness.session.sql.router import route, run_sql

if TYPE_CHECKING:
    from datafusion import SessionContext

__all__ = ["SESSION_EXTRAS", "SESSION_HANDLERS", "refresh", "register_delta"]


def _sql(ctx: SessionContext, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if len(args) == 1 and not kwargs:
        (text,) = args
        if isinstance(text, str) and text[:7] in _PLAINLY_A_QUERY:
            session = session_of(ctx)
            if session.is_settled:
                # Most of what sessions do, at a tenth of what the rest of them costs.
                snapshot, epoch = session.snapshot, session.epoch
                try:
                    frame: Any = unpatched(ctx, "sql")(text) if REPLACED else ctx.sql(text)
                except Exception:  # noqa: BLE001, S110 - the way below raises it, unless it was a moment's
                    pass
                else:
                    frame._deltawitness_frame = PlainQuery(  # noqa: SLF001 - as `attach_state` does
                        ctx,
                        session,
                        snapshot,
                        epoch,
                        session.config or session.config_of(ctx),
                        text,
                        TextOrigin.of_query,
                    )
                    return frame
    call = _sql_call(ctx, *args, **kwargs)
    if not isinstance(call.text, str):
        return call.plan()  # raises the engine's own error
    return run_sql(session_of(ctx), call.owned())


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
        frame = unpatched(ctx, name)(*args, **kwargs)
        known = state_of(argument(args, kwargs, 0, "plan"))
        if known is None:
            return route(frame, FrameState(ctx, session, session.snapshot))
        state = FrameState(ctx, known.session, known.snapshot, known.reads)
        if known.pending is None:
            return route(frame, state)
        # The plan of a statement's frame, optimized or not, is that statement.
        return attach_state(frame, state._replace(pending=known.pending.anew()))

    return handler


def _table(ctx: SessionContext, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    session = session_of(ctx)
    session.freshen(ctx)
    snapshot, epoch = session.snapshot, session.epoch
    frame = session.reading(lambda: unpatched(ctx, "table")(*args, **kwargs))
    call = SqlCall(ctx, argument(args, kwargs, 0, "name"))
    config = session.config_of(ctx)
    origin = TextOrigin(session, call, epoch, config, snapshot.default, is_name=True)
    return attach_state(frame, FrameState(ctx, session, snapshot, (), origin))


def _source(name: str) -> Handler:
    """Return the handler of a method that makes a frame over data that it is given."""

    def handler(ctx: SessionContext, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        session = session_of(ctx)
        frame = unpatched(ctx, name)(*args, **kwargs)
        return attach_state(frame, FrameState(ctx, session, session.snapshot))

    return handler


def _read_table(ctx: SessionContext, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    session = session_of(ctx)
    source: Any = argument(args, kwargs, 0, "table")
    frame = unpatched(ctx, "read_table")(*readable(args), **readable_named(kwargs))
    reads: tuple[InputVersion, ...] = ()
    if is_delta(source):
        uri = source.table_uri
        reads = (InputVersion(table_id(uri), source.version(), uri),)
    elif (state := state_of(source)) is not None:
        reads = state.inputs(unpatched(source, "logical_plan")().display_indent())
    return attach_state(frame, FrameState(ctx, session, session.snapshot, reads))


# --- SessionContext: registration ------------------------------------------------------------------------


def _registering(method: str) -> Handler:
    return lambda ctx, args, kwargs: _registered_as(ctx, method, *args, **kwargs)


def _registered_as(ctx: SessionContext, method: str, name: str, *args: Any, **kwargs: Any) -> None:
    session = session_of(ctx)
    table: Any = next(iter((*args, *kwargs.values())), None)
    if is_delta(table):
        full_name = session.parsed_name(ctx, name)
        unpatched(ctx, method)(name, *readable(args), **readable_named(kwargs))
        session.register(ctx, full_name, table, fixed=is_behind(table), is_registered=True)
        return
    refuse_statements(table)
    unpatched(ctx, method)(name, *args, **kwargs)
    full_name = session.parsed_name(ctx, name)
    session.forget(full_name)
    record_frame_as_view(ctx, full_name, table)


def _other_catalog(name: str) -> Handler:
    """Return the handler of a method that puts a catalog, or all of them, in place of what was there."""

    def handler(ctx: SessionContext, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        result = unpatched(ctx, name)(*args, **kwargs)
        is_one = name == "register_catalog_provider"
        session_of(ctx).forget_schema(argument(args, kwargs, 0, "name") if is_one else None)
        return result

    return handler


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
    name = argument(args, kwargs, 0, "name")
    session = session_of(ctx)
    result = unpatched(ctx, "deregister_table")(*args, **kwargs)
    if isinstance(name, str):
        session.forget(session.parsed_name(ctx, name))
    return result


def _register_table_factory(
    ctx: SessionContext, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    result = unpatched(ctx, "register_table_factory")(*args, **kwargs)
    name = argument(args, kwargs, 0, "format")
    if isinstance(name, str) and name.upper() == FACTORY_FORMAT:
        session_of(ctx).has_factory = False
    return result


def _registering_function(name: str) -> Handler:
    """Return the handler of a method that registers a function of the program's own."""

    def handler(ctx: SessionContext, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        result = unpatched(ctx, name)(*args, **kwargs)
        function: Any = next(iter((*args, *kwargs.values())), None)
        named = getattr(function, "name", None)
        if isinstance(named, str):
            session = session_of(ctx)
            session.note_change(named)
            session.functions.add(named)
        return result

    return handler


def _register_udtf(ctx: SessionContext, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    result = unpatched(ctx, "register_udtf")(*args, **kwargs)
    session = session_of(ctx)
    session.note_change()
    session.table_functions += (argument(args, kwargs, 0, "func"),)
    return result


def _enable_spark_functions(
    ctx: SessionContext, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    result = unpatched(ctx, "enable_spark_functions")(*args, **kwargs)
    session = session_of(ctx)
    session.note_change()
    session.has_spark_functions = True
    return result


def _same_session(name: str) -> Handler:
    """Return the handler of a method that returns another handle on the same session."""

    def handler(ctx: SessionContext, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        session = session_of(ctx)
        handle = attach_session(unpatched(ctx, name)(*args, **kwargs), session)
        return let_read_urls(handle) if name == "enable_url_table" or reads_urls(ctx) else handle

    return handler


def _catalog(ctx: SessionContext, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    session_of(ctx).freshen(ctx)
    catalog = unpatched(ctx, "catalog")(*args, **kwargs)
    name = args[0] if args else kwargs.get("name", "datafusion")
    return addressed(catalog, (ctx, name))


SESSION_HANDLERS: dict[str, Handler] = {
    "catalog": _catalog,
    "create_dataframe_from_logical_plan": _plan_to_frame("create_dataframe_from_logical_plan"),
    "deregister_table": _deregister_table,
    "enable_spark_functions": _enable_spark_functions,
    "execute_logical_plan": _plan_to_frame("execute_logical_plan"),
    "read_table": _read_table,
    "register_table": _registering("register_table"),
    "register_catalog_provider": _other_catalog("register_catalog_provider"),
    "register_catalog_provider_list": _other_catalog("register_catalog_provider_list"),
    "register_table_factory": _register_table_factory,
    "register_table_provider": _registering("register_table_provider"),
    "register_udtf": _register_udtf,
    "register_view": _registering("register_view"),
    "sql": _sql,
    "sql_with_options": _sql,
    "table": _table,
    **{
        name: _registering_function(name)
        for name in ("register_udaf", "register_udf", "register_udwf")
    },
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
