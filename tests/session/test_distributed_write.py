"""Queries that several workers execute: split by files where that is sound, refused with the reason elsewhere."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from datetime import date

import datafusion
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake

from deltawitness import ObservedSessionContext, plan_hash, table_id
from deltawitness.exceptions import StatementError
from deltawitness.session.core.frames import state_of
from deltawitness.session.proxies import plain
from deltawitness.session.sql.split_plan import split_by_files
from helpers.deletion_vectors import delete_rows
from helpers.engine_versions import needs_deltalake

pytestmark = needs_deltalake("1.6.3", "write transactions contain no application transactions")

NAN = float("nan")


@pytest.fixture
def pool():
    with ThreadPoolExecutor(2) as pool:
        yield pool


@pytest.fixture
def ctx(tmp_path, captured_writes):
    """A session with the same rows as Parquet files, CSV files and a partitioned Delta table."""
    ctx = ObservedSessionContext()
    (tmp_path / "files").mkdir()
    (tmp_path / "csv").mkdir()
    for number in range(6):
        rows = pa.table(
            {
                "id": range(number * 10, number * 10 + 10),
                "s": [f"it's {i}" for i in range(9)] + [None],
                "x": [1.0, NAN, None, -0.0, 2.5, 1e300, NAN, 3.0, 4.0, 5.0],
                "day": [date(2026, 11, number % 2 + 1)] * 10,
            }
        )
        pq.write_table(rows, tmp_path / "files" / f"{number}.parquet")
        pyarrow.csv.write_csv(rows, tmp_path / "csv" / f"{number}.csv")
        write_deltalake(tmp_path / "delta", rows, mode="append", partition_by="day")
    ctx.register_parquet("files", str(tmp_path / "files"))
    ctx.register_csv("csv", str(tmp_path / "csv"))
    ctx.register_delta("delta", tmp_path / "delta")
    return ctx


SPLITTABLE = (
    "SELECT * FROM {table}",
    "SELECT id * 2 AS twice, upper(s) AS s FROM {table} WHERE id % 3 = 1",
    "SELECT t.id, x FROM {table} AS t WHERE x > 1 OR x IS NULL",
    "SELECT id, x FROM {table} WHERE NOT (x > 1)",
    "SELECT id FROM {table} WHERE s IN ('it''s 1', 'it''s 2') AND s NOT IN ('it''s 2')",
    "SELECT id, CASE WHEN s LIKE '%1' THEN arrow_cast(id, 'Decimal128(9, 2)') END AS d FROM {table}",
    "SELECT y FROM (SELECT id + 1 AS y FROM {table} WHERE id > 3) WHERE y < 40",
    "SELECT id, day FROM {table} WHERE day = DATE '2026-11-01'",
    "SELECT id FROM {table} WHERE id > 1000",
    "SELECT id, TIMESTAMP '2026-01-01T00:00:00' AS at, X'00ff' AS b, NULL AS n, 1e300 AS f FROM {table}",
)


def rows_of(frame):
    return sorted(map(repr, frame.to_pylist()))


@pytest.mark.slow
@pytest.mark.parametrize("table", ["files", "csv", "delta"])
@pytest.mark.parametrize("query", SPLITTABLE)
@pytest.mark.one_case_in(3)
def test_the_parts_have_the_rows_of_the_query(query, table, ctx):
    """Each part pickles and runs without the session; together they have the rows of the query."""
    frame = plain(ctx.sql(query.format(table=table)))
    parts = pickle.loads(pickle.dumps(split_by_files(frame, state_of(frame), 4)))
    found = [row for part in parts for row in part().read_all().to_pylist()]
    assert len(parts) == (4 if table == "delta" else 3)
    assert sorted(map(repr, found)) == rows_of(frame)


UNSPLITTABLE = {
    "SELECT * FROM {table} ORDER BY id": "Sort",
    "SELECT * FROM {table} LIMIT 3": "Limit",
    "SELECT count(*) FROM {table}": "Aggregate",
    "SELECT DISTINCT day FROM {table}": "Aggregate",
    "SELECT a.id FROM {table} a JOIN {table} b ON a.id = b.id": "Join",
    "SELECT id FROM {table} WHERE id = (SELECT max(id) FROM {table})": "(ScalarSubquery|serialized)",
    "SELECT id FROM {table} UNION ALL SELECT id FROM {table}": "Union",
    "SELECT id, row_number() OVER (ORDER BY id) AS n FROM {table}": "Window",
    "SELECT id, random() AS r FROM {table}": "volatile",
    "SELECT id FROM {table} WHERE uuid() > 'a'": "volatile",
    "SELECT unnest([id, 1]) AS u FROM {table}": "Unnest",
    "VALUES (1), (2)": "Values",
}


@pytest.mark.parametrize("table", ["files", "delta"])
@pytest.mark.parametrize("query", UNSPLITTABLE)
@pytest.mark.one_case_in(3)
def test_other_queries_are_refused_with_the_reason(query, table, ctx, tmp_path):
    """The message names the node; nothing is written, and the write is recorded as failed."""
    with pytest.raises(StatementError, match=f"{UNSPLITTABLE[query]}.*split='auto'"):
        ctx.write_distributed(query.format(table=table), tmp_path / "t")
    assert not (tmp_path / "t").exists()


def test_a_query_without_a_split_is_one_part(ctx, tmp_path, pool):
    result = ctx.write_distributed(
        "SELECT day, count(*) AS n FROM delta GROUP BY day",
        tmp_path / "t",
        split="auto",
        engine=pool,
    )
    assert (result.rows, result.parts) == (2, 1)


@pytest.mark.slow
@pytest.mark.parametrize("table", ["files", "delta"])
def test_the_write_has_the_plan_and_the_inputs(table, ctx, tmp_path, pool, captured_writes):
    """One event, with the hash of the query's plan and the version of the table that it reads."""
    query = f"SELECT id FROM {table} WHERE id > 10"
    result = ctx.write_distributed(query, tmp_path / "t", engine=pool, max_parts=3)
    event = captured_writes.events[-1]
    assert len(captured_writes.events) == 7  # six of the fixture
    assert (result.rows, result.parts, event.intent.parts) == (49, 3, 3)
    assert event.intent.plan_hash == plan_hash(ctx.sql(query))
    inputs = [(read.table_id, read.version) for read in event.intent.inputs]
    assert inputs == ([(table_id(str(tmp_path / "delta")), 5)] if table == "delta" else [])


