"""`verify RUN` computes ordinary writes of a session again, from plans that are stored if the settings ask for it."""

from __future__ import annotations

import json
import logging
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datafusion import udf
from deltalake import DeltaTable, write_deltalake

from deltawitness import (
    DeltaLakeInstrumentor,
    Ledger,
    ObservedSessionContext,
    Settings,
    run,
)
from deltawitness.cache.verify.verifier import Verifier
from deltawitness.cli.ledger_queries import rewritable_writes
from deltawitness.ledger.tables.listing import LedgerListing
from deltawitness.ledger.tables.schema import LedgerRoot
from deltawitness.ledger.tables.write_plans import delete_plans_of_writes, plans_of_writes
from deltawitness.semconv import WRITE_PLAN_DIRECTORY
from deltawitness.session.fingerprint import write_plan
from helpers.ledger_commands import json_of

ROWS = pa.table({"id": range(10), "part": [n % 2 for n in range(10)], "s": list("abcdefghij")})


@pytest.fixture
def lake(tmp_path):
    """A folder with two Delta tables."""
    write_deltalake(tmp_path / "facts", ROWS)
    write_deltalake(tmp_path / "names", pa.table({"part": [0, 1, 2], "name": ["x", "y", "z"]}))
    return tmp_path


@pytest.fixture
def observed(lake):
    """Observe all writes, and store their plans."""
    with observing(lake):
        yield


class observing:  # noqa: N801 - used like a function
    """Observe the writes of a block, with its settings."""

    def __init__(self, lake, **settings):
        self._settings = Settings(
            cache_root=str(lake / "root"), **{"keep_write_plans": True, **settings}
        )

    def __enter__(self):
        DeltaLakeInstrumentor().instrument(settings=self._settings)

    def __exit__(self, *_):
        DeltaLakeInstrumentor().uninstrument()


def session(lake):
    ctx = ObservedSessionContext()
    for name in ("facts", "names"):
        ctx.register_delta(name, lake / name)
    return ctx


def verify(lake, run_id="load"):
    """Verify the writes of a run as the command does."""
    Ledger(str(lake / "root")).drain()
    _, rows = rewritable_writes(LedgerListing(LedgerRoot(str(lake / "root"))), run_id)
    return list(Verifier(LedgerRoot(str(lake / "root"))).verify_writes(rows))


def verdicts(lake, run_id="load"):
    """The verdict, or the reason of `cannot_tell`, of each write."""
    return [found.reason or found.verdict.value for found in verify(lake, run_id)]


def plans(lake):
    return sorted(Path(lake, "root", WRITE_PLAN_DIRECTORY).glob("*"))


def change_inputs(lake):
    """Commit new versions of both tables."""
    write_deltalake(lake / "facts", ROWS.slice(0, 2), mode="append")
    DeltaTable(lake / "names").update(updates={"name": "'q'"})


# --- verdict: reproducible ------------------------------------------------------------------------------------


def create_by_frame(ctx, lake):
    write_deltalake(lake / "out", ctx.table("facts").filter("part = 1"), partition_by=["s"])


def append_a_frame(ctx, lake):
    write_deltalake(
        lake / "names", ctx.sql("SELECT part + 7 AS part, s AS name FROM facts"), mode="append"
    )


def append_twice_to_partitions(ctx, lake):
    write_deltalake(
        lake / "out",
        ctx.sql("SELECT id, CASE WHEN id > 1 THEN 'a b/c=d' END AS s FROM facts"),
        partition_by=["s"],
    )
    write_deltalake(
        lake / "out",
        ctx.sql("SELECT id, CASE WHEN id > 1 THEN 'ü' END AS s FROM facts"),
        mode="append",
    )


def overwrite_a_table_that_is_read(ctx, lake):
    write_deltalake(lake / "facts", ctx.sql("SELECT * FROM facts WHERE id > 3"), mode="overwrite")


