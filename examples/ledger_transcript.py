"""Kill a program half-way, repair the ledger, and print the transcript of the console.

    python examples/ledger_transcript.py [PAGE]

Values that differ between runs are masked: ids are numbered, times and durations are zero. With PAGE the
transcript replaces the one between the markers on that page.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

KILLED_RUN = Path(__file__).with_name("killed_run.py")

LINES = (
    "deltawitness run --quiet --job week -- python killed_run.py orders",
    "deltawitness runs",
    "deltawitness writes",
    "# The same again; this time the program deletes its spool before it is killed.",
    "deltawitness run --quiet --job week -- python killed_run.py orders .deltawitness/cache_spool",
    "# Once more, without observation.",
    "python killed_run.py orders",
    "deltawitness reconcile orders",
    "deltawitness reconcile orders --apply",
    "deltawitness reconcile orders",
    "deltawitness ledger verify",
    "deltawitness writes",
    "deltawitness show {first_run}",
)

BEGIN = "<!-- transcript: begin -->\n```text\n"
END = "```\n<!-- transcript: end -->"

PROGRAMS = {"deltawitness": [sys.executable, "-m", "deltawitness"], "python": [sys.executable]}

RUN_ID = re.compile(r"\b([0-9a-f]{8}-[0-9a-f]{4})((?:-[0-9a-f]{4}){2}-[0-9a-f]{12})?\b")
TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d")
DURATION = re.compile(r"(?<=  )\d+\.\d{3}\b")
DURATION_IN_TEXT = re.compile(r"\b\d+\.\d{3}\b")


class Mask:
    """Replaces values that differ between runs by constants of the same width."""

    def __init__(self) -> None:
        self._numbers: dict[str, str] = {}
        self.run_ids: list[str] = []

    def __call__(self, text: str) -> str:
        masked = TIME.sub("2026-01-01 00:00:00", RUN_ID.sub(self._number, text))
        in_cells = DURATION.sub(lambda found: "0.000".rjust(len(found[0])), masked)
        return DURATION_IN_TEXT.sub("0.000", in_cells)

    def _number(self, found: re.Match[str]) -> str:
        if found[1] not in self._numbers:
            self._numbers[found[1]] = f"{len(self._numbers) + 1:08d}-0000"
            self.run_ids.append(found[0])
        return self._numbers[found[1]] + re.sub(r"[0-9a-f]", "0", found[2] or "")


def transcript() -> str:
    mask = Mask()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "killed_run.py").write_text(KILLED_RUN.read_text())
        return "".join(mask(entry(line, folder, mask)) for line in LINES)


def entry(line: str, folder: str, mask: Mask, exported: Mapping[str, str] | None = None) -> str:
    """Return a line and its output; `exported` are variables of its environment."""
    if line.startswith("#"):
        return f"\n{line}\n"
    first, second = [*mask.run_ids, "", ""][:2]
    line = line.format(first_run=first, second_run=second)
    program, *arguments = shlex.split(line)
    program_and_arguments = [*PROGRAMS[program], *arguments]
    if "python" in arguments:
        at = len(PROGRAMS[program]) + arguments.index("python")
        program_and_arguments[at : at + 1] = PROGRAMS["python"]
    environment = {
        name: value
        for name, value in os.environ.items()
        if "DELTAWITNESS" not in name and not name.startswith(("OTEL_", "COLUMNS"))
    }
    output, code = execute(program_and_arguments, folder, environment | dict(exported or {}))
    shown = "".join(f"{text.rstrip()}\n" for text in output.splitlines())
    return f"$ {line}\n{shown}{ending(code)}"


def execute(command: list[str], folder: str, environment: dict[str, str]) -> tuple[str, int]:
    """Run a command in a folder; return its output with its error output, and its exit code."""
    done = subprocess.run(  # noqa: S603 - the lines above
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.stdout, done.returncode


def ending(code: int) -> str:
    if code < 0:
        return f"[ended by {signal.Signals(-code).name}]\n"
    return f"[exit code {code}]\n" if code else ""


def print_or_replace(text: str) -> None:
    """Print a transcript; with the path of a page as argument, replace it between the markers there."""
    if len(sys.argv) == 1:
        print(text, end="")
        return
    page = Path(sys.argv[1])
    before, rest = page.read_text().split(BEGIN)
    page.write_text(before + BEGIN + text + END + rest.split(END, 1)[1])


if __name__ == "__main__":
    print_or_replace(transcript())
