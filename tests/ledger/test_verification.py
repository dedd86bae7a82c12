"""Integrity checks of a ledger: findings say what is wrong, and where."""

from __future__ import annotations

import shutil

import pytest
from deltalake import DeltaTable, write_deltalake

from deltawitness import DeltaLakeInstrumentor, Ledger, Settings
from deltawitness.ledger.drain.drain import Drain
from deltawitness.ledger.integrity import Finding, IntegrityResult, Problem
from deltawitness.ledger.spool.records import RecordKind
from deltawitness.ledger.tables.schema import INVENTORY, RUNS
from deltawitness.ledger.tables.write_rows import as_json
from helpers.ledger_parts import one, operation_row, run_started, sealed_rows, spool_in


@pytest.fixture
def ledger(tmp_path):
    return Ledger(tmp_path / "cache")


def append_records(ledger, *rows, runs=()):
    """Append operations and runs to the ledger, as a further process."""
    spool = spool_in(ledger.spools)
    for row in runs:
        spool.append(RecordKind.RUN_END, row["run_id"], as_json(row))
    Drain(ledger.root, tail=1).drain_segments(sealed_rows(spool, *rows))
    spool.rotate()
    spool.delete(spool.sealed())
    spool.close()


def test_an_empty_ledger_has_no_findings(ledger):
    """An empty ledger has no findings."""
    assert ledger.verify() == IntegrityResult((), {}, 0)
    assert ledger.verify().is_good


@pytest.mark.slow
def test_a_consistent_ledger_has_no_findings(ledger):
    """Rows are counted by table; a waiting operation counts once, with or without its final row."""
    append_records(ledger, operation_row("w-1"), operation_row("w-2"), runs=[run_started()])
    waiting = spool_in(ledger.spools)
    waiting.append_row(waiting.append_provisional("w-3", "{}"), "w-3", "{}")
    waiting.append_provisional("w-4", "{}")
    assert ledger.verify() == IntegrityResult(
        (), {"cache_inventory_v1": 2, "cache_run_summary_v1": 1}, 2
    )


@pytest.mark.slow
def test_a_duplicate_operation_is_a_finding(ledger):
    """A write id with several rows is a finding."""
    for _ in range(2):
        append_records(ledger, operation_row("w-1"), operation_row("w-2"), operation_row("w-2"))
    found = ledger.verify()
    assert not found.is_good
    assert sorted(found.findings, key=lambda finding: finding.text) == [
        Finding(
            Problem.DOUBLED_OPERATION, "cache_inventory_v1", "write_id w-1 occurs 2 times", "w-1"
        ),
        Finding(
            Problem.DOUBLED_OPERATION, "cache_inventory_v1", "write_id w-2 occurs 4 times", "w-2"
        ),
    ]


def test_a_duplicate_run_is_a_finding(ledger):
    """Two rows of one run and process are a finding; rows of further processes are not."""
    row = {**run_started(), "end_time": 5}
    append_records(ledger, runs=[row, {**row, "pid": 8}])
    assert ledger.verify().is_good
    append_records(ledger, runs=[row])
    assert ledger.verify().findings == (
        Finding(Problem.DOUBLED_RUN, "cache_run_summary_v1", "run_id run-1 occurs 2 times"),
    )


@pytest.mark.slow
def test_a_process_that_is_instrumented_again_is_not_doubled(ledger, tmp_path):
    """The implicit run has a row per instrumentation of the process, which is no finding."""
    for number in range(2):
        DeltaLakeInstrumentor().instrument(settings=Settings(cache_root=ledger.root.uri))
        write_deltalake(tmp_path / "t", one(number), mode="append")
        DeltaLakeInstrumentor().uninstrument()
    assert ledger.verify() == IntegrityResult(
        (), {"cache_inventory_v1": 2, "cache_run_summary_v1": 2}, 0
    )
    assert ledger.runs().select("processes", "writes").to_pylist() == [
        {"processes": 1, "writes": 2}
    ]


@pytest.mark.slow
def test_rows_that_two_compactions_have_doubled(ledger):
    """Concurrent compactions of the ledger's own tables are a finding."""
    for number in range(3):
        append_records(ledger, operation_row(f"w-{number}"))
    handles = [DeltaTable(ledger.root.uri_of(INVENTORY)) for _ in range(2)]
    for handle in handles:
        handle.optimize.compact()
    found = ledger.verify()
    problems = [finding.problem for finding in found.findings]
    assert problems.count(Problem.DOUBLED_ROWS) == problems.count(Problem.DOUBLED_OPERATION) == 3
    assert {
        finding.text for finding in found.findings if finding.problem is Problem.DOUBLED_ROWS
    } == {"versions 4 and 5 rewrote the same rows"}


def test_lines_that_are_damaged(ledger):
    """Damaged records in a spool are a finding; an incomplete last line is not."""
    waiting = spool_in(ledger.spools)
    segment = waiting.append_provisional("w-1", "{}")
    waiting.append_provisional("w-2", "{}")
    content = segment.path.read_bytes().replace(b"w-1", b"w-9") + b"0123"
    segment.path.write_bytes(content)
    where = f"{waiting.home.name}/00000001.open"
    text = "1 line does not match its checksum"
    assert ledger.verify() == IntegrityResult((Finding(Problem.DAMAGED_LINES, where, text),), {}, 1)


@pytest.mark.slow
def test_a_table_that_cannot_be_read(ledger):
    """A damaged table is a finding without its location, and the other tables are checked."""
    append_records(ledger, operation_row("w-1"), runs=[run_started()])
    shutil.rmtree(ledger.spools.parent / "cache_ledgers" / INVENTORY.name / "_delta_log")
    (ledger.spools.parent / "cache_ledgers" / INVENTORY.name / "_delta_log").mkdir()
    (
        ledger.spools.parent
        / "cache_ledgers"
        / INVENTORY.name
        / "_delta_log"
        / "00000000000000000000.json"
    ).write_text("{")
    found = ledger.verify()
    assert [(finding.problem, finding.where) for finding in found.findings] == [
        (Problem.UNREADABLE, INVENTORY.name)
    ]
    assert str(ledger.spools.parent) not in found.findings[0].text
    assert found.rows == {RUNS.name: 1}


def test_a_segment_that_was_drained_meanwhile(ledger, monkeypatch):
    """A segment that is deleted between listing and reading does not count as waiting."""
    waiting = spool_in(ledger.spools)
    segment = waiting.append_provisional("w-1", "{}")
    gone = segment.path.with_suffix(".seg")
    monkeypatch.setattr(
        "deltawitness.ledger.integrity.segments_of", lambda _: iter([gone, segment.path])
    )
    assert ledger.verify().waiting == 1
