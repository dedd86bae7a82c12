"""Views over Delta tables, replaced in the engine when their tables have new versions."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from deltawitness.internal_errors import report
from deltawitness.session.core.cache_links import CacheLinks
from deltawitness.session.core.session_names import SessionNames
from deltawitness.session.core.session_settings import SessionSettings
from deltawitness.session.core.snapshot import TableName, View, scanned_names
from deltawitness.session.core.table_swaps import TableSwaps
from deltawitness.session.core.unpatched import unpatched

if TYPE_CHECKING:
    from datafusion import SessionContext
    from datafusion.catalog import Table

__all__ = ["SessionViews"]


class SessionViews:
    """The views of one session: plans them again over the versions that the session serves.

    Args:
        names: what the session's names resolve to.
        settings: the session's settings.
        swaps: replaces views in the engine.
        cache_links: the names that caches own in the session.
    """

    def __init__(
        self,
        names: SessionNames,
        settings: SessionSettings,
        swaps: TableSwaps,
        cache_links: CacheLinks,
    ) -> None:
        self._names = names
        self._records = names.view_records
        self._settings = settings
        self._swaps = swaps
        self._cache_links = cache_links
        self._is_freshening = False

    def record(
        self, ctx: SessionContext, name: TableName, make: Callable[[SessionContext], Table]
    ) -> None:
        """Record a view, so that it follows new versions of the Delta tables that it reads.

        Args:
            ctx: a context of the session.
            name: the view's name.
            make: plans the view over the current versions.
        """
        names = self._names
        frame = unpatched(ctx, "table")(name.sql())
        text = unpatched(frame, "logical_plan")().display_indent()
        tables = scanned_names(text, names.snapshot)
        uncached = {
            each for each in self._cache_links.uncached if f"SubqueryAlias: {each.table}\n" in text
        }
        reads = dict.fromkeys(uncached - {name}) | {entry.name: entry.table_id for entry in tables}
        default = names.default_of(ctx)
        with names.lock:
            names.record_change(name)
            names.snapshot = names.snapshot.without([name])
            view = View(name, reads, make) if reads else None
            self._records.record(name, view, default, self._settings.time_zones)

    def has_other_time_zone(self, name: TableName) -> bool:
        """Return whether a view was created before the session's time zone was last set."""
        time_zone = self._settings.time_zones
        return time_zone > 0 and self._records.time_zone_of(name) != time_zone

    def current(self, ctx: SessionContext, view: View) -> Table:
        """Return a view's provider over the current versions, even if its name is another table's now."""
        records = self._records
        with self._names.lock:
            is_current = records.get(view.name) is view and view.name not in records.stale
            if is_current and view.name not in records.detached:
                return ctx.table_provider(view.name.sql())
        return view.make(ctx)

    @property
    def is_fresh(self) -> bool:
        """Whether no view is stale, so that :meth:`freshen` has nothing to do."""
        return not self._records.stale and self._names.snapshot.is_complete

    def freshen(self, ctx: SessionContext) -> None:
        """Replace the views that read a table with a new version, in the order of their creation."""
        if self.is_fresh:
            return
        self._names.default_of(ctx)
        with self._names.lock:
            if self._is_freshening:
                return  # called while a view is planned, which is a statement itself
            self._is_freshening = True
            try:
                # A name is stale until its view is replaced: other threads wait for it.
                for view in self._records.stale_views():
                    self._replace(view, ctx)
                    self._records.stale.pop(view.name, None)
                self._records.stale.clear()
            finally:
                self._is_freshening = False

    def replace_readers(self, ctx: SessionContext, name: TableName) -> None:
        """Replace the views that read a name which resolves to something else now."""
        with self._names.lock:
            for view in self._records.readers_of(name):
                is_replaced = self._replace(view, ctx)
                if is_replaced and unpatched(ctx, "table_exist")(view.name.sql()):
                    self.record(ctx, view.name, view.make)

    def _replace(self, view: View, ctx: SessionContext) -> bool:
        """Replace a view by one over the current versions; return whether that succeeded."""
        try:
            if not unpatched(ctx, "table_exist")(view.name.sql()):
                self._names.forget(view.name)
                return False
            self._swaps.replace(ctx, view.name, view.make(ctx))
        except Exception as error:  # noqa: BLE001 - the write that made the view stale has landed
            self._records.detached.add(view.name)
            report("session", error)
            return False
        if self._has_same_sources(view):
            self._records.detached.discard(view.name)
        return True

    def _has_same_sources(self, view: View) -> bool:
        """Return whether the names in a view still resolve to the Delta tables that it reads."""
        snapshot = self._names.snapshot
        reads = ((snapshot.get(name), table) for name, table in view.reads.items() if table)
        return all(entry is not None and entry.table_id == table for entry, table in reads)
