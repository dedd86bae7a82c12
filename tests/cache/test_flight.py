"""The lock of an entry is held by one thread of one process, and never by a forked child."""

from __future__ import annotations

import fcntl
import os
import threading

import pytest

from deltawitness.cache.entries import locks
from deltawitness.cache.entries.locks import entry_lock

pytestmark = pytest.mark.filterwarnings(
    "ignore:This process .* is multi-threaded:DeprecationWarning"
)


def is_held(folder):
    """Return whether some process holds the lock of an entry."""
    with (folder / "entry.lock").open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def forked(act):
    """Fork a child that waits for a pipe, runs `act` and exits; return the pipe and the child's id."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(write_end)
            os.read(read_end, 1)
            status = act()
        finally:
            os._exit(status)
    os.close(read_end)
    return write_end, child


def status_of(write_end, child):
    """Close the pipe so that the child continues, and return its exit code."""
    os.close(write_end)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_the_lock_is_reentrant(tmp_path):
    """The lock is re-entrant for its holder, and is held until the outermost block ends."""
    seen = []

    def ask():
        with entry_lock(tmp_path, "entry"):
            with entry_lock(tmp_path, "entry"):
                seen.append(is_held(tmp_path))
            seen.append(is_held(tmp_path))
        seen.append(is_held(tmp_path))

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(30)
    assert seen == [True, True, False]


def test_a_forked_child_does_not_hold_the_lock(tmp_path):
    """A child forked while the lock is held neither keeps it after the parent nor releases it for the parent."""
    with entry_lock(tmp_path, "entry"):
        ends = forked(lambda: 0)
        at_once = forked(lambda: 7 if is_held(tmp_path) else 0)
        assert status_of(*at_once) == 7
        assert is_held(tmp_path)
    assert not is_held(tmp_path)
    assert status_of(*ends) == 0


def test_a_forked_child_can_take_the_lock_after_its_parent(tmp_path):
    """A child can take the lock after its parent, also if it was forked inside the block."""

    def ask():
        with entry_lock(tmp_path, "entry"):
            return 7 if is_held(tmp_path) else 0

    with entry_lock(tmp_path, "entry"):
        waiting = forked(ask)
        leaving = os.fork()
    if leaving == 0:
        os._exit(0)
    assert os.waitpid(leaving, 0)[1] == 0
    assert not is_held(tmp_path)
    assert status_of(*waiting) == 7


def test_a_lock_that_nobody_holds_takes_no_memory(tmp_path):
    """A service may lock an entry for each day of its life; its holder may lock it again inside."""
    for number in range(3):
        with (
            entry_lock(tmp_path, f"day-{number}") as is_first,
            entry_lock(tmp_path, f"day-{number}") as again,
        ):
            assert (is_first, again) == (True, False)
    assert locks._locks._locks_by_key == {}
