"""The file of running writes in a spool: which writes of its process are in the engine, and since when.

The file has a slot of fixed size for each write, which the process overwrites in place. Nothing drains it:
`deltawitness live` and the progress line of `deltawitness run` read it. A write that is not in the file,
because the file cannot be written or all slots are in use, is only missing there. On Windows, which has no
`os.pwrite`, there is no file.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from deltawitness.ledger.spool.progress_line import erase_progress_line
from deltawitness.processes import lock_of_supervisor_above

__all__ = [
    "RUNNING",
    "RunningProcess",
    "RunningSlot",
    "RunningWrites",
    "read_running",
    "running_text",
]

RUNNING = "running"
"""Name of the file. It sorts after the segments, which are deleted first."""

SLOTS = 64
"""Maximum number of writes of a process that are in the file at the same time."""

SLOT_BYTES = 1024
_HEADER = SLOT_BYTES
"""Bytes of the slot of the process, which is the first."""

_ROWS = 20
"""Digits of the number of rows in a slot, after its first byte."""

_IN_USE = b"+"
_FREE = b"-"
_UNKNOWN_ROWS = b"+%*d " % (_ROWS, -1)

MAX_NAME = 100
"""Characters of a name in the file."""

PUBLISH_INTERVAL_NS = 200_000_000
"""Nanoseconds between two updates of the number of rows of a write."""

ERASE_AFTER_NS = 1_000_000_000
"""Duration of a write from which on a progress line may show it."""


class _File:
    """The open file; it is closed when no slot and no process uses it any more."""

    __slots__ = ("descriptor", "home")

    def __init__(self, home: Path) -> None:
        self.home: Path = home
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0)
        self.descriptor: int = os.open(home / RUNNING, flags, 0o600)

    def __del__(self) -> None:
        with suppress(OSError, AttributeError):
            os.close(self.descriptor)


class RunningSlot:
    """The slot of one write.

    Attributes:
        rows: number of rows that the engine has read of a source that deltawitness feeds; None if it
            feeds none.
    """

    __slots__ = ("_file", "_number", "_owner", "_pid", "_published", "_started", "rows")

    def __init__(self, owner: RunningWrites, file: _File, number: int) -> None:
        self._owner = owner
        self._file = file
        self._number = number
        self._pid = os.getpid()
        self._started = self._published = time.perf_counter_ns()
        self.rows: int | None = None

    def add_rows(self, count: int) -> None:
        """Add the rows of a batch, and publish their number if the last time is long enough ago."""
        self.rows = (self.rows or 0) + count
        now = time.perf_counter_ns()
        if now - self._published > PUBLISH_INTERVAL_NS:
            self._published = now
            self._write(b"%*d" % (_ROWS, self.rows), 1)

    def end(self) -> None:
        """Free the slot, and erase the progress line that may show the write."""
        if self._pid != os.getpid():  # the write of the parent of this forked child
            return
        self._write(_FREE, 0)
        self._pid = 0  # batches that are read later do not count: another write may use the slot
        self._owner.release(self._file, self._number)
        if time.perf_counter_ns() - self._started > ERASE_AFTER_NS:
            erase_progress_line()

    def _write(self, content: bytes, offset: int) -> None:
        if sys.platform != "win32" and self._pid == os.getpid():
            with suppress(OSError):  # a full disk: the file shows less, the write goes on
                place = _HEADER + self._number * SLOT_BYTES + offset
                os.pwrite(self._file.descriptor, content, place)


class RunningWrites:
    """Writes the file of this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._file: _File | None = None
        self._failed: Path | None = None
        self._free: list[int] = []

    def start(
        self, home: Path | None, text: str, write_id: str, started_at: int
    ) -> RunningSlot | None:
        """Add a write to the file.

        Args:
            home: the folder of the process's spool; None before it exists.
            text: the members that :func:`running_text` returned.
            write_id: id of the write.
            started_at: nanoseconds since the Unix epoch.

        Returns:
            The slot; None if the write cannot be added.
        """
        file = self._file
        if file is None or file.home is not home:
            file = self._open(home)
        if file is None:
            return None
        try:
            number = self._free.pop()
        except IndexError:
            return None
        # Only the first line of a slot counts, so the rest of a longer one may stay behind it.
        body = f'{{{text},"write_id":"{write_id}","started_at":{started_at // 1000}}}\n'
        content = _UNKNOWN_ROWS + body.encode("utf-8", "replace")
        if len(content) <= SLOT_BYTES and sys.platform != "win32":
            try:
                os.pwrite(file.descriptor, content, _HEADER + number * SLOT_BYTES)
            except OSError:
                pass  # as for a name that is too long
            else:
                return RunningSlot(self, file, number)
        self._free.append(number)
        return None

    def release(self, file: _File, number: int) -> None:
        """Let another write use a slot."""
        if file is self._file:
            self._free.append(number)

    def _open(self, home: Path | None) -> _File | None:
        if home is None or home is self._failed or sys.platform == "win32":
            return None
        with self._lock:
            if self._file is not None and self._file.home is home:
                return self._file
            try:
                file = _File(home)
                os.pwrite(file.descriptor, _header().ljust(_HEADER - 1)[: _HEADER - 1] + b"\n", 0)
            except OSError:
                self._failed = home
                return None
            self._free = list(range(SLOTS - 1, -1, -1))
            self._file = file
            return file

    def close(self) -> None:
        """Close the file; the slots of writes that are in the engine close it when they end."""
        self._file = None

    def after_fork_in_child(self) -> None:
        """Forget the parent's file."""
        self.__init__()  # type: ignore[misc]  # the state of a new object


