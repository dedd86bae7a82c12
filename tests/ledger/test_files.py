"""A query for one run reads only files that may contain it, and finds every matching row."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime

import pyarrow.compute as pc
import pytest
from datafusion import SessionContext
from datafusion.catalog import Table
from deltalake import DeltaTable, write_deltalake

from deltawitness.ledger.drain.drain import Drain
from deltawitness.ledger.ledger import Ledger
from deltawitness.ledger.tables.arrow import operation_rows
from deltawitness.ledger.tables.dataset import dataset_of
from deltawitness.ledger.tables.schema import CONFIGURATION, INVENTORY, PARTITION, LedgerRoot
from helpers.ledger_parts import operation_row, sealed_rows, spool_in

DAY_US = 86_400_000_000
FIRST_US = 1_700_000_000_000_000


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A ledger of six files: two runs on each of three days; a row of the last day has no run.

    Tests read it. One that writes takes `copied_root`.
    """
    folder = tmp_path_factory.mktemp("ledger")
    root, spool = LedgerRoot(str(folder / "cache")), spool_in(folder / "spools")
    for number in range(6):
        rows = [
            operation_row(
                f"w-{number}-{n}",
                run_id=f"run-{number}",
                event_time=FIRST_US + number // 2 * DAY_US + n,
                rows_added=n,
            )
            for n in range(3)
        ]
        if number == 5:
            rows[0]["run_id"] = None
        Drain(root, tail=1).drain_segments(sealed_rows(spool, *rows))
        spool.delete(spool.sealed())
    return root


@pytest.fixture
def copied_root(root, tmp_path):
    """A copy of the ledger."""
    return LedgerRoot(str(shutil.copytree(root.uri, tmp_path / "cache")))


def files_for(root, condition):
    """Return the number of files that a query reads, without the empty file of the dataset."""
    dataset = dataset_of(root, INVENTORY, root.open_table(INVENTORY))
    return len(list(dataset.get_fragments(filter=condition))) - 1


@pytest.mark.slow
def test_only_files_that_may_hold_it_are_read(root):
    """Queries by run or day skip files by their statistics and partitions."""
    # The run's own file, and the one with a row without a run.
    assert files_for(root, pc.field("run_id") == "run-3") == 2
    assert files_for(root, pc.field("run_id") == "run-9") == 1
    day = datetime.fromtimestamp(FIRST_US / 1e6, UTC)
    assert files_for(root, pc.field(PARTITION) == day.date()) == 2
    assert files_for(root, pc.field("event_time") < day) == 2
    assert files_for(root, pc.field("job") == "nightly") == 6


CONDITIONS = [
    "run_id = 'run-3'",
    "run_id IN ('run-1', 'run-5')",
    "run_id > 'run-3'",
    "run_id IS NULL",
    "run_id = 'run-9'",
    "run_id IS NOT NULL AND rows_added BETWEEN 1 AND 2",
    "event_date = '2023-11-15'",
    "event_time >= timestamp '2023-11-15T22:13:20.000001Z'",
    "event_time < timestamp '2023-11-15T22:13:20.000001Z' OR write_id LIKE 'w-5%'",
    "event_time > now()",
    "NOT (run_id = 'run-2')",
    "upper(run_id) = 'RUN-2'",
    "landed IS NULL AND result <> 'error'",
]


@pytest.mark.parametrize("is_local", [True, False])
@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.one_case_in(3)
def test_a_query_finds_what_the_table_holds(root, condition, is_local, monkeypatch):
    """Any query returns what delta-rs' own reader returns, on local and other storage."""
    if not is_local:
        monkeypatch.setattr("deltawitness.ledger.tables.dataset.local_path", lambda _: None)
    ctx = SessionContext()
    Ledger(root.uri).register(ctx)
    ctx.register_table("plain", Table(DeltaTable(root.uri_of(INVENTORY))))
    query = "SELECT write_id FROM {} WHERE {} ORDER BY write_id"
    ours, theirs = (
        ctx.sql(query.format(name, condition)).to_pydict()
        for name in ("cache_ledger.inventory", "plain")
    )
    assert ours == theirs


def test_a_table_without_statistics_is_read_whole(tmp_path):
    """If files have no statistics, all of them are read."""
    root = LedgerRoot(str(tmp_path / "cache"))
    blind = {**CONFIGURATION, "delta.dataSkippingNumIndexedCols": "0"}
    DeltaTable.create(
        root.uri_of(INVENTORY), INVENTORY.schema, partition_by=[PARTITION], configuration=blind
    )
    Drain(root, tail=1).drain_segments(
        sealed_rows(spool_in(tmp_path / "spools"), operation_row("w-1"))
    )
    assert files_for(root, pc.field("run_id") == "run-9") == 1
    found = Ledger(root.uri).inventory().filter("run_id = 'run-1'").select("write_id").to_pydict()
    assert found == {"write_id": ["w-1"]}


def test_a_row_without_a_time_is_found(copied_root):
    """A row without a date is in a null partition, and queries find it."""
    row = operation_rows([b'{"write_id":"w-timeless"}'])
    write_deltalake(copied_root.uri_of(INVENTORY), row, mode="append")
    frame = Ledger(copied_root.uri).inventory()
    timeless = frame.filter(f"{PARTITION} IS NULL").select("write_id").to_pydict()
    assert timeless == {"write_id": ["w-timeless"]}
    assert frame.count() == 19
