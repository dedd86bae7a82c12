"""The public function `apply`: run a planned program if its tables have not changed since the plan."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from deltawitness.answers.program_plan.program import hashes_of_files
from deltawitness.answers.program_plan.question import Runner, run_command_line
from deltawitness.answers.program_plan.records import find_plan
from deltawitness.answers.program_plan.values import AppliedPlan, AppliedTable, PlannedState
from deltawitness.answers.questions import settings_with
from deltawitness.answers.run_report import read_run
from deltawitness.clones.clone import last_commit
from deltawitness.clones.versions import PlannedVersions
from deltawitness.commit.log import open_log
from deltawitness.commit.reader import parse_commit
from deltawitness.extras import require
from deltawitness.ledger.tables.listing import LedgerListing
from deltawitness.ledger.tables.locations import absolute_root
from deltawitness.locations import local_path
from deltawitness.semconv import Env
from deltawitness.settings import Settings

__all__ = ["apply", "apply_plan"]

_WRITES = frozenset({PlannedState.CREATE.value, PlannedState.CHANGE.value})


def apply(
    plan: str,
    *,
    root: str | os.PathLike[str] | None = None,
    settings: Settings | None = None,
) -> AppliedPlan:
    """Run a planned program, if nothing that the plan depends on has changed.

    Each table that the program opened must be at the version of the plan, the files among its arguments
    must be the same, and the plan must have ended with exit code 0. Otherwise the program is not started,
    and the result has the reasons. The version is checked again when the program first opens the table:
    if another writer has committed meanwhile, the program gets a `PlanError`.

    The program runs under `deltawitness run` in the working directory of the plan, with the environment of
    this process.

    Args:
        plan: id of the plan, or an unambiguous prefix of it.
        root: the cache root of the plan; as for :func:`show`. It is also that of the program's ledger.
        settings: as for :func:`show`.

    Raises:
        PlanError: there is no such plan, or there are several.
        MissingExtraError: the extra `cli` is not installed.
        ConfigurationError: a setting in the environment is invalid.
        OSError: the plan cannot be read.
    """
    return apply_plan(plan, settings_with(root, None, settings), run_command_line)


def apply_plan(prefix: str, settings: Settings, runner: Runner) -> AppliedPlan:
    """Run a planned program, or return why not.

    Args:
        prefix: id of the plan, or an unambiguous prefix of it.
        settings: settings with the cache root.
        runner: runs the program.

    Raises:
        Exception: as for :func:`apply`.
    """
    require("apply", "typer", "rich")
    plan, files = find_plan(settings, prefix)
    command = tuple(plan["command"])
    if reasons := tuple(_reasons(plan, files)):
        return AppliedPlan(plan_id=plan["plan_id"], command=command, reasons=reasons)
    with tempfile.TemporaryDirectory(prefix="deltawitness-") as folder:
        versions = PlannedVersions.write(Path(folder, "versions"), _planned(plan))
        exit_code, run_id = _run(plan, settings, runner, versions)
        root = str(Path(absolute_root(settings)).resolve())
        unplanned = [each for each in versions.unplanned() if not Path(each).is_relative_to(root)]
    family = _family(run_id, settings)
    written = (each for each in plan["tables"] if each["state"] in _WRITES)
    return AppliedPlan(
        plan_id=plan["plan_id"],
        command=command,
        exit_code=exit_code,
        run_id=run_id,
        tables=tuple(_applied(each, family) for each in written),
        unplanned=tuple(unplanned),
    )


def _reasons(plan: Mapping[str, Any], files: Mapping[str, str]) -> Iterator[str]:
    """Yield why a planned program is not started."""
    if plan["exit_code"]:
        yield f"the planned program ended with exit code {plan['exit_code']}"
    yield from plan["refused"]
    if not Path(plan["directory"]).is_dir():
        yield f"the working directory {plan['directory']} does not exist"
    now = hashes_of_files(plan["command"], plan["directory"])
    for path in sorted({*files, *now}):
        if files.get(path) != now.get(path):
            yield f"{path} has changed since the plan"
    for table in plan["tables"]:
        yield from _change_of(table)


def _change_of(table: Mapping[str, Any]) -> Iterator[str]:
    planned = table["version"], table["commit_hash"]
    found = last_commit(Path(local_path(table["uri"]) or ""))
    if found == planned:
        return
    before, now = ("absent" if each[0] is None else f"at {each[0]}" for each in (planned, found))
    if before == now:
        yield f"{table['name']} was created again since the plan: {table['uri']}"
    else:
        yield f"{table['name']} was {before} in the plan and is {now}: {table['uri']}"


def _planned(plan: Mapping[str, Any]) -> dict[str, tuple[int | None, str | None]]:
    """Return the version and the hash of its commit of each table, by path."""
    return {
        local_path(each["uri"]) or each["uri"]: (each["version"], each["commit_hash"])
        for each in plan["tables"]
    }


def _run(
    plan: Mapping[str, Any], settings: Settings, runner: Runner, versions: PlannedVersions
) -> tuple[int, str | None]:
    """Run the program observed; return its exit code and the id of its run."""
    summary = versions.path / "summary.json"
    options = {"--job": plan["job"], "--message": plan["message"], "--json": str(summary)}
    words = [word for pair in options.items() if pair[1] is not None for word in pair]
    start = [sys.executable, "-c", _STARTER, plan["directory"]]
    environment = {
        **os.environ,
        Env.CACHE_ROOT.value: absolute_root(settings),
        Env.PLAN_VERSIONS.value: str(versions.path),
    }
    environment.pop(Env.ROOT.value, None)
    exit_code = runner([*start, "run", *words, "--", *plan["command"]], environment)
    try:
        return exit_code, json.loads(summary.read_text(encoding="utf-8"))["run_id"]
    except (OSError, ValueError, KeyError):
        return exit_code, None


_STARTER = """
import os, sys
os.chdir(sys.argv.pop(1))
from deltawitness.cli.app import main
main()
"""
"""Starts the command line in the working directory of the plan. That of this process stays."""


def _family(run_id: str | None, settings: Settings) -> frozenset[str]:
    """Return the ids of a run and of its child runs."""
    if run_id is None:
        return frozenset()
    try:
        report = read_run(LedgerListing.of(settings), run_id)
    except Exception:  # noqa: BLE001 - without a ledger, commits of child runs count as those of others
        return frozenset({run_id})
    return frozenset({run_id, *(run["run_id"] for run in report.family())})


def _applied(table: Mapping[str, Any], family: Collection[str]) -> AppliedTable:
    before = table["version"]
    path = Path(local_path(table["uri"]) or "")
    after, _ = last_commit(path)
    log = open_log(str(path))
    others = []
    for version in range(-1 if before is None else before, -1 if after is None else after):
        content = log.read(version + 1)
        if content is None or parse_commit(version + 1, content).run_id not in family:
            others.append(version + 1)
    return AppliedTable(
        name=table["name"],
        uri=table["uri"],
        version=before,
        planned_version=table["planned_version"],
        applied_version=after,
        others=tuple(others),
    )
