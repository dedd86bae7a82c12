"""An interrupt (SIGINT) of a command that still imports, or that runs, ends it with 130 and without a traceback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import typer

from deltawitness import command_interrupt
from deltawitness.cli.app import app
from helpers.sizes import cases

pytestmark = pytest.mark.slow

SITE = """
import os, signal, sys

class Interrupting:
    \"\"\"Sends SIGINT to the process once, when a module is looked for.\"\"\"

    def find_spec(self, name, path=None, target=None):
        wanted = os.environ["INTERRUPTED_IMPORT"]
        app = sys.modules.get("deltawitness.cli.app")
        if name == wanted or (wanted == "any" and hasattr(app, "_create_app")):
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupting())
"""
"""A module `sitecustomize` that interrupts an import; `any` is the first one after that of the application."""

SCRIPT = [str(Path(sys.executable).parent / "deltawitness")]
FORMS = {
    "script": SCRIPT,
    "-m": [sys.executable, "-X", "utf8", "-m", "deltawitness"],
    "main()": [sys.executable, "-c", "from deltawitness.cli import main; main()"],
}
"""How the command may be started."""

MODULES = ["deltawitness.run", "deltawitness.cli", "typer", "deltawitness.cli.runs", "any"]


def interrupted(command, module, folder, **options):
    """Run a command and interrupt it when it imports a module."""
    (folder / "sitecustomize.py").write_text(SITE)
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, "INTERRUPTED_IMPORT": module},
        capture_output=True,
        text=True,
        timeout=60,
        **options,
    )


# A program that imports the package and calls `main()` is the command only then.
STARTS = [
    (form, module)
    for form in FORMS
    for module in MODULES
    if form != "main()" or module not in {"deltawitness.run", "deltawitness.cli"}
]


@pytest.mark.parametrize(("form", "module"), STARTS)
def test_an_interrupted_import_ends_the_command(form, module, tmp_path):
    """The exit code is 130, and nothing is printed; the command has not begun."""
    done = interrupted([*FORMS[form], "runs", "--help"], module, tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def commands():
    """Return the words of each command."""
    tree = typer.main.get_command(app)
    return [
        (name, *([inner] if inner else []))
        for name, command in tree.commands.items()
        for inner in getattr(command, "commands", {None: None})
    ]


COMMANDS = {" ".join(words): words for words in commands()}


@pytest.mark.parametrize("words", cases(COMMANDS, ["diff", "ledger verify", "run"]))
def test_every_command_ends_at_an_interrupt(words, tmp_path):
    """An interrupt of the first import of a command that runs is no traceback either."""
    done = interrupted([*SCRIPT, *COMMANDS[words], "--help"], "any", tmp_path)
    assert (done.returncode, "Traceback" in done.stderr) == (130, False)


def test_a_program_that_imports_the_package_is_interrupted_as_usual(tmp_path):
    """KeyboardInterrupt reaches a program, also one with the words of the command as its own arguments."""
    program = """
        import signal
        try:
            import deltawitness
        except KeyboardInterrupt:
            print("interrupted", signal.getsignal(signal.SIGINT) is signal.default_int_handler)
    """
    command = [sys.executable, "-c", textwrap.dedent(program), "-m", "deltawitness"]
    done = interrupted(command, "deltawitness.run", tmp_path)
    assert (done.returncode, done.stdout) == (0, "interrupted True\n")


@pytest.mark.parametrize(
    ("script", "words", "expected"),
    [
        ("BIN/deltawitness", [], True),
        ("BIN/deltawitness.exe", [], True),
        ("BIN/other", [], False),
        ("/elsewhere/deltawitness", [], False),
        ("deltawitness.py", [], False),
        ("-m", ["-X", "utf8", "-m", "deltawitness", "runs"], True),
        ("-m", ["-m", "pytest", "-m", "deltawitness"], False),
        ("-m", ["-m", "deltawitness.cli"], False),
        ("-c", ["-c", "pass", "-m", "deltawitness"], False),
        ("", [], False),
    ],
)
def test_how_a_process_is_the_command(script, words, expected, monkeypatch):
    """The script beside the interpreter and `-m deltawitness` are; a program of the same name is not."""
    script = script.replace("BIN", str(Path(sys.executable).parent))
    monkeypatch.setattr(sys, "argv", [script])
    monkeypatch.setattr(sys, "orig_argv", [sys.executable, *words])
    assert command_interrupt.is_command() is expected


def test_a_handler_of_the_program_stays(monkeypatch):
    """Only the default handler is replaced, and only on the main thread."""
    before = signal.getsignal(signal.SIGINT)
    try:
        for handler in (signal.SIG_IGN, lambda *_: None):
            signal.signal(signal.SIGINT, handler)
            command_interrupt.exit_at_interrupt()
            assert signal.getsignal(signal.SIGINT) is handler
            command_interrupt.raise_at_interrupt()
            assert signal.getsignal(signal.SIGINT) is handler
        signal.signal(signal.SIGINT, signal.default_int_handler)
        command_interrupt.exit_at_interrupt()
        assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
        command_interrupt.raise_at_interrupt()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


HANDLER = "import signal; print(signal.getsignal(signal.SIGINT) is signal.{})"


@pytest.mark.parametrize(
    ("ignored", "handler"), [(False, "default_int_handler"), (True, "SIG_IGN")]
)
def test_the_program_of_run_starts_with_the_handler_that_it_has_without_it(
    ignored, handler, tmp_path
):
    """`deltawitness run` changes nothing of what the program does at an interrupt."""
    program = [sys.executable, "-c", HANDLER.format(handler)]
    before = signal.signal(signal.SIGINT, signal.SIG_IGN) if ignored else None
    try:
        done = subprocess.run(
            [*SCRIPT, "run", "--quiet", "--", *program],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
        )
    finally:
        if ignored:
            signal.signal(signal.SIGINT, before)
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr


EARLY = """
import os, signal, subprocess, sys

class Popen(subprocess.Popen):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        os.kill(os.getpid(), signal.SIGINT)  # before the command forwards signals

from deltawitness.cli import program
program.subprocess.Popen = Popen
ended = program.run_program(["sleep", "60"], dict(os.environ))
print(ended.code)
"""


def test_an_interrupt_during_the_start_reaches_the_program(tmp_path):
    """The command does not leave the program behind."""
    done = subprocess.run(
        [sys.executable, "-c", EARLY],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        start_new_session=True,
    )
    assert (done.returncode, done.stdout) == (0, f"{-signal.SIGINT}\n"), done.stderr
