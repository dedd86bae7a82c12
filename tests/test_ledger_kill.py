"""A process that is killed loses nothing that landed, and leaves nothing that did not."""

from __future__ import annotations

import os
import random
import signal

import pytest

from deltawitness import Ledger
from helpers.ledger_truth import (
    assert_runs_are_closed,
    assert_told_at_most_once,
    commits_of,
    untold,
)
from helpers.new_processes import started
from programs import ledger_writer

pytestmark = pytest.mark.slow

NOTHING = dict.fromkeys(("missing", "foreign", "phantom", "differing", "unreadable"), 0)


class Place:
    """Where the children of a test write: a few tables and one ledger."""

    def __init__(self, folder):
        self.folder = folder
        self.cache = folder / "cache"
        self.tables = [folder / name for name in ledger_writer.TABLES]
        self.ledger = Ledger(self.cache)

    def started(self, seed, moment=None):
        """Start a writer; return it once it writes."""
        arguments = str(self.folder), {"cache_root": str(self.cache)}, seed, moment
        writer, begun = started(ledger_writer.write_until_killed, *arguments)
        assert begun.poll(60)
        assert begun.recv() == writer.pid
        return writer

    def killed(self, seed, delay):
        """Have a writer killed so many seconds after it has begun."""
        writer = self.started(seed)
        writer.join(delay)
        os.kill(writer.pid, signal.SIGKILL)
        writer.join(60)
        assert writer.exitcode == -signal.SIGKILL

    def made_whole(self):
        """Drain and reconcile, and say all that must hold then."""
        for unfinished in self.ledger.spools.glob(".new-*"):
            os.utime(unfinished, (0, 0))  # nobody can be making it any more
        self.ledger.drain()
        root = self.ledger.root
        assert_told_at_most_once(root, *self.tables)
        assert_runs_are_closed(root)
        assert list(self.ledger.spools.iterdir()) == []
        missing = untold(root, *self.tables)
        there = [table for table in self.tables if any(table.glob("_delta_log/*.json"))]
        plan = self.ledger.reconcile(there)
        assert {
            (found.table_uri, version) for found in plan.missing for version in found.versions
        } == (missing)
        assert (plan.unsettled, plan.counts) == (0, {**NOTHING, "missing": len(plan.missing)})
        assert plan.apply() == len(plan.missing)
        assert_told_at_most_once(root, *self.tables)
        assert untold(root, *self.tables) == set()
        assert self.ledger.reconcile(there, full=True).is_clean
        verification = self.ledger.verify()
        assert (verification.findings, verification.waiting) == ((), 0)
        return len(missing)


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


def test_a_kill_at_any_moment_loses_nothing(tmp_path, size, say):
    """Writers that drain all the time are killed at random moments, several on one ledger."""
    rng = random.Random(4)
    kills, commits, late = size(20, 200), 0, 0
    for first in range(0, kills, 10):
        place = Place(tmp_path / str(first))
        for seed in range(first, first + 10):
            place.killed(seed, rng.uniform(0, 0.3))
            if rng.random() < 0.3:
                place.ledger.drain()  # the others are adopted by the writer that comes next
                assert_told_at_most_once(place.ledger.root, *place.tables)
        late += place.made_whole()
        commits += len(commits_of(*place.tables))
    say(
        f"ledger: {kills} writers killed at random moments, {commits} commits, each told once,"
        f" {late} of them found by reconcile"
    )


@pytest.mark.parametrize("moment", ledger_writer.MOMENTS)
def test_a_kill_at_the_worst_moment_loses_nothing(place, moment):
    """A writer is killed at a random moment, its heir at the chosen one, and a last one adopts both."""
    place.killed(1, 0.05)
    writer = place.started(2, moment)
    writer.join(30)
    assert writer.exitcode == -signal.SIGKILL
    place.made_whole()
