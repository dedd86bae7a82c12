"""The command line in a pipe or in a pseudo-terminal, in new processes that start quickly.

They are for tests of what a command does. A test of how the command starts, or of how it is interrupted or
killed, starts an interpreter.
"""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import sys
import tempfile
import termios
from contextlib import suppress
from multiprocessing.connection import Connection
from types import SimpleNamespace

from deltawitness.cli.app import main
from helpers.new_processes import start_process


def environment(**variables):
    """Return the variables of this process without those that shape the output of a terminal."""
    known = {**os.environ, "TERM": "xterm-256color"}
    for name in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "DELTAWITNESS_CACHE_ROOT"):
        known.pop(name, None)
    return known | variables


def execute_command(folder, arguments, variables, streams, _):
    """Run a command in this new process, with the given variables and standard streams."""
    for number, stream in enumerate(streams):
        os.dup2(stream.fileno(), number)
        stream.close()
    sys.stdin, sys.stdout, sys.stderr = (
        open(number, mode, buffering, encoding="utf-8", closefd=False)  # noqa: SIM115 - open to the end of the process
        for number, (mode, buffering) in enumerate((("r", -1), ("w", -1), ("w", 1)))
    )
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(variables)
    sys.argv = ["deltawitness", *arguments]
    main()


def _output_of(*call):
    """Run a command and return what it wrote to the other end of `reading` as text, and its exit code."""
    output, code = _bytes_of(*call)
    return output.decode(), code


def _bytes_of(folder, arguments, environment, reading, streams):
    """Run a command and return what it wrote to the other end of `reading`, and its exit code."""
    process, _ = start_process(
        execute_command,
        folder,
        arguments,
        environment,
        [Connection(os.dup(stream)) for stream in streams],
    )
    for stream in set(streams):
        os.close(stream)
    output = b""
    with suppress(OSError):  # how Linux reports the end of a pseudo-terminal
        while chunk := os.read(reading, 1 << 16):
            output += chunk
    os.close(reading)
    process.join(60)
    return output, process.exitcode


def in_pipe(folder, *arguments, **variables):
    """Run a command with its output in a pipe; return its output, error output and exit code."""
    reading, writing = os.pipe()
    with tempfile.TemporaryFile() as errors:
        streams = os.open(os.devnull, os.O_RDONLY), writing, os.dup(errors.fileno())
        stdout, code = _output_of(folder, arguments, environment(**variables), reading, streams)
        errors.seek(0)
        return SimpleNamespace(stdout=stdout, stderr=errors.read().decode(), returncode=code)


def run_command(*arguments, folder=None, environment=None, text=True, input=b""):  # noqa: A002 - as in subprocess
    """Run `deltawitness` as `subprocess.run` would; return its output, error output and exit code.

    Args:
        arguments: the words after `deltawitness`.
        folder: the working directory, if it is not that of this process.
        environment: all variables of the command, if they are not those of this process.
        text: whether the output is decoded.
        input: bytes for the standard input.
    """
    reading, writing = os.pipe()
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as errors:
        given.write(input)
        given.seek(0)
        streams = os.dup(given.fileno()), writing, os.dup(errors.fileno())
        output, code = _bytes_of(
            folder or os.getcwd(),
            list(map(str, arguments)),
            dict(os.environ if environment is None else environment),
            reading,
            streams,
        )
        errors.seek(0)
        said = errors.read()
    if text:
        output, said = output.decode(), said.decode()
    return SimpleNamespace(stdout=output, stderr=said, returncode=code)


def in_one_pipe(folder, arguments, environment):
    """Run a command with its output and its error output in one pipe; return both as one text, and its exit code.

    Args:
        folder: the working directory.
        arguments: the words after `deltawitness`.
        environment: all variables of the command.
    """
    reading, writing = os.pipe()
    streams = os.open(os.devnull, os.O_RDONLY), writing, os.dup(writing)
    return _output_of(folder, arguments, environment, reading, streams)


def in_terminal(folder, width, *arguments, **variables):
    """Run a command in a pseudo-terminal; return its output and its exit code.

    Its error output, which may be a progress bar, is left out.
    """
    reading, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, width, 0, 0))
    streams = terminal, terminal, os.open(os.devnull, os.O_WRONLY)
    output, code = _output_of(folder, arguments, environment(**variables), reading, streams)
    return output.replace("\r\n", "\n"), code
