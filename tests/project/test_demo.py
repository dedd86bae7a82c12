"""The example programs run observed on the real data with the expected output."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter

import pytest

from deltawitness import Ledger, history, writes
from helpers.lineage_server import lineage_server, spec_validator
from helpers.places import REPOSITORY
from helpers.terminal_commands import run_command

pytestmark = pytest.mark.slow

ROOT = REPOSITORY


@pytest.fixture(scope="module")
def events():
    """The OpenLineage events that the programs have sent, and the environment in which they send them."""
    with lineage_server() as (url, received):
        sending = {"DELTAWITNESS_OPENLINEAGE": url, "DELTAWITNESS_SINK_TIMEOUT": "120"}
        yield received, {**os.environ, **sending}


def execute(folder, program, environment, *options):
    """Run a program on the lakehouse of a folder under `deltawitness run`."""
    script = sys.executable, ROOT / "examples" / program, folder / "lake"
    done = run_command("run", *options, "--", *script, folder=folder, environment=environment)
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def demo(tmp_path_factory, events):
    """A folder with the lakehouse and the summary of the demo, and the result of its program."""
    folder = tmp_path_factory.mktemp("demo")
    options = "--job", "lakehouse", "--show-trace", "--json", "summary.json"
    return folder, execute(folder, "lakehouse.py", events[1], *options)


@pytest.fixture(scope="module")
def cached(tmp_path_factory, demo, events):
    """A folder with a copy of that lakehouse and a cache of it, and the result of the program of the cache."""
    folder = tmp_path_factory.mktemp("cached")
    shutil.copytree(demo[0] / "lake", folder / "lake")
    return folder, execute(folder, "cached_lakehouse.py", events[1], "--job", "cached")


def test_the_demo_builds_its_lakehouse_with_every_commit_witnessed(demo):
    """336,776 flights are loaded, and every commit of every table has the id of the one run."""
    folder, done = demo
    lake, summary_file = folder / "lake", folder / "summary.json"
    assert done.stdout.splitlines()[-1] == "336,776 flights read"
    summary = json.loads(summary_file.read_text())
    assert (summary["tables"], summary["total"]["errors"]) == (6, 0)
    operations = {line["operation"] for line in summary["lines"]}
    assert operations >= {"WRITE", "MERGE", "UPDATE", "DELETE", "OPTIMIZE", "VACUUM", "RESTORE"}
    commits = [commit for table in lake.iterdir() for commit in history(table)]
    assert {commit.run_id for commit in commits} == {summary["run_id"]}
    assert len({commit.metadata["traceparent"][3:35] for commit in commits}) == 1
    assert summary["traces"][0] in done.stderr


MISSES_FIRST = """\
  delays_by_carrier: miss (absent)
  routes: miss (absent)
  late_carriers: miss (absent)
  old_planes: miss (absent)
  windy_hours: miss (absent)
  high_airports: miss (absent)"""

HITS_THEN = """\
  delays_by_carrier: hit
  routes: hit
  late_carriers: hit
  old_planes: hit
  windy_hours: hit
  high_airports: hit"""

AFTER_THE_BATCH = """\
  delays_by_carrier: miss (input changed: flights 21 -> 22)
  routes: miss (input changed: flights 21 -> 22)
  late_carriers: miss (input changed: delays_by_carrier 0 -> 1)
  old_planes: hit
  windy_hours: hit
  high_airports: hit"""


def test_a_late_batch_recomputes_exactly_the_dependent_views(cached):
    """After all misses and all hits, only dependent views are misses; output and ledger have the reasons."""
    folder, done = cached
    lines = [line.rpartition("; ")[0] or line for line in done.stdout.splitlines()]
    assert "\n".join(lines) == (
        f"first pass:\n{MISSES_FIRST}\nsecond pass:\n{HITS_THEN}\n"
        f"a late batch: 1,175 flights\nafter the late batch:\n{AFTER_THE_BATCH}"
    )
    ledger = Ledger(folder / ".deltawitness")
    counts = {
        row["job"]: (row["misses"], row["hits"], row["writes"]) for row in ledger.runs().to_pylist()
    }
    assert counts == {
        # One hit more in each pass: a view over a view reads the other view first.
        "first pass": (6, 1, 6),
        "second pass": (0, 7, 0),
        "after the late batch": (3, 4, 3),
        "cached": (0, 0, 1),
    }
    reads = [row for row in ledger.inventory().to_pylist() if row["operation"] == "READ"]
    reasons = [row["reason"] for row in reads if row["result"] == "miss"]
    assert sorted(reasons) == [
        *["absent: nothing is stored under this name"] * 6,
        "input changed: delays_by_carrier 0 -> 1",
        *["input changed: flights 21 -> 22"] * 2,
    ]


def test_every_event_of_the_demo_meets_the_specification(demo, cached, events):
    """Both events of each operation are valid, with all their facets."""
    validate = spec_validator()
    for event in events[0]:
        validate(event)
    kinds = Counter(event["eventType"] for event in events[0])
    sent = [
        row
        for folder, _ in (demo, cached)
        for row in writes(root=folder / ".deltawitness")
        if row.result not in {"hit", "miss"}  # the reads of the cache
    ]
    assert kinds["START"] == kinds["COMPLETE"] == len(sent) > 30


def test_the_notebook_runs(tmp_path):
    """The flights are loaded, corrected, merged and restored with SQL alone."""
    program = ROOT / "examples" / "sql_notebook.py"
    done = subprocess.run(
        [sys.executable, str(program), str(tmp_path / "lake")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "| 336776 |" in done.stdout
    assert done.stdout.splitlines()[-1] == "336,776 flights, as they were loaded"
    assert [commit.operation for commit in history(tmp_path / "lake" / "flights")] == [
        *("RESTORE", "OPTIMIZE", "MERGE", "UPDATE", "WRITE", "CREATE TABLE")
    ]
