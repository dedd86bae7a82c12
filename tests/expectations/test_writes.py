"""Expectations of writes: nothing is committed that does not meet them, and the result is recorded."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import DeltaError

from deltawitness import (
    DeltaLakeInstrumentor,
    Failed,
    Landed,
    Ledger,
    NoCommit,
    Settings,
    cache_context,
    expect,
    once,
    read_commit_metadata,
    show,
    suppressed,
    within,
    writes,
)
from deltawitness.exceptions import ExpectationError
from deltawitness.ledger.tables.schema import INVENTORY
from helpers.engine_versions import needs_deltalake
from helpers.ledger_parts import rows_of

ACTIONS = ["fail", "warn", "quarantine"]


def rows(count, nulls=0):
    return pa.table({"id": pa.array([None] * nulls + list(range(count - nulls)), pa.int64())})


def count(table):
    """Return the number of rows of a table, with any release of delta-rs."""
    return DeltaTable(table).to_pyarrow_table().num_rows


@pytest.fixture
def table(tmp_path, captured_writes):
    """A table with three appends of 100 rows."""
    for _ in range(3):
        write_deltalake(tmp_path / "t", rows(100), mode="append")
    return str(tmp_path / "t")


def version(table):
    return DeltaTable(table).version()


def files(table):
    return sorted(path.name for path in Path(table).glob("*.parquet"))


# --- fail -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["append", "overwrite"])
def test_rows_that_do_not_meet_a_rule_are_not_committed(table, mode, captured_writes):
    """The error names the rule; the event has failed, and its commit has not landed."""
    with expect(nulls={"id": 0}) as block, pytest.raises(ExpectationError) as caught:
        write_deltalake(table, rows(10, 2), mode=mode)
    reason = "nulls(id): 2 nulls, at most 0 allowed"
    assert str(caught.value) == f"expectations not met, nothing was committed: {reason}"
    assert version(table) == 2
    (report,) = block.reports
    assert caught.value.report == report
    assert (report.result, [str(check) for check in report.unmet]) == ("failed", [reason])
    last = captured_writes.last
    assert last.expectations == report
    assert isinstance(last.outcome, Failed)
    assert (last.outcome.error_type, last.outcome.landed) == ("expectation_failed", Landed.NO)
    assert last.outcome.message == str(caught.value)


def test_a_refused_write_creates_no_table(tmp_path, captured_writes):
    with expect(rows_added=(1, None)), pytest.raises(ExpectationError):
        write_deltalake(tmp_path / "new", rows(0))
    assert not DeltaTable.is_deltatable(str(tmp_path / "new"))


def test_the_engine_raises_its_own_errors(table):
    """A write that fails for another reason than a rule has no report."""

    def source():
        yield rows(1).to_batches()[0]
        raise ValueError("broken")

    for action in ACTIONS:
        with expect(nulls={"id": 0}, on_failure=action) as block:
            stream = pa.RecordBatchReader.from_batches(rows(1).schema, source())
            with pytest.raises(DeltaError, match="broken"):
                write_deltalake(table, stream, mode="append")
            if action == "fail":
                with pytest.raises(DeltaError, match="already exists"):
                    write_deltalake(table, rows(1))
        assert block.reports == ()
    assert version(table) == 2


def test_the_schema_is_checked_before_the_engine_is_called(table):
    """Rules about rows are then not checked, and no file is written."""
    before = files(table)
    with expect(schema="unchanged", rows_added=5) as block, pytest.raises(ExpectationError):
        write_deltalake(table, pa.table({"id": ["a"]}), mode="append", schema_mode="merge")
    assert [str(check) for check in block.reports[0].checks] == [
        "schema: `id` is string, not long",
        "rows_added: not checked: the rows were not read",
    ]
    assert files(table) == before


# --- the history of the table ---------------------------------------------------------------------


@pytest.mark.slow
def test_rows_are_compared_with_the_median_of_the_last_writes(table):
    """Commits of other operations and of the other save mode do not count."""
    DeltaTable(table).delete("id = 5")
    write_deltalake(table, rows(1000), mode="overwrite")
    rule = within(0.5, 2.0, of="last 20")
    for count in (49, 201):
        with expect(rows_added=rule), pytest.raises(ExpectationError, match=", 50 to 200 allowed"):
            write_deltalake(table, rows(count), mode="append")
    for count in (50, 200):
        with expect(rows_added=rule):
            write_deltalake(table, rows(count), mode="append")
    with expect(rows_added=rule), pytest.raises(ExpectationError, match="500 to 2000 allowed"):
        write_deltalake(table, rows(100), mode="overwrite")
    with (
        expect(rows_added=within(1, 1, of="last 1")),
        pytest.raises(ExpectationError, match="100 rows, 200 allowed"),
    ):
        write_deltalake(table, rows(100), mode="append")


def test_a_rule_without_history_is_not_checked(tmp_path, captured_writes):
    """The first write of a table, and a write with fewer earlier ones than the rule needs."""
    table = tmp_path / "t"
    with expect(rows_added=within(1, 1, min_commits=2), schema="unchanged") as block:
        write_deltalake(table, rows(1))
        write_deltalake(table, rows(9), mode="append")
        write_deltalake(table, rows(5), mode="append")
    assert [[check.is_met for check in report.checks] for report in block.reports] == [
        [None, None],
        [True, None],
        [True, True],
    ]


def test_history_ends_where_the_log_does(table):
    """Commits that were deleted from the log do not count."""
    write_deltalake(table, rows(10), mode="append")
    DeltaTable(table).create_checkpoint()
    for old in range(3):
        Path(table, "_delta_log", f"{old:020d}.json").unlink()
    with expect(rows_added=within(1, 1)):
        write_deltalake(table, rows(10), mode="append")


# --- warn -----------------------------------------------------------------------------------------


def test_a_warning_is_logged_and_in_the_commit(table, caplog, captured_writes):
    """The commit of a write that meets the rules says so, too."""
    caplog.set_level(logging.WARNING, "deltawitness")
    with expect(nulls={"id": 0}, rows_added=(1, 5), on_failure="warn") as block:
        write_deltalake(table, rows(5, 2), mode="append")
        write_deltalake(table, rows(5), mode="append")
    (message,) = caplog.messages
    assert message.endswith("has committed: nulls(id): 2 nulls, at most 0 allowed")
    assert [report.result for report in block.reports] == ["warned", "passed"]
    warned, passed = (read_commit_metadata(table, each).witness for each in (3, 4))
    assert warned["expectation_result"] == "warned"
    assert warned["expectations"] == passed["expectations"] == "rows_added,nulls(id)"
    assert warned["expectations_unmet"] == "nulls(id)"
    assert passed["expectation_result"] == "passed"
    assert "expectations_unmet" not in passed
    assert count(table) == 310


# --- quarantine -----------------------------------------------------------------------------------


def test_rows_are_written_to_the_quarantine(table, captured_writes, tmp_path):
    """All rows of the write are there; the table has no commit, and the call returns."""
    with expect(nulls={"id": 0}, on_failure="quarantine") as block:
        write_deltalake(table, rows(5, 1), mode="append")
        write_deltalake(table, rows(7, 1), mode="overwrite")
        write_deltalake(table, rows(9), mode="append")
    assert [report.result for report in block.reports] == ["quarantined", "quarantined", "passed"]
    assert version(table) == 3
    quarantine = DeltaTable(f"{table}_quarantine")
    assert (quarantine.version(), count(f"{table}_quarantine")) == (1, 12)
    events = captured_writes.events[3:]
    assert [event.intent.table_name for event in events] == [*["t_quarantine", "t"] * 2, "t"]
    assert isinstance(events[1].outcome, NoCommit)
    assert events[1].outcome.reason == "quarantined"
    keys = read_commit_metadata(quarantine, 0).metadata
    assert (keys["quarantined_write"], keys["quarantine_reason"]) == (
        events[1].write_id,
        "nulls(id)",
    )
    with expect(nulls={"id": 0}, on_failure="quarantine", quarantine=tmp_path / "q"):
        write_deltalake(tmp_path / "new", rows(2, 1))
    assert count(tmp_path / "q") == 2
    assert not DeltaTable.is_deltatable(str(tmp_path / "new"))


def test_the_quarantine_of_a_path_with_a_question_mark_is_beside_the_table(
    tmp_path, captured_writes
):
    """Only a URI has arguments after a question mark."""
    (tmp_path / "a?b").mkdir()
    with expect(nulls={"id": 0}, on_failure="quarantine") as block:
        write_deltalake(tmp_path / "a?b" / "t", rows(2, 1))
    assert block.reports[0].quarantine == str(tmp_path / "a?b" / "t_quarantine")
    assert count(tmp_path / "a?b" / "t_quarantine") == 2


def test_a_registered_expectation_has_the_last_reports(captured_writes, tmp_path, monkeypatch):
    """The memory of a process that writes for years is bounded."""
    monkeypatch.setattr("deltawitness.expectations.block.MAX_REPORTS", 2)
    registered = expect(rows_added=(1, None))
    block = registered.register()
    try:
        for size in (1, 2, 3):
            write_deltalake(tmp_path / "t", rows(size), mode="append")
    finally:
        registered.unregister()
    assert [report.checks[0].observed for report in block.reports] == [2, 3]


def test_a_quarantine_that_cannot_be_written_is_an_error(table, tmp_path, captured_writes):
    """Neither table has the rows then, and the event has failed."""
    quarantine = tmp_path / "q"
    write_deltalake(quarantine, pa.table({"id": [{"other": "type"}]}))
    with (
        expect(nulls={"id": 0}, on_failure="quarantine", quarantine=quarantine) as block,
        pytest.raises(ExpectationError, match="the quarantine cannot be written"),
    ):
        write_deltalake(table, rows(5, 1), mode="append")
    assert (version(table), block.reports[0].result) == (2, "failed")
    assert isinstance(captured_writes.last.outcome, Failed)
    assert captured_writes.last.outcome.landed == Landed.NO


def test_a_reused_handle_is_released_after_a_quarantine(tmp_path):
    """With `reuse_handles`, the next writes go through the handle of their own table."""
    DeltaLakeInstrumentor().instrument(settings=Settings(reuse_handles=True))
    table = str(tmp_path / "t")
    with expect(nulls={"id": 0}, on_failure="quarantine"):
        for _ in range(3):
            write_deltalake(table, rows(2), mode="append")
            write_deltalake(table, rows(1, 1), mode="append")
    DeltaLakeInstrumentor().uninstrument()
    assert (version(table), count(table)) == (2, 6)
    assert count(f"{table}_quarantine") == 3


# --- which writes ---------------------------------------------------------------------------------


def is_refused(table):
    before = version(table)
    try:
        write_deltalake(table, rows(1, 1), mode="append")
    except ExpectationError:
        assert version(table) == before
        return True
    return False


def test_the_strictest_action_decides(table):
    """Each expectation that applies is checked, in either order of the blocks."""
    strict, lenient = expect(nulls={"id": 0}), expect(nulls={"id": 0}, on_failure="quarantine")
    with strict, lenient:
        assert is_refused(table)
    with lenient, strict as block:
        assert is_refused(table)
    assert not DeltaTable.is_deltatable(f"{table}_quarantine")
    assert [len(report.checks) for report in block.reports] == [2]


@pytest.mark.slow
def test_a_table_and_a_policy_limit_an_expectation(table, tmp_path):
    other = f"{tmp_path}/other"
    write_deltalake(other, rows(1))
    with expect(table=DeltaTable(table), nulls={"id": 0}):
        assert (is_refused(table), is_refused(other)) == (True, False)
    with expect(policy="nightly", nulls={"id": 0}):
        assert not is_refused(table)
        with cache_context(policy="nightly"):
            assert is_refused(table)
    assert not is_refused(table)


def test_a_registered_expectation_covers_all_threads(table):
    expectation = expect(table=table, nulls={"id": 0})
    block = expectation.register()
    expectation.register()
    try:
        threads = [threading.Thread(target=is_refused, args=(table,)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [report.result for report in block.reports] == ["failed", "failed"]
        with suppressed():
            assert not is_refused(table)
    finally:
        expectation.unregister()
    assert not is_refused(table)


def test_a_block_needs_observed_writes(tmp_path):
    """Without instrumentation, or where writes are suppressed, nothing would be checked."""
    with pytest.raises(ExpectationError, match="not instrumented"), expect(rows_added=1):
        pass
    DeltaLakeInstrumentor().instrument()
    with suppressed(), pytest.raises(ExpectationError, match="suppressed"), expect(rows_added=1):
        pass
    DeltaLakeInstrumentor().uninstrument()


@needs_deltalake("1.2.1", "an append reads the log again after the look-up of the key")
def test_a_key_of_once_is_checked_when_it_commits(table):
    """A refused write does not use up its key, and a skipped one is not checked."""
    for nulls, result in ((1, ["failed"]), (0, ["passed"]), (1, [])):
        with once("load"), expect(nulls={"id": 0}) as block:
            if result == ["failed"]:
                with pytest.raises(ExpectationError):
                    write_deltalake(table, rows(5, nulls), mode="append")
            else:
                write_deltalake(table, rows(5, nulls), mode="append")
        assert [report.result for report in block.reports] == result
    assert version(table) == 3


# --- the record -----------------------------------------------------------------------------------


def test_the_result_is_in_telemetry_without_columns(tmp_path, delta_telemetry):
    """Span and log have the kinds of rules; the metric counts each checked rule."""
    table = tmp_path / "t"
    write_deltalake(table, rows(1))
    with expect(nulls={"id": 0}, rows_added=(1, None), on_failure="warn"):
        write_deltalake(table, rows(1, 1), mode="append")
    span = delta_telemetry.spans()[-1]
    assert span.attributes["deltawitness.expectation.result"] == "warned"
    assert span.attributes["deltawitness.expectation.unmet"] == ("nulls",)
    rule, result = "deltawitness.expectation.rule", "deltawitness.expectation.result"
    points = delta_telemetry.metric_points()["deltawitness.expectations"]
    assert [(dict(point.attributes), point.value) for point in points] == [
        ({rule: "rows_added", result: "passed"}, 1),
        ({rule: "nulls", result: "warned"}, 1),
    ]


@pytest.mark.slow
def test_the_result_is_in_the_ledger(tmp_path):
    """Reconcile makes the same row from the commit."""
    table = f"{tmp_path}/t"
    DeltaLakeInstrumentor().instrument(settings=Settings(cache_root=str(tmp_path / "c")))
    with expect(nulls={"id": 0}, on_failure="warn"):
        write_deltalake(table, rows(1, 1))
    with expect(nulls={"id": 0}, unique="id"), pytest.raises(ExpectationError):
        write_deltalake(table, rows(1, 1), mode="append")
    DeltaLakeInstrumentor().uninstrument()
    names = ["version", "expectation_result", "expectations", "expectations_unmet"]
    warned = {
        "version": 0,
        "expectation_result": "warned",
        "expectations": "nulls(id)",
        "expectations_unmet": "nulls(id)",
    }
    failed = {
        "version": None,
        "expectation_result": "failed",
        "expectations": "nulls(id),unique(id)",
        "expectations_unmet": "nulls(id)",
    }
    (row,) = writes(expectation="failed", root=tmp_path / "c")
    assert (row.error_type, row.expectations_unmet) == ("expectation_failed", "nulls(id)")
    shown = show(f"{table}@0", root=tmp_path / "c")
    assert (shown.expectation_result, shown.expectations_unmet) == ("warned", "nulls(id)")
    observed = recorded(Ledger(tmp_path / "c"), names)
    assert sorted(observed, key=str) == sorted([warned, failed], key=str)
    rebuilt = Ledger(tmp_path / "other")
    rebuilt.reconcile([table]).apply()
    assert recorded(rebuilt, names) == [warned]


def recorded(ledger, names):
    return [{name: row[name] for name in names} for row in rows_of(ledger.root, INVENTORY)]
