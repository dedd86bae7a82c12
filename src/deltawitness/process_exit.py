"""The end of a process: exit code of an exception, and death by SIGINT after a KeyboardInterrupt."""

from __future__ import annotations

import signal
from contextlib import suppress

from deltawitness.run import unhandled_error

__all__ = ["Terminated", "cause_of", "exit_code_of", "is_failure", "restore_interrupt"]

_BYTE = 0xFF
_LONGEST = (1 << 63) - 1
"""Maximum of CPython's `long`; for a larger exit code CPython exits with -1."""


class Terminated(BaseException):
    """The error that runs end with when SIGTERM ends their process. It is passed on and never raised."""


def exit_code_of(error: BaseException | None, *, ends_process: bool) -> int | None:
    """Return the exit code that an exception gives its process; None when it determines none.

    Args:
        error: the exception that ended a run; None for a run without an error.
        ends_process: whether the exception ends the process: the run is that of the process, so
            nothing can catch the exception any more.

    Returns:
        The code as the operating system reports it; -N for a process that signal N ends.

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
    """Return whether a run that ended with `error` has failed. `sys.exit()` and `sys.exit(0)` are successes."""
    return error is not None and exit_code_of(error, ends_process=False) != 0


def cause_of(exit_code: int, *, has_run_handlers: bool) -> str | None:
    """Return the error type of a process that failed without a recorded exception; None when unknown.

    Args:
        exit_code: the non-zero exit code as `subprocess` reports it; -N when signal N ended the process.
        has_run_handlers: whether the process ran its exit handlers, which rules out `os._exit()`.

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
    """Make a process that an unhandled KeyboardInterrupt ends die of SIGINT, as without deltawitness.

    CPython sets a flag for an unhandled KeyboardInterrupt and, when the flag is set at the very end,
    kills itself with SIGINT. Every `exec()` of text clears the flag, also in an exit handler, where an
    import of a dataclass or a named tuple calls it. An `exec()` that raises KeyboardInterrupt sets it.
    """
    error = unhandled_error()
    if type(error) is KeyboardInterrupt and _has_ended_main(error):
        with suppress(KeyboardInterrupt):
            exec("raise KeyboardInterrupt")  # noqa: S102 - a constant


def _has_ended_main(error: BaseException) -> bool:
    """Return whether the outermost frame has no caller. `code.interact()` also sets `sys.last_value`."""
    traceback = error.__traceback__
    return traceback is not None and traceback.tb_frame.f_back is None
