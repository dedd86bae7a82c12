"""A program that uses deltawitness, forks, and prints the results of its children's writes.

Arguments: the work before the fork, the kind of fork, a folder, and `bare` to omit deltawitness. The
program itself does not use delta-rs before the fork, unless the kind of work says so.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import pyarrow as pa
from deltalake import write_deltalake

FORK = multiprocessing.get_context("fork")

IS_BARE = sys.argv[4:] == ["bare"]
FOLDER = Path(sys.argv[3])
ROWS = pa.table({"x": [1]})


# --- what a child does -------------------------------------------------------------------------------


def write(name):
    """Append a row to a table; return `written`, or the class name of the error."""
    try:
        write_deltalake(FOLDER / "lake" / name, ROWS, mode="append")
    except BaseException as error:  # noqa: BLE001 - an engine that panics raises no Exception
        return type(error).__name__
    return "written"


def write_many(name):
    return [write(name) for _ in range(3) if time.sleep(0.3) is None]


def forked(act):
    """Return the result of a function in a forked child that exits at once."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        os.write(writing, json.dumps(act()).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        text = answer.read()
    _, status = os.waitpid(child, 0)
    return json.loads(text) if status == 0 else f"ended with {os.waitstatus_to_exitcode(status)}"


# --- how the program forks ---------------------------------------------------------------------------


def fork():
    return [forked(lambda name=name: write(name)) for name in ("a", "b")]


def pool():
    with FORK.Pool(2) as workers:
        return workers.map(write, ["a", "b", "c"], chunksize=1)


def pools():
    """Open a run for each of several pools, as a program with daily runs does."""
    written = []
    for day in ("mon", "tue"):
        with in_run(day):
            written += pool()
    return written


def _inner_pool(results):
    with ProcessPoolExecutor(2, mp_context=FORK) as workers:
        results.put(list(workers.map(write, ["a", "b"])))


def nested():
    results = FORK.Queue()
    child = FORK.Process(target=_inner_pool, args=(results,))
    child.start()
    written = results.get(timeout=60)
    child.join()
    return written


def _serve(name, results):
    results.put(write_many(name))


def prefork():
    """Fork long-lived children next to a parent that opens and closes runs."""
    results = FORK.Queue()
    children = [FORK.Process(target=_serve, args=(name, results)) for name in ("a", "b")]
    for child in children:
        child.start()
    for day in ("mon", "tue"):
        with in_run(day):
            time.sleep(1.1)
    written = [results.get(timeout=60) for _ in children]
    for child in children:
        child.join()
    return written


def threads():
    """Fork on a thread repeatedly, while the main thread ends runs."""
    written = []
    thread = threading.Thread(target=lambda: written.extend(fork() + fork() + fork()))
    thread.start()
    for day in ("mon", "tue"):
        with in_run(day):
            time.sleep(1.1)
    thread.join()
    return written


def waiting():
    """Wait for any child, as a simple server does."""
    left = set()
    for name in ("a", "b"):
        with in_run(name):
            child = os.fork()
            if child == 0:
                time.sleep(5)  # so that drains start by the interval
                os._exit(write(name) != "written")
            left.add(child)
            export(name)
            time.sleep(0.3)
            export(name)
    codes = []
    while left:
        child, status = os.wait()
        left.remove(child)
        codes.append(status)
    return codes


def shell():
    """Write in programs that a shell starts."""
    code = "import sys; sys.argv[1:] = ['', '', sys.argv[1]]; import forking; print(forking.write(sys.argv[3][-1:]))"
    here = Path(__file__).parent
    command = f"cd {here} && {sys.executable} -c {code!r} {FOLDER}"
    return [subprocess.getoutput(command)]


# --- what happens before -----------------------------------------------------------------------------


def in_run(job):
    if IS_BARE:
        return nullcontext()
    from deltawitness import run

    return run(job)


