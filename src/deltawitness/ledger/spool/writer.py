"""The spool of this process: an append-only local journal, drained into the ledger later.

Each process has a folder in the spool folder and holds a lock on it for as long as it lives. A
folder whose lock is free belongs to a dead process, and the next drain adopts it. The folder
contains segments. Records are appended to the open segment; a drain seals it, appends its content
to the ledger and deletes it. Nothing is synced to disk: data that the kernel has accepted survives
the death of the process, and writes lost in a power cut are still in the Delta logs.
"""

from __future__ import annotations

import errno
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from deltawitness.ids_and_clock import new_id
from deltawitness.ledger.spool.records import RecordKind, encode
from deltawitness.ledger.spool.running import RunningWrites
from deltawitness.ledger.spool.supervisor import link_supervisor
from deltawitness.local_files import BINARY, OPEN_FILES_ARE_FIXED, open_locked_file
from deltawitness.processes import supervisor_lock

__all__ = [
    "DRAINED",
    "NEW",
    "OPEN",
    "OWNER_LOCK",
    "REVISIONS",
    "SEALED",
    "SHARD",
    "Segment",
    "Spool",
    "delete_spool",
]

T = TypeVar("T")

REVISION = "v1-"
"""Prefix of a spool's folder. A drain adopts only spools of a format that it knows, so that an old
release does not reduce records of a newer one to the columns it knows."""

SHARDED_REVISION = "v2-"
"""Prefix of the folder of a spool with a file `SHARD`. Releases without shards would drain it to the main
tables, where its application transactions are unknown."""

REVISIONS = (REVISION, SHARDED_REVISION)
"""Prefixes of the spools that this release drains."""

SHARD = "shard"
"""File with the name of the shard to which a spool is drained, whichever process drains it. Its name sorts
after those of the segments, which :func:`delete_spool` deletes first."""

NEW = ".new-"
"""Prefix of a folder that is still being created."""

OWNER_LOCK = "owner.lock"
OPEN = ".open"
SEALED = ".seg"
DRAINED = ".done"
"""Suffix that another process gives to a sealed segment after it has drained it."""

SEGMENT_BYTES = 4 << 20
"""Size at which a segment is sealed."""

ROW_TIMEOUT = 30.0
"""Seconds that a retired segment waits for missing final rows before it is sealed without them."""

RETRY = 1.0
"""Seconds before a spool that could not be opened is tried again."""


class Segment:
    """A file of records.

    Attributes:
        number: its number in the spool, from 1.
        path: its path.
        descriptor: its open file descriptor.
        size: bytes in it, without the records of open runs at its head.
        operations: number of operations recorded in it.
        missing_rows: provisional records in it whose final rows have not been appended.
        retired_at: monotonic seconds when it stopped taking provisional records; None before.
        is_sealed: whether it takes no more records.
    """

    __slots__ = (
        "descriptor",
        "is_sealed",
        "missing_rows",
        "number",
        "operations",
        "path",
        "retired_at",
        "size",
    )

    def __init__(self, number: int, path: Path, descriptor: int) -> None:
        self.number: int = number
        self.path: Path = path
        self.descriptor: int = descriptor
        self.size: int = 0
        self.operations: int = 0
        self.missing_rows: int = 0
        self.retired_at: float | None = None
        self.is_sealed: bool = False


