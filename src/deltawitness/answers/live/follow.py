"""Follow the writes of all processes of a ledger: from their spools, and from the ledger."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Container, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from deltawitness.answers.live.spools import SpoolTail, live_write
from deltawitness.answers.live.values import (
    LiveProcess,
    LiveReport,
    LiveSource,
    LiveWrite,
    RunningWrite,
)
from deltawitness.answers.predicates import NEWEST_WRITES, is_since
from deltawitness.commit.log import LOG_DIRECTORY
from deltawitness.ids_and_clock import in_utc, now_ns
from deltawitness.ledger.tables.listing import LedgerListing
from deltawitness.ledger.tables.literals import is_in
from deltawitness.ledger.tables.locations import root_of, spool_folder
from deltawitness.ledger.tables.schema import INVENTORY, LedgerRoot
from deltawitness.ledger.tables.shards import shard_names
from deltawitness.locations import local_path
from deltawitness.redaction import message_for_ledger
from deltawitness.semconv import CacheScope
from deltawitness.settings import LedgerMessages, Settings

__all__ = ["LiveFollower"]

LONGEST_WRITE = timedelta(hours=6)
"""How long ago a write may have begun to be seen when it ends. Longer writes of processes on this machine are
seen too, in their spools. Ids of operations are remembered for twice as long."""

REMOTE_INTERVAL = 10.0
"""Seconds between two readings of a ledger on an object store."""

MAX_WRITES = 1000
"""Latest writes that are kept."""

_COLUMNS = (
    *("write_id", "event_time", "run_id", "job", "table_name", "table_id", "operation"),
    *("cache_operation", "mode", "version", "result", "reason", "rows_added", "rows_updated"),
    *("rows_deleted", "duration_ms", "error_type", "landed", "pid", "host"),
)


_IS_OF_PROGRAM = f"(scope IS NULL OR scope <> '{CacheScope.LEDGER.value}')"
"""Condition that leaves out operations on the ledger's own tables."""


class _LedgerTail:
    """Reads the operations that were added to the ledger since the last time.

    Operations that began before `LONGEST_WRITE` are not read.

    Args:
        root: location of the ledger.
    """

    def __init__(self, root: LedgerRoot) -> None:
        self._root = root
        self._state: object = None
        self._next = 0.0

    def read(self, known: Container[str]) -> list[LiveWrite] | None:
        """Return the operations that are not known, newest first; None if it is too early to read again.

        Args:
            known: the ids of the known operations.

        Raises:
            OSError: the storage cannot be read.
            DeltaError: a table of the ledger is damaged.
        """
        if time.monotonic() < self._next:
            return None
        state = self._current_state()
        if state is not None and state == self._state:
            return []
        ledger = LedgerListing(self._root)
        new = [each for each in self._ids(ledger) if each not in known]
        found: list[LiveWrite] = []
        if new:
            found = self._rows(ledger, [*self._recent(), is_in("write_id", new)], len(new))
        self._state = state
        self._next = time.monotonic() + (0 if self._root.is_local else REMOTE_INTERVAL)
        return found

    def ids(self) -> dict[str, datetime]:
        """Return the ids of the operations that are followed, with their times; errors as for `read`."""
        return self._ids(LedgerListing(self._root))

    def latest(self, limit: int) -> list[LiveWrite]:
        """Return the newest operations of any time, newest first; errors as for `read`."""
        return self._rows(LedgerListing(self._root), [], limit)

    def _recent(self) -> list[str]:
        return is_since("event_time", _now() - LONGEST_WRITE)

    def _ids(self, ledger: LedgerListing) -> dict[str, datetime]:
        if not ledger.has(INVENTORY):
            return {}
        where = " AND ".join([_IS_OF_PROGRAM, *self._recent()])
        found = ledger.query(f"SELECT write_id, event_time FROM inventory WHERE {where}")  # noqa: S608 - quoted
        return {row["write_id"]: in_utc(row["event_time"]) for row in found}

    def _rows(
        self, ledger: LedgerListing, conditions: Iterable[str], limit: int
    ) -> list[LiveWrite]:
        if not ledger.has(INVENTORY):
            return []
        where = " AND ".join([_IS_OF_PROGRAM, *conditions])
        found = ledger.query(
            f"SELECT {', '.join(_COLUMNS)} FROM inventory WHERE {where}"  # noqa: S608 - quoted
            f" ORDER BY {NEWEST_WRITES} LIMIT {limit}"
        )
        times = ({**row, "event_time": in_utc(row["event_time"])} for row in found)
        return [write for row in times if (write := live_write(row, LiveSource.LEDGER))]

    def _current_state(self) -> object:
        """Return a value that differs after each commit to a local ledger; None for another ledger."""
        if not self._root.is_local:
            return None
        shards = [self._root.of_shard(name) for name in shard_names(self._root)]
        state = []
        for root in (self._root, *shards):
            path = local_path(root.uri_of(INVENTORY))
            with suppress(OSError):
                state.append((root.shard, Path(path or "", LOG_DIRECTORY).stat().st_mtime_ns))
        return tuple(state)


