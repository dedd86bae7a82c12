"""SQL views over the ledger, in DataFusion and in DuckDB."""

from __future__ import annotations

import datetime as dt

import duckdb
import pytest
from datafusion import SessionContext
from deltalake import DeltaTable, write_deltalake

from deltawitness import DeltaLakeInstrumentor, Ledger, ObservedSessionContext, Settings, run
from deltawitness.ledger.drain import fold
from deltawitness.ledger.tables.duckdb_views import duckdb_script
from deltawitness.ledger.tables.locations import root_of
from deltawitness.ledger.tables.views import VIEWS
from helpers.ledger_parts import one


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two runs: one loads a table, one derives a table from it by SQL and then fails."""
    folder = tmp_path_factory.mktemp("lake")
    DeltaLakeInstrumentor().instrument(settings=Settings(cache_root=str(folder / "cache")))
    try:
        with run("load", message="first"):
            write_deltalake(folder / "raw", one(1))
            write_deltalake(folder / "raw", one(2), mode="append")
        with run("derive"):
            ctx = ObservedSessionContext()
            ctx.register_table("raw", DeltaTable(folder / "raw"))
            write_deltalake(folder / "clean", ctx.sql("SELECT * FROM raw"))
            with pytest.raises(Exception, match="already exists"):
                write_deltalake(folder / "clean", one(3), mode="error")
        Ledger(folder / "cache").drain()
    finally:
        DeltaLakeInstrumentor().uninstrument()
    return folder


def in_datafusion(folder, kind=SessionContext):
    """Return a function that queries the ledger in DataFusion."""
    ctx = kind()
    Ledger(folder / "cache").register(ctx)
    return lambda sql: ctx.sql(sql).to_arrow_table().to_pylist()


def in_duckdb(folder):
    """Return a function that queries the ledger in DuckDB."""
    connection = duckdb.connect()
    Ledger(folder / "cache").register_duckdb(connection)
    return lambda sql: connection.sql(sql).to_arrow_table().to_pylist()


ENGINES = {
    "datafusion": in_datafusion,
    "observed": lambda folder: in_datafusion(folder, ObservedSessionContext),
    "duckdb": in_duckdb,
}


@pytest.fixture(params=ENGINES)
def query(request, folder):
    return ENGINES[request.param](folder)


@pytest.mark.slow
def test_the_writes_have_the_columns_of_their_runs(query):
    """A write is joined with its run."""
    sql = (
        "SELECT job, run_message, table_name, version, result, run_status FROM cache_ledger.writes"
        " ORDER BY event_time"
    )
    assert [tuple(row.values()) for row in query(sql)] == [
        ("load", "first", "raw", 0, "write", "ok"),
        ("load", "first", "raw", 1, "write", "ok"),
        ("derive", None, "clean", 0, "write", "ok"),
        ("derive", None, "clean", None, "error", "ok"),
    ]


@pytest.mark.slow
def test_the_edges_are_the_inputs_of_each_version(query):
    """The version of the source is that which the plan read."""
    sql = "SELECT source_version, source_uri, table_name, version, kind FROM cache_ledger.edges"
    (row,) = query(sql)
    assert row.pop("source_uri").endswith("/raw")
    assert tuple(row.values()) == (1, "clean", 0, "exact")


@pytest.mark.slow
def test_runs_jobs_and_tables_are_summed(query):
    """Counts are those of the operations."""
    outputs = (
        "SELECT job, table_name, first_version, last_version, writes FROM cache_ledger.outputs"
    )
    assert {tuple(row.values()) for row in query(outputs)} == {
        ("load", "raw", 0, 1, 2),
        ("derive", "clean", 0, 0, 1),
    }
    tables = "SELECT table_name, last_version, writes, errors, rows_added FROM cache_ledger.tables"
    assert {tuple(row.values()) for row in query(tables)} == {
        ("raw", 1, 2, 0, 2),
        ("clean", 0, 1, 1, 2),
    }
    jobs = "SELECT job, runs, ok, median_seconds >= 0 AS has_time, writes FROM cache_ledger.jobs"
    assert {tuple(row.values()) for row in query(jobs)} == {
        ("load", 1, 1, True, 2),
        ("derive", 1, 1, True, 1),
    }


def test_versions_and_errors(query):
    """Each committed version has a row, and each failure."""
    versions = "SELECT table_name, version FROM cache_ledger.versions"
    assert {tuple(row.values()) for row in query(versions)} == {
        ("raw", 0),
        ("raw", 1),
        ("clean", 0),
    }
    (error,) = query("SELECT job, table_name, landed FROM cache_ledger.errors")
    assert (error["job"], error["table_name"]) == ("derive", "clean")


def as_text(row):
    """Return a row as a text that is the same for equal rows; the engines have other classes for UTC."""
    values = {
        name: value.isoformat() if isinstance(value, dt.date) else value
        for name, value in row.items()
    }
    return str(sorted(values.items()))


@pytest.mark.slow
def test_both_engines_return_the_same_rows(folder):
    """Each table and view has the same columns and rows in both."""
    datafusion, duck = in_datafusion(folder), in_duckdb(folder)
    for name in ["inventory", "runs", "snapshots", *VIEWS]:
        rows = [engine(f"SELECT * FROM cache_ledger.{name}") for engine in (datafusion, duck)]
        ordered = [sorted(as_text(row) for row in each) for each in rows]
        assert ordered[0] == ordered[1], name


@pytest.mark.slow
def test_an_empty_ledger_has_all_views(tmp_path):
    """Without any record each view is empty."""
    for engine in (in_datafusion, in_duckdb):
        query = engine(tmp_path)
        assert [query(f"SELECT * FROM cache_ledger.{name}") for name in VIEWS] == [[]] * len(VIEWS)


@pytest.mark.slow
@pytest.mark.internal_errors
def test_rows_of_shards_are_read_once(tmp_path, monkeypatch):
    """After a fold that died, rows are in the main table and in the shard; DuckDB shows each once."""
    settings = Settings(cache_root=str(tmp_path / "cache"), ledger_mode="shard", ledger_shard="a")
    DeltaLakeInstrumentor().instrument(settings=settings)
    with run("load"):
        write_deltalake(tmp_path / "raw", one(1))
    ledger = Ledger(settings=settings)
    ledger.drain()
    rows = "SELECT count(*) AS n FROM cache_ledger.inventory"
    assert in_duckdb(tmp_path)(rows) == [{"n": 1}]
    monkeypatch.setattr(fold, "_delete", lambda *_: 1 / 0)
    assert {done.error for done in ledger.fold()} == {"division by zero"}
    query = in_duckdb(tmp_path)
    sources = (
        "SELECT count(*) AS n FROM {0}inventory_0 UNION ALL SELECT count(*) FROM {0}inventory_1"
    )
    assert query(sources.format("cache_ledger_")) == [{"n": 1}, {"n": 1}]
    assert query(rows) == [{"n": 1}]
    assert query("SELECT job, writes FROM cache_ledger.runs") == [{"job": "load", "writes": 1}]


def test_the_script_names_the_tables(folder):
    """Every statement of the script but those that load the extension runs over the same tables."""
    root = root_of(Settings(cache_root=str(folder / "cache")))
    install, load, *statements = duckdb_script(root).strip().split(";\n")
    assert (install, load) == ("INSTALL delta", "LOAD delta")
    connection = duckdb.connect()
    # The extension is not part of the package: a macro with its name reads the table's files instead.
    connection.execute(
        "CREATE MACRO delta_scan(uri) AS TABLE"
        " SELECT * FROM read_parquet(replace(uri, 'file://', '') || '/*/*.parquet')"
    )
    for statement in statements:
        connection.execute(statement.rstrip(";"))
    assert connection.sql("SELECT count(*) FROM cache_ledger.writes").fetchall() == [(4,)]
