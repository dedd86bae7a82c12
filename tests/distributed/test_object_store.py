"""Distributed writes on an object store: the logs of the parts are read and removed through the engine."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from deltawitness import write_distributed
from helpers.engine_versions import needs_deltalake

pytestmark = [
    pytest.mark.slow,
    needs_deltalake("1.6.3", "write transactions contain no application transactions"),
]

PARTS = [pa.table({"id": [1, 2], "p": ["a b", "c/d"]}), pa.table({"id": [3], "p": ["a b"]})]


def test_a_write_on_an_object_store(server, captured_writes):
    """A new table, an append with a key and its repetition, and the removal of an orphan."""
    uri, options = f"s3://lake/{uuid.uuid4().hex}", server.options

    def broken():
        raise ValueError("no rows")

    with ThreadPoolExecutor(2) as pool:
        arguments = {"storage_options": options, "engine": pool, "partition_by": "p"}
        results = [
            write_distributed(PARTS, uri, **arguments),
            *(write_distributed(PARTS, uri, key="load", **arguments) for _ in range(2)),
        ]
        with pytest.raises(ValueError, match="no rows"):
            write_distributed([PARTS[0], broken], uri, **arguments)
    assert [(each.version, each.rows, each.is_new) for each in results] == [
        (0, 3, True),
        (1, 3, True),
        (1, 3, False),
    ]
    table = DeltaTable(uri, storage_options=options)
    assert sorted(table.to_pyarrow_table()["id"].to_pylist()) == [1, 1, 2, 2, 3, 3]
    events = captured_writes.events
    assert [event.write_id for event in events[:2]] == [each.write_id for each in results[:2]]
    assert [event.outcome.metrics.rows_added for event in events[:2]] == [3, 3]
    removed = table.vacuum(
        retention_hours=0, enforce_retention_duration=False, dry_run=False, full=True
    )
    assert {path.split("/")[0][:8] for path in removed} == {"staging-"}
    assert len([path for path in removed if path.endswith(".parquet")]) == 2
    assert not [path for path in removed if path.endswith(".json")]
