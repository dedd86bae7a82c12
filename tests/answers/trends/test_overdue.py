"""`overdue` learns the cadence and the volume of each table from its past."""

from __future__ import annotations

from datetime import timedelta

import pytest

from deltawitness import overdue
from deltawitness.answers.trends.values import TableState
from deltawitness.exceptions import LedgerLookupError
from helpers.past_ledgers import AT, PastLedger

DAY, HOUR = timedelta(days=1), timedelta(hours=1)


@pytest.fixture
def ledger():
    """A ledger without rows yet."""
    return PastLedger()


def found(ledger, folder, *tables, at=AT, **more):
    """Save the ledger, and return what is overdue."""
    root = folder / "ledger"
    if not root.exists():
        ledger.save(root)
    return overdue(*tables, at=at, root=root, **more)


def daily(ledger, count=20, *, until=AT - HOUR, **more):
    """Add a run each day."""
    for back in reversed(range(count)):
        ledger.run("load", until - back * DAY, **more)


def state_of(result):
    (table,) = result.tables
    return table.state


@pytest.mark.slow
def test_the_next_write_is_due_after_the_usual_time(ledger, tmp_path):
    daily(ledger)
    fresh = found(ledger, tmp_path)
    (table,) = fresh.tables
    assert (table.state, table.interval_seconds, table.changes) == (TableState.FRESH, 86_400, 20)
    assert table.due == AT - HOUR + 1.1 * DAY
    assert (table.job, table.run_id, fresh.is_ok) == ("load", "run-19", True)
    late = found(ledger, tmp_path, at=AT + 1.1 * DAY)
    assert (state_of(late), late.is_ok) == (TableState.LATE, False)
    before = found(ledger, tmp_path, at=AT - 5.5 * DAY)
    assert (state_of(before), before.tables[0].changes) == (TableState.FRESH, 14)


@pytest.mark.slow
def test_a_table_that_nothing_writes_any_more_is_not_late_for_ever(ledger, tmp_path):
    daily(ledger)
    assert state_of(found(ledger, tmp_path, at=AT + 29 * DAY)) is TableState.LATE
    assert state_of(found(ledger, tmp_path, at=AT + 40 * DAY)) is TableState.STOPPED


@pytest.mark.slow
def test_a_gap_that_repeats_is_usual(ledger, tmp_path):
    """A job that runs on working days is not late on a Sunday, and late on Tuesday."""
    for back in reversed(range(40)):
        day = AT - back * DAY
        if day.weekday() < 5:
            ledger.run("load", day)
    friday = AT - 3 * DAY
    assert friday.weekday() == 4
    assert state_of(found(ledger, tmp_path, at=friday + 2.9 * DAY)) is TableState.FRESH
    monday = AT
    assert state_of(found(ledger, tmp_path, at=monday + 3.5 * DAY)) is TableState.LATE


def test_few_changes_are_never_late(ledger, tmp_path):
    daily(ledger, 4)
    assert state_of(found(ledger, tmp_path, at=AT + 100 * DAY)) is TableState.UNKNOWN


@pytest.mark.slow
def test_all_changes_of_a_service_count(ledger, tmp_path):
    """A run that lives for days writes as often as its commits are; a batch counts once."""
    service = "a run that has not ended"
    for back in reversed(range(100)):
        ledger.write("events", AT - back * HOUR, 10, job="service", run_id=service)
    for back in reversed(range(9)):
        run = ledger.run("batch", AT - back * DAY, table="sums")
        for second in range(30):
            ledger.write(
                "sums", AT - back * DAY + timedelta(seconds=second - 40), 5, job="batch", run_id=run
            )
    result = found(ledger, tmp_path)
    intervals = {each.table.name: (each.interval_seconds, each.changes) for each in result.tables}
    assert intervals == {"events": (3_600, 60), "sums": (86_400, 9)}
    late = found(ledger, tmp_path, at=AT + 2 * HOUR).late
    assert [each.table.name for each in late] == ["events"]


@pytest.mark.slow
def test_the_changes_of_one_session_are_no_cadence(ledger, tmp_path):
    """A run that ended and wrote a table ten times in a minute need not be repeated."""
    session = ledger.run("explore", AT, rows=None)
    for second in range(10):
        ledger.write("scratch", AT + timedelta(seconds=second), 5, job="explore", run_id=session)
    result = found(ledger, tmp_path, at=AT + DAY)
    assert (state_of(result), result.tables[0].changes) == (TableState.UNKNOWN, 10)


