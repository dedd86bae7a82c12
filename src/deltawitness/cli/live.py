"""`deltawitness live`: follow the writes of all processes of a ledger."""

from __future__ import annotations

import datetime as dt
import io
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console, ConsoleOptions
from rich.text import Text

from deltawitness.answers.live.values import LiveReport, LiveWrite, RunningWrite
from deltawitness.cli.console import console, print_error, print_json
from deltawitness.cli.durations import parse_duration
from deltawitness.cli.ledger_option import RootOption, exit_on_ledger_error, settings_of
from deltawitness.report.live import live_line, print_live

if TYPE_CHECKING:
    from deltawitness.answers.live.follow import LiveFollower

__all__ = ["live_command"]

INTERVAL = 0.5
"""Seconds between two readings of the spools."""

_LINES_BESIDES = 8
"""Lines of the screen that are not for rows of the latest writes."""


def live_command(
    root: Annotated[str | None, RootOption] = None,
    limit: Annotated[int, typer.Option(min=0, help="Maximum number of latest writes.")] = 20,
    duration: Annotated[
        dt.timedelta | None,
        typer.Option(
            "--for",
            parser=parse_duration,
            metavar="DURATION",
            help="Stop after this time, such as 30s or 10m.",
        ),
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Print the state once, and exit.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object per new write and line.")
    ] = False,
) -> None:
    """Follow the running and finished writes of all processes of a ledger, until Ctrl-C.

    On a terminal it is a table that refreshes; in a pipe one line for each new write. It changes nothing:
    spools of dead processes are shown, not drained. Exits 0 after Ctrl-C and `--for`.

    Examples:
    deltawitness live

    deltawitness live --for 10m --json | jq .table
    """
    from deltawitness.answers.live.follow import LiveFollower  # noqa: PLC0415 - heavy

    end = None if duration is None else time.monotonic() + duration.total_seconds()
    with _exit_0_on_interrupt():
        with exit_on_ledger_error(root, "read"):
            follower = LiveFollower(settings_of(root), limit)
            report = follower.start()
        if once:
            _print_once(report, as_json=as_json)
        elif as_json or not _is_screen():
            _print_lines(follower, end, _json_line if as_json else live_line)
        else:
            _refresh(follower, report, end)


@contextmanager
def _exit_0_on_interrupt() -> Iterator[None]:
    """End the command with 0 at Ctrl-C, and when the reader of its output has gone."""
    try:
        yield
    except KeyboardInterrupt:
        raise typer.Exit from None
    except BrokenPipeError:
        # The interpreter would report the error again when it flushes the stream at exit.
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit from None


def _is_screen() -> bool:
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def _print_once(report: LiveReport, *, as_json: bool) -> None:
    if as_json:
        print_json({"kind": "live", **asdict(report)})
    else:
        print_live(console(sys.stdout), report)


# --- lines -------------------------------------------------------------------------------------------


def _print_lines(
    follower: LiveFollower,
    end: float | None,
    line_of: Callable[[LiveWrite | RunningWrite], str],
) -> None:
    """Print a line for each new write until the time is over."""
    printed: tuple[str, ...] = ()
    while True:
        for write in follower.poll():
            print(line_of(write))
        sys.stdout.flush()
        problems = follower.report().problems
        for problem in problems:
            if problem not in printed:  # an error that lasts is one line
                print_error(problem)
        printed = problems
        if not _wait(end):
            return


def _json_line(write: LiveWrite | RunningWrite) -> str:
    kind = "lost" if isinstance(write, RunningWrite) else "write"
    return json.dumps({"kind": kind, **asdict(write)}, default=_as_text)


def _as_text(value: Any) -> str:
    return value.isoformat() if isinstance(value, dt.datetime) else str(value)


def _wait(end: float | None) -> bool:
    """Wait for the next reading; return False if the time is over."""
    left = INTERVAL if end is None else min(INTERVAL, end - time.monotonic())
    if left <= 0:
        return False
    time.sleep(left)
    return True


# --- a terminal ----------------------------------------------------------------------------------------


def _refresh(follower: LiveFollower, report: LiveReport, end: float | None) -> None:
    """Show the report in place until the time is over; the last one stays on the screen."""
    from rich.live import Live  # noqa: PLC0415 - only for a terminal

    terminal = console(sys.stdout)
    with Live(console=terminal, auto_refresh=False, vertical_overflow="crop") as screen:
        while True:
            screen.update(_Screen(report), refresh=True)
            if not _wait(end):
                return
            follower.poll()
            report = follower.report()


class _Screen:
    """A report that rich draws with the current size of the terminal.

    Args:
        report: the report.
    """

    def __init__(self, report: LiveReport) -> None:
        self._report = report

    def __rich_console__(self, terminal: Console, options: ConsoleOptions) -> Iterator[Text]:
        report, height = self._report, options.size.height
        room = height - _LINES_BESIDES - len(report.processes) - len(report.running)
        report = replace(report, writes=report.writes[: max(1, room)])
        text = io.StringIO()
        plain = Console(
            file=text,
            width=options.size.width,
            force_terminal=True,
            color_system=None,
            markup=False,
            emoji=False,
        )
        print_live(plain, report)
        lines = Text.from_ansi(text.getvalue()).split("\n")[: max(1, height - 1)]
        yield Text("\n").join(lines)
