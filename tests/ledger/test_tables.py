"""Schemas of the ledger's tables: documented, created as configured, extended at the end."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

import deltawitness
from deltawitness.ledger.drain.drain import Drain
from deltawitness.ledger.tables.arrow import (
    json_schema,
    operation_rows,
    query,
    rows_from,
    with_partition,
)
from deltawitness.ledger.tables.schema import (
    CONFIGURATION,
    INVENTORY,
    PARTITION,
    RUNS,
    SNAPSHOTS,
    TABLES,
    LedgerRoot,
)
from deltawitness.ledger.tables.write_rows import as_json
from deltawitness.sql_quoting import quote_literal
from helpers.ledger_parts import operation_row, rows_of, sealed_rows, spool_in

FROZEN = {
    "cache_inventory_v1": """
event_date: date32[day]
event_time: timestamp[us, tz=UTC]
run_id: string
write_id: string
trace_id: string
span_id: string
job: string
operation: string
cache_operation: string
scope: string
policy: string
key: string
result: string
reason: string
table_uri: string
table_id: string
table_name: string
version: int64
versions: list<item: int64>
mode: string
schema_hash: string
plan_hash: string
plan_shape_hash: string
inputs: list<item: struct<table_id: string, uri: string, version: int64>>
rows_added: int64
rows_updated: int64
rows_deleted: int64
rows_copied: int64
files_added: int64
files_removed: int64
bytes_added: int64
bytes_removed: int64
retries: int64
execution_ms: int64
duration_ms: double
error_type: string
exception_type: string
error_message: string
landed: string
host: string
pid: int64
thread: string
engine: string
deltalake_version: string
datafusion_version: string
witness_version: string
source: string
""",
    "cache_run_summary_v1": """
event_date: date32[day]
run_id: string
parent_run_id: string
job: string
is_part: bool
start_time: timestamp[us, tz=UTC]
end_time: timestamp[us, tz=UTC]
status: string
error_type: string
reads: int64
hits: int64
misses: int64
writes: int64
snapshots: int64
noops: int64
errors: int64
operations: list<item: struct<operation: string, result: string, count: int64>>
rows_added: int64
rows_updated: int64
rows_deleted: int64
files_added: int64
files_removed: int64
bytes_added: int64
bytes_removed: int64
retries: int64
tables_touched: int64
table_ids: list<item: string>
dropped: int64
cache_root: string
host: string
pid: int64
python_version: string
deltalake_version: string
datafusion_version: string
witness_version: string
attributes: list<item: struct<name: string, value: string>>
""",
    "cache_snapshot_registry_v1": """
