"""SQL writes on Delta tables: each statement has its documented effect or raises an error that says why."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

import pyarrow as pa
import pytest
from datafusion import SessionConfig, SQLOptions, udf
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError

from deltawitness import ObservedSessionContext, internal_errors
from deltawitness.exceptions import StatementError

PEOPLE = pa.table({"id": [1, 2, 3], "name": ["ann", "bob", None], "score": [1.5, None, 3.0]})
NEWS = pa.table({"id": [2, 4], "name": ["BOB", "dan"], "score": [20.0, 40.0]})


@pytest.fixture
def ctx(tmp_path):
    """A session with two Delta tables."""
    write_deltalake(tmp_path / "people", PEOPLE)
    write_deltalake(tmp_path / "news", NEWS)
    context = ObservedSessionContext()
    context.register_table("people", DeltaTable(tmp_path / "people"))
    context.register_delta("news", tmp_path / "news")
    return context


def run(ctx, sql, **kwargs):
    """Run a statement and return its count."""
    return ctx.sql(sql, **kwargs).to_pydict()["count"][0]


def people(ctx, columns="id, name, score"):
    return [
        tuple(row.values())
        for row in ctx.sql(f"SELECT {columns} FROM people ORDER BY id").to_pylist()
    ]


ANN, BOB, CAT = (1, "ann", 1.5), (2, "bob", None), (3, None, 3.0)

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


@pytest.mark.parametrize("case", CASES)
def test_a_statement_changes_the_rows_that_it_says(ctx, case):
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


# --- special cases of MERGE ------------------------------------------------------------------------------


@pytest.mark.parametrize("action", ["UPDATE SET score = 9", "DELETE"])
def test_rows_that_match_twice_are_not_doubled_by_a_clause_about_others(ctx, action):
    """A target row with two matches is written once; delta-rs alone writes it once per match."""
    sql = f"MERGE INTO people p USING (SELECT 1 AS k UNION ALL SELECT 1) s ON p.id = s.k WHEN NOT MATCHED BY SOURCE THEN {action}"
    assert run(ctx, sql) == 2
    assert [row[0] for row in people(ctx)] == ([1, 2, 3] if action.startswith("UPDATE") else [1])


def test_a_row_that_matches_twice_is_deleted_once(ctx):
    """A DELETE clause with two matches for a row is no error, in delta-rs and in the session."""
    twice = "(SELECT 'bob' AS k UNION ALL SELECT 'bob')"
    sql = (
        f"MERGE INTO people AS t USING {twice} AS s ON t.name = lower(s.k) WHEN MATCHED THEN DELETE"
    )
    assert run(ctx, sql) == 1
    assert people(ctx) == [ANN, CAT]


@pytest.mark.internal_errors
def test_an_insert_has_landed_though_its_commit_cannot_be_read(ctx, monkeypatch):
    """If the commit cannot be read, the count comes from delta-rs's history."""

    def unreadable(*_args, **_kwargs):
        raise PermissionError("denied")

    monkeypatch.setattr("deltawitness.delta_rs.receipts.open_log", unreadable)
    assert run(ctx, "INSERT INTO people SELECT * FROM news") == 2
    assert ("receipt", "PermissionError") in internal_errors.seen()


def test_a_condition_that_is_put_in_by_name_counts(ctx):
    """A condition that replaces a `$name` is used, though its columns are not in the statement's text."""
    sql = "MERGE INTO people USING news ON $cond WHEN MATCHED AND abs(news.score) > 0 THEN DELETE"
    assert run(ctx, sql, cond="people.id = news.id") == 1
    assert people(ctx) == [ANN, CAT]


def test_a_frame_can_be_the_source_of_a_merge(ctx):
    """A frame that replaces a `$name` can be the source of a MERGE."""
    rows = ctx.from_pydict({"id": [2]})
    assert (
        run(
            ctx,
            "MERGE INTO people p USING (SELECT * FROM $rows) s ON p.id = s.id WHEN MATCHED THEN DELETE",
            rows=rows,
        )
        == 1
    )


def test_a_volatile_source_is_read_once(ctx):
    """A volatile source is read once, so that each of its rows is either matched or not."""
    sql = "MERGE INTO people p USING (SELECT CAST(random() * 6 AS BIGINT) AS k) s ON p.id = s.k WHEN MATCHED THEN UPDATE SET score = abs(1.0) WHEN NOT MATCHED THEN INSERT (id, name) VALUES (s.k, upper('x'))"
    assert {run(ctx, sql) for _ in range(12)} == {1}


