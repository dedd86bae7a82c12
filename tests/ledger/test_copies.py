"""Listings of a remote ledger copy its small tables: the same rows as in the tables, with few requests."""

from __future__ import annotations

import gc
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import write_deltalake
from deltalake.fs import DeltaStorageHandler

from deltawitness import Ledger
from deltawitness.answers.lists import WriteFilter, list_runs, list_writes
from deltawitness.answers.lookup import similar_run_ids
from deltawitness.commit.private_api import writable_store
from deltawitness.ledger.tables import copies
from deltawitness.ledger.tables.listing import LedgerListing
from deltawitness.ledger.tables.schema import INVENTORY, RUNS, LedgerRoot
from helpers.request_counts import counted

pytestmark = pytest.mark.slow

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)


@pytest.fixture
def root(server, tmp_path):
    return LedgerRoot(f"s3://lake/{tmp_path.name}", server.options)


def append(root, *names, table=INVENTORY):
    """Append a row for each name, each in a commit of its own; return the open table."""
    opened = root.open_or_create(table)
    key, time = ("write_id", "event_time") if table is INVENTORY else ("host", "start_time")
    for name in names:
        row = {"event_date": NOW.date(), time: NOW, key: name, "run_id": f"run-{name}"}
        rows = pa.Table.from_pylist([row], schema=table.schema)
        write_deltalake(opened, rows, mode="append", storage_options=root.storage_options)
    return opened


def ids(listing):
    return [row["write_id"] for row in listing.rows(INVENTORY, order="write_id")]


def is_copied(listing):
    opened = listing._opened[INVENTORY].main
    return opened is not None and opened.table_uri.startswith(("/", "file:"))


def test_a_copy_takes_one_request_per_file(root, server):
    """Shards, checkpoint pointer, log, two commits; then the data file. The other table is not opened."""
    append(root, "a")
    append(root, "b", table=RUNS)
    listing = LedgerListing(root)
    requests = server.requests(lambda: list_writes(listing, WriteFilter()))
    assert counted(requests) == {
        "LIST": 1,
        "LIST log": 1,
        "GET checkpoint pointer": 1,
        "GET commit": 2,
        "GET data": 1,
    }
    rows = list_writes(listing, WriteFilter())
    again = server.requests(lambda: similar_run_ids(listing, rows))
    assert (again, similar_run_ids(listing, rows)) == ([], ["run-a"])
    assert [row["run_id"] for row in list_runs(listing)] == ["run-b"]


def test_a_checkpoint_is_copied_with_the_commits_after_it(root, server):
    """A checkpoint is one file; commits after it are found without a listing, however many there are."""
    for names in ("ab", "", "c", "defgh"):
        table = append(root, *names)
        if names == "ab":
            table.create_checkpoint()
        listing = LedgerListing(root)
        requests = server.requests(lambda listing=listing: ids(listing))
        assert (is_copied(listing), counted(requests)["LIST log"]) == (True, 0)
    assert ids(listing) == list("abcdefgh")


def test_a_log_without_its_first_commits_is_copied(root):
    """Log cleanup has deleted what the checkpoint has."""
    table = append(root, *"abc")
    table.create_checkpoint()
    store = DeltaStorageHandler(root.uri_of(INVENTORY), root.storage_options)
    for version in range(3):
        store.delete_file(f"_delta_log/{version:020d}.json")
    listing = LedgerListing(root)
    assert (ids(listing), is_copied(listing)) == (list("abc"), True)


def test_an_old_pointer_to_a_deleted_checkpoint_is_not_trusted(root):
    """A process died between a checkpoint and its pointer, and the commits in between are deleted."""
    append(root, "a").create_checkpoint()
    store = DeltaStorageHandler(root.uri_of(INVENTORY), root.storage_options)
    with store.open_input_file("_delta_log/_last_checkpoint") as file:
        pointer = file.read()
    append(root, *"bc").create_checkpoint()
    stream = writable_store(root.uri_of(INVENTORY), root.storage_options).open_output_stream(
        "_delta_log/_last_checkpoint", None
    )
    stream.write(bytes(pointer))
    stream.close()
    for version in range(3):
        store.delete_file(f"_delta_log/{version:020d}.json")
    listing = LedgerListing(root)
    assert (ids(listing), is_copied(listing)) == (list("abc"), False)


@pytest.mark.parametrize(
    ("limit", "has_checkpoint"),
    [("MAX_FILES", True), ("MAX_BYTES", False), ("MAX_ACTIONS", True), ("MAX_COMMITS", False)],
)
def test_a_large_table_is_read_where_it_is(root, limit, has_checkpoint, monkeypatch):
    """The rows are the same; a query reads the files that it needs."""
    table = append(root, *"ab")
    if has_checkpoint:
        table.create_checkpoint()
    monkeypatch.setattr(copies, limit, 1)
    listing = LedgerListing(root)
    assert (ids(listing), is_copied(listing)) == (["a", "b"], False)


def test_a_ledger_with_shards_has_the_rows_of_both(root):
    append(root, "a")
    append(root.of_shard("team"), "b")
    assert ids(LedgerListing(root)) == ["a", "b"]


def test_a_ledger_that_does_not_exist_is_not_copied(root):
    listing = LedgerListing(root)
    assert (listing.exists(), list_writes(listing, WriteFilter())) == (False, [])


def test_the_copies_are_deleted_with_the_listing(root):
    append(root, "a")
    listing = LedgerListing(root)
    assert ids(listing) == ["a"]
    folder = Path(listing._copies._folder)
    assert folder.stat().st_mode & 0o077 == 0
    del listing
    gc.collect()
    assert not folder.exists()


def test_a_frame_reads_its_copy_as_long_as_it_lives(root, server):
    """The second read needs no request, and the rows are those of the version that was opened."""
    append(root, "a")
    frame = Ledger(root.uri, root.storage_options).inventory().select("write_id")
    append(root, "b")
    gc.collect()
    assert frame.to_pydict() == {"write_id": ["a"]}
    assert server.requests(frame.collect) == []
