"""Handlers of the observed methods of `SessionContext`.

A handler gets the engine's own object and the arguments of the call. The proxies and the patched
classes call the same handlers, so both behave alike.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from deltawitness.events import InputVersion
from deltawitness.locations import local_path, table_id
from deltawitness.patching import argument
from deltawitness.session.core.frames import (
    FrameState,
    PlainQuery,
    attach_state,
    refuse_statements,
    state_of,
)
from deltawitness.session.core.releases import register_release
from deltawitness.session.core.sql_call import SqlCall
from deltawitness.session.core.state import (
    FACTORY_FORMAT,
    SESSION_ATTRIBUTE,
    Session,
    allow_urls,
    attach_session,
    reads_urls,
    session_of,
)
from deltawitness.session.core.table_providers import to_readable, to_readable_named
from deltawitness.session.core.unpatched import REPLACED, unpatched
from deltawitness.session.handlers import (
    Handler,
    attach_address,
    is_behind,
    is_delta,
    record_frame_as_view,
)
from deltawitness.session.sql.distributed_write import write_distributed
from deltawitness.session.sql.name_binding import TextOrigin, state_of_query
from deltawitness.session.sql.router import route, run_sql
from deltawitness.sql_statements import SELECTS, is_plain_query

if TYPE_CHECKING:
    from datafusion import SessionContext

__all__ = ["SESSION_EXTRAS", "SESSION_HANDLERS", "refresh", "register_delta"]


def _sql(ctx: SessionContext, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if len(args) == 1 and not kwargs:
        (text,) = args
        if isinstance(text, str) and (text.startswith(SELECTS) or is_plain_query(text)):
            # The fast path for plain queries. It makes as few Python calls as possible.
            session: Session = getattr(ctx, SESSION_ATTRIBUTE, None) or session_of(ctx)
            names = session.names
            snapshot, epoch = names.snapshot, names.epoch
            if snapshot.is_complete and not names.view_records.stale:  # as `session.views.is_fresh`
                try:
                    frame: Any = unpatched(ctx, "sql")(text) if REPLACED else ctx.sql(text)
                except Exception:  # noqa: BLE001, S110 - the general path raises it again, unless it was transient
                    pass
                else:
                    settings = session.settings
                    config = settings.config or settings.config_of(ctx)
                    query: PlainQuery = (
                        ctx,
                        session,
                        snapshot,
                        epoch,
                        config,
                        text,
                        state_of_query,
                    )
                    frame._deltawitness_frame = query  # noqa: SLF001 - as `attach_state` does
                    return frame
    call = _sql_call(ctx, *args, **kwargs)
    if not isinstance(call.text, str):
        return call.plan()  # raises the engine's own error
    return run_sql(session_of(ctx), call.with_copied_parameters())


def _sql_call(
    ctx: SessionContext,
    /,
    query: str,
    options: Any = None,
    param_values: Mapping[str, Any] | None = None,
    **named: Any,
) -> SqlCall:
    return SqlCall(ctx, query, options, param_values, named)


def _plan_handler(name: str) -> Handler:
    def handler(ctx: SessionContext, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        session = session_of(ctx)
        frame = unpatched(ctx, name)(*args, **kwargs)
        plan_state = state_of(argument(args, kwargs, 0, "plan"))
        if plan_state is None:
            return route(frame, FrameState(ctx, session, session.names.snapshot))
        state = FrameState(ctx, plan_state.session, plan_state.snapshot, plan_state.reads)
        if plan_state.pending is None:
            return route(frame, state)
        # The plan comes from a statement's frame, optimized or not: the new frame runs the statement.
        return attach_state(frame, state._replace(pending=plan_state.pending.unrun_copy()))

    return handler


def _table(ctx: SessionContext, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    session = session_of(ctx)
    session.views.freshen(ctx)
    snapshot, epoch = session.names.snapshot, session.names.epoch
    frame = session.swaps.plan_with_retry(lambda: unpatched(ctx, "table")(*args, **kwargs))
    call = SqlCall(ctx, argument(args, kwargs, 0, "name"))
    config = session.settings.config_of(ctx)
    origin = TextOrigin(session, call, epoch, config, snapshot.default, is_name=True)
    return attach_state(frame, FrameState(ctx, session, snapshot, (), origin))


def _source_handler(name: str) -> Handler:
    """Return the handler of a method that creates a frame over data that the caller passes."""

    def handler(ctx: SessionContext, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        session = session_of(ctx)
        frame = unpatched(ctx, name)(*args, **kwargs)
        return attach_state(frame, FrameState(ctx, session, session.names.snapshot))

    return handler


def _read_table(ctx: SessionContext, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    session = session_of(ctx)
    source: Any = argument(args, kwargs, 0, "table")
    frame = unpatched(ctx, "read_table")(*to_readable(args), **to_readable_named(kwargs))
    reads: tuple[InputVersion, ...] = ()
    if is_delta(source):
        uri = source.table_uri
        reads = (InputVersion(table_id(uri), source.version(), uri),)
    elif (state := state_of(source)) is not None:
        reads = state.inputs(unpatched(source, "logical_plan")().display_indent())
    return attach_state(frame, FrameState(ctx, session, session.names.snapshot, reads))


# --- SessionContext: registration ------------------------------------------------------------------------


def _register_handler(method: str) -> Handler:
    return lambda ctx, args, kwargs: _register_as(ctx, method, *args, **kwargs)


def _register_as(ctx: SessionContext, method: str, name: str, *args: Any, **kwargs: Any) -> None:
    session = session_of(ctx)
    table: Any = next(iter((*args, *kwargs.values())), None)
    if is_delta(table):
        full_name = session.names.parsed_name(ctx, name)
        unpatched(ctx, method)(name, *to_readable(args), **to_readable_named(kwargs))
        session.tables.register(ctx, full_name, table, fixed=is_behind(table), is_registered=True)
        return
    refuse_statements(table)
    unpatched(ctx, method)(name, *args, **kwargs)
    full_name = session.names.parsed_name(ctx, name)
    session.names.forget(full_name)
    record_frame_as_view(ctx, full_name, table)


def _replace_catalog_handler(name: str) -> Handler:
    """Return the handler of a method that replaces one catalog, or all of them."""

    def handler(ctx: SessionContext, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        result = unpatched(ctx, name)(*args, **kwargs)
        is_one = name == "register_catalog_provider"
        session_of(ctx).names.forget_schema(argument(args, kwargs, 0, "name") if is_one else None)
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
    """Register the Delta table at a location under a name in the session.

    Args:
        ctx: the session.
        name: the name, parsed as `register_table` parses it.
        uri: the table's path or URI.
        version: serve only this version, read-only; None serves the newest version.
        storage_options: as for `DeltaTable`.

    Raises:
        TableNotFoundError: there is no Delta table at the location.
        DeltaError: the table has no such version.
    """
    from deltalake import DeltaTable  # noqa: PLC0415 - heavy

    options = None if storage_options is None else dict(storage_options)
    session = session_of(ctx)
    full_name = session.names.parsed_name(ctx, name)
    if version is None and local_path(os.fspath(uri)) is None:
        # The handle stays in the session: opening it again costs two requests for each commit.
        with session.tables.handles.lease(uri, options) as table:
            if table is not None:
                session.tables.register(ctx, full_name, table)
                return
    table = DeltaTable(uri, version=version, storage_options=options)
    session.tables.register(ctx, full_name, table, fixed=version is not None)


def refresh(ctx: SessionContext, name: str | None = None) -> None:
    """Serve the newest version of one registered Delta table, or of all of them.

    The session serves its own commits at once; this method picks up commits of other writers. A
    table that was registered at a fixed version stays at that version.

    Args:
        ctx: the session.
        name: the table's name; None refreshes all tables.

    Raises:
        StatementError: no Delta table is registered under the name.
    """
    session = session_of(ctx)
    session.tables.refresh(
        ctx, None if name is None else tuple(session.names.parsed_name(ctx, name))
    )


def _deregister_table(ctx: SessionContext, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    name = argument(args, kwargs, 0, "name")
    session = session_of(ctx)
    result = unpatched(ctx, "deregister_table")(*args, **kwargs)
    if isinstance(name, str):
        session.names.forget(session.names.parsed_name(ctx, name))
    return result


def _register_table_factory(
    ctx: SessionContext, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    result = unpatched(ctx, "register_table_factory")(*args, **kwargs)
    name = argument(args, kwargs, 0, "format")
    if isinstance(name, str) and name.upper() == FACTORY_FORMAT:
        session_of(ctx).has_factory = False
    return result


def _register_function_handler(name: str) -> Handler:
    """Return the handler of a method that registers a user-defined function."""

    def handler(ctx: SessionContext, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        result = unpatched(ctx, name)(*args, **kwargs)
        function: Any = next(iter((*args, *kwargs.values())), None)
        function_name = getattr(function, "name", None)
        if isinstance(function_name, str):
            session = session_of(ctx)
            session.names.record_change(function_name)
            session.functions.add(function_name)
        return result

    return handler


def _register_udtf(ctx: SessionContext, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    result = unpatched(ctx, "register_udtf")(*args, **kwargs)
    session = session_of(ctx)
    session.names.record_change()
    session.table_functions += (argument(args, kwargs, 0, "func"),)
    return result


def _enable_spark_functions(
    ctx: SessionContext, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    result = unpatched(ctx, "enable_spark_functions")(*args, **kwargs)
    session = session_of(ctx)
    session.names.record_change()
    session.has_spark_functions = True
    return result


def _same_session_handler(name: str) -> Handler:
    """Return the handler of a method that returns another context on the same session."""

    def handler(ctx: SessionContext, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        session = session_of(ctx)
        handle = attach_session(unpatched(ctx, name)(*args, **kwargs), session)
        return allow_urls(handle) if name == "enable_url_table" or reads_urls(ctx) else handle

    return handler


def _catalog(ctx: SessionContext, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    session_of(ctx).views.freshen(ctx)
    catalog = unpatched(ctx, "catalog")(*args, **kwargs)
    name = args[0] if args else kwargs.get("name", "datafusion")
    return attach_address(catalog, (ctx, name))


SESSION_HANDLERS: dict[str, Handler] = {
    "catalog": _catalog,
    "create_dataframe_from_logical_plan": _plan_handler("create_dataframe_from_logical_plan"),
    "deregister_table": _deregister_table,
    "enable_spark_functions": _enable_spark_functions,
    "execute_logical_plan": _plan_handler("execute_logical_plan"),
    "read_table": _read_table,
    "register_table": _register_handler("register_table"),
    "register_catalog_provider": _replace_catalog_handler("register_catalog_provider"),
    "register_catalog_provider_list": _replace_catalog_handler("register_catalog_provider_list"),
    "register_table_factory": _register_table_factory,
    "register_table_provider": _register_handler("register_table_provider"),
    "register_udtf": _register_udtf,
    "register_view": _register_handler("register_view"),
    "sql": _sql,
    "sql_with_options": _sql,
    "table": _table,
    **{
        name: _register_function_handler(name)
        for name in ("register_udaf", "register_udf", "register_udwf")
    },
    **{
        name: _source_handler(name)
        for name in (
            "create_dataframe", "empty_table", "from_arrow", "from_pandas", "from_polars",
            "from_pydict", "from_pylist", "read_arrow", "read_avro", "read_batch", "read_batches",
            "read_csv", "read_empty", "read_json", "read_parquet",
        )
    },
    **{
        name: _same_session_handler(name)
        for name in (
            "enable_url_table", "with_extensions", "with_logical_extension_codec",
            "with_physical_extension_codec", "with_python_udf_inlining",
        )
    },
}  # fmt: skip
"""Handlers of the observed methods of `SessionContext`, by method name."""

SESSION_EXTRAS: dict[str, Callable[..., Any]] = {
    "refresh": refresh,
    "register_delta": register_delta,
    "register_release": register_release,
    "write_distributed": write_distributed,
}
"""Methods that are added to a `SessionContext`, by name."""
