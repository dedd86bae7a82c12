"""Readers of spools: segments to drain, spools of dead processes, and ids of spooled writes."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deltawitness.ledger.spool.records import Record, RecordKind, decode
from deltawitness.ledger.spool.supervisor import ProcessEnd, is_supervised
from deltawitness.ledger.spool.writer import (
    NEW,
    OPEN,
    OWNER_LOCK,
    REVISIONS,
    SEALED,
    SHARD,
    delete_spool,
)
from deltawitness.local_files import OPEN_FILES_ARE_FIXED, try_lock
from deltawitness.semconv import SPOOL_APP_ID_PREFIX

__all__ = [
    "SegmentContents",
    "adopt",
    "adopt_batches",
    "has_abandoned",
    "lock_spool",
    "read_segment",
    "segments_in",
    "segments_of",
    "shard_of_spool",
    "spool_app_id",
    "spooled_write_ids",
    "spools_in",
]

Row = dict[str, Any]

CREATION_TIMEOUT = 3600.0
"""Seconds after which the folder of a spool that is still being created belongs to a dead
process."""

SPOOLS_PER_BATCH = 64
"""Spools of dead processes that are drained together, to save commits."""


def spool_app_id(home: Path) -> str:
    """Return the application id that a spool's segments have in the ledger's tables."""
    return f"{SPOOL_APP_ID_PREFIX}{home.name}"


def shard_of_spool(home: Path) -> str | None:
    """Return the shard of the ledger to which a spool is drained; None for the main tables.

    Args:
        home: the folder of the spool.

    Raises:
        OSError: the name of the shard cannot be read.
    """
    try:
        return (home / SHARD).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None


@dataclass(slots=True)
class SegmentContents:
    """The records of one segment.

    Attributes:
        app_id: application id of its spool.
        number: its number in the spool.
        rows: final rows of the inventory, as JSON.
        provisional: provisional records without a final row.
        runs: rows of runs that ended.
        open_runs: runs that were still open at the end of the segment, by id.
        snapshots: rows of the snapshot registry.
        damaged: number of records that did not match their checksum, or do not fit their table.
        process_end: how the process ended, if a supervisor recorded it.
    """

    app_id: str
    number: int
    rows: list[Record] = field(default_factory=list)
    provisional: list[Row] = field(default_factory=list)
    runs: list[Row] = field(default_factory=list)
    open_runs: dict[str, Row] = field(default_factory=dict)
    snapshots: list[Row] = field(default_factory=list)
    damaged: int = 0
    process_end: ProcessEnd | None = None

    def runs_open_after(self, before: Mapping[str, Row]) -> dict[str, Row]:
        """Return the runs that are open after this segment.

        Args:
            before: the runs that were open before it, by id.
        """
        ended = {run["run_id"] for run in self.runs}
        going_on = {run_id: row for run_id, row in before.items() if run_id not in ended}
        return going_on | self.open_runs


def read_segment(path: Path) -> SegmentContents:
    """Read a segment.

    Raises:
        OSError: it cannot be read.
    """
    lines = decode(path.read_bytes())
    contents = SegmentContents(spool_app_id(path.parent), int(path.stem), damaged=lines.damaged)
    pending: dict[str, Record] = {}
    for line in lines.valid:
        match line.kind:
            case RecordKind.PROVISIONAL:
                pending[line.key] = line
            case RecordKind.ROW:
                pending.pop(line.key, None)
                contents.rows.append(line)
            case RecordKind.RUN_START:
                contents.open_runs[line.key] = json.loads(line.body)
            case RecordKind.RUN_END:
                contents.open_runs.pop(line.key, None)
                contents.runs.append(json.loads(line.body))
            case RecordKind.SNAPSHOT:
                contents.snapshots.append(json.loads(line.body))
            case _:
                contents.damaged += 1
    contents.provisional = [json.loads(line.body) for line in pending.values()]
    return contents


# --- other processes ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AbandonedSpool:
    """The spool of a dead process. Its lock must be held while it is used.

    Attributes:
        home: its folder.
        segments: its segments, oldest first.
    """

    home: Path
    segments: Sequence[Path]

    @property
    def shard(self) -> str | None:
        """The shard of the ledger to which it is drained; see :func:`shard_of_spool`."""
        return shard_of_spool(self.home)

    def delete(self) -> None:
        """Delete the spool, after all of it has been drained."""
        delete_spool(self.home)


def segments_in(home: Path) -> list[Path]:
    """Return the segments of a spool, oldest first.

    Raises:
        OSError: the folder cannot be read.
    """
    found = [
        path for path in home.iterdir() if path.suffix in {OPEN, SEALED} and path.stem.isdecimal()
    ]
    return sorted(found, key=lambda path: int(path.stem))


def _is_half_deleted(home: Path) -> bool:
    """Return whether the deletion of a spool was interrupted: it has no lock file and no segments.

    The lock file is created before the folder gets its final name, and deleted last.
    """
    try:
        return not (home / OWNER_LOCK).exists() and not segments_in(home)
    except OSError:  # gone, or of another user
        return not home.exists()


def _is_undeleted(home: Path) -> bool:
    """Return whether an adopted spool is drained, and only its lock file could not be deleted while open."""
    with suppress(OSError):
        return OPEN_FILES_ARE_FIXED and not segments_in(home)
    return False


def _is_old(home: Path) -> bool:
    with suppress(OSError):
        return time.time() - home.stat().st_mtime > CREATION_TIMEOUT
    return False


def spools_in(folder: Path, exclude: Path | None) -> list[Path]:
    """Return the folders of all spools in a folder, in the order of their names.

    Args:
        folder: the folder of all spools.
        exclude: a spool to leave out.
    """
    try:
        found = [path for path in folder.iterdir() if path.name.startswith(REVISIONS)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(path for path in found if path != exclude)


def segments_of(folder: Path) -> Iterator[Path]:
    """Yield the segments of all spools in a folder, of live and dead processes."""
    for home in spools_in(folder, None):
        with suppress(FileNotFoundError):  # drained and deleted meanwhile
            yield from segments_in(home)


@contextmanager
def lock_spool(home: Path, *, shared: bool = False) -> Iterator[bool]:
    """Lock a spool for the block; yield whether that succeeded.

    Args:
        home: the folder of the spool.
        shared: whether others can have a shared lock at the same time.
    """
    try:
        descriptor = os.open(home / OWNER_LOCK, os.O_RDWR)
    except OSError:  # drained and deleted meanwhile, or of another user
        yield False
        return
    try:
        # A previous holder of the lock may have deleted the spool.
        yield try_lock(descriptor, shared=shared) and (home / OWNER_LOCK).exists()
    finally:
        os.close(descriptor)


def adopt(folder: Path, exclude: Path | None = None) -> Iterator[AbandonedSpool]:
    """Yield the spools of dead processes one by one, each locked until the next.

    Args:
        folder: the folder of all spools.
        exclude: the spool of this process.

    Raises:
        OSError: a folder cannot be read.
    """
    for spools in adopt_batches(folder, exclude, most=1):
        yield from spools


def adopt_batches(
    folder: Path, exclude: Path | None = None, *, most: int = SPOOLS_PER_BATCH
) -> Iterator[list[AbandonedSpool]]:
    """Yield the spools of dead processes in batches, each batch locked until the next.

    Also deletes folders whose creation or deletion was interrupted.

    Args:
        folder: the folder of all spools.
        exclude: the spool of this process.
        most: the size of a batch.

    Raises:
        OSError: a folder cannot be read.
    """
    homes = spools_in(folder, exclude)
    for batch in (homes[first : first + most] for first in range(0, len(homes), most)):
        with ExitStack() as locks:
            adopted = [
                home
                for home in batch
                if locks.enter_context(lock_spool(home)) and not is_supervised(home)
            ]
            if adopted:
                yield [AbandonedSpool(home, segments_in(home)) for home in adopted]
        for home in batch:
            if _is_half_deleted(home) if home not in adopted else _is_undeleted(home):
                delete_spool(home)
    for home in folder.glob(f"{NEW}*"):
        if _is_old(home):  # its process died before the rename
            delete_spool(home)


def has_abandoned(folder: Path, exclude: Path | None = None) -> bool:
    """Return whether there are spools of dead processes to drain or delete; reads no segment.

    Args:
        folder: the folder of all spools.
        exclude: the spool of this process.

    Raises:
        OSError: a folder cannot be read.
    """
    for home in spools_in(folder, exclude):
        with lock_spool(home) as is_locked:
            if (is_locked and not is_supervised(home)) or _is_half_deleted(home):
                return True
    return any(map(_is_old, folder.glob(f"{NEW}*")))


def spooled_write_ids(folder: Path, exclude: Path | None = None) -> tuple[set[str], bool]:
    """Return the write ids in all spools, and whether any spool belongs to a live process.

    Args:
        folder: the folder of all spools.
        exclude: the spool of this process, which does not count as live.
    """
    waiting: set[str] = set()
    has_owner = False
    for home in spools_in(folder, None):
        if home != exclude:
            # A shared lock, so that two readers do not take each other for the owner.
            with lock_spool(home, shared=True) as is_free:
                has_owner = has_owner or not is_free
        with suppress(OSError):  # drained and deleted meanwhile: in the ledger now
            for path in segments_in(home):
                waiting |= _write_ids(path)
    return waiting, has_owner


def _write_ids(path: Path) -> set[str]:
    try:
        lines = decode(path.read_bytes())
    except FileNotFoundError:
        # Renamed because it was sealed, or drained and deleted.
        sealed = path.with_suffix(SEALED)
        if path.suffix == SEALED or not sealed.exists():
            return set()
        return _write_ids(sealed)
    kinds = {RecordKind.PROVISIONAL.value, RecordKind.ROW.value}
    ids = {line.key for line in lines.valid if line.kind in kinds}
    return ids | {other for line in lines.valid if (other := _other_write_id(line))}


def _other_write_id(line: Record) -> str | None:
    """Return the write id that the caller set in the commit in place of deltawitness's, if any."""
    if line.kind != RecordKind.PROVISIONAL or b'"_mark":"%b"' % line.key.encode() in line.body:
        return None
    write_id = json.loads(line.body).get("_mark")
    return write_id if isinstance(write_id, str) else None
