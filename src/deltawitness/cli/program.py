"""Run a program as a child process with the command's streams and signals, and exit as it did."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from itertools import dropwhile
from pathlib import Path
from types import FrameType
from typing import TextIO

import typer

from deltawitness.cli.console import print_error
from deltawitness.processes import is_python_name

__all__ = ["ProgramEnd", "exit_as", "job_name", "run_program"]

NOT_FOUND = 127
"""Exit code of a shell for a command that does not exist."""

NOT_EXECUTABLE = 126
"""Exit code of a shell for a file that cannot be run."""

_FORWARDED = ("SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2")
"""Names of the signals that are passed on, where the platform has them."""


_SHELL = re.compile(r"(ba|da|k|z)?sh(\.exe)?")

_LAUNCHERS = frozenset({"env", "nice", "nohup", "opentelemetry-instrument", "setsid", "time"})
"""Commands whose arguments are another command."""

_LONG_OPTIONS_WITH_VALUE = frozenset({"--check-hash-based-pycs", "--init-file", "--rcfile"})
"""Long options of Python and of shells whose value is the next argument."""


def job_name(command: list[str]) -> str:
    """Return the default job name of a command line.

    For Python and a shell it is the name of the module or script, or that of the interpreter if the program
    is text (`-c`) or standard input. For every other command it is the command's name. It is never taken
    from an argument of the program or from a variable that `env` sets: these may be secrets.

    >>> job_name(["python3", "-m", "pk.job"]), job_name(["python", "jobs/load.py", "x"])
    ('pk.job', 'load')
    >>> job_name(["python3.11", "-c", "import x"]), job_name(["/usr/bin/env", "./load.sh"])
    ('python', 'load')
    >>> (
    ...     job_name(["env", "TOKEN=x", "python", "-m", "pk.job"]),
    ...     job_name(["load", "https://user:password@host"]),
    ... )
    ('pk.job', 'load')
    """
    command = _without_launchers(command)
    program = Path(command[0])
    if is_python_name(program.name):
        return _name_in(command[1:], text="c", module="m", value="WX") or "python"
    name = program.stem or "program"
    if _SHELL.fullmatch(program.name):
        return _name_in(command[1:], text="cs", module="", value="oO") or name
    return name


def _name_in(arguments: list[str], *, text: str, module: str, value: str) -> str:
    """Return the name of the module or script that an interpreter runs; empty if there is none.

    Args:
        arguments: the interpreter's arguments.
        text: last letters of options after which the program is text or standard input.
        module: last letters of options whose value is a module.
        value: last letters of options whose value is the next argument.
    """
    words = iter(arguments)
    for word in words:
        is_option = word[:1] == "-" and word[1:2] != "-"
        if word == "-" or (is_option and word[-1] in text):
            return ""
        if is_option and word[-1] in module:
            return next(words, "")
        if word in _LONG_OPTIONS_WITH_VALUE or (is_option and word[-1] in value):
            next(words, None)
        elif not word.startswith("-"):
            return Path(word).stem
    return ""


def _without_launchers(command: list[str]) -> list[str]:
    """Return a command without the launchers before it.

    A launcher with options is returned alone, because the end of its options is unknown.
    """
    while Path(command[0]).name in _LAUNCHERS:
        words = list(dropwhile(_is_assignment, command[1:]))
        if not words or words[0].startswith("-"):
            return command[:1]
        command = words
    return command


def _is_assignment(word: str) -> bool:
    return "=" in word


@dataclass(frozen=True, slots=True)
class ProgramEnd:
    """How a program ended.

    Attributes:
        code: its exit code; -N when signal N ended it.
        pid: its process id; None when it could not be started.
    """

    code: int
    pid: int | None = None


def run_program(
    command: list[str], environment: dict[str, str], *, output: TextIO | None = None
) -> ProgramEnd:
    """Run the program with the streams of this process, forward signals to it, and return how it ended.

    Args:
        command: the program and its arguments.
        environment: its environment.
        output: its standard output; that of this process when None.
    """
    early: list[int] = []
    previous = signal.getsignal(signal.SIGINT)
    if previous is signal.default_int_handler:
        # It would raise KeyboardInterrupt after the start, and leave the program behind. A handler of Python
        # is not inherited, so that the program starts with the same one as without this command.
        signal.signal(signal.SIGINT, lambda number, _: early.append(number))
    try:
        child = subprocess.Popen(command, env=environment, stdout=output)  # noqa: S603 - the command's purpose is to run it
    except BaseException as error:
        signal.signal(signal.SIGINT, previous)
        ended = _not_started(command, error)
        if ended is None:
            raise
        return ended

    def forward(number: int, _: FrameType | None) -> None:
        child.send_signal(number)

    for name in _FORWARDED:
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), forward)
    # A terminal sends an interrupt to every process of its foreground group, so the program gets it too.
    is_in_foreground = _is_in_foreground()
    signal.signal(signal.SIGINT, signal.SIG_IGN if is_in_foreground else forward)
    for number in () if is_in_foreground else early:
        child.send_signal(number)
    return ProgramEnd(child.wait(), child.pid)


def _not_started(command: list[str], error: BaseException) -> ProgramEnd | None:
    """Print why a program does not exist or cannot be executed; return None for any other error."""
    if isinstance(error, FileNotFoundError):
        print_error(f"{command[0]}: command not found")
        return ProgramEnd(NOT_FOUND)
    if isinstance(error, PermissionError):
        found = shutil.which(command[0]) or command[0]
        print_error(f"{found}: cannot be executed")
        return ProgramEnd(NOT_EXECUTABLE)
    return None


def _is_in_foreground() -> bool:
    """Return whether this process gets the terminal's interrupts, even if its streams are redirected."""
    if sys.platform == "win32":
        return True  # a console sends them to every process that uses it
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


def exit_as(code: int) -> None:
    """Exit with the program's exit code, or kill this process with the signal that ended the program."""
    if sys.platform != "win32" and code < 0:
        signal.signal(-code, signal.SIG_DFL) if -code != signal.SIGKILL else None
        sys.stderr.flush()
        os.kill(os.getpid(), -code)
    raise typer.Exit(code)
