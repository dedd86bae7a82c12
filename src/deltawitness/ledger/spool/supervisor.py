"""The process that waits for another and sees how it ends: `deltawitness run` and its program.

A program cannot see its own exit code, and says nothing when a signal or `os._exit()` ends it. So
the program leaves the row of its run in its spool, and the command puts a file beside it that says
how the program ended; whoever drains the spool then adds that to the row. Until there is such a file,
a symbolic link in the spool names a file that the command holds a lock on: nobody drains that spool.
When the command dies the lock is free, and the next drain takes the row as it is.
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
"""Name of the link in a spool."""

PROCESS_END = "process_end.json"
"""Name of the file in a spool that says how its process has ended."""


def is_supervised(home: Path) -> bool:
    """Return whether a process that lives is yet to write how the owner of a spool has ended.

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
    """The lock that a process holds while it waits for the one that it has started.

    Args:
        path: a file of its own, which is made.
    """

    def __init__(self, path: Path) -> None:
        self.lock = str(path)
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    @property
    def environment(self) -> dict[str, str]:
        """The variable that tells the child who waits for it."""
        return {Env.SUPERVISOR.value: f"{os.getpid()}:{self.lock}"}

    def close(self) -> None:
        """Leave what is not drained to others."""
        with suppress(OSError):
            os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class ProcessEnd:
    """How a process that was waited for has ended.

    Attributes:
        lock: that its spools name.
        pid: its process id.
        run_id: the run that is its own.
        exit_code: its exit code; -N when signal N ended it.
    """

    lock: str
    pid: int
    run_id: str
    exit_code: int

    def write_to(self, folder: Path) -> bool:
        """Write how the process ended into its spools; return whether it has any.

        Args:
            folder: where the spools of all processes lie.
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
        """Return how the owner of a spool ended; None where nobody has seen it.

        Args:
            home: the folder of the spool.
        """
        try:
            return cls(**json.loads((home / PROCESS_END).read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def row_with_exit(self, row: Mapping[str, Any]) -> Row:
        """Return the row of a run with what is known of the process's end.

        Args:
            row: of any run of the process. That of its own run gets the exit code, and the status
                that follows from it. Another that was open at the end stays abandoned.
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