def write_an_arrow_table_of_a_frame(ctx, lake):
    write_deltalake(lake / "out", ctx.table("facts").select("id").to_arrow_table())


def write_delta_of_a_frame(ctx, lake):
    ctx.sql("SELECT f.id, n.name FROM facts f JOIN names n USING (part)").write_delta(lake / "out")
    ctx.table("names").select("part", "name").write_table("names")


def insert(ctx, lake):
    ctx.sql("INSERT INTO facts VALUES (77, 0, 'vv')").collect()
    ctx.sql("INSERT INTO facts (s, id) SELECT name, part FROM names").collect()
    ctx.sql(
        "INSERT INTO facts SELECT id + 1, part, $s FROM facts", param_values={"s": "p"}
    ).collect()


def insert_overwrite(ctx, lake):
    ctx.sql("INSERT OVERWRITE facts SELECT part, part + 1, name FROM names").collect()


def create_table_as(ctx, lake):
    ctx.sql(
        f"CREATE TABLE o STORED AS DELTATABLE LOCATION '{lake / 'out'}' AS SELECT id, unnest([1, 2]) u FROM facts"
    )


def copy(ctx, lake):
    ctx.sql(f"COPY (SELECT id FROM facts) TO '{lake / 'out'}' STORED AS DELTATABLE").collect()


def view_of_the_session(ctx, lake):
    ctx.sql("CREATE VIEW even AS SELECT id, part, s FROM facts WHERE id % 2 = 0")
    ctx.sql("INSERT INTO facts SELECT * FROM even").collect()


def without_substrait(ctx, lake):
    ctx.sql("INSERT INTO names SELECT unnest([5, 6]), 'x'").collect()


def changes(ctx, lake):
    ctx.sql("UPDATE facts SET s = upper(s) WHERE id = 3").collect()
    ctx.sql(
        "UPDATE facts SET s = 'q' WHERE part IN (SELECT part FROM names WHERE name = 'y')"
    ).collect()
    ctx.sql("DELETE FROM facts WHERE id = 4").collect()
    ctx.sql(
        "MERGE INTO names USING facts ON names.part = facts.id WHEN MATCHED THEN UPDATE SET name = facts.s"
        " WHEN NOT MATCHED THEN INSERT (part, name) VALUES (facts.id, facts.s)"
    ).collect()
    ctx.sql("TRUNCATE TABLE facts").collect()


def overwrite_of_some_rows(ctx, lake):
    rows = ctx.sql("SELECT part, 'w' AS name FROM names WHERE part = 1")
    write_deltalake(lake / "names", rows, mode="overwrite", predicate="part = 1")


def distributed(ctx, lake):
    with ThreadPoolExecutor(2) as pool:
        ctx.write_distributed("SELECT id, s FROM facts WHERE id > 2", lake / "out", engine=pool)


def generated_columns(ctx, lake):
    twice = pa.field("twice", pa.int64(), metadata={"delta.generationExpression": "n * 2"})
    DeltaTable.create(lake / "out", pa.schema([pa.field("n", pa.int64()), twice]))
    ctx.register_delta("out", lake / "out")
    ctx.sql("INSERT INTO out (n) SELECT part FROM names").collect()


WRITES = (
    create_by_frame,
    append_a_frame,
    append_twice_to_partitions,
    overwrite_a_table_that_is_read,
    write_an_arrow_table_of_a_frame,
    write_delta_of_a_frame,
    insert,
    insert_overwrite,
    create_table_as,
    copy,
    view_of_the_session,
    without_substrait,
    changes,
    overwrite_of_some_rows,
    distributed,
    generated_columns,
)


@pytest.mark.slow
@pytest.mark.parametrize("write", WRITES)
def test_a_write_is_computed_again(write, lake, observed):
    """Its inputs are read at the versions that it has read."""
    with run("load", run_id="load"):
        write(session(lake), lake)
    change_inputs(lake)
    found = verify(lake)
    assert found
    assert {each.verdict.value for each in found} == {"reproducible"}, list(map(str, found))
    assert all(each.rows_kept == each.rows_now for each in found)


