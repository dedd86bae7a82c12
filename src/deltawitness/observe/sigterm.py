"""SIGTERM: have everything told, then die of it as the program would have.

Only where the program left the signal to its default, which ends it at once. Python runs a handler on
the main thread, and not before the engine returns from a write that may take minutes; a program that
is told to go must not stay for that. So a thread of its own waits for the signal, through the file
descriptor that Python writes each signal's number to.
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

__all__ = ["SigtermHandler"]


LONGEST_GOING = 10.0
"""Seconds after which a process that is told to go is taken to stay."""


class SigtermHandler:
    """Tells everything before a SIGTERM ends the process.

    Args:
        tell: tells it, in the time that one may take to go.
    """

    def __init__(self, tell: Callable[[], object]) -> None:
        self._tell = tell
        self._pipe: tuple[int, int] | None = None
        self._is_installed = False
        self._is_going = False
        self._lock = threading.Lock()

    def install(self) -> None:
        """Wait for the signal, where this is the main thread and nobody else does."""
        if not _is_main_thread() or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
            return
        self._watch()
        signal.signal(signal.SIGTERM, self._handle)
        self._is_installed = True
        _installed.add(self)

    def uninstall(self) -> None:
        """Leave the signal to its default again, unless somebody else has taken it."""
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
            signal.set_wakeup_fd(taken)  # an event loop's: the handler alone must do
            return
        self._pipe = reading, writing = os.pipe()
        os.set_blocking(writing, False)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        threading.Thread(
            target=self._wait, args=(reading,), name="deltawitness-sigterm", daemon=True
        ).start()

    def _wait(self, reading: int) -> None:
        while numbers := os.read(reading, 64):
            if signal.SIGTERM in numbers and self._is_ours():
                self._go()
        os.close(reading)

    def _is_ours(self) -> bool:
        return self._is_installed and signal.getsignal(signal.SIGTERM) == self._handle

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        # On a thread: the main one may hold a lock that telling needs, and goes on meanwhile. No
        # daemon: a program that comes to its end in the meantime waits, and dies of the signal.
        threading.Thread(target=self._go, name="deltawitness-sigterm", daemon=False).start()

    def _go(self) -> None:
        with self._lock:
            is_first = not self._is_going
            self._is_going = True
        if not is_first:
            threading.Event().wait(LONGEST_GOING)
            return
        with suppress(BaseException):
            self._tell()
        # Python lets only the main thread do this, and that is at work.
        libc = ctypes.CDLL(None)
        libc.signal.argtypes = ctypes.c_int, ctypes.c_void_p
        libc.signal.restype = ctypes.c_void_p
        libc.signal(signal.SIGTERM, None)
        os.kill(os.getpid(), signal.SIGTERM)

    def before_fork(self) -> None:
        """Hold the signal back: a child that had it now would still be taken for its parent."""
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

    def after_fork_in_parent(self) -> None:
        """Let it come."""
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)

    def after_fork_in_child(self) -> None:
        """Leave the signal to its default: what the child tells is told by others."""
        if self._pipe is not None:
            for descriptor in self._pipe:
                os.close(descriptor)
            self._pipe = None
        if self._is_ours():
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        with suppress(ValueError):  # not the main thread, where a descriptor was never set
            signal.set_wakeup_fd(-1)
        self._is_installed = False
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


_installed: weakref.WeakSet[SigtermHandler] = weakref.WeakSet()


def _for_each(act: Callable[[SigtermHandler], None]) -> Callable[[], None]:
    def each() -> None:
        for termination in list(_installed):
            act(termination)

    return each


os.register_at_fork(
    before=_for_each(SigtermHandler.before_fork),
    after_in_parent=_for_each(SigtermHandler.after_fork_in_parent),
    after_in_child=_for_each(SigtermHandler.after_fork_in_child),
)
