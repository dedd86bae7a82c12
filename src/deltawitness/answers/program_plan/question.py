"""The public function `plan`: run a program against clones of its tables, and return what it would do."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from deltawitness.answers.diff.tables import DiffOptions
from deltawitness.answers.program_plan.program import check_program, hashes_of_files
from deltawitness.answers.program_plan.records import plans_folder, write_plan
from deltawitness.answers.program_plan.tables import has_changed, planned_table
from deltawitness.answers.program_plan.values import PlannedState, PlannedTable, ProgramPlan
from deltawitness.answers.questions import settings_with
from deltawitness.clones.folder import Clone, CloneFolder
from deltawitness.exceptions import PlanError
from deltawitness.extras import is_installed
from deltawitness.forks import mark_delta_rs_used
from deltawitness.ids_and_clock import new_id
from deltawitness.ledger.tables.listing import LedgerListing
from deltawitness.ledger.tables.schema import LedgerRoot
from deltawitness.processes import SITE_DIRECTORY
from deltawitness.semconv import ACTIVATE_TOP, Env, OtelEnv
from deltawitness.settings import Settings

__all__ = ["PlanRequest", "Runner", "make_plan", "plan", "run_command_line"]

Runner = Callable[[list[str], dict[str, str]], int]
"""Runs a command in an environment and returns its exit code; -N if signal N ended it."""


def run_command_line(command: list[str], environment: dict[str, str]) -> int:
    """Run a command with the streams of this process and return its exit code."""
    return subprocess.run(command, env=environment, check=False).returncode  # noqa: S603 - the caller's command


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRequest:
    """What to plan.

    Attributes:
        command: the program and its arguments.
        job: job name for the run.
        message: why the program writes.
        options: how rows are compared.
        keep: whether the clones stay in the folder of the plan.
        any_program: whether a command is accepted that is not a Python program.
    """

    command: tuple[str, ...]
    job: str | None = None
    message: str | None = None
    options: DiffOptions = field(default_factory=DiffOptions)
    keep: bool = False
    any_program: bool = False


def plan(  # noqa: PLR0913 - keyword-only options
    command: Sequence[str],
    *,
    job: str | None = None,
    message: str | None = None,
    key: str | Sequence[str] = (),
    rows: bool = True,
    keep: bool = False,
    any_program: bool = False,
    root: str | os.PathLike[str] | None = None,
    settings: Settings | None = None,
) -> ProgramPlan:
    """Run a program against clones of its tables, and return what it would do to them.

    Each Delta table that the program opens or writes is cloned: its log is copied, its data files are
    linked. The program reads and writes the clone, and the table does not change. All other effects of the
    program are real: other files, databases, messages. Only tables on a local disk can be planned.

    Args:
        command: a Python program and its arguments, such as `["python", "job.py"]`.
        job: job name for the run when the plan is applied.
        message: why the program writes.
        key: the columns that identify a row, in tables that have them; else rows are compared as multisets.
        rows: whether rows are compared, which needs DataFusion.
        keep: whether to leave the clones in the folder of the plan; else they are deleted.
        any_program: also accept a command that is not a Python program. Writes of processes that do not
            load this package are real.
        root: the cache root in which the plan is stored; as for :func:`show`.
        settings: as for :func:`show`.

    Raises:
        PlanError: the command is not a Python program, or its Python does not have this package.
        ConfigurationError: a setting in the environment is invalid.
        OSError: the plan cannot be written.
    """
    request = PlanRequest(
        command=tuple(command),
        job=job,
        message=message,
        options=DiffOptions(key=(key,) if isinstance(key, str) else tuple(key), rows=rows),
        keep=keep,
        any_program=any_program,
    )
    return make_plan(request, settings_with(root, None, settings), run_command_line)


def make_plan(request: PlanRequest, settings: Settings, runner: Runner) -> ProgramPlan:
    """Return the plan of a program, after running it.

    Args:
        request: what to plan.
        settings: settings with the cache root.
        runner: runs the program.

    Raises:
        Exception: as for :func:`plan`.
    """
    if not request.command:
        msg = "there is no program to plan"
        raise PlanError(msg)
    plan_id, directory = new_id(), str(Path.cwd())
    folder = CloneFolder(plans_folder(settings) / plan_id)
    environment = _environment(request, folder)
    if not request.any_program:
        check_program(request.command, environment)
    folder.path.mkdir(parents=True)
    try:
        files = hashes_of_files(request.command, directory)
        exit_code = runner(list(request.command), environment)
        tables, notes = _planned(request, folder, settings)
        refused = tuple(folder.refused())
    finally:
        if not request.keep:
            folder.remove_tables()
    result = ProgramPlan(
        plan_id=plan_id,
        command=request.command,
        directory=directory,
        job=request.job,
        message=request.message,
        created=datetime.now(UTC),
        exit_code=exit_code,
        tables=tables,
        refused=refused,
        notes=notes,
        clones=str(folder.path) if request.keep else None,
    )
    write_plan(folder.path, result, files)
    return result


_OF_ANOTHER_RUN = (Env.EVENTS_FILE, Env.SUPERVISOR, Env.REPLACED_PID, Env.IMPLICIT_RUN)
"""Variables of a `deltawitness run` in which this command may run, and whose summary it must not change."""


def _environment(request: PlanRequest, folder: CloneFolder) -> dict[str, str]:
    path = os.environ.get("PYTHONPATH")
    given = {Env.JOB: request.job, Env.MESSAGE: request.message}
    others = {name.value for name in _OF_ANOTHER_RUN}
    return {
        **{name: text for name, text in os.environ.items() if name not in others},
        **{name.value: text for name, text in given.items() if text is not None},
        "PYTHONPATH": os.pathsep.join([SITE_DIRECTORY, *([path] if path else [])]),
        Env.ACTIVATE.value: ACTIVATE_TOP,
        Env.RUN_ID.value: new_id(),
        Env.PLAN_FOLDER.value: str(folder.path),
        Env.LEDGER.value: "false",
        OtelEnv.SDK_DISABLED.value: "true",  # what the program would do is not to be exported
    }


_NOT_LOADED = (
    "no Python process of the program loaded deltawitness: nothing was planned, all writes are real"
)


def _planned(
    request: PlanRequest, folder: CloneFolder, settings: Settings
) -> tuple[tuple[PlannedTable, ...], tuple[str, ...]]:
    """Return the tables of a program that has ended, and notes."""
    if not folder.is_loaded:
        return (), (_NOT_LOADED,)
    mark_delta_rs_used()
    options, notes = request.options, []
    if options.rows and not is_installed("datafusion"):
        options = DiffOptions(rows=False)
        notes.append("rows were not compared: DataFusion is not installed")
    ledger = LedgerListing(LedgerRoot(str(folder.root)))
    clones = [clone for clone in folder.clones() if not _is_temporary(clone)]
    tables = tuple(planned_table(clone, options, ledger, settings) for clone in clones)
    notes += _notes(clones, tables)
    return tables, tuple(notes)


def _is_temporary(clone: Clone) -> bool:
    """Return whether a table was in a folder that the program has deleted since, such as a temporary one."""
    return clone.version is not None and not Path(clone.path).exists()


def _notes(clones: Sequence[Clone], tables: Sequence[PlannedTable]) -> Iterator[str]:
    for clone, table in zip(clones, tables, strict=True):
        if has_changed(clone):
            yield (
                f"{table.name} has other commits than when it was cloned: other writers, or a process of"
                " the program that did not load deltawitness"
            )
        if table.problem is not None:
            yield f"{table.name}: {table.problem}"
        if table.state is PlannedState.CHANGE and any(
            each.operation and each.operation.startswith("VACUUM") for each in table.operations
        ):
            yield f"{table.name}: the planned vacuum deletes files, which no restore brings back"