@pytest.mark.slow
def test_an_append_compares_only_its_own_rows(lake, observed):
    """Rows of earlier versions are not counted."""
    with run("load", run_id="load"):
        ctx = session(lake)
        ctx.sql("INSERT INTO facts SELECT part, part + 1, name FROM names").collect()
        ctx.sql("INSERT OVERWRITE names SELECT id, s FROM facts").collect()
    assert [each.rows_kept for each in verify(lake)] == [3, 13]


# --- verdict: differs -----------------------------------------------------------------------------------------


def tamper(table, version, column):
    """Change a value in the data file that a version added, and the size of the file in the log."""
    log = table / f"_delta_log/{version:020}.json"
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    (add,) = [line["add"] for line in lines if "add" in line]
    path = table / add["path"]
    rows = pq.read_table(path)
    at = rows.schema.get_field_index(column)
    rows = rows.set_column(
        at, column, pa.array([99, *rows[column].to_pylist()[1:]], rows[column].type)
    )
    pq.write_table(rows, path)
    add["size"] = path.stat().st_size
    log.write_text("\n".join(map(json.dumps, lines)))


@pytest.mark.slow
def test_a_changed_data_file_differs(lake, observed):
    """The column is named; the command exits with 1."""
    with run("load", run_id="load"):
        ctx = session(lake)
        ctx.sql("SELECT id, part FROM facts").write_delta(lake / "out")
        ctx.sql("SELECT id + 50 AS id, part FROM facts").write_delta(lake / "out", mode="append")
    tamper(lake / "out", 1, "part")
    found = verify(lake)
    assert [str(each) for each in found] == [
        "out 0: reproducible (10 rows)",
        "out 1: differs (part; 10 rows stored, 10 recomputed)",
    ]
    result = json_of("verify", "load", "--root", lake / "root", code=1)
    assert (result["reproducible"], result["differs"], result["cannot_tell"]) == (1, 1, 0)
    tamper(lake / "out", 0, "id")
    assert verdicts(lake) == ["differs", "differs"]


@pytest.mark.slow
def test_a_changed_result_of_an_update_differs(lake, observed):
    """The rows after the statement are compared."""
    with run("load", run_id="load"):
        session(lake).sql("UPDATE facts SET part = 5 WHERE id > 8").collect()
    tamper(lake / "facts", 1, "part")
    (found,) = verify(lake)
    assert (found.verdict.value, found.columns, found.rows_kept) == ("differs", ("part",), 10)


# --- verdict: cannot_tell -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_vacuumed_input_is_the_reason(lake, observed):
    """An input version whose files are deleted cannot be read again."""
    with run("load", run_id="load"):
        session(lake).table("facts").write_delta(lake / "out")
    facts = DeltaTable(lake / "facts")
    facts.delete("id = 1")
    facts.vacuum(0, dry_run=False, enforce_retention_duration=False)
    assert verdicts(lake) == ["version vacuumed: data files of facts version 0 are missing"]


