"""SQL writes on Delta tables: each statement has its documented effect on the rows."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

import pyarrow as pa
import pytest
from datafusion import udf
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import CommitFailedError

from deltawitness import ObservedSessionContext
from helpers.people_tables import ANN, BOB, CAT, people, people_session, run

CASES = {
    "insert values": ("INSERT INTO people VALUES (9, 'x', 0.5)", 1, [ANN, BOB, CAT, (9, "x", 0.5)]),
    "insert some columns": ("INSERT INTO people (name, id) VALUES ('x', 9)", 1, [ANN, BOB, CAT, (9, "x", None)]),
    "insert select": ("INSERT INTO people SELECT * FROM news WHERE id > 3", 1, [ANN, BOB, CAT, (4, "dan", 40.0)]),
    "insert with a CTE": ("INSERT INTO people WITH c AS (SELECT 9 AS id, 'c' AS name, 1.0 AS score) SELECT * FROM c", 1, [ANN, BOB, CAT, (9, "c", 1.0)]),
    "insert nothing": ("INSERT INTO people SELECT * FROM news WHERE false", 0, [ANN, BOB, CAT]),
    "insert from itself": ("INSERT INTO people SELECT id + 10, name, score FROM people", 3, [ANN, BOB, CAT, (11, "ann", 1.5), (12, "bob", None), (13, None, 3.0)]),
    "overwrite": ("INSERT OVERWRITE people SELECT * FROM news", 2, [(2, "BOB", 20.0), (4, "dan", 40.0)]),
    "overwrite from itself": ("INSERT OVERWRITE people SELECT * FROM people WHERE id < 3", 2, [ANN, BOB]),
    "update": ("UPDATE people SET score = score * 2, name = upper(name) WHERE id < 3", 2, [(1, "ANN", 3.0), (2, "BOB", None), CAT]),
    "update all": ("UPDATE people SET score = 0", 3, [(1, "ann", 0.0), (2, "bob", 0.0), (3, None, 0.0)]),
    "update with an alias": ("UPDATE people AS p SET name = p.name || '!' WHERE p.id = 1", 1, [(1, "ann!", 1.5), BOB, CAT]),
    "update by a subquery": ("UPDATE people SET score = (SELECT max(score) FROM news) WHERE id IN (SELECT id FROM news)", 1, [ANN, (2, "bob", 40.0), CAT]),
    "update by a correlated subquery": ("UPDATE people SET name = (SELECT max(n.name) FROM news AS n WHERE n.id = people.id)", 3, [(1, None, 1.5), (2, "BOB", None), (3, None, 3.0)]),
    "update that matches nothing": ("UPDATE people SET score = 0 WHERE id > 99", 0, [ANN, BOB, CAT]),
    "update to itself": ("UPDATE people SET score = score WHERE id < 3", 2, [ANN, BOB, CAT]),
    "delete": ("DELETE FROM people WHERE id = 2", 1, [ANN, CAT]),
    "delete of NULL": ("DELETE FROM people WHERE id = NULL", 0, [ANN, BOB, CAT]),
    "delete where IS NULL": ("DELETE FROM people WHERE name IS NULL", 1, [ANN, BOB]),
    "delete by a function": ("DELETE FROM people WHERE upper(name) = 'ANN'", 1, [BOB, CAT]),
    "delete by IN": ("DELETE FROM people WHERE id IN (SELECT id FROM news)", 1, [ANN, CAT]),
    "delete by NOT IN": ("DELETE FROM people WHERE id NOT IN (SELECT id FROM news)", 2, [BOB]),
    "delete by NOT EXISTS": ("DELETE FROM people WHERE NOT EXISTS (SELECT 1 FROM news WHERE news.id = people.id)", 2, [BOB]),
    "delete by EXISTS of anything": ("DELETE FROM people WHERE EXISTS (SELECT 1 FROM news)", 3, []),
    "delete all": ("DELETE FROM people", 3, []),
    "truncate": ("TRUNCATE TABLE people", 3, []),
    "upsert": ("MERGE INTO people USING news ON people.id = news.id WHEN MATCHED THEN UPDATE SET score = news.score WHEN NOT MATCHED THEN INSERT (id, name) VALUES (news.id, news.name)", 2, [ANN, (2, "bob", 20.0), CAT, (4, "dan", None)]),
    "merge with all clauses": ("MERGE INTO people AS p USING (SELECT * FROM news) AS n ON p.id = n.id WHEN MATCHED AND n.score > 99 THEN DELETE WHEN MATCHED THEN UPDATE SET name = n.name WHEN NOT MATCHED AND n.id = 4 THEN INSERT VALUES (n.id, 'new', n.score) WHEN NOT MATCHED BY SOURCE AND p.id = 1 THEN DELETE WHEN NOT MATCHED BY SOURCE THEN UPDATE SET name = 'left'", 4, [(2, "BOB", None), (3, "left", 3.0), (4, "new", 40.0)]),
    "merge with functions": ("MERGE INTO people p USING news n ON p.id = n.id WHEN MATCHED THEN UPDATE SET name = concat(p.name, '-', lower(n.name)) WHEN NOT MATCHED THEN INSERT (id, name) VALUES (n.id, upper(n.name))", 2, [ANN, (2, "bob-bob", None), CAT, (4, "DAN", None)]),
    "merge with a subquery in a condition": ("MERGE INTO people p USING news n ON p.id = n.id WHEN MATCHED AND p.id IN (SELECT id FROM news) THEN DELETE", 1, [ANN, CAT]),
    "merge that only inserts by a function": ("MERGE INTO people USING (SELECT 7 AS k) s ON people.id = s.k WHEN NOT MATCHED THEN INSERT (id, name) VALUES (abs(s.k), upper('x'))", 1, [ANN, BOB, CAT, (7, "X", None)]),
    "merge of nothing": ("MERGE INTO people USING (SELECT * FROM news WHERE false) n ON people.id = n.id WHEN MATCHED THEN DELETE", 0, [ANN, BOB, CAT]),
}  # fmt: skip


@pytest.fixture
def ctx(tmp_path):
    """A session with two Delta tables."""
    return people_session(tmp_path)


@pytest.mark.parametrize("case", CASES)
def test_a_statement_changes_and_counts_its_rows(ctx, case):
    """A statement changes its rows and returns their count, and the session serves the new version."""
    sql, count, after = CASES[case]
    assert run(ctx, sql) == count
    assert people(ctx) == after


def test_the_count_is_one_row_of_an_unsigned_integer(ctx):
    """The result is one row `count: UInt64`, as for a DataFusion table."""
    frame = ctx.sql("DELETE FROM people WHERE id = 1")
    expected = pa.schema([pa.field("count", pa.uint64(), nullable=False)])
    assert frame.schema() == expected
    assert frame.to_arrow_table().schema == expected


NAMES = ["a b", "a.b", 'q"q', "Cap", "ünï", "select"]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_names_that_need_quotes_work_in_every_statement(tmp_path, name):
    """Quoted names of tables and of columns work in every statement."""
    q = '"' + name.replace('"', '""') + '"'
    write_deltalake(tmp_path / "t", pa.table({name: [1, 2], "v": ["x", "y"]}))
    ctx = ObservedSessionContext()
    ctx.register_table(q, DeltaTable(tmp_path / "t"))
    assert run(ctx, f"INSERT INTO {q} ({q}) VALUES (3)") == 1
    assert run(ctx, f"UPDATE {q} SET {q} = {q} + 10 WHERE {q} = 1") == 1
    assert run(ctx, f"UPDATE {q} SET v = upper(v) WHERE abs({q}) = 2") == 1
    assert run(ctx, f"DELETE FROM {q} WHERE {q} = 3") == 1
    merged = f"MERGE INTO {q} AS t USING (SELECT 11 AS {q}) AS s ON t.{q} = s.{q} WHEN MATCHED THEN UPDATE SET {q} = abs(s.{q}) + 1"
    assert run(ctx, merged) == 1
    assert ctx.sql(f"SELECT * FROM {q} ORDER BY {q}").to_pydict() == {
        name: [2, 12],
        "v": ["Y", "x"],
    }


def test_unquoted_names_are_folded_and_quoted_ones_are_not(ctx):
    """Names are folded to lower case as in DataFusion."""
    assert run(ctx, "INSERT INTO PEOPLE (ID, Name) VALUES (9, 'x')") == 1
    with pytest.raises(ValueError, match="not found"):
        ctx.sql('DELETE FROM "PEOPLE"')


@pytest.mark.parametrize(
    ("sql", "values"),
    [
        ("DELETE FROM people WHERE id = $1", {"1": 2}),
        ("DELETE FROM people WHERE id = $wanted", {"wanted": 2}),
        ("UPDATE people SET name = $n WHERE id IN (SELECT id FROM news WHERE score > $s)", {"n": "x", "s": 0.5}),
        ("INSERT INTO people VALUES ($id, $name, NULL)", {"id": 7, "name": "it's"}),
        ("MERGE INTO people p USING news n ON p.id = n.id AND n.id = $k WHEN MATCHED THEN UPDATE SET score = $v", {"k": 2, "v": 7.5}),
        ("MERGE INTO people p USING news n ON p.id = n.id WHEN MATCHED THEN UPDATE SET name = concat($v, n.name)", {"v": "<"}),
    ],
)  # fmt: skip
def test_parameters_replace_values(ctx, sql, values):
    """Numbered and named parameters work in every statement."""
    assert run(ctx, sql, param_values=values) == 1


def test_a_quoted_name_is_no_parameter(tmp_path):
    """A quoted name such as "$1" is not a parameter."""
    write_deltalake(tmp_path / "t", pa.table({"$x": ["a"], "y": ["b"]}))
    ctx = ObservedSessionContext()
    ctx.register_delta("t", tmp_path / "t")
    run(ctx, 'INSERT INTO t ("$x", y) VALUES ($x, $z)', param_values={"x": "p", "z": "q"})
    assert ctx.sql('SELECT "$x", y FROM t ORDER BY 1').to_pydict() == {
        "$x": ["a", "p"],
        "y": ["b", "q"],
    }


def test_a_named_frame_replaces_a_table(ctx):
    """A frame can replace a `$name` table in a statement, as in a DataFusion query."""
    fresh = ctx.from_pydict({"id": [7], "name": ["g"], "score": [0.0]})
    assert run(ctx, "INSERT INTO people SELECT * FROM $rows", rows=fresh) == 1
    assert people(ctx)[-1] == (7, "g", 0.0)


def test_a_prepared_statement_writes(ctx):
    """EXECUTE of a prepared write changes the Delta table."""
    ctx.sql("PREPARE add_one AS INSERT INTO people VALUES ($1, 'p', 0.0)")
    assert run(ctx, "EXECUTE add_one(7)") == 1
    ctx.sql("PREPARE drop_one AS DELETE FROM people WHERE id = $1 AND upper(name) = 'P'")
    assert run(ctx, "EXECUTE drop_one(7)") == 1
    assert people(ctx) == [ANN, BOB, CAT]


def test_a_prepared_statement_sees_what_the_session_serves(ctx):
    """A prepared statement reads the current version, not the version at PREPARE."""
    ctx.sql(
        "PREPARE grow AS INSERT INTO people SELECT id + 10, name, score FROM people WHERE id < $1"
    )
    assert [run(ctx, "EXECUTE grow(99)") for _ in range(2)] == [3, 6]
    ctx.sql("DEALLOCATE grow")


def test_user_defined_functions_work_in_filters_and_assignments(ctx):
    """The session evaluates UDFs, which delta-rs does not have."""
    double = udf(lambda x: pa.compute.multiply(x, 2), [pa.int64()], pa.int64(), "immutable", "dbl")
    ctx.register_udf(double)
    assert run(ctx, "DELETE FROM people WHERE dbl(id) = 4") == 1
    assert run(ctx, "UPDATE people SET id = dbl(id) WHERE dbl(id) > 2") == 1
    assert [row[0] for row in people(ctx)] == [1, 6]


def test_values_of_every_type_survive(tmp_path):
    """Values of every type are unchanged after a write, an evaluated UPDATE and a read."""
    table = pa.table(
        {
            "k": [1],
            "d": pa.array([Decimal("1.50")], pa.decimal128(10, 2)),
            "ts": pa.array([dt.datetime(2024, 1, 1, tzinfo=dt.UTC)], pa.timestamp("us", "UTC")),
            "tn": pa.array([dt.datetime(2024, 1, 1)], pa.timestamp("us")),  # noqa: DTZ001 - a column without a zone
            "day": pa.array([dt.date(2024, 2, 29)]),
            "bin": pa.array([b"\x00'"]),
            "li": pa.array([[1, None]]),
            "st": pa.array([{"a": 1, "B c": "z"}]),
            "f": pa.array([float("nan")], pa.float32()),
        }
    )
    write_deltalake(tmp_path / "t", table)
    ctx = ObservedSessionContext()
    ctx.register_delta("t", tmp_path / "t")
    assert (
        run(ctx, "UPDATE t SET k = abs(k) + 1 WHERE li = [1, NULL] AND ts < now() AND f = 'NaN'")
        == 1
    )
    assert run(ctx, "UPDATE t SET ts = '2025-05-05T00:00:00Z', li = [9], d = 2.25") == 1
    (row,) = ctx.sql("SELECT * FROM t").to_pylist()
    assert (row["k"], row["ts"], row["li"], row["d"]) == (
        2,
        dt.datetime(2025, 5, 5, tzinfo=dt.UTC),
        [9],
        Decimal("2.25"),
    )
    assert (row["bin"], row["st"], row["day"]) == (
        b"\x00'",
        {"a": 1, "B c": "z"},
        dt.date(2024, 2, 29),
    )


# --- types that DataFusion coerces after planning ----------------------------------------------------

TYPED = {
    "CASE": ("UPDATE n SET i = CASE WHEN i < 20 THEN i ELSE 7 END, s = upper(s)", [10, 7, 7]),
    "CASE in an insert": ("INSERT OVERWRITE n SELECT CASE WHEN i < 20 THEN i ELSE 7 END, s FROM n", [10, 7, 7]),
    "UNION": ("INSERT OVERWRITE n SELECT CAST(1 AS INT), 'a' UNION ALL SELECT 3, 'b'", [1, 3]),
    "MERGE": ("MERGE INTO n USING (SELECT s, CASE WHEN i < 20 THEN i ELSE 7 END AS v FROM n) q ON n.s = q.s WHEN MATCHED THEN UPDATE SET i = q.v", [10, 7, 7]),
}  # fmt: skip


@pytest.fixture
def numbers(tmp_path):
    """A session with a Delta table of 32-bit integers."""
    write_deltalake(
        tmp_path / "n", pa.table({"i": pa.array([10, 20, 30], pa.int32()), "s": ["a", "b", "c"]})
    )
    context = ObservedSessionContext()
    context.register_delta("n", tmp_path / "n")
    return context


@pytest.mark.slow
@pytest.mark.parametrize("case", TYPED)
def test_values_are_of_the_type_that_they_say(numbers, case):
    """A source has the types of its batches, though a frame exports the types from before coercion."""
    sql, expected = TYPED[case]
    numbers.sql(sql).collect()
    assert sorted(numbers.sql("SELECT i FROM n").to_pydict()["i"]) == sorted(expected)


def test_a_value_that_does_not_fit_is_an_error(numbers, tmp_path):
    """A value that does not fit the column's type raises, and nothing is written."""
    with pytest.raises(Exception, match=r"(?i)cast"):
        numbers.sql(
            "INSERT INTO n SELECT CAST(1 AS INT), 'a' UNION ALL SELECT 3000000000, 'b'"
        ).collect()
    assert DeltaTable(tmp_path / "n").version() == 0


