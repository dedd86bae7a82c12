"""Compare the logs of tables with the rows of a ledger."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from deltawitness.ledger.tables.schema import INVENTORY, RUNS
from deltawitness.ledger.tables.write_rows import ledger_uri
from helpers.ledger_parts import rows_of


def commits_of(*tables):
    """Return the write id of each commit, by the table's location and the version."""
    found = {}
    for table in tables:
        for path in sorted(Path(table, "_delta_log").glob("*.json")):
            infos = [json.loads(line).get("commitInfo") for line in path.read_text().splitlines()]
            info = next(filter(None, infos))
            found[ledger_uri(str(table)), int(path.stem)] = info.get("write_id")
    return found


def recorded_writes(root):
    """Return the write ids that the inventory has for each commit, by location and version."""
    recorded = {}
    for row in rows_of(root, INVENTORY):
        for version in row["versions"] or ():
            recorded.setdefault((row["table_uri"], version), []).append(row["write_id"])
    return recorded


def assert_recorded_at_most_once(root, *tables):
    """Assert that every operation has one row, and every version in the inventory is in the log."""
    ids = Counter(row["write_id"] for row in rows_of(root, INVENTORY, "write_id"))
    assert [write_id for write_id, times in ids.items() if times > 1] == []
    landed = commits_of(*tables)
    recorded = recorded_writes(root)
    assert {commit: ids for commit, ids in recorded.items() if ids != [landed.get(commit)]} == {}


def unrecorded_commits(root, *tables):
    """Return the commits that the inventory does not contain."""
    return commits_of(*tables).keys() - recorded_writes(root).keys()


def assert_runs_are_closed(root):
    """Assert that every run with writes has one row per process."""
    rows = rows_of(root, RUNS, "run_id, host, pid")
    closed = Counter((row["run_id"], row["host"], row["pid"]) for row in rows)
    assert [run for run, times in closed.items() if times > 1] == []
    observed = rows_of(root, INVENTORY, "DISTINCT run_id, host, pid, source")
    wrote = {
        (row["run_id"], row["host"], row["pid"]) for row in observed if row["source"] == "observed"
    }
    assert wrote - closed.keys() == set()
