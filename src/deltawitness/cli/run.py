"""`deltawitness run`: run a program observed, and print a summary of its writes."""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from deltawitness.activation import LOADED, NOT_EXPORTED, asks_for_export
from deltawitness.cli.console import (
    MISUSED,
    console,
    log_to_stderr,
    print_error,
)
from deltawitness.cli.export_note import export_notes
from deltawitness.cli.program import exit_as, job_name, run_program
from deltawitness.cli.progress import is_progress_wanted, showing_progress
from deltawitness.cli.run_ledger import RunLedger, run_ledger
from deltawitness.cli.run_span import RunSpanExport, offer_run_span_export
from deltawitness.events_file import read_events
from deltawitness.ids_and_clock import new_id
from deltawitness.ledger.spool.supervisor import ProcessEnd, Supervision
from deltawitness.locations import strip_credentials
from deltawitness.processes import SITE_DIRECTORY
from deltawitness.redaction import redact_message
from deltawitness.report.failures import failed_rows
from deltawitness.report.summary import print_summary, print_trace, summarize
from deltawitness.run_origin import process_origin
from deltawitness.semconv import ACTIVATE_TOP, RESOURCE_SERVICE_NAME, Env, OtelEnv

__all__ = ["run_command"]

_TRACED_NOT_EXPORTED = {
    OtelEnv.TRACES_EXPORTER.value: "none",
    OtelEnv.METRICS_EXPORTER.value: "none",
    OtelEnv.LOGS_EXPORTER.value: "none",
}
"""Environment in which the SDK creates traces and exports nothing, for `--show-trace`."""


def run_command(
    command: Annotated[list[str], typer.Argument(help="The program and its arguments.")],
    job: Annotated[
        str | None,
        typer.Option(help="Job name; by default that of the scheduler or CI, else of the script."),
    ] = None,
    quiet: Annotated[bool, typer.Option(help="Print no summary.", show_default=False)] = False,
    show_trace: Annotated[
        bool, typer.Option(help="Print the trace as a tree.", show_default=False)
    ] = False,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the summary to this file as JSON.")
    ] = None,
    no_ledger: Annotated[bool, typer.Option("--no-ledger", help="Write no ledger.")] = False,
    message: Annotated[
        str | None, typer.Option(help="Why the program writes; recorded with its writes.")
    ] = None,
    progress: Annotated[
        bool | None,
        typer.Option(
            "--progress/--no-progress",
            help="Show writes that last longer than 2 s in a line on a terminal.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Run a program and observe its Delta writes. Input, output and exit code are the program's.

    The ledger of its writes is in DELTAWITNESS_ROOT, else in `.deltawitness`.
    """
    if command[0].startswith("-"):
        print_error(f"run: unknown option {command[0]}")
        raise typer.Exit(MISUSED)
    has_progress = is_progress_wanted(progress)
    if json_file is not None:
        _check_writable(json_file)
    run_id = new_id()
    given = job or process_origin().job
    job = given or job_name(command)
    ledger = run_ledger(is_wanted=not no_ledger)
    with tempfile.TemporaryDirectory(prefix="deltawitness-") as folder:
        events_file = Path(folder) / "events.jsonl"
        events_file.touch()
        supervision = Supervision(Path(folder) / "supervisor.lock")
        environment = {
            **_environment(run_id, job, events_file),
            **ledger.environment,
            **supervision.environment,
            **_given_variables(run_id, job, message, has_job=bool(given)),
            **(_TRACED_NOT_EXPORTED if show_trace and not asks_for_export(os.environ) else {}),
        }
        offer_run_span_export(supervision.lock, os.environ)
        with showing_progress(ledger, supervision.lock, is_wanted=has_progress):
            ended = run_program(command, environment)
        code = ended.code
        run_span = RunSpanExport(supervision.lock, code)
        events = list(read_events(events_file))
        was_loaded = Path(f"{events_file}{LOADED}").exists()
        reason = _read_reason(Path(f"{events_file}{NOT_EXPORTED}"))
        log_to_stderr()
        end = ProcessEnd(supervision.lock, ended.pid or 0, run_id, code)
        has_written = ledger.drain(end, job, has_written=bool(events)) > 0 or bool(events)
        run_span.wait()
        supervision.close()
    summary, failed = summarize(run_id, redact_message(job), events), failed_rows(events)
    exports = export_notes(
        summary.traces, os.environ, run_span, reason, has_events=bool(events), is_shown=show_trace
    )
    document = summary.as_json() | {"failed": failed}
    try:
        if json_file is not None:
            json_file.write_text(json.dumps(document, indent=2, default=str) + "\n")
        if ended.pid is not None and not quiet:
            terminal = console(sys.stderr)
            notes = [*exports, *_ending_notes(code)] if was_loaded else [_NOT_LOADED]
            notes += _ledger_notes(ledger, run_id) if has_written else []
            print_summary(terminal, summary, notes, failed)
            if show_trace:
                print_trace(terminal, summary, events)
    except (OSError, ValueError) as error:
        # A closed stream or a full disk: the program's exit code stays unchanged.
        with suppress(OSError, ValueError, AttributeError):
            print_error(f"the summary could not be written: {error}")
    exit_as(code)


def _read_reason(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return None


def _check_writable(path: Path) -> None:
    try:
        path.touch()
    except OSError as error:
        print_error(f"--json: {error}")
        raise typer.Exit(MISUSED) from None


def _environment(run_id: str, job: str, events_file: Path) -> dict[str, str]:
    path = os.environ.get("PYTHONPATH")
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([SITE_DIRECTORY, *([path] if path else [])]),
        Env.ACTIVATE.value: ACTIVATE_TOP,
        Env.RUN_ID.value: run_id,
        Env.JOB.value: job,
        Env.EVENTS_FILE.value: str(events_file),
        **_service_name(job),
    }


def _given_variables(
    run_id: str, job: str, message: str | None, *, has_job: bool
) -> dict[str, str]:
    """Return the variables for the message, and for a job that is only the name of the program."""
    variables = {
        Env.MESSAGE: message or os.environ.get(Env.MESSAGE),
        Env.IMPLICIT_RUN: "" if has_job else f"{run_id} job {job}",
    }
    return {name.value: value for name, value in variables.items() if value is not None}


_NOT_LOADED = (
    "nothing was observed: no Python process of the program loaded deltawitness. Run it with the Python"
    f" that deltawitness is installed in ({sys.executable}), without the options -I, -E and -S"
)


def _service_name(job: str) -> dict[str, str]:
    """Return the variable that sets `service.name` to the job; none if the environment sets it."""
    attributes = os.environ.get(OtelEnv.RESOURCE_ATTRIBUTES, "")
    names = [pair.partition("=")[0].strip() for pair in attributes.split(",")]
    if os.environ.get(OtelEnv.SERVICE_NAME) or RESOURCE_SERVICE_NAME in names:
        return {}
    return {OtelEnv.SERVICE_NAME.value: redact_message(job)}


def _ending_notes(code: int) -> list[str]:
    if code >= 0:
        return []
    name = signal.Signals(-code).name
    return [f"the program was ended by {name}: its last writes may be missing above"]


def _ledger_notes(ledger: RunLedger, run_id: str) -> list[str]:
    if ledger.root is None:
        return []
    if ledger.shown is None:
        folder = strip_credentials(ledger.root)
        return [f"no ledger: {folder} cannot be created; set {Env.ROOT} to another location"]
    return [f"ledger {ledger.shown}: deltawitness show {run_id}"]
