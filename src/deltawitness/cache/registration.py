"""An entry as a frame of the session, under its name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from deltawitness.exceptions import ConfigurationError
from deltawitness.hashing import table_id
from deltawitness.session.context_handlers import SESSION_HANDLERS
from deltawitness.session.core.snapshot import TableName
from deltawitness.session.core.state import Session, session_of
from deltawitness.session.core.unpatched import unpatched
from deltawitness.session.proxies import plain

if TYPE_CHECKING:
    from datafusion import DataFrame, SessionContext
    from deltalake import DeltaTable

__all__ = ["check_name_is_free", "register_entry", "register_uncached"]


def check_name_is_free(ctx: SessionContext, name: str, uri: str) -> None:
    """See that an entry can be registered under its name.

    Args:
        ctx: the plain context.
        name: the entry's name.
        uri: where the entry lies.

    Raises:
        ConfigurationError: the session knows something else under this name.
    """
    session = session_of(ctx)
    full = session.full_name(ctx, (name,))
    with session.registration_lock:
        known = session.snapshot.get(full)
        is_ours = full in session.uncached_names or (
            known is not None and known.table_id == table_id(uri)
        )
        if not is_ours and unpatched(ctx, "table_exist")(full.sql()):
            msg = f"the session knows another table under the name {name}: choose another name"
            raise ConfigurationError(msg)


def register_entry(ctx: SessionContext, name: str, table: DeltaTable) -> DataFrame:
    """Register an entry's table under its name, and return it as a frame.

    Args:
        ctx: the plain context.
        name: the entry's name.
        table: its table, at the version to serve.
    """
    session = session_of(ctx)
    full = session.full_name(ctx, (name,))
    with session.registration_lock:
        was_lent = full in session.uncached_names
        with session.swapping():
            if was_lent:
                _deregister(ctx, session, full)
            known = session.snapshot.get(full)
            if known is None:
                session.register(ctx, full, table)
            else:
                session.publish(ctx, known, table)
        if was_lent:
            session.replace_readers(ctx, full)
        frame: DataFrame = _call(ctx, "table", full.sql())
    return frame


def register_uncached(ctx: SessionContext, name: str, frame: DataFrame) -> DataFrame:
    """Let an entry's name stand for what was computed in its place, and could not be kept.

    Args:
        ctx: the plain context.
        name: the entry's name.
        frame: what was computed.
    """
    session = session_of(ctx)
    full = session.full_name(ctx, (name,))
    rows = plain(frame)
    with session.registration_lock:
        with session.swapping():
            if full in session.uncached_names or session.snapshot.get(full) is not None:
                _deregister(ctx, session, full)
            had_been = full in session.rebound
            try:
                _call(ctx, "register_view", full.sql(), rows)
            except Exception:  # noqa: BLE001 - a frame that is no view: two of its columns have one name
                if unpatched(ctx, "table_exist")(full.sql()):
                    _deregister(ctx, session, full)
                return frame
            if not had_been:
                session.rebound.discard(full)  # its readers are made again
        session.uncached_names.add(full)
        session.replace_readers(ctx, full)
    return frame


def _deregister(ctx: SessionContext, session: Session, name: TableName) -> None:
    unpatched(ctx, "deregister_table")(name.sql())
    session.uncached_names.discard(name)
    session.drop_name(name)


def _call(ctx: SessionContext, method: str, *arguments: Any) -> Any:
    """Call a method of the plain context as the session's own: what it makes is known to it."""
    return SESSION_HANDLERS[method](ctx, arguments, {})
