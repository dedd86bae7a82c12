"""Distributed writes to tables of every kind: what is possible, and what is refused before anything is written."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import CommitProperties, DeltaTable, Field, QueryBuilder, Schema, write_deltalake
from deltalake.exceptions import DeltaError, SchemaMismatchError
from deltalake.schema import PrimitiveType

from deltawitness import write_distributed
from deltawitness.distributed import commit
from deltawitness.exceptions import WriteRequestError
from helpers.deletion_vectors import delete_rows
from helpers.engine_versions import needs_deltalake

pytestmark = needs_deltalake("1.6.3", "write transactions contain no application transactions")

ROWS = pa.table({"id": [1, 2]})


@pytest.fixture
def pool(captured_writes):
    with ThreadPoolExecutor(2) as pool:
        yield pool


@pytest.fixture
def uri(tmp_path):
    return str(tmp_path / "t")


def rows(uri, columns="*"):
    builder = QueryBuilder().register("t", DeltaTable(uri))
    return pa.table(builder.execute(f"SELECT {columns} FROM t ORDER BY id")).to_pylist()


def folders(uri):
    return sorted(path.name for path in Path(uri).glob("staging-*"))


PARTITIONS = ["a b", "x/y%z", "ü:=", None, "", "2026-11-27T10:00"]


@pytest.mark.slow
def test_partition_values_survive(uri, pool):
    """Values that delta-rs encodes in paths are read back, from a new table and an existing one."""
    data = pa.table({"id": range(len(PARTITIONS)), "p": PARTITIONS})
    halves = [data.slice(0, 3), data.slice(3)]
    for mode in ("error", "append"):
        write_distributed(halves, uri, mode=mode, partition_by="p", engine=pool)
    plain = f"{uri}-plain"
    write_deltalake(plain, data, partition_by="p")
    write_deltalake(plain, data, mode="append")
    assert rows(uri) == rows(plain)
    table = DeltaTable(uri)
    assert table.metadata().partition_columns == ["p"]
    found = pa.table(table.get_add_actions(flatten=True))
    assert {"num_records", "partition.p", "min.id"} <= set(found.column_names)


@pytest.mark.parametrize("partition_by", ["q", ["p", "id"], []])
def test_other_partition_columns_are_refused(partition_by, uri, pool):
    write_deltalake(uri, pa.table({"id": [1], "p": [1]}), partition_by="p")
    with pytest.raises(WriteRequestError, match="partition_by: "):
        write_distributed([ROWS], uri, partition_by=partition_by, engine=pool)
    assert not folders(uri)


def test_statistics_and_file_sizes_follow_the_table(uri, pool):
    """The properties of the table apply to staged files."""
    configuration = {"delta.dataSkippingNumIndexedCols": "1"}
    write_deltalake(uri, pa.table({"id": [0], "x": [0]}), configuration=configuration)
    write_distributed([pa.table({"id": [5], "x": [5]})], uri, engine=pool)
    added = pa.table(DeltaTable(uri).get_add_actions(flatten=True)).to_pylist()
    assert sorted(each["min.id"] for each in added) == [0, 5]
    assert not any("min.x" in each and each["min.x"] is not None for each in added)


def test_constraints_hold(uri, pool):
    write_deltalake(uri, ROWS)
    DeltaTable(uri).alter.add_constraint({"small": "id < 9"})
    write_distributed([ROWS], uri, engine=pool)
    with pytest.raises(DeltaError, match="Invalid data"):
        write_distributed([ROWS, pa.table({"id": [9]})], uri, engine=pool)
    assert len(rows(uri)) == 4


def test_a_column_that_is_not_null_holds(uri, pool):
    DeltaTable.create(uri, Schema([Field("id", PrimitiveType("long"), nullable=False)]))
    write_distributed([ROWS], uri, engine=pool)
    with pytest.raises(DeltaError, match="Invalid data"):
        write_distributed([pa.table({"id": pa.nulls(1, pa.int64())})], uri, engine=pool)
    assert len(rows(uri)) == 2


def test_generated_columns_are_computed(uri, pool):
    doubled = {"delta.generationExpression": "id * 2"}
    long = PrimitiveType("long")
    schema = Schema([Field("id", long), Field("twice", long, metadata=doubled)])
    write_distributed([ROWS], uri, schema=schema, engine=pool)
    write_distributed([ROWS], uri, engine=pool)
    assert [row["twice"] for row in rows(uri)] == [2, 2, 4, 4]
    with pytest.raises(DeltaError, match="Invalid data"):
        write_distributed([pa.table({"id": [1], "twice": [3]})], uri, engine=pool)


def test_a_change_data_feed_has_the_rows(uri, pool):
    """An append and an overwrite are in the feed as insertions and deletions."""
    feed = {"delta.enableChangeDataFeed": "true"}
    write_distributed([ROWS], uri, configuration=feed, engine=pool)
    write_distributed([ROWS], uri, engine=pool)
    write_distributed([pa.table({"id": [7]})], uri, mode="overwrite", engine=pool)
    changes = pa.table(DeltaTable(uri).load_cdf(1, 2).read_all()).to_pylist()
    found = [(row["_commit_version"], row["_change_type"], row["id"]) for row in changes]
    deleted = [(2, "delete", number) for number in (1, 1, 2, 2)]
    assert sorted(found) == [(1, "insert", 1), (1, "insert", 2), *deleted, (2, "insert", 7)]


def test_a_table_with_column_mapping_gets_rows_under_its_names(uri, pool):
    mapping = {"delta.columnMapping.mode": "name"}
    write_deltalake(uri, ROWS, configuration=mapping)
    write_distributed([ROWS, pa.table({"id": [3]})], uri, engine=pool)
    assert [row["id"] for row in rows(uri)] == [1, 1, 2, 2, 3]
    with pytest.raises(WriteRequestError, match="column mapping"):
        write_distributed([ROWS], uri, schema_mode="merge", engine=pool)
    with pytest.raises(WriteRequestError, match="column mapping"):
        write_distributed([ROWS], f"{uri}-new", configuration=mapping, engine=pool)


def test_a_table_with_deletion_vectors_is_appended_to_and_replaced(uri, pool):
    """The remove actions of an overwrite name the deletion vectors, so that no deleted row comes back."""
    write_deltalake(uri, pa.table({"id": [1, 2, 3]}))
    delete_rows(uri, [[1]])
    write_distributed([pa.table({"id": [4]})], uri, engine=pool)
    assert [row["id"] for row in rows(uri)] == [1, 3, 4]
    write_distributed([pa.table({"id": [5]})], uri, mode="overwrite", engine=pool)
    assert [row["id"] for row in rows(uri)] == [5]


def test_timestamps_without_a_zone(uri, pool):
    part = pa.table({"id": pa.array([1], pa.timestamp("us"))})
    for _ in range(2):
        write_distributed([part], uri, engine=pool)
    assert len(rows(uri)) == 2


def test_an_append_only_table_is_not_replaced(uri, pool):
    write_deltalake(uri, ROWS, configuration={"delta.appendOnly": "true"})
    write_distributed([ROWS], uri, engine=pool)
    with pytest.raises(WriteRequestError, match="append-only"):
        write_distributed([ROWS], uri, mode="overwrite", engine=pool)


@pytest.mark.parametrize("feature", ["rowTracking", "icebergCompatV1", "clustering"])
def test_an_unsupported_feature_is_refused(feature, uri, pool):
    """Nothing is written below the table."""
    write_deltalake(uri, ROWS)
    commit = Path(uri, "_delta_log", f"{1:020d}.json")
    commit.write_text(
        '{"commitInfo":{"timestamp":0}}\n{"protocol":{"minReaderVersion":1,"minWriterVersion":7,'
        f'"writerFeatures":["{feature}"]}}}}'
    )
    with pytest.raises(WriteRequestError, match=feature):
        write_distributed([ROWS], uri, engine=pool)
    assert not folders(uri)


# --- schemas ------------------------------------------------------------------------------------------


def test_rows_are_cast_to_the_table(uri, pool):
    write_deltalake(uri, ROWS)
    parts = [pa.table({"id": pa.array([3], pa.int16())}), pa.table({"id": pa.nulls(1)})]
    write_distributed(parts, uri, engine=pool)
    assert [row["id"] for row in rows(uri)] == [1, 2, 3, None]


DIFFERENT = {
    "another type": ({"id": ["x"]}, "part 1: column 'id' is string, in other parts long"),
    "a further column": ({"id": [1], "x": [1]}, "part 1: column 'x' is not in part 0"),
    "another column": ({"x": [1]}, "part 1: column 'x' is not in part 0"),
}


@pytest.mark.parametrize("comment", ["a\u2028b", "a\x85b", "a\x0cb"])
def test_a_comment_with_an_unusual_line_end_survives(comment, uri, pool):
    """JSON may have characters in a text at which `str.splitlines` would cut the commit."""
    schema = pa.schema([pa.field("id", pa.int64(), metadata={"comment": comment})])
    assert write_distributed([ROWS, ROWS], uri, schema=schema, engine=pool).rows == 4
    assert DeltaTable(uri).schema().fields[0].metadata == {"comment": comment}


IN_ANOTHER_LOCALE = """\
import sys
from concurrent.futures import ThreadPoolExecutor
import pyarrow as pa
from deltawitness import write_distributed