def test_frames_that_are_written_are_of_the_type_that_they_say(numbers, tmp_path):
    """Frames written by location, by name and by COPY have the types of their batches."""
    mixed = "SELECT CAST(1.5 AS DECIMAL(10,2)) AS d UNION ALL SELECT CAST(1.23456 AS DECIMAL(20,5))"
    numbers.sql(mixed).write_delta(tmp_path / "d")
    numbers.sql(f"COPY ({mixed}) TO '{tmp_path}/e' STORED AS DELTATABLE").collect()
    for name in ("d", "e"):
        values = DeltaTable(tmp_path / name).to_pyarrow_table()["d"].to_pylist()
        assert sorted(map(float, values)) == [1.23456, 1.5]
    numbers.sql("SELECT CASE WHEN i < 20 THEN i ELSE 7 END AS i, s FROM n").write_table("n")
    assert sorted(numbers.sql("SELECT i FROM n").to_pydict()["i"]) == [7, 7, 10, 10, 20, 30]


# --- two writers -----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_no_update_is_lost_between_two_sessions(tmp_path):
    """Each concurrent increment either counts or raises delta-rs's conflict, which is recorded."""
    from concurrent.futures import ThreadPoolExecutor

    from deltawitness.error_types import classify
    from deltawitness.semconv import ErrorType

    write_deltalake(tmp_path / "t", pa.table({"k": [1], "n": [0]}))

    def count_up(statement):
        session = ObservedSessionContext()
        session.register_delta("t", tmp_path / "t")
        done = 0
        for _ in range(12):
            try:
                done += run(session, statement)
            except CommitFailedError as error:
                kinds.add(classify(error))
        return done

    kinds = set()
    statements = ["UPDATE t SET n = n + 1 WHERE k = 1", "UPDATE t SET n = abs(n) + 1"] * 2
    with ThreadPoolExecutor(4) as pool:
        done = sum(pool.map(count_up, statements))
    session = ObservedSessionContext()
    session.register_delta("t", tmp_path / "t")
    assert session.sql("SELECT n FROM t").to_pydict() == {"n": [done]}
    assert done > 0
    assert kinds <= {ErrorType.COMMIT_CONFLICT}


@pytest.mark.slow
def test_one_session_serves_many_threads(tmp_path):
    """With concurrent appends and reads, no reader misses the table and no row is lost."""
    from concurrent.futures import ThreadPoolExecutor

    write_deltalake(tmp_path / "t", pa.table({"n": [0]}))
    ctx = ObservedSessionContext()
    ctx.register_delta("t", tmp_path / "t")

    def write(number):
        return run(ctx, f"INSERT INTO t VALUES ({number})")

    def read(_):
        return ctx.sql("SELECT count(*) AS n FROM t").to_pydict()["n"][0]

    with ThreadPoolExecutor(4) as pool:
        written = [pool.submit(write, number) for number in range(30)]
        counts = list(pool.map(read, range(60)))
        assert sum(future.result() for future in written) == 30
    assert min(counts) >= 1
    assert read(None) == 31
