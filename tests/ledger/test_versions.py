"""Releases with different columns append to one ledger, in any order and concurrently.

No older release exists yet; `programs/ledger_release.py` simulates one.
"""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager

import pytest

from deltawitness import Ledger
from deltawitness.ledger.tables.schema import INVENTORY, RUNS
from helpers.ledger_truth import assert_recorded_at_most_once, unrecorded_commits
from helpers.new_processes import PROCESSES, start_process
from helpers.sizes import cases
from programs import ledger_release
from programs.ledger_release import LATER


class Releases:
    """Processes of two releases with one ledger, each with its own table."""

    def __init__(self, folder, names):
        self.ledger = Ledger(folder / "cache")
        self.tables = [folder / name for name in names]
        self._processes = []
        for name, table in zip(names, self.tables, strict=True):
            recorded, tell = PROCESSES.Pipe(duplex=False)
            arguments = name, str(folder / "cache"), str(table), recorded
            process, results = start_process(ledger_release.write_on_message, *arguments)
            self._processes.append((process, tell, results))

    def write(self, *numbers):
        """Make processes write concurrently; assert that none reports an internal error."""
        for number in numbers:
            self._processes[number][1].send("write")
        for number in numbers:
            assert self._processes[number][2].poll(60)
            assert self._processes[number][2].recv() == {}

    def end(self):
        for process, tell, _ in self._processes:
            tell.send(None)
            process.join(60)
            assert process.exitcode == 0


@contextmanager
def releases(folder, *names):
    """Start processes of two releases, and end them after the test."""
    both = Releases(folder, names)
    try:
        yield both
    finally:
        both.end()


PAIRS = [
    pair
    for one, other in (("older", "current"), ("current", "newer"), ("older", "newer"))
    for pair in ((one, other), (other, one))
]


@pytest.mark.parametrize(("first", "second"), cases(PAIRS, PAIRS[1::3]))
@pytest.mark.slow
def test_two_releases_write_one_ledger_alternately(tmp_path, size, first, second):
    """After successive and concurrent writes every row is there, with nulls in unknown columns."""
    together = size(2, 40)
    with releases(tmp_path, first, second) as both:
        for turn in range(4):
            both.write(turn % 2)
        for _ in range(together):
            both.write(0, 1)
    ledger, expected = both.ledger, {first: 2 + together, second: 2 + together}
    inventory = ledger.inventory().to_arrow_table().to_pylist()
    runs = ledger.runs().to_arrow_table().to_pylist()
    assert Counter(row["job"] for row in inventory) == expected
    assert Counter(row["job"] for row in runs) == expected
    assert_recorded_at_most_once(ledger.root, *both.tables)
    assert unrecorded_commits(ledger.root, *both.tables) == set()
    known_to_all = {name for name, _, _ in INVENTORY.columns} - LATER
    for row in inventory:
        assert known_to_all <= row.keys()
        assert (row["engine"] is None) == (row["job"] == "older")
        assert (row["thread"] is None) == (row["job"] == "older")
        assert (row["rows_added"], row["result"]) == (1, "write")
    if "newer" in expected:
        colours = {(row["job"], row["colour"], str(row["shades"])) for row in inventory}
        assert colours == {
            (job, "red" if job == "newer" else None, "[1, 2]" if job == "newer" else "None")
            for job in expected
        }
    assert ledger.verify().is_good


@pytest.mark.slow
def test_tables_gain_columns_once_and_lose_none(tmp_path):
    """The first row of a newer release adds its columns; older releases do not remove them."""

    def columns(table):
        return {field.name for field in both.ledger.root.open_table(table).schema().fields}

    everything = {name for name, _, _ in INVENTORY.columns}
    with releases(tmp_path, "older", "newer") as both:
        both.write(0)
        assert columns(INVENTORY) == everything - LATER
        both.write(1)
        for _ in range(2):
            assert columns(INVENTORY) == everything | {"colour", "shades"}
            assert {"colour", "shades"} <= columns(RUNS)
            both.write(0)
