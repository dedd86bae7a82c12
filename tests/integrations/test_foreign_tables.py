"""Commits of Spark and other writers become ledger rows with every count that the commits have."""

from __future__ import annotations

import json
import shutil

import pytest

from deltawitness import Ledger
from deltawitness.ledger.tables.schema import INVENTORY
from deltawitness.ledger.tables.write_rows import ledger_uri
from helpers.ledger_parts import rows_of
from helpers.places import FOREIGN_TABLES

FOLDER = FOREIGN_TABLES

pytestmark = pytest.mark.skipif(
    not FOLDER.is_dir(),
    reason=f"needs tables of other writers in a folder {FOLDER.name} outside the repository",
)

COUNTS = {
    "WRITE": {"rows_added": "numOutputRows"},
    "CREATE TABLE AS SELECT": {"rows_added": "numOutputRows"},
    "CREATE OR REPLACE TABLE AS SELECT": {"rows_added": "numOutputRows"},
    "UPDATE": {"rows_updated": "numUpdatedRows", "rows_copied": "numCopiedRows"},
    "DELETE": {"rows_deleted": "numDeletedRows", "rows_copied": "numCopiedRows"},
    "MERGE": {
        "rows_added": "numTargetRowsInserted",
        "rows_updated": "numTargetRowsUpdated",
        "rows_deleted": "numTargetRowsDeleted",
        "rows_copied": "numTargetRowsCopied",
    },
}
"""The names that Spark gives to the counts of its operations."""


def commits_of(table):
    """Yield the version, the `commitInfo` and the actions of each commit of a table."""
    for path in sorted((table / "_delta_log").glob("*.json")):
        if not path.stem.isdecimal():
            continue
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        infos = [line["commitInfo"] for line in lines if "commitInfo" in line]
        yield int(path.stem), (infos or [{}])[0], lines


def expected_of(info, lines):
    """Return the counts of a commit: those of its engine, and those of its actions."""
    said = info.get("operationMetrics") or {}
    names = COUNTS.get(info.get("operation"), {})
    found = {name: int(said[key]) for name, key in names.items() if key in said}
    if "executionTimeMs" in said:
        found["execution_ms"] = int(said["executionTimeMs"])
    adds = {line["add"]["path"] for line in lines if "add" in line}
    removes = {line["remove"]["path"] for line in lines if "remove" in line}
    return found | {"files_added": len(adds - removes), "files_removed": len(removes - adds)}


def test_counts_of_other_writers(tmp_path, say):
    """Rows, files and durations are those of the commit, under the names of its engine."""
    tables = sorted({path.parent for path in FOLDER.rglob("_delta_log")})
    copies = {}
    for number, table in enumerate(tables):
        copies[table] = shutil.copytree(table, tmp_path / str(number) / table.name)
    ledger = Ledger(tmp_path / "cache")
    plan = ledger.reconcile([str(copy) for copy in copies.values()])
    assert plan.apply() == len(plan.foreign) + len(plan.missing)
    rows = {
        (row["table_uri"], version): row
        for row in rows_of(ledger.root, INVENTORY)
        for version in row["versions"]
    }
    commits = counted = 0
    for copy in copies.values():
        for version, info, lines in commits_of(copy):
            row = rows[ledger_uri(str(copy)), version]
            expected = expected_of(info, lines)
            assert {name: row[name] for name in expected} == expected, (copy.name, version)
            operation = info.get("operation")
            if operation in {"UPDATE", "DELETE", "MERGE"}:
                counted += 1
                assert None not in {row["rows_added"], row["rows_updated"], row["rows_deleted"]}
            commits += 1
    say(
        f"foreign tables: {commits} commits of {len(tables)} tables,"
        f" {counted} UPDATE, DELETE and MERGE with every count of rows"
    )
