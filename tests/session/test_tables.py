"""The Delta tables of a session: their names, the served versions, and how they are read and written."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pytest
from datafusion import SessionConfig, SessionContext
from datafusion.catalog import Table
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import DeltaError, TableNotFoundError

from deltawitness import ObservedSessionContext
from deltawitness.exceptions import RepeatedStatementWarning, StatementError
from deltawitness.session.core.state import session_of

DATA = pa.table({"id": [1, 2]})


@pytest.fixture
def uri(tmp_path):
    """A Delta table with two versions."""
    write_deltalake(tmp_path / "t", DATA)
    write_deltalake(tmp_path / "t", pa.table({"id": [3]}), mode="append")
    return str(tmp_path / "t")


@pytest.fixture
def ctx():
    """A session without tables."""
    return ObservedSessionContext()


def ids(ctx, name="t"):
    return sorted(ctx.sql(f"SELECT id FROM {name}").to_pydict()["id"])


def insert(ctx, number, name="t"):
    return ctx.sql(f"INSERT INTO {name} VALUES ({number})").to_pydict()


REGISTER = {
    "register_table": lambda ctx, uri: ctx.register_table("t", DeltaTable(uri)),
    "register_delta": lambda ctx, uri: ctx.register_delta("t", uri),
    "SQL": lambda ctx, uri: ctx.sql(
        f"CREATE EXTERNAL TABLE t STORED AS DELTATABLE LOCATION '{uri}'"
    ),
    "schema": lambda ctx, uri: ctx.catalog().schema().register_table("t", DeltaTable(uri)),
}


@pytest.mark.parametrize("how", REGISTER)
def test_a_registered_table_is_read_and_written(ctx, uri, how):
    """For every way of registering, a write is visible at once, by name and to other readers."""
    REGISTER[how](ctx, uri)
    insert(ctx, 4)
    assert ids(ctx) == [1, 2, 3, 4]
    assert ctx.table("t").count() == 4
    assert DeltaTable(uri).version() == 2


def test_storage_options_are_remembered(ctx, uri, monkeypatch):
    """A write opens the table with the storage options of its registration."""
    seen = []
    original = DeltaTable.__init__

    def noted(self, *args, **kwargs):
        seen.append(kwargs.get("storage_options"))
        original(self, *args, **kwargs)

    ctx.register_delta("t", uri, storage_options={"timeout": "7s"})
    monkeypatch.setattr(DeltaTable, "__init__", noted)
    insert(ctx, 4)
    assert {"timeout": "7s"} in seen


def test_commits_of_others_are_seen_after_a_refresh(ctx, uri):
    """`refresh` of one table or of all tables serves commits of other writers."""
    write_deltalake(f"{uri}2", DATA)
    ctx.register_delta("t", uri)
    ctx.register_delta("u", f"{uri}2")
    for each in (uri, f"{uri}2"):
        write_deltalake(each, pa.table({"id": [4]}), mode="append")
    assert ids(ctx) == [1, 2, 3]
    ctx.refresh("t")
    assert (ids(ctx), ids(ctx, "u")) == ([1, 2, 3, 4], [1, 2])
    ctx.refresh()
    assert ids(ctx, "u") == [1, 2, 4]
    with pytest.raises(StatementError, match="nope is not registered"):
        ctx.refresh("nope")


def test_a_write_starts_from_the_newest_version(ctx, uri):
    """A write keeps the commits of other writers, and its filter sees them."""
    ctx.register_delta("t", uri)
    write_deltalake(uri, pa.table({"id": [4]}), mode="append")
    ctx.sql("UPDATE t SET id = abs(id) * 10").collect()
    assert ids(ctx) == [10, 20, 30, 40]


@pytest.mark.slow
def test_a_statement_is_planned_again_when_a_table_has_changed(ctx, uri):
    """A statement that reads the table it writes uses the current version in each run."""
    ctx.register_delta("t", uri)
    double = ctx.sql("INSERT INTO t SELECT id + 100 FROM t")
    assert double.to_pydict() == {"count": [3]}
    with pytest.warns(RepeatedStatementWarning):
        assert double.to_pydict() == {"count": [6]}
    write_deltalake(uri, pa.table({"id": [4]}), mode="append")
    assert double.to_pydict() == {"count": [13]}


@pytest.mark.parametrize(
    "fix",
    [
        lambda ctx, uri: ctx.register_delta("t", uri, version=0),
        lambda ctx, uri: ctx.register_table("t", DeltaTable(uri, version=0)),
        lambda ctx, uri: ctx.sql(
            f"CREATE EXTERNAL TABLE t STORED AS DELTATABLE LOCATION '{uri}' OPTIONS ('version' '0')"
        ),
    ],
)
def test_a_table_at_a_fixed_version_is_read_only(ctx, uri, fix):
    """A write to a fixed version raises before it starts, and `refresh` does not change the version."""
    fix(ctx, uri)
    assert ids(ctx) == [1, 2]
    for sql in (
        "INSERT INTO t VALUES (4)",
        "DELETE FROM t",
        "OPTIMIZE t",
        "RESTORE t TO VERSION 0",
    ):
        with pytest.raises(StatementError, match="registered at version 0 and so is read only"):
            ctx.sql(sql)
    with pytest.raises(StatementError, match="read only"):
        ctx.from_pydict({"id": [4]}).write_table("t")
    ctx.refresh()
    assert ids(ctx) == [1, 2]
    assert DeltaTable(uri).version() == 1


def test_a_missing_table_or_version_raises_the_engines_error(ctx, uri, tmp_path):
    """A missing table and a missing version raise the engine's errors."""
    with pytest.raises(TableNotFoundError):
        ctx.register_delta("t", tmp_path / "nothing")
    with pytest.raises(DeltaError):
        ctx.register_delta("t", uri, version=99)
    with pytest.raises(TableNotFoundError):
        ctx.sql(f"CREATE EXTERNAL TABLE t STORED AS DELTATABLE LOCATION '{tmp_path}/nothing'")


