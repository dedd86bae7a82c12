"""Start threads where Python may refuse to: since 3.12 it starts none while the interpreter shuts down.

Exit handlers run during the shutdown: there, the caller does the work of the thread itself.
"""

from __future__ import annotations

import threading

__all__ = ["start_thread"]


def start_thread(thread: threading.Thread) -> bool:
    """Start a thread; return False if the interpreter is shutting down and starts no more threads.

    Args:
        thread: a thread that has not been started.

    Raises:
        RuntimeError: the thread cannot be started for another reason, such as a limit of the system.
    """
    try:
        thread.start()
    except RuntimeError as error:
        # PythonFinalizationError since 3.13, a plain RuntimeError before.
        if "shutdown" not in str(error):
            raise
        return False
    return True