def test_writes_that_change_no_row_do_not_count(ledger, tmp_path):
    daily(ledger)
    ledger.write("load", AT, 0, job="load", run_id="x")
    ledger.write("load", AT, None, cache_operation="optimize", operation="OPTIMIZE", job="tidy")
    ledger.write("sums", AT, 5, scope="view", policy="nightly", cache_operation="write")
    result = found(ledger, tmp_path)
    assert [(each.table.name, each.last) for each in result.tables] == [("load", AT - HOUR)]


def test_numbers_of_rows_far_from_the_past_of_the_job(ledger, tmp_path):
    """The past of each job on a table counts for itself, and one outlier in it changes nothing."""
    for back in reversed(range(2, 12)):
        ledger.run("load", AT - back * DAY, rows=100_000 if back == 6 else 1000 + back)
        ledger.run("correct", AT - back * DAY, rows=3, table="load")
    ledger.run("load", AT - DAY, rows=40)
    ledger.run("correct", AT - DAY, rows=4, table="load")
    (volume,) = found(ledger, tmp_path).volumes
    assert (volume.job, volume.rows, volume.history) == ("load", 40, 10)
    assert 1000 < volume.typical < 1020
    assert volume.low < 1000 < volume.high
    assert volume.run_id == "run-20"


def test_a_number_of_rows_that_repeats_is_usual(ledger, tmp_path):
    for back in reversed(range(40)):
        ledger.run("load", AT - back * DAY, rows=10_000 if back % 7 == 0 else 100)
    assert found(ledger, tmp_path).volumes == ()


def test_runs_that_have_not_ended_or_failed_are_not_judged(ledger, tmp_path):
    daily(ledger, 10)
    ledger.write("load", AT, 1, job="load", run_id="still running")
    assert found(ledger, tmp_path).is_ok


def test_runs_that_ended_ok_and_changed_nothing(ledger, tmp_path):
    daily(ledger, 10, until=AT - DAY)
    ledger.run("load", AT - 2 * HOUR, rows=None)
    for back in reversed(range(10)):
        ledger.run("read", AT - back * DAY, rows=None)
        ledger.run("cached", AT - back * DAY, rows=10 if back else None, hits=0 if back else 3)
    result = found(ledger, tmp_path)
    (empty,) = result.empty_runs
    assert (empty.job, empty.run_id, empty.history, empty.wrote) == ("load", "run-10", 10, 10)
    assert empty.typical == 100


@pytest.mark.slow
def test_all_runs_since_a_time_are_judged(ledger, tmp_path):
    daily(ledger, 10, until=AT - 3 * DAY)
    ledger.run("load", AT - 2 * DAY, rows=None)
    ledger.run("load", AT - DAY, rows=9_000)
    ledger.run("load", AT - HOUR)
    assert found(ledger, tmp_path).is_ok
    since = found(ledger, tmp_path, since=AT - 5 * DAY)
    assert [each.rows for each in since.volumes] == [9_000]
    assert [each.run_id for each in since.empty_runs] == ["run-10"]


@pytest.mark.slow
def test_one_table(ledger, tmp_path):
    daily(ledger)
    ledger.run("other", AT)
    assert [each.table.name for each in found(ledger, tmp_path, "other").tables] == ["other"]
    by_id = found(ledger, tmp_path, "id-lo")
    assert [each.table.uri for each in by_id.tables] == ["file:///lake/load"]
    with pytest.raises(LedgerLookupError, match="no table 'nope'"):
        found(ledger, tmp_path, "nope")
    with pytest.raises(ValueError, match="tolerance: expected a number above 0"):
        found(ledger, tmp_path, tolerance=float("nan"))


def test_a_ledger_without_runs(ledger, tmp_path):
    """Writes that nothing observed, which reconcile adds, have no run: each counts."""
    for back in reversed(range(8)):
        ledger.write("raw", AT - back * DAY, 100 if back else 5, run_id=None, source="reconciled")
    result = found(ledger, tmp_path)
    assert (result.tables[0].state, result.tables[0].changes) == (TableState.FRESH, 8)
    assert [each.rows for each in result.volumes] == [5]
