"""What the caches of a session register in it: their entries, uncached results, and files that they read."""

from __future__ import annotations

import threading
from collections.abc import Callable

from deltawitness.session.core.snapshot import Registered, TableName

__all__ = ["CacheLinks"]


class CacheLinks:
    """The names that caches own in one session, and the files that they read in it."""

    def __init__(self) -> None:
        self._refreshers: dict[TableName, Callable[[], None]] = {}
        self._uncached: set[TableName] = set()
        self._served: dict[TableName, tuple[Registered, object]] = {}
        self._seen_files: dict[tuple[str, str], tuple[int, str]] = {}
        self.registering: threading.RLock = threading.RLock()
        """The lock that is held while an entry or an uncached result is registered."""

    def register_entry(self, name: TableName, refresh: Callable[[], None]) -> None:
        """Record that a name is an entry of a cache.

        Args:
            name: full name of the entry.
            refresh: brings the entry up to date.
        """
        self._refreshers[name] = refresh

    def refresher(self, name: TableName) -> Callable[[], None] | None:
        """Return what brings an entry up to date; None if the name is not an entry."""
        return self._refreshers.get(name)

    def is_entry(self, name: TableName) -> bool:
        """Return whether a name is an entry of a cache."""
        return name in self._refreshers

    def record_served(self, registered: Registered, entry: object) -> None:
        """Record the stored entry that a registered table serves."""
        self._served[registered.name] = registered, entry

    def served_entry(self, registered: Registered) -> object | None:
        """Return the stored entry that a registered table serves; None if that is not recorded."""
        served = self._served.get(registered.name)
        return served[1] if served is not None and served[0] is registered else None

    def register_uncached(self, name: TableName) -> None:
        """Record that a name is a view of a result that a cache could not store."""
        self._uncached.add(name)

    def drop_uncached(self, name: TableName) -> None:
        """Record that a name is no longer a view of a result that could not be stored."""
        self._uncached.discard(name)

    def is_uncached(self, name: TableName) -> bool:
        """Return whether a name is a view of a result that a cache could not store."""
        return name in self._uncached

    @property
    def uncached(self) -> tuple[TableName, ...]:
        """The names of results that a cache could not store, at the time of the call."""
        return tuple(self._uncached)

    def owns(self, name: TableName) -> bool:
        """Return whether a name belongs to a cache, stored or not."""
        return name in self._refreshers or name in self._uncached

    @property
    def names(self) -> tuple[TableName, ...]:
        """The names that belong to caches, at the time of the call."""
        return (*self._refreshers, *self._uncached)

    def first_seen(self, source: str, place: str, size: int, changed: str) -> tuple[int, str]:
        """Return the recorded size and times of a file; record the given ones if there are none.

        Args:
            source: name of the table that the file is read as.
            place: hash of its path.
            size: size in bytes.
            changed: mtime and ctime in nanoseconds, separated by a dot.
        """
        return self._seen_files.setdefault((source, place), (size, changed))

    def record_file(self, source: str, place: str, size: int, changed: str) -> None:
        """Replace the recorded size and times of a file; the arguments are those of `first_seen`."""
        self._seen_files[source, place] = size, changed
