"""Write once with a ledger, print that, and live until the standard input is closed."""

from __future__ import annotations

import sys

import pyarrow as pa
from deltalake import write_deltalake

from deltawitness import DeltaLakeInstrumentor, Settings

if __name__ == "__main__":
    root = sys.argv[1]
    DeltaLakeInstrumentor().instrument(settings=Settings(cache_root=root, drain_interval=0.1))
    write_deltalake(f"{root}-of-another", pa.table({"x": [1]}))
    print("written", flush=True)
    sys.stdin.read()