def test_a_name_that_is_taken_stays_taken(ctx, uri):
    """A taken name is refused as in DataFusion, and IF NOT EXISTS and OR REPLACE work."""
    ctx.register_delta("t", uri)
    with pytest.raises(Exception, match="already exists"):
        ctx.register_delta("t", uri, version=0)
    sql = f"CREATE EXTERNAL TABLE {{}} t STORED AS DELTATABLE LOCATION '{uri}' OPTIONS ('version' '0')"
    ctx.sql(sql.format("IF NOT EXISTS"))
    insert(ctx, 4)
    ctx.sql(sql.format("").replace("CREATE", "CREATE OR REPLACE"))
    assert ids(ctx) == [1, 2]


FORGET = {
    "deregister_table": lambda ctx: ctx.deregister_table("t"),
    "DROP TABLE": lambda ctx: ctx.sql("DROP TABLE t"),
    "schema": lambda ctx: ctx.catalog().schema().deregister_table("t"),
}


@pytest.mark.parametrize("how", FORGET)
def test_a_name_that_is_given_up_is_no_delta_table_any_more(ctx, uri, how):
    """After a name is deregistered, a write to another table of that name does not reach the Delta table."""
    ctx.register_delta("t", uri)
    FORGET[how](ctx)
    ctx.sql("CREATE TABLE t AS SELECT CAST(7 AS BIGINT) AS id")
    assert insert(ctx, 8) == {"count": [1]}
    assert ids(ctx) == [7, 8]
    assert DeltaTable(uri).version() == 1


