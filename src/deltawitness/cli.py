"""The command line: runs a program observed, shows commits."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, TextIO

from deltawitness.activation import SITE_DIRECTORY, TOP, asks_for_export
from deltawitness.commit import CommitMetadata, read_commit_metadata
from deltawitness.events_file import EventLine, read_events
from deltawitness.exceptions import DeltaWitnessError
from deltawitness.semconv import WITNESS_VERSION, Env
from deltawitness.sources import new_id

try:
    import typer
    from rich.console import Console

    from deltawitness.report import print_commit, print_summary, print_trace, summarised
except ImportError as missing:
    sys.stderr.write(
        f"deltawitness: {missing.name} is not installed: pip install 'deltawitness[cli]'\n"
    )
    raise SystemExit(2) from None

__all__ = ["main"]

NOT_FOUND = 127
"""Exit code of a shell for a command that is not there."""

NOT_EXECUTABLE = 126
"""Exit code of a shell for a file that cannot be run."""

_TRACED_NOT_EXPORTED = {
    "OTEL_TRACES_EXPORTER": "none",
    "OTEL_METRICS_EXPORTER": "none",
    "OTEL_LOGS_EXPORTER": "none",
}
"""Makes the SDK give every write a place in a trace, and send it nowhere."""

_FORWARDED = ("SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2")

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


def main() -> None:
    """Run the command line."""
    app()


def _print_version(wanted: bool) -> None:
    if wanted:
        print(WITNESS_VERSION)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="The version.")
    ] = False,
) -> None:
    """Witness every Delta Lake write that a program makes."""


@app.command(
    "run", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False}
)
def run_command(
    command: Annotated[list[str], typer.Argument(help="The program and its arguments.")],
    job: Annotated[
        str | None, typer.Option(help="Name of the job; the program's by default.")
    ] = None,
    quiet: Annotated[bool, typer.Option(help="No summary at the end.")] = False,
    show_trace: Annotated[bool, typer.Option(help="Print the run's trace as a tree.")] = False,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the summary to this file as JSON.")
    ] = None,
) -> None:
    """Run a program with every Delta write observed; its input, output and exit code are its own."""
    if json_file is not None:
        _must_be_writable(json_file)
    run_id = new_id()
    job = job or _job_name(command)
    with tempfile.TemporaryDirectory(prefix="deltawitness-") as folder:
        events_file = Path(folder) / "events.jsonl"
        events_file.touch()
        environment = _environment(run_id, job, events_file)
        if show_trace and not asks_for_export(os.environ):
            environment |= _TRACED_NOT_EXPORTED
        code = _run(command, environment)
        events = list(read_events(events_file))
    summary = summarised(run_id, job, events)
    try:
        if json_file is not None:
            json_file.write_text(json.dumps(summary.as_json(), indent=2) + "\n")
        if not quiet:
            console = _console(sys.stderr)
            print_summary(console, summary, _notes(events, code))
            if show_trace:
                print_trace(console, summary, events)
    except (OSError, ValueError) as error:
        # A closed stream or a full disk: the program's exit code is not ours to change.
        with suppress(OSError, ValueError, AttributeError):
            _complain(f"the summary could not be written: {error}")
    _leave_as(code)


def _must_be_writable(path: Path) -> None:
    try:
        path.touch()
    except OSError as error:
        _complain(f"--json: {error}")
        raise typer.Exit(2) from None


def _console(stream: TextIO | None) -> Console:
    """Return a console that prints text as it is: what is in brackets is no markup."""
    is_terminal = stream is not None and stream.isatty()
    return Console(file=stream, width=None if is_terminal else 140, markup=False, emoji=False)


def _job_name(command: list[str]) -> str:
    program = next((word for word in command[1:] if not word.startswith("-")), command[0])
    return Path(program).stem or "program"


def _environment(run_id: str, job: str, events_file: Path) -> dict[str, str]:
    path = os.environ.get("PYTHONPATH")
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([SITE_DIRECTORY, *([path] if path else [])]),
        Env.ACTIVATE.value: TOP,
        Env.RUN_ID.value: run_id,
        Env.JOB.value: job,
        Env.EVENTS_FILE.value: str(events_file),
    }


def _run(command: list[str], environment: dict[str, str]) -> int:
    """Run the program with our streams and signals as its own, and return how it ended."""
    try:
        child = subprocess.Popen(command, env=environment)  # noqa: S603 - running it is what was asked for
    except FileNotFoundError:
        _complain(f"{command[0]}: command not found")
        return NOT_FOUND
    except PermissionError:
        found = shutil.which(command[0]) or command[0]
        _complain(f"{found}: cannot be executed")
        return NOT_EXECUTABLE

    def forward(number: int, _: FrameType | None) -> None:
        child.send_signal(number)

    for name in _FORWARDED:
        signal.signal(getattr(signal, name), forward)
    # A terminal sends an interrupt to its whole foreground group: the program has it already.
    signal.signal(signal.SIGINT, signal.SIG_IGN if _is_in_foreground() else forward)
    return child.wait()


def _is_in_foreground() -> bool:
    """Tell whether the terminal's own interrupts reach us, wherever our streams are redirected."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)


def _complain(message: str) -> None:
    sys.stderr.write(f"deltawitness: {message}\n")


def _notes(events: list[EventLine], code: int) -> list[str]:
    traces = {event.trace_id for event in events if event.trace_id}
    notes = [f"trace {trace}: {_destination()}" for trace in sorted(traces)]
    if not traces:
        notes = [f"trace: {_destination()}"]
    if code < 0:
        notes.append(f"the program was ended by {signal.Signals(-code).name}")
    return notes


def _destination() -> str:
    if not asks_for_export(os.environ):
        return "not exported: no OpenTelemetry exporter is configured"
    exporter = os.environ.get("OTEL_TRACES_EXPORTER", "otlp")
    if "otlp" not in exporter:
        return f"exported by {exporter}"
    endpoint = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or os.environ.get(
        "OTEL_EXPORTER_OTLP_ENDPOINT", "the default endpoint"
    )
    return f"exported by {exporter} to {endpoint}"


def _leave_as(code: int) -> None:
    """End as the program ended: with its exit code, or by the signal that ended it."""
    if code < 0:
        signal.signal(-code, signal.SIG_DFL) if -code != signal.SIGKILL else None
        sys.stderr.flush()
        os.kill(os.getpid(), -code)
    raise typer.Exit(code)


@app.command("commit")
def commit_command(
    table: Annotated[str, typer.Argument(help="Where the table lies.")],
    version: Annotated[
        int | None, typer.Argument(help="Which commit; the last by default.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Show one commit of a table with its metadata."""
    try:
        commit = read_commit_metadata(table, version)
    except DeltaWitnessError as error:
        _complain(str(error))
        raise typer.Exit(1) from None
    if as_json:
        print(json.dumps(_commit_json(commit), indent=2))
    else:
        print_commit(_console(sys.stdout), commit)


def _commit_json(commit: CommitMetadata) -> dict[str, Any]:
    return {
        "version": commit.version,
        "operation": commit.operation,
        "timestamp": commit.timestamp,
        "engine": commit.engine_info,
        "operation_parameters": commit.operation_parameters,
        "operation_metrics": commit.operation_metrics,
        "metadata": commit.metadata,
        "problems": list(commit.problems),
    }