def instrument(**settings):
    if IS_BARE or os.environ.get("DELTAWITNESS_ACTIVATE"):
        return
    from deltawitness import DeltaLakeInstrumentor, Settings

    DeltaLakeInstrumentor().instrument(
        settings=Settings(cache_root=str(FOLDER / "cache"), **settings)
    )


def export(name):
    from datafusion import SessionContext

    if not IS_BARE:
        from deltawitness import DataFusionInstrumentor

        DataFusionInstrumentor().instrument()
    SessionContext().from_pydict({"x": [1]}).write_parquet(str(FOLDER / "files" / name))


def instrumented():
    instrument()


def run_ended():
    instrument()
    with in_run("before"):
        pass


def run_open():
    instrument()
    in_run("before").__enter__()


def exported():
    instrument()
    export("e")
    flushed()


def exported_in_run():
    instrument()
    with in_run("before"):
        export("e")


def drained_between_exports():
    """Drain after a number of operations and after an interval, each time in a helper process."""
    instrument(drain_events=1, drain_interval=0.2)
    for number in range(3):
        export(f"e{number}")
        time.sleep(1.5)
    if not IS_BARE:
        from deltawitness.observe import current_observer

        assert (FOLDER / "cache/cache_ledgers/cache_inventory_v1").is_dir()
        assert current_observer().recorder.pending < 3


def spool_of_dead_process():
    """Create the spool of a dead process, which the end of a run drains."""
    instrument()
    with in_run("before"):
        write_in_child = forked(lambda: write("dead"))
    assert write_in_child == "written"


def session():
    instrument()
    if IS_BARE:
        from datafusion import SessionContext
    else:
        from deltawitness import ObservedSessionContext as SessionContext

        with in_run("before"):
            SessionContext()
    SessionContext().sql("SELECT 1").collect()


def hashed():
    instrument()
    from datafusion import SessionContext

    frame = SessionContext().from_pydict({"x": [1]})
    if not IS_BARE:
        from deltawitness import history, plan_hash, read_commit_metadata, schema_hash

        schema_hash(frame)
        plan_hash(frame)
        table = os.environ["TABLE"]
        read_commit_metadata(table, 0)
        list(history(table))


def cache_opened():
    """Open a cache without reading from it."""
    instrument()
    from datafusion import SessionContext

    ctx = SessionContext()
    if not IS_BARE:
        from deltawitness import DeltaCache

        with in_run("before"):
            DeltaCache(ctx, FOLDER / "cache")


def uninstrumented():
    instrument()
    with in_run("before"):
        export("e")
    if not IS_BARE:
        from deltawitness import DeltaLakeInstrumentor

        DeltaLakeInstrumentor().uninstrument()


def instrumented_twice():
    uninstrumented()
    instrument()
    with in_run("again"):
        export("e2")


def flushed():
    if not IS_BARE:
        from deltawitness import flush

        flush()


# Here the program itself has used delta-rs, so its children cannot, with or without deltawitness.


def used_by_program():
    instrument()
    assert write("own") == "written"
    flushed()


def used_in_run():
    instrument()
    with in_run("before"):
        assert write("own") == "written"


def used_after_helper():
    """Drain in a helper first, then write and drain in the program itself."""
    instrument()
    with in_run("before"):
        export("e")
    with in_run("then"):
        assert write("own") == "written"
        time.sleep(1.1)


def ledger_read():
    """Read the ledger, which uses delta-rs in the program."""
    run_ended()
    if IS_BARE:
        used_by_program()
    else:
        from deltawitness import Ledger

        assert Ledger(FOLDER / "cache").runs().count() == 1


def main():
    way, kind = sys.argv[1:3]
    globals()[way]()
    print(json.dumps(globals()[kind]()))
    sys.stdout.flush()
    if way == "exported":  # the parent is ended by SIGTERM right after the export
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(30)


if __name__ == "__main__":
    main()
