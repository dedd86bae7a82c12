"""The demo program runs observed on the real data, and is no different for it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from deltawitness import history

ROOT = Path(__file__).parent.parent


def test_the_demo_builds_its_lakehouse_with_every_commit_witnessed(tmp_path):
    """336,776 flights; every commit of every table is of the one run."""
    lake, summary_file = tmp_path / "lake", tmp_path / "summary.json"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "deltawitness", "run", "--job", "lakehouse", "--show-trace"),
            *("--json", str(summary_file), "--", sys.executable),
            *(str(ROOT / "examples" / "lakehouse.py"), str(lake)),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "336,776 flights read"
    summary = json.loads(summary_file.read_text())
    assert (summary["tables"], summary["total"]["errors"]) == (6, 0)
    operations = {line["operation"] for line in summary["lines"]}
    assert operations >= {"WRITE", "MERGE", "UPDATE", "DELETE", "OPTIMIZE", "VACUUM", "RESTORE"}
    commits = [commit for table in lake.iterdir() for commit in history(table)]
    assert {commit.run_id for commit in commits} == {summary["run_id"]}
    assert len({commit.metadata["traceparent"][3:35] for commit in commits}) == 1
    assert summary["traces"][0] in done.stderr


def test_the_notebook_tells_its_story(tmp_path):
    """SQL alone: loaded, corrected, merged, summed up, and back again."""
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
