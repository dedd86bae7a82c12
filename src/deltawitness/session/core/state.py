"""The state of one DataFusion session outside the engine: its Delta tables, handles and views."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from deltawitness.delta_rs.handle_cache import HandleCache
from deltawitness.exceptions import StatementError
from deltawitness.ids_and_clock import new_id
from deltawitness.internal_errors import report
from deltawitness.locations import table_id
from deltawitness.session.core.cache_links import CacheLinks
from deltawitness.session.core.private_api import FILE_CACHE_LIMIT, NAME_UNKNOWN
from deltawitness.session.core.registrations import record_registration
from deltawitness.session.core.snapshot import Registered, Snapshot, TableName, View, scanned_names
from deltawitness.session.core.table_providers import provider_of
from deltawitness.session.core.tokens import quote_identifier, reference_parts
from deltawitness.session.core.unpatched import unpatched

if TYPE_CHECKING:
    from datafusion import SessionConfig, SessionContext
    from datafusion.catalog import Table
    from deltalake import DeltaTable

    from deltawitness.session.sql.name_binding import BoundCall

__all__ = [
    "Session",
    "allow_urls",
    "attach_session",
    "keep_session_alive",
    "reads_urls",
    "session_of",
]

FACTORY_FORMAT = "DELTATABLE"
"""The word after STORED AS for a Delta table, as in DataFusion's command line."""

MAX_UNSERVED_TABLES = 32
"""Maximum number of tables whose last provider is stored after their name was removed: statements that
were created earlier may still read them."""

MAX_SWAP_RETRIES = 1000
"""Maximum number of retries of planning while tables are replaced."""


