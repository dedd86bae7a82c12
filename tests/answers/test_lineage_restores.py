"""`lineage`, `impact` and `show` go through a RESTORE to the version that it has restored."""

from __future__ import annotations

import datetime as dt
import os
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from deltawitness import (
    ColumnUse,
    DeltaLakeInstrumentor,
    EdgeKind,
    ObservedSessionContext,
    Settings,
    blame,
    column_lineage,
    impact,
    lineage,
    run,
    show,
    suppressed,
    undo,
)
from deltawitness.answers.table_content import TableContent
from deltawitness.commit.log import commit_path
from helpers.ledger_commands import invoke

pytestmark = pytest.mark.slow


@pytest.fixture
def lake(tmp_path, monkeypatch):
    """A folder in which writes are observed."""
    monkeypatch.chdir(tmp_path)
    DeltaLakeInstrumentor().instrument(settings=Settings(cache_root=".deltawitness"))
    yield Lake(tmp_path)
    DeltaLakeInstrumentor().uninstrument()


class Lake:
    """Tables by their names, in a folder."""

    def __init__(self, folder):
        self.folder = folder

    def place(self, name):
        return str(self.folder / name)

    def table(self, name):
        return DeltaTable(self.place(name))

    def load(self, name, *values, mode="overwrite"):
        write_deltalake(self.place(name), pa.table({"x": list(values)}), mode=mode)

    def derive(self, name, read, mode="overwrite"):
        ctx = ObservedSessionContext()
        ctx.register_delta(read, self.place(read))
        write_deltalake(self.place(name), ctx.sql(f"SELECT x FROM {read}"), mode=mode)


def edges_of(graph):
    return {(str(each.source), str(each.target), each.kind) for each in graph.edges}


def states_of(name):
    """Return the state of each dependent of a table."""
    return {
        str(each.table): "stale"
        if each.is_stale
        else "replaced"
        if all(read.is_replaced for read in each.inputs)
        else "fresh"
        for each in impact(name).dependents
    }


def test_the_lineage_goes_through_an_undo(lake):
    """After an undo, the newest version was made from the inputs of the version before the run."""
    lake.load("raw", 1)
    lake.derive("daily", "raw")
    with run("night") as night:
        lake.load("raw", 2)
        lake.derive("daily", "raw")
    undo(night.run_id, apply=True)
    assert edges_of(lineage("daily")) == {
        ("daily@0", "daily@2", EdgeKind.EXACT),
        ("raw@0", "daily@0", EdgeKind.EXACT),
    }
    assert edges_of(lineage("daily", history=True)) == edges_of(lineage("daily"))
    assert edges_of(lineage("raw@0", direction="down")) == {
        ("raw@0", "raw@2", EdgeKind.EXACT),
        ("raw@0", "daily@0", EdgeKind.EXACT),
        ("daily@0", "daily@2", EdgeKind.EXACT),
    }
    assert edges_of(lineage("raw@1", direction="down")) == {("raw@1", "daily@1", EdgeKind.EXACT)}
    shown = show("daily")
    assert [str(each) for each in shown.inputs] == ["daily@0"]
    assert not shown.are_inputs_inferred
    assert invoke("lineage", "daily").stdout.count("exact:") == 2
    assert blame("daily", "x = 1").versions == (0,)
    graph = column_lineage("daily")
    assert [(str(each.source), str(each.target), each.use) for each in graph.edges] == [
        ("daily@0.x", "daily@2.x", ColumnUse.IDENTITY),
        ("raw@0.x", "daily@0.x", ColumnUse.IDENTITY),
    ]
    assert not any(each.is_history for each in graph.edges)
    assert graph.unknown[0].column is None  # the rows of `raw` came from no plan
    down = column_lineage("raw@0", direction="down", column="x")
    assert {str(each) for each in down.columns} == {"raw@0.x", "raw@2.x", "daily@0.x", "daily@2.x"}


