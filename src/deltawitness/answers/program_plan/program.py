"""Check that a command is a Python program whose tables are redirected, before it is started."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path

from deltawitness.exceptions import PlanError
from deltawitness.processes import is_python_name
from deltawitness.semconv import Env

__all__ = ["check_program", "hashes_of_files"]

_ISOLATING = re.compile(r"-[A-Za-z]*[IES]")
_WITH_VALUE = re.compile(r"-[A-Za-z]*[WX]")

_PROBE = "import sys; sys.exit(0 if 'deltawitness.activation' in sys.modules else 3)"
_PROBE_SECONDS = 60

_MAX_HASHED_BYTES = 64 << 20


def check_program(command: Sequence[str], environment: Mapping[str, str]) -> None:
    """Check that a program redirects its tables; otherwise it would write them.

    Args:
        command: the program and its arguments.
        environment: the environment in which it starts.

    Raises:
        PlanError: it is not a Python program, or its Python does not load this package.
    """
    program = shutil.which(command[0], path=environment.get("PATH"))
    if program is None:
        msg = f"{command[0]}: command not found"
        raise PlanError(msg)
    words = _interpreter(program, command, environment)
    if words is None:
        msg = (
            f"{command[0]} is not a Python program, so its writes may not be redirected;"
            " use --any-program (`any_program`) if only Python processes write tables"
        )
        raise PlanError(msg)
    options = _options(words[1:])
    if any(_ISOLATING.match(word) for word in options):
        msg = (
            "a program that Python runs with -I, -E or -S cannot be planned: it ignores PYTHONPATH"
        )
        raise PlanError(msg)
    probe = [words[0], *options, "-c", _PROBE]
    off = {Env.ACTIVATE.value, Env.PLAN_FOLDER.value}  # the package is loaded, and does nothing
    plain = {name: value for name, value in environment.items() if name not in off}
    try:
        done = subprocess.run(  # noqa: S603 - the interpreter of the command
            probe, env=plain, capture_output=True, timeout=_PROBE_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        reason = (
            "takes too long" if isinstance(error, subprocess.TimeoutExpired) else error.strerror
        )
        msg = f"{words[0]} cannot be started: {reason}"
        raise PlanError(msg) from error
    if done.returncode:
        msg = f"deltawitness is not installed for {words[0]}, so its writes would not be redirected"
        raise PlanError(msg)


def _interpreter(
    program: str, command: Sequence[str], environment: Mapping[str, str]
) -> list[str] | None:
    """Return the Python interpreter of a command, and the words after it; None if it has none."""
    if is_python_name(Path(program).name):
        return [program, *command[1:]]
    try:
        with Path(program).open("rb") as file:
            first = file.readline(512)
    except OSError:
        return None
    if not first.startswith(b"#!"):
        return None
    try:
        words = shlex.split(first[2:].decode("utf-8", "replace"))
    except ValueError:  # a quote is left open
        return None
    if words and Path(words[0]).name == "env":
        words = [word for word in words[1:] if word not in {"-S", "--split-string"}]
        found = shutil.which(words[0], path=environment.get("PATH")) if words else None
        words = [found, *words[1:]] if found else []
    if words and is_python_name(Path(words[0]).name):
        return [*words, program]
    return None


def _options(words: Sequence[str]) -> list[str]:
    """Return the options of the interpreter, before its script, `-m` or `-c`."""
    found: list[str] = []
    rest = iter(words)
    for word in rest:
        is_program = not word.startswith("-") or word == "-"
        if is_program or (word[1:2] != "-" and word[-1:] in {"c", "m"}):
            break
        found.append(word)
        if _WITH_VALUE.fullmatch(word):
            found.extend(value for value in [next(rest, None)] if value is not None)
    return found


def hashes_of_files(command: Sequence[str], directory: str | os.PathLike[str]) -> dict[str, str]:
    """Return the hash of each file that is an argument of a command, such as its script, by path.

    Args:
        command: the program and its arguments.
        directory: the working directory.
    """
    found = {}
    for word in command[1:]:
        path = Path(directory, word)
        try:
            if path.is_file() and path.stat().st_size <= _MAX_HASHED_BYTES:
                found[str(path)] = sha256(path.read_bytes()).hexdigest()
        except (OSError, ValueError):
            continue  # no path, such as a text with a null byte
    return found