class Session:
    """The state that all contexts on one DataFusion session share; it holds no reference to a context."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._swaps = 0
        self._views: dict[TableName, View] = {}
        self._stale_views: dict[TableName, None] = {}
        self._is_freshening = False
        self._defaults: set[tuple[str, str]] = set()
        self._view_defaults: dict[TableName, tuple[str, str]] = {}
        self._view_time_zones: dict[TableName, int] = {}
        self._changed: dict[TableName | str, int] = {}
        self._all_changed = 0
        self._newest: dict[str, tuple[Registered, Any]] = {}
        self.epoch = 0
        """The number of changes of names so far; see `has_changed_since`."""
        self.snapshot = Snapshot({}, None)
        self.handles = HandleCache()
        self.config: SessionConfig | None = None
        """A cached copy of the session's settings; None after a statement that may have changed them."""
        self._settings = 0
        self.has_factory = False
        self.prepare_lock = threading.RLock()
        self.prepared: dict[str, BoundCall] = {}
        """The PREPARE statements with their resolved names, by the name of the prepared statement."""
        self.rebound: set[TableName] = set()
        """Names that resolved to something else before: a view may still read the earlier table."""
        self.detached: set[TableName] = set()
        """Views that do not show the newest versions, or that read a table whose name was removed."""
        self.functions: set[str] = set()
        """Names of the user-defined functions that the program has registered."""
        self.earlier_functions: set[str] | None = None
        """Names of functions registered before the session was observed; None until looked up."""
        self.table_functions: tuple[Any, ...] = ()
        """Table functions in the order of registration; the engine cannot list them."""
        self.has_spark_functions = False
        self.time_zones = 0
        """The number of times that the session's time zone was set."""
        self.file_cache_statement = f"SET {FILE_CACHE_LIMIT} = '1M'"
        """The SET statement with the current size of the session's cache of directory listings."""
        self.cache_links = CacheLinks()
        """The names that caches own in the session, and the files that they read."""

    # --- names -------------------------------------------------------------------------------------

    def default_of(self, ctx: SessionContext) -> tuple[str, str]:
        """Return the session's default catalog and schema.

        Python cannot read them from the session's configuration. A probe table is registered under
        an unqualified name, and all schemas are searched for it.
        """
        if self.snapshot.default is not None:
            return self.snapshot.default
        import pyarrow as pa  # noqa: PLC0415 - heavy, loaded with the table

        probe = f"deltawitness_probe_{new_id()}"
        register = unpatched(ctx, "register_record_batches")
        register(quote_identifier(probe), [[pa.record_batch({"probe": [1]})]])
        try:
            default = next(
                (catalog, schema)
                for catalog in unpatched(ctx, "catalog_names")()
                for schema in unpatched(ctx, "catalog")(catalog).schema_names()
                if unpatched(ctx, "table_exist")(quote_identifier(catalog, schema, probe))
            )
        finally:
            unpatched(ctx, "deregister_table")(quote_identifier(probe))
        with self._lock:
            self._defaults.add(default)
            self.snapshot = Snapshot(self.snapshot.entries, default)
        return default

    def config_of(self, ctx: SessionContext) -> SessionConfig:
        """Return a copy of the session's settings; the same object until they change."""
        config, settings = self.config, self._settings
        if config is None:
            config = ctx.copied_config()
            with self._lock:
                if settings == self._settings:
                    self.config = config
        return config

    def forget_config(self) -> None:
        """Drop the cached settings, because a statement may have changed them."""
        with self._lock:
            self._settings += 1
            self.config = None

    def forget_default(self) -> None:
        """Drop the default catalog and schema, because a SET statement may have changed them."""
        with self._lock:
            self.snapshot = Snapshot(self.snapshot.entries, None)

    def possible_names(self, ctx: SessionContext, parts: tuple[str, ...]) -> set[TableName]:
        """Return the full names that a name in a plan's text may refer to.

        There may be several: a view's plan uses the default schema of when the view was created.

        Args:
            ctx: a context of this session.
            parts: the parts of the name, at most three.
        """
        missing = len(TableName._fields) - len(parts)
        defaults = {self.default_of(ctx), *self._defaults}
        return {TableName(*default[:missing], *parts) for default in defaults}

    def has_other_default(self, ctx: SessionContext, name: TableName) -> bool:
        """Return whether a view was created under another default schema.

        Unqualified names in its text then resolve to other tables than the view reads.
        """
        default = self.default_of(ctx)
        has_moved = bool(self._defaults - {default})
        return has_moved and self._view_defaults.get(name) != default

    def has_other_time_zone(self, name: TableName) -> bool:
        """Return whether a view was created before the session's time zone was last set."""
        return self.time_zones > 0 and self._view_time_zones.get(name) != self.time_zones

    def full_name(self, ctx: SessionContext, parts: tuple[str, ...]) -> TableName:
        """Return the full name of a table for its parts; missing parts come from the defaults.

        Raises:
            StatementError: the name has more than three parts.
        """
        if len(parts) > len(TableName._fields):
            msg = "a table's name has at most three parts: catalog, schema and table"
            raise StatementError(msg)
        missing = len(TableName._fields) - len(parts)
        return TableName(*(self.default_of(ctx)[:missing] if missing else ()), *parts)

    def parsed_name(self, ctx: SessionContext, name: str) -> TableName:
        """Return the full name for a name given as text, parsed as DataFusion parses it.

        Up to three dotted identifiers are a path, and unquoted ones are folded to lower case. Any
        other text is one name, used unchanged.
        """
        return self.full_name(ctx, reference_parts(name))

    # --- changes -----------------------------------------------------------------------------------

    @property
    def swap_lock(self) -> threading.RLock:
        """The lock that is held while a table or a view is replaced by its new version."""
        return self._lock

    def record_change(self, *names: TableName | str) -> None:
        """Record that names resolve to something else now; without names, that any name may.

        Args:
            *names: names of tables, and unqualified names of functions.
        """
        with self._lock:
            self.epoch += 1
            if not names:
                self._all_changed = self.epoch
            self._changed.update(dict.fromkeys(names, self.epoch))

    def has_changed_since(self, epoch: int, words: Collection[str]) -> bool:
        """Return whether one of these names may resolve to something else since an epoch.

        Args:
            epoch: the earlier value of `epoch`.
            words: unqualified names of tables and of functions.
        """
        if self.epoch == epoch:
            return False
        with self._lock:
            return self._all_changed > epoch or any(
                changed > epoch and (name if isinstance(name, str) else name.table) in words
                for name, changed in self._changed.items()
            )

    # --- tables ------------------------------------------------------------------------------------

    def register(  # noqa: PLR0913 - the attributes of a registration, by keyword
        self,
        ctx: SessionContext,
        name: TableName,
        table: DeltaTable,
        *,
        fixed: bool = False,
        defaults: Mapping[str, str] | None = None,
        is_registered: bool = False,
    ) -> Registered:
        """Register a Delta table under a name and serve it.

        Args:
            ctx: a context of this session.
            name: the name; it must be free.
            table: the table, open at the version to serve.
            fixed: serve only this version, read-only.
            defaults: SQL of the columns' default values, by column.
            is_registered: the engine has the table registered under this name already.
        """
        self.default_of(ctx)  # needed where a plan prints the name without catalog and schema
        if not is_registered:
            unpatched(ctx, "register_table")(name.sql(), provider_of(table))
        provider = ctx.table_provider(name.sql())
        entry = Registered.of(name, table, fixed=fixed, defaults=defaults or {})
        with self._lock:
            self.record_change(name)
            self.snapshot = self.snapshot.with_entry(entry)
            self._views.pop(name, None)
            if not fixed:
                self._store_newest(entry, provider)
                self._mark_readers_stale(entry)
        record_registration(entry)
        return entry

    def _store_newest(self, entry: Registered, provider: Any) -> None:
        """Store the entry and provider served last: statements may read it after its name is removed."""
        self._newest.pop(entry.table_id, None)
        self._newest[entry.table_id] = entry, provider
        if len(self._newest) > len(self.snapshot.entries) + MAX_UNSERVED_TABLES:
            served = {each.table_id for each in self.snapshot}
            unserved = next(table for table in self._newest if table not in served)
            self._newest.pop(unserved)

    def _mark_readers_stale(self, entry: Registered) -> None:
        for view in self._views.values():
            if view.reads_table(entry):
                self._stale_views[view.name] = None

    def forget(self, *names: TableName) -> None:
        """Record that these names no longer resolve to a Delta table or a view of this session."""
        with self._lock:
            if names:
                self.record_change(*names)
            self.snapshot = self.snapshot.without(names)
            self.rebound.update(names)
            self.detached.update(
                view.name
                for view in self._views.values()
                if not view.reads.keys().isdisjoint(names)
            )
            self.detached.difference_update(names)
            for name in names:
                self._views.pop(name, None)
                self._stale_views.pop(name, None)
                self._view_defaults.pop(name, None)
                self._view_time_zones.pop(name, None)

    def unmark_rebound(self, name: TableName) -> None:
        """Remove a name from `rebound`, because all views that read it are planned again."""
        with self._lock:
            self.rebound.discard(name)

    def drop_name(self, name: TableName) -> None:
        """Drop a name that is about to be registered again; the caller replaces the views that read it."""
        with self._lock:
            self.snapshot = self.snapshot.without([name])
            self._views.pop(name, None)
            self._stale_views.pop(name, None)

    def forget_schema(self, catalog: str | None, schema: str | None = None) -> None:
        """Forget every name in a schema that was removed or replaced.

        Args:
            catalog: the catalog; None for all catalogs.
            schema: the schema; None for all schemas of the catalog.
        """
        self.record_change()
        with self._lock:
            names = [*self.snapshot.entries, *self._views]
        self.forget(
            *(
                name
                for name in names
                if catalog in {None, name.catalog} and schema in {None, name.schema}
            )
        )

    def publish(self, ctx: SessionContext, entry: Registered, table: DeltaTable) -> Registered:
        """Serve a table's new version, unless the session serves a newer one already.

        Args:
            ctx: a context of this session.
            entry: the registered table.
            table: a handle, open at the version to serve.

        Returns:
            The entry that the session serves now.
        """
        self.publish_location(ctx, entry.uri, table)
        return self.snapshot.get(entry.name) or entry

    def publish_location(self, ctx: SessionContext, uri: str, table: DeltaTable) -> None:
        """Serve a table's new version under all its names, except names at a fixed version.

        Args:
            ctx: a context of this session.
            uri: the table's path or URI.
            table: a handle, open at the version to serve.
        """
        location_id = table_id(uri)
        for entry in self.snapshot:
            if entry.table_id == location_id and not entry.fixed:
                self._publish(ctx, entry, table)

    def serves_location(self, uri: str) -> bool:
        """Return whether a name of the session follows new versions of the table at a location."""
        location_id = table_id(uri)
        return any(entry.table_id == location_id and not entry.fixed for entry in self.snapshot)

    def _publish(self, ctx: SessionContext, entry: Registered, table: DeltaTable) -> None:
        after = Registered.of(entry.name, table, fixed=False, defaults=entry.defaults)
        with self._lock:
            current = self.snapshot.get(entry.name)
            if current is None or current.table_id != entry.table_id:
                return  # the name resolves to another table by now
            if current.identity == after.identity and current.version >= after.version:
                return
            if not unpatched(ctx, "table_exist")(entry.name.sql()):
                self.forget(entry.name)
                return
            provider = provider_of(table)
            self._swap(ctx, after.name, provider)
            self._store_newest(after, provider)
            self.snapshot = self.snapshot.with_entry(after)
            self._mark_readers_stale(after)

    def serve_through(self, ctx: SessionContext, entry: Registered, provider: Any) -> Registered:
        """Serve a table's version through another provider than one over the open table.

        Args:
            ctx: a context of this session.
            entry: the table, with the version to serve. Its name must be free or that of the same table.
            provider: the table provider of that version.

        Returns:
            The entry that the session serves now.
        """
        self.default_of(ctx)  # needed where a plan prints the name without catalog and schema
        with self._lock:
            is_replaced = self.snapshot.get(entry.name) is not None
            if is_replaced and unpatched(ctx, "table_exist")(entry.name.sql()):
                self._swap(ctx, entry.name, provider)
            else:
                unpatched(ctx, "register_table")(entry.name.sql(), provider)
                self.record_change(entry.name)
                self._views.pop(entry.name, None)
            self._store_newest(entry, provider)
            self.snapshot = self.snapshot.with_entry(entry)
            self._mark_readers_stale(entry)
        if not is_replaced:
            record_registration(entry)
        return entry

    def forget_missing(self, ctx: SessionContext) -> None:
        """Forget all names that no longer exist in the engine, and stop replacing views.

        For use after a statement that cannot be parsed: a view's name may be another table's now.
        """
        exists = unpatched(ctx, "table_exist")
        with self._lock:
            names = [*self.snapshot.entries, *self._views]
            self.detached.update(self._views)
            self._views.clear()
            self._stale_views.clear()
        self.forget(*(name for name in names if not exists(name.sql())))

    def _swap(self, ctx: SessionContext, name: TableName, provider: Any) -> None:
        # The engine cannot replace a table atomically: readers retry if the name was missing.
        self._swaps += 1
        try:
            unpatched(ctx, "deregister_table")(name.sql())
            unpatched(ctx, "register_table")(name.sql(), provider)
        except BaseException:  # Ctrl-C between the two calls must not leave the name unregistered
            if not unpatched(ctx, "table_exist")(name.sql()):
                unpatched(ctx, "register_table")(name.sql(), provider)
            raise
        finally:
            self._swaps += 1

    @contextmanager
    def swapping(self) -> Iterator[None]:
        """Hold the swap lock; planning on another thread that misses a name during the block retries."""
        with self._lock:
            self._swaps += 1
            try:
                yield
            finally:
                self._swaps += 1

    def plan_with_retry(self, plan: Callable[[], Any]) -> Any:
        """Return the result of `plan`; call it again if a name was missing while a table was replaced.

        Args:
            plan: plans a text or a table's name.

        Raises:
            Exception: the error of `plan`, if no table was being replaced.
        """
        for _ in range(MAX_SWAP_RETRIES):
            before = self._swaps
            try:
                return plan()
            except Exception as error:
                if before == self._swaps and before % 2 == 0:
                    raise
                if not any(text in str(error) for text in NAME_UNKNOWN):
                    raise
                with self._lock:
                    pass  # wait: the thread that replaces a table holds the lock
        return plan()

    def current_entry(self, entry: Registered) -> Registered:
        """Return the current entry of a Delta table, under any of its names.

        Args:
            entry: an earlier entry.

        Returns:
            `entry` itself if its version is fixed; the entry that was served last if the session no
            longer serves the table.
        """
        if entry.fixed:
            return entry
        snapshot = self.snapshot
        current = snapshot.get(entry.name)
        candidates = [current, *snapshot] if current is not None else snapshot
        for each in candidates:
            if each.table_id == entry.table_id and not each.fixed:
                return each
        newest = self._newest.get(entry.table_id)
        return entry if newest is None else newest[0]

    def current_provider(self, ctx: SessionContext, entry: Registered) -> Any:
        """Return the engine's table provider for an entry that `current_entry` has returned."""
        if self.snapshot.get(entry.name) is entry:
            return ctx.table_provider(entry.name.sql())
        return self._newest[entry.table_id][1]

    def registered_table(self, ctx: SessionContext, parts: tuple[str, ...]) -> Registered:
        """Return the Delta table that is registered under a name.

        Raises:
            StatementError: no Delta table is registered under the name.
        """
        entry = self.snapshot.get(self.full_name(ctx, parts))
        if entry is None:
            msg = f"{'.'.join(parts)} is not registered as a Delta table in this session"
            raise StatementError(msg)
        return entry

    @staticmethod
    def require_writable(entry: Registered) -> Registered:
        """Return the entry unchanged if its table may be written.

        Raises:
            StatementError: the table was registered at a fixed version.
        """
        if entry.fixed:
            msg = (
                f"{entry.name.table} is registered at version {entry.version} and so is read only:"
                " register it without a version, or a table at its newest version, to write it"
            )
            raise StatementError(msg)
        return entry

    @contextmanager
    def lease(self, entry: Registered) -> Iterator[DeltaTable]:
        """Lease a handle at the table's newest version for one operation.

        Raises:
            TableNotFoundError: the table does not exist any more.
        """
        options = None if entry.storage_options is None else dict(entry.storage_options)
        with self.handles.lease(entry.uri, options) as table:
            if table is None:
                from deltalake import DeltaTable  # noqa: PLC0415 - heavy

                table = DeltaTable(entry.uri, storage_options=options)  # noqa: PLW2901 - raises the engine's own error
            yield table

    def start_refresh(self, entries: Iterable[Registered]) -> None:
        """Start the requests of :meth:`refresh` for some tables, in a block of `early_reads`.

        Args:
            entries: the registered tables.
        """
        for entry in entries:
            if not entry.fixed:
                options = None if entry.storage_options is None else dict(entry.storage_options)
                self.handles.start_check(entry.uri, options)

    def refresh(self, ctx: SessionContext, parts: tuple[str, ...] | None) -> None:
        """Serve the newest version of one table, or of all of them.

        Args:
            ctx: a context of this session.
            parts: the parts of the table's name; None refreshes all tables.

        Raises:
            StatementError: no Delta table is registered under the name.
        """
        if parts is None:
            entries = [entry for entry in self.snapshot if not entry.fixed]
        else:
            entry = self.registered_table(ctx, parts)
            entries = [] if entry.fixed else [entry]
        for each in entries:
            with self.lease(each) as table:
                self.publish(ctx, each, table)

    # --- views -------------------------------------------------------------------------------------

    def record_view(
        self, ctx: SessionContext, name: TableName, make: Callable[[SessionContext], Table]
    ) -> None:
        """Record a view, so that it follows new versions of the Delta tables that it reads.

        Args:
            ctx: a context of this session.
            name: the view's name.
            make: plans the view over the current versions.
        """
        frame = unpatched(ctx, "table")(name.sql())
        text = unpatched(frame, "logical_plan")().display_indent()
        tables = scanned_names(text, self.snapshot)
        uncached = {
            each for each in self.cache_links.uncached if f"SubqueryAlias: {each.table}\n" in text
        }
        reads = dict.fromkeys(uncached - {name}) | {entry.name: entry.table_id for entry in tables}
        default = self.default_of(ctx)
        with self._lock:
            self.record_change(name)
            self._view_defaults[name] = default
            self._view_time_zones[name] = self.time_zones
            self.snapshot = self.snapshot.without([name])
            self.detached.discard(name)
            if reads:
                # A view that replaces another has its place in the order, before the views over it.
                self._views[name] = View(name, reads, make)
            else:
                self._views.pop(name, None)

    @property
    def views(self) -> Iterable[TableName]:
        """The names of the views that follow new versions of their tables."""
        return self._views.keys()

    def view(self, name: TableName) -> View | None:
        """Return the view with this name if it follows new versions of its tables, or None."""
        return self._views.get(name)

    def current_view(self, ctx: SessionContext, view: View) -> Table:
        """Return a view's provider over the current versions, even if its name is another table's now."""
        with self._lock:
            is_current = self._views.get(view.name) is view and view.name not in self._stale_views
            if is_current and view.name not in self.detached:
                return ctx.table_provider(view.name.sql())
        return view.make(ctx)

    @property
    def is_fresh(self) -> bool:
        """Whether no view is stale, so that :meth:`freshen` has nothing to do."""
        return not self._stale_views and (
            self.snapshot.default is not None or not self.snapshot.entries
        )

    def freshen(self, ctx: SessionContext) -> None:
        """Replace the views that read a table with a new version, in the order of their creation."""
        if self.is_fresh:
            return
        self.default_of(ctx)
        with self._lock:
            if self._is_freshening:
                return  # called while a view is planned, which is a statement itself
            self._is_freshening = True
            try:
                # A name is stale until its view is replaced: other threads wait for it.
                for name, view in [*self._views.items()]:
                    if name in self._stale_views:
                        self._replace_view(view, ctx)
                        self._stale_views.pop(name, None)
                self._stale_views.clear()
            finally:
                self._is_freshening = False

    def replace_readers(self, ctx: SessionContext, name: TableName) -> None:
        """Replace the views that read a name which resolves to something else now."""
        with self._lock:
            readers = [view for view in self._views.values() if name in view.reads]
            for view in readers:
                is_replaced = self._replace_view(view, ctx)
                if is_replaced and unpatched(ctx, "table_exist")(view.name.sql()):
                    self.record_view(ctx, view.name, view.make)

    def _replace_view(self, view: View, ctx: SessionContext) -> bool:
        """Replace a view by one over the current versions; return whether that succeeded."""
        try:
            if not unpatched(ctx, "table_exist")(view.name.sql()):
                self.forget(view.name)
                return False
            self._swap(ctx, view.name, view.make(ctx))
        except Exception as error:  # noqa: BLE001 - the write that made the view stale has landed
            self.detached.add(view.name)
            report("session", error)
            return False
        if self._has_same_sources(view):
            self.detached.discard(view.name)
        return True

    def _has_same_sources(self, view: View) -> bool:
        """Return whether the names in a view still resolve to the Delta tables that it reads."""
        reads = ((self.snapshot.get(name), table) for name, table in view.reads.items() if table)
        return all(entry is not None and entry.table_id == table for entry, table in reads)


_ATTRIBUTE = "_deltawitness_session"
_sessions: WeakValueDictionary[str, Session] = WeakValueDictionary()
_sessions_lock = threading.Lock()


def session_of(ctx: SessionContext) -> Session:
    """Return the state of a context's session; contexts on one session share one state."""
    try:
        session: Session = vars(ctx)[_ATTRIBUTE]
    except KeyError:
        with _sessions_lock:
            session = _sessions.setdefault(ctx.session_id(), Session())
        setattr(ctx, _ATTRIBUTE, session)
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
    setattr(ctx, _ATTRIBUTE, session)
    return ctx


_READS_URLS = "_deltawitness_reads_urls"


def allow_urls(ctx: SessionContext) -> SessionContext:
    """Record that a context accepts file paths as table names in a query, and return the context."""
    setattr(ctx, _READS_URLS, True)
    return ctx


def reads_urls(ctx: SessionContext) -> bool:
    """Return whether a context accepts file paths as table names in a query."""
    return getattr(ctx, _READS_URLS, False) is True