def test_null_is_not_null_in_a_clauses_condition(ctx):
    """NULL = NULL is not true in a clause's condition, even if ON treats NULL as equal to NULL."""
    ctx.sql("INSERT INTO people (id) VALUES (7)").collect()
    sql = "MERGE INTO people p USING (SELECT 7 AS k, CAST(NULL AS VARCHAR) AS z) q ON p.id IS NOT DISTINCT FROM q.k WHEN MATCHED AND p.name = q.z AND abs(1) = 1 THEN DELETE"
    assert run(ctx, sql) == 0


@pytest.mark.parametrize("given", ["(1)", "(NULL), (NULL)", "(7), (7)", "(8), (9), (NULL)"])
def test_a_merge_that_deletes_inserts_equal_rows(ctx, given):
    """Each unmatched source row is inserted, even if the inserted rows are equal."""
    counted = ctx.sql(f"""
        MERGE INTO people USING (SELECT column1 AS k FROM (VALUES {given})) AS s ON people.id = s.k
        WHEN MATCHED THEN DELETE
        WHEN NOT MATCHED THEN INSERT (name) VALUES (upper(substr(concat('new', s.k), 1, 3)))
    """).to_pydict()
    matched = 1 if given == "(1)" else 0
    inserted = len(given.split(",")) - matched
    assert counted == {"count": [matched + inserted]}
    new = ctx.sql("SELECT count(*) AS n FROM people WHERE name = 'NEW'").to_pydict()
    assert new == {"n": [inserted]}


def test_a_merge_gives_defaults_as_an_insert_does(ctx, tmp_path):
    """The INSERT of a MERGE fills columns that it does not name with their defaults."""
    ctx.sql(
        f"CREATE EXTERNAL TABLE d (id BIGINT, s VARCHAR DEFAULT 'dd') STORED AS DELTATABLE LOCATION '{tmp_path}/d'"
    )
    assert (
        run(
            ctx,
            "MERGE INTO d USING news ON d.id = news.id WHEN NOT MATCHED THEN INSERT (id) VALUES (news.id)",
        )
        == 2
    )
    assert ctx.sql("SELECT DISTINCT s FROM d").to_pydict() == {"s": ["dd"]}


def test_defaults_are_given_however_an_insert_comes(ctx, tmp_path):
    """An INSERT as text, as prepared statement and as plan fills defaults."""
    ctx.sql(
        f"CREATE EXTERNAL TABLE d (id BIGINT, s VARCHAR DEFAULT 'dd') STORED AS DELTATABLE LOCATION '{tmp_path}/d'"
    )
    ctx.sql("PREPARE add_one AS INSERT INTO d (id) VALUES ($1)")
    assert run(ctx, "EXECUTE add_one(1)") == 1
    assert run(ctx, "INSERT INTO d (id) VALUES (2)") == 1
    assert run(ctx, "INSERT INTO d (id, s) VALUES (3, NULL)") == 1
    assert ctx.sql("SELECT s FROM d ORDER BY id").to_pydict() == {"s": ["dd", "dd", None]}
    plan = ctx.sql("INSERT INTO d (id) VALUES (4)").logical_plan()
    assert ctx.execute_logical_plan(plan).to_pydict() == {"count": [1]}
    assert ctx.sql("SELECT s FROM d WHERE id = 4").to_pydict() == {"s": ["dd"]}


def test_names_that_are_not_folded_are_those_of_the_statement(tmp_path):
    """With `enable_ident_normalization` off, names are not folded, also in an evaluated MERGE."""
    write_deltalake(tmp_path / "t", PEOPLE)
    config = SessionConfig({"datafusion.sql_parser.enable_ident_normalization": "false"})
    ctx = ObservedSessionContext(config)
    ctx.register_delta("t", tmp_path / "t")
    ctx.register_delta('"Src"', tmp_path / "t", version=0)
    assert (
        run(
            ctx,
            "MERGE INTO t USING Src ON t.id = Src.id WHEN MATCHED AND abs(Src.id) = 1 THEN DELETE",
        )
        == 1
    )


