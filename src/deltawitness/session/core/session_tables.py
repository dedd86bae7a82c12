"""The Delta tables of a session: registered, served at their newest versions, and leased for writes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from deltawitness.delta_rs.handle_cache import HandleCache
from deltawitness.exceptions import StatementError
from deltawitness.locations import table_id
from deltawitness.session.core.registrations import record_registration
from deltawitness.session.core.session_names import SessionNames
from deltawitness.session.core.snapshot import Registered, TableName
from deltawitness.session.core.table_providers import provider_of
from deltawitness.session.core.table_swaps import TableSwaps
from deltawitness.session.core.unpatched import unpatched

if TYPE_CHECKING:
    from datafusion import SessionContext
    from deltalake import DeltaTable

__all__ = ["SessionTables"]

MAX_UNSERVED_TABLES = 32
"""Maximum number of tables whose last provider is stored after their name was removed: statements that
were created earlier may still read them."""


class SessionTables:
    """The Delta tables of one session.

    Attributes:
        handles: the open handles through which the session writes.

    Args:
        names: what the session's names resolve to.
        swaps: replaces tables in the engine.
    """

    def __init__(self, names: SessionNames, swaps: TableSwaps) -> None:
        self.handles: HandleCache = HandleCache()
        self._names = names
        self._swaps = swaps
        self._newest: dict[str, tuple[Registered, Any]] = {}

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
        self._names.default_of(
            ctx
        )  # needed where a plan prints the name without catalog and schema
        if not is_registered:
            unpatched(ctx, "register_table")(name.sql(), provider_of(table))
        provider = ctx.table_provider(name.sql())
        entry = Registered.of(name, table, fixed=fixed, defaults=defaults or {})
        with self._names.lock:
            self._names.record_change(name)
            self._names.snapshot = self._names.snapshot.with_entry(entry)
            self._names.view_records.drop(name)
            if not fixed:
                self._store_newest(entry, provider)
                self._names.view_records.mark_stale(entry)
        record_registration(entry)
        return entry

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
        return self._names.snapshot.get(entry.name) or entry

    def publish_location(self, ctx: SessionContext, uri: str, table: DeltaTable) -> None:
        """Serve a table's new version under all its names, except names at a fixed version.

        Args:
            ctx: a context of this session.
            uri: the table's path or URI.
            table: a handle, open at the version to serve.
        """
        location_id = table_id(uri)
        for entry in self._names.snapshot:
            if entry.table_id == location_id and not entry.fixed:
                self._publish(ctx, entry, table)

    def serves_location(self, uri: str) -> bool:
        """Return whether a name of the session follows new versions of the table at a location."""
        location_id = table_id(uri)
        return any(
            entry.table_id == location_id and not entry.fixed for entry in self._names.snapshot
        )

    def _publish(self, ctx: SessionContext, entry: Registered, table: DeltaTable) -> None:
        after = Registered.of(entry.name, table, fixed=False, defaults=entry.defaults)
        with self._names.lock:
            current = self._names.snapshot.get(entry.name)
            if current is None or current.table_id != entry.table_id:
                return  # the name resolves to another table by now
            if current.identity == after.identity and current.version >= after.version:
                return
            if not unpatched(ctx, "table_exist")(entry.name.sql()):
                self._names.forget(entry.name)
                return
            provider = provider_of(table)
            self._swaps.replace(ctx, after.name, provider)
            self._store_newest(after, provider)
            self._names.snapshot = self._names.snapshot.with_entry(after)
            self._names.view_records.mark_stale(after)

    def serve_through(self, ctx: SessionContext, entry: Registered, provider: Any) -> Registered:
        """Serve a table's version through another provider than one over the open table.

        Args:
            ctx: a context of this session.
            entry: the table, with the version to serve. Its name must be free or that of the same table.
            provider: the table provider of that version.

        Returns:
            The entry that the session serves now.
        """
        self._names.default_of(
            ctx
        )  # needed where a plan prints the name without catalog and schema
        with self._names.lock:
            is_replaced = self._names.snapshot.get(entry.name) is not None
            if is_replaced and unpatched(ctx, "table_exist")(entry.name.sql()):
                self._swaps.replace(ctx, entry.name, provider)
            else:
                unpatched(ctx, "register_table")(entry.name.sql(), provider)
                self._names.record_change(entry.name)
                self._names.view_records.drop(entry.name)
            self._store_newest(entry, provider)
            self._names.snapshot = self._names.snapshot.with_entry(entry)
            self._names.view_records.mark_stale(entry)
        if not is_replaced:
            record_registration(entry)
        return entry

    def _store_newest(self, entry: Registered, provider: Any) -> None:
        """Store the entry and provider served last: statements may read it after its name is removed."""
        self._newest.pop(entry.table_id, None)
        self._newest[entry.table_id] = entry, provider
        if len(self._newest) > len(self._names.snapshot.entries) + MAX_UNSERVED_TABLES:
            served = {each.table_id for each in self._names.snapshot}
            unserved = next(table for table in self._newest if table not in served)
            self._newest.pop(unserved)

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
        snapshot = self._names.snapshot
        current = snapshot.get(entry.name)
        candidates = [current, *snapshot] if current is not None else snapshot
        for each in candidates:
            if each.table_id == entry.table_id and not each.fixed:
                return each
        newest = self._newest.get(entry.table_id)
        return entry if newest is None else newest[0]

    def current_provider(self, ctx: SessionContext, entry: Registered) -> Any:
        """Return the engine's table provider for an entry that `current_entry` has returned."""
        if self._names.snapshot.get(entry.name) is entry:
            return ctx.table_provider(entry.name.sql())
        return self._newest[entry.table_id][1]

    def registered_table(self, ctx: SessionContext, parts: tuple[str, ...]) -> Registered:
        """Return the Delta table that is registered under a name.

        Raises:
            StatementError: no Delta table is registered under the name.
        """
        entry = self._names.snapshot.get(self._names.full_name(ctx, parts))
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
            entries = [entry for entry in self._names.snapshot if not entry.fixed]
        else:
            entry = self.registered_table(ctx, parts)
            entries = [] if entry.fixed else [entry]
        for each in entries:
            with self.lease(each) as table:
                self.publish(ctx, each, table)
