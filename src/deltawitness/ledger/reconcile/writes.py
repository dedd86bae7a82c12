"""Commits put together to the writes that made them."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from deltawitness.ledger.reconcile.inventory_index import InventoryIndex
from deltawitness.ledger.reconcile.log_reader import Commit

__all__ = ["Write", "writes_of"]

MAX_CLOCK_AHEAD_MS = 86_400_000
"""Milliseconds that a commit may seem to come from the future before its clock is not believed."""


@dataclass(frozen=True, slots=True)
class Write:
    """A write as a log holds it.

    Attributes:
        uri: the table, as the ledger spells it.
        commits: its commits, ascending: several of a VACUUM or an OPTIMIZE.
    """

    uri: str
    commits: tuple[Commit, ...]

    @property
    def ids(self) -> frozenset[str]:
        """Every write id that it answers to."""
        return frozenset().union(*(commit.ids for commit in self.commits))

    @property
    def row_id(self) -> str:
        """The write id of its row when it is made from the log."""
        return self.commits[0].row_id

    @property
    def versions(self) -> tuple[int, ...]:
        """What it committed."""
        return tuple(commit.version for commit in self.commits)

    @property
    def is_witnessed(self) -> bool:
        """Whether it carries our metadata."""
        return self.commits[0].is_witnessed

    def is_recorded(self, known: InventoryIndex) -> bool:
        """Tell whether a row tells of it."""
        return any(known.covers(self.uri, commit) for commit in self.commits)

    def is_of(self, ids: AbstractSet[str]) -> bool:
        """Tell whether it is one of some writes."""
        return not ids.isdisjoint(self.ids)

    def is_younger(self, seconds: float, now: int) -> bool:
        """Tell whether a commit of it is less than so many seconds old.

        Args:
            seconds: how many.
            now: milliseconds since the Unix epoch.
        """
        ages = [now - commit.time for commit in self.commits if commit.time is not None]
        return any(-MAX_CLOCK_AHEAD_MS < age < seconds * 1000 for age in ages)

    def is_before(self, time: int) -> bool:
        """Tell whether all of it was committed before a time in milliseconds."""
        times = [commit.time for commit in self.commits if commit.time is not None]
        return bool(times) and max(times) < time


def writes_of(uri: str, commits: Iterable[Commit]) -> list[Write]:
    """Return the writes of some commits, in the order of their first ones."""
    groups: dict[str, list[Commit]] = {}
    for commit in commits:
        groups.setdefault(commit.row_id, []).append(commit)
    return [Write(uri, tuple(group)) for group in groups.values()]
