"""The processes around this one: the command that waits for it, and interpreters that it may start."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from deltawitness.semconv import Env

__all__ = ["interpreter", "supervisor_lock"]


def supervisor_lock() -> str | None:
    """Return the path of the lock of the command that waits for this process; None when none does.

    A process that the program starts inherits the variable, but has another parent.
    """
    pid, _, lock = os.environ.get(Env.SUPERVISOR, "").partition(":")
    return lock if lock and pid == str(os.getppid()) else None


def interpreter() -> str | None:
    """Return the path of a Python interpreter like this one; None where this one is part of a program."""
    if getattr(sys, "frozen", False):
        return None
    candidates = [
        Path(sys.executable or "/"),
        Path(sys.exec_prefix, "bin", f"python{sys.version_info.major}.{sys.version_info.minor}"),
    ]
    return next((str(path) for path in candidates if _is_python(path)), None)


def _is_python(path: Path) -> bool:
    return path.name.startswith(("python", "pypy")) and os.access(path, os.X_OK)
