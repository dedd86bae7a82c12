"""The state of one DataFusion session outside the engine, and how a context finds it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from deltawitness.session.core.cache_links import CacheLinks
from deltawitness.session.core.session_names import SessionNames
from deltawitness.session.core.session_settings import SessionSettings
from deltawitness.session.core.session_tables import SessionTables
from deltawitness.session.core.session_views import SessionViews
from deltawitness.session.core.table_swaps import TableSwaps

if TYPE_CHECKING:
    from datafusion import SessionContext

    from deltawitness.session.sql.name_binding import BoundCall

__all__ = [
    "SESSION_ATTRIBUTE",
    "Session",
    "allow_urls",
    "attach_session",
    "keep_session_alive",
    "reads_urls",
    "session_of",
]

FACTORY_FORMAT = "DELTATABLE"
"""The word after STORED AS for a Delta table, as in DataFusion's command line."""


class Session:
    """The state that all contexts on one DataFusion session share; it holds no reference to a context.

    Attributes:
        names: what the session's names resolve to.
        settings: the session's settings.
        swaps: the replacements of tables and views in the engine.
        tables: the Delta tables.
        views: the views over Delta tables.
        cache_links: the names that caches own in the session, and the files that they read.
        prepared: the PREPARE statements with their resolved names, by the name of the prepared
            statement; a change needs `prepare_lock`.
        functions: names of the user-defined functions that the program has registered.
        earlier_functions: names of functions registered before the session was observed; None until
            looked up.
        table_functions: table functions in the order of registration; the engine cannot list them.
        has_spark_functions: the program has enabled the functions of Spark.
        has_factory: the engine has a factory for tables STORED AS DELTATABLE.
    """

    def __init__(self) -> None:
        self.names: SessionNames = SessionNames()
        self.settings: SessionSettings = SessionSettings()
        self.swaps: TableSwaps = TableSwaps(self.names.lock)
        self.tables: SessionTables = SessionTables(self.names, self.swaps)
        self.cache_links: CacheLinks = CacheLinks()
        self.views: SessionViews = SessionViews(
            self.names, self.settings, self.swaps, self.cache_links
        )
        self.prepare_lock: threading.RLock = threading.RLock()
        self.prepared: dict[str, BoundCall] = {}
        self.functions: set[str] = set()
        self.earlier_functions: set[str] | None = None
        self.table_functions: tuple[Any, ...] = ()
        self.has_spark_functions = False
        self.has_factory = False


SESSION_ATTRIBUTE = "_deltawitness_session"
"""The attribute of a context that holds the state of its session."""

_sessions: WeakValueDictionary[str, Session] = WeakValueDictionary()
_sessions_lock = threading.Lock()


def session_of(ctx: SessionContext) -> Session:
    """Return the state of a context's session; contexts on one session share one state."""
    try:
        session: Session = vars(ctx)[SESSION_ATTRIBUTE]
    except KeyError:
        with _sessions_lock:
            session = _sessions.setdefault(ctx.session_id(), Session())
        setattr(ctx, SESSION_ATTRIBUTE, session)
    return session


_permanent_sessions: dict[str, Session] = {}


def keep_session_alive(ctx: SessionContext) -> SessionContext:
    """Keep the state of a context's session until the process ends, and return the context.

    The engine never drops its global session; without a reference its state would be collected.
    """
    _permanent_sessions[ctx.session_id()] = session_of(ctx)
    return ctx


def attach_session(ctx: SessionContext, session: Session) -> SessionContext:
    """Store the state of a session on another context of it, and return the context."""
    setattr(ctx, SESSION_ATTRIBUTE, session)
    return ctx


_READS_URLS = "_deltawitness_reads_urls"


def allow_urls(ctx: SessionContext) -> SessionContext:
    """Record that a context accepts file paths as table names in a query, and return the context."""
    setattr(ctx, _READS_URLS, True)
    return ctx


def reads_urls(ctx: SessionContext) -> bool:
    """Return whether a context accepts file paths as table names in a query."""
    return getattr(ctx, _READS_URLS, False) is True
