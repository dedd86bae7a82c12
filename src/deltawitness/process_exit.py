"""How a process ends: the exit code that an exception stands for, and an interrupt that stays one."""

from __future__ import annotations

import signal
from contextlib import suppress

from deltawitness.run import unhandled

__all__ = ["Terminated", "cause_of", "exit_code_of", "is_failure", "restore_interrupt"]

_BYTE = 0xFF
_LONGEST = (1 << 63) - 1
"""What CPython's `long` holds; it exits with -1 for more."""


class Terminated(BaseException):
    """Ends the runs of a process that SIGTERM ends; it is never raised."""


def exit_code_of(error: BaseException | None, *, ends_process: bool) -> int | None:
    """Return the exit code that an exception gives the process; None when it does not say.

    Args:
        error: what ended a run.
        ends_process: whether nothing can catch it any more: the run is that of the whole process.

    Returns:
        The code as the operating system reports it, -N for a process that signal N ends.

    >>> exit_code_of(SystemExit("no input"), ends_process=False)
    1
    >>> exit_code_of(LookupError(), ends_process=False) is None
    True
    """
    if isinstance(error, SystemExit):
        code = error.code
        if code is None:
            return 0
        if not isinstance(code, int):
            return 1
        return int(code) & _BYTE if abs(code) <= _LONGEST else _BYTE
    if isinstance(error, Terminated):
        return -signal.SIGTERM
    if error is None or not ends_process:
        return None
    return -signal.SIGINT if type(error) is KeyboardInterrupt else 1


def is_failure(error: BaseException | None) -> bool:
    """Return whether a run that this ended has failed; `sys.exit()` and `sys.exit(0)` are no failure."""
    return error is not None and exit_code_of(error, ends_process=False) != 0


def cause_of(exit_code: int, *, has_run_handlers: bool) -> str | None:
    """Return the type of the error that ended a process in which no exception was seen; None when unknown.

    Args:
        exit_code: as `subprocess` has it, -N for a process that signal N ended; not 0.
        has_run_handlers: whether the process ran its exit handlers, so that `os._exit()` is ruled out.

    >>> cause_of(-9, has_run_handlers=False), cause_of(7, has_run_handlers=True)
    ('SIGKILL', 'SystemExit')
    """
    if exit_code < 0:
        with suppress(ValueError):
            return signal.Signals(-exit_code).name
        return None
    # A process that ran its exit handlers and raised nothing else has called sys.exit().
    return SystemExit.__qualname__ if has_run_handlers else None


def restore_interrupt() -> None:
    """Let a process that an unhandled KeyboardInterrupt ends die of SIGINT, as it would have.

    CPython notes an unhandled KeyboardInterrupt in a flag, and dies of the signal at the very end
    when it is set. Every `exec()` of text clears the flag, also one in an exit handler: importing
    a dataclass or a named tuple is enough. An `exec()` that raises the exception sets it again.
    """
    error = unhandled()
    if type(error) is KeyboardInterrupt and _has_ended_main(error):
        with suppress(KeyboardInterrupt):
            exec("raise KeyboardInterrupt")  # noqa: S102 - a constant


def _has_ended_main(error: BaseException) -> bool:
    """Return whether nothing called the outermost frame: `code.interact()` sets `last_value` too."""
    traceback = error.__traceback__
    return traceback is not None and traceback.tb_frame.f_back is None
