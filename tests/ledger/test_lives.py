"""However a program ends, each of its runs gets a row with its status."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
from deltalake import DeltaTable, write_deltalake

from deltawitness import DeltaLakeInstrumentor, Ledger, Settings, internal_errors, run
from deltawitness.ledger.drain.recorder import recorder_of
from deltawitness.ledger.tables.schema import RUNS
from helpers.ledger_parts import one, rows_of
from helpers.ledger_truth import assert_recorded_at_most_once, unrecorded_commits
from helpers.places import PROGRAMS
from helpers.sizes import cases

PROGRAM = PROGRAMS / "ledger_lives.py"

ENDINGS = {
    # Exit status, and job, status, error and writes of each run; None is the process's implicit run.
    "implicit": (0, [("ledger_lives", "ok", None, 2)]),
    "nested": (
        0,
        [
            ("inner", "ok", None, 1),
            ("inner", "ok", None, 2),
            ("innermost", "ok", None, 1),
            ("outer", "ok", None, 1),
        ],
    ),
    "raises": (1, [("failing", "error", "LookupError", 1)]),
    "raises_outside": (1, [("ledger_lives", "error", "LookupError", 1)]),
    "leaves_well": (0, [("leaving", "ok", None, 1)]),
    "leaves_badly": (3, [("leaving", "error", "SystemExit", 1)]),
    "disappears": (0, [("gone", "abandoned", None, 2)]),
    "dies_inside_run": (-signal.SIGHUP, [("gone", "abandoned", None, 2)]),
    "tasks": (
        0,
        [
            ("gathering", "ok", None, 1),
            ("task-0", "ok", None, 2),
            ("task-1", "ok", None, 2),
            ("task-2", "ok", None, 2),
        ],
    ),
    "thread": (0, [("late", "ok", None, 3)]),
    "children": (0, [("family", "ok", None, 5)]),
}

LIVES = cases(
    ENDINGS,
    ["nested", "raises", "leaves_badly", "disappears", "dies_inside_run", "tasks", "children"],
)

DRAINED_BY_ITSELF = set(LIVES) - {"disappears", "dies_inside_run"}


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """Run every program concurrently; return its folder and exit status by name."""
    running = {}
    for name in (*LIVES, "daemon"):
        folder = tmp_path_factory.mktemp(name)
        environment = {
            **os.environ,
            "DELTAWITNESS_CACHE_ROOT": str(folder / "cache"),
            "DELTAWITNESS_DRAIN_INTERVAL": "3600",
        }
        command = [sys.executable, str(PROGRAM), name, str(folder / "t")]
        running[name] = folder, subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)
    return {
        name: (folder, process, process.communicate())
        for name, (folder, process) in running.items()
    }


@pytest.mark.parametrize("life", LIVES)
@pytest.mark.slow
def test_the_runs_of_a_program(ended, life):
    """Every run has a row with its status and counts, and each commit is counted in its run."""
    folder, process, (_, errors) = ended[life]
    code, expected = ENDINGS[life]
    assert process.returncode == code, errors.decode()
    assert b"failed with" not in errors
    ledger = Ledger(folder / "cache")
    if life not in DRAINED_BY_ITSELF:
        assert ledger.inventory().count() == 0
    ledger.drain()
    runs = (
        ledger.runs().select("job", "status", "error_type", "writes").to_arrow_table().to_pylist()
    )
    assert sorted(tuple(row.values()) for row in runs) == sorted(expected)
    assert_recorded_at_most_once(ledger.root, folder / "t")
    assert unrecorded_commits(ledger.root, folder / "t") == set()
    assert ledger.inventory().count() == sum(writes for *_, writes in expected)
    assert list(ledger.spools.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("life", sorted(DRAINED_BY_ITSELF))
def test_a_program_drains_its_records_at_its_end(ended, life):
    """A program that exits normally leaves nothing for the next drain."""
    folder, *_ = ended[life]
    assert not any((folder / "cache/cache_spool").iterdir())


@pytest.mark.slow
def test_runs_have_the_id_of_their_parent_run(ended):
    """Nested runs have their parents' ids, down to the innermost."""
    folder, *_ = ended["nested"]
    rows = rows_of(Ledger(folder / "cache").root, RUNS, "run_id, parent_run_id, job")
    jobs = {row["run_id"]: row["job"] for row in rows}
    assert sorted((row["job"], jobs.get(row["parent_run_id"])) for row in rows) == [
        ("inner", "outer"),
        ("inner", "outer"),
        ("innermost", "inner"),
        ("outer", None),
    ]


