"""Fork processes that each write once to one table with a ledger, for a test that stops them.

Before its first write, a process has no spool that others could see. Right before it, each child
prints its process id.
"""

from __future__ import annotations

import os
import sys

import pyarrow as pa
from deltalake import write_deltalake

from deltawitness import DeltaLakeInstrumentor, Settings
from deltawitness.ledger.drain import drain, maintenance

LOADED = (drain, maintenance)
"""Imported once in the parent, not in each child."""


def child(root, table):
    """Write once, and exit like a finished program."""
    DeltaLakeInstrumentor().instrument(settings=Settings(cache_root=root, drain_interval=0.1))
    rows = pa.table({"x": [1]})
    os.write(1, b"%d\n" % os.getpid())
    write_deltalake(table, rows, mode="append")
    DeltaLakeInstrumentor().uninstrument()
    os._exit(0)


def main(root, table, count):
    """Start the children one after the other; the engine is imported here and used only in them."""
    for _ in range(int(count)):
        pid = os.fork()
        if pid == 0:
            child(root, table)
        if os.waitpid(pid, 0)[1] != 0:
            sys.exit("a child failed")


if __name__ == "__main__":
    main(*sys.argv[1:])
