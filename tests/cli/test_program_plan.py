"""`deltawitness plan` prints what a program would do; `deltawitness apply` runs it."""

from __future__ import annotations

import json
import os
import re
import sys
from contextlib import nullcontext
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from deltawitness.answers.program_plan.program import check_program
from deltawitness.exceptions import PlanError
from deltawitness.processes import SITE_DIRECTORY
from deltawitness.semconv import ACTIVATE_TOP, Env
from helpers.ledger_commands import error_of
from helpers.terminal_commands import run_command

JOB = """
import pyarrow as pa
from deltalake import write_deltalake
write_deltalake("lake/t", pa.table({"x": [2], "y": [1]}), mode="append", schema_mode="merge")
print("output")
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working directory, with a table and a program."""
    monkeypatch.chdir(tmp_path)
    write_deltalake("lake/t", pa.table({"x": [1]}))
    Path("job.py").write_text(JOB)


def command(*words):
    done = run_command(*words)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_plan_is_printed_and_applied(folder):
    """The output of the program is on stdout, with `--json` on stderr; the exit code is the program's."""
    code, out, _ = command("plan", "--", sys.executable, "job.py")
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == "output"
    plan_id = lines[1].removeprefix("plan ")
    assert [line.split()[:4] for line in lines[2:4]] == [
        ["table", "state", "version", "after"],
        ["t", "change", "0", "1"],
    ]
    assert lines[4:] == [
        "t: + column y long",
        "1 table: 1 to change; nothing was changed",
        f"run it: deltawitness apply {plan_id}",
    ]
    assert DeltaTable("lake/t").version() == 0
    assert Path(".deltawitness/.gitignore").exists()

    code, out, err = command("apply", plan_id[:18], "--json")
    assert (code, DeltaTable("lake/t").version()) == (0, 1)
    applied = json.loads(out)
    assert (applied["is_started"], applied["tables"][0]["applied_version"]) == (True, 1)
    assert "output" in err
    code, out, _ = command("apply", plan_id)
    assert code == 3
    assert out.splitlines()[-1] == "the program was not started: plan it again"

    code, out, err = command("plan", "--json", "--", sys.executable, "-c", "raise SystemExit(5)")
    assert code == 5
    assert (json.loads(out)["is_applicable"], json.loads(out)["tables"]) == (False, [])


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows reads no first line")
@pytest.mark.parametrize(
    ("first_line", "error"),
    [
        (f"#!{sys.executable} -u", None),
        ("#!/usr/bin/env -S python3 -u", None),
        ("#!/usr/bin/env python3", None),
        ("#!/bin/sh", "is not a Python program"),
        ("#!/usr/bin/env no-such-python", "is not a Python program"),
        ("#!/usr/bin/env", "is not a Python program"),
        (f"#!{sys.executable} 'left open", "is not a Python program"),
        ("#!/no/such/python3", "/no/such/python3 cannot be started: No such file or directory"),
    ],
)
def test_the_interpreter_of_a_script_is_in_its_first_line(tmp_path, monkeypatch, first_line, error):
    """A script whose interpreter does not load the package is refused in one line."""
    script = tmp_path / "script"
    script.write_text(f"{first_line}\n")
    script.chmod(0o700)
    # The program that starts the script may have another PATH.
    environment = {
        **os.environ,
        Env.ACTIVATE.value: ACTIVATE_TOP,
        "PYTHONPATH": SITE_DIRECTORY,
        "PATH": str(Path(sys.executable).parent),
    }
    monkeypatch.setenv("PATH", "")
    with nullcontext() if error is None else pytest.raises(PlanError, match=re.escape(error)):
        check_program([str(script)], environment)


@pytest.mark.slow
def test_a_program_that_would_write_tables_is_refused(folder):
    """Programs that are not Python, or whose Python does not load the package, are not started."""
    assert error_of("plan", "--", "sh", "-c", "exit 9").startswith("sh is not a Python program")
    isolated = error_of("plan", "--", sys.executable, "-I", "job.py")
    assert isolated.startswith("a program that Python runs with -I, -E or -S cannot be planned")
    assert error_of("plan", "--", "no-such-program") == "no-such-program: command not found"
    assert error_of("plan", "--unknown", "x", code=2) == "plan: unknown option --unknown"
    assert error_of("apply", "0").startswith("no plan begins with 0 in ")
    assert DeltaTable("lake/t").version() == 0
