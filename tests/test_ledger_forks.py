"""A forked child tells in a spool of its own, and takes nothing of its parent's."""

from __future__ import annotations

import pytest

from deltawitness import Ledger
from deltawitness.ledger.tables.schema import RUNS
from helpers.ledger_parts import rows_of
from helpers.ledger_truth import assert_runs_are_closed, assert_told_at_most_once, untold
from helpers.new_processes import results_of
from programs import ledger_forks


@pytest.fixture
def ledger(tmp_path):
    return Ledger(tmp_path / "cache")


@pytest.fixture
def tables(tmp_path):
    return [str(tmp_path / f"t{number}") for number in range(4)]


def made_whole(ledger, tables):
    """Drain, and say what must hold then."""
    ledger.drain()
    assert_told_at_most_once(ledger.root, *tables)
    assert untold(ledger.root, *tables) == set()
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


def test_children_of_a_process_that_has_not_written_write(ledger, tables):
    """They take part in its run; since they leave at once, their parts are closed by whoever adopts them."""
    (result,) = results_of(ledger_forks.children_that_write, [(str(ledger.root.uri), tables)])
    assert result == ([0, 0, 0], {})
    made_whole(ledger, tables)
    assert parts(ledger) == [
        ("family", False, "ok", 1),
        *[("family", True, "abandoned", 1)] * 3,
    ]
    (whole,) = ledger.runs().select("processes", "writes", "status").to_arrow_table().to_pylist()
    assert whole == {"processes": 4, "writes": 4, "status": "ok"}


def test_children_of_a_writer_leave_its_spool_alone(ledger, tables):
    """They cannot use the engine that it has used, but they tell, and it adopts what they told."""
    (result,) = results_of(ledger_forks.children_of_a_writer, [(str(ledger.root.uri), tables)])
    assert result == ([0, 0, 0], True, {})
    made_whole(ledger, tables[:1])
    assert parts(ledger) == [*[("child", False, "ok", 0)] * 3, ("parent", False, "ok", 2)]
    assert ledger.inventory().count() == 2 + 3


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.slow
def test_the_processes_of_a_pool(ledger, tables, method):
    """They end well, so that each tells its part of the run, however they were started."""
    (result,) = results_of(ledger_forks.pool, [(method, str(ledger.root.uri), tables)])
    assert result == {}
    made_whole(ledger, tables)
    (whole,) = ledger.runs().select("job", "writes", "status").to_arrow_table().to_pylist()
    assert whole == {"job": "pool", "writes": 4, "status": "ok"}
    assert {(is_part, status) for _, is_part, status, writes in parts(ledger) if writes} == {
        (True, "ok")
    }
