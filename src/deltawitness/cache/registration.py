"""Registers cache entries in the session, under their names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from deltawitness.exceptions import ConfigurationError
from deltawitness.locations import table_id
from deltawitness.session.context_handlers import SESSION_HANDLERS
from deltawitness.session.core.snapshot import Registered, TableName
from deltawitness.session.core.state import Session, session_of
from deltawitness.session.core.table_providers import provider_of, provider_of_copy
from deltawitness.session.core.unpatched import unpatched
from deltawitness.session.proxies import plain

if TYPE_CHECKING:
    from datafusion import DataFrame, SessionContext
    from deltalake import DeltaTable

    from deltawitness.cache.entries.copies import EntryCopy
    from deltawitness.cache.entries.entry import Entry

__all__ = [
    "check_name_is_free",
    "record_written",
    "register_entry",
    "register_uncached",
    "served_now",
]


def check_name_is_free(ctx: SessionContext, name: str, uri: str) -> None:
    """Check that an entry can be registered under its name.

    Args:
        ctx: the plain context.
        name: name of the entry.
        uri: location of the entry's table.

    Raises:
        ConfigurationError: the session has another table with this name.
    """
    session = session_of(ctx)
    full = session.names.full_name(ctx, (name,))
    with session.cache_links.registering:
        registered = session.names.snapshot.get(full)
        is_own = session.cache_links.is_uncached(full) or (
            registered is not None and registered.table_id == table_id(uri)
        )
        if not is_own and unpatched(ctx, "table_exist")(full.sql()):
            msg = f"the session has another table named {name}: choose another name"
            raise ConfigurationError(msg)


def register_entry(ctx: SessionContext, name: str, entry: Entry) -> DataFrame:
    """Register the table of an entry under the entry's name, and return it as a frame.

    Args:
        ctx: the plain context.
        name: name of the entry.
        entry: the entry. Its table is not opened if the session serves this entry already.
    """
    session = session_of(ctx)
    full = session.names.full_name(ctx, (name,))
    with session.cache_links.registering:
        was_uncached = session.cache_links.is_uncached(full)
        with session.swaps.swapping():
            if was_uncached:
                _deregister(ctx, session, full)
            _serve(ctx, session, full, entry)
        if was_uncached:
            session.views.replace_readers(ctx, full)
        frame: DataFrame = _call(ctx, "table", full.sql())
    return frame


def _serve(ctx: SessionContext, session: Session, full: TableName, entry: Entry) -> None:
    registered = session.names.snapshot.get(full)
    previous = None if registered is None else session.cache_links.served_entry(registered)
    if previous is entry:
        return
    if entry.copy is not None:
        _serve_copy(ctx, session, full, entry, entry.copy)
        return
    with _opened(session, entry) as table:
        if previous is not None and getattr(previous, "copy", None) is not None:
            # The copy was damaged: the version may be the same.
            after = Registered.of(full, table, fixed=False, defaults={})
            served = session.tables.serve_through(ctx, after, provider_of(table))
        elif registered is None:
            served = session.tables.register(ctx, full, table)
        else:
            served = session.tables.publish(ctx, registered, table)
    session.cache_links.record_served(served, entry)


def _serve_copy(
    ctx: SessionContext, session: Session, full: TableName, entry: Entry, copy: EntryCopy
) -> None:
    """Serve an entry from its local copy, as the version of the table on the object store."""
    table = copy.open_table()
    after = replace(
        Registered.of(full, table, fixed=False, defaults={}),
        uri=f"{entry.uri.rstrip('/')}/",  # as delta-rs spells it
        storage_options=entry.storage_options,
        table_id=table_id(entry.uri),
    )
    served = session.tables.serve_through(ctx, after, provider_of_copy(table, copy.lease))
    session.cache_links.record_served(served, entry)


@contextmanager
def _opened(session: Session, entry: Entry) -> Iterator[DeltaTable]:
    """Yield the open table of an entry, at the version to serve.

    A table that is not open yet is opened as a handle of the session: the next write of the entry uses it.
    """
    if entry.is_opened:
        yield entry.table
        return
    with session.tables.handles.lease(entry.uri, entry.storage_options) as table:
        is_served = table is not None and table.version() == entry.newest
        yield table if table is not None and is_served else entry.table


def served_now(ctx: SessionContext, name: str) -> Registered | None:
    """Return what the session serves under the name of an entry, or None."""
    session = session_of(ctx)
    return session.names.snapshot.get(session.names.full_name(ctx, (name,)))


def record_written(ctx: SessionContext, name: str, entry: Entry, before: Registered | None) -> None:
    """Record that the session serves an entry already, because the write published its new version.

    Args:
        ctx: the plain context.
        name: name of the entry.
        entry: the entry that was written.
        before: what the session served under the name before the write.
    """
    served = served_now(ctx, name)
    if served is None or served is before or served.version != entry.newest:
        return
    if served.table_id == table_id(entry.uri):
        session_of(ctx).cache_links.record_served(served, entry)


def register_uncached(ctx: SessionContext, name: str, frame: DataFrame) -> DataFrame:
    """Register a computed result that could not be stored, as a view with the entry's name.

    Args:
        ctx: the plain context.
        name: name of the entry.
        frame: the computed result.
    """
    session = session_of(ctx)
    full = session.names.full_name(ctx, (name,))
    rows = plain(frame)
    with session.cache_links.registering:
        with session.swaps.swapping():
            if (
                session.cache_links.is_uncached(full)
                or session.names.snapshot.get(full) is not None
            ):
                _deregister(ctx, session, full)
            was_rebound = full in session.names.rebound
            try:
                _call(ctx, "register_view", full.sql(), rows)
            except Exception:  # noqa: BLE001 - two columns have the same name, which a view refuses
                if unpatched(ctx, "table_exist")(full.sql()):
                    _deregister(ctx, session, full)
                return frame
            if not was_rebound:
                session.names.unmark_rebound(full)  # its readers are planned again below
        session.cache_links.register_uncached(full)
        session.views.replace_readers(ctx, full)
    return frame


def _deregister(ctx: SessionContext, session: Session, name: TableName) -> None:
    unpatched(ctx, "deregister_table")(name.sql())
    session.cache_links.drop_uncached(name)
    session.names.drop(name)


def _call(ctx: SessionContext, method: str, *arguments: Any) -> Any:
    """Call a method of the plain context through the session's handler, so that its effects are tracked."""
    return SESSION_HANDLERS[method](ctx, arguments, {})