@pytest.mark.parametrize("value", ["q.s", "upper(q.s)"])
def test_two_upserts_of_one_key_do_not_both_insert_it(tmp_path, monkeypatch, value):
    """The later of two concurrent upserts fails with a conflict, also for an evaluated MERGE."""
    write_deltalake(tmp_path / "t", pa.table({"id": [1], "s": ["x"]}))
    sql = f"MERGE INTO t USING (SELECT 7 AS id, 'a' AS s) q ON t.id = q.id WHEN NOT MATCHED THEN INSERT VALUES (q.id, {value})"
    original = DeltaTable.merge

    def second(*args, **kwargs):
        monkeypatch.setattr(DeltaTable, "merge", original)
        other = ObservedSessionContext()
        other.register_delta("t", tmp_path / "t")
        assert run(other, sql) == 1
        return original(*args, **kwargs)

    ctx = ObservedSessionContext()
    ctx.register_delta("t", tmp_path / "t")
    monkeypatch.setattr(DeltaTable, "merge", second)
    with pytest.raises(CommitFailedError, match="concurrent"):
        run(ctx, sql)
    assert DeltaTable(tmp_path / "t").version() == 1


def test_a_volatile_statement_is_refused(ctx, tmp_path):
    """A volatile statement is refused unless delta-rs can evaluate it itself."""
    volatile = udf(lambda x: x, [pa.int64()], pa.int64(), "volatile", "dice")
    ctx.register_udf(volatile)
    for sql in (
        "DELETE FROM people WHERE random() < 0.5",
        "UPDATE people SET id = dice(id)",
        "MERGE INTO people p USING news n ON p.id = n.id WHEN MATCHED AND random() < 2 THEN DELETE",
    ):
        with pytest.raises(StatementError, match="not deterministic"):
            ctx.sql(sql).collect()
    assert DeltaTable(tmp_path / "people").version() == 0
    assert run(ctx, "UPDATE people SET score = random()") == 3


# --- errors, with nothing written -------------------------------------------------------------------

REFUSED = {
    "several source rows for one target": (
        "MERGE INTO people p USING (VALUES (1, 'a'), (1, 'b')) AS s(k, v) ON p.id = s.k WHEN MATCHED THEN DELETE",
        StatementError,
        "alias with a list of columns",
    ),
    "several source rows update one row": (
        "MERGE INTO people p USING (SELECT 1 AS k, 'a' AS v UNION ALL SELECT 1, 'b') s ON p.id = s.k WHEN MATCHED THEN UPDATE SET name = s.v",
        DeltaError,
        "multiple source rows",
    ),
    "several source rows, evaluated": (
        "MERGE INTO people p USING (SELECT 1 AS k, 'a' AS v UNION ALL SELECT 1, 'a') s ON p.id = abs(s.k) WHEN MATCHED THEN UPDATE SET name = upper(s.v)",
        DeltaError,
        "multiple source rows",
    ),
    "a subquery with several rows": (
        "UPDATE people SET score = (SELECT score FROM news)",
        Exception,
        "more than one",
    ),
    "DELETE with LIMIT": ("DELETE FROM people LIMIT 1", StatementError, "LIMIT"),
    "REPLACE INTO": ("REPLACE INTO people VALUES (1, 'x', 0.0)", StatementError, "no primary key"),
    "a value that cannot be cast": ("UPDATE people SET id = 'x'", Exception, "(?i)cast"),
    "no such column": ("DELETE FROM people WHERE nope = 1", ValueError, "No field named nope"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_done_is_an_error_and_nothing_is_written(ctx, tmp_path, case):
    """An unsupported statement raises an error with the reason, and nothing is written."""
    sql, kind, text = REFUSED[case]
    with pytest.raises(kind, match=text):
        ctx.sql(sql).collect()
    assert DeltaTable(tmp_path / "people").version() == 0
    assert people(ctx) == [ANN, BOB, CAT]


def test_a_source_that_fails_in_the_middle_writes_nothing(ctx, tmp_path):
    """An error within the stream of a source leaves no commit, and the engine's error is raised."""

    def broken(values):
        msg = "no more"
        raise RuntimeError(msg)

    ctx.register_udf(udf(broken, [pa.int64()], pa.int64(), "volatile", "broken"))
    with pytest.raises(Exception, match="no more"):
        ctx.sql("INSERT INTO people SELECT broken(id), name, score FROM news").collect()
    assert DeltaTable(tmp_path / "people").version() == 0


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO people VALUES (9, 'x', 0.5)",
        "OPTIMIZE people",
        "VACUUM people",
        "RESTORE people TO VERSION 0",
        "COPY people TO 'elsewhere' STORED AS DELTATABLE",
    ],
)
def test_a_session_may_forbid_dml(ctx, sql):
    """`SQLOptions` that forbid DML apply to our own statements too."""
    with pytest.raises(Exception, match="DML not supported"):
        ctx.sql(sql, SQLOptions().with_allow_dml(allow=False)).collect()


