"""Special cases of MERGE, the defaults of inserts, and volatile statements."""

from __future__ import annotations

import pyarrow as pa
import pytest
from datafusion import SessionConfig, udf
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import CommitFailedError

from deltawitness import ObservedSessionContext, internal_errors
from deltawitness.exceptions import StatementError
from helpers.people_tables import ANN, CAT, PEOPLE, people, people_session, run


@pytest.fixture
def ctx(tmp_path):
    """A session with two Delta tables."""
    return people_session(tmp_path)


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

    monkeypatch.setattr("deltawitness.delta_rs.own_commits.open_log", unreadable)
    assert run(ctx, "INSERT INTO people SELECT * FROM news") == 2
    assert ("receipt", "PermissionError") in internal_errors.error_counts()


def test_a_condition_given_as_a_parameter_is_used(ctx):
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


@pytest.mark.slow
def test_a_volatile_source_is_read_once(ctx):
    """A volatile source is read once, so that each of its rows is either matched or not."""
    sql = "MERGE INTO people p USING (SELECT CAST(random() * 6 AS BIGINT) AS k) s ON p.id = s.k WHEN MATCHED THEN UPDATE SET score = abs(1.0) WHEN NOT MATCHED THEN INSERT (id, name) VALUES (s.k, upper('x'))"
    assert {run(ctx, sql) for _ in range(12)} == {1}


def test_null_is_not_null_in_a_clauses_condition(ctx):
    """NULL = NULL is not true in a clause's condition, even if ON treats NULL as equal to NULL."""
    ctx.sql("INSERT INTO people (id) VALUES (7)").collect()
    sql = "MERGE INTO people p USING (SELECT 7 AS k, CAST(NULL AS VARCHAR) AS z) q ON p.id IS NOT DISTINCT FROM q.k WHEN MATCHED AND p.name = q.z AND abs(1) = 1 THEN DELETE"
    assert run(ctx, sql) == 0


@pytest.mark.slow
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


def test_a_merge_applies_column_defaults(ctx, tmp_path):
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


@pytest.mark.slow
def test_every_kind_of_insert_applies_column_defaults(ctx, tmp_path):
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


@pytest.mark.slow
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
