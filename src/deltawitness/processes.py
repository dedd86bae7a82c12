"""Related processes: the `deltawitness run` that waits for this one, and an interpreter to start."""

from __future__ import annotations

import os
import platform
import re
import sys
from pathlib import Path

from deltawitness.semconv import Env

__all__ = [
    "SITE_DIRECTORY",
    "interpreter",
    "is_python_name",
    "lock_of_supervisor_above",
    "process_key",
    "supervisor_lock",
]

SITE_DIRECTORY = str(Path(__file__).parent / "activation" / "site")
"""The folder that has to be first on a child's `PYTHONPATH` to activate the child."""


def process_key() -> str:
    """Return host and id of this process, which no other running process has."""
    return f"{platform.node()}:{os.getpid()}"


def supervisor_lock() -> str | None:
    """Return the lock path of the `deltawitness run` that waits for this process; None without one.

    The variable has the command's process id. A process that the program starts inherits the variable
    but has another parent, so for it the result is None.
    """
    pid, _, lock = os.environ.get(Env.SUPERVISOR, "").partition(":")
    return lock if lock and pid == str(os.getppid()) else None


def lock_of_supervisor_above() -> str:
    """Return the lock path of the `deltawitness run` that is an ancestor of this process; empty without one."""
    return os.environ.get(Env.SUPERVISOR, "").partition(":")[2]


def interpreter() -> str | None:
    """Return the path of this Python interpreter; None in a frozen program, or when none is found."""
    if getattr(sys, "frozen", False):
        return None
    candidates = [
        Path(sys.executable or "/"),
        Path(sys.exec_prefix, "bin", f"python{sys.version_info.major}.{sys.version_info.minor}"),
    ]
    return next((str(path) for path in candidates if _is_python(path)), None)


def is_python_name(name: str) -> bool:
    """Return whether the file name of a program is that of a Python interpreter.

    >>> is_python_name("python3.11"), is_python_name("pypy3"), is_python_name("pythonic")
    (True, True, False)
    """
    return _PYTHON_NAME.fullmatch(name) is not None


_PYTHON_NAME = re.compile(r"(python|pypy)[0-9.]*w?(\.exe)?")


def _is_python(path: Path) -> bool:
    return path.name.startswith(("python", "pypy")) and os.access(path, os.X_OK)