def test_create_or_replace_takes_the_name_from_a_delta_table(ctx, uri):
    """CREATE OR REPLACE with a table or a view replaces a Delta table's name."""
    for statement in ("TABLE t AS SELECT 7 AS id", "VIEW t AS SELECT 7 AS id"):
        ctx.register_delta("t", uri)
        ctx.sql(f"DROP TABLE IF EXISTS t; CREATE {statement}".partition("; ")[0])
        ctx.sql(f"CREATE OR REPLACE {statement}")
        assert ids(ctx) == [7]
        with pytest.raises(StatementError, match="not registered as a Delta table"):
            ctx.sql("OPTIMIZE t")
        ctx.deregister_table("t")


def test_catalogs_and_schemas_are_distinguished(ctx, tmp_path):
    """One name in two schemas is two tables, for every spelling of the name."""
    for name in ("one", "two"):
        write_deltalake(tmp_path / name, DATA)
    ctx.sql("CREATE SCHEMA lake")
    ctx.register_delta("t", tmp_path / "one")
    ctx.register_delta("lake.t", tmp_path / "two")
    insert(ctx, 10, "datafusion.lake.t")
    insert(ctx, 11, "public.t")
    insert(ctx, 12, "lake.t")
    assert (ids(ctx), ids(ctx, "lake.t")) == ([1, 2, 11], [1, 2, 10, 12])
    ctx.sql("DROP SCHEMA lake CASCADE")
    with pytest.raises(StatementError, match=r"lake\.t is not registered"):
        ctx.sql("VACUUM lake.t")


def test_names_with_the_same_text_are_distinguished_by_their_quotes(ctx, tmp_path):
    """The table "a.b" and the table b of schema a are two tables."""
    for name in ("dotted", "nested"):
        write_deltalake(tmp_path / name, DATA)
    ctx.sql("CREATE SCHEMA a")
    ctx.register_delta('"a.b"', tmp_path / "dotted")
    ctx.register_delta("a.b", tmp_path / "nested")
    insert(ctx, 5, '"a.b"')
    insert(ctx, 6, "a.b")
    assert (ids(ctx, '"a.b"'), ids(ctx, "a.b")) == ([1, 2, 5], [1, 2, 6])


def test_the_default_schema_is_the_sessions(tmp_path):
    """The default schema follows the session's configuration and a SET statement."""
    write_deltalake(tmp_path / "t", DATA)
    config = SessionConfig().with_default_catalog_and_schema("lake", "raw")
    ctx = ObservedSessionContext(config)
    ctx.register_delta("t", tmp_path / "t")
    insert(ctx, 3, "lake.raw.t")
    ctx.sql("CREATE SCHEMA other")
    ctx.sql("SET datafusion.catalog.default_schema = 'other'")
    ctx.register_delta("t", tmp_path / "t", version=0)
    assert (ids(ctx), ids(ctx, "raw.t")) == ([1, 2], [1, 2, 3])
    insert(ctx, 4, "raw.t")
    with pytest.raises(StatementError, match="read only"):
        insert(ctx, 5)


# --- new tables -----------------------------------------------------------------------------------------


def test_a_column_list_on_an_empty_location_makes_the_table(ctx, tmp_path):
    """A new table has Delta's types, nullability, partitions, defaults and table properties."""
    uri = tmp_path / "new"
    ctx.sql(f"""
        CREATE EXTERNAL TABLE n (
            a INT NOT NULL, b VARCHAR DEFAULT 'q', "C d" DECIMAL(10,2), ts TIMESTAMP WITH TIME ZONE,
            tn TIMESTAMP, l BIGINT[], s STRUCT<a INT, b VARCHAR>, n DOUBLE DEFAULT 1.5 * 2
        ) STORED AS DELTATABLE PARTITIONED BY (b) LOCATION '{uri}'
        OPTIONS ('delta.appendOnly' 'true', 'timeout' '30s')
    """)
    table = DeltaTable(uri)
    assert table.metadata().partition_columns == ["b"]
    assert table.metadata().configuration == {"delta.appendOnly": "true"}
    types = {field.name: str(field.type) for field in pa.schema(table.schema())}
    assert types["ts"] == "timestamp[us, tz=UTC]"
    assert types["tn"] == "timestamp[us]"
    assert types["C d"] == "decimal128(10, 2)"
    ctx.sql("INSERT INTO n (a, ts) VALUES (1, '2024-01-01T00:00:00Z')").collect()
    ctx.sql("INSERT INTO n (a, b, n) SELECT 2, NULL AS b, NULL AS n").collect()
    rows = ctx.sql("SELECT a, b, n, l FROM n ORDER BY a").to_pydict()
    assert rows == {"a": [1, 2], "b": ["q", None], "n": [3.0, None], "l": [None, None]}
    with pytest.raises(Exception, match=r"failed validation check"):
        ctx.sql("INSERT INTO n (b) VALUES ('x')").collect()


