"""Commands on a ledger, and programs to run under the command."""

from __future__ import annotations

import json
import os
import sys
import textwrap

from typer.testing import CliRunner

from deltawitness.cli.app import app
from helpers.terminal_commands import run_command

COMMAND = [sys.executable, "-m", "deltawitness"]


def run(folder, text, *arguments, options=(), **variables):
    """Run a program under the command, in a folder."""
    program = [sys.executable, "-c", textwrap.dedent(text), *map(str, arguments)]
    return run_command(
        *("run", *options, "--", *program),
        folder=folder,
        environment={**os.environ, **variables},
    )


def invoke(*arguments):
    """Run another command in this process."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def json_of(*arguments, code=0):
    """Return a command's JSON output."""
    done = invoke(*arguments, "--json")
    assert done.exit_code == code, done.output
    return json.loads(done.stdout)


def error_of(*arguments, code=1):
    """Return the one line on stderr of a command that fails."""
    done = invoke(*arguments)
    assert done.exit_code == code, done.output
    assert done.stdout == ""
    assert done.stderr.startswith("deltawitness: ")
    assert done.stderr.count("\n") == 1
    return done.stderr.removeprefix("deltawitness: ").strip()


LOAD = """
    import sys, pyarrow as pa
    from deltalake import DeltaTable, write_deltalake
    for x in range(3):
        write_deltalake("lake/flights", pa.table({"x": [x, x]}), mode="append")
    DeltaTable("lake/flights").delete("x = 0")
    try:
        write_deltalake("lake/flights", pa.table({"x": [0]}))
    except Exception:
        pass
"""

NESTED = """
    import pyarrow as pa
    from deltalake import write_deltalake
    from deltawitness import run
    def write(table):
        write_deltalake(table, pa.table({"x": [1]}), mode="append")
    write("lake/top")
    with run("middle", attributes={"shard": "3"}, run_id="middle-1"):
        write("lake/middle")
        with run("inner", run_id="inner-1"):
            write("lake/inner")
            write("lake/inner")
"""

KILLED = """
    import os, signal, pyarrow as pa
    from deltalake import write_deltalake
    for x in range(4):
        write_deltalake("lake/killed", pa.table({"x": [x]}), mode="append")
    os.kill(os.getpid(), signal.SIGKILL)
"""
