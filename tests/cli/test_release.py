"""`deltawitness release` creates, lists, compares, verifies and restores releases."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from helpers.ledger_commands import error_of, invoke, json_of


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working directory, with two tables and the release `nov`, after which one of them has changed."""
    monkeypatch.chdir(tmp_path)
    write_deltalake("lake/orders", pa.table({"x": [1, 2]}))
    write_deltalake("lake/items", pa.table({"x": [1]}))
    made = json_of("release", "create", "nov", "lake/orders", "lake/items@0", "--message", "why")
    assert (made["name"], made["message"]) == ("nov", "why")
    write_deltalake("lake/orders", pa.table({"x": [3]}), mode="append")


def lines(*words, code=0):
    done = invoke("release", *words)
    assert done.exit_code == code, done.output
    return [" ".join(line.split()) for line in done.stdout.splitlines()]


@pytest.mark.slow
def test_releases_are_listed_and_compared(folder):
    """`diff` exits as the program of this name."""
    assert Path(".deltawitness/.gitignore").exists()
    header, nov, count = lines("ls")
    assert header == "release created tables message"
    assert nov.startswith("nov ")
    assert nov.endswith(" orders@0, items@0 why")
    assert count == "1 release"
    assert [each["name"] for each in json_of("release", "ls")] == ["nov"]
    assert lines("diff", "nov", code=1) == [
        "nov -> last versions",
        "table change a b rows operations",
        "items 0 0",
        "orders changed 0 1 +1 1",
        "different",
    ]
    assert json_of("release", "diff", "nov", "nov")["is_different"] is False
    assert error_of("release", "diff", "x", code=2).startswith("no release begins with x")
    taken = error_of("release", "create", "nov", "lake/orders")
    assert taken == "there is a release nov"
    assert json_of("release", "drop", "nov")["name"] == "nov"
    assert lines("ls") == ["0 releases"]
    assert error_of("release", "drop", "nov") == "there is no release nov"


@pytest.mark.slow
def test_a_release_is_verified_and_restored(folder):
    """Only `--apply` restores; `verify` exits 1 if files are missing."""
    assert lines("verify", "nov")[-1] == "nov: 2 tables, all readable"
    assert lines("restore", "nov")[1:] == [
        "table state last before",
        "orders restore 1 0",
        "items unchanged 0 0",
        "orders@1 would be discarded: WRITE, not observed",
        "2 tables: 1 to restore, 1 unchanged",
        "use --apply to restore",
    ]
    assert DeltaTable("lake/orders").version() == 1
    done = json_of("release", "restore", "nov", "--apply")
    assert (done["is_complete"], done["tables"][0]["restored_version"]) == (True, 2)
    assert DeltaTable("lake/orders").count() == 2

    (file,) = Path("lake/items").glob("*.parquet")
    file.unlink()
    checked = json_of("release", "verify", "nov", code=1)
    assert (checked["is_ok"], checked["tables"][1]["missing"]) == (False, [file.name])
    assert lines("verify", "nov", code=1)[-2:] == [
        f"items@0: missing {file.name}",
        "nov: 2 tables, 1 not",
    ]
    write_deltalake("lake/items", pa.table({"x": [2]}), mode="overwrite")
    assert "refused" in lines("restore", "nov", code=1)[3]