@pytest.mark.slow
def test_reasons_why_rows_cannot_be_computed_again(lake, observed):
    """A function of the program or a volatile one, rows in memory, parameters, and writes without a plan."""
    ctx = session(lake)
    ctx.register_udf(udf(lambda a: a, [pa.int64()], pa.int64(), "immutable", "f"))
    ctx.register_udf(udf(lambda a: a, [pa.int64()], pa.int64(), "immutable", "abs"))
    pq.write_table(ROWS, lake / "rows.parquet")
    with run("load", run_id="load"):
        write_deltalake(lake / "out", ctx.sql("SELECT f(id) AS id FROM facts"))
        write_deltalake(lake / "out", ctx.sql("SELECT abs(id) AS id FROM facts"), mode="append")
        ctx.sql("UPDATE facts SET id = Abs (id) WHERE id < 3").collect()
        write_deltalake(lake / "now", ctx.sql("SELECT now() AS at"))
        ctx.from_pydict({"id": [1]}).write_delta(lake / "out", mode="append")
        ctx.read_parquet(str(lake / "rows.parquet")).select("id").write_delta(
            lake / "out", mode="append"
        )
        ctx.sql("DELETE FROM facts WHERE id = $id", param_values={"id": 9}).collect()
        at = ctx.sql("SELECT id, to_timestamp(id) AS t FROM facts")
        ctx.sql("SET datafusion.execution.time_zone = '+05:00'").collect()
        at.write_delta(lake / "at")
        write_deltalake(lake / "out", ROWS.select(["id"]), mode="append")
        DeltaTable(lake / "facts").delete("id = 8")
        DeltaTable(lake / "names").merge(
            ctx.table("names"), "t.part = s.part", source_alias="s", target_alias="t"
        ).when_matched_delete().execute()
    sql_only = "is computed again only if a SQL statement without parameters made it"
    found = verdicts(lake)
    assert found.pop(5).startswith("inputs available only in the original session: rows.parquet")
    assert found == [
        "f() is a user-defined function",
        "abs() is a user-defined function",
        "abs() is a user-defined function",
        "now() is volatile",
        "table 0 is in memory only",
        f"DELETE {sql_only}",
        "a function call in the frame may use another time zone",
        "the write has no plan",
        "the write has no plan",
        f"MERGE {sql_only}",
    ]


@pytest.mark.slow
def test_a_statement_on_an_older_version_cannot_be_run_again(lake, observed):
    """Another write was committed between the version that the statement read and its own."""
    with run("load", run_id="load"):
        session(lake).sql("DELETE FROM facts WHERE id = 3").collect()
    (path,) = plans(lake)
    plan = json.loads(path.read_text())
    plan["statement"]["version"] -= 1
    path.write_text(json.dumps(plan))
    assert verdicts(lake) == ["another write was committed at the same time"]
    plan["statement"] |= {"version": 0, "text": f"COPY facts TO '{lake}/stolen.csv'"}
    path.write_text(json.dumps(plan))
    assert verdicts(lake) == ["its plan has a statement that is no write of a table"]
    path.write_text('{"format": 2}')
    assert verdicts(lake) == ["its plan cannot be read"]


@pytest.mark.slow
def test_another_table_at_the_location_is_the_reason(lake, observed):
    """The version that is there now has the commit of another write."""
    with run("load", run_id="load"):
        session(lake).table("facts").write_delta(lake / "out")
    (lake / "out").rename(lake / "before")
    session(lake).table("names").write_delta(lake / "out")
    assert verdicts(lake) == [
        "the version has the commit of another write: the table was restored or created again"
    ]


# --- storage --------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_no_plan_is_stored_by_default(lake):
    """`DELTAWITNESS_KEEP_WRITE_PLANS` is off, as its files take space; without a ledger, nothing finds them."""
    for settings in ({"keep_write_plans": Settings().keep_write_plans}, {"ledger": False}):
        with observing(lake, **settings), run("load", run_id="load"):
            session(lake).table("facts").write_delta(lake / "out", mode="append")
    assert plans(lake) == []
    assert verdicts(lake) == ["no plan was stored"]


