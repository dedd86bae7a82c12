"""Many writers in each mode: no write fails because of the ledger, and each has one row."""

from __future__ import annotations

import threading
from collections import Counter

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from deltawitness import Ledger, Settings
from deltawitness.ledger.tables.schema import INVENTORY
from deltawitness.ledger.tables.shards import shard_names
from helpers.ledger_parts import write_ids
from helpers.new_processes import run_in_processes
from programs import ledger_crowd

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("mode", ["direct", "shard", "forward"])
def test_a_crowd_has_each_row_once(server, tmp_path, size, say, mode):
    """The tables and the ledger are on an object store; a server drains in the mode `forward`."""
    processes, writes, count = size((4, 6, 4), (32, 100, 16), (3, 3, 2))
    base = f"s3://lake/many-{mode}"
    settings = {
        "cache_root": f"{base}/cache",
        "storage_options": server.options,
        "spool_dir": str(tmp_path / "spool"),
        "drain_interval": 0.5,
        "ledger_mode": mode,
    }
    tables = [f"{base}/t{number}" for number in range(count)]
    for table in tables:
        write_deltalake(table, pa.table({"x": [0]}), storage_options=server.options)
    ledger, stop = Ledger(settings=Settings(**settings)), threading.Event()
    receiver = threading.Thread(target=ledger.serve, args=(stop,))
    if mode == "forward":
        receiver.start()
    results = run_in_processes(
        ledger_crowd.write_many,
        [
            (
                settings | ({"ledger_shard": f"s{number % 2}"} if mode == "shard" else {}),
                tables,
                server.options,
                range(number, number + writes),
            )
            for number in range(processes)
        ],
    )
    stop.set()
    if mode == "forward":
        receiver.join()
    assert results == [(writes, [], {})] * processes
    left = ledger.drain()
    seen = ledger.query("SELECT write_id FROM inventory")["write_id"].to_pylist()
    assert len(set(seen)) == len(seen) == processes * writes
    assert shard_names(ledger.root) == (["s0", "s1"] if mode == "shard" else [])
    assert [done.error for done in ledger.fold() if done.error] == []
    assert Counter(write_ids(ledger.root, INVENTORY)) == Counter(seen)
    runs = ledger.query("SELECT writes FROM runs WHERE job = 'crowd'")["writes"].to_pylist()
    assert runs == [writes] * processes
    version = ledger.root.open_table(INVENTORY).version()
    say(
        f"many writers: {mode}, {processes} processes x {writes} writes: {len(seen)} rows,"
        f" version {version} of the inventory, {left.adopted} spools left to the next drain"
    )
