"""The views of a session that follow new versions of their Delta tables."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from deltawitness.session.core.snapshot import Registered, TableName, View

__all__ = ["ViewRecords"]


class ViewRecords:
    """Records of the views of one session; a change needs the session's lock.

    Attributes:
        stale: names of the views that read a table with a new version, until they are replaced.
        detached: names of the views that do not show the newest versions, or that read a table whose
            name was removed.
    """

    def __init__(self) -> None:
        self.stale: dict[TableName, None] = {}
        self.detached: set[TableName] = set()
        self._views: dict[TableName, View] = {}
        self._defaults: dict[TableName, tuple[str, str]] = {}
        self._time_zones: dict[TableName, int] = {}

    def __iter__(self) -> Iterator[TableName]:
        """Return an iterator over the names of the views, in the order of their creation."""
        return iter(self._views)

    def get(self, name: TableName) -> View | None:
        """Return the view with this name if it follows new versions of its tables, or None."""
        return self._views.get(name)

    def default_of(self, name: TableName) -> tuple[str, str] | None:
        """Return the default catalog and schema with which a view was created; None if unknown."""
        return self._defaults.get(name)

    def time_zone_of(self, name: TableName) -> int | None:
        """Return how often the time zone had been set when a view was created; None if unknown."""
        return self._time_zones.get(name)

    def readers_of(self, name: TableName) -> list[View]:
        """Return the views that read a name."""
        return [view for view in self._views.values() if name in view.reads]

    def stale_views(self) -> list[View]:
        """Return the stale views in the order of their creation."""
        return [view for name, view in self._views.items() if name in self.stale]

    def record(
        self, name: TableName, view: View | None, default: tuple[str, str], time_zone: int
    ) -> None:
        """Record a view that was created.

        Args:
            name: the view's name.
            view: the view; None if it reads no table that gets new versions.
            default: the default catalog and schema.
            time_zone: how often the time zone had been set.
        """
        self._defaults[name] = default
        self._time_zones[name] = time_zone
        self.detached.discard(name)
        if view is None:
            self._views.pop(name, None)
        else:
            # A view that replaces another has its place in the order, before the views over it.
            self._views[name] = view

    def mark_stale(self, entry: Registered) -> None:
        """Mark the views that read a table, because the table has a new version."""
        for view in self._views.values():
            if view.reads_table(entry):
                self.stale[view.name] = None

    def drop(self, name: TableName) -> None:
        """Drop a view whose name is about to be registered again."""
        self._views.pop(name, None)
        self.stale.pop(name, None)

    def forget(self, names: Collection[TableName]) -> None:
        """Drop the views with these names, and detach the views that read one of the names."""
        self.detached.update(
            view.name for view in self._views.values() if not view.reads.keys().isdisjoint(names)
        )
        self.detached.difference_update(names)
        for name in names:
            self.drop(name)
            self._defaults.pop(name, None)
            self._time_zones.pop(name, None)

    def detach_all(self) -> None:
        """Detach every view: none of them is replaced any more."""
        self.detached.update(self._views)
        self._views.clear()
        self.stale.clear()
