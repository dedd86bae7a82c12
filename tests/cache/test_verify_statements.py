"""Random SQL statements are computed again with the same rows: `verify RUN` reports no false difference."""

from __future__ import annotations

import os
import shutil

import pyarrow as pa
import pytest
from deltalake import write_deltalake
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from deltawitness import DeltaLakeInstrumentor, Ledger, ObservedSessionContext, Settings, run
from deltawitness.cache.verify.verifier import Verifier
from deltawitness.cli.ledger_queries import rewritable_writes
from deltawitness.ledger.tables.listing import LedgerListing
from deltawitness.ledger.tables.schema import LedgerRoot
from helpers.sql_statements import (
    PARTITIONS,
    SCHEMA,
    SOURCE_SCHEMA,
    of_any_size,
    rows,
    source_rows,
    statements,
)

pytestmark = pytest.mark.slow

SEQUENCES = {"long": 400, "ci": 60}.get(os.environ.get("TEST_SIZE"), 4)


REASONS = (None,)
"""Reasons of `cannot_tell` that a random statement may have."""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("verified")


@pytest.mark.timeout(600)
@settings(of_any_size, max_examples=SEQUENCES, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(
    rows=rows,
    source=source_rows,
    partition_by=st.sampled_from(PARTITIONS),
    sequence=st.lists(statements, min_size=1, max_size=4),
)
def test_each_statement_is_computed_again(place, rows, source, partition_by, sequence):
    """12 columns of different types, NULL, NaN, partitions, and names with spaces, dots and quotes."""
    shutil.rmtree(place)
    write_deltalake(
        place / "t", pa.Table.from_pylist(rows, schema=SCHEMA), partition_by=partition_by
    )
    write_deltalake(place / "src", pa.Table.from_pylist(source, schema=SOURCE_SCHEMA))
    root = LedgerRoot(str(place / "root"))
    DeltaLakeInstrumentor().instrument(
        settings=Settings(cache_root=root.uri, keep_write_plans=True, drain_interval=60)
    )
    try:
        with run("load", run_id="load"):
            ctx = ObservedSessionContext()
            ctx.register_delta("t", place / "t")
            ctx.register_delta("src", place / "src")
            for sql in sequence:
                ctx.sql(sql).collect()
        Ledger(root.uri).drain()
        _, writes = rewritable_writes(LedgerListing(root), "load")
    finally:
        DeltaLakeInstrumentor().uninstrument()
    found = list(Verifier(root).verify_writes(writes))
    assert all(each.verdict.value == "reproducible" for each in found), (
        sequence,
        list(map(str, found)),
    )
