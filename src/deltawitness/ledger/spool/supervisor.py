"""How a supervisor (`deltawitness run`) adds a program's exit status to the program's spool.

A program cannot see its own exit code, and records nothing when a signal or `os._exit()` ends it.
So the program leaves the row of its run in its spool, and the supervisor writes a file next to it
that says how the program ended; the drain adds that to the row. Until the file exists, a symbolic
link in the spool names a file that the supervisor holds a lock on, and no process drains the spool.
If the supervisor dies, the lock is free and the next drain uses the row unchanged.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from deltawitness.ledger.tables.run_rows import RunStatus
from deltawitness.process_exit import cause_of
from deltawitness.semconv import Env

__all__ = ["SUPERVISOR_LINK", "ProcessEnd", "Supervision", "is_supervised"]

Row = dict[str, Any]

SUPERVISOR_LINK = "supervisor"
"""Name of the symbolic link in a spool to the supervisor's lock file."""

PROCESS_END = "process_end.json"
"""Name of the file in a spool that says how its process ended."""


def is_supervised(home: Path) -> bool:
    """Return whether a live supervisor has yet to record how the owner of a spool ended.

    Args:
        home: the folder of the spool.
    """
    try:
        descriptor = os.open((home / SUPERVISOR_LINK).readlink(), os.O_RDONLY)
    except OSError:  # no link, or its process is gone
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return not (home / PROCESS_END).exists()
    finally:
        os.close(descriptor)
    return False


class Supervision:
    """The lock that a supervisor holds until its child process has ended.

    Args:
        path: the lock file; it is created.
    """

    def __init__(self, path: Path) -> None:
        self.lock = str(path)
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

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
            with suppress(OSError):
                if str(link.readlink()) == self.lock:
                    new = link.with_name(f"{PROCESS_END}.new")
                    new.write_text(content)
                    new.rename(link.with_name(PROCESS_END))
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
