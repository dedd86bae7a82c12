"""A local, append-only journal of finished writes, drained to Delta later.

Each process has a folder of its own under the spool's folder, and holds a lock on it for as long as
it lives: a folder whose lock is free belongs to a process that is gone, and the next drain adopts
it. In the folder are segments. Lines go to the open one; a drain seals it, carries it into the
ledger and deletes it. Nothing is ever synced to the disk: what the kernel has taken survives the
death of the process, and what a power cut takes is in the Delta log still.
"""

from __future__ import annotations

import errno
import fcntl
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
from deltawitness.ledger.spool.supervisor import SUPERVISOR_LINK
from deltawitness.processes import supervisor_lock

__all__ = ["NEW", "OPEN", "OWNER_LOCK", "REVISION", "SEALED", "Segment", "Spool", "delete_spool"]

T = TypeVar("T")

REVISION = "v1-"
"""What the folder of a spool begins with: a drain adopts only the spools that it can read whole, so
that a line of a newer release is not cut down to the columns that an older one knows."""

NEW = ".new-"
"""What the name of a folder begins with while it is made."""

OWNER_LOCK = "owner.lock"
OPEN = ".open"
SEALED = ".seg"

SEGMENT_BYTES = 4 << 20
"""Bytes after which a segment is sealed."""

PATIENCE = 30.0
"""Seconds that a segment waits for the rows of its notes before it is sealed without them."""

RETRY = 1.0
"""Seconds until a spool that could not be opened is tried again."""


class Segment:
    """A file of lines.

    Attributes:
        number: its place in the spool, from 1 on.
        path: where it lies.
        size: bytes in it, besides what it says of open runs at its head.
        lines: operations told in it.
        awaited: notes in it whose rows are still to come.
        since: monotonic seconds when it stopped to take new notes; None while it takes them.
        is_sealed: whether it takes nothing any more.
    """

    __slots__ = ("awaited", "descriptor", "is_sealed", "lines", "number", "path", "since", "size")

    def __init__(self, number: int, path: Path, descriptor: int) -> None:
        self.number = number
        self.path = path
        self.descriptor = descriptor
        self.size = 0
        self.lines = 0
        self.awaited = 0
        self.since: float | None = None
        self.is_sealed = False


