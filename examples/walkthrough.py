"""Follow a bad batch from its discovery to its undo, and print the transcript of the console.

    python examples/walkthrough.py [PAGE]

The batches are the flights of nine days out of New York City. Values that differ between runs are masked, as
in the transcript of the answers. With PAGE the transcript replaces the one between the markers on that page.
"""

from __future__ import annotations

import csv
import io
import re
import tempfile
import zipfile
from collections.abc import Iterable
from itertools import takewhile
from pathlib import Path

from answers_transcript import AnswersMask
from lakehouse import data_folder
from ledger_transcript import entry, print_or_replace

Row = dict[str, str]

DAYS = range(1, 10)
TOO_LATE = "arr_delay > 24 * 60"

LINES = (
    "# Eight nights: each loads a delivery, and derives two tables from it.",
    "deltawitness run --quiet --job nightly -- python nightly.py lake deliveries 1 2 3 4 5 6 7 8",
    "# The ninth night. The job ends without an error.",
    "deltawitness run --quiet --job nightly -- python nightly.py lake deliveries 9",
    "# In the morning: is anything unusual?",
    "deltawitness overdue",
    "deltawitness regressions --min-seconds 60",
    "# The report has flights that are more than a day late. Since when, and by which input?",
    f"deltawitness bisect report --bad '{TOO_LATE}'",
    "# Was it the code, or the environment?",
    "deltawitness diff {last_load} {load}",
    "# Which run does the load belong to? Run its queries again, on the versions that they have read.",
    "deltawitness show {load}",
    "deltawitness verify {bad}",
    "# They compute what is stored: the delivery is wrong, and with it all that was made from it.",
    "deltawitness impact flights@8",
    "# Can the night be undone?",
    "deltawitness undo {bad}",
    "deltawitness undo {bad} --apply",
    "# Are the rows those of the evening before?",
    "deltawitness diff report 7 9",
    "# What is the report made from now?",
    "deltawitness lineage report",
    "# What would the job do with the corrected delivery?",
    "deltawitness plan --job nightly -- python nightly.py lake corrected 9",
    "deltawitness apply {plan}",
    "# Is everything as usual again?",
    "deltawitness overdue",
    f"deltawitness bisect report --good 9 --bad '{TOO_LATE}'",
    "deltawitness verify {good}",
    "# What was wrong in the morning?",
    "deltawitness diff daily 8 10 --key day,carrier --show-rows --limit 2",
)
"""The commands. The names in braces are ids of runs that an earlier command has printed."""

KEEP_PLANS = {"DELTAWITNESS_KEEP_WRITE_PLANS": "true"}
EXPORT = "".join(f"$ export {name}={value}\n" for name, value in KEEP_PLANS.items())

PRINTED = {
    "last_load": r"^what differs: deltawitness diff (\S+)",
    "load": r"^what differs: deltawitness diff \S+ (\S+)",
    "bad": r"^child of run (\S+)",
    "plan": r"^run it: deltawitness apply (\S+)",
    "good": r"^run (\S+)  job nightly",
}
"""Where the output has the ids, as regular expressions."""


def flights() -> Iterable[Row]:
    """Return the flights of the first days, with the values as text."""
    with zipfile.ZipFile(data_folder() / "flights.csv.zip") as archive:
        (name,) = (each for each in archive.namelist() if each.endswith("flights.csv"))
        with archive.open(name) as content:
            rows = csv.DictReader(io.TextIOWrapper(content))
            yield from takewhile(lambda row: (row["month"], int(row["day"])) <= ("1", 9), rows)


def deliver(place: Path, rows: Iterable[Row]) -> None:
    first, *others = rows
    with place.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(first))
        writer.writeheader()
        writer.writerows([first, *others])


def in_seconds(minutes: str) -> str:
    return minutes if minutes == "NA" else str(int(minutes) * 60)


def deliver_all(folder: Path) -> None:
    """Write the deliveries. On the ninth day only Newark has delivered, with delays in seconds."""
    by_day: dict[int, list[Row]] = {day: [] for day in DAYS}
    for row in flights():
        by_day[int(row["day"])].append(row)
    for name in ("deliveries", "corrected"):
        (folder / name).mkdir()
    for day, rows in by_day.items():
        deliver(folder / f"deliveries/2013-01-{day:02}.csv", rows)
    ninth = by_day[9]
    newark = [row for row in ninth if row["origin"] == "EWR"]
    bad = [row | {"arr_delay": in_seconds(row["arr_delay"])} for row in newark]
    deliver(folder / "deliveries/2013-01-09.csv", bad)
    deliver(folder / "corrected/2013-01-09.csv", ninth)


def transcript() -> str:
    with tempfile.TemporaryDirectory() as folder:
        deliver_all(Path(folder))
        name = "nightly.py"
        (Path(folder) / name).write_text(Path(__file__).with_name(name).read_text())
        mask, ids, texts = AnswersMask(folder), dict.fromkeys(PRINTED, ""), [EXPORT]
        for line in LINES:
            text = entry(line.format(**ids), folder, mask, KEEP_PLANS)
            for run, pattern in PRINTED.items():
                found = re.search(pattern, text, re.MULTILINE)
                ids[run] = found[1] if found else ids[run]
            texts.append(mask(text))
    return "".join(texts)


if __name__ == "__main__":
    print_or_replace(transcript())
