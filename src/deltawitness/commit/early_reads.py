"""Start reads of remote commits before their results are needed, so that several take the time of one.

A read runs on a background thread, or on the thread that needs its result if no background thread has
begun it. So a read is never lost: not while the interpreter shuts down and starts no threads, and not
beyond :data:`MAX_THREADS`.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeAlias

from deltawitness.thread_hold import hold_at_exit
from deltawitness.thread_start import start_thread

__all__ = ["EarlyReads", "current_early_reads", "early_reads", "forget_early_reads"]

MAX_THREADS = 16
"""Maximum number of background threads of one block."""

ReadKey: TypeAlias = tuple[str, int]
"""Location and version of a commit."""

ReadContent: TypeAlias = Callable[[], bytes | None]


class _Read:
    """One read, which one thread runs."""

    __slots__ = ("_content", "_error", "_is_claimed", "_is_done", "_pid", "_read")

    def __init__(self, read: ReadContent) -> None:
        self._read = read
        self._is_claimed = threading.Lock()
        self._is_done = threading.Event()
        self._content: bytes | None = None
        self._error: BaseException | None = None
        self._pid = os.getpid()

    def run(self) -> None:
        """Read, unless a thread has begun to."""
        if not self._is_claimed.acquire(blocking=False):
            return
        try:
            self._content = self._read()
        except BaseException as error:  # noqa: BLE001 - raised again where the result is needed
            self._error = error
        finally:
            self._is_done.set()

    def result(self) -> bytes | None:
        """Return the content; wait for it if a background thread reads.

        Raises:
            OSError: the storage cannot be read.
        """
        if os.getpid() != self._pid:
            return self._read()  # a forked child does not have the thread that may have begun
        self.run()
        self._is_done.wait()
        if self._error is not None:
            raise self._error
        return self._content

    def cancel(self) -> None:
        """Do not read if no thread has begun to, otherwise wait for the end of the read."""
        if os.getpid() == self._pid and not self._is_claimed.acquire(blocking=False):
            self._is_done.wait()


class EarlyReads:
    """The reads that were started in one block.

    Args:
        parent: the reads of the surrounding block.
    """

    def __init__(self, parent: EarlyReads | None = None) -> None:
        self.parent = parent
        self._reads: dict[ReadKey, _Read] = {}
        self._queue: deque[_Read] = deque()
        self._threads: list[threading.Thread] = []

    def start(self, key: ReadKey, read: ReadContent) -> None:
        """Start a read, unless one of this commit was started and its result not taken.

        Args:
            key: the commit.
            read: reads it, on any thread.
        """
        if key in self._reads:
            return
        self._reads[key] = started = _Read(read)
        self._queue.append(started)
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        if len(self._threads) < MAX_THREADS:
            self._start_thread()

    def _start_thread(self) -> None:
        hold_at_exit()
        thread = threading.Thread(target=self._work, name="deltawitness-commits", daemon=True)
        try:
            is_started = start_thread(thread)
        except RuntimeError:  # a limit of the system: the caller reads
            return
        if is_started:
            self._threads.append(thread)

    def _work(self) -> None:
        while self._queue:
            try:
                read = self._queue.popleft()
            except IndexError:  # another thread was faster
                return
            read.run()

    def take(self, key: ReadKey) -> ReadContent | None:
        """Return a function that returns the result of a started read, once; None without one."""
        read = self._reads.pop(key, None)
        return None if read is None else read.result

    def clear(self) -> None:
        """Drop all reads whose results were not taken, without waiting."""
        self._queue.clear()
        self._reads.clear()

    def cancel(self) -> None:
        """Drop all reads whose results were not taken; wait for those that threads have begun."""
        reads = list(self._reads.values())
        self.clear()
        for read in reads:
            read.cancel()


_current: ContextVar[EarlyReads | None] = ContextVar("deltawitness_early_reads", default=None)


def current_early_reads() -> EarlyReads | None:
    """Return the reads of the innermost block; None outside of any."""
    return _current.get()


@contextmanager
def early_reads() -> Iterator[EarlyReads]:
    """Take reads that are started in the block from the block, each result once.

    A result is as old as its start. So a block covers one check of the current state, and a block inside
    it uses its own reads only.
    """
    reads = EarlyReads(_current.get())
    token = _current.set(reads)
    try:
        yield reads
        reads.cancel()
    finally:
        _current.reset(token)


def forget_early_reads() -> None:
    """Drop the started reads of all surrounding blocks, because what follows takes long or writes."""
    reads = _current.get()
    while reads is not None:
        reads.clear()
        reads = reads.parent