def test_what_has_read_the_content_that_is_restored_is_not_stale(lake):
    """A table that has read the bad version is stale after the restore, one that has read the good one is not."""
    lake.load("raw", 1)
    lake.derive("good", "raw")
    lake.load("raw", 2)
    lake.derive("bad", "raw")
    assert states_of("raw") == {"good@0": "stale", "bad@0": "fresh"}
    lake.table("raw").restore(0)
    assert states_of("raw") == {"good@0": "fresh", "bad@0": "stale"}
    found = {each.table.name: each for each in impact("raw").dependents}
    assert found["bad"].stale_since == lineage("raw@2").nodes[0].time
    lake.load("raw", 3, mode="append")
    assert states_of("raw") == {"good@0": "stale", "bad@0": "stale"}
    found = {each.table.name: each for each in impact("raw").dependents}
    appended = lineage("raw@3").nodes[0].time
    assert (found["good"].stale_since, found["bad"].stale_since < appended) == (appended, True)


def test_a_restored_table_depends_on_what_the_restored_version_has_read(lake):
    """Reads that a RESTORE has undone do not count."""
    lake.load("old", 1)
    lake.load("new", 2)
    lake.derive("daily", "old")
    lake.derive("daily", "new")
    assert states_of("old")["daily@1"] == "replaced"
    lake.table("daily").restore(0)
    assert states_of("old")["daily@2"] == "fresh"
    assert states_of("new")["daily@2"] == "replaced"
    lake.load("old", 5, mode="append")
    lake.load("new", 5, mode="append")
    assert states_of("old")["daily@2"] == "stale"
    assert states_of("new")["daily@2"] == "replaced"


def test_a_restore_of_the_newest_content_changes_nothing(lake):
    """A RESTORE that adds and removes no row makes no table stale; nor does one after a compaction."""
    lake.load("raw", 1)
    lake.load("raw", 2, mode="append")
    lake.table("raw").optimize.compact()
    lake.derive("daily", "raw")
    lake.table("raw").restore(1)
    assert states_of("raw") == {"daily@0": "fresh"}
    lake.table("raw").restore(1)
    assert (show("raw").metrics.rows_added, show("raw").metrics.rows_deleted) == (0, 0)
    found = impact("raw")
    assert (found.table.version, found.dependents[0].inputs[0].newest) == (4, 3)
    assert not found.dependents[0].is_stale


def test_a_version_that_nothing_observed_counts_as_a_change(lake):
    lake.load("raw", 1)
    lake.derive("daily", "raw")
    with suppressed():
        lake.load("raw", 2, mode="append")
    lake.load("raw", 3, mode="append")
    lake.table("raw").restore(1)
    assert states_of("raw") == {"daily@0": "stale"}
    lake.table("raw").restore(0)
    assert states_of("raw") == {"daily@0": "fresh"}


def test_a_restore_to_a_time_has_the_version_that_the_engine_chose(lake):
    for value in range(3):
        lake.load("raw", value)
        time = 1_767_225_600 + value * 86_400
        os.utime(Path(lake.place("raw"), commit_path(value)), (time, time))
    lake.table("raw").restore(dt.datetime(2026, 1, 2, 12, tzinfo=dt.UTC))
    assert edges_of(lineage("raw")) == {("raw@1", "raw@3", EdgeKind.EXACT)}
    assert lake.table("raw").to_pyarrow_table()["x"].to_pylist() == [1]


def test_a_restore_that_nothing_observed(lake):
    """Its restored version is in the log, and after `reconcile` in the ledger; a time says no version."""
    with suppressed():
        lake.load("raw", 1)
        lake.load("raw", 2)
        lake.table("raw").restore(0)
        lake.table("raw").restore(dt.datetime(2020, 1, 1, tzinfo=dt.UTC))
    assert [str(each) for each in show(lake.place("raw") + "@2").inputs] == ["raw@0"]
    lake.load("other", 1)
    lineage("other")  # writes the rows of this process to the ledger
    assert invoke("reconcile", lake.place("raw"), "--apply").exit_code == 0
    assert edges_of(lineage("raw@2")) == {("raw@0", "raw@2", EdgeKind.EXACT)}
    assert edges_of(lineage("raw@3")) == set()
    assert edges_of(lineage("raw@3", history=True)) >= {("raw@2", "raw@3", EdgeKind.HISTORY)}


def test_restores_of_restores_are_followed():
    content = TableContent(9, {3: 1, 5: 2, 7: 3, 9: 5}, range(10))
    assert [content.origin(each) for each in (3, 5, 7, 9)] == [1, 2, 1, 2]
    assert content.current(range(10)) == [0, 1, 2, 5, 9]
    assert (content.is_current(2), content.is_current(7)) == (True, False)
    assert (content.last_equal(1), content.last_equal(2), content.last_equal(4)) == (7, 9, 4)
