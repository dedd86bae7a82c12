"""Ask questions about the writes of a program, and print the transcript of the console.

    python examples/answers_transcript.py [PAGE]

Values that differ between runs are masked, as in the transcript of the ledger. With PAGE the transcript
replaces the one between the markers on that page.
"""

from __future__ import annotations

import re
import socket
import tempfile
from pathlib import Path

from ledger_transcript import Mask, entry, print_or_replace

PROGRAMS = ("questions.py", "totals.py", "late_orders.py")

LINES = (
    "deltawitness run --quiet --job orders --message 'orders of March' -- python questions.py lake/orders",
    "# What failed, and has it landed?",
    "deltawitness errors --since 7d",
    "# Which run wrote this version, why, and how?",
    "deltawitness show orders@2",
    "# Which writes have deleted rows?",
    "deltawitness writes --operation delete",
    "# What has a run done, with the runs that it opened?",
    "deltawitness show {first_run}",
    "# What was a table made from? The program compacts the orders first, which changes no row.",
    "deltawitness run --quiet --job totals -- python totals.py lake",
    "deltawitness lineage report",
    "# From which columns were the totals made?",
    "deltawitness lineage totals --columns",
    "# The orders change: what depends on them, and what is stale now?",
    "deltawitness run --quiet --job late -- python late_orders.py lake",
    "deltawitness impact orders",
    "# A program that nothing observes deletes everything.",
    "python -c 'import deltalake; deltalake.DeltaTable(\"lake/orders\").delete()'",
    "deltawitness show orders",
    "# Which rows has the run changed after its first write, and by which operations?",
    "deltawitness diff orders 0 2 --key id --show-rows",
    "# Can the correction be undone?",
    "deltawitness undo {second_run}",
    "# Yes, if the deletion after it may be discarded.",
    "deltawitness undo {second_run} --apply --discard-later",
    "deltawitness undo {second_run}",
)

ISO_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}")
PID = re.compile(r"\(pid \d+\)")


class AnswersMask(Mask):
    """Masks the folder, the machine and the process as well."""

    def __init__(self, folder: str) -> None:
        super().__init__()
        self._folder = folder

    def __call__(self, text: str) -> str:
        masked = ISO_TIME.sub("2026-01-01T00:00:00", text).replace(self._folder, "/home/ann")
        masked = masked.replace(f" {socket.gethostname()} ", " worker ")
        return super().__call__(PID.sub("(pid 1)", masked))


def transcript() -> str:
    with tempfile.TemporaryDirectory() as folder:
        for name in PROGRAMS:
            (Path(folder) / name).write_text(Path(__file__).with_name(name).read_text())
        mask = AnswersMask(folder)
        return "".join(mask(entry(line, folder, mask)) for line in LINES).lstrip("\n")


if __name__ == "__main__":
    print_or_replace(transcript())
