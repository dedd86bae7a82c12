"""Contract tests of delta-rs' private API: a release that changes a function we call fails here."""

from __future__ import annotations

import pyarrow as pa
from deltalake import DeltaTable, write_deltalake
from deltalake._internal import RawDeltaTable

from deltawitness.commit.private_api import (
    modified_at,
    modified_ms_of,
    read_file,
    remote_store,
    sized_store,
    storage_options_of,
    store_of,
    writable_store,
)

DATA = pa.table({"id": [1, 2, 3]})


def test_methods_of_the_raw_table_can_be_replaced_in_place(monkeypatch, tmp_path):
    """`RawDeltaTable` accepts attributes, and methods are looked up on the class."""
    seen = []
    original = RawDeltaTable.write

    def noted(*args, **kwargs):
        seen.append(sorted(kwargs))
        return original(*args, **kwargs)

    write_deltalake(tmp_path, DATA)
    monkeypatch.setattr(RawDeltaTable, "write", noted)
    write_deltalake(tmp_path, DATA, mode="append")
    assert len(seen) == 1
    assert {"batch_schema", "commit_properties", "mode"} <= set(seen[0])


def test_a_handle_is_at_the_version_of_its_own_write(tmp_path):
    """After a write, a handle has that version, also when another writer came in between."""
    write_deltalake(tmp_path, DATA)
    mine, other = DeltaTable(tmp_path), DeltaTable(tmp_path)
    write_deltalake(other, DATA, mode="append")
    write_deltalake(mine, DATA, mode="append")
    assert (other.version(), mine.version()) == (1, 2)


def test_a_read_past_the_end_returns_the_complete_file(tmp_path):
    """A request for more bytes than there are returns all of the file; a missing file is None."""
    write_deltalake(tmp_path, DATA)
    path, missing = "_delta_log/00000000000000000000.json", "_delta_log/00000000000000000009.json"
    content = (tmp_path / path).read_bytes()
    store = remote_store(str(tmp_path), None, [path, missing])
    assert read_file(store, path) == content
    assert read_file(store, missing) is None
    assert read_file(store_of(DeltaTable(tmp_path)._table, [path]), path) == content


def test_a_file_of_a_known_size_is_read_in_parts(tmp_path):
    """A client that knows a file's size reads it part by part, and nothing after its end."""
    write_deltalake(tmp_path, DATA)
    path = "_delta_log/00000000000000000000.json"
    content = (tmp_path / path).read_bytes()
    source = sized_store(str(tmp_path), None, {path: len(content)}).open_input_file(path)
    half = len(content) // 2
    parts = [bytes(source.read(half)), bytes(source.read(len(content) - half))]
    assert b"".join(parts) == content


def test_a_file_client_writes_a_file_and_deletes_a_folder(tmp_path):
    """A file is complete when its stream is closed; a folder is deleted with its files."""
    store = writable_store(str(tmp_path), None)
    stream = store.open_output_stream("a/b/c.json")
    stream.write(b"{}")
    stream.close()
    assert (tmp_path / "a/b/c.json").read_bytes() == b"{}"
    store.delete_dir("a/b")
    assert not (tmp_path / "a/b/c.json").exists()


def test_a_table_has_its_storage_options(tmp_path):
    """A table has its storage options under the private name that `storage_options_of` reads."""
    write_deltalake(tmp_path, DATA)
    assert storage_options_of(DeltaTable(tmp_path, storage_options={"a": "b"})) == {"a": "b"}


def test_a_file_of_a_table_has_a_modification_time(tmp_path):
    """The engine's file client gives the modification time of a commit, with its time zone."""
    write_deltalake(tmp_path, DATA)
    path = "_delta_log/00000000000000000000.json"
    found = modified_at(DeltaTable(tmp_path), path)
    written = (tmp_path / path).stat()
    assert abs(found.timestamp() - written.st_mtime) < 1
    stores = remote_store(str(tmp_path), None, ()), store_of(DeltaTable(tmp_path)._table, [path])
    for store in stores:
        assert modified_ms_of(store, path) == written.st_mtime_ns // 1_000_000
        assert modified_ms_of(store, "_delta_log/00000000000000000009.json") is None