@pytest.mark.slow
def test_the_version_of_the_session_is_read_and_the_written_table_is_served(ctx, tmp_path, pool):
    """Rows that another writer has added are not read; the session serves its own write at once."""
    frame = ctx.table("delta").select("id")
    write_deltalake(
        tmp_path / "delta", DeltaTable(tmp_path / "delta").to_pyarrow_table(), mode="append"
    )
    ctx.sql(f"CREATE EXTERNAL TABLE t (id BIGINT) STORED AS DELTATABLE LOCATION '{tmp_path}/t'")
    assert ctx.write_distributed(frame, tmp_path / "t", engine=pool).rows == 60
    assert ctx.table("t").count() == 60


@pytest.mark.slow
def test_spawned_processes_execute_the_query(ctx, tmp_path):
    """The default engine, with the settings of the session and a name in another schema."""
    ctx.sql("CREATE SCHEMA raw").collect()
    ctx.register_delta("raw.mine", tmp_path / "delta")
    query = "SELECT id + 0.5 AS h, now() AS at FROM raw.mine"
    assert ctx.write_distributed(query, tmp_path / "t", max_parts=2).rows == 60
    written = DeltaTable(tmp_path / "t").to_pyarrow_table()
    assert len(set(written["at"].to_pylist())) == 1


@pytest.mark.slow
def test_partition_values_with_special_characters(tmp_path, pool, captured_writes):
    """The files are found by their encoded paths, and the values are those of the log."""
    values = ["a b", "x/y%z", "ü:=", None]
    source = pa.table({"id": range(8), "p": values * 2})
    write_deltalake(tmp_path / "ü b" / "s", source, partition_by="p")
    ctx = ObservedSessionContext()
    ctx.register_delta("s", tmp_path / "ü b" / "s")
    ctx.write_distributed("SELECT p, id FROM s WHERE id < 7", tmp_path / "t", engine=pool)
    found = DeltaTable(tmp_path / "t").to_pyarrow_table().to_pylist()
    assert sorted((row["id"], row["p"]) for row in found) == list(enumerate((values * 2)[:7]))


def test_settings_of_the_session_apply(tmp_path, ctx):
    config = datafusion.SessionConfig({"datafusion.sql_parser.parse_float_as_decimal": "true"})
    other = ObservedSessionContext(config)
    other.register_delta("delta", tmp_path / "delta")
    frame = plain(other.sql("SELECT 1.5 AS d FROM delta"))
    part, *_ = split_by_files(frame, state_of(frame), 2)
    assert part().schema.field("d").type == pa.decimal128(2, 1)


@pytest.mark.slow
def test_a_python_function_is_executed_by_workers_or_refused(ctx, tmp_path, pool):
    """An immutable function is passed to the workers; a volatile one is refused."""
    for volatility in ("immutable", "volatile"):
        name = f"twice_{volatility}"
        ctx.register_udf(
            datafusion.udf(
                lambda x: pa.compute.add(x, x), [pa.int64()], pa.int64(), volatility, name
            )
        )
    result = ctx.write_distributed(
        "SELECT twice_immutable(id) AS i FROM delta", tmp_path / "t", engine=pool
    )
    assert max(DeltaTable(tmp_path / "t").to_pyarrow_table()["i"].to_pylist()) == 118
    assert result.rows == 60
    with pytest.raises(StatementError, match="volatile"):
        ctx.write_distributed(
            "SELECT twice_volatile(id) AS i FROM delta", tmp_path / "t", engine=pool
        )


def test_deletion_vectors_are_refused(ctx, tmp_path):
    write_deltalake(tmp_path / "d", pa.table({"id": [1, 2]}))
    delete_rows(tmp_path / "d", [[0]])
    ctx.register_delta("d", tmp_path / "d")
    with pytest.raises(StatementError, match="deletion vectors"):
        ctx.write_distributed("SELECT id FROM d", tmp_path / "t")


def test_a_writing_statement_is_refused(ctx, tmp_path):
    with pytest.raises(StatementError, match="writes itself"):
        ctx.write_distributed("DELETE FROM delta", tmp_path / "t", split="auto")
    with pytest.raises(StatementError, match="split: "):
        ctx.write_distributed("SELECT 1", tmp_path / "t", split="rows")
