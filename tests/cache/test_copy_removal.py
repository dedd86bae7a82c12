"""Which local copies of entries are removed when another one is made."""

from __future__ import annotations

import gc
import hashlib
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from deltawitness.cache.entries.copies import EntryCopies


@pytest.fixture
def make(tmp_path):
    """Write a version of a table, and copy it; return the version."""

    def make(copies, name):
        uri = tmp_path / name
        write_deltalake(uri, pa.table({"x": [1, 2]}), mode="overwrite")
        version = DeltaTable(uri).version()
        commit = Path(uri, "_delta_log", f"{version:020}.json").read_bytes()
        made = copies.make(str(uri), version, hashlib.sha256(commit).hexdigest(), None)
        assert made is not None
        return made

    return make


def names_of(copies, tmp_path, names):
    return {name for name in names if copies.newest(str(tmp_path / name)) is not None}


def test_a_copy_of_a_newer_version_replaces_the_older_one(make, tmp_path):
    copies = EntryCopies(tmp_path / "copies", 1 << 30)
    make(copies, "a")
    gc.collect()  # nothing uses it
    newer = make(copies, "a")
    assert list(newer.folder.parent.glob("*-*")) == [newer.folder]


def test_as_few_copies_are_removed_as_there_must_be(make, tmp_path):
    """The least recently used ones: the others are served further on."""
    size = make(EntryCopies(tmp_path / "first", 1 << 30), "a").size
    copies = EntryCopies(tmp_path / "copies", size * 5 // 2)
    for name in ("b", "c", "d"):
        make(copies, name)
        gc.collect()
    assert names_of(copies, tmp_path, "bcd") == {"c", "d"}
