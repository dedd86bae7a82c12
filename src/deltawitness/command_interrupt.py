"""The exit of the command `deltawitness` at an interrupt (Ctrl-C) while it still imports.

An interrupt would raise KeyboardInterrupt in the middle of an import, and print a traceback of modules that the
user does not know. Until the command runs, it ends the process at once, with the exit code of a shell for a
command that SIGINT ended. Nothing is lost: the command has not begun.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

__all__ = ["INTERRUPTED", "exit_at_interrupt", "is_command", "raise_at_interrupt"]

INTERRUPTED = 128 + signal.SIGINT
"""Exit code of a shell for a command that SIGINT ended."""

_NAME = "deltawitness"


def is_command() -> bool:
    """Return whether this process was started as `deltawitness` or `python -m deltawitness`.

    The script of the command counts only beside the interpreter, where an installer puts it: a program of
    the same name may be another one.
    """
    script = sys.argv[0] if getattr(sys, "argv", None) else ""
    if script == "-m":  # while the interpreter imports the package of a module that it is to run
        words = sys.orig_argv
        return words[words.index("-m") + 1 :][:1] == [_NAME]
    if os.path.basename(script).partition(".")[0] != _NAME:  # noqa: PTH119 - every process that imports the package
        return False
    folder = os.path.dirname(os.path.realpath(script))  # noqa: PTH120 - as above
    return folder == os.path.dirname(sys.executable)  # noqa: PTH120 - as above


def exit_at_interrupt() -> None:
    """End the process at SIGINT until :func:`raise_at_interrupt`, if it has the default handler."""
    _replace(signal.default_int_handler, _exit)


def raise_at_interrupt() -> None:
    """Raise KeyboardInterrupt at SIGINT again."""
    _replace(_exit, signal.default_int_handler)


def _replace(old: object, new: signal._HANDLER) -> None:
    try:
        if signal.getsignal(signal.SIGINT) is old:
            signal.signal(signal.SIGINT, new)
    except ValueError:
        pass  # not the main thread, which alone may do this


def _exit(_number: int, _frame: FrameType | None) -> None:
    os._exit(INTERRUPTED)
