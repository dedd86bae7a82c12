"""The command line folds, serves and expires a ledger."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from deltawitness.ledger.ledger import Ledger
from deltawitness.ledger.spool.host import live_segments
from deltawitness.ledger.tables.schema import INVENTORY, RUNS, LedgerRoot
from helpers.ledger_commands import error_of, invoke, json_of
from helpers.ledger_parts import operation_row, sealed_rows, spool_in, write_ids

DAY = 86_400_000_000
"""Microseconds."""


@pytest.fixture
def root(tmp_path):
    return LedgerRoot(str(tmp_path / "cache"))


@pytest.fixture
def spool(root):
    """Return a function that leaves a spool with a row."""

    def leave(write_id, shard=None, days=0):
        row = operation_row(write_id)
        row["event_time"] -= days * DAY
        spool = spool_in(Ledger(root.uri).spools, shard=shard)
        sealed_rows(spool, row)
        spool.close()

    return leave


@pytest.mark.slow
def test_fold_moves_rows_to_the_main_tables(root, spool):
    """It shows the rows by shard and table; a second one has nothing to do."""
    spool("w-1", "team-a")
    assert invoke("drain", "--root", root.uri).exit_code == 0
    listed = json_of("writes", "--root", root.uri)
    assert [row["write_id"] for row in listed] == ["w-1"]
    done = invoke("ledger", "fold", "--root", root.uri)
    assert (done.exit_code, "team-a" in done.stdout, INVENTORY.name in done.stdout) == (
        0,
        True,
        True,
    )
    assert write_ids(root, INVENTORY) == ["w-1"]
    assert invoke("ledger", "fold", "--root", root.uri).stdout == "no rows to fold\n"
    assert json_of("ledger", "fold", "--root", root.uri) == []


@pytest.mark.slow
@pytest.mark.internal_errors
def test_a_shard_that_cannot_be_folded_sets_the_exit_code(root, spool):
    """The other shards are folded."""
    spool("w-1", "a")
    spool("w-2", "b")
    assert invoke("drain", "--root", root.uri).exit_code == 0
    for file in Path(root.of_shard("a").uri_of(INVENTORY)).glob("event_date=*/*.parquet"):
        file.write_bytes(b"damaged")
    folded = json_of("ledger", "fold", "--root", root.uri, code=1)
    assert {(done["shard"], done["error"] is None) for done in folded} == {
        ("a", False),
        ("b", True),
    }
    assert write_ids(root, INVENTORY) == ["w-2"]


@pytest.mark.slow
def test_expire_counts_without_apply(root, spool):
    """With `--apply` it deletes the rows."""
    spool("w-1", days=500)
    spool("w-2")
    assert invoke("drain", "--root", root.uri).exit_code == 0
    shown = invoke("ledger", "expire", "--older-than", "400d", "--root", root.uri)
    assert (shown.exit_code, "--apply" in shown.stdout) == (0, True)
    (done,) = json_of("ledger", "expire", "--older-than", "400d", "--apply", "--root", root.uri)
    assert (done["rows"], done["expired"], done["is_done"]) == (2, 1, True)
    assert write_ids(root, INVENTORY) == ["w-2"]
    assert RUNS.name != done["table"]


def test_expire_refuses_a_short_age(root, spool):
    """The message names the option."""
    spool("w-1")
    invoke("drain", "--root", root.uri)
    done = invoke("ledger", "expire", "--older-than", "7d", "--root", root.uri)
    assert (done.exit_code, "at least 31 days" in done.stderr) == (2, True)


def test_fold_without_a_ledger_is_an_error(root):
    """The message says how to choose its location."""
    assert "there is no ledger" in error_of("ledger", "fold", "--root", root.uri)


@pytest.mark.slow
def test_serve_imports_spools_until_sigterm(root):
    """It drains a live process, and prints what it has imported when it ends."""
    live = spool_in(Ledger(root.uri).spools)
    sealed_rows(live, operation_row("w-1"))
    assert len(live_segments(live.folder)) == 1
    command = [sys.executable, "-m", "deltawitness", "ledger", "serve", "--interval", "0.05s"]
    with subprocess.Popen(
        [*command, "--json", "--root", root.uri],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as server:
        try:
            while live_segments(live.folder):
                assert server.poll() is None
            server.send_signal(signal.SIGTERM)
            output, errors = server.communicate(timeout=60)
        finally:
            server.kill()
    assert (server.returncode, errors) == (0, "")
    served = json.loads(output)
    assert (served["drained"]["operations"], served["failures"]) == (1, 0)
    assert write_ids(root, INVENTORY) == ["w-1"]
