"""Forks processes that each write once to one table with a ledger, while they are stopped and go on.

The first write of a process is the delicate one: nobody has heard of it before. Right before it, each
child prints its id.
"""

from __future__ import annotations

import os
import sys

import pyarrow as pa
from deltalake import write_deltalake

from deltawitness import DeltaLakeInstrumentor, Settings
from deltawitness.ledger.drain import drain, maintenance

LOADED = (drain, maintenance)
"""Loaded once, and not in each child."""


def child(root, table):
    """Write once, and leave as a program does that is done."""
    DeltaLakeInstrumentor().instrument(settings=Settings(cache_root=root, drain_interval=0.1))
    rows = pa.table({"x": [1]})
    os.write(1, b"%d\n" % os.getpid())
    write_deltalake(table, rows, mode="append")
    DeltaLakeInstrumentor().uninstrument()
    os._exit(0)


def main(root, table, count):
    """Start one after the other; the engine is loaded here, and used only in them."""
    for _ in range(int(count)):
        pid = os.fork()
        if pid == 0:
            child(root, table)
        if os.waitpid(pid, 0)[1] != 0:
            sys.exit("a child failed")


if __name__ == "__main__":
    main(*sys.argv[1:])