rows = pa.table({"gr\\xf6\\xdfe": [1]})
with ThreadPoolExecutor(2) as pool:
    write_distributed([rows, rows], sys.argv[1], schema=rows.schema, engine=pool)
"""


@pytest.mark.slow
def test_the_locale_has_no_effect_on_the_log(uri):
    """Delta logs are UTF-8, also in a process whose locale has another encoding."""
    environment = {**os.environ, "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-X", "utf8=0", "-c", IN_ANOTHER_LOCALE, uri]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert [field.name for field in DeltaTable(uri).schema().fields] == ["größe"]


@pytest.mark.parametrize("name", DIFFERENT)
def test_parts_of_a_new_table_must_have_one_schema(name, uri, pool):
    """The error is one line with the part and the column, and no table is created."""
    columns, message = DIFFERENT[name]
    with pytest.raises(SchemaMismatchError, match=message) as raised:
        write_distributed([ROWS, pa.table(columns)], uri, engine=pool)
    assert "\n" not in str(raised.value)
    assert not DeltaTable.is_deltatable(uri)


def nested(*, is_nullable):
    """Return the schema of a column with values in a struct, a list and a map."""
    value = pa.field("element", pa.int64(), nullable=is_nullable)
    kinds = [pa.struct([value]), pa.list_(pa.struct([value])), pa.map_(pa.string(), value)]
    fields = [pa.field(f"c{number}", kind) for number, kind in enumerate([pa.int64(), *kinds])]
    return pa.schema(
        [pa.field("id", pa.int64()), fields[0].with_nullable(is_nullable), *fields[1:]]
    )


@pytest.mark.parametrize("strict_part", [0, 1])
def test_a_value_may_be_null_if_it_is_in_one_part(strict_part, uri, pool):
    """Also inside of a column: a table that declares such a value not null could not be read."""
    parts = []
    for number in range(2):
        value = number if number == strict_part else None
        row = {"id": number, "c0": value, "c1": {"element": value}}
        row |= {"c2": [{"element": value}], "c3": [("k", value)]}
        parts.append(pa.Table.from_pylist([row], nested(is_nullable=number != strict_part)))
    write_distributed(parts, uri, engine=pool)
    written = [row for part in parts for row in part.to_pylist()]
    assert rows(uri) == written


def test_a_missing_column_is_an_error(uri, pool):
    wide = pa.table({"id": [1], "x": [1]})
    with pytest.raises(SchemaMismatchError, match="part 1: column 'x' is missing"):
        write_distributed([wide, ROWS], uri, engine=pool)


def test_merge_of_a_new_table_unites_the_columns(uri, pool):
    """A column that a part lacks is null in its rows."""
    parts = [ROWS, pa.table({"id": [3], "x": ["c"]}), pa.table({"y": [1.5], "id": [4]})]
    write_distributed(parts, uri, schema_mode="merge", engine=pool)
    assert [tuple(row.values()) for row in rows(uri, "id, x, y")] == [
        (1, None, None),
        (2, None, None),
        (3, "c", None),
        (4, None, 1.5),
    ]
    with pytest.raises(SchemaMismatchError, match="'x' is long"):
        write_distributed(
            [pa.table({"id": [1], "x": ["a"]}), pa.table({"x": [1]})],
            f"{uri}2",
            schema_mode="merge",
            engine=pool,
        )


def test_merge_of_an_append_fills_columns_and_adds_none(uri, pool):
    """A column that the table lacks is an error that names the remedy."""
    write_deltalake(uri, pa.table({"id": [1], "x": [1]}))
    write_distributed([ROWS], uri, schema_mode="merge", engine=pool)
    assert [row["x"] for row in rows(uri)].count(None) == 2
    with pytest.raises(SchemaMismatchError, match=r"part 1: column 'y' .*add_columns"):
        write_distributed(
            [ROWS, pa.table({"id": [1], "y": [1]})], uri, schema_mode="merge", engine=pool
        )
    assert DeltaTable(uri).version() == 1


def test_an_overwrite_can_change_the_schema(uri, pool):
    """`merge` adds columns, `overwrite` replaces all of them, in the one commit of the write."""
    write_deltalake(uri, ROWS)
    part = pa.table({"id": [1], "x": ["a"]})
    write_distributed([part], uri, mode="overwrite", schema_mode="merge", engine=pool)
    assert rows(uri) == [{"id": 1, "x": "a"}]
    other = pa.table({"id": ["z"]})
    write_distributed([other], uri, mode="overwrite", schema_mode="overwrite", engine=pool)
    assert rows(uri) == [{"id": "z"}]
    assert DeltaTable(uri).version() == 2
    DeltaTable(uri).alter.add_constraint({"short": "id < 'zz'"})
    with pytest.raises(WriteRequestError, match="constraints"):
        write_distributed([ROWS], uri, mode="overwrite", schema_mode="overwrite", engine=pool)


INVALID = {
    "mode": {"mode": "upsert"},
    "schema_mode": {"schema_mode": "union"},
    "overwrite of the schema alone": {"schema_mode": "overwrite"},
    "predicate alone": {"predicate": "id = 1"},
    "both": {"mode": "overwrite", "schema_mode": "overwrite", "predicate": "id = 1"},
}


@pytest.mark.parametrize("name", INVALID)
def test_invalid_arguments_are_refused(name, uri, pool):
    with pytest.raises(WriteRequestError, match=r"(mode|predicate): "):
        write_distributed([ROWS], uri, engine=pool, **INVALID[name])


# --- predicates ---------------------------------------------------------------------------------------


@pytest.fixture
def days(uri, pool):
    data = pa.table({"id": [1, 2, 3], "day": ["1", "2", "it's AND 3"], "n": [1, 1, 2]})
    write_deltalake(uri, data, partition_by=["day", "n"])
    return uri


@pytest.mark.parametrize(
    ("predicate", "left"),
    [
        ("day = '1'", [2, 3]),
        ("day = '1' AND n = 1", [2, 3]),
        ("n = 1", [3]),
        ("\"day\" = 'it''s AND 3' and n=2", [1, 2]),
    ],
)
def test_a_predicate_replaces_partitions(predicate, left, days, pool):
    """Only the files of the selected partitions are removed."""
    write_distributed([], days, mode="overwrite", predicate=predicate, engine=pool)
    assert [row["id"] for row in rows(days)] == left


def test_rows_outside_the_predicate_are_refused(days, pool):
    part = pa.table({"id": [9], "day": ["2"], "n": [1]})
    with pytest.raises(WriteRequestError, match="part 0"):
        write_distributed([part], days, mode="overwrite", predicate="day = '1'", engine=pool)
    write_distributed([part], days, mode="overwrite", predicate="day = '2'", engine=pool)
    assert [row["id"] for row in rows(days)] == [1, 3, 9]


@pytest.mark.parametrize("predicate", ["id = 1", "day > '1'", "day = '1' OR n = 1", "1 = 1", ""])
def test_other_predicates_are_refused_before_anything_is_written(predicate, days, pool):
    with pytest.raises(WriteRequestError, match="predicate: "):
        write_distributed([ROWS], days, mode="overwrite", predicate=predicate, engine=pool)
    assert not folders(days)


# --- concurrent writers -------------------------------------------------------------------------------


def during(act, part=ROWS):
    """Return a part that acts when a worker reads it."""

    def read():
        act()
        return part

    return read


def test_an_append_during_the_staging_is_no_conflict(uri, pool):
    write_deltalake(uri, ROWS)
    append = during(lambda: write_deltalake(uri, ROWS, mode="append"))
    assert write_distributed([append], uri, engine=pool).version == 2
    assert len(rows(uri)) == 6


def test_a_compaction_during_the_staging_is_no_conflict_for_an_append(uri, pool):
    for _ in range(3):
        write_deltalake(uri, ROWS, mode="append")
    compact = during(DeltaTable(uri).optimize.compact)
    assert write_distributed([compact], uri, engine=pool).version == 4
    assert len(rows(uri)) == 8


def test_a_change_of_the_schema_during_the_staging_is_a_conflict(uri, pool, captured_writes):
    """delta-rs raises its error, and the rows are not in the table."""
    write_deltalake(uri, ROWS)
    column = Field("x", PrimitiveType("long"))
    alter = during(lambda: DeltaTable(uri).alter.add_columns(column))
    with pytest.raises(DeltaError, match="Metadata changed"):
        write_distributed([alter], uri, engine=pool)
    assert len(rows(uri)) == 2
    assert captured_writes.events[-1].outcome.landed == "no"


def test_an_append_that_loses_is_committed_again(uri, pool, monkeypatch, captured_writes):
    """The files are not written again, and the write is one event."""
    write_deltalake(uri, ROWS)
    compare, races = commit.describes_same_table, []

    def racing(first, second):
        if not races:
            races.append(write_deltalake(uri, ROWS, mode="append"))
        return compare(first, second)

    monkeypatch.setattr(commit, "describes_same_table", racing)
    properties = CommitProperties(max_commit_retries=0)
    for key, version in ((None, 2), ("k", 4)):
        result = write_distributed([ROWS], uri, engine=pool, key=key, commit_properties=properties)
        assert (result.version, result.is_new, len(folders(uri))) == (version, True, version // 2)
        races.clear()
    assert len(rows(uri)) == 10
    outcomes = [type(event.outcome).__name__ for event in captured_writes.events]
    assert outcomes == ["Committed"] * 5


def test_an_overwrite_whose_key_commits_during_the_staging_is_skipped(uri, pool):
    """Also if the other commit has changed the schema."""
    write_deltalake(uri, ROWS)
    arguments = {"mode": "overwrite", "schema_mode": "overwrite", "engine": pool, "key": "k"}
    part = pa.table({"id": [5], "x": [5]})

    def other():
        thread = threading.Thread(target=lambda: write_distributed([part], uri, **arguments))
        thread.start()
        thread.join()

    result = write_distributed([during(other, part)], uri, **arguments)
    assert (result.version, result.is_new, rows(uri)) == (1, False, [{"id": 5, "x": 5}])


def test_an_overwrite_replaces_the_version_at_its_start(uri, pool):
    """Rows that are appended during the staging stay, as with `write_deltalake`."""
    write_deltalake(uri, ROWS)
    append = during(lambda: write_deltalake(uri, pa.table({"id": [8]}), mode="append"))
    write_distributed([append], uri, mode="overwrite", engine=pool)
    assert [row["id"] for row in rows(uri)] == [1, 2, 8]


def test_two_overwrites_at_the_same_time_conflict(uri, pool):
    """Both remove the same files: one of them raises."""
    write_deltalake(uri, ROWS)
    other = during(lambda: write_deltalake(uri, ROWS, mode="overwrite"))
    with pytest.raises(DeltaError):
        write_distributed([other], uri, mode="overwrite", engine=pool)
    assert len(rows(uri)) == 2


def test_a_table_that_appears_during_the_staging_is_appended_to(uri, pool):
    """With mode `append`; with mode `error` the engine's error is raised."""
    create = during(lambda: write_deltalake(uri, ROWS))
    assert write_distributed([create], uri, engine=pool).version == 1
    with pytest.raises(DeltaError):
        write_distributed(
            [during(lambda: write_deltalake(f"{uri}2", ROWS))], f"{uri}2", mode="error", engine=pool
        )
    assert len(rows(f"{uri}2")) == 2


def test_a_table_with_properties_that_appears_during_the_staging_is_not_appended_to(uri, pool):
    """The files were written for a table without any."""
    create = during(
        lambda: write_deltalake(uri, ROWS, configuration={"delta.dataSkippingNumIndexedCols": "0"})
    )
    with pytest.raises(DeltaError):
        write_distributed([create], uri, engine=pool)
    assert DeltaTable(uri).version() == 0
