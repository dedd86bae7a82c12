"""`regressions` compares the last run of each job with its own past."""

from __future__ import annotations

from datetime import timedelta

import pytest

from deltawitness import overdue, regressions
from deltawitness.answers.trends.values import RegressionKind
from deltawitness.exceptions import LedgerLookupError
from helpers.past_ledgers import AT, PastLedger

HOUR = timedelta(hours=1)


def found(folder, *runs, **more):
    """Save a ledger with hourly runs of a job, oldest first, and return its regressions."""
    ledger = PastLedger()
    for number, run in enumerate(runs):
        ledger.run("load", AT - (len(runs) - number) * HOUR, **run)
    return regressions(at=AT, root=ledger.save(folder / "ledger"), **more).regressions


OK, ERROR = {}, {"status": "error"}


def test_a_broken_job_has_the_first_failed_run_and_the_last_good_one(tmp_path):
    failed = {**ERROR, "code_version": "b"}
    (broken,) = found(
        tmp_path, ERROR, OK, {"code_version": "a"}, failed, {"status": "abandoned"} | failed
    )
    assert (broken.kind, broken.value, broken.typical) == (RegressionKind.BROKEN, 2, 5)
    assert (broken.run_id, broken.time, broken.good_run_id) == ("run-4", AT - 2 * HOUR, "run-2")
    assert (broken.error_type, broken.has_new_code) == ("OSError", True)


@pytest.mark.parametrize(
    ("runs", "kinds"),
    [
        ((ERROR, ERROR), []),  # it never worked
        ((OK, ERROR, OK), []),  # it has recovered
        ((OK, ERROR, OK, ERROR, OK), ["flaky"]),
        ((OK, ERROR, OK, ERROR, OK, ERROR), ["flaky"]),
        ((OK, ERROR, OK, ERROR, OK, ERROR, ERROR), ["broken"]),  # for longer than ever
        ((OK, ERROR, OK, ERROR, *[OK] * 20), []),  # long ago
        ((OK,), []),
    ],
)
def test_failures_that_come_and_go(tmp_path, runs, kinds):
    assert [each.kind.value for each in found(tmp_path, *runs)] == kinds


@pytest.mark.parametrize(
    ("before", "last", "kinds"),
    [
        ([{"seconds": 10}] * 5, {"seconds": 21}, ["slower"]),
        ([{"seconds": 10}] * 5, {"seconds": 19}, []),
        ([{"seconds": 10}] * 4, {"seconds": 90}, []),  # too few runs
        ([{"seconds": 0.1}] * 5, {"seconds": 1}, []),  # less than a second
        ([{"seconds": 10}] * 9 + [{"seconds": 30}], {"seconds": 30}, []),  # a tenth was so slow
        ([{"rows": 100}] * 5, {"rows": 49}, ["smaller"]),
        ([{"rows": 100}] * 5, {"rows": 51}, []),
        ([{"rows": 100}] * 5, {"rows": None}, ["smaller"]),
        ([{"rows": 100}] * 5, {"rows": None, "hits": 2}, []),  # the cache served the results
        ([{"rows": None}] * 5, {"rows": None}, []),
        (
            [{"rows": 100, "seconds": 10}] * 5,
            {"rows": 1, "seconds": 50, "status": "error"},
            ["broken"],
        ),
    ],
)
def test_slower_and_smaller(tmp_path, before, last, kinds):
    assert [each.kind.value for each in found(tmp_path, *before, last)] == kinds


def test_the_values_of_a_slower_job(tmp_path):
    (slower,) = found(tmp_path, *[{"seconds": 10}] * 6, {"seconds": 25}, job="load")
    assert (slower.value, slower.typical, slower.history) == (25, 10, 6)
    assert (slower.run_id, slower.good_run_id, slower.has_new_code) == ("run-6", "run-5", False)


@pytest.mark.slow
def test_an_undone_run_does_not_count(tmp_path):
    """Nor do its child runs; they count again if the undo was undone."""
    ledger = PastLedger()
    for back in reversed(range(1, 8)):
        ledger.run("load", AT - back * HOUR)
    night = ledger.run("night", AT - HOUR / 2, rows=None)
    ledger.run("load", AT - HOUR / 2, rows=1, parent_run_id=night)
    first = ledger.run("undo", AT - HOUR / 3, rows=7, message=f"undo of run {night}")
    ledger.run("undo", AT - HOUR / 4, rows=1, message=f"undo of run {first}")
    root = ledger.save(tmp_path / "ledger")
    for minutes, kinds in ((25, ["smaller"]), (18, []), (10, ["smaller"])):
        at = AT - timedelta(minutes=minutes)
        found = regressions(at=at, root=root)
        assert [each.kind.value for each in found.regressions] == kinds
        assert len(overdue(at=at, root=root).volumes) == len(kinds)


def test_a_job_that_is_not_there(tmp_path):
    with pytest.raises(LedgerLookupError, match="no finished run of the job 'nope'"):
        found(tmp_path, OK, job="nope")
    with pytest.raises(LedgerLookupError, match="there is no ledger"):
        regressions(root=tmp_path / "nothing")