def test_the_query_inside_a_statement_may_only_read(ctx, tmp_path):
    """The query inside a statement may only read, for any options of the statement."""
    for sql in (
        f"CREATE TABLE n STORED AS DELTATABLE LOCATION '{tmp_path}/n' AS INSERT INTO people VALUES (9, 'x', 0)",
        f"COPY (DROP TABLE people) TO '{tmp_path}/n' STORED AS DELTATABLE",
    ):
        with pytest.raises(Exception, match="not supported"):
            ctx.sql(sql)
    assert people(ctx) == [ANN, BOB, CAT]


def test_the_frame_of_a_statement_is_no_source(ctx, tmp_path):
    """A statement's frame is refused as a table: it would run the statement, or fail in the middle."""
    pending = ctx.sql("INSERT INTO people VALUES (9, 'x', 0.5)")
    for use in (
        lambda: ctx.sql("SELECT 1 AS count").union(pending),
        lambda: pending.union(pending),
        lambda: ctx.sql("SELECT * FROM $f", f=pending),
        lambda: ctx.register_view("v", pending),
    ):
        with pytest.raises(StatementError, match="not a source of rows"):
            use()
    assert "not run yet" in f"{pending}"
    assert "not run yet" in str(pending)
    assert DeltaTable(tmp_path / "people").version() == 0


def test_explain_analyze_of_a_write_is_refused(ctx):
    """EXPLAIN ANALYZE of a write is refused, because it runs the write."""
    with pytest.raises(StatementError, match="EXPLAIN ANALYZE"):
        ctx.sql("EXPLAIN ANALYZE DELETE FROM people")


def test_a_prepared_statement_means_what_it_meant(ctx, tmp_path):
    """A prepared statement keeps its names under another default schema, after a drop and on threads."""
    from concurrent.futures import ThreadPoolExecutor

    ctx.sql("PREPARE p AS INSERT INTO people VALUES ($1, 'p', 0.0)")
    ctx.sql("CREATE SCHEMA other")
    write_deltalake(tmp_path / "o", PEOPLE)
    ctx.register_delta("other.people", tmp_path / "o")
    ctx.sql("SET datafusion.catalog.default_schema = 'other'")
    assert run(ctx, "EXECUTE p(7)") == 1
    assert DeltaTable(tmp_path / "o").version() == 0
    ctx.sql("SET datafusion.catalog.default_schema = 'public'")
    ctx.deregister_table("people")
    assert run(ctx, "EXECUTE p(8)") == 1
    assert DeltaTable(tmp_path / "people").version() == 2
    ctx.register_delta("people", tmp_path / "people")
    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(lambda n: run(ctx, f"EXECUTE p({n})"), range(20))) == 20


def test_parameters_by_number_and_by_name_do_not_mix_in_an_insert(ctx):
    """Numbered and named parameters together raise DataFusion's error, and no value is mixed up."""
    with pytest.raises(ValueError, match="placeholder"):
        ctx.sql("INSERT INTO people VALUES ($1, $n, 0.5)", param_values={"1": 7, "n": "x"})


def test_a_constraint_holds_for_sql_too(ctx, tmp_path):
    """delta-rs checks constraints in SQL writes, and its error is raised."""
    DeltaTable(tmp_path / "people").alter.add_constraint({"positive": "id > 0"})
    with pytest.raises(Exception, match=r"(?i)check|constraint|invariant"):
        ctx.sql("INSERT INTO people VALUES (-1, 'x', 0.0)").collect()
    assert people(ctx) == [ANN, BOB, CAT]


# --- commands ------------------------------------------------------------------------------------------


