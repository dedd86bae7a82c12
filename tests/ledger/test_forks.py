"""A forked child records in its own spool, and leaves its parent's spool unchanged."""

from __future__ import annotations

import pytest

from deltawitness import Ledger
from deltawitness.ledger.tables.schema import RUNS
from helpers.ledger_parts import rows_of
from helpers.ledger_truth import (
    assert_recorded_at_most_once,
    assert_runs_are_closed,
    unrecorded_commits,
)
from helpers.new_processes import run_in_processes
from programs import ledger_forks


@pytest.fixture
def ledger(tmp_path):
    return Ledger(tmp_path / "cache")


@pytest.fixture
def tables(tmp_path):
    return [str(tmp_path / f"t{number}") for number in range(4)]


def drain_and_check(ledger, tables):
    """Drain, reconcile, and assert that every operation and run has its row."""
    ledger.drain()
    assert_recorded_at_most_once(ledger.root, *tables)
    assert unrecorded_commits(ledger.root, *tables) == set()
    assert_runs_are_closed(ledger.root)
    assert list(ledger.spools.iterdir()) == []
    assert ledger.verify().is_good


def parts(ledger):
    return [
        tuple(row.values())
        for row in rows_of(
            ledger.root, RUNS, "job, is_part, status, writes", "job, is_part, status"
        )
    ]


@pytest.mark.slow
def test_children_of_a_process_that_has_not_written_write(ledger, tables):
    """Forked children join the parent's run; parts of those that exit at once are closed as abandoned."""
    (result,) = run_in_processes(ledger_forks.children_that_write, [(str(ledger.root.uri), tables)])
    assert result == ([0, 0, 0], {})
    drain_and_check(ledger, tables)
    assert parts(ledger) == [
        ("family", False, "ok", 1),
        *[("family", True, "abandoned", 1)] * 3,
    ]
    (whole,) = ledger.runs().select("processes", "writes", "status").to_arrow_table().to_pylist()
    assert whole == {"processes": 4, "writes": 4, "status": "ok"}


@pytest.mark.slow
def test_children_of_a_writer_leave_its_spool_alone(ledger, tables):
    """Children cannot use an engine that their parent has used; the parent drains their records."""
    (result,) = run_in_processes(
        ledger_forks.children_of_a_writer, [(str(ledger.root.uri), tables)]
    )
    assert result == ([0, 0, 0], True, {})
    drain_and_check(ledger, tables[:1])
    assert parts(ledger) == [*[("child", False, "ok", 0)] * 3, ("parent", False, "ok", 2)]
    assert ledger.inventory().count() == 2 + 3


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.slow
@pytest.mark.one_case_in(2)
def test_the_processes_of_a_pool(ledger, tables, method):
    """Pool workers exit normally, so each records its part of the run, with any start method."""
    (result,) = run_in_processes(ledger_forks.pool, [(method, str(ledger.root.uri), tables)])
    assert result == {}
    drain_and_check(ledger, tables)
    (whole,) = ledger.runs().select("job", "writes", "status").to_arrow_table().to_pylist()
    assert whole == {"job": "pool", "writes": 4, "status": "ok"}
    assert {(is_part, status) for _, is_part, status, writes in parts(ledger) if writes} == {
        (True, "ok")
    }
