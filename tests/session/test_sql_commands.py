"""OPTIMIZE, VACUUM, RESTORE, COPY and CREATE TABLE work on Delta tables."""

from __future__ import annotations

import datetime as dt

import pytest
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from deltawitness import internal_errors
from deltawitness.exceptions import StatementError
from helpers.people_tables import ANN, BOB, CAT, people, people_session, run


@pytest.fixture
def ctx(tmp_path):
    """A session with two Delta tables."""
    return people_session(tmp_path)


@pytest.mark.slow
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


@pytest.mark.slow
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
    assert internal_errors.error_counts() == {}