def test_hive_style_partition_columns_are_columns(ctx, tmp_path):
    """A partition column with a type becomes a column of the table."""
    ctx.sql(
        f"CREATE EXTERNAL TABLE n (a INT) STORED AS DELTATABLE PARTITIONED BY (p INT) LOCATION '{tmp_path}/n'"
    )
    assert [field.name for field in DeltaTable(tmp_path / "n").schema().fields] == ["a", "p"]


@pytest.mark.parametrize(
    ("sql", "text"),
    [
        ("CREATE EXTERNAL TABLE n (a INT) STORED AS DELTATABLE PARTITIONED BY (z) LOCATION '{}/n'", "no column is named z"),
        ("CREATE EXTERNAL TABLE n (a INT) STORED AS DELTATABLE LOCATION '{}/t'", "other columns"),
        ("CREATE EXTERNAL TABLE n STORED AS DELTATABLE PARTITIONED BY (id) LOCATION '{}/t'", "other partition columns"),
        ("CREATE UNBOUNDED EXTERNAL TABLE n STORED AS DELTATABLE LOCATION '{}/t'", "not unbounded"),
        ("CREATE EXTERNAL TABLE n STORED AS DELTATABLE WITH ORDER (id) LOCATION '{}/t'", "no order"),
        ("CREATE EXTERNAL TABLE n (a INT DEFAULT upper('x')) STORED AS DELTATABLE LOCATION '{}/n'", "DEFAULT"),
        ("CREATE EXTERNAL TABLE n STORED AS DELTATABLE LOCATION '{}/t' OPTIONS ('version' 'x')", "must be an integer"),
        ("CREATE EXTERNAL TABLE n STORED AS DELTATABLE LOCATION '{}/t' OPTIONS ('version' '²')", "must be an integer"),
    ],
)  # fmt: skip
def test_an_invalid_definition_is_refused_and_creates_nothing(ctx, uri, tmp_path, sql, text):
    """An invalid definition raises, and creates neither a table nor a name."""
    with pytest.raises(StatementError, match=text):
        ctx.sql(sql.format(tmp_path))
    assert not (tmp_path / "n").exists()
    assert not ctx.table_exist("n")


def test_a_factory_of_the_program_is_used(ctx, uri):
    """The table factory that was registered last for DELTATABLE creates the tables of its session."""
    from datafusion.catalog import TableProviderFactory

    made = []

    class Own(TableProviderFactory):
        def create(self, cmd):
            made.append(cmd.name())
            return Table(DeltaTable(uri))

    ctx.register_table_factory("OTHERFORMAT", Own())
    ctx.sql(f"CREATE EXTERNAL TABLE o STORED AS OTHERFORMAT LOCATION '{uri}'")
    assert made == ["o"]
    assert ids(ctx, "o") == [1, 2, 3]
    ctx.register_table_factory("DELTATABLE", Own())
    ctx.sql(f"CREATE EXTERNAL TABLE t STORED AS DELTATABLE LOCATION '{uri}'")
    assert made == ["o"]
    insert(ctx, 4)
    assert ids(ctx) == [1, 2, 3, 4]


