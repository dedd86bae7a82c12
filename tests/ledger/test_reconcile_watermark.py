"""A second reconcile reads only what is new in the log of a table."""

from __future__ import annotations

import datetime as dt

import pytest
from deltalake import DeltaTable, write_deltalake

from deltawitness import DeltaLakeInstrumentor
from deltawitness.ledger.tables.schema import INVENTORY
from deltawitness.ledger.tables.write_rows import ledger_uri
from helpers.ledger_parts import one
from helpers.reconcile_parts import (
    add_commit,
    commit_file,
    inventory_rows,
    now_ms,
    observe,
    observed_elsewhere,
    recorded_versions,
)


@pytest.mark.slow
def test_a_second_pass_reads_only_later_commits(tmp_path, ledger, table):
    """The watermark is committed with the rows; a full pass ignores it."""
    observed_elsewhere(tmp_path, table, 3)
    assert ledger.reconcile([table]).apply() == 3
    version = ledger.root.open_table(INVENTORY).version()
    nothing = ledger.reconcile([table])
    assert (nothing.commits, nothing.is_clean, nothing.apply()) == (0, True, 0)
    assert ledger.root.open_table(INVENTORY).version() == version
    write_deltalake(table, one(4), mode="append")
    tail = ledger.reconcile([table])
    assert (tail.commits, tail.apply()) == (1, 1)
    assert ledger.reconcile([table], full=True).commits == 4


@pytest.mark.slow
def test_a_plan_without_rows_advances_the_watermark(cache, ledger, table):
    """A plan without rows to append commits its watermark once, in an empty commit."""
    observe(cache)
    write_deltalake(table, one(1))
    DeltaLakeInstrumentor().uninstrument()
    plan = ledger.reconcile()
    before = ledger.root.open_table(INVENTORY).version()
    assert (plan.is_clean, plan.apply(), plan.apply()) == (True, 0, 0)
    assert ledger.root.open_table(INVENTORY).version() == before + 1
    assert ledger.reconcile().commits == 0


@pytest.mark.slow
def test_a_lower_time_bound_does_not_advance_the_watermark(ledger, table):
    """With `since`, earlier commits are not reported, and the watermark does not advance."""
    write_deltalake(table, one(1))
    write_deltalake(table, one(2), mode="append")
    add_commit(table, 2, {"commitInfo": {"timestamp": now_ms() + 3_600_000, "operation": "WRITE"}})
    since = dt.datetime.now(dt.UTC) + dt.timedelta(minutes=30)
    assert ledger.reconcile([table], since=since).apply() == 1
    assert recorded_versions(ledger) == [2]
    assert ledger.reconcile([table]).apply() == 2
    assert recorded_versions(ledger) == [0, 1, 2]


@pytest.mark.slow
def test_a_truncated_log_is_identified_by_its_checkpoint(ledger, table):
    """Without commit 0 the table's id and name are read from the checkpoint."""
    write_deltalake(table, one(0), name="orders")
    for number in range(1, 4):
        write_deltalake(table, one(number), mode="append")
    DeltaTable(table).create_checkpoint()
    for number in range(4, 6):
        write_deltalake(table, one(number), mode="append")
    for version in range(3):
        commit_file(table, version).unlink()
    assert ledger.reconcile([table]).apply() == 3
    assert inventory_rows(ledger, "version, table_name")[0] == {
        "version": 3,
        "table_name": "orders",
    }
    assert ledger.reconcile([table]).commits == 0


@pytest.mark.slow
def test_the_watermark_of_a_shortened_log_is_ignored(ledger, table):
    """If a log is shorter than its watermark, the watermark is ignored."""
    for number in range(3):
        write_deltalake(table, one(number), mode="append")
    ledger.reconcile([table]).apply()
    for version in (1, 2):
        commit_file(table, version).unlink()
    plan = ledger.reconcile([table])
    assert (plan.commits, len(plan.phantom)) == (1, 2)


def test_progress_is_reported(ledger, table):
    """`progress` gets the table, the number of commits read and their total."""
    write_deltalake(table, one(1))
    write_deltalake(table, one(2), mode="append")
    seen = []
    ledger.reconcile([table], progress=lambda *progress: seen.append(progress))
    uri = ledger_uri(table)
    assert (seen[0], seen[-1]) == ((uri, 0, 2), (uri, 2, 2))
