"""A process that dies with its disk loses no row: a reconcile of the prefix finds its commits."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from deltawitness import Ledger, Settings
from deltawitness.ids_and_clock import fixed
from deltawitness.ledger.drain.drain import GRACE
from deltawitness.ledger.spool.writer import OPEN
from deltawitness.ledger.tables.schema import INVENTORY
from helpers.ledger_parts import rows_of
from helpers.new_processes import start_process
from programs import ledger_pod

TABLES = ("sales/orders", "sales/eu/items", "audit")
WRITES = 3


@pytest.fixture(params=["local", pytest.param("remote", marks=pytest.mark.slow)])
def lake(request, tmp_path):
    """The prefix of the tables, and the settings of a pod whose spools are on its own disk."""
    spools = {"spool_dir": str(tmp_path / "pod")}
    if request.param == "local":
        return f"{tmp_path}/lake", {"cache_root": f"{tmp_path}/ledger", **spools}
    options = request.getfixturevalue("server").options
    return "s3://lake/pods", {
        "cache_root": "s3://lake/ledger",
        "storage_options": options,
        **spools,
    }


@pytest.mark.slow
def test_a_pod_dies_with_its_disk(lake, tmp_path):
    """Each commit has one row after one reconcile of the prefix, and a second one adds nothing."""
    prefix, settings = lake
    tables = [f"{prefix}/{name}" for name in TABLES]
    pod, done = start_process(ledger_pod.write_and_wait, settings, tables, WRITES)
    assert done.poll(120)
    run_id = done.recv()
    os.kill(pod.pid, signal.SIGKILL)
    pod.join(60)
    segments = list(Path(settings["spool_dir"]).glob(f"**/*{OPEN}"))
    assert len(segments) == 1
    assert segments[0].stat().st_size > 0
    shutil.rmtree(settings["spool_dir"])

    ledger = Ledger(settings=Settings(**settings))
    # Processes on other machines may record the youngest commits of a remote ledger.
    with fixed(clock=lambda: time.time_ns() + int(2 * GRACE * 1e9)):
        plan = ledger.reconcile([prefix])
        assert plan.apply() == len(plan.missing) == len(TABLES) * WRITES
        assert ledger.reconcile([f"{prefix}/**"], full=True).is_clean
    rows = rows_of(ledger.root, INVENTORY, "table_uri, versions, run_id")
    assert {row["run_id"] for row in rows} == {run_id}
    recorded = Counter(
        (row["table_uri"].partition(f"{prefix}/")[2], tuple(row["versions"])) for row in rows
    )
    assert recorded == {(name, (number,)): 1 for name in TABLES for number in range(WRITES)}
    (found,) = ledger.runs().select("run_id", "status", "writes").to_arrow_table().to_pylist()
    assert found == {"run_id": run_id, "status": "reconstructed", "writes": len(recorded)}
