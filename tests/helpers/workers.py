"""Run a program that sends work to workers of an engine, and check what is known of each write."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from deltawitness import Ledger
from deltawitness.commit import CommitMetadata, history
from helpers.neighbours import PRIVATE, namespace
from helpers.places import PROGRAMS

FOLDER = PROGRAMS / "workers"
DRIVER = "driver"
"""Job of the process that runs the program; writes outside of its runs have it."""

LIMIT_S = 900.0
"""How long a program may take, in seconds."""


@dataclass(frozen=True)
class Traced:
    """What is left of a program.

    Attributes:
        code: its exit code.
        output: its output, for the message of a failed test.
        lake: the folder of its tables: `<job>/<table>`, perhaps in the folder of a driver.
        root: the root of its ledger.
        spans: the spans that it exported, with those of its workers.
    """

    code: int
    output: str
    lake: Path
    root: Path
    spans: Sequence[Mapping[str, object]]

    def commits(self) -> dict[tuple[str, str, str], list[CommitMetadata]]:
        """Return the commits of each table, by driver (or no text), job and table."""
        found = {}
        for log in sorted(self.lake.rglob("_delta_log")):
            *driver, job, table = log.parent.relative_to(self.lake).parts
            found["/".join(driver), job, table] = history(log.parent)
        return found


def run_traced(
    python: Path,
    file: str,
    folder: Path,
    *,
    command: Sequence[str] = ("-m", "deltawitness", "run", "--quiet", "--job", DRIVER, "--"),
    is_local: bool = True,
) -> Traced:
    """Run a program of `tests/programs/workers` observed, with an OTLP receiver, and drain what is left.

    Args:
        python: the interpreter.
        file: the name of the program.
        folder: a new folder for its files.
        command: arguments of the interpreter that observe the program; none if it does that itself.
        is_local: whether it runs in a network namespace of its own.
    """
    folder.mkdir()
    (folder / "home").mkdir()
    lake, root, spans = folder / "lake", folder / "root", folder / "spans"
    observed = [str(python), *command, str(python)] if command else [str(python)]
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder / "home"),
        "DELTAWITNESS_ROOT": str(root),
        **PRIVATE,
    }
    done = subprocess.run(
        [*(namespace() if is_local else ()), str(python), str(FOLDER / "with_receiver.py"),
         str(spans), *observed, str(FOLDER / file), str(lake)],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )  # fmt: skip
    subprocess.run(
        [sys.executable, "-m", "deltawitness", "drain", "--root", str(root)],
        env=environment,
        capture_output=True,
        timeout=60,
    )
    lines = spans.read_text().splitlines() if spans.exists() else []
    return Traced(
        done.returncode, done.stdout + done.stderr, lake, root, [json.loads(line) for line in lines]
    )


def problems(traced: Traced, *, lost_spans: int = 0) -> list[str]:
    """Return what is wrong with the writes of a program; empty if each is known with its run and trace.

    Args:
        traced: the program.
        lost_spans: how many writes may have no span, because their process was killed.
    """
    found: list[str] = []
    rows = Ledger(str(traced.root)).inventory().to_pylist()
    by_write_id: dict[str, list[dict]] = {}
    for row in rows:
        by_write_id.setdefault(row["write_id"], []).append(row)
    spans = Counter(each["attributes"].get("deltawitness.write.id") for each in traced.spans)
    traces = {
        each["attributes"].get("deltawitness.write.id"): each["trace"] for each in traced.spans
    }
    of_job: dict[tuple[str, str], set[tuple[str | None, str | None]]] = {}
    versions = 0
    for (driver, job, table), commits in traced.commits().items():
        for commit in commits:
            versions += 1
            where = f"{driver}/{job}/{table}@{commit.version}"
            expected_job = DRIVER if job == "process" else job
            trace = str(commit.metadata.get("traceparent") or "")[3:35]
            of_job.setdefault((driver, job), set()).add((commit.run_id, trace))
            said = commit.metadata.get("job_name"), commit.metadata.get("cache_policy")
            if said != (expected_job, "unmanaged" if job == "process" else job):
                found.append(f"{where}: job and policy {said}")
            row = by_write_id.get(commit.write_id or "", [])
            if [(each["run_id"], each["job"]) for each in row] != [(commit.run_id, expected_job)]:
                found.append(f"{where}: {len(row)} rows of its write")
            if lost_spans and not spans[commit.write_id]:
                lost_spans -= 1
            elif spans[commit.write_id] != 1 or traces.get(commit.write_id) != trace or not trace:
                found.append(
                    f"{where}: {spans[commit.write_id]} spans, trace {traces.get(commit.write_id)}"
                    f" instead of {trace}"
                )
    found += [f"{job}: runs and traces {pairs}" for job, pairs in of_job.items() if len(pairs) != 1]
    runs = Counter(
        run_id for (_, job), pairs in of_job.items() if job != "process" for run_id, _ in pairs
    )
    found += [f"{count} jobs have the run {run_id}" for run_id, count in runs.items() if count > 1]
    of_versions = sum(len(row["versions"] or ()) for row in rows)
    if of_versions != versions:
        found.append(f"{of_versions} versions in the ledger, {versions} in the logs")
    return found


def worker_processes(traced: Traced) -> set[int]:
    """Return the processes that wrote."""
    return {row["pid"] for row in Ledger(str(traced.root)).inventory().to_pylist()}
