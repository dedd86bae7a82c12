"""Run the program that kills workers, drivers and drains, and count the rows of its tables and its ledger."""

from __future__ import annotations

import json
import os
import subprocess
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deltalake import DeltaTable

from deltawitness import Ledger
from deltawitness.commit import history
from helpers.neighbours import PRIVATE, namespace
from helpers.workers import FOLDER

TASKS = 12
"""Tasks of a round of the program, each of which appends three rows in blocks of `once`."""


@dataclass(frozen=True)
class Faults:
    """What is left of the program.

    Attributes:
        killed: how many processes of each kind were killed.
        commands: exit code and output of each repair, by its first words.
        wrong_rows: rows of the tables that are not there exactly once.
        wrong_versions: commits that have not exactly one row in the ledger.
        commits: how many commits there are.
        without_run: commits that have no run id.
    """

    killed: dict[str, int]
    commands: list[tuple[str, int, str]]
    wrong_rows: dict[Any, int]
    wrong_versions: dict[Any, int]
    commits: int
    without_run: int


def run_faults(python: Path, engine: str, folder: Path, rounds: int, seed: int) -> Faults:
    """Run rounds of an engine in a network namespace of their own, and count what is left."""
    (folder / "home").mkdir(parents=True)
    lake, root = folder / "lake", folder / "root"
    program = [str(python), str(FOLDER / "faults.py"), engine, str(lake), str(rounds), str(seed)]
    done = subprocess.run(
        [*namespace(), *program],
        cwd=folder,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(folder / "home"),
            "DELTAWITNESS_ROOT": str(root),
            "DELTAWITNESS_DRAIN_INTERVAL": "0.5",
            **PRIVATE,
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120 + 120 * rounds,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    return count(lake, root, rounds, said["killed"], [tuple(each) for each in said["commands"]])


def count(lake: Path, root: Path, rounds: int, killed: dict, commands: list) -> Faults:
    """Count the rows of the tables and of the ledger."""
    expected = Counter(
        (f"round-{number}-task-{task}", part)
        for number in range(rounds)
        for task in range(TASKS)
        for part in range(3)
    )
    tables = sorted(log.parent for log in lake.glob("*/_delta_log"))
    rows = Counter(
        (row["key"], row["part"])
        for table in tables
        for row in DeltaTable(table).to_pyarrow_table().to_pylist()
    )
    versions = Counter(
        (Path(row["table_uri"].removeprefix("file://")).name, version)
        for row in Ledger(str(root)).inventory().to_pylist()
        for version in row["versions"] or ()
    )
    commits = {(table.name, each.version): each for table in tables for each in history(table)}
    return Faults(
        killed=killed,
        commands=commands,
        wrong_rows={key: rows[key] for key in rows.keys() | expected.keys() if rows[key] != 1},
        wrong_versions={
            key: versions[key] for key in versions.keys() | commits.keys() if versions[key] != 1
        },
        commits=len(commits),
        without_run=sum(each.run_id is None for each in commits.values()),
    )
