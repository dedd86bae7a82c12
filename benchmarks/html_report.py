"""Time the HTML report of a ledger of 100,000 operations, and measure the file.

    python benchmarks/html_report.py [--rows N] [--rounds N] [--keep FOLDER]

The rows are those of `benchmarks/answers.py`: 200 tables, 60 jobs, 180 days. The report is of all of them, by a new
process, as in a terminal. With --keep, the ledger is left in FOLDER, and used again if it is there.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

from answers import cpu_seconds, generate

SECONDS, BYTES = 3.0, 5_000_000


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--keep", type=Path)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = chosen.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        names = folder / "names.json"
        if not names.exists():
            names.write_text(json.dumps(generate(folder.absolute(), chosen.rows)))
        path = Path(temporary, "report.html")
        line = [sys.executable, "-m", "deltawitness", "report", "--root", str(folder)]
        line += ["--since", "2020-01-01", "-o", str(path), "--json"]
        taken, used = [], []
        for number in range(chosen.rounds + 1):
            started, before = time.perf_counter(), cpu_seconds()
            done = subprocess.run(line, check=True, stdout=subprocess.PIPE)  # noqa: S603 - our own program
            if number:  # the first round fills the cache of the file system
                taken.append(time.perf_counter() - started)
                used.append(cpu_seconds() - before)
        found = json.loads(done.stdout)
    print(
        f"Python {platform.python_version()}, deltalake {version('deltalake')}, {os.cpu_count()} CPUs"
    )
    print(f"{found['operations']:,} operations, {found['left_out']:,} of them only in sums")
    median = statistics.median(taken)
    cpu = statistics.median(used)
    print(
        f"seconds: median {median:.2f}, slowest {max(taken):.2f}, CPU time {cpu:.2f} (goal {SECONDS:.0f} of CPU time)"
    )
    print(f"bytes: {found['bytes']:,} (goal {BYTES:,})")
    is_good = cpu <= SECONDS and found["bytes"] <= BYTES
    print("within the goals" if is_good else "a goal is missed")


if __name__ == "__main__":
    main()
