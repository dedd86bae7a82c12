"""A function is called for several items at the same time, also where no thread can be started."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from deltawitness.thread_map import map_in_threads


def test_items_are_done_at_the_same_time():
    """Each item waits until all others have begun."""
    barrier = threading.Barrier(3, timeout=30)

    def act(item):
        barrier.wait()
        return item * 2

    assert map_in_threads(act, [1, 2, 3], 3) == [2, 4, 6]


def test_the_limit_includes_the_callers_thread():
    """With a limit of one, everything runs on the caller's thread."""
    assert set(map_in_threads(lambda _: threading.get_ident(), [1, 2, 3], 1)) == {
        threading.get_ident()
    }


def test_no_items():
    """Nothing is called."""
    assert map_in_threads(pytest.fail, [], 4) == []


def test_the_first_error_is_raised_after_all_items_are_done():
    """The errors of the other items are dropped."""
    done = []

    def act(item):
        done.append(item)
        if item % 2:
            raise ValueError(item)

    with pytest.raises(ValueError, match="1"):
        map_in_threads(act, [0, 1, 2, 3], 2)
    assert sorted(done) == [0, 1, 2, 3]


def test_exit_handlers_can_call_it():
    """`concurrent.futures` runs nothing at that time."""
    program = (
        "import atexit\n"
        "from deltawitness.thread_map import map_in_threads\n"
        "atexit.register(lambda: print(map_in_threads(len, ['a', 'bc', 'def'], 3)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "[1, 2, 3]\n", "")
