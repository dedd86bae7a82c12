"""An undo restores the tables that a run wrote, and says which it does not restore."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import CommitProperties, DeltaTable, write_deltalake
from deltalake.exceptions import CommitFailedError
from deltalake.fs import DeltaStorageHandler

from deltawitness import (
    DeltaLakeInstrumentor,
    Settings,
    UndoState,
    history,
    once,
    run,
    runs,
    show,
    suppressed,
    undo,
    writes,
)
from deltawitness.answers.undo_table import WrittenTable
from deltawitness.exceptions import LedgerLookupError
from deltawitness.semconv import UNDONE_RUN


@pytest.fixture
def lake(tmp_path):
    """A lake under observation; the tables `a` and `b` have one version each."""
    DeltaLakeInstrumentor().instrument(settings=Settings(cache_root=str(tmp_path / "ledger")))
    place = Lake(tmp_path)
    with run("before"):
        place.append("a", 1)
        place.append("b", 1)
    yield place
    DeltaLakeInstrumentor().uninstrument()


class Lake:
    """Tables with one column of numbers."""

    def __init__(self, folder):
        self.folder, self.root = folder, str(folder / "ledger")

    def uri(self, name):
        return str(self.folder / "lake" / name)

    def append(self, name, *numbers, mode="append"):
        write_deltalake(self.uri(name), pa.table({"x": list(numbers)}), mode=mode)

    def numbers(self, name):
        with suppressed():
            return sorted(DeltaTable(self.uri(name)).to_pyarrow_table()["x"].to_pylist())

    def undo(self, undone, **options):
        return undo(undone.run_id, root=self.root, **options)

    def states(self, plan):
        return {table.name: table.state.value for table in plan.tables}


@pytest.mark.slow
def test_a_plan_changes_nothing(lake):
    """Without `apply` the result is the plan: the versions of the run, the last one, the one before."""
    with run("load", message="new rows") as load:
        lake.append("a", 2)
        lake.append("a", 3)
    plan = lake.undo(load)
    (table,) = plan.tables
    assert (table.name, table.state, table.reason) == ("a", UndoState.RESTORE, None)
    assert (table.versions, table.current, table.before, table.later) == ((1, 2), 2, 0, ())
    assert (plan.run_id, plan.job, plan.status) == (load.run_id, "load", "ok")
    assert (plan.is_applied, plan.undo_run_id, plan.is_complete) == (False, None, False)
    assert lake.numbers("a") == [1, 2, 3]
    assert len(runs(root=lake.root)) == 2


@pytest.mark.slow
def test_the_run_and_its_child_runs_are_undone(lake):
    """Every table of the run and its child runs has its content before the run; the undo is a run."""
    with run("load") as load:
        lake.append("a", 2)
        with run("inner"):
            lake.append("b", 2, mode="overwrite")
        DeltaTable(lake.uri("a")).delete("x = 1")
    done = lake.undo(load, apply=True)
    assert lake.states(done) == {"a": "restored", "b": "restored"}
    assert done.is_complete
    assert (lake.numbers("a"), lake.numbers("b")) == ([1], [1])
    commit = show("a", root=lake.root)
    assert (commit.operation, commit.job, commit.in_ledger) == ("RESTORE", "undo", True)
    assert commit.message == f"undo of run {load.run_id}"
    assert commit.run_id == done.undo_run_id
    assert next(history(lake.uri("a"))).metadata[UNDONE_RUN] == load.run_id
    shown = show(load.run_id, root=lake.root)
    assert [(each.run_id, each.status) for each in shown.undone_by] == [(done.undo_run_id, "ok")]


@pytest.mark.slow
def test_a_second_undo_does_nothing(lake):
    """An undone run is recognized by the RESTORE in the log, and no run is opened."""
    with run("load") as load:
        lake.append("a", 2)
    lake.undo(load, apply=True)
    for apply in (False, True):
        again = lake.undo(load, apply=apply)
        (table,) = again.tables
        assert (table.state, table.restored_version) == (UndoState.RESTORED, 2)
        assert (again.undo_run_id, again.is_complete) == (None, True)
    assert DeltaTable(lake.uri("a")).version() == 2
    assert len(runs(job="undo", root=lake.root)) == 1


@pytest.mark.slow
def test_an_undo_can_be_undone(lake):
    """The undo is a run like others: after its undo, the run has an effect again, and can be undone again."""
    with run("load") as load:
        lake.append("a", 2)
    first = lake.undo(load, apply=True)
    undo(first.undo_run_id, apply=True, root=lake.root)
    assert lake.numbers("a") == [1, 2]
    # The second undo is a commit of another run, after those of the run.
    assert lake.states(lake.undo(load)) == {"a": "refused"}
    done = lake.undo(load, apply=True, discard_later=True)
    assert (done.tables[0].before, lake.numbers("a")) == (0, [1])


@pytest.mark.slow
def test_an_undo_inside_the_run_is_no_work_of_the_run(lake):
    """A run that undoes itself is undone afterwards."""
    with run("load") as load:
        lake.append("a", 2)
        lake.undo(load, apply=True)
        assert lake.states(lake.undo(load)) == {"a": "restored"}
    assert lake.states(lake.undo(load)) == {"a": "restored"}
    assert lake.numbers("a") == [1]


@pytest.mark.slow
def test_later_commits_of_others_are_not_discarded(lake):
    """A table with later changes of others is refused, also if nothing observed them; other tables are restored."""
    with run("load") as load:
        lake.append("a", 2)
        lake.append("b", 2)
    with suppressed():
        lake.append("a", 3)
    plan = lake.undo(load)
    assert lake.states(plan) == {"a": "refused", "b": "restore"}
    assert plan.tables[0].reason == "later commits of others would be discarded: version 2"
    ((later,),) = [table.later for table in plan.tables if table.later]
    assert (later.version, later.operation, later.run_id) == (2, "WRITE", None)
    done = lake.undo(load, apply=True)
    assert lake.states(done) == {"a": "refused", "b": "restored"}
    assert not done.is_complete
    assert (lake.numbers("a"), lake.numbers("b")) == ([1, 2, 3], [1])
    (undone,) = show(load.run_id, root=lake.root).undone_by
    assert undone.status == "error"
    done = lake.undo(load, apply=True, discard_later=True)
    assert (lake.states(done), lake.numbers("a")) == ({"a": "restored", "b": "restored"}, [1])
    assert [each.version for each in done.tables[0].later] == [2]


@pytest.mark.slow
def test_commits_between_those_of_the_run_are_later_ones(lake):
    """The first commit of the run counts, not the last one."""
    with run("load") as load:
        lake.append("a", 2)
        with suppressed():
            lake.append("a", 3)
        lake.append("a", 4)
    assert lake.states(lake.undo(load)) == {"a": "refused"}


@pytest.mark.slow
def test_commits_of_the_run_without_a_row_are_found(lake):
    """The log says which commits since the start of the run are its own, also before its first row."""
    with run("load") as load:
        own = CommitProperties(custom_metadata={"run_id": load.run_id})
        with suppressed():
            for number, properties in ((2, own), (3, None)):
                data = pa.table({"x": [number]})
                write_deltalake(lake.uri("a"), data, mode="append", commit_properties=properties)
        lake.append("a", 4)
    (table,) = lake.undo(load).tables
    assert (table.versions, table.state) == ((1, 3), UndoState.REFUSED)
    assert [each.version for each in table.later] == [2]


@pytest.mark.slow
def test_maintenance_by_others_is_no_reason_to_refuse(lake):
    """OPTIMIZE changes no rows, so that nothing is discarded."""
    with run("load") as load:
        lake.append("a", 2)
    with suppressed():
        DeltaTable(lake.uri("a")).optimize.compact()
    assert lake.states(lake.undo(load, apply=True)) == {"a": "restored"}
    assert lake.numbers("a") == [1]


@pytest.mark.slow
def test_the_schema_and_the_properties_are_restored(lake):
    """Columns and table properties that the run added are gone."""
    with run("load") as load:
        new = pa.table({"x": [2], "y": ["new"]})
        write_deltalake(lake.uri("a"), new, mode="append", schema_mode="merge")
        DeltaTable(lake.uri("a")).alter.set_table_properties({"delta.checkpointInterval": "7"})
    assert lake.states(lake.undo(load, apply=True)) == {"a": "restored"}
    table = DeltaTable(lake.uri("a"))
    assert [field.name for field in table.schema().fields] == ["x"]
    assert table.metadata().configuration == {}


@pytest.mark.slow
def test_a_created_table_is_not_dropped(lake):
    """A table that the run created is listed and stays; a table that it only maintained is unchanged."""
    lake.append("a", 2)
    with run("load") as load:
        lake.append("new", 2)
        DeltaTable(lake.uri("a")).optimize.compact()
        lake.append("b", 2)
    done = lake.undo(load, apply=True)
    assert lake.states(done) == {"new": "created", "a": "unchanged", "b": "restored"}
    assert done.is_complete
    assert lake.numbers("new") == [2]


@pytest.mark.slow
def test_vacuumed_files_cannot_be_restored(lake):
    """If files of the version before the run were deleted, the table is refused and nothing is written."""
    with run("load") as load:
        lake.append("a", 2, mode="overwrite")
    with suppressed():
        DeltaTable(lake.uri("a")).vacuum(
            dry_run=False, enforce_retention_duration=False, retention_hours=0
        )
    before = DeltaTable(lake.uri("a")).version()
    (table,) = lake.undo(load, apply=True).tables
    assert table.state is UndoState.REFUSED
    assert table.reason.startswith(
        "files of version 0 were deleted, for example by a vacuum: part-"
    )
    assert DeltaTable(lake.uri("a")).version() == before


@pytest.mark.slow
def test_partitions_with_special_characters_are_found(lake):
    """Files in folders with encoded names are found, and missing when they are deleted."""
    place = lake.uri("parts")
    rows = pa.table({"x": [1, 2], "p": ["a b%/ö", "c=d"]})
    write_deltalake(place, rows, partition_by=["p"])
    with run("load") as load:
        DeltaTable(place).delete()
    assert lake.states(lake.undo(load)) == {"parts": "restore"}
    files = [file for file in Path(place).rglob("*.parquet") if "_delta_log" not in file.parts]
    files[0].unlink()
    assert lake.states(lake.undo(load)) == {"parts": "refused"}


@pytest.mark.slow
def test_deletion_vectors_are_refused(lake):
    """delta-rs compares files by their paths, so it would not remove the vector of a file."""
    with run("load") as load:
        lake.append("a", 2)
    log = Path(lake.uri("a"), "_delta_log")
    lines = (log / f"{1:020d}.json").read_text().splitlines()
    (add,) = (json.loads(line)["add"] for line in lines if '"add"' in line)
    add["deletionVector"] = {"storageType": "i", "pathOrInlineDv": "x", "sizeInBytes": 1}
    (log / f"{2:020d}.json").write_text(json.dumps({"add": add}))
    (table,) = lake.undo(load, apply=True, discard_later=True).tables
    assert table.state is UndoState.REFUSED
    assert table.reason == "it has deletion vectors, which delta-rs does not restore"


@pytest.mark.slow
@pytest.mark.parametrize("versions", [1, 3])
def test_a_recreated_table_is_refused(lake, versions):
    """A table that was deleted and created again is not the one that the run wrote."""
    with run("load") as load:
        lake.append("a", 2)
    os.rename(lake.uri("a"), lake.uri("old"))
    (table,) = lake.undo(load).tables
    assert (table.state, table.reason) == (
        UndoState.REFUSED,
        "there is no log at its location: the table was deleted or moved",
    )
    for number in range(versions):
        with suppressed():
            lake.append("a", number)
    (table,) = lake.undo(load, apply=True, discard_later=True).tables
    assert table.state is UndoState.REFUSED
    expected = {
        1: "its log does not have all commits since version 1",
        3: "version 1 in its log is of another write: the table was recreated",
    }
    assert table.reason == expected[versions]


@pytest.mark.slow
def test_a_log_without_the_commits_is_refused(lake):
    """If commits since the run were removed from the log, later changes of others cannot be excluded."""
    with run("load") as load:
        lake.append("a", 2)
        lake.append("a", 3)
    DeltaTable(lake.uri("a")).create_checkpoint()
    Path(lake.uri("a"), "_delta_log", f"{1:020d}.json").unlink()
    (table,) = lake.undo(load).tables
    assert table.reason == "its log does not have all commits since version 1"


@pytest.mark.slow
@pytest.mark.parametrize("discard_later", [False, True])
def test_a_commit_after_the_plan_is_never_discarded(lake, monkeypatch, discard_later):
    """If another writer commits between the plan and the restore, the table is refused, also with `discard_later`."""
    with run("load") as load:
        lake.append("a", 2)
    restored = WrittenTable._restored

    def commit_first(table, planned):
        with suppressed():
            lake.append("a", 3)
        return restored(table, planned)

    monkeypatch.setattr(WrittenTable, "_restored", commit_first)
    (table,) = lake.undo(load, apply=True, discard_later=discard_later).tables
    assert table.state is UndoState.REFUSED
    assert (
        "after the plan: version 2" if discard_later else "discarded: version 2"
    ) in table.reason
    assert lake.numbers("a") == [1, 2, 3]


@pytest.mark.slow
def test_a_restore_is_repeated_after_maintenance_of_others(lake, monkeypatch):
    """A commit without changes between the plan and the restore only delays the restore."""
    with run("load") as load:
        lake.append("a", 2)
    restored, calls = WrittenTable._restored, []

    def optimize_first(table, planned):
        if not calls:
            with suppressed():
                DeltaTable(lake.uri("a")).optimize.compact()
        calls.append(planned.current)
        return restored(table, planned)

    monkeypatch.setattr(WrittenTable, "_restored", optimize_first)
    assert lake.states(lake.undo(load, apply=True)) == {"a": "restored"}
    assert (calls, lake.numbers("a")) == ([1, 2], [1])


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_concurrent_appends_are_never_lost(lake, size):
    """While another writer appends, each of its rows is in the table afterwards, or the undo lists it."""
    with run("load") as load:
        lake.append("a", -1)
    stop, appended, most = threading.Event(), [], size(200, 200, 40)

    def append():
        with suppressed():
            while not stop.is_set() and len(appended) < most:
                try:
                    lake.append("a", len(appended) + 2)
                except CommitFailedError:  # the restore has changed the metadata meanwhile
                    continue
                appended.append(len(appended) + 2)

    thread = threading.Thread(target=append)
    thread.start()
    try:
        discarded = []
        for _ in range(10):
            (table,) = lake.undo(load, apply=True, discard_later=True).tables
            if table.state is UndoState.RESTORED:
                discarded = [each.version for each in table.later]
                break
    finally:
        stop.set()
        thread.join()
    if table.state is not UndoState.RESTORED:
        (table,) = lake.undo(load, apply=True, discard_later=True).tables
        discarded = [each.version for each in table.later]
    # Version v of the other writer has the number v: the run committed version 1.
    assert lake.numbers("a") == [1, *(number for number in appended if number not in discarded)]


@pytest.mark.slow
def test_two_undos_at_a_time_restore_once(lake):
    """Of concurrent undos of a run, one restores the table, and all say that it is restored."""
    with run("load") as load:
        lake.append("a", 2)
    done = []
    threads = [
        threading.Thread(target=lambda: done.append(lake.undo(load, apply=True))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [lake.states(plan) for plan in done] == [{"a": "restored"}] * 4
    assert (DeltaTable(lake.uri("a")).version(), lake.numbers("a")) == (2, [1])


@pytest.mark.slow
def test_a_failed_restore_is_reported(lake):
    """If the engine refuses to restore a table, it has failed and says why; others are restored."""
    with run("load") as load:
        lake.append("a", 2)
        lake.append("b", 2)
    protocol = {"minReaderVersion": 1, "minWriterVersion": 7, "writerFeatures": ["unknown"]}
    commit = Path(lake.uri("a"), "_delta_log", f"{2:020d}.json")
    commit.write_text(json.dumps({"protocol": protocol}))
    done = lake.undo(load, apply=True, discard_later=True)
    assert lake.states(done) == {"a": "failed", "b": "restored"}
    assert done.tables[0].reason
    assert not done.is_complete
    assert (lake.numbers("a"), lake.numbers("b")) == ([1, 2], [1])


@pytest.mark.slow
def test_an_append_only_table_is_refused(lake):
    """delta-rs would restore it, although rows must not be removed from it."""
    with suppressed():
        DeltaTable(lake.uri("a")).alter.set_table_properties({"delta.appendOnly": "true"})
    with run("load") as load:
        lake.append("a", 2)
    (table,) = lake.undo(load, apply=True).tables
    assert (table.state, table.reason) == (
        UndoState.REFUSED,
        "it is append-only: a restore would remove rows",
    )


@pytest.mark.slow
def test_a_restore_that_raises_after_its_commit_has_restored(lake):
    """A checkpoint that fails after the commit is an error of the engine, and the table is restored."""
    with suppressed():
        DeltaTable(lake.uri("a")).alter.set_table_properties({"delta.checkpointInterval": "4"})
    with run("load") as load:
        lake.append("a", 2)
    Path(lake.uri("a"), "_delta_log", f"{3:020d}.checkpoint.parquet").mkdir()
    done = lake.undo(load, apply=True)
    assert (lake.states(done), lake.numbers("a")) == ({"a": "restored"}, [1])
    (row,) = writes(run=done.undo_run_id, root=lake.root)
    assert (row.result, row.landed, row.version) == ("error", "yes", 3)


@pytest.mark.slow
def test_exactly_once_keys_stay_committed(lake):
    """A note says that the application transactions of the run are not undone."""
    with run("load") as load, once("day-1"):
        lake.append("a", 2)
    done = lake.undo(load, apply=True)
    assert "exactly-once writes with the same keys are skipped" in " ".join(done.notes)
    with once("day-1"):
        lake.append("a", 2)
    assert lake.numbers("a") == [1]


@pytest.mark.slow
def test_the_undo_observes_itself_in_a_process_that_is_not_instrumented(lake):
    """Without instrumentation, the undo instruments the process for its time."""
    with run("load") as load:
        lake.append("a", 2)
    DeltaLakeInstrumentor().uninstrument()
    done = lake.undo(load, apply=True)
    assert not DeltaLakeInstrumentor().is_instrumented_by_opentelemetry
    (row,) = writes(run=done.undo_run_id, root=lake.root)
    assert (row.operation, row.table_name, row.version) == ("RESTORE", "a", 2)


@pytest.mark.slow
def test_an_unknown_run_is_an_error(lake):
    """An id that no run has, and a missing ledger, are lookup errors."""
    with pytest.raises(LedgerLookupError, match="no run begins with nothing"):
        undo("nothing", root=lake.root)
    with pytest.raises(LedgerLookupError, match="there is no ledger"):
        undo("nothing", apply=True, root=lake.folder / "elsewhere")
    assert not (lake.folder / "elsewhere").exists()


@pytest.mark.slow
def test_a_restore_is_no_write_of_a_block_of_the_caller(lake):
    """In an open `once` block the restore is committed, without the transaction of the block."""
    with run("load") as load:
        lake.append("a", 2)
    with once("day-2") as block:
        lake.append("b", 2)
        assert lake.states(lake.undo(load, apply=True)) == {"a": "restored"}
        assert len(block.receipts) == 1
    with suppressed():
        assert DeltaTable(lake.uri("a")).transaction_version(block.app_id) is None


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_tables_on_an_object_store_are_restored(server, tmp_path):
    """Ledger and tables on S3-compatible storage: plan, restore, second undo, and a missing file."""
    settings = Settings(
        cache_root="s3://lake/undo/ledger",
        storage_options=server.options,
        spool_dir=str(tmp_path / "spool"),
    )
    place = "s3://lake/undo/flights"
    options = {"storage_options": server.options}
    rows = pa.table({"x": [1, 2], "p": ["a b%/ö", "c=d"]})
    DeltaLakeInstrumentor().instrument(settings=settings)
    write_deltalake(place, rows, partition_by=["p"], **options)
    with run("load") as load:
        write_deltalake(place, rows, mode="overwrite", **options)
        DeltaTable(place, **options).delete("x = 1")
    (planned,) = undo(load.run_id, settings=settings).tables
    assert (planned.state, planned.before, planned.current) == (UndoState.RESTORE, 0, 2)
    for _ in range(2):
        (table,) = undo(load.run_id, settings=settings, apply=True).tables
        assert (table.state, table.restored_version) == (UndoState.RESTORED, 3)
    with run("last") as last:
        DeltaTable(place, **options).delete()
    DeltaLakeInstrumentor().uninstrument()
    file = DeltaTable(place, version=3, **options).file_uris()[0].removeprefix(f"{place}/")
    DeltaStorageHandler(place, server.options).delete_file(file)
    (table,) = undo(last.run_id, settings=settings).tables
    assert (table.state, table.before) == (UndoState.REFUSED, 3)
    assert table.reason == f"files of version 3 were deleted, for example by a vacuum: {file}"
