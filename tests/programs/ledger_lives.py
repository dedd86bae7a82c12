"""Programs that end in every way that there is; the ledger is kept where the environment says.

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
    """Runs inside of runs, each with writes of its own."""
    with run("outer"):
        write()
        with run("inner"):
            write(2)
        with run("inner"):
            write()
            with run("innermost"):
                write()


def raises():
    """An error that nobody handles, in the middle of a run."""
    with run("failing"):
        write()
        raise LookupError


def raises_outside():
    """An error that nobody handles, outside of any run."""
    write()
    raise LookupError


def leaves_well():
    """Leave by exit, as one that has succeeded."""
    with run("leaving"):
        write()
        sys.exit(0)


def leaves_badly():
    """Leave by exit, as one that has failed."""
    with run("leaving"):
        write()
        sys.exit(3)


def disappears():
    """End at once, with a run open."""
    with run("gone"):
        write(2)
        os._exit(0)


def dies_inside_run():
    """Die by a signal whose default is to end the process, and that nobody tells of."""
    with run("gone"):
        write(2)
        os.kill(os.getpid(), signal.SIGHUP)


def tasks():
    """Runs of tasks that take turns on one thread."""

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
    """The main thread is done while another one still writes."""

    def late():
        threading.main_thread().join()
        with run("late"):
            write(3)

    threading.Thread(target=late).start()


def daemon():
    """The process ends while a thread that nobody waits for is in the middle of its writes."""
    begun = threading.Event()

    def forever():
        with run("endless"):
            while True:
                write()
                begun.set()

    threading.Thread(target=forever, daemon=True).start()
    begun.wait()


def children():
    """Programs that are started in a run take part in it."""
    with run("family"):
        write()
        environment = {**os.environ, **current_run().environment()}
        command = [sys.executable, __file__, "implicit", sys.argv[2]]
        for _ in range(2):
            subprocess.run(command, env=environment, check=True)


if __name__ == "__main__":
    DeltaLakeInstrumentor().instrument()
    globals()[sys.argv[1]]()
