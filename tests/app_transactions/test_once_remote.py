"""Blocks on an object store: the conditional put of the log decides there as well."""

from __future__ import annotations

import threading
import uuid

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from deltawitness import once

pytestmark = pytest.mark.slow

KEY = "load-2026-11-26"
ROWS = pa.table({"id": [1, 2]})


def test_writes_on_an_object_store_commit_once(server, captured_writes):
    """A missing table, a second block, and a concurrent block with the same key: one commit of rows."""
    uri, options = f"s3://lake/{uuid.uuid4().hex}", server.options

    def work():
        with once(KEY) as block:
            write_deltalake(uri, ROWS, mode="append", storage_options=options)
        return [(receipt.version, receipt.rows, receipt.is_new) for receipt in block.receipts]

    def racing():
        other = threading.Thread(target=work)
        other.start()
        other.join()
        yield ROWS.to_batches()[0]

    with once(KEY) as block:
        reader = pa.RecordBatchReader.from_batches(ROWS.schema, racing())
        write_deltalake(uri, reader, mode="append", storage_options=options)
    assert [(receipt.version, receipt.is_new) for receipt in block.receipts] == [(1, False)]
    assert work() == [(1, 2, False)]
    handle = DeltaTable(uri, storage_options=options)
    assert (handle.version(), handle.count()) == (1, 2)
