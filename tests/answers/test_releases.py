"""A release names a set of table versions, which can be compared, verified, restored and registered."""

from __future__ import annotations

import shutil
import threading

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from deltawitness import (
    DeltaLakeInstrumentor,
    ObservedSessionContext,
    ReleaseTableState,
    Settings,
    UndoState,
    create_release,
    diff_releases,
    doctor,
    drop_release,
    history,
    releases,
    restore_release,
    run,
    show,
    verify_release,
)
from deltawitness.answers.releases import question, restore
from deltawitness.answers.releases.needed import files_that_releases_need
from deltawitness.exceptions import LedgerLookupError, ReleaseError
from deltawitness.locations import canonical_uri
from deltawitness.semconv import RESTORED_RELEASE
from helpers.new_processes import PROCESSES

TAKEN = "there is a release same"


def needed_files(settings, uri=None):
    found = releases(settings=settings)
    return files_that_releases_need(found, settings, uri)


@pytest.fixture
def lake(tmp_path):
    """Two tables, one of them partitioned, without a ledger."""
    return Lake(tmp_path)


class Lake:
    """Tables in a folder, and the root of a ledger."""

    def __init__(self, folder):
        self.folder, self.root = folder, str(folder / "ledger")
        self.settings = Settings(cache_root=self.root)
        rows = pa.table({"id": [1, 2, 3], "p": ["a", "b c", "b c"]})
        write_deltalake(self.uri("orders"), rows, partition_by=["p"])
        write_deltalake(self.uri("items"), pa.table({"x": [1]}))

    def uri(self, name):
        return str(self.folder / "lake" / name)

    def open(self, name, version=None):
        return DeltaTable(self.uri(name), version=version)

    def create(self, name, *tables, **options):
        uris = [self.uri(table) for table in tables or ("orders", "items")]
        return create_release(name, uris, root=self.root, **options)

    def restore(self, name, **options):
        return restore_release(name, root=self.root, **options)

    def ids(self):
        return sorted(self.open("orders").to_pyarrow_table()["id"].to_pylist())

    def needed(self):
        return {
            (each.release, each.table.name): (
                each.state.value,
                each.vacuum_now,
                each.vacuum_later,
                each.missing,
            )
            for each in needed_files(self.settings)
        }

    def findings(self):
        found = doctor(self.uri("orders"), self.uri("items"), root=self.root).findings
        return [(each.severity.value, each.text) for each in found if each.check == "release"]


def test_a_release_has_the_versions_of_its_tables(lake):
    """Without a version it is the last one. The run that creates a release is recorded with it."""
    lake.open("orders").delete("id = 1")
    with run("publish") as publish:
        made = lake.create("nov", "orders", "items@0", message="end of month")
    assert [str(table) for table in made.tables] == ["orders@1", "items@0"]
    assert (made.message, made.run_id) == ("end of month", publish.run_id)
    write_deltalake(lake.uri("items"), pa.table({"x": [2]}), mode="append")
    lake.create("dec", "items")
    found = releases(root=lake.root)
    assert [each.name for each in found] == ["dec", "nov"]
    assert found[1] == made
    assert found[0].run_id is None
    assert show(made.tables[0].uri, root=lake.root).table.version == 1


def test_an_invalid_release_is_not_created(lake):
    """The error says why; nothing is written."""
    cases = {
        "release 'a b': expected 1 to 128": ("a b", ["orders"]),
        "needs at least one table": ("nov", []),
        "two tables of the release are named orders": ("nov", ["orders", "orders@0"]),
        "orders@7 cannot be read": ("nov", ["orders@7"]),
    }
    for message, (name, tables) in cases.items():
        with pytest.raises(ReleaseError, match=message):
            create_release(name, [lake.uri(each) for each in tables], root=lake.root)
    with pytest.raises(LedgerLookupError, match="no table has the name, id or location nothing"):
        create_release("nov", ["nothing"], root=lake.root)
    assert releases(root=lake.root) == []


def test_tables_of_a_release_are_the_last_versions_at_one_time(lake, monkeypatch):
    """A commit between the reads of two tables makes the release read all of them again."""
    opened = question.open_version
    calls = []

    def open_version(named, settings):
        calls.append(named.name)
        found = opened(named, settings)
        if calls == ["orders", "items"]:
            lake.open("orders").delete("id = 1")
        return found

    monkeypatch.setattr(question, "open_version", open_version)
    assert [str(table) for table in lake.create("nov").tables] == ["orders@1", "items@0"]
    assert calls == ["orders", "items"] * 2


@pytest.mark.slow
def test_one_of_several_processes_creates_a_name(lake):
    """The others get an error, and other names are created at the same time."""
    with PROCESSES.Pool(3) as pool:
        names = ["same", "a", "same", "b", "same", "c"]
        arguments = [(name, [lake.uri("orders")], lake.root) for name in names]
        done = pool.starmap(_create, arguments, chunksize=1)
    assert sorted(done) == ["a", "b", "c", "same", *[TAKEN] * 2]
    assert sorted(each.name for each in releases(root=lake.root)) == ["a", "b", "c", "same"]


