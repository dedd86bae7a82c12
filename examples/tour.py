"""A tour: write tables, break one, ask why, look at the report, undo it. Prints the transcript of the console.

    python examples/tour.py [PAGE]

The rows are flights out of New York City. Values that differ between runs are masked, as in the transcript of
the walk-through. With PAGE the transcript replaces the one between the markers on that page.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from answers_transcript import AnswersMask
from ledger_transcript import entry, print_or_replace

WRITE = "deltawitness run --quiet --job monthly -- python monthly.py lake 1 2 3 4 5"
BREAK = "deltawitness run --quiet --job monthly -- python monthly.py lake --raw 6"

LINES = (
    "# Write: a job loads five months, and derives two tables from each.",
    WRITE,
    "deltawitness runs --job load --limit 3",
    "deltawitness lineage worst --columns --column delay",
    "# Break: the flights of June are read without the text that their file has for a missing value.",
    BREAK,
    "# Ask: what failed, what did the run write before, and what depends on that?",
    "deltawitness errors",
    "deltawitness show {failed}",
    "deltawitness impact weather",
    "# Look: the same on one page.",
    "deltawitness report --output report.html",
    "# Undo: the weather of June goes, too.",
    "deltawitness undo {failed} --apply",
    "# Load June as it should be.",
    "deltawitness run --quiet --job monthly -- python monthly.py lake 6",
    "deltawitness regressions --min-seconds 60",
)
"""The commands. The name in braces is the id of the run that failed."""

SIZE = re.compile(r"\(\d+ KiB\)")
LATE = re.compile(
    r", \d+ late tables?"
)  # on a slow machine, the time between two months is unusual
PROGRAMS = ("monthly.py", "lakehouse.py")


def play(folder: str, lines: Iterable[str] = LINES) -> str:
    """Run commands in a folder, which gets the tables and the ledger, and return the transcript."""
    for name in PROGRAMS:
        shutil.copy(Path(__file__).with_name(name), folder)
    mask, failed, texts = AnswersMask(folder), "", []
    for line in lines:
        text = entry(line.format(failed=failed), folder, mask)
        if line == "deltawitness errors":
            (failed,) = set(re.findall(r"\b[0-9a-f]{8}-[0-9a-f]{4}\b", text))
        texts.append(LATE.sub("", SIZE.sub("(60 KiB)", mask(text))))
    return "".join(texts).lstrip("\n")


def transcript() -> str:
    with tempfile.TemporaryDirectory() as folder:
        return play(folder)


if __name__ == "__main__":
    print_or_replace(transcript())
