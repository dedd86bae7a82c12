"""Group the commits of a log by write."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from deltawitness.ledger.reconcile.inventory_index import InventoryIndex
from deltawitness.ledger.reconcile.log_reader import Commit

__all__ = ["Write", "writes_of"]

MAX_CLOCK_AHEAD_MS = 86_400_000
"""Milliseconds by which a commit's time may be in the future; the time of a later one is taken as wrong."""


@dataclass(frozen=True, slots=True)
class Write:
    """A write in a log.

    Attributes:
        uri: the table, in the ledger's spelling.
        commits: its commits, ascending; a VACUUM or an OPTIMIZE has several.
    """

    uri: str
    commits: tuple[Commit, ...]

    @property
    def ids(self) -> frozenset[str]:
        """Every write id that identifies it."""
        return frozenset().union(*(commit.ids for commit in self.commits))

    @property
    def row_id(self) -> str:
        """The write id of its row, if the row is made from the log."""
        return self.commits[0].row_id

    @property
    def versions(self) -> tuple[int, ...]:
        """The versions it committed."""
        return tuple(commit.version for commit in self.commits)

    @property
    def is_witnessed(self) -> bool:
        """Whether it has our metadata."""
        return self.commits[0].is_witnessed

    def is_recorded(self, index: InventoryIndex) -> bool:
        """Return whether it has a row."""
        return any(index.covers(self.uri, commit) for commit in self.commits)

    def is_of(self, ids: AbstractSet[str]) -> bool:
        """Return whether its write ids include any of some ids."""
        return not ids.isdisjoint(self.ids)

    def is_younger(self, seconds: float, now: int) -> bool:
        """Return whether any of its commits is younger than some seconds.

        Args:
            seconds: the age.
            now: milliseconds since the Unix epoch.
        """
        ages = [now - commit.time for commit in self.commits if commit.time is not None]
        return any(-MAX_CLOCK_AHEAD_MS < age < seconds * 1000 for age in ages)

    def is_before(self, time: int) -> bool:
        """Return whether all of its commits are older than a time in milliseconds."""
        times = [commit.time for commit in self.commits if commit.time is not None]
        return bool(times) and max(times) < time


def writes_of(uri: str, commits: Iterable[Commit]) -> list[Write]:
    """Group commits into writes, in the order of their first commits."""
    groups: dict[str, list[Commit]] = {}
    for commit in commits:
        groups.setdefault(commit.row_id, []).append(commit)
    return [Write(uri, tuple(group)) for group in groups.values()]
