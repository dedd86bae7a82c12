"""SQL, pipelines, the ledger and the cache inside a block."""

from __future__ import annotations

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from deltawitness import (
    DeltaCache,
    DeltaLakeInstrumentor,
    Ledger,
    ObservedSessionContext,
    ObservedWritePipeline,
    Settings,
    WritePipeline,
    WriteRequest,
    flush,
    once,
)

KEY = "load-2026-11-26"
ROWS = pa.table({"id": [1, 2], "n": [0, 0]})


@pytest.fixture
def uri(tmp_path, captured_writes):
    uri = str(tmp_path / "t")
    write_deltalake(uri, ROWS)
    return uri


def content(uri):
    return sorted(tuple(row.values()) for row in DeltaTable(uri).to_pyarrow_table().to_pylist())


STATEMENTS = (
    "INSERT INTO t VALUES (3, 0), (4, 0)",
    "UPDATE t SET n = n + 1 WHERE id < 4",
    "UPDATE t SET n = n + (SELECT max(n) FROM t)",
    "DELETE FROM t WHERE id = 2",
    "MERGE INTO t USING (SELECT 1 AS id) s ON t.id = s.id WHEN MATCHED THEN UPDATE SET n = 50",
)


def run_statements(uri):
    ctx = ObservedSessionContext()
    ctx.register_delta("t", uri)
    return [ctx.sql(text).collect()[0]["count"][0].as_py() for text in STATEMENTS]


@pytest.mark.slow
def test_sql_commits_once(uri):
    """Each statement commits once, and returns the count of the first time."""
    with once(KEY):
        counts = run_statements(uri)
    after = content(uri), DeltaTable(uri).version()
    with once(KEY) as block:
        assert run_statements(uri) == counts
    assert (content(uri), DeltaTable(uri).version()) == after
    assert [receipt.is_new for receipt in block.receipts] == [False] * len(STATEMENTS)
    assert counts == [2, 3, 4, 1, 1]


def test_a_pipeline_commits_once_and_returns_the_receipt(tmp_path, captured_writes):
    """The result of a skipped write has the version and the rows of the earlier commit."""
    results = []
    for uri in (tmp_path / "new", tmp_path / "new"):
        with once(KEY):
            for mode in ("append", "overwrite"):
                request = WriteRequest(source=ROWS, destination=str(uri), mode=mode)
                results.append(ObservedWritePipeline(WritePipeline()).write(request))
    assert [(result.version, result.rows) for result in results] == [(1, 2), (2, 2)] * 2
    assert DeltaTable(tmp_path / "new").version() == 2


def test_the_ledger_says_that_the_commit_was_there(tmp_path):
    """The row of a skipped write is a noop with a reason, without a version."""
    DeltaLakeInstrumentor().instrument(settings=Settings(cache_root=str(tmp_path / "root")))
    for _ in range(2):
        with once(KEY):
            write_deltalake(tmp_path / "t", ROWS, mode="append")
    flush()
    ledger = Ledger(tmp_path / "root")
    ledger.drain()
    found = ledger.query("SELECT result, reason, version FROM inventory ORDER BY event_time")
    assert found.to_pylist()[-1] == {
        "result": "noop",
        "reason": "already_committed",
        "version": None,
    }


def test_the_cache_writes_as_outside_of_a_block(uri, tmp_path):
    """An entry is written again when its input has changed, under the same key."""
    ctx = ObservedSessionContext()
    ctx.register_delta("t", uri)
    cache = DeltaCache(ctx, tmp_path / "root")
    for count in (2, 4):
        with once(KEY):
            assert cache.view("v", "SELECT count(*) AS c FROM t").to_pydict() == {"c": [count]}
        write_deltalake(uri, ROWS, mode="append")
