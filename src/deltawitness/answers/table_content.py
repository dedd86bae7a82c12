"""Find which versions of a table have the same content, or contribute to it, where it was restored."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

__all__ = ["TableContent"]


@dataclass(frozen=True, slots=True)
class TableContent:
    """The versions of a table that was restored at least once.

    Attributes:
        newest: the newest version.
        restored: the restored version of each RESTORE, by the version that it has committed.
        changed: the versions that changed rows, or that the ledger does not have, ascending.

    >>> content = TableContent(5, {4: 1}, [0, 1, 2, 3, 4, 5])
    >>> content.current([0, 1, 2, 3, 4, 5])
    [0, 1, 4, 5]
    >>> content.origin(4), content.origin(5)
    (1, 5)
    """

    newest: int
    restored: Mapping[int, int]
    changed: Sequence[int]

    def current(self, versions: Iterable[int]) -> list[int]:
        """Return those of some versions on which the newest one was made; no RESTORE has undone them."""
        spans = self._spans()
        return [each for each in versions if any(low <= each <= high for low, high in spans)]

    def _spans(self) -> list[tuple[int, int]]:
        """Return the ranges of versions on which the newest one was made."""
        found, high = [], self.newest
        for version in sorted(self.restored, reverse=True):
            if version <= high:
                found.append((version, high))
                high = self.restored[version]
        return [*found, (0, high)]

    def origin(self, version: int) -> int:
        """Return the version that made the content of a version: the last one that changed rows."""
        while True:
            place = bisect_right(self.changed, version)
            if place == 0:
                return version
            version = self.changed[place - 1]
            if version not in self.restored:
                return version
            version = self.restored[version]

    def last_equal(self, version: int) -> int:
        """Return the last version at which a RESTORE made the content that of a version; itself if none did."""
        origin = self.origin(version)
        equal = (each for each in self.restored if each > version and self.origin(each) == origin)
        return max(equal, default=version)

    def is_current(self, version: int) -> bool:
        """Return whether the newest version has the content of a version."""
        return self.origin(self.newest) == self.origin(version)
