"""Threads of the library that are in native code at the end of the process."""

import subprocess
import sys
import threading

import pytest

from deltawitness.thread_hold import NAMES, hold_threads
from helpers.places import PROGRAMS


@pytest.mark.slow
@pytest.mark.parametrize("code", [0, 7])
@pytest.mark.parametrize(
    "command", [[], ["-m", "deltawitness", "run", "--quiet", "--no-ledger", "--"]]
)
def test_a_drain_that_hangs_in_the_engine_leaves_the_exit_code(command, code, tmp_path):
    """The engine returns while the interpreter ends, where the thread of the drain cannot go on."""
    program = [sys.executable, str(PROGRAMS / "silent_ledger.py"), str(tmp_path / "t"), str(code)]
    done = subprocess.run(
        [sys.executable, *command, *program] if command else program,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (code, "end\n"), done.stderr


def test_a_thread_that_waits_in_python_is_not_suspended():
    """It holds locks of Python, which exit handlers may need, and cannot be in an engine."""
    released = threading.Event()
    name = min(NAMES)
    waiting = threading.Thread(target=released.wait, args=(60,), name=name, daemon=True)
    waiting.start()
    assert hold_threads() == 0
    released.set()
    waiting.join(60)
    assert not waiting.is_alive()
