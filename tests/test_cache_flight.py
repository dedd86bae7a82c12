"""The lock of an entry is held by one thread of one process, and by nobody on its behalf."""

from __future__ import annotations

import fcntl
import os
import threading

import pytest

from deltawitness.cache.entries.locks import entry_lock

pytestmark = pytest.mark.filterwarnings(
    "ignore:This process .* is multi-threaded:DeprecationWarning"
)


def is_held(folder):
    """Tell whether some process holds the lock of an entry."""
    with (folder / "entry.lock").open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def forked(act):
    """Do something in a child, and end it there; return a pipe that it waits at before, and its id."""
    waits, says = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(says)
            os.read(waits, 1)
            status = act()
        finally:
            os._exit(status)
    os.close(waits)
    return says, child


def status_of(says, child):
    """Let a child go on, and return what it ends with."""
    os.close(says)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_whoever_holds_it_may_ask_for_it_again(tmp_path):
    """And holds it until the outermost block is left."""
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


def test_a_child_that_was_born_meanwhile_does_not_hold_it(tmp_path):
    """It lives on when its parent is done, and nobody waits for it; nor does it end what its parent holds."""
    with entry_lock(tmp_path, "entry"):
        ends = forked(lambda: 0)
        at_once = forked(lambda: 7 if is_held(tmp_path) else 0)
        assert status_of(*at_once) == 7
        assert is_held(tmp_path)
    assert not is_held(tmp_path)
    assert status_of(*ends) == 0


def test_a_child_can_hold_it_after_its_parent(tmp_path):
    """Also one that was born in the block, and leaves it as its parent does."""

    def ask():
        with entry_lock(tmp_path, "entry"):
            return 7 if is_held(tmp_path) else 0

    with entry_lock(tmp_path, "entry"):
        asks = forked(ask)
        leaving = os.fork()
    if leaving == 0:
        os._exit(0)
    assert os.waitpid(leaving, 0)[1] == 0
    assert not is_held(tmp_path)
    assert status_of(*asks) == 7
