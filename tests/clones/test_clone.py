"""A clone is a table with the log and the data files of another one, which does not change with it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from deltawitness.clones.clone import clone_table, last_commit, link_files
from deltawitness.clones.folder import CloneFolder
from deltawitness.exceptions import PlanError


@pytest.fixture
def table(tmp_path):
    """The path of a partitioned table with a checkpoint, a removed file and a table in a subfolder."""
    place = tmp_path / "lake" / "t"
    rows = pa.table({"id": [1, 2, 3], "p": ["a", "b c", "a"]})
    write_deltalake(place, rows, partition_by=["p"])
    opened = DeltaTable(place)
    opened.delete("id = 3")
    opened.create_checkpoint()
    write_deltalake(place, rows, mode="append")
    write_deltalake(place / "inner", pa.table({"x": [1]}))
    return place


def contents(folder):
    return {str(each): each.read_bytes() for each in folder.rglob("*") if each.is_file()}


def ids(place, version=None):
    return sorted(DeltaTable(place, version=version).to_pyarrow_table()["id"].to_pylist())


@pytest.mark.slow
@pytest.mark.parametrize("way", ["hard link", "symbolic link", "copy"])
def test_a_clone_can_be_changed_and_vacuumed_without_a_change_of_the_table(
    table, tmp_path, monkeypatch, way
):
    """Where the disk has no hard links, a clone has symbolic links, else copies."""
    for name in {"hard link": (), "symbolic link": ("link",), "copy": ("link", "symlink")}[way]:
        monkeypatch.setattr(os, name, fail)
    before, clone = contents(table), tmp_path / "clone"
    clone_table(table, clone)
    assert not (clone / "inner").exists()
    assert ids(clone) == ids(table) == [1, 1, 2, 2, 3]
    assert ids(clone, version=0) == [1, 2, 3]
    opened = DeltaTable(clone)
    opened.update({"id": "id + 10"})
    opened.optimize.compact()
    opened.vacuum(0, dry_run=False, enforce_retention_duration=False)
    assert ids(clone) == [11, 11, 12, 12, 13]
    assert contents(table) == before
    link_files(table, clone)
    assert ids(clone, version=2) == [1, 1, 2, 2, 3]


def fail(*_):
    raise OSError("not supported")


def test_the_last_commit_tells_a_table_from_one_that_was_created_again(table):
    """The version is the same, and the hash of its commit differs."""
    version, digest = last_commit(table)
    assert (version, len(digest)) == (2, 64)
    shutil.rmtree(table)
    assert last_commit(table) == (None, None)
    for number in range(3):
        write_deltalake(table, pa.table({"x": [number]}), mode="append")
    assert last_commit(table)[0] == 2
    assert last_commit(table)[1] != digest


def test_each_location_has_one_clone(table, tmp_path):
    """All spellings of a location have the same clone, also in another process that uses the folder."""
    folder = CloneFolder(tmp_path / "plan")
    (tmp_path / "link").symlink_to(table)
    spellings = [str(table), f"file://{table}/", str(tmp_path / "link"), f"{table}/../t"]
    places = {folder.place_of(each) for each in spellings}
    (place,) = places | {CloneFolder(tmp_path / "plan").place_of(str(table))}
    assert Path(place).name == "t"
    assert folder.place_of(place) == place
    (clone,) = folder.clones()
    assert (clone.path, clone.version) == (str(table), 2)


def test_a_location_without_a_table_has_an_empty_clone(tmp_path):
    """Nothing is created at the location; files of a folder are linked on request."""
    folder = CloneFolder(tmp_path / "plan")
    place = folder.place_of(str(tmp_path / "new"))
    assert not Path(place).exists()
    assert not (tmp_path / "new").exists()
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "f.parquet").write_bytes(b"x")
    place = Path(folder.place_of(str(tmp_path / "files"), with_files=True))
    assert (place / "f.parquet").read_bytes() == b"x"
    assert [clone.version for clone in folder.clones()] == [None, None]


def test_object_storage_is_refused(tmp_path):
    """The error names the location without credentials, and the folder records it."""
    folder = CloneFolder(tmp_path / "plan")
    with pytest.raises(PlanError, match="s3://bucket/t: it is on an object store"):
        folder.place_of("s3://key:secret@bucket/t")
    assert folder.refused() == [
        "s3://bucket/t: it is on an object store; only local tables can be planned"
    ]
