"""Releases that know different columns append to one ledger, in any order and at the same time.

No older release exists yet: see `programs/ledger_release.py` for how there is one here.
"""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager

import pytest

from deltawitness import Ledger
from deltawitness.ledger.tables.schema import INVENTORY, RUNS
from helpers.ledger_truth import assert_told_at_most_once, untold
from helpers.new_processes import PROCESSES, started
from programs import ledger_release
from programs.ledger_release import LATER


class Releases:
    """Processes of two releases with one ledger, each with a table of its own."""

    def __init__(self, folder, names):
        self.ledger = Ledger(folder / "cache")
        self.tables = [folder / name for name in names]
        self._processes = []
        for name, table in zip(names, self.tables, strict=True):
            told, tell = PROCESSES.Pipe(duplex=False)
            arguments = name, str(folder / "cache"), str(table), told
            process, results = started(ledger_release.write_when_told, *arguments)
            self._processes.append((process, tell, results))

    def write(self, *numbers):
        """Have processes write at the same time; each says that nothing of ours failed."""
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
    """Start processes of two releases, and end them."""
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


@pytest.mark.parametrize(("first", "second"), PAIRS)
@pytest.mark.slow
def test_two_releases_take_turns_and_meet(tmp_path, size, first, second):
    """One after the other and both at once: every row is there, with nulls where its release knew nothing."""
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
    assert_told_at_most_once(ledger.root, *both.tables)
    assert untold(ledger.root, *both.tables) == set()
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


def test_tables_gain_columns_once_and_lose_none(tmp_path):
    """The first row of a newer release adds its columns; rows of older ones leave them be."""

    def columns(table):
        return {field.name for field in both.ledger.root.opened(table).schema().fields}

    everything = {name for name, _, _ in INVENTORY.columns}
    with releases(tmp_path, "older", "newer") as both:
        both.write(0)
        assert columns(INVENTORY) == everything - LATER
        both.write(1)
        for _ in range(2):
            assert columns(INVENTORY) == everything | {"colour", "shades"}
            assert {"colour", "shades"} <= columns(RUNS)
            both.write(0)
