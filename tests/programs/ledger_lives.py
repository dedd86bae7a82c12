"""Programs that end in different ways; the environment configures the ledger.

python ledger_lives.py LIFE TABLE
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading

import pyarrow as pa
from deltalake import write_deltalake

from deltawitness import DeltaLakeInstrumentor, current_run, run

DATA = pa.table({"x": [1, 2]})


def write(count=1):
    for _ in range(count):
        write_deltalake(sys.argv[2], DATA, mode="append")


def implicit():
    """Write outside of any run, and end."""
    write(2)


def nested():
    """Write in nested runs."""
    with run("outer"):
        write()
        with run("inner"):
            write(2)
        with run("inner"):
            write()
            with run("innermost"):
                write()


def raises():
    """Raise an unhandled exception inside a run."""
    with run("failing"):
        write()
        raise LookupError


def raises_outside():
    """Raise an unhandled exception outside of any run."""
    write()
    raise LookupError


def leaves_well():
    """Call `sys.exit(0)` inside a run."""
    with run("leaving"):
        write()
        sys.exit(0)


def leaves_badly():
    """Call `sys.exit(3)` inside a run."""
    with run("leaving"):
        write()
        sys.exit(3)


def disappears():
    """Call `os._exit` inside a run."""
    with run("gone"):
        write(2)
        os._exit(0)


def dies_inside_run():
    """Die inside a run of a signal without a handler."""
    with run("gone"):
        write(2)
        os.kill(os.getpid(), signal.SIGHUP)


def tasks():
    """Write in the runs of interleaved asyncio tasks."""

    async def task(number):
        async with run(f"task-{number}"):
            await asyncio.to_thread(write)
            await asyncio.sleep(0)
            await asyncio.to_thread(write)

    async def together():
        async with run("gathering"):
            write()
            await asyncio.gather(*(task(number) for number in range(3)))

    asyncio.run(together())


def thread():
    """Write in a thread after the main thread has ended."""

    def late():
        threading.main_thread().join()
        with run("late"):
            write(3)

    threading.Thread(target=late).start()


def daemon():
    """End the process while a daemon thread writes."""
    begun = threading.Event()

    def forever():
        with run("endless"):
            while True:
                write()
                begun.set()

    threading.Thread(target=forever, daemon=True).start()
    begun.wait()


def children():
    """Start programs inside a run; they join it."""
    with run("family"):
        write()
        environment = {**os.environ, **current_run().environment()}
        command = [sys.executable, __file__, "implicit", sys.argv[2]]
        for _ in range(2):
            subprocess.run(command, env=environment, check=True)


if __name__ == "__main__":
    DeltaLakeInstrumentor().instrument()
    globals()[sys.argv[1]]()