@pytest.mark.slow
def test_a_plan_is_private(lake, caplog):
    """Its literals are in its file, readable for its owner only, and in no commit, telemetry or ledger."""
    caplog.set_level(logging.DEBUG)
    events = []
    settings = Settings(cache_root=str(lake / "root"), keep_write_plans=True)
    DeltaLakeInstrumentor().instrument(
        settings=settings, sinks=[lambda event: events.append(repr(event))]
    )
    with run("load", run_id="load"):
        ctx = session(lake)
        ctx.sql("INSERT INTO names SELECT part, 'canary' FROM facts WHERE id <> 31415926").collect()
        ctx.sql("UPDATE names SET part = 3 WHERE name = 'canary' AND part <> 31415926").collect()
    DeltaLakeInstrumentor().uninstrument()
    found = plans(lake)
    assert len(found) == 2
    assert [stat.S_IMODE(path.stat().st_mode) for path in found] == [0o600, 0o600]
    assert stat.S_IMODE(found[0].parent.stat().st_mode) == 0o700
    assert any("canary" in path.read_text() for path in found)
    others = [path for path in (lake / "root").rglob("*") if path.is_file() and path not in found]
    others.append(
        lake / "names/_delta_log/00000000000000000001.json"
    )  # delta-rs has the filter of an UPDATE in it
    texts = [path.read_bytes().decode("latin-1") for path in others]
    assert not any("31415926" in text for text in (*texts, *events, caplog.text))
    assert verdicts(lake) == ["reproducible", "reproducible"]


@pytest.mark.slow
def test_a_large_plan_is_not_stored(lake, observed, monkeypatch):
    """An INSERT may have many rows of VALUES."""
    monkeypatch.setattr(write_plan, "MAX_BYTES", 2000)
    with run("load", run_id="load"):
        values = ", ".join(f"({n}, 1, 'x')" for n in range(200))
        session(lake).sql(f"INSERT INTO facts VALUES {values}").collect()
    assert verdicts(lake) == ["its plan is larger than 0 MiB"]
    assert [path.stat().st_size < 200 for path in plans(lake)] == [True]


@pytest.mark.slow
@pytest.mark.internal_errors
def test_a_plan_that_cannot_be_stored_does_not_fail_the_write(lake):
    """The write has its row in the ledger."""
    (lake / "root").mkdir()
    (lake / "root" / WRITE_PLAN_DIRECTORY).write_text("in the way")
    with observing(lake), run("load", run_id="load"):
        session(lake).table("facts").write_delta(lake / "out")
    assert DeltaTable(lake / "out").version() == 0
    assert verdicts(lake) == ["no plan was stored"]


@pytest.mark.slow
def test_verify_writes_nothing(lake, observed, monkeypatch):
    """Neither tables nor the ledger change, also if the environment enables the ledger."""
    with run("load", run_id="load"):
        changes(session(lake), lake)
    DeltaLakeInstrumentor().uninstrument()
    monkeypatch.setenv("DELTAWITNESS_CACHE_ROOT", str(lake / "root"))
    monkeypatch.setenv("DELTAWITNESS_KEEP_WRITE_PLANS", "true")
    before = {path for path in lake.rglob("*") if path.is_file()}
    assert json_of("verify", "load", "--root", lake / "root")["reproducible"] == 5
    assert {path for path in lake.rglob("*") if path.is_file()} == before


@pytest.mark.slow
def test_plans_on_an_object_store(server):
    """Plans are stored below a remote root, and the writes of remote tables are verified."""
    root, options = "s3://lake/plans", server.options
    facts = "s3://lake/verified"
    write_deltalake(facts, ROWS, storage_options=options)
    settings = Settings(cache_root=root, storage_options=options, keep_write_plans=True)
    DeltaLakeInstrumentor().instrument(settings=settings)
    with run("load", run_id="load"):
        ctx = ObservedSessionContext()
        ctx.register_delta("facts", facts, storage_options=options)
        ctx.sql("INSERT INTO facts SELECT id + 10, part, s FROM facts").collect()
        ctx.sql("DELETE FROM facts WHERE id = 3").collect()
    DeltaLakeInstrumentor().uninstrument()
    place = LedgerRoot(root, options)
    _, rows = rewritable_writes(LedgerListing(place), "load")
    found = list(Verifier(place).verify_writes(rows))
    assert [str(each) for each in found] == [
        "verified 1: reproducible (10 rows)",
        "verified 2: reproducible (19 rows)",
    ]
    assert len(plans_of_writes(place)) == 2
    delete_plans_of_writes(place, list(plans_of_writes(place)))
    assert plans_of_writes(place) == {}
