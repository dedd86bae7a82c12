"""Killed processes: every commit gets a row, and no row names a version that was not committed."""

from __future__ import annotations

import os
import random
import signal
import time

import pytest

from deltawitness import Ledger
from helpers.ledger_truth import (
    assert_recorded_at_most_once,
    assert_runs_are_closed,
    commits_of,
    unrecorded_commits,
)
from helpers.new_processes import start_process
from programs import ledger_writer

pytestmark = pytest.mark.slow

NOTHING = dict.fromkeys(("missing", "foreign", "phantom", "differing", "unreadable"), 0)


class Place:
    """The tables and the ledger of the killed writers of a test."""

    def __init__(self, folder):
        self.folder = folder
        self.cache = folder / "cache"
        self.tables = [folder / name for name in ledger_writer.TABLES]
        self.ledger = Ledger(self.cache)

    def started(self, seed, moment=None):
        """Start a writer; return it after its first write."""
        arguments = str(self.folder), {"cache_root": str(self.cache)}, seed, moment
        writer, begun = start_process(ledger_writer.write_until_killed, *arguments)
        assert begun.poll(60)
        assert begun.recv() == writer.pid
        return writer

    def killed(self, seed, delay):
        """Kill a writer a number of seconds after its start."""
        writer = self.started(seed)
        writer.join(delay)
        os.kill(writer.pid, signal.SIGKILL)
        writer.join(60)
        assert writer.exitcode == -signal.SIGKILL

    def killed_with_spool(self, seed):
        """Kill a writer that has a spool, which the next drain adopts."""
        writer = self.started(seed)
        deadline = time.monotonic() + 60
        while not [home for home in self.ledger.spools.glob("*") if home.name[0] != "."]:
            assert time.monotonic() < deadline
            writer.join(0.01)
        os.kill(writer.pid, signal.SIGKILL)
        writer.join(60)
        assert writer.exitcode == -signal.SIGKILL

    def drain_and_check(self):
        """Drain and reconcile, and assert that the ledger agrees with the logs."""
        for unfinished in self.ledger.spools.glob(".new-*"):
            os.utime(unfinished, (0, 0))  # older than `CREATION_TIMEOUT`
        self.ledger.drain()
        root = self.ledger.root
        assert_recorded_at_most_once(root, *self.tables)
        assert_runs_are_closed(root)
        assert list(self.ledger.spools.iterdir()) == []
        missing = unrecorded_commits(root, *self.tables)
        there = [table for table in self.tables if any(table.glob("_delta_log/*.json"))]
        plan = self.ledger.reconcile(there)
        assert {
            (found.table_uri, version) for found in plan.missing for version in found.versions
        } == (missing)
        assert (plan.unsettled, plan.counts) == (0, {**NOTHING, "missing": len(plan.missing)})
        assert plan.apply() == len(plan.missing)
        assert_recorded_at_most_once(root, *self.tables)
        assert unrecorded_commits(root, *self.tables) == set()
        assert self.ledger.reconcile(there, full=True).is_clean
        verification = self.ledger.verify()
        assert (verification.findings, verification.waiting) == ((), 0)
        return len(missing)


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


def test_a_kill_at_any_moment_loses_nothing(tmp_path, size, say):
    """Writers of one ledger that drain constantly are killed at random times; no commit is lost."""
    rng = random.Random(4)
    kills, commits, late = size(20, 200, 6), 0, 0
    for first in range(0, kills, 10):
        place = Place(tmp_path / str(first))
        for seed in range(first, min(first + 10, kills)):
            place.killed(seed, rng.uniform(0, 0.3))
            if rng.random() < 0.3:
                place.ledger.drain()  # the next writer adopts the other spools
                assert_recorded_at_most_once(place.ledger.root, *place.tables)
        late += place.drain_and_check()
        commits += len(commits_of(*place.tables))
    say(
        f"ledger: {kills} writers killed at random moments, {commits} commits, each recorded once,"
        f" {late} of them found by reconcile"
    )


@pytest.mark.parametrize("moment", ledger_writer.MOMENTS)
@pytest.mark.one_case_in(5)
def test_a_kill_at_the_worst_moment_loses_nothing(place, moment):
    """A writer dies at a random time, the next one at the chosen step, and a third adopts both spools."""
    place.killed_with_spool(1)
    writer = place.started(2, moment)
    writer.join(30)
    assert writer.exitcode == -signal.SIGKILL
    place.drain_and_check()