def _header() -> bytes:
    lock = lock_of_supervisor_above()
    header = {
        "pid": os.getpid(),
        "host": socket.gethostname()[:MAX_NAME],
        "started_at": time.time_ns() // 1000,
        "supervisor": lock if len(lock) < SLOT_BYTES // 2 else "",
    }
    return json.dumps(header).encode()


@lru_cache(maxsize=256)
def running_text(  # noqa: PLR0913, PLR0917 - positional for the cache
    table: str | None,
    table_id: str | None,
    operation: str,
    mode: str | None,
    run_id: str,
    job: str,
) -> str:
    """Return the JSON members of a slot that all writes of a kind to a table share.

    Args:
        table: name of the table, redacted.
        table_id: id of the table.
        operation: the operation, as the log names it.
        mode: the save mode.
        run_id: id of the run.
        job: the job, redacted.
    """
    values = {
        "table": table,
        "table_id": table_id,
        "operation": operation,
        "mode": mode,
        "run_id": run_id,
        "job": job,
    }
    cut = {name: value[:MAX_NAME] for name, value in values.items() if value is not None}
    return json.dumps(cut, ensure_ascii=False, separators=(",", ":"))[1:-1]


# --- reading -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RunningProcess:
    """What the file of a process says.

    Attributes:
        header: the members `pid`, `host`, `started_at` and `supervisor`.
        writes: for each write in the engine the members of :func:`running_text`, `write_id`,
            `started_at` in microseconds since the Unix epoch, and `rows`; None for rows that are not known.
    """

    header: dict[str, Any]
    writes: tuple[dict[str, Any], ...]


def read_running(home: Path) -> RunningProcess | None:
    """Return what the file of running writes in a spool says; None if there is none.

    Args:
        home: the folder of the spool.
    """
    try:
        content = (home / RUNNING).read_bytes()
    except OSError:
        return None
    header = _parse(content[:_HEADER])
    if header is None:
        return None
    found = []
    for start in range(_HEADER, len(content), SLOT_BYTES):
        slot = content[start : start + SLOT_BYTES]
        if slot[:1] != _IN_USE:
            continue
        row = _parse(slot[1 + _ROWS :].partition(b"\n")[0])
        if row is not None and _is_valid(row):
            row["rows"] = _rows(slot[1 : 1 + _ROWS])
            found.append(row)
    return RunningProcess(header, tuple(sorted(found, key=lambda row: row["started_at"])))


_MAX_TIME = 250_000_000_000_000_000
"""Microseconds since the Unix epoch of a time in the year 9892."""


def _is_valid(row: dict[str, Any]) -> bool:
    started = row.get("started_at")
    is_time = isinstance(started, int) and 0 <= started < _MAX_TIME
    names = (value for name, value in row.items() if name != "started_at")
    return is_time and "write_id" in row and all(isinstance(value, str) for value in names)


def _parse(content: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(content)
    except ValueError:  # it is being written
        return None
    return value if isinstance(value, dict) else None


def _rows(text: bytes) -> int | None:
    try:
        count = int(text)
    except ValueError:
        return None
    return count if count >= 0 else None
