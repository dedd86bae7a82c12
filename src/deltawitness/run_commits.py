"""The commits of a run in this process, shared by every `RunContext` with the id of the run."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Protocol
from weakref import WeakValueDictionary

from deltawitness.forks import at_fork

if TYPE_CHECKING:
    from deltawitness.commit.receipts import Receipt

__all__ = ["CAPACITY", "LazyReceipt", "RunCommits", "WithCommits"]

CAPACITY = 1000
"""Maximum number of writes that are held for a run: a service may write under one run for months."""


class LazyReceipt(Protocol):
    """A write whose commit is parsed at the first call of `receipt`."""

    def receipt(self) -> Receipt:
        """Return the receipt of the write."""


class RunCommits:
    """The last writes of a run that have or may have committed.

    Args:
        run_id: id of the run.
    """

    __slots__ = ("__weakref__", "_writes", "run_id")

    def __init__(self, run_id: str) -> None:
        self.run_id: str = run_id
        self._writes: deque[LazyReceipt] = deque(maxlen=CAPACITY)

    def clear(self) -> None:
        """Drop all writes: in a forked child, they are the parent's."""
        self._writes.clear()

    def add(self, write: LazyReceipt) -> None:
        """Add a write."""
        self._writes.append(write)

    def receipts(self) -> tuple[Receipt, ...]:
        """Return the receipts of the writes that have committed, in order of their ends."""
        receipts = (write.receipt() for write in self._writes.copy())  # another thread may append
        return tuple(receipt for receipt in receipts if receipt.version is not None)


_runs: WeakValueDictionary[str, RunCommits] = WeakValueDictionary()
_lock = threading.RLock()


def _commits_of(run_id: str) -> RunCommits:
    with _lock:
        found = _runs.get(run_id)
        if found is None:
            found = _runs[run_id] = RunCommits(run_id)
        return found


def _clear_in_child() -> None:
    global _lock  # noqa: PLW0603 - the holder's thread does not exist in the child
    _lock = threading.RLock()
    for commits in list(_runs.values()):
        commits.clear()


at_fork(after_in_child=_clear_in_child)


class WithCommits:
    """Base of `RunContext`: its commits are neither a field, nor compared, nor sent to other processes."""

    __slots__ = ("_commits",)

    run_id: str
    _commits: RunCommits

    @property
    def commits(self) -> tuple[Receipt, ...]:
        """Receipts of the last 1,000 commits of this run in this process, without those of its child runs.

        A commit is parsed when its receipt is first read.
        """
        return self.run_commits().receipts()

    def run_commits(self) -> RunCommits:
        """Return the object to which the writes of this run are added."""
        try:
            return self._commits
        except AttributeError:  # a copy that was made without a call of the class
            commits = _commits_of(self.run_id)
            object.__setattr__(self, "_commits", commits)
            return commits
