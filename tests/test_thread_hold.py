"""Threads of the library that are in native code at the end of the process."""

import json
import os
import re
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import deltawitness
from deltawitness.semconv import Env
from deltawitness.thread_hold import NAMES, _wait_until_asleep, hold_threads
from helpers.places import PROGRAMS
from helpers.sizes import cases


@pytest.fixture
def silent_ledger():
    """Variables of a ledger on an object store that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        options = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.getsockname()[1]}",
            "AWS_ACCESS_KEY_ID": "x",
            "AWS_SECRET_ACCESS_KEY": "y",
            "AWS_REGION": "us-east-1",
            "AWS_ALLOW_HTTP": "true",
            "max_retries": "0",
            "timeout": "4s",
        }
        yield {
            Env.ROOT.value: "s3://lake/ledger",
            Env.STORAGE_OPTIONS.value: json.dumps(options),
            Env.SINK_TIMEOUT.value: "0.5",
        }


RUN = ("-m", "deltawitness", "run", "--quiet", "--", sys.executable)


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    "command", cases([(), RUN], [()]), ids=lambda command: "run" if command else "program"
)
def test_a_drain_that_hangs_in_the_engine_leaves_the_exit_code(command, silent_ledger, tmp_path):
    """The engine returns while the interpreter ends, where the thread of the drain cannot go on."""
    program = [str(PROGRAMS / "slow_end.py"), str(tmp_path / "t"), "7"]
    done = subprocess.run(
        [sys.executable, *command, *program],
        cwd=tmp_path,
        env={**os.environ, **silent_ledger},
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert (done.returncode, done.stdout) == (7, "end\n"), done.stderr


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_lease_that_hangs_in_the_engine_leaves_the_exit_code(silent_ledger):
    """A compaction that has not waited for its lease any longer leaves the thread of the lease behind."""
    done = subprocess.run(
        [sys.executable, str(PROGRAMS / "slow_end.py"), "lease", "7"],
        env={**os.environ, **silent_ledger},
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert (done.returncode, done.stdout) == (7, "end\n"), done.stderr


WITHOUT_NATIVE_CODE = {"sigterm", "progress"}
"""Threads of the library that call neither engines nor exporters for longer than a moment."""


def test_each_thread_of_the_library_is_suspended_or_calls_no_engine():
    """A new daemon thread that calls an engine must be in the list, or it can end the process by SIGSEGV."""
    sources = Path(deltawitness.__file__).parent.rglob("*.py")
    named = {
        name
        for path in sources
        for name in re.findall(r'name="(deltawitness-[a-z]+)"', path.read_text("utf-8"))
    }
    assert {f"deltawitness-{name}" for name in WITHOUT_NATIVE_CODE} == named - NAMES
    assert named >= NAMES


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no /proc")
def test_the_name_of_a_thread_may_be_any_bytes():
    """A name that is cut in the middle of a character does not hide the state of the thread."""
    released = threading.Event()
    waiting = threading.Thread(target=released.wait, args=(60,), daemon=True)
    waiting.start()
    Path(f"/proc/self/task/{waiting.native_id}/comm").write_bytes(b"gr\xc3")
    try:
        assert _wait_until_asleep(waiting)
    finally:
        released.set()
        waiting.join(60)


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
