"""Compare the overhead of two revisions in one run: interleaved, ratios of medians, an A/A control.

    python benchmarks/revisions.py BASE [--rounds N]

The sources of the revision BASE of the repository write in processes of their own, with the packages of
this environment, in turns with the present sources. The control `all signals @ control` runs a second copy
of the present sources: the distance of its ratio from 1 is the noise of the run.
"""

from __future__ import annotations

import argparse
import io
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import replace
from pathlib import Path

from overhead import template

from deltawitness.bench.measure import Case, machine, run_case

REPOSITORY = Path(__file__).parents[1]
PRESENT = "present"
VARIANTS = ("no SDK", "all signals", "pipeline")
CASES = [
    Case(
        name=f"{rows:,} rows, {mode}, {by}",
        rows=rows,
        mode=mode,
        by=by,
        log=10,
        variants=tuple(
            f"{variant} @ {name}"
            for variant in VARIANTS
            if variant != "pipeline" or by == "uri"
            for name in ("base", PRESENT, "control")
        ),
    )
    for rows, mode, by in [
        (10, "append", "handle"),
        (10, "overwrite", "handle"),
        (10, "append", "uri"),
    ]
]


def sources_of(revision: str, folder: Path) -> Path:
    """Extract the sources of a revision into a folder, and return the folder of its packages."""
    git = shutil.which("git") or sys.exit("git is needed to read the revision")
    archive = subprocess.run(  # noqa: S603 - the revision is an argument of this developer's command
        [git, "archive", "--end-of-options", revision, "src"],
        cwd=REPOSITORY,
        capture_output=True,
        check=True,
    ).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        files.extractall(folder, filter="data")
    return folder / "src"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("base", help="revision that the present sources are compared with")
    parser.add_argument("--rounds", type=int, default=300, help="rounds per case")
    arguments = parser.parse_args()
    print("| case | variant | base | present | present / base | control / present |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        sources = {
            "base": sources_of(arguments.base, place / "base"),
            PRESENT: REPOSITORY / "src",
            "control": REPOSITORY / "src",
        }
        for case in CASES:
            with tempfile.TemporaryDirectory() as tables:
                times = run_case(
                    replace(case, sources=sources),
                    arguments.rounds,
                    tables,
                    template=template(case, Path(tables)),
                )
            medians = {variant: statistics.median(taken) / 1e3 for variant, taken in times.items()}
            for variant in VARIANTS:
                if f"{variant} @ base" in medians:
                    base, present, control = (medians[f"{variant} @ {name}"] for name in sources)
                    print(
                        f"| {case.name} | {variant} | {base:.0f} us | {present:.0f} us "
                        f"| {present / base:.3f} | {control / present:.3f} |",
                        flush=True,
                    )
    print(f"\n{machine()}")


if __name__ == "__main__":
    sys.exit(main())
