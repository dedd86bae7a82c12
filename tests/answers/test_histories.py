"""The answers about random histories are the truth about them."""

from __future__ import annotations

from collections import Counter

import pytest
from deltalake import DeltaTable

from deltawitness import errors, runs, show, writes
from deltawitness.answers.commits import NOT_IN_LEDGER
from helpers.histories import AUTHOR, build_history
from helpers.ledger_commands import json_of
from helpers.sizes import seeds, sized

SEEDS = seeds(1, 2, 100)
RUNS = sized(4, 6, 6)


@pytest.fixture(scope="module", params=SEEDS)
def history(request, tmp_path_factory):
    """A history; its seed is the parameter."""
    return build_history(tmp_path_factory.mktemp("history"), request.param, runs=RUNS)


def content(history, table):
    """Return the rows of the newest version of a table."""
    found = DeltaTable(history.uri(table)).to_pyarrow_table().to_pydict()
    return dict(zip(found["id"], found["value"], strict=True))


def assert_shown(shown, truth, root):
    """Assert that the answer about a commit is the truth."""
    assert (shown.table.name, shown.table.version) == (truth.table, truth.version)
    assert (shown.in_ledger, shown.in_log) == (truth.is_observed, True)
    assert shown.operation == truth.operation
    assert shown.result == ("error" if truth.has_failed else "write")
    assert shown.landed == ("yes" if truth.has_failed else None)
    assert (shown.error_type is not None) == truth.has_failed
    expected = {name: getattr(truth, name) for name in COUNTS if getattr(truth, name) is not None}
    assert {name: getattr(shown.metrics, name) for name in expected} == expected
    for name in ("mode", "predicate"):
        if getattr(truth, name) is not None:
            assert getattr(shown, name).lower() == getattr(truth, name).lower()
    named = {(each.name, each.version) for each in shown.inputs}
    assert named == set(truth.inputs)
    is_exact = truth.has_plan or truth.restored is not None
    assert shown.are_inputs_inferred == (bool(truth.inputs) and not is_exact)
    if truth.run is None:
        assert NOT_IN_LEDGER in shown.notes
        assert (shown.run_id, shown.job, shown.message, shown.author) == (None,) * 4
        return
    assert shown.notes == ()
    assert (shown.run_id, shown.job) == (truth.run.run_id, truth.run.job)
    assert (shown.message, shown.author) == (truth.message, AUTHOR)
    assert shown.run.parent_run_id == truth.run.parent_run_id
    helper = "sql_operations" if truth.has_plan else "histories"
    assert shown.call_site.file == f"tests/helpers/{helper}.py"


COUNTS = ("rows_added", "rows_updated", "rows_deleted", "retries")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_every_version_of_every_table_is_shown(history):
    """Run, job, message, operation, predicate, counts, inputs and failure of each commit are the truth."""
    for table in history.tables:
        for truth in history.of(table):
            shown = show(f"{table}@{truth.version}", root=history.root)
            assert_shown(shown, truth, history.root)
        assert show(table, root=history.root) == shown
        assert content(history, table) == truth.rows


@pytest.mark.slow
def test_the_errors_are_all_failures(history):
    """Each failure is listed once, newest first, with its run and whether it landed."""
    found = errors(root=history.root)
    expected = [
        (each.table, each.operation, each.run.run_id, each.run.job, each.landed, each.version)
        for each in reversed(history.failures)
    ]
    assert [
        (row.table_name, row.operation, row.run_id, row.job, row.landed, row.version)
        for row in found
    ] == expected
    for row, truth in zip(found, reversed(history.failures), strict=True):
        assert row.error_type
        assert row.error_message
        assert not truth.error_type or row.error_type == truth.error_type
    for table in {each.table for each in history.failures}:
        wanted = [each for each in expected if each[0] == table]
        assert len(errors(table=table, root=history.root)) == len(wanted)
    rows = json_of("errors", "--root", history.root, "--limit", "1000")
    assert [row["write_id"] for row in rows] == [row.write_id for row in found]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_every_run_is_shown(history):
    """Outputs, operations and failures of each run and its child runs are the truth."""
    parents = {each.run_id: each.parent_run_id for each in history.runs}
    for opened in history.runs:
        shown = show(opened.run_id, root=history.root)
        family = {opened.run_id} | {
            child for child, parent in parents.items() if parent == opened.run_id
        }
        commits = [
            each for each in history.commits if each.run is not None and each.run.run_id in family
        ]
        last = {each.table: each.version for each in commits}
        assert {each.table.name: each.table.version for each in shown.outputs} == last
        failures = [each for each in history.failures if each.run.run_id in family]
        assert len(shown.failed) == len(failures)
        landed = sum(each.landed == "yes" for each in failures)
        assert shown.total["writes"] == len(commits) - landed
        assert {child.run_id for child in shown.children} == family - {opened.run_id}
        assert (shown.run.message, shown.run.author) == (opened.message, AUTHOR)
        assert len(shown.processes) == 1


@pytest.mark.slow
def test_writes_are_filtered_by_every_value(history):
    """Version, operation, job and author select the operations that have them."""
    observed = [each for each in history.commits if each.is_observed]
    by_operation = Counter(each.operation for each in observed)
    for operation, count in by_operation.items():
        found = writes(operation=operation.lower(), root=history.root)
        assert len([row for row in found if row.version is not None]) == count
    for truth in observed[:5]:
        (row,) = writes(table=truth.table, version=truth.version, root=history.root)
        assert (row.run_id, row.operation) == (truth.run.run_id, truth.operation)
    everything = writes(root=history.root)
    assert writes(user=AUTHOR.upper(), root=history.root) == everything
    assert writes(user="nobody", root=history.root) == []
    jobs = Counter(row.job for row in everything)
    assert {job: len(writes(job=job, root=history.root)) for job in jobs} == jobs
    appends = [each for each in observed if each.mode == "append"]
    found = writes(operation="write  Append", result="write", root=history.root)
    assert len(found) == len([each for each in appends if not each.has_failed])
    assert len(runs(root=history.root)) == len(history.runs)