def test_the_factory_serves_a_context_that_is_not_observed(ctx, uri):
    """Through a plain context of the session, the factory opens existing tables only."""
    ctx.sql(f"CREATE EXTERNAL TABLE t STORED AS DELTATABLE LOCATION '{uri}'")
    plain = ctx.__wrapped__
    plain.sql(
        f"CREATE EXTERNAL TABLE u STORED AS DELTATABLE LOCATION '{uri}' OPTIONS ('timeout' '30s')"
    )
    assert plain.table("u").count() == 3


def test_an_older_version_is_not_served_after_a_newer_one(ctx, uri):
    """Publishing an older version after a newer one has no effect."""
    ctx.register_delta("t", uri)
    session = session_of(ctx.__wrapped__)
    (entry,) = session.names.snapshot
    before = DeltaTable(uri)
    insert(ctx, 4)
    session.tables.publish(ctx.__wrapped__, entry, before)
    assert ids(ctx) == [1, 2, 3, 4]


def test_a_reader_finds_a_table_that_is_being_replaced(ctx, uri, monkeypatch):
    """Planning retries while a table's name is missing during its replacement."""
    ctx.register_delta("t", uri)
    plain = ctx.__wrapped__
    register = type(plain).register_table
    is_gone, may_go_on = threading.Event(), threading.Event()

    def slow(self, name, table):
        if not is_gone.is_set():
            is_gone.set()
            assert may_go_on.wait(10)
        return register(self, name, table)

    original = type(plain).sql

    def planning(self, query, *args, **kwargs):
        try:
            return original(self, query, *args, **kwargs)
        except Exception:
            may_go_on.set()  # the reader has found the name missing
            raise

    monkeypatch.setattr(type(plain), "register_table", slow)
    monkeypatch.setattr(type(plain), "sql", planning)
    with ThreadPoolExecutor(2) as pool:
        written = pool.submit(insert, ctx, 4)
        assert is_gone.wait(10)
        assert pool.submit(ids, ctx).result(10) == [1, 2, 3, 4]
        assert written.result(10) == {"count": [1]}


# --- views -----------------------------------------------------------------------------------------------

