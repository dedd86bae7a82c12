"""On SIGTERM, flush everything, then end the process by the signal's default action.

Only where the program has left the signal at its default, which ends it at once. Python runs a signal
handler on the main thread, and only after the engine has returned from a write, which may take minutes.
A process must end sooner after SIGTERM. So a separate thread waits for the signal, at the file
descriptor to which Python writes the number of each signal (`signal.set_wakeup_fd`).
"""

from __future__ import annotations

import ctypes
import os
import signal
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

from deltawitness.forks import register_fork_handlers

__all__ = ["SigtermHandler"]


SECOND_SIGNAL_WAIT = 10.0
"""Seconds that a second SIGTERM waits for the first one to end the process."""


class SigtermHandler:
    """Flushes everything before a SIGTERM ends the process.

    Args:
        flush: flushes everything, in bounded time.
    """

    def __init__(self, flush: Callable[[], object]) -> None:
        self._flush = flush
        self._pipe: tuple[int, int] | None = None
        self._is_installed = False
        self._is_terminating = False
        self._lock = threading.Lock()

    def install(self) -> None:
        """Handle the signal, if this is the main thread and the signal is at its default."""
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
        os.set_blocking(writing, False)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        threading.Thread(
            target=self._wait, args=(reading,), name="deltawitness-sigterm", daemon=True
        ).start()

    def _wait(self, reading: int) -> None:
        while numbers := os.read(reading, 64):
            if signal.SIGTERM in numbers and self._is_handling():
                self._terminate()
        os.close(reading)

    def _is_handling(self) -> bool:
        return self._is_installed and signal.getsignal(signal.SIGTERM) == self._handle

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        # On a thread: the main thread may hold a lock that the flush needs, and it continues meanwhile.
        # Not a daemon: a program that reaches its end meanwhile waits, and is ended by the signal.
        threading.Thread(target=self._terminate, name="deltawitness-sigterm", daemon=False).start()

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
        """Block the signal: a child that got it during the fork would act as if it were the parent."""
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

    def after_fork_in_parent(self) -> None:
        """Restore the signal mask."""
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
        self._is_installed = False
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


_installed: weakref.WeakSet[SigtermHandler] = weakref.WeakSet()
register_fork_handlers(_installed)
