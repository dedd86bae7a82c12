"""The benchmarks that compare commits: what they count, their limits, and the history with its plot."""

from __future__ import annotations

import importlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from deltalake import write_deltalake

from deltawitness import read_commit_metadata
from deltawitness.bench import worker
from deltawitness.semconv import CommitKey

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = ROOT / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch):
    """Import a benchmark by its name; its modules are removed afterwards."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if name in {path.stem for path in BENCHMARKS.glob("*.py")}:
            del sys.modules[name]


def test_the_plot_is_that_of_the_history(benchmark):
    """`make bench-record` draws what it has recorded."""
    record = benchmark("record")
    assert record.PLOT.read_text() == record.plot(record.history())


def test_each_line_of_the_history_names_its_commit_machine_and_control(benchmark):
    for line in benchmark("record").history():
        assert {"date", "commit", "machine", "rounds", "costs", "counts"} <= set(line)
        assert {"python", "cpus", "cpu", "deltalake", "deltawitness"} <= set(line["machine"])
        for costs in line["costs"].values():
            assert costs["bare again"].keys() == {"added_us", "cpu", "wall"}


def test_a_figure_above_its_limit_is_a_regression(benchmark):
    """At the limit it is none, and a figure that the base lacks is none."""
    smoke = benchmark("smoke")
    figures = [smoke.Figure("case", "name", base, 110, 1.1) for base in (100, 90, 0)]
    assert [each.is_regression for each in figures] == [False, True, False]


def test_the_commit_keys_of_the_benchmark_are_those_of_an_observed_write(delta_telemetry, tmp_path):
    """The variant without telemetry has the keys of all signals; a code version needs a repository."""
    write_deltalake(tmp_path, worker.rows(10))
    metadata = read_commit_metadata(tmp_path, 0).metadata
    ours = {key.value for key in CommitKey}
    assert metadata.keys() & ours | {"code_version"} == worker.COMMIT_KEYS.keys()
    for key in metadata.keys() & worker.COMMIT_KEYS.keys() - {"job_name", "witness_version"}:
        assert len(metadata[key]) == len(worker.COMMIT_KEYS[key]), key


def test_the_least_observer_writes_the_same_keys(tmp_path):
    """The variant that the library is compared with makes commits like those of an observed write."""
    program = f"""
from deltalake import DeltaTable, write_deltalake
from deltawitness.bench.worker import COMMIT_KEYS, VARIANTS, rows
write_deltalake({str(tmp_path)!r}, rows(10))
VARIANTS["minimum"]()(DeltaTable({str(tmp_path)!r}), rows(10), mode="append")
commit = DeltaTable({str(tmp_path)!r}).history(1)[0]
print(commit["version"], (COMMIT_KEYS.keys() | {{"userMetadata"}}) - commit.keys())
"""
    assert run(sys.executable, "-c", program, at=ROOT).stdout.split() == ["1", "set()"]


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["--ledger"], ["--variant", "no SDK"]], ids=" ".join)
def test_each_measured_step_is_a_function_of_the_path(options):
    """A step whose function has another name, or is no longer called, would be missing from the table."""
    command = [sys.executable, "benchmarks/steps.py", "--rounds", "2", *options]
    lines = run(*command, at=ROOT).stdout.splitlines()
    steps = {line.split("`")[1] for line in lines if line.startswith("| `")}
    expected = {
        "open",
        "new_id",
        "properties",
        "apply",
        "enter",
        "finish",
        "read_commit",
        "_submit",
    }
    assert expected <= steps
    assert ("append_provisional" in steps) == (options == ["--ledger"])


def run(*command: str, at: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=at, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def repository(tmp_path):
    """A repository with the files of the benchmark and one commit."""
    (tmp_path / "benchmarks").mkdir()
    for name in ("smoke.py", "revisions.py", "overhead.py"):
        shutil.copy(BENCHMARKS / name, tmp_path / "benchmarks")
    (tmp_path / "src/deltawitness").mkdir(parents=True)
    (tmp_path / "src/deltawitness/a.py").touch()
    commit(tmp_path)
    return tmp_path


def commit(repository: Path) -> None:
    who = "-c", "user.name=n", "-c", "user.email=e"
    for arguments in (["init", "-q"], ["add", "."], [*who, "commit", "-qm", "m", "--allow-empty"]):
        result = run("git", *arguments, at=repository)
        assert result.returncode == 0, result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("state", ["first commit", "no repository", "same sources"])
def test_without_a_commit_to_compare_with_it_says_so_and_passes(repository, state):
    if state == "no repository":
        shutil.rmtree(repository / ".git")
    if state == "same sources":
        commit(repository)
    result = run(sys.executable, "benchmarks/smoke.py", at=repository)
    assert result.returncode == 0, result.stderr
    assert "nothing to compare" in result.stdout
    assert result.stdout.count("\n") == 1


@pytest.mark.slow
def test_the_worker_counts_the_same_in_each_process(tmp_path):
    """Its exact figures do not depend on the machine's load."""
    counted = []
    for number in range(2):
        work = {"variant": "all signals", "by": "handle", "sources": str(ROOT / "src")}
        lines = json.dumps({**work, "place": str(tmp_path / str(number))}) + "\ntime\ntime\ncount\n"
        result = subprocess.run(
            [sys.executable, BENCHMARKS / "smoke_worker.py"],
            input=lines,
            capture_output=True,
            text=True,
            timeout=300,
            check=True,
            env={"PYTHONPATH": str(ROOT / "src"), "DELTAWITNESS_LEDGER": "false"},
        )
        counted.append(json.loads(result.stdout.splitlines()[-1]))
    first, second = counted
    assert first["instructions"] == second["instructions"] > 1000
    assert first["calls of C functions"] == second["calls of C functions"]
