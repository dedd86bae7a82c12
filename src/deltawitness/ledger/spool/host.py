"""Drain for all processes of a host: one process drains the sealed segments of the others with its own.

Processes that share a folder of spools take turns under a lock. The first one appends what all have
sealed in one commit per table, and the others find their segments drained. So the number of commits
depends on the number of hosts, not of processes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from enum import StrEnum
from pathlib import Path

from deltawitness.ledger.spool.reader import (
    lock_spool,
    read_segment,
    segments_in,
    shard_of_spool,
    spools_in,
)
from deltawitness.ledger.spool.supervisor import SUPERVISOR_LINK
from deltawitness.ledger.spool.writer import DRAINED, OPEN, OWNER_LOCK, SEALED
from deltawitness.local_files import open_lock_file, try_lock, unlock

__all__ = ["LockState", "drain_lock", "live_segments", "mark_drained"]

LOCK_POLL = 0.02
"""Seconds between two attempts to get the lock of the drains on this host."""


def live_segments(
    folder: Path, exclude: Path | None = None, *, shard: str | None = None
) -> list[Path]:
    """Return the sealed segments of other live processes that can be drained, oldest first in each spool.

    The caller drains them while it holds the lock of :func:`drain_lock`, and then calls
    :func:`mark_drained`.

    Args:
        folder: the folder of all spools.
        exclude: the spool of this process.
        shard: the shard of this drain; spools of other shards are left out.
    """
    found: list[Path] = []
    for home in spools_in(folder, exclude):
        with suppress(OSError):  # drained and deleted meanwhile, or of another user
            if shard_of_spool(home) == shard and _is_live(home):
                found += _ready_segments(home)
    return found


def _is_live(home: Path) -> bool:
    """Return whether the owner of a spool lives; a folder without a lock file is no spool."""
    with lock_spool(home, shared=True) as is_free:
        return not is_free and (home / OWNER_LOCK).exists()


def _ready_segments(home: Path) -> list[Path]:
    """Return the sealed segments before which all are drained or sealed, too.

    A listing may miss a file that is renamed meanwhile, so each number is looked up by its names.
    """
    numbers = {int(path.stem) for path in segments_in(home)}
    ready: list[Path] = []
    for number in range(max(1, min(numbers, default=1) - 1), max(numbers, default=0) + 1):
        sealed = home / f"{number:08d}{SEALED}"
        if sealed.with_suffix(OPEN).exists():
            break
        if sealed.exists():
            ready.append(sealed)
        elif ready and not sealed.with_suffix(DRAINED).exists():
            break
    if ready and int(ready[-1].stem) == max(numbers) and _is_needed(ready[-1]):
        ready.pop()
    return ready


def _is_needed(last: Path) -> bool:
    """Return whether the last segment of a spool must stay until its owner has ended.

    If the owner dies, the runs that are open in it are abandoned, and a supervisor adds the exit code.
    """
    return (last.parent / SUPERVISOR_LINK).exists() or bool(read_segment(last).open_runs)


def mark_drained(segments: Iterable[Path]) -> None:
    """Notify the owners of segments that these are in the ledger; each owner deletes its segments.

    Args:
        segments: sealed segments that have been drained.
    """
    for path in segments:
        with suppress(OSError):  # the owner has deleted it
            path.rename(path.with_suffix(DRAINED))


def drain_lock_path(folder: Path, shard: str | None = None) -> Path:
    """Return the lock file of the drains to the main tables or to a shard on this host.

    It is beside the folder of the spools, which is empty when all is drained.
    """
    return folder.with_name(f".{folder.name}{'' if shard is None else f'-{shard}'}.lock")


class LockState(StrEnum):
    """Whether a drain has the lock of the drains on its host."""

    HELD = "held"
    """It drains for all processes of the host."""
    BUSY = "busy"
    """Another process has held it for the time that the drain waited."""
    UNAVAILABLE = "unavailable"
    """There is no such lock: the file system has none, or is read-only. Each process drains for itself."""


@contextmanager
def drain_lock(
    folder: Path,
    shard: str | None = None,
    *,
    timeout: float,
    is_cancelled: Callable[[], bool] = bool,
) -> Iterator[LockState]:
    """Hold the lock of the drains on this host for the block; yield whether it is held.

    Processes that drain one after another do not conflict, and the first one drains for all. Nothing
    depends on the lock: without it a segment is still drained once.

    Args:
        folder: the folder of all spools.
        shard: the shard; None for the main tables.
        timeout: seconds to wait for another process.
        is_cancelled: returns whether to stop waiting.
    """
    try:
        descriptor = open_lock_file(drain_lock_path(folder, shard))
    except OSError:
        yield LockState.UNAVAILABLE
        return
    state = LockState.UNAVAILABLE
    try:
        with suppress(OSError):  # the file system has no locks
            state = _acquire(descriptor, timeout, is_cancelled)
        yield state
    finally:
        if state is LockState.HELD:
            with suppress(OSError):
                unlock(descriptor)  # a forked child may have the descriptor
        os.close(descriptor)


def _acquire(descriptor: int, timeout: float, is_cancelled: Callable[[], bool]) -> LockState:
    deadline = time.monotonic() + timeout
    while not try_lock(descriptor):
        if time.monotonic() >= deadline or is_cancelled():
            return LockState.BUSY
        time.sleep(LOCK_POLL)
    return LockState.HELD
