"""Handlers of the methods of `Catalog` and `Schema` that add and remove tables and schemas."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from deltawitness.patching import argument
from deltawitness.session.core.state import session_of
from deltawitness.session.core.table_providers import to_readable, to_readable_named
from deltawitness.session.core.unpatched import unpatched
from deltawitness.session.handlers import (
    ADDRESS,
    Handler,
    attach_address,
    is_behind,
    is_delta,
    record_frame_as_view,
)

if TYPE_CHECKING:
    from datafusion.catalog import Catalog, Schema

__all__ = ["CATALOG_HANDLERS", "SCHEMA_HANDLERS"]


def _catalog_schema(catalog: Catalog, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    schema = unpatched(catalog, "schema")(*args, **kwargs)
    address = getattr(catalog, ADDRESS, None)
    name = args[0] if args else kwargs.get("name", "public")
    return schema if address is None else attach_address(schema, (*address, name))


def _replace_schema_handler(method: str) -> Handler:
    """Return the handler of a method that replaces or removes a schema."""

    def handler(catalog: Catalog, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        result = unpatched(catalog, method)(*args, **kwargs)
        address = getattr(catalog, ADDRESS, None)
        if address is not None:
            ctx, name = address
            session_of(ctx).names.forget_schema(name, argument(args, kwargs, 0, "name"))
        return result

    return handler


def _schema_register(schema: Schema, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    result = unpatched(schema, "register_table")(*to_readable(args), **to_readable_named(kwargs))
    address = getattr(schema, ADDRESS, None)
    if address is not None:
        ctx, *path = address
        session = session_of(ctx)
        name = session.names.full_name(ctx, (*path, args[0] if args else kwargs["name"]))
        table = args[1] if len(args) > 1 else kwargs["table"]
        session.names.forget(name)
        if is_delta(table):
            session.tables.register(ctx, name, table, fixed=is_behind(table), is_registered=True)
        else:
            record_frame_as_view(ctx, name, table)
    return result


def _schema_deregister(schema: Schema, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    result = unpatched(schema, "deregister_table")(*args, **kwargs)
    address = getattr(schema, ADDRESS, None)
    if address is not None:
        ctx, *path = address
        session = session_of(ctx)
        session.names.forget(
            session.names.full_name(ctx, (*path, args[0] if args else kwargs["name"]))
        )
    return result


CATALOG_HANDLERS: dict[str, Handler] = {
    "deregister_schema": _replace_schema_handler("deregister_schema"),
    "register_schema": _replace_schema_handler("register_schema"),
    "schema": _catalog_schema,
}
SCHEMA_HANDLERS: dict[str, Handler] = {
    "deregister_table": _schema_deregister,
    "register_table": _schema_register,
}