event_date: date32[day]
event_time: timestamp[us, tz=UTC]
snapshot: string
run_id: string
path: string
version: int64
rows: int64
files: int64
schema_hash: string
content_hash: string
result: string
witness_version: string
""",
}
"""Columns and types of the first release. Only append to these lists and never change an element:
older and newer releases write to the same tables."""


COMMENTS = {
    "cache_inventory_v1": "31df038591f1b3c4",
    "cache_run_summary_v1": "14321ea54f69a225",
    "cache_snapshot_registry_v1": "58731ecaab95592f",
}
"""Prefixes of the hashes of the comments of these columns."""


@pytest.fixture
def root(tmp_path):
    return LedgerRoot(str(tmp_path))


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.alias)
def test_a_schema_only_grows_at_its_end(table):
    """Every column of the first release has the same type and position."""
    frozen = FROZEN[table.name].strip().splitlines()
    assert [f"{column.name}: {column.type}" for column in table.schema][: len(frozen)] == frozen


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.alias)
def test_no_comment_of_the_first_release_changes(table):
    """Column comments never change: delta-rs refuses rows with a different column comment."""
    frozen = FROZEN[table.name].strip().splitlines()
    comments = [column.metadata[b"comment"] for column in table.schema][: len(frozen)]
    assert sha256(b"\n".join(comments)).hexdigest().startswith(COMMENTS[table.name])


def test_rows_of_the_first_release_and_of_this_one_are_in_one_table(root):
    """A table that either release created takes the rows of both."""
    count = len(FROZEN["cache_inventory_v1"].strip().splitlines())
    first = pa.schema(list(INVENTORY.schema)[:count])
    row = rows_from(INVENTORY, [operation_row("w-1", rows_served=2)])
    for made, rows in ((first, row), (INVENTORY.schema, row.select(first.names))):
        where = root.uri_of(INVENTORY)
        DeltaTable.create(where, schema=made, partition_by=[PARTITION], mode="overwrite")
        write_deltalake(where, rows, mode="append", schema_mode="merge")
        assert set(DeltaTable(where).to_pyarrow_dataset().schema.names) == set(
            INVENTORY.schema.names
        )


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.alias)
def test_every_column_has_a_comment(table, root):
    """Each column has a comment, which is the one in the created table's metadata."""
    comments = {column.name: column.metadata[b"comment"].decode() for column in table.schema}
    assert [name for name, comment in comments.items() if len(comment) < 4] == []
    fields = root.open_or_create(table).schema().fields
    assert {field.name: field.metadata["comment"] for field in fields} == comments


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.alias)
def test_a_created_table_has_the_declared_schema_and_properties(table, root):
    """A new table is append-only, partitioned by day, named, described, with its own retention."""
    metadata = root.open_or_create(table).metadata()
    assert (metadata.name, metadata.description) == (table.name, table.description)
    assert metadata.partition_columns == [PARTITION]
    assert metadata.configuration == {
        "delta.appendOnly": "true",
        "delta.checkpointInterval": "20",
        "delta.logRetentionDuration": "interval 30 days",
        "delta.deletedFileRetentionDuration": "interval 7 days",
        "delta.setTransactionRetentionDuration": "interval 30 days",
    }
    assert metadata.configuration == CONFIGURATION


def test_a_table_is_made_once(root):
    """`open_or_create` opens an existing table; `open_table` creates none."""
    assert root.open_table(RUNS) is None
    assert [root.open_or_create(RUNS).version(), root.open_or_create(RUNS).version()] == [0, 0]
    assert root.open_table(RUNS).history()[0]["operation"] == "CREATE TABLE"


def test_rows_of_the_ledger_cannot_be_deleted(root, tmp_path):
    """Deletes from the append-only tables fail."""
    Drain(root, tail=1).drain_segments(sealed_rows(spool_in(tmp_path / "s"), operation_row("w-1")))
    with pytest.raises(Exception, match=r"(?i)append"):
        root.open_table(INVENTORY).delete()


@pytest.mark.parametrize(
    ("uri", "is_local"),
    [
        ("/data/cache", True),
        ("file:///data/cache/", True),
        ("relative", True),
        ("s3://bucket/cache", False),
    ],
)
def test_the_tables_of_a_ledger_are_below_its_root(uri, is_local):
    """A root is local or remote, and its tables are below it."""
    root = LedgerRoot(uri, {"aws_secret_access_key": "hunter2"})
    assert root.is_local is is_local
    assert root.uri_of(SNAPSHOTS) == f"{uri.rstrip('/')}/cache_ledgers/cache_snapshot_registry_v1"
    assert "hunter2" not in repr(root)


# --- several releases --------------------------------------------------------------------------


def test_a_newer_release_has_added_a_column(root, tmp_path):
    """Rows of this release go into a table with more columns, which are null in them."""
    newer = pa.schema([*INVENTORY.schema, pa.field("mood", pa.string())])
    DeltaTable.create(
        root.uri_of(INVENTORY), newer, partition_by=[PARTITION], configuration=CONFIGURATION
    )
    Drain(root, tail=1).drain_segments(sealed_rows(spool_in(tmp_path / "s"), operation_row("w-1")))
    assert rows_of(root, INVENTORY, "write_id, mood") == [{"write_id": "w-1", "mood": None}]


