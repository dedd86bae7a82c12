"""An undo that is killed has restored some tables, says which, and the same call restores the others."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from deltawitness import DeltaLakeInstrumentor, Settings, UndoState, run, show, undo, writes
from deltawitness.answers.undrained import NOT_DRAINED
from deltawitness.exceptions import LedgerLookupError
from helpers.new_processes import start_process
from programs import undo_until_killed

TABLES = [f"table_{number}" for number in range(8)]


class Place:
    """Tables that a run has changed, and a ledger."""

    def __init__(self, folder):
        self.folder, self.saved = folder / "place", folder / "saved"
        self.root = str(self.folder / "ledger")
        DeltaLakeInstrumentor().instrument(settings=Settings(cache_root=self.root))
        for name in TABLES:
            self.append(name, 1)
        with run("load") as self.load:
            for name in TABLES:
                self.append(name, 2)
                DeltaTable(self.uri(name)).delete("x = 1")
        DeltaLakeInstrumentor().uninstrument()
        shutil.copytree(self.folder, self.saved)

    def uri(self, name):
        return str(self.folder / "lake" / name)

    def append(self, name, number):
        write_deltalake(self.uri(name), pa.table({"x": [number]}), mode="append")

    def reset(self):
        """Make the tables and the ledger as they were after the run."""
        shutil.rmtree(self.folder)
        shutil.copytree(self.saved, self.folder)

    def numbers(self):
        """Return the content of each table: [1] before the run, [2] after it."""
        return {name: self._numbers(name) for name in TABLES}

    def _numbers(self, name):
        return DeltaTable(self.uri(name)).to_pyarrow_table()["x"].to_pylist()

    def start_undo(self):
        process, begun = start_process(undo_until_killed.undo_run, self.load.run_id, self.root)
        assert begun.poll(60)
        assert begun.recv() == "begun"
        return process, begun

    def await_restored(self, count):
        """Wait until an undo has committed to a number of tables."""
        end = time.monotonic() + 60
        logs = [Path(self.uri(name), "_delta_log") for name in TABLES]
        while sum((log / f"{3:020d}.json").exists() for log in logs) < count:
            assert time.monotonic() < end
            time.sleep(0.001)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return Place(tmp_path_factory.mktemp("undo"))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_killed_undo_is_finished_by_a_second_one(place, size, say):
    """After a kill at any moment, each table is as before or after the run, and the plan says which."""
    source = random.Random(7)
    restored = Counter()
    for _ in range(size(5, 100, 1)):
        place.reset()
        process, begun = place.start_undo()
        place.await_restored(source.randrange(len(TABLES)))
        begun.poll(source.uniform(0, 0.03))
        os.kill(process.pid, signal.SIGKILL)
        process.join(60)
        numbers = place.numbers()
        assert all(each in ([1], [2]) for each in numbers.values())
        plan = undo(place.load.run_id, root=place.root)
        assert {table.name: table.state is UndoState.RESTORED for table in plan.tables} == {
            name: each == [1] for name, each in numbers.items()
        }
        restored[len(plan.in_state(UndoState.RESTORED))] += 1
        done = undo(place.load.run_id, root=place.root, apply=True)
        assert done.is_complete
        assert len(done.in_state(UndoState.RESTORED)) == len(TABLES)
        assert place.numbers() == {name: [1] for name in TABLES}
        assert {DeltaTable(place.uri(name)).version() for name in TABLES} == {3}
        rows = Counter(row.table_name for row in writes(operation="RESTORE", root=place.root))
        assert set(rows.values()) <= {1}
        # A process that dies between a commit and its record leaves one row to a reconcile.
        assert len(rows) >= len(TABLES) - 1
        undone_by = show(place.load.run_id, root=place.root).undone_by
        assert {each.status for each in undone_by} <= {"ok", "abandoned"}
        assert undone_by
    say(
        f"killed undos by number of restored tables of {len(TABLES)}: {dict(sorted(restored.items()))}"
    )


@pytest.mark.slow
def test_the_run_of_a_killed_program_is_undone(place):
    """The rows of a dead process are imported first: only its spool has them."""
    place.reset()
    places = [place.uri(name) for name in TABLES[:3]]
    call = undo_until_killed.write_and_die, places, place.root, "killed-1"
    process, begun = start_process(*call)
    assert begun.poll(60)
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    with pytest.raises(LedgerLookupError, match="no run begins with killed-1; spools of dead proc"):
        undo("killed-1", root=place.root)
    with pytest.raises(
        LedgerLookupError, match=r"begins with killed-1, and .* run `deltawitness dr"
    ):
        show("killed-1", root=place.root)
    assert NOT_DRAINED in show(places[0], root=place.root).notes
    plan = undo(place.load.run_id, root=place.root)
    assert "the run may have more tables" in " ".join(plan.notes)
    done = undo("killed-1", root=place.root, apply=True)
    assert done.notes == ()
    assert {table.name: table.state.value for table in done.tables} == dict.fromkeys(
        TABLES[:3], "restored"
    )
    assert done.status == "abandoned"
    assert place.numbers() == {name: [2] for name in TABLES}
