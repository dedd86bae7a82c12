"""`overdue` and `regressions` find exactly the causes that were planted in random pasts."""

from __future__ import annotations

import os

import pytest

from deltawitness import overdue, regressions
from helpers.past_ledgers import AT, planted_past

SEEDS = range(1, 101 if os.environ.get("TEST_SIZE") == "long" else 3)


@pytest.fixture(scope="module", params=SEEDS)
def past(request, tmp_path_factory):
    """A past; its seed is the parameter."""
    return planted_past(tmp_path_factory.mktemp("past"), request.param)


def jobs_with(past, *causes):
    return {job for job, cause in past.causes.items() if cause in causes}


@pytest.mark.slow
def test_what_is_late_empty_or_unusual_is_what_was_planted(past):
    found = overdue(at=AT, root=past.root)
    # Rows of a failed run are missing, too: after several failed runs the table is late.
    assert {each.table.name for each in found.late} == jobs_with(past, "late", "failing")
    assert {each.job for each in found.volumes} == jobs_with(past, "many", "few")
    assert {each.job for each in found.empty_runs} == jobs_with(past, "empty")
    assert {each.table.name for each in found.tables} == set(past.causes)


@pytest.mark.slow
def test_the_regressions_are_those_that_were_planted(past):
    found = regressions(at=AT, root=past.root)
    by_kind = {}
    for each in found.regressions:
        by_kind.setdefault(each.kind.value, set()).add(each.job)
    planted = {
        "broken": jobs_with(past, "broken", "failing"),
        "flaky": jobs_with(past, "flaky"),
        "slower": jobs_with(past, "slower"),
        "smaller": jobs_with(past, "few", "empty"),
    }
    assert by_kind == {kind: jobs for kind, jobs in planted.items() if jobs}
    assert found.jobs == len(past.causes)