def test_an_older_release_has_made_the_table(root, tmp_path):
    """A column that an older release's table lacks is added with the first row of this release."""
    older = pa.schema(
        [column for column in INVENTORY.schema if column.name not in {"engine", "landed"}]
    )
    DeltaTable.create(
        root.uri_of(INVENTORY), older, partition_by=[PARTITION], configuration=CONFIGURATION
    )
    old = operation_rows([as_json(operation_row("w-0")).encode()]).select(older.names)
    write_deltalake(root.uri_of(INVENTORY), old, mode="append")
    Drain(root, tail=1).drain_segments(
        sealed_rows(spool_in(tmp_path / "s"), operation_row("w-1", engine="delta-rs"))
    )
    assert rows_of(root, INVENTORY, "write_id, engine, landed") == [
        {"write_id": "w-0", "engine": None, "landed": None},
        {"write_id": "w-1", "engine": "delta-rs", "landed": None},
    ]


# --- rows as Arrow -----------------------------------------------------------------------------------


def test_the_json_schema_has_integer_times_and_no_partition():
    """The JSON schema has integer times and no partition column, which is derived."""
    recorded = json_schema(SNAPSHOTS)
    assert recorded.names == SNAPSHOTS.schema.names[1:]
    assert recorded.field("event_time").type == pa.int64()
    rows = pa.Table.from_pylist([{"event_time": 86_400_000_000 * 2 - 1, "snapshot": "s"}], recorded)
    [row] = with_partition(SNAPSHOTS, rows).to_pylist()
    assert (row[PARTITION].isoformat(), row["event_time"].isoformat()) == (
        "1970-01-02",
        "1970-01-02T23:59:59.999999+00:00",
    )


def test_no_lines_are_no_rows():
    """No lines convert to an empty table with all columns."""
    assert operation_rows([]).schema == INVENTORY.schema


def test_unknown_members_of_a_json_row_are_ignored():
    """A member of a JSON row without a column is ignored."""
    [row] = operation_rows(
        [as_json(operation_row("w-1", unheard_of={"a": [1]})).encode()]
    ).to_pylist()
    assert row["write_id"] == "w-1"
    assert "unheard_of" not in row


def test_a_row_has_no_maximum_length():
    """A row longer than the JSON reader's default block is read."""
    [row] = operation_rows(
        [as_json(operation_row("w-1", error_message="x" * (3 << 20))).encode()]
    ).to_pylist()
    assert len(row["error_message"]) == 3 << 20


def test_a_query_returns_text_columns(root):
    """Query results have plain Arrow string types, so that they compare with converted rows."""
    root.open_or_create(INVENTORY)
    text = quote_literal("it's")
    found = query(
        root.open_table(INVENTORY), f"SELECT write_id, version FROM ledger WHERE job = {text}"
    )
    assert found.schema == pa.schema([("write_id", pa.string()), ("version", pa.int64())])


@pytest.mark.slow
def test_creations_at_the_same_time_do_not_fail(tmp_path):
    """delta-rs fails some of them, despite `mode="ignore"`."""
    writers = 4
    for number in range(10):
        root = LedgerRoot(str(tmp_path / str(number)))
        barrier = threading.Barrier(writers, timeout=30)

        def create(_, root=root, barrier=barrier):
            barrier.wait()
            return root.open_or_create(INVENTORY).version()

        with ThreadPoolExecutor(writers) as threads:
            assert set(threads.map(create, range(writers))) <= set(range(writers))


def test_no_query_of_the_ledger_filters_an_aggregate():
    """The engine of deltalake 1.0 cannot parse FILTER. Comparisons of rows have another engine."""
    package = Path(deltawitness.__file__).parent
    files = [path for folder in ("answers", "ledger") for path in (package / folder).rglob("*.py")]
    found = [path.name for path in files if "FILTER (WHERE" in path.read_text("utf-8")]
    assert found == ["by_key.py"]