class Spool:
    """The journal of this process.

    Args:
        folder: where the spools of all processes lie.
        limit: bytes that may wait; beyond it new lines are dropped and the old ones kept.
        segment_bytes: bytes after which a segment is sealed.
        on_error: is told of a spool that cannot be written.
        open_runs: returns the lines, as kind, id and JSON, that each new segment begins with.

    Attributes:
        dropped: events that could not be told.
    """

    def __init__(
        self,
        folder: Path,
        *,
        limit: int,
        segment_bytes: int = SEGMENT_BYTES,
        on_error: Callable[[BaseException], None],
        open_runs: Callable[[], Iterable[tuple[RecordKind, str, str]]] = tuple,
    ) -> None:
        self._folder = folder
        self._limit = limit
        self._segment_bytes = segment_bytes
        self._on_error = on_error
        self._open_runs = open_runs
        self.dropped = 0
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.RLock()
        self._home: Path | None = None
        self._owner: int | None = None
        self._number = 0
        self._active: Segment | None = None
        self._waiting: list[Segment] = []
        self._sealed: list[Segment] = []
        self._size = 0
        self._not_before = 0.0

    # --- what a write calls ------------------------------------------------------------------------

    def begin(self) -> None:
        """Make the folder of this process, so that others see that it lives, before it commits."""
        if self._home is None:
            with self._lock:
                if self._home is None and time.monotonic() >= self._not_before:
                    self._trying(self._settled_down)

    def note(self, key: str, body: str) -> Segment | None:
        """Append a note, whose row is awaited in the same segment; None when it cannot be kept."""
        with self._lock:
            segment = self._append(RecordKind.NOTE, key, body)
            if segment is not None:
                segment.awaited += 1
                segment.lines += 1
            return segment

    def settle(self, segment: Segment | None, key: str, body: str) -> bool:
        """Append the row of a note; once its segment is sealed, the note stands for it.

        Args:
            segment: what :meth:`note` returned.
            key: the id of the write.
            body: the row as JSON.

        Returns:
            Whether the write is told, by its row or by its note.
        """
        with self._lock:
            if segment is None:
                return self.append(RecordKind.ROW, key, body)
            if not segment.is_sealed:
                segment.awaited -= 1
                self._write(segment, encode(RecordKind.ROW, key, body))
                if segment.since is not None and segment.awaited == 0:
                    self._seal(segment)
            return True

    def append(
        self, kind: RecordKind, key: str, body: str, *, when_kept: Callable[[], object] = bool
    ) -> bool:
        """Append a line that is whole in itself; tell whether it is kept.

        Args:
            kind: what it tells.
            key: of which write or run.
            body: its JSON.
            when_kept: is called before anything else can come into the spool.
        """
        with self._lock:
            segment = self._append(kind, key, body)
            if segment is None:
                self.dropped += kind not in {RecordKind.RUN_START, RecordKind.RUN_END}
                return False
            segment.lines += kind is not RecordKind.RUN_START
            when_kept()
            return True

    def _append(self, kind: RecordKind, key: str, body: str) -> Segment | None:
        line = encode(kind, key, body)
        if self._size + len(line) > self._limit:
            self._on_error(OSError(errno.EDQUOT, "the spool holds as much as it may"))
            return None
        segment = self._active or self._opened()
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
        # A full disk took a part: what is torn must not be taken for the start of the next line.
        with suppress(OSError):
            os.ftruncate(segment.descriptor, os.fstat(segment.descriptor).st_size - written)
            segment.size -= written
            self._size -= written
        self._on_error(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
        return False

    def _opened(self) -> Segment | None:
        """Return a new open segment, or None where there can be none now."""
        if time.monotonic() < self._not_before:
            return None
        segment = self._trying(self._new_segment)
        if segment is None:
            return None
        self._active = segment
        size = self._size
        for kind, key, body in self._open_runs():
            self._write(segment, encode(kind, key, body))
        # Told anew at each head, these count for nothing: a spool that many open runs fill could
        # tell the end of none of them.
        segment.size, self._size = 0, size
        return segment

    def _trying(self, make: Callable[[], T]) -> T | None:
        try:
            return make()
        except OSError as error:
            self._not_before = time.monotonic() + RETRY
            self._on_error(error)
            return None

    def _new_segment(self) -> Segment:
        home = self._home or self._settled_down()
        number = self._number + 1
        path = home / f"{number:08d}{OPEN}"
        # Readable, so that what is in it can be saved when somebody deletes the folder.
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL
        segment = Segment(number, path, os.open(path, flags, 0o600))
        self._number = number
        return segment

    def _settled_down(self) -> Path:
        """Make the folder of this process, locked before anybody can see it."""
        name = f"{REVISION}{new_id()}"
        new = self._folder / f"{NEW}{name}"
        new.mkdir(parents=True, mode=0o700)
        descriptor = os.open(new / OWNER_LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        lock = supervisor_lock()
        if lock is not None:
            (new / SUPERVISOR_LINK).symlink_to(lock)
        home = new.rename(self._folder / name)
        self._home, self._owner, self._number = home, descriptor, 0
        return home

    # --- what a drain calls ----------------------------------------------------------------------------

    @property
    def home(self) -> Path | None:
        """The folder of this process; None before the first line."""
        return self._home

    @property
    def pending(self) -> int:
        """Operations that are told here and not yet drained."""
        with self._lock:
            here = [self._active] if self._active else []
            return sum(segment.lines for segment in (*here, *self._waiting, *self._sealed))

    def rotate(self, *, is_last: bool = False) -> None:
        """Close what is open to new notes, and seal what waits for nothing any more.

        Args:
            is_last: seal also what still waits, and begin no new segment for open runs.
        """
        with self._lock:
            self._save_what_was_deleted()
            if self._active is not None and self._active.lines:
                self._retire(self._active)
            is_told = self._active is not None or not (self._waiting or self._sealed)
            if not is_last and not is_told and any(True for _ in self._open_runs()):
                # Before the old one can go: whenever the process dies, a segment is left that tells
                # which runs were open.
                self._opened()
            for segment in list(self._waiting):
                waits = time.monotonic() - (segment.since or 0.0)
                if segment.awaited <= 0 or is_last or waits > PATIENCE:
                    self._seal(segment)

    def _retire(self, segment: Segment) -> None:
        segment.since = time.monotonic()
        self._active = None
        self._waiting.append(segment)
        if segment.awaited <= 0:
            self._seal(segment)

    def _seal(self, segment: Segment) -> None:
        if segment.is_sealed:
            return
        segment.is_sealed = True
        os.close(segment.descriptor)
        self._waiting.remove(segment)
        with suppress(OSError):  # read as it stands, should the disk refuse
            segment.path = segment.path.rename(segment.path.with_suffix(SEALED))
        self._sealed.append(segment)

    def sealed(self) -> list[Segment]:
        """Return the segments that can be drained, oldest first.

        Only those that no older one is still being written before: the ledger remembers the number
        of the last drained segment, and takes all before it for drained.
        """
        with self._lock:
            first = min((waiting.number for waiting in self._waiting), default=self._number + 1)
            ready = [segment for segment in self._sealed if segment.number < first]
            return sorted(ready, key=lambda segment: segment.number)

    def forget(self, segments: Iterable[Segment]) -> None:
        """Delete segments that have been drained."""
        with self._lock:
            for segment in segments:
                self._sealed.remove(segment)
                self._size -= segment.size
                with suppress(OSError):
                    segment.path.unlink()

    def _save_what_was_deleted(self) -> None:
        """Write the open segments anew when somebody deleted the folder below them."""
        if self._home is None or (self._home / OWNER_LOCK).exists():
            return
        lost = [*self._waiting, *([self._active] if self._active else [])]
        kept = [(segment, _content(segment)) for segment in lost]
        self._let_go()
        try:
            for segment, content in kept:
                new = self._new_segment()
                os.write(new.descriptor, content)
                os.close(segment.descriptor)
                segment.number, segment.path = new.number, new.path
                segment.descriptor = new.descriptor
        except OSError as error:
            self._on_error(error)

    def _let_go(self) -> None:
        if self._owner is not None:
            os.close(self._owner)
        self._home = self._owner = None

    def close(self) -> None:
        """Give the folder up; if nothing is left in it, it goes."""
        with self._lock:
            self.rotate(is_last=True)
            if self._active is not None:
                self._retire(self._active)
            for segment in list(self._waiting):
                self._seal(segment)
            home, is_empty = self._home, not any(segment.lines for segment in self._sealed)
            if home is not None and is_empty:
                delete_spool(home)
            self._let_go()
            self._sealed.clear()
            self._size = 0

    # --- fork --------------------------------------------------------------------------------------

    def before_fork(self) -> None:
        """Let no line be in the middle of being written."""
        self._lock.acquire()

    def after_fork_in_parent(self) -> None:
        """Go on."""
        self._lock.release()

    def after_fork_in_child(self) -> None:
        """Begin a spool of its own: the parent's is the parent's."""
        here = [self._active] if self._active else []
        for segment in (*here, *self._waiting):
            # A number that was closed and used again by the program is not ours to close; these
            # are still open, as the parent holds them.
            os.close(segment.descriptor)
        self._let_go()
        self.dropped = 0
        self._reset()


def delete_spool(home: Path) -> None:
    """Delete the folder of a spool that has nothing more to tell.

    The lock goes last: whoever dies before that leaves a spool that can be adopted again.
    """
    with suppress(OSError):
        for path in sorted(home.iterdir()):
            if path.name != OWNER_LOCK:
                path.unlink()
    shutil.rmtree(home, ignore_errors=True)


def _content(segment: Segment) -> bytes:
    with suppress(OSError):
        return os.pread(segment.descriptor, os.fstat(segment.descriptor).st_size, 0)
    return b""
