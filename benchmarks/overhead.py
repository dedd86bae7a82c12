"""Measure the overhead of observing a write: interleaved variants, ratios of medians, an A/A control.

    python benchmarks/overhead.py [--rounds N] [--json FILE] [--case NAME]

The method and the variants are those of `deltawitness bench` (`deltawitness.bench`). There are more cases
here, and their tables are copies of local templates with logs of a fixed length.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from deltawitness.bench.measure import Case, machine, run_case, summary
from deltawitness.bench.worker import rows, sdk

__all__ = ["sdk"]  # the other benchmarks import it from here

TEN = (
    "bare",
    "bare again",
    "imported",
    "commit keys",
    "minimum",
    "no SDK",
    "all signals",
    "hand-written",
)
BY_URI = (*TEN, "reused handles", "pipeline")
MILLION = ("bare", "bare again", "all signals", "hand-written")
CASES = [
    Case(name="10 rows, append, handle, log 10", rows=10, mode="append", by="handle", log=10, variants=TEN),
    Case(name="10 rows, overwrite, handle, log 10", rows=10, mode="overwrite", by="handle", log=10, variants=TEN),
    Case(name="10 rows, append, URI, log 10", rows=10, mode="append", by="uri", log=10, variants=BY_URI),
    Case(name="10 rows, overwrite, URI, log 10", rows=10, mode="overwrite", by="uri", log=10, variants=BY_URI),
    Case(name="10 rows, append, handle, log 1000", rows=10, mode="append", by="handle", log=1000, variants=TEN),
    Case(name="10 rows, append, URI, log 1000", rows=10, mode="append", by="uri", log=1000, variants=BY_URI),
    Case(name="10 rows, overwrite, handle, log 1000", rows=10, mode="overwrite", by="handle", log=1000, variants=TEN),
    Case(name="10 rows, overwrite, URI, log 1000", rows=10, mode="overwrite", by="uri", log=1000, variants=BY_URI),
    Case(name="1 M rows, append, handle, log 10", rows=1_000_000, mode="append", by="handle", log=10, variants=MILLION),
    Case(name="1 M rows, append, URI, log 10", rows=1_000_000, mode="append", by="uri", log=10, variants=MILLION),
    Case(name="1 M rows, overwrite, handle, log 10", rows=1_000_000, mode="overwrite", by="handle", log=10, variants=MILLION),
    Case(name="1 M rows, overwrite, URI, log 10", rows=1_000_000, mode="overwrite", by="uri", log=10, variants=MILLION),
]  # fmt: skip


def template(case: Case, folder: Path) -> Path:
    """Create a table with a log of the case's length, to be copied for each variant."""
    from deltalake import DeltaTable, write_deltalake

    place, data = folder / "template", rows(case.rows).slice(0, 10)
    write_deltalake(place, data)
    table = DeltaTable(place)
    for _ in range(case.log - 1):
        write_deltalake(table, data, mode="append")
    return place


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=200, help="rounds per case")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--case", help="only the cases whose name has this text in it")
    arguments = parser.parse_args()
    results = []
    print("| case | variant | median | ratio of medians | median of ratios | ratio of means |")
    print("|---|---|---|---|---|---|")
    for case in CASES:
        if arguments.case and arguments.case not in case.name:
            continue
        rounds = max(20, arguments.rounds // (10 if case.rows > 10 or case.log > 100 else 1))
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder)
            times = run_case(case, rounds, folder, template=template(case, place))
        for line in summary(case, times):
            results.append(asdict(line))
            print(
                f"| {line.case} | {line.variant} | {line.median_us:.0f} us "
                f"| {line.ratio_of_medians:.3f} | {line.median_of_ratios:.3f} "
                f"| {line.ratio_of_means:.3f} |",
                flush=True,
            )
    print(f"\n{machine()}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine(), "results": results}, indent=2))


if __name__ == "__main__":
    sys.exit(main())
