"""Reconcile prefixes and globs, and the tables beside those that a ledger has recorded."""

from __future__ import annotations

import json

import pytest
from deltalake import write_deltalake

from deltawitness import DeltaLakeInstrumentor, Ledger, Settings
from deltawitness.cli import main
from deltawitness.ledger.reconcile.targets import folders_to_search
from deltawitness.ledger.tables.write_rows import ledger_uri
from deltawitness.semconv import Env
from helpers.ledger_parts import one
from helpers.reconcile_parts import observe, recorded_versions


def test_a_prefix_names_all_tables_below_it(tmp_path):
    for name in ("a/t", "a/b/u", "v"):
        write_deltalake(f"{tmp_path}/lake/{name}", one(1))
    ledger = Ledger(f"{tmp_path}/lake/ledger")
    plan = ledger.reconcile([f"{tmp_path}/lake"])
    assert plan.apply() == 3
    assert plan.tables == tuple(ledger_uri(f"{tmp_path}/lake/{n}") for n in ("a/b/u", "a/t", "v"))
    assert ledger.reconcile([f"{tmp_path}/lake/**"]).is_clean


@pytest.fixture
def beside(tmp_path):
    """A ledger that has recorded a write of the table `lake/a/t`; the table `lake/a/b/u` is beside it."""
    cache = str(tmp_path / "cache")
    observe(cache)
    write_deltalake(f"{tmp_path}/lake/a/t", one(1))
    DeltaLakeInstrumentor().uninstrument()
    write_deltalake(f"{tmp_path}/lake/a/b/u", one(1))
    write_deltalake(f"{tmp_path}/lake/elsewhere", one(1))
    return cache


@pytest.mark.slow
def test_a_search_adds_the_tables_beside_recorded_ones(tmp_path, beside):
    ledger = Ledger(beside)
    assert ledger.reconcile().is_clean
    plan = ledger.reconcile(search=True)
    assert [write.table_uri for write in plan.foreign] == [ledger_uri(f"{tmp_path}/lake/a/b/u")]
    assert plan.apply() == 1
    assert ledger.reconcile(search=True).is_clean
    assert recorded_versions(ledger) == [0, 0]


@pytest.mark.slow
def test_the_command_searches_beside_all_tables(tmp_path, beside, monkeypatch, capsys):
    monkeypatch.setattr(
        "sys.argv", ["deltawitness", "reconcile", "--all", "--root", beside, "--json"]
    )
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    found = json.loads(capsys.readouterr().out)
    assert [write["table_uri"] for write in found["foreign"]] == [
        ledger_uri(f"{tmp_path}/lake/a/b/u")
    ]


@pytest.mark.parametrize(
    ("tables", "folders"),
    [
        (["s3://lake/t"], ["s3://lake"]),
        (["s3://lake/a/t", "s3://lake/a/b/u", "s3://lake/ab/u"], ["s3://lake/a", "s3://lake/ab"]),
        (["s3://lake/a/t", "s3://lake/u"], ["s3://lake"]),
        (["s3://bucket"], []),
        (["file:///t", "file:///home/ann/t", "file:///tmp/t", "file:///root/t"], []),
        (["file:///data/a-b/t", "file:///data/a/t"], ["file:///data/a", "file:///data/a-b"]),
    ],
)
def test_folders_to_search(tables, folders, monkeypatch):
    """The parents of tables, without those in others and without folders that hold far more than tables."""
    monkeypatch.setattr("tempfile.tempdir", "/tmp")
    assert folders_to_search(tables) == folders


@pytest.mark.slow
def test_a_prefix_that_cannot_be_read_is_a_finding(server, tmp_path, monkeypatch, capsys):
    """Tables of the other prefixes are compared and audited, and the exit code says that one was not."""
    for number in range(3):
        table = f"s3://lake/many/t{number}"
        for _ in range(3):
            write_deltalake(table, one(1), mode="append", storage_options=server.options)
    prefixes = ["s3://nothing/**", "s3://lake/many/t[1-9]"]
    for name, value in server.options.items():
        monkeypatch.setenv(name, value)
    ledger = Ledger(settings=Settings(cache_root=str(tmp_path / "cache")))
    plan = ledger.reconcile(prefixes)
    assert plan.counts["foreign"] == 2 * 3
    assert [lost.table_uri for lost in plan.unreadable] == ["s3://nothing"]
    assert plan.apply() == 6
    assert ledger.reconcile(prefixes[1:]).is_clean

    monkeypatch.setenv(Env.ROOT, str(tmp_path / "cache"))
    monkeypatch.setattr("sys.argv", ["deltawitness", "audit", "--json", "--last", "2", *prefixes])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    found = json.loads(capsys.readouterr().out)
    assert [(table["table"], table["commits"]) for table in found["tables"]] == [
        *((f"s3://lake/many/t{number}", 2) for number in range(1, 3)),
        ("s3://nothing", 0),
    ]
    assert "NoSuchBucket" in found["tables"][-1]["error"]