def test_optimize_zorder_vacuum_restore_and_history(ctx, tmp_path):
    """Maintenance statements run and return the engine's metrics as rows."""
    for number in range(3):
        run(ctx, f"INSERT INTO people VALUES ({number}, 'x', 0.0)")
    assert ctx.sql("OPTIMIZE people").to_pydict()["num_files_removed"] == [4]
    assert ctx.sql("OPTIMIZE people ZORDER BY (id, name)").to_pydict()["num_files_added"] == [1]
    assert ctx.sql("VACUUM people RETAIN 200 HOURS DRY RUN").to_pydict() == {"path": []}
    history = ctx.sql("DESCRIBE HISTORY people LIMIT 2").to_pydict()
    assert (history["version"], history["operation"]) == ([5, 4], ["OPTIMIZE", "OPTIMIZE"])
    assert ctx.sql("RESTORE TABLE people TO VERSION AS OF 0").to_pydict()["num_restored_files"] == [
        1
    ]
    assert people(ctx) == [ANN, BOB, CAT]
    with pytest.raises(DeltaError, match="retention"):
        ctx.sql("VACUUM people RETAIN 0 HOURS").collect()
    DeltaTable(tmp_path / "people").alter.set_table_properties(
        {"delta.deletedFileRetentionDuration": "interval 0 hours"}
    )
    assert len(ctx.sql("VACUUM people RETAIN 0 HOURS").to_pydict()["path"]) > 0
    assert DeltaTable(tmp_path / "people").history(1)[0]["operation"] == "VACUUM END"


def test_a_table_is_restored_to_a_timestamp(ctx, tmp_path):
    """RESTORE takes ISO 8601 timestamps; one without a zone is in UTC."""
    run(ctx, "TRUNCATE TABLE people")
    last = dt.datetime.fromtimestamp(
        DeltaTable(tmp_path / "people").history()[1]["timestamp"] / 1000, dt.UTC
    )
    moment = (last + dt.timedelta(milliseconds=1)).isoformat()
    ctx.sql(f"RESTORE people TO TIMESTAMP AS OF '{moment}'").collect()
    assert people(ctx) in ([ANN, BOB, CAT], [])  # both commits may have the same millisecond
    with pytest.raises(StatementError, match="ISO 8601"):
        ctx.sql("RESTORE people TO TIMESTAMP AS OF 'yesterday'")


@pytest.mark.parametrize(
    ("sql", "text"),
    [
        ("OPTIMIZE nope", "nope is not registered as a Delta table"),
        ("OPTIMIZE people WHERE id = 1", "expected the end of the statement"),
        ("VACUUM people RETAIN many HOURS", "expected an integer"),
        ("RESTORE people", "expected TO"),
        ("COPY people TO STORED AS DELTATABLE", "expected a text in quotes"),
        ("DESCRIBE HISTORY 'people'", "expected a name"),
        ("VACUUM people DRY RUN 'open", "left open"),
        ("COPY people TO 'x' STORED AS DELTATABLE LOCATION 'y'", "LOCATION is not supported"),
    ],
)
def test_a_syntax_error_has_a_position(ctx, sql, text):
    """A syntax error raises before the command runs, with a position and no text of the statement."""
    with pytest.raises(StatementError, match=text):
        ctx.sql(sql)


def test_copy_makes_a_delta_table(ctx, tmp_path):
    """COPY writes a table or a query with partitions and modes; by default an existing table is an error."""
    target = tmp_path / "copy"
    sql = f"COPY (SELECT id, name FROM people) TO '{target}' STORED AS DELTATABLE PARTITIONED BY (name)"
    assert run(ctx, sql) == 3
    assert DeltaTable(target).metadata().partition_columns == ["name"]
    with pytest.raises(DeltaError, match="already exists"):
        ctx.sql(sql).collect()
    assert (
        run(
            ctx,
            f"COPY (SELECT id, name FROM news) TO '{target}' STORED AS DELTATABLE OPTIONS ('mode' 'append')",
        )
        == 2
    )
    assert DeltaTable(target).version() == 1


def test_create_table_as_makes_and_registers_a_delta_table(ctx, tmp_path):
    """CREATE TABLE AS creates a Delta table at a location and registers it at once."""
    target = tmp_path / "made"
    ctx.sql(f"CREATE TABLE made STORED AS DELTATABLE LOCATION '{target}' AS SELECT id FROM people")
    assert run(ctx, "INSERT INTO made VALUES (4)") == 1
    assert DeltaTable(target).version() == 1
    with pytest.raises(StatementError, match="already exists"):
        ctx.sql(f"CREATE TABLE made STORED AS DELTATABLE LOCATION '{target}2' AS SELECT 1 AS x")
    with pytest.raises(StatementError, match="needs a LOCATION"):
        ctx.sql("CREATE TABLE other STORED AS DELTATABLE AS SELECT 1 AS x")


def test_a_statement_in_a_literal_is_none(ctx):
    """A literal with the text of one of our statements is not parsed as one."""
    assert ctx.sql("SELECT 'STORED AS DELTATABLE' AS x").to_pydict() == {
        "x": ["STORED AS DELTATABLE"]
    }
    assert internal_errors.seen() == {}


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
