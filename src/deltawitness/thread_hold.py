"""Keep threads that are in native code from returning to an interpreter that ends.

Before Python 3.14, a thread that returns from native code while the interpreter ends is ended by
`pthread_exit`, which unwinds its stack. Rust, in which delta-rs is written, does not survive that: the
process dies of SIGSEGV. Since 3.14 Python itself lets such a thread hang
(https://docs.python.org/3.14/c-api/threads.html, "Cautions regarding runtime finalization").
"""

from __future__ import annotations

import atexit
import signal
import sys
import threading
import time
from functools import cache
from pathlib import Path

__all__ = ["hold_at_exit", "hold_threads"]

NAMES = frozenset(
    f"deltawitness-{name}"
    for name in ("commits", "delivery", "drain", "export", "flush", "lease", "reader", "scan")
)
"""Names of the library's threads that call engines and exporters."""

SLEEP_TIMEOUT = 1.0
"""Seconds to wait until a thread sleeps, and so holds no lock of the memory allocator."""

POLL = 0.005
"""Seconds between two reads of the state of a thread."""


@cache
def hold_at_exit() -> None:
    """Call :func:`hold_threads` when the process exits.

    Exit handlers that are registered later run before it, and may still use the threads.
    """
    atexit.register(hold_threads)


def hold_threads() -> int:
    """Suspend the library's threads that are in native code; return how many are suspended.

    Call it at the end of the process only: a suspended thread never runs again, and keeps its locks. It
    does nothing on Python 3.14 and later, and on other systems than Linux.
    """
    if sys.version_info >= (3, 14) or sys.platform != "linux":
        return 0
    threads = [each for each in threading.enumerate() if each.name in NAMES and each.daemon]
    return sum(_hold(thread) for thread in threads if _is_in_native_code(thread))


def _is_in_native_code(thread: threading.Thread) -> bool:
    """Return whether a thread may be in native code; a wait for a lock of Python is none."""
    frame = sys._current_frames().get(thread.ident or 0)  # noqa: SLF001 - the documented function
    return frame is not None and frame.f_code.co_filename != threading.__file__


def _hold(thread: threading.Thread) -> bool:
    if sys.platform != "linux":
        return False
    number = _free_signal()
    if number is None or thread.ident is None or not _wait_until_asleep(thread):
        return False
    import ctypes  # noqa: PLC0415 - rarely needed

    libc = ctypes.CDLL(None)
    libc.signal.argtypes = [ctypes.c_int, ctypes.c_void_p]
    # The handler is `pause` itself, so the thread needs no interpreter to wait in it.
    libc.signal(number, ctypes.cast(libc.pause, ctypes.c_void_p))
    try:
        signal.pthread_kill(thread.ident, number)
    except ProcessLookupError:  # it has ended
        return False
    return True


def _free_signal() -> int | None:
    """Return a real-time signal that the program does not use; None if there is none."""
    if sys.platform != "linux":
        return None
    for number in range(signal.SIGRTMAX, signal.SIGRTMIN, -1):
        if signal.getsignal(number) is signal.SIG_DFL:
            return number
    return None


def _wait_until_asleep(thread: threading.Thread) -> bool:
    """Return whether a thread sleeps within the timeout; False also if it ends."""
    deadline = time.monotonic() + SLEEP_TIMEOUT
    status = Path(f"/proc/self/task/{thread.native_id}/stat")
    while thread.is_alive() and time.monotonic() < deadline:
        try:
            # The name of a thread, before the parenthesis, may be cut in the middle of a character.
            state = status.read_bytes().rpartition(b")")[2].split()[0]
        except (OSError, IndexError):
            return False
        if state == b"S":
            return True
        time.sleep(POLL)
    return False