def _create(name, tables, root):
    try:
        return create_release(name, tables, root=root).name
    except ReleaseError as error:
        return str(error)


def test_one_of_several_threads_creates_a_name(lake):
    """The table of releases is created once as well."""
    barrier, done = threading.Barrier(4), []

    def create():
        barrier.wait(30)
        done.append(_create("same", [lake.uri("orders")], lake.root))

    threads = [threading.Thread(target=create) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(done) == ["same", *[TAKEN] * 3]
    assert len(releases(root=lake.root)) == 1


@pytest.mark.slow
def test_a_dropped_release_is_gone(lake):
    """Nothing needs its files any more, and its name is not created again."""
    lake.create("nov")
    lake.create("dec")
    lake.open("orders").delete("id = 1")
    assert drop_release("nov", root=lake.root).name == "nov"
    assert [each.name for each in releases(root=lake.root)] == ["dec"]
    assert list(lake.needed()) == [("dec", "orders")]
    with pytest.raises(LedgerLookupError, match="there is no release nov"):
        drop_release("nov", root=lake.root)
    with pytest.raises(LedgerLookupError, match="no release begins with no"):
        verify_release("no", root=lake.root)
    with pytest.raises(ReleaseError, match="release nov was dropped, and a name is created once"):
        lake.create("nov")


@pytest.mark.slow
def test_releases_are_compared(lake):
    """By table: rows, columns, and tables that only one release has."""
    lake.create("nov")
    assert not diff_releases("nov", root=lake.root).is_different
    lake.open("orders").delete("id = 1")
    lake.open("items").optimize.compact()
    write_deltalake(lake.uri("new"), pa.table({"k": [1]}))
    lake.create("dec", "orders", "new")
    found = diff_releases("nov", "dec", key="id", root=lake.root)
    changes = {each.name: each.change and each.change.value for each in found.tables}
    assert changes == {"items": "removed", "new": "added", "orders": "changed"}
    (orders,) = (each for each in found.tables if each.name == "orders")
    assert (orders.diff.rows.key, orders.diff.rows.removed) == (("id",), 1)
    assert found.is_different
    to_last = diff_releases("n", rows=False, root=lake.root)
    assert (to_last.b, to_last.is_different) == (None, True)
    with pytest.raises(LedgerLookupError, match="no release begins with x; the last ones are nov"):
        diff_releases("x", root=lake.root)


@pytest.mark.slow
def test_a_vacuum_of_files_that_a_release_needs_is_found(lake):
    """Before a vacuum, the files that it would delete now or later are counted; after it, the missing ones."""
    lake.create("nov")
    assert lake.needed() == {}
    lake.open("orders").update({"id": "id + 10"})
    assert lake.needed() == {("nov", "orders"): ("ok", 0, 2, 0)}
    assert lake.findings() == [
        ("info", "release nov needs orders@0: a later vacuum would delete 2 of its files")
    ]
    assert verify_release("nov", root=lake.root).is_ok
    retention = {"delta.deletedFileRetentionDuration": "interval 0 seconds"}
    lake.open("orders").alter.set_table_properties(retention)
    assert lake.needed() == {("nov", "orders"): ("ok", 2, 0, 0)}
    (orders,) = needed_files(lake.settings, canonical_uri(lake.uri("orders")))
    assert orders.message == (
        "release nov needs orders@0: a vacuum would now delete 2 of its files"
    )
    assert needed_files(lake.settings, canonical_uri(lake.uri("items"))) == []
    assert lake.findings() == [("warning", orders.message)]
    lake.open("orders").vacuum(dry_run=False)
    assert lake.findings() == [("error", "release nov needs orders@0: 2 of its files were deleted")]
    assert lake.needed() == {("nov", "orders"): ("incomplete", 0, 0, 2)}
    found = verify_release("nov", root=lake.root)
    assert not found.is_ok
    assert [each.state for each in found.tables] == [
        ReleaseTableState.INCOMPLETE,
        ReleaseTableState.OK,
    ]
    assert (len(found.tables[0].missing), found.tables[0].files) == (2, 2)
    (orders, _) = lake.restore("nov").tables
    assert orders.state is UndoState.REFUSED
    assert "were deleted, for example by a vacuum" in orders.reason

    shutil.rmtree(lake.uri("items"))
    write_deltalake(lake.uri("items"), pa.table({"x": [1]}))
    shutil.rmtree(lake.uri("orders"))
    states = [each.state.value for each in verify_release("nov", root=lake.root).tables]
    assert states == ["unreadable", "recreated"]
    reasons = [each.reason for each in lake.restore("nov").tables]
    assert reasons[0].startswith("it cannot be read: ")
    assert reasons[1] == "the table was deleted and created again"
    lake_diff = diff_releases("nov", root=lake.root)
    assert [(each.name, each.diff) for each in lake_diff.tables] == [
        ("items", None),
        ("orders", None),
    ]
    assert lake_diff.tables[0].problem == "items@0: the table was deleted and created again"
    assert lake_diff.is_different


@pytest.mark.slow
def test_a_release_is_restored(lake):
    """A plan lists the commits that are discarded; `apply` restores, and a second time does nothing."""
    DeltaLakeInstrumentor().instrument(settings=lake.settings)
    lake.create("nov")
    with run("load") as load:
        lake.open("orders").delete("id = 1")
        write_deltalake(
            lake.uri("orders"),
            pa.table({"id": [9], "p": ["z"], "q": [1]}),
            mode="append",
            schema_mode="merge",
        )
    plan = lake.restore("nov")
    orders, items = plan.tables
    assert (orders.state, orders.before, orders.current) == (UndoState.RESTORE, 0, 2)
    assert [(each.version, each.run_id) for each in orders.later] == [
        (1, load.run_id),
        (2, load.run_id),
    ]
    assert items.state is UndoState.UNCHANGED
    assert (plan.is_applied, plan.is_complete, lake.open("orders").version()) == (False, False, 2)

    done = lake.restore("nov", apply=True)
    assert (done.is_complete, done.tables[0].restored_version) == (True, 3)
    assert lake.ids() == [1, 2, 3]
    assert lake.open("orders").schema().to_arrow().names == ["id", "p"]
    (commit,) = history(lake.uri("orders"), 1)
    assert commit.metadata[RESTORED_RELEASE] == "nov"
    shown = show(done.run_id, root=lake.root)
    assert (shown.run.job, shown.run.message) == ("release", "restore of release nov")
    again = lake.restore("nov", apply=True)
    assert (again.is_complete, again.run_id) == (True, None)
    assert lake.open("orders").version() == 3
    DeltaLakeInstrumentor().uninstrument()


@pytest.mark.slow
def test_a_commit_after_the_plan_is_not_discarded(lake, monkeypatch):
    """The restore of this table fails, and the others are restored."""
    lake.create("nov")
    lake.open("orders").delete("id = 1")
    write_deltalake(lake.uri("items"), pa.table({"x": [2]}), mode="append")
    commit = restore.commit_restore

    def commit_restore(place, *arguments):
        if place.uri.endswith("orders"):
            lake.open("orders").delete("id = 2")
        return commit(place, *arguments)

    monkeypatch.setattr(restore, "commit_restore", commit_restore)
    orders, items = lake.restore("nov", apply=True).tables
    assert orders.state is UndoState.FAILED
    assert orders.reason == "others committed after the plan: version 2; restore again"
    assert lake.ids() == [3]
    assert (items.state, items.restored_version) == (UndoState.RESTORED, 2)
    monkeypatch.undo()
    assert lake.restore("nov", apply=True).is_complete
    assert lake.ids() == [1, 2, 3]


def test_a_session_serves_the_tables_of_a_release(lake):
    """At their versions, which later commits do not change. A recreated table is refused."""
    lake.create("nov")
    lake.open("orders").delete("id = 1")
    ctx = ObservedSessionContext()
    assert ctx.register_release("nov", root=lake.root) == ("orders", "items")
    assert ctx.table("orders").count() == 3
    ctx.refresh()
    assert ctx.sql("SELECT count(*) AS n FROM orders, items").to_pydict() == {"n": [3]}
    with pytest.raises(ReleaseError, match="there is no release dec"):
        ctx.register_release("dec", root=lake.root)
    shutil.rmtree(lake.uri("items"))
    write_deltalake(lake.uri("items"), pa.table({"x": [1]}))
    other = ObservedSessionContext()
    with pytest.raises(ReleaseError, match="items@0 of release nov: the table was deleted"):
        other.register_release("nov", root=lake.root)
    assert not other.table_exist("orders")


@pytest.mark.slow
@pytest.mark.parametrize("place", ["remote", "local"])
def test_a_release_of_tables_on_an_object_store(server, tmp_path, place):
    """The ledger is on the store or on a local disk; both need the storage options."""
    options = server.options
    root = f"s3://lake/releases-{place}/root" if place == "remote" else str(tmp_path / "root")
    settings = Settings(
        cache_root=root, storage_options=options, spool_dir=str(tmp_path / "spools")
    )
    uris = [f"s3://lake/releases-{place}/{name}" for name in ("orders", "items")]
    for uri in uris:
        write_deltalake(uri, pa.table({"id": [1, 2]}), storage_options=options)
    create_release("nov", uris, settings=settings)
    with pytest.raises(ReleaseError, match="there is a release nov"):
        create_release("nov", uris, settings=settings)
    DeltaTable(uris[0], storage_options=options).delete("id = 1")
    assert diff_releases("nov", settings=settings).is_different
    assert [each.vacuum_later for each in needed_files(settings)] == [1]
    ctx = ObservedSessionContext()
    ctx.register_release("nov", root=root, storage_options=options)
    assert ctx.table("orders").count() == 2
    assert restore_release("nov", apply=True, settings=settings).is_complete
    assert verify_release("nov", settings=settings).is_ok
