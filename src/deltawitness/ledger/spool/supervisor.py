"""How a supervisor (`deltawitness run`) adds a program's exit status to the program's spool.

A program cannot see its own exit code, and records nothing when a signal or `os._exit()` ends it.
So the program leaves the row of its run in its spool, and the supervisor writes a file next to it
that says how the program ended; the drain adds that to the row. Until the file exists, a symbolic
link in the spool names a file that the supervisor holds a lock on, and no process drains the spool.
Where the process may not create links, as on Windows, a text file contains the name.
If the supervisor dies, the lock is free and the next drain uses the row unchanged.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from deltawitness.ledger.tables.run_rows import RunStatus
from deltawitness.local_files import BINARY, open_lock_file, try_lock
from deltawitness.process_exit import cause_of
from deltawitness.semconv import Env

__all__ = ["SUPERVISOR_LINK", "ProcessEnd", "Supervision", "is_supervised", "link_supervisor"]

Row = dict[str, Any]

SUPERVISOR_LINK = "supervisor"
"""Name of the symbolic link in a spool to the supervisor's lock file, or of a text file with its path."""

PROCESS_END = "process_end.json"
"""Name of the file in a spool that says how its process ended."""


def link_supervisor(home: Path, lock: str) -> None:
    """Name a supervisor's lock file in a spool.

    Args:
        home: the folder of the spool.
        lock: path of the lock file.

    Raises:
        OSError: the spool cannot be written.
    """
    link = home / SUPERVISOR_LINK
    try:
        link.symlink_to(lock)
    except (OSError, NotImplementedError):
        link.write_text(lock, encoding="utf-8")


def _lock_named_by(link: Path) -> str:
    """Return the path of the supervisor's lock file.

    Raises:
        OSError: the spool names none.
    """
    if link.is_symlink():
        return str(link.readlink())
    return link.read_text(encoding="utf-8")


def is_supervised(home: Path) -> bool:
    """Return whether a live supervisor has yet to record how the owner of a spool ended.

    Args:
        home: the folder of the spool.
    """
    try:
        descriptor = os.open(_lock_named_by(home / SUPERVISOR_LINK), os.O_RDONLY | BINARY)
    except (OSError, ValueError):  # no link, or its process is gone
        return False
    try:
        is_free = try_lock(descriptor, shared=True)
    except OSError:  # the file system has no locks
        is_free = False
    finally:
        os.close(descriptor)
    return not is_free and not (home / PROCESS_END).exists()


class Supervision:
    """The lock that a supervisor holds until its child process has ended.

    Args:
        path: the lock file; it is created.
    """

    def __init__(self, path: Path) -> None:
        self.lock: str = str(path)
        self._descriptor = open_lock_file(path)
        try_lock(self._descriptor)

    @property
    def environment(self) -> dict[str, str]:
        """The environment variable that names the supervisor and its lock to the child."""
        return {Env.SUPERVISOR.value: f"{os.getpid()}:{self.lock}"}

    def close(self) -> None:
        """Release the lock, so that other processes may drain the child's spools."""
        with suppress(OSError):
            os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class ProcessEnd:
    """How a supervised process ended.

    Attributes:
        lock: the supervisor's lock file, which the process's spools link to.
        pid: its process id.
        run_id: the run of the process.
        exit_code: its exit code; -N when signal N ended it.
    """

    lock: str
    pid: int
    run_id: str
    exit_code: int

    def write_to(self, folder: Path) -> bool:
        """Write the process's end into each of its spools; return whether it has any.

        Args:
            folder: the folder of all spools.
        """
        content = json.dumps({name: getattr(self, name) for name in self.__slots__})
        is_written = False
        for link in folder.glob(f"*/{SUPERVISOR_LINK}"):
            with suppress(OSError, ValueError):
                if _lock_named_by(link) == self.lock:
                    new = link.with_name(f"{PROCESS_END}.new")
                    new.write_text(content)
                    new.replace(link.with_name(PROCESS_END))
                    is_written = True
        return is_written

    @classmethod
    def read_from(cls, home: Path) -> ProcessEnd | None:
        """Return how the owner of a spool ended; None if no supervisor recorded it.

        Args:
            home: the folder of the spool.
        """
        try:
            return cls(**json.loads((home / PROCESS_END).read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def row_with_exit(self, row: Mapping[str, Any]) -> Row:
        """Return a run's row with the exit code, and the status that follows from it.

        Args:
            row: the row of any run of the process. Only the process's own run gets a new status;
                other runs that were open at the end stay abandoned.
        """
        if row.get("pid") != self.pid:
            return dict(row)
        is_abandoned = row["status"] == RunStatus.ABANDONED
        if row["run_id"] != self.run_id:
            return {**row, "exit_code": self.exit_code} if is_abandoned else dict(row)
        if self.exit_code == 0:
            status = RunStatus.OK if is_abandoned else RunStatus(row["status"])
            return {**row, "status": status.value, "exit_code": 0}
        cause = row.get("error_type") or cause_of(self.exit_code, has_run_handlers=not is_abandoned)
        return {
            **row,
            "status": RunStatus.ERROR.value,
            "error_type": cause,
            "exit_code": self.exit_code,
        }
