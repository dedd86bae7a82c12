"""On SIGTERM, flush everything, then end the process by the signal's default action.

Only where the program has left the signal at its default, which ends it at once. Python runs a signal
handler on the main thread, and only after the engine has returned from a write, which may take minutes.
A process must end sooner after SIGTERM. So a separate thread waits for the signal, at the file
descriptor to which Python writes the number of each signal (`signal.set_wakeup_fd`).

Windows has no such signal: a process is ended there without notice, and the next drain imports its spool.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

from deltawitness.forks import register_fork_handlers
from deltawitness.thread_start import start_thread

__all__ = ["SigtermHandler"]


SECOND_SIGNAL_WAIT = 10.0
"""Seconds that a second SIGTERM waits for the first one to end the process."""

PAUSE = 0
"""Byte in the pipe that ends the watching thread: no signal has this number."""

PAUSE_TIMEOUT = 1.0
"""Seconds that a fork waits for the watching thread, which may be in a flush."""


class SigtermHandler:
    """Flushes everything before a SIGTERM ends the process.

    Args:
        flush: flushes everything, in bounded time.
    """

    def __init__(self, flush: Callable[[], object]) -> None:
        self._flush = flush
        self._pipe: tuple[int, int] | None = None
        self._watcher: threading.Thread | None = None
        self._is_installed = False
        self._is_terminating = False
        self._lock = threading.Lock()

    def install(self) -> None:
        """Handle the signal, if this is the main thread and the signal is at its default."""
        if sys.platform == "win32":
            return
        if not _is_main_thread() or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
            return
        self._watch()
        signal.signal(signal.SIGTERM, self._handle)
        self._is_installed = True
        _installed.add(self)

    def uninstall(self) -> None:
        """Restore the signal's default, unless the program has set a handler since."""
        if not self._is_installed or not _is_main_thread():
            return
        if signal.getsignal(signal.SIGTERM) == self._handle:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if self._pipe is not None:
            if (current := signal.set_wakeup_fd(-1)) not in {-1, self._pipe[1]}:
                signal.set_wakeup_fd(current)
            os.close(self._pipe[1])  # the watching thread reads the end
        self._is_installed, self._pipe = False, None
        _installed.discard(self)

    def _watch(self) -> None:
        taken = signal.set_wakeup_fd(-1)
        if taken != -1:
            signal.set_wakeup_fd(taken)  # of an event loop: rely on the Python handler alone
            return
        self._pipe = reading, writing = os.pipe()
        if sys.platform != "win32":
            os.set_blocking(writing, False)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        self._start_watcher(reading)

    def _start_watcher(self, reading: int) -> None:
        self._watcher = threading.Thread(
            target=self._wait, args=(reading,), name="deltawitness-sigterm", daemon=True
        )
        self._watcher.start()

    def _wait(self, reading: int) -> None:
        while numbers := os.read(reading, 64):
            if signal.SIGTERM in numbers and self._is_handling():
                self._terminate()
            if PAUSE in numbers:
                return
        os.close(reading)

    def _is_handling(self) -> bool:
        return self._is_installed and signal.getsignal(signal.SIGTERM) == self._handle

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        # On a thread: the main thread may hold a lock that the flush needs, and it continues meanwhile.
        # Not a daemon: a program that reaches its end meanwhile waits, and is ended by the signal.
        ending = threading.Thread(target=self._terminate, name="deltawitness-sigterm", daemon=False)
        if start_thread(ending):
            return
        # In an exit handler: wait for the thread that watches; without it, end without a flush, for
        # which this thread may hold a lock.
        if self._pipe is None:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)
        threading.Event().wait(SECOND_SIGNAL_WAIT)

    def _terminate(self) -> None:
        with self._lock:
            is_first = not self._is_terminating
            self._is_terminating = True
        if not is_first:
            threading.Event().wait(SECOND_SIGNAL_WAIT)
            return
        with suppress(BaseException):
            self._flush()
        # signal.signal() works on the main thread only, which may be inside the engine: call libc.
        libc = ctypes.CDLL(None)
        libc.signal.argtypes = ctypes.c_int, ctypes.c_void_p
        libc.signal.restype = ctypes.c_void_p
        libc.signal(signal.SIGTERM, None)
        os.kill(os.getpid(), signal.SIGTERM)

    def before_fork(self) -> None:
        """Block the signal: a child that got it during the fork would act as if it were the parent.

        Also ends the watching thread, because a process should fork with no other threads.
        """
        if sys.platform != "win32":
            self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        watcher = self._watcher
        if self._pipe is None or watcher is None or watcher is threading.current_thread():
            return
        with suppress(OSError):  # signals fill the pipe
            os.write(self._pipe[1], bytes([PAUSE]))
            watcher.join(PAUSE_TIMEOUT)

    def after_fork_in_parent(self) -> None:
        """Restore the signal mask, and watch again."""
        if self._pipe is not None and self._watcher is not None and not self._watcher.is_alive():
            with suppress(
                RuntimeError
            ):  # no new threads: the Python handler alone handles the signal
                self._start_watcher(self._pipe[0])
        if sys.platform != "win32":
            signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)

    def after_fork_in_child(self) -> None:
        """Restore the signal's default: other handlers flush what the child has recorded."""
        if self._pipe is not None:
            for descriptor in self._pipe:
                os.close(descriptor)
            self._pipe = None
        if self._is_handling():
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        with suppress(ValueError):  # not the main thread, where a descriptor was never set
            signal.set_wakeup_fd(-1)
        self._is_installed, self._watcher = False, None
        self.after_fork_in_parent()


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


_installed: weakref.WeakSet[SigtermHandler] = weakref.WeakSet()
register_fork_handlers(_installed)
