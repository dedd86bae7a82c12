"""`time` says where the time of a run went."""

from __future__ import annotations

import datetime as dt
import shutil
import time as clock

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from deltawitness import (
    DeltaCache,
    DeltaLakeInstrumentor,
    ObservedSessionContext,
    Settings,
    WriteRow,
    run,
    time,
    writes,
)
from deltawitness.answers.run_time import _union_ms
from deltawitness.exceptions import LedgerLookupError
from helpers.histories import build_history
from helpers.sizes import sized


@pytest.fixture
def root(tmp_path):
    """The cache root of a ledger; writes are observed."""
    place = str(tmp_path / "ledger")
    DeltaLakeInstrumentor().instrument(settings=Settings(cache_root=place))
    yield place
    DeltaLakeInstrumentor().uninstrument()


def write_and_change(uri):
    write_deltalake(uri, pa.table({"x": list(range(100))}))
    write_deltalake(uri, pa.table({"x": [100]}), mode="append")
    DeltaTable(uri).delete("x = 3")
    DeltaTable(uri).delete("x = 4")


@pytest.mark.slow
def test_the_time_of_a_run_is_split_by_table_and_operation(root, tmp_path):
    """Calls are split into execution and commit, those of a DELETE also into scan and rewrite."""
    with run("job") as opened:
        write_and_change(str(tmp_path / "t"))
        clock.sleep(0.05)  # the program between its writes
    found = time(opened.run_id[:20], root=root)
    assert (found.run_id, found.job, found.status, found.notes) == (opened.run_id, "job", "ok", ())
    by_name = {(each.operation, each.mode): each for each in found.operations}
    assert {name: each.count for name, each in by_name.items()} == {
        ("WRITE", "error"): 1,
        ("WRITE", "append"): 1,
        ("DELETE", None): 2,
    }
    deletes = by_name["DELETE", None]
    assert None not in (deletes.scan_ms, deletes.rewrite_ms)
    assert deletes.scan_ms + deletes.rewrite_ms <= deletes.execution_ms + 2
    assert by_name["WRITE", "append"].scan_ms is None
    for each in found.operations:
        assert each.name == "t"
        assert each.commit_ms == pytest.approx(each.total_ms - each.execution_ms, abs=each.count)
        assert each.overhead_ms > 0
    assert found.operations_ms == pytest.approx(
        sum(each.total_ms for each in found.operations), abs=0.01
    )
    assert found.wall_ms == pytest.approx(found.operations_ms + found.program_ms)
    assert found.program_ms >= 50
    assert found.overhead_ms == pytest.approx(sum(row.overhead_ms for row in writes(root=root)))


@pytest.mark.slow
def test_operations_of_child_runs_count_and_a_deleted_log_is_a_note(root, tmp_path):
    """The operations of an inner run belong to the time of the outer one; without the log, scans are not known."""
    with run("outer") as outer, run("inner"):
        write_and_change(str(tmp_path / "t"))
    shutil.rmtree(tmp_path / "t")
    found = time(outer.run_id, root=root)
    assert sum(each.count for each in found.operations) == 4
    assert {each.scan_ms for each in found.operations} == {None}


@pytest.mark.slow
def test_a_run_that_has_not_ended_has_a_note(root, tmp_path):
    """The time of an open run is that until the end of its last operation."""
    with run("job") as opened:
        write_deltalake(str(tmp_path / "t"), pa.table({"x": [1]}))
        found = time(opened.run_id, root=root)
    assert found.status is None
    assert found.notes[0].startswith("the run has not ended")
    assert found.wall_ms == pytest.approx(found.operations_ms, abs=1.0)


@pytest.mark.slow
def test_a_cache_hit_saves_the_time_of_the_last_write_of_its_entry(root, tmp_path):
    """A hit counts with the duration of the write of its entry, less that of the read."""
    uri = str(tmp_path / "t")
    write_deltalake(uri, pa.table({"x": list(range(1000))}))
    ctx = ObservedSessionContext()
    ctx.register_delta("t", uri)
    cache = DeltaCache(ctx, root=root)
    query = "SELECT x % 10 AS k, count(*) AS n FROM t GROUP BY 1"
    with run("first") as first:
        cache.view("counts", query).collect()
    with run("second") as second:
        cache.view("counts", query).collect()
    assert (time(first.run_id, root=root).hits, time(first.run_id, root=root).saved_ms) == (0, 0.0)
    found = time(second.run_id, root=root)
    (written,) = [row for row in writes(root=root, table="counts") if row.result == "write"]
    (hit,) = [row for row in writes(root=root, table="counts") if row.result == "hit"]
    assert found.hits == 1
    assert found.saved_ms == pytest.approx(max(0.0, written.duration_ms - hit.duration_ms))


def test_an_unknown_run_is_an_error(root, tmp_path):
    """A text that is no run raises an error."""
    write_deltalake(str(tmp_path / "t"), pa.table({"x": [1]}))
    with pytest.raises(LedgerLookupError, match="no run begins with ffff"):
        time("ffff", root=root)


def test_overlapping_operations_count_once():
    """The time of operations is that in which at least one of them was in progress."""
    start = dt.datetime(2026, 11, 27, tzinfo=dt.UTC)
    spans = [(0, 10), (5, 10), (6, 2), (20, 5), (25, 1)]
    rows = [
        WriteRow(event_time=start + dt.timedelta(milliseconds=first), duration_ms=length)
        for first, length in spans
    ]
    assert _union_ms(rows) == pytest.approx(15 + 6)
    assert _union_ms([]) == 0


@pytest.mark.slow
def test_the_times_of_random_runs_add_up(tmp_path):
    """In random histories, operations and program are the time of each run, and all rows are counted."""
    history = build_history(tmp_path, 5, runs=sized(3, 6, 6))
    for opened in history.runs:
        found = time(opened.run_id, root=history.root)
        assert found.wall_ms == pytest.approx(found.operations_ms + found.program_ms, abs=1.0)
        own = writes(run=opened.run_id, root=history.root)
        assert sum(each.count for each in found.operations) >= len(own)
        assert sum(each.total_ms for each in found.operations) >= found.operations_ms - 0.01