class Spool:
    """The journal of this process.

    Args:
        folder: the folder of all spools.
        limit: maximum bytes waiting to be drained; beyond it new records are dropped.
        shard: the shard of the ledger to which it is drained; None for the main tables.
        segment_bytes: size at which a segment is sealed.
        on_error: called with each error of writing the spool.
        open_runs: returns the records (kind, id, JSON) that each new segment begins with.

    Attributes:
        folder: the folder of all spools.
        dropped: number of events that could not be recorded.
        running: the file of the writes that are in the engine.
    """

    def __init__(  # noqa: PLR0913 - keyword-only options
        self,
        folder: Path,
        *,
        limit: int,
        shard: str | None = None,
        segment_bytes: int = SEGMENT_BYTES,
        on_error: Callable[[BaseException], None],
        open_runs: Callable[[], Iterable[tuple[RecordKind, str, str]]] = tuple,
    ) -> None:
        self.folder = folder
        self._limit = limit
        self._shard = shard
        self._segment_bytes = segment_bytes
        self._on_error = on_error
        self._open_runs = open_runs
        self.dropped: int = 0
        self.running: RunningWrites = RunningWrites()
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.RLock()
        self._home: Path | None = None
        self._owner: int | None = None
        self._number = 0
        self._active: Segment | None = None
        self._retired: list[Segment] = []
        self._sealed: list[Segment] = []
        self._size = 0
        self._not_before = 0.0

    # --- appending ---------------------------------------------------------------------------------

    def begin(self) -> None:
        """Create and lock this process's folder.

        Called before the process's first commit, so that a reconcile sees that its writer is alive.
        """
        if self._home is None:
            with self._lock:
                if self._home is None and time.monotonic() >= self._not_before:
                    self._attempt(self._create_home)

    def append_provisional(self, key: str, body: str) -> Segment | None:
        """Append the provisional record of a write.

        The final row is expected in the same segment.

        Args:
            key: id of the write.
            body: the record as JSON.

        Returns:
            The segment; None if the record could not be written.
        """
        with self._lock:
            segment = self._append(RecordKind.PROVISIONAL, key, body)
            if segment is not None:
                segment.missing_rows += 1
                segment.operations += 1
            return segment

    def append_row(self, segment: Segment | None, key: str, body: str) -> bool:
        """Append the final row of a write to the segment of its provisional record.

        If that segment is sealed already, the row is not written and the provisional record
        remains.

        Args:
            segment: the return value of :meth:`append_provisional`.
            key: id of the write.
            body: the row as JSON.

        Returns:
            Whether the write is recorded, by its row or its provisional record.
        """
        with self._lock:
            if segment is None:
                return self.append(RecordKind.ROW, key, body)
            if not segment.is_sealed:
                segment.missing_rows -= 1
                self._write(segment, encode(RecordKind.ROW, key, body))
                if segment.retired_at is not None and segment.missing_rows == 0:
                    self._seal(segment)
            return True

    def append(
        self, kind: RecordKind, key: str, body: str, *, on_appended: Callable[[], object] = bool
    ) -> bool:
        """Append a record without a later counterpart; return whether it was written.

        Args:
            kind: its kind.
            key: id of the write or run.
            body: its JSON.
            on_appended: called under the spool's lock, before any other record can be appended.
        """
        with self._lock:
            segment = self._append(kind, key, body)
            if segment is None:
                self.dropped += kind not in {RecordKind.RUN_START, RecordKind.RUN_END}
                return False
            segment.operations += kind is not RecordKind.RUN_START
            on_appended()
            return True

    def _append(self, kind: RecordKind, key: str, body: str) -> Segment | None:
        line = encode(kind, key, body)
        if self._size + len(line) > self._limit:
            self._on_error(
                OSError(errno.EDQUOT, "the spool is full: DELTAWITNESS_SPOOL_LIMIT is reached")
            )
            return None
        segment = self._active or self._open_segment()
        if segment is None or not self._write(segment, line):
            return None
        if segment.size >= self._segment_bytes:
            self._retire(segment)
        return segment

    def _write(self, segment: Segment, line: bytes) -> bool:
        try:
            written = os.write(segment.descriptor, line)
        except OSError as error:
            self._on_error(error)
            return False
        segment.size += written
        self._size += written
        if written == len(line):
            return True
        # A full disk took only a part: cut it off, so that the next record starts on a new line.
        with suppress(OSError):
            os.ftruncate(segment.descriptor, os.fstat(segment.descriptor).st_size - written)
            segment.size -= written
            self._size -= written
        self._on_error(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
        return False

    def _open_segment(self) -> Segment | None:
        """Open a new segment; return None if that is not possible now."""
        if time.monotonic() < self._not_before:
            return None
        segment = self._attempt(self._new_segment)
        if segment is None:
            return None
        self._active = segment
        size = self._size
        for kind, key, body in self._open_runs():
            self._write(segment, encode(kind, key, body))
        # Not counted against the limit: records of many open runs could otherwise fill the spool,
        # and no end of a run could be recorded.
        segment.size, self._size = 0, size
        return segment

    def _attempt(self, make: Callable[[], T]) -> T | None:
        try:
            return make()
        except OSError as error:
            self._not_before = time.monotonic() + RETRY
            self._on_error(error)
            return None

    def _new_segment(self) -> Segment:
        home = self._home or self._create_home()
        number = self._number + 1
        path = home / f"{number:08d}{OPEN}"
        # Readable, so that its content can be copied if the folder is deleted.
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL | BINARY
        segment = Segment(number, path, os.open(path, flags, 0o600))
        self._number = number
        return segment

    def _create_home(self) -> Path:
        """Create this process's folder under a temporary name, lock it and rename it into place.

        Where a folder with an open file cannot be renamed, the folder has its final name at once: a
        drain can then take the lock first, and the creation fails and is tried again later.
        """
        name = f"{REVISION if self._shard is None else SHARDED_REVISION}{new_id()}"
        new = self.folder / (name if OPEN_FILES_ARE_FIXED else f"{NEW}{name}")
        home = self.folder / name
        descriptor: int | None = None
        try:
            new.mkdir(parents=True, mode=0o700)
            descriptor = _lock_new(new)
            if self._shard is not None:
                (new / SHARD).write_text(self._shard, encoding="utf-8")
            lock = supervisor_lock()
            if lock is not None:
                link_supervisor(new, lock)
            if new != home:
                new.rename(home)
        except BaseException:
            if descriptor is not None:
                os.close(descriptor)
            shutil.rmtree(new, ignore_errors=True)
            raise
        self._home, self._owner, self._number = home, descriptor, 0
        return home

    # --- draining ----------------------------------------------------------------------------------

    @property
    def home(self) -> Path | None:
        """The folder of this process; None before the first record."""
        return self._home

    @property
    def pending(self) -> int:
        """Number of recorded operations that are not drained yet."""
        with self._lock:
            here = [self._active] if self._active else []
            return sum(segment.operations for segment in (*here, *self._retired, *self._sealed))

    def rotate(self, *, is_last: bool = False) -> None:
        """Retire the open segment, and seal retired segments that wait for no more rows.

        Args:
            is_last: also seal segments with missing rows, and open no new segment for open runs.
        """
        with self._lock:
            self._rescue_segments()
            if self._active is not None and self._active.operations:
                self._retire(self._active)
            has_open_runs = self._active is not None or not (self._retired or self._sealed)
            if not is_last and not has_open_runs and any(True for _ in self._open_runs()):
                # Before the old segment is deleted: whenever the process dies, a segment with the
                # open runs remains.
                self._open_segment()
            for segment in list(self._retired):
                waits = time.monotonic() - (segment.retired_at or 0.0)
                if segment.missing_rows <= 0 or is_last or waits > ROW_TIMEOUT:
                    self._seal(segment)

    def _retire(self, segment: Segment) -> None:
        segment.retired_at = time.monotonic()
        self._active = None
        self._retired.append(segment)
        if segment.missing_rows <= 0:
            self._seal(segment)

    def _seal(self, segment: Segment) -> None:
        if segment.is_sealed:
            return
        segment.is_sealed = True
        os.close(segment.descriptor)
        self._retired.remove(segment)
        with suppress(OSError):  # an open segment can be drained under its old name too
            segment.path = segment.path.rename(segment.path.with_suffix(SEALED))
        self._sealed.append(segment)

    def sealed(self) -> list[Segment]:
        """Return the segments that can be drained, oldest first.

        A sealed segment after one that is still being written is left out: the ledger stores only
        the number of the last drained segment and takes all before it as drained.
        """
        with self._lock:
            first = min((waiting.number for waiting in self._retired), default=self._number + 1)
            ready = [segment for segment in self._sealed if segment.number < first]
            return sorted(ready, key=lambda segment: segment.number)

    def delete(self, segments: Iterable[Segment]) -> None:
        """Delete segments that have been drained."""
        with self._lock:
            for segment in segments:
                self._sealed.remove(segment)
                self._size -= segment.size
                for path in (segment.path, segment.path.with_suffix(DRAINED)):
                    with suppress(OSError):
                        path.unlink()

    def _rescue_segments(self) -> None:
        """Copy the open segments to a new folder if this process's folder was deleted."""
        if self._home is None or (self._home / OWNER_LOCK).exists():
            return
        lost = [*self._retired, *([self._active] if self._active else [])]
        contents = [(segment, _content(segment)) for segment in lost]
        self._release_home()
        try:
            for segment, content in contents:
                new = self._new_segment()
                try:
                    os.write(new.descriptor, content)
                except OSError:
                    os.close(new.descriptor)
                    raise
                os.close(segment.descriptor)
                segment.number, segment.path = new.number, new.path
                segment.descriptor = new.descriptor
        except OSError as error:
            self._on_error(error)

    def _release_home(self) -> None:
        if self._owner is not None:
            os.close(self._owner)
        self._home = self._owner = None
        self.running.close()

    def close(self) -> None:
        """Seal all segments and release the folder; delete it if nothing is left to drain."""
        with self._lock:
            self.rotate(is_last=True)
            if self._active is not None:
                self._retire(self._active)
            for segment in list(self._retired):
                self._seal(segment)
            home, is_empty = self._home, not any(segment.operations for segment in self._sealed)
            if home is not None and is_empty:
                delete_spool(home)
            self._release_home()
            if home is not None and is_empty and OPEN_FILES_ARE_FIXED:
                delete_spool(home)  # again: the lock file was open
            self._sealed.clear()
            self._size = 0

    # --- fork --------------------------------------------------------------------------------------

    def before_fork(self) -> None:
        """Hold the lock over a fork, so that no record is half written in the child."""
        self._lock.acquire()

    def after_fork_in_parent(self) -> None:
        """Release the lock after a fork."""
        self._lock.release()

    def after_fork_in_child(self) -> None:
        """Close the parent's files and start with an empty spool."""
        here = [self._active] if self._active else []
        for segment in (*here, *self._retired):
            # Only segments that are not sealed: their descriptors are open. The program may have
            # reused the descriptor number of a sealed one.
            os.close(segment.descriptor)
        self._release_home()
        self.running.after_fork_in_child()
        self.dropped = 0
        self._reset()


def _lock_new(home: Path) -> int:
    """Create and lock the lock file of a new spool; return its descriptor."""
    descriptor = open_locked_file(home / OWNER_LOCK)
    if descriptor is None:
        raise BlockingIOError(errno.EAGAIN, "a drain has locked the new spool")
    return descriptor


def delete_spool(home: Path) -> None:
    """Delete the folder of a drained spool.

    The lock file goes last: an interrupted deletion leaves a spool that can be adopted again.
    """
    with suppress(OSError):
        for path in sorted(home.iterdir()):
            if path.name != OWNER_LOCK:
                path.unlink()
    shutil.rmtree(home, ignore_errors=True)


def _content(segment: Segment) -> bytes:
    with suppress(OSError):
        os.lseek(
            segment.descriptor, 0, os.SEEK_SET
        )  # later records are still appended, because of O_APPEND
        return os.read(segment.descriptor, os.fstat(segment.descriptor).st_size)
    return b""
