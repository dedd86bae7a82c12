"""Wait for a thread that works, however slowly, and not for one that hangs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

__all__ = ["wait_while_working"]

POLL = 0.25
"""Seconds between two checks of whether the process makes progress."""

PROGRESS_SHARE = 0.002
"""Share of the timeout that is progress if the process uses it as CPU time. A thread that waits for a storage
uses less, and one that computes uses more, also on a machine without free CPU time."""


def wait_while_working(
    thread: threading.Thread,
    *,
    timeout: float,
    longest: float,
    cpu_time: Callable[[], float] = time.process_time,
) -> bool:
    """Wait until a thread ends, or until the process makes no progress; return whether the thread has ended.

    Args:
        thread: a thread that was started.
        timeout: seconds without progress after which it is no longer waited for.
        longest: seconds after which it is no longer waited for in any case.
        cpu_time: returns the seconds of CPU time that the process has used.
    """
    started = moved_at = time.monotonic()
    used, progress = cpu_time(), timeout * PROGRESS_SHARE
    poll = min(POLL, timeout / 4)
    while thread.is_alive():
        thread.join(poll)
        now, used_now = time.monotonic(), cpu_time()
        if used_now - used >= progress:
            moved_at, used = now, used_now
        if now - moved_at >= timeout or now - started >= longest:
            break
    return not thread.is_alive()