class LiveFollower:
    """Follows the processes and the writes of a ledger.

    Args:
        settings: the location of the ledger, and of its spools.
        limit: number of finished operations in a report.
    """

    def __init__(self, settings: Settings, limit: int = 20) -> None:
        root = root_of(settings)
        self._limit = limit
        self._spools = SpoolTail(spool_folder(settings, root))
        self._ledger = _LedgerTail(root)
        self._seen: dict[str, datetime] = {}
        self._forget_at = MAX_WRITES
        self._latest: deque[LiveWrite] = deque(maxlen=MAX_WRITES)
        self._processes: list[LiveProcess] = []
        self._reported_lost: set[str] = set()
        self._problems: tuple[str, ...] = ()

    def start(self) -> LiveReport:
        """Read what there is, so that `poll` returns only later operations.

        Raises:
            OSError: the storage cannot be read.
            DeltaError: a table of the ledger is damaged.
        """
        before = self._ledger.latest(self._limit)
        self._seen |= self._ledger.ids() | {write.write_id: write.time for write in before}
        self._latest.extend(reversed(before))
        self._processes, writes = self._spools.read()
        self._take(writes)
        self._reported_lost |= set(self._spools.lost)
        return self.report()

    def poll(self) -> list[LiveWrite | RunningWrite]:
        """Return the operations that have finished since the last call, and the lost writes, oldest first.

        An error of reading is added to the report instead of being raised.
        """
        problems: list[str] = []
        new: list[LiveWrite] = []
        vanished: dict[str, RunningWrite] = {}
        try:
            self._processes, writes = self._spools.read()
            new += self._take(writes)
            vanished = dict(self._spools.vanished)
        except OSError as error:
            problems.append(_problem("the spools cannot be read", error))
        try:
            found = self._ledger.read(self._seen)
            if found is not None:
                new += self._take(reversed(found))
                self._settle(vanished)
        except Exception as error:  # noqa: BLE001 - the engine raises errors of many types
            problems.append(_problem("the ledger cannot be read", error))
        self._problems = tuple(problems)
        self._forget_old()
        return [*sorted(new, key=lambda write: write.time), *self._new_lost()]

    def report(self) -> LiveReport:
        """Return what is known now."""
        newest = sorted(self._latest, key=lambda write: write.time, reverse=True)
        return LiveReport(
            at=_now(),
            processes=tuple(self._processes),
            writes=tuple(newest[: self._limit]),
            problems=self._problems,
        )

    def _take(self, writes: Iterable[LiveWrite]) -> list[LiveWrite]:
        """Return the operations that are new, and remember them."""
        new = []
        for write in writes:
            if write.write_id not in self._seen:
                self._seen[write.write_id] = write.time
                self._latest.append(write)
                new.append(write)
        return new

    def _forget_old(self) -> None:
        """Forget operations that the ledger returns no more, now and then: a follower may run for months."""
        if len(self._seen) > self._forget_at:
            since = _now() - 2 * LONGEST_WRITE
            self._seen = {write_id: time for write_id, time in self._seen.items() if time >= since}
            self._forget_at = 2 * len(self._seen) + MAX_WRITES

    def _settle(self, vanished: dict[str, RunningWrite]) -> None:
        """Decide about writes whose spools were drained before the ledger was read."""
        for write_id, write in vanished.items():
            del self._spools.vanished[write_id]
            if write_id not in self._seen:
                self._spools.lost[write_id] = replace(write, is_lost=True)

    def _new_lost(self) -> Iterator[RunningWrite]:
        for write_id, write in self._spools.lost.items():
            if write_id not in self._reported_lost:
                self._reported_lost.add(write_id)
                yield write


def _now() -> datetime:
    return datetime.fromtimestamp(now_ns() / 1e9, tz=UTC)


def _problem(what: str, error: Exception) -> str:
    text = message_for_ledger(str(error), LedgerMessages.SAFE)
    return f"{what}: {text or type(error).__name__}"