VIEWS = {
    "SQL": lambda ctx: ctx.sql("CREATE VIEW v AS SELECT max(id) AS id FROM t"),
    "SQL, replacing": lambda ctx: ctx.sql(
        "create or replace view v as select max(id) as id from t"
    ),
    "frame of SQL": lambda ctx: ctx.register_view("v", ctx.sql("SELECT max(id) AS id FROM t")),
    "frame of methods": lambda ctx: ctx.register_view(
        "v", ctx.table("t").select("id").distinct().sort("id").tail(1)
    ),
    "frame as a table": lambda ctx: ctx.register_table(
        "v", ctx.sql("SELECT max(id) AS id FROM t").filter("id > 0")
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("how", [name for name in VIEWS if name != "frame of methods"])
def test_a_view_shows_what_its_table_holds(ctx, uri, how):
    """A view, and a view over it, follow each write of the session and each refresh."""
    ctx.register_delta("t", uri)
    VIEWS[how](ctx)
    ctx.sql("CREATE VIEW w AS SELECT id + 1 AS id FROM v")
    insert(ctx, 9)
    assert (ids(ctx, "v"), ids(ctx, "w")) == ([9], [10])
    write_deltalake(uri, pa.table({"id": [20]}), mode="append")
    ctx.refresh()
    assert (ids(ctx, "v"), ids(ctx, "w")) == ([20], [21])
    assert ctx.table("w").to_pydict() == {"id": [21]}


def test_a_dropped_view_stays_dropped(ctx, uri):
    """A dropped view does not come back when its table has a new version."""
    ctx.register_delta("t", uri)
    ctx.sql("CREATE VIEW v AS SELECT id FROM t")
    ctx.sql("DROP VIEW v")
    insert(ctx, 9)
    assert not ctx.table_exist("v")


def test_views_are_replaced_in_order_of_dependency(ctx, uri):
    """A view over a view is replaced after it, also if the lower one was created again later."""
    ctx.register_delta("t", uri)
    ctx.sql("CREATE VIEW low AS SELECT id FROM t")
    ctx.sql("CREATE VIEW high AS SELECT id FROM low")
    ctx.sql("CREATE OR REPLACE VIEW low AS SELECT id FROM t WHERE id > 0")
    insert(ctx, 9)
    assert (ids(ctx, "low"), ids(ctx, "high")) == ([1, 2, 3, 9], [1, 2, 3, 9])


def test_a_view_shows_new_versions_under_another_default_schema(ctx, uri):
    """A replaced view keeps its own name and its resolved names under another default schema."""
    ctx.register_delta("t", uri)
    ctx.sql("CREATE VIEW v AS SELECT id FROM t")
    ctx.sql("CREATE SCHEMA other")
    ctx.sql("SET datafusion.catalog.default_schema = 'other'")
    insert(ctx, 9, "public.t")
    assert ids(ctx, "public.v") == [1, 2, 3, 9]
    assert not ctx.table_exist("other.v")
    ctx.sql("SET datafusion.catalog.default_schema = 'public'")
    assert ids(ctx, "v") == [1, 2, 3, 9]


def test_every_name_of_a_table_serves_its_new_version(ctx, uri):
    """Every name of a table serves the new version, except names at a fixed version."""
    ctx.register_delta("t", uri)
    ctx.register_delta("also", uri)
    ctx.register_delta("before", uri, version=1)
    insert(ctx, 4)
    assert (ids(ctx, "also"), ids(ctx, "before")) == ([1, 2, 3, 4], [1, 2, 3])


def test_a_name_that_is_given_by_a_parameter_is_known(ctx, uri):
    """A table name that replaces a `$name` works in definitions and commands."""
    ctx.sql(
        "CREATE EXTERNAL TABLE $name STORED AS DELTATABLE LOCATION $at", name="t", at=f"'{uri}'"
    )
    insert(ctx, 4)
    assert ctx.sql("OPTIMIZE $name", name="t").to_pydict()["num_files_removed"] == [3]
    ctx.sql("CREATE OR REPLACE TABLE $name AS SELECT CAST(7 AS BIGINT) AS id", name="t")
    insert(ctx, 8)
    assert ids(ctx) == [7, 8]
    ctx.sql("DROP TABLE $name", name="t")
    ctx.refresh()
    assert not ctx.table_exist("t")
    assert DeltaTable(uri).version() == 3


def test_a_table_dropped_from_the_engine_does_not_come_back(ctx, uri):
    """A table that was dropped past the observed session is forgotten at its next write."""
    ctx.register_delta("t", uri)
    ctx.__wrapped__.ctx.deregister_table("t")
    ctx.from_pydict({"id": [9]}).write_delta(uri, mode="append")
    assert not ctx.table_exist("t")
    with pytest.raises(StatementError, match="not registered"):
        ctx.sql("OPTIMIZE t")


def test_a_frame_keeps_the_version_that_it_was_planned_at(ctx, uri):
    """A frame keeps the version it was planned at, as for a plain registered Delta table."""
    ctx.register_delta("t", uri)
    frame = ctx.table("t")
    insert(ctx, 9)
    assert frame.count() == 3


def test_two_contexts_on_one_session_know_the_same_tables(ctx, uri):
    """Two contexts on one session share the session's tables."""
    plain = SessionContext()
    one, other = ObservedSessionContext(plain), ObservedSessionContext(plain)
    one.register_delta("t", uri)
    insert(other, 4)
    assert ids(one) == [1, 2, 3, 4]