@pytest.mark.slow
def test_a_child_process_joins_the_run_of_its_parent(ended):
    """A run with a child process has a row per process, and its frame shows their sum."""
    folder, *_ = ended["children"]
    ledger = Ledger(folder / "cache")
    parts = rows_of(ledger.root, RUNS, "is_part, writes, rows_added, status", "is_part")
    assert [tuple(part.values()) for part in parts] == [
        (False, 1, 2, "ok"),
        (True, 2, 4, "ok"),
        (True, 2, 4, "ok"),
    ]
    (whole,) = (
        ledger.runs().select("processes", "writes", "rows_added").to_arrow_table().to_pylist()
    )
    assert whole == {"processes": 3, "writes": 5, "rows_added": 10}


@pytest.mark.slow
def test_a_thread_that_is_cut_off_by_the_end_of_its_process(ended):
    """A daemon thread's writes up to the process's end have rows; the log has later ones."""
    folder, *_ = ended["daemon"]
    ledger = Ledger(folder / "cache")
    ledger.drain()
    assert_recorded_at_most_once(ledger.root, folder / "t")
    ledger.reconcile([folder / "t"]).apply()
    assert unrecorded_commits(ledger.root, folder / "t") == set()
    statuses = rows_of(ledger.root, RUNS, "job, status")
    assert {row["job"] for row in statuses} == {"endless"}


@pytest.mark.slow
def test_a_write_in_a_run_starts_no_implicit_run_after_a_read_in_another(tmp_path):
    """The inputs of a write are looked up without a run of the process, which would be a row."""
    write_deltalake(str(tmp_path / "t"), one(0))
    DeltaLakeInstrumentor().instrument(settings=Settings(cache_root=str(tmp_path / "cache")))
    with run("reads"):
        DeltaTable(tmp_path / "t").to_pyarrow_table()
    for _ in range(2):  # the row of a run of the process would be written with the second
        with run("writes"):
            write_deltalake(str(tmp_path / "t"), one(1), mode="append")
    DeltaLakeInstrumentor().uninstrument()
    ledger = Ledger(tmp_path / "cache")
    ledger.drain()
    assert {row["job"] for row in rows_of(ledger.root, RUNS, "job")} == {"reads", "writes"}


@pytest.mark.slow
def test_many_short_runs_do_not_wait_for_the_ledger(tmp_path, size, say):
    """Of many short runs only a few wait for a drain, and every run gets a row."""
    count = size(100, 100, 40)
    drains: list[float] = []
    write_deltalake(str(tmp_path / "t"), one(0))
    table = DeltaTable(tmp_path / "t")

    @run("short")
    def job():
        write_deltalake(table, one(1), mode="append")

    def seconds(settings):
        DeltaLakeInstrumentor().instrument(settings=settings)
        ledger = recorder_of(Ledger(settings=settings).root) if settings.cache_root else None
        if ledger is not None:
            ledger.drains.on_drain = lambda took, _: drains.append(took)
        begun = time.monotonic()
        for _ in range(count):
            job()
        took = time.monotonic() - begun
        DeltaLakeInstrumentor().uninstrument()
        return took

    without = seconds(Settings())
    took = seconds(Settings(cache_root=str(tmp_path / "cache")))
    assert len(drains) <= 2 * took + 3
    ledger = Ledger(tmp_path / "cache")
    assert ledger.inventory().count() == count
    rows = rows_of(ledger.root, RUNS, "job, run_id, status, start_time")
    assert [row["job"] for row in rows] == ["short"] * count, rows
    say(
        f"ledger: {count} runs of one write took {took:.2f} s, without ledger {without:.2f} s; {len(drains)} drains"
    )


@pytest.mark.slow
@pytest.mark.internal_errors
def test_runs_do_not_wait_for_a_ledger_that_cannot_be_had(tmp_path):
    """If the ledger is unreachable, one run waits; later drains are retried in the background."""
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "cache_ledgers").write_text("a file is in the way")
    settings = Settings(cache_root=str(tmp_path / "cache"))
    DeltaLakeInstrumentor().instrument(settings=settings)
    recorder = recorder_of(Ledger(settings=settings).root)
    waited = []
    recorder.drains.drain_in_time = lambda timeout: waited.append(timeout) or recorder.drain()
    for _ in range(5):
        with run("nightly"):
            write_deltalake(str(tmp_path / "t"), one(1), mode="append")
    assert len(waited) == 1
    assert {component for component, _ in internal_errors.error_counts()} == {"drain"}
    del recorder.drains.drain_in_time
    (tmp_path / "cache" / "cache_ledgers").unlink()
    assert Ledger(tmp_path / "cache").runs().count() == 5
